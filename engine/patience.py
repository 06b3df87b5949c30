"""(pure) How long a step loop may be silent before its process counts as hanging."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

SILENCE_SECONDS = {"cpu": 1800.0, "cuda": 300.0}
"""How long the step loop may say nothing, by kind of device, before its process counts as hanging.

The longest that it works in silence is one round: the prompts of those who join, one forward pass
of all the rows that fit, a few decodes. That takes seconds on a good GPU, a minute or two on the
weakest that hold an SDXL model, and many minutes on a CPU.
"""

LOADING_SECONDS = 1800.0
"""How long it may say nothing while it loads a model: the largest, from a slow disk."""

LEAST_SILENCE_SECONDS = 300.0
"""Silence that is never too long, whatever was measured."""

SLOWNESS = 20.0
"""How many times as long as measured a round may take, on a machine that has much else to do."""

BEAT_SECONDS = 5.0
"""Seconds between two looks at whether the step loop has said something."""

Beat: TypeAlias = Callable[[], Awaitable[None]]
"""Waits until it is time to look once more; each counts as `BEAT_SECONDS`."""


async def beat() -> None:
    """Waits for `BEAT_SECONDS`."""
    await asyncio.sleep(BEAT_SECONDS)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a step loop may be silent before its process counts as hanging and is killed.

    Attributes:
        silence: seconds; None takes the device's of `SILENCE_SECONDS`.
        loading: the same while it loads a model, where that is longer.
        beat: waits between two looks.
    """

    silence: float | None = None
    loading: float = LOADING_SECONDS
    beat: Beat = beat

    def ends(
        self, kind: str, silent: int, *, loading: bool, longest_round: float | None = None
    ) -> float | None:
        """Returns the seconds that were too many; None where it may be silent for longer.

        Args:
            kind: of the device that it draws on, such as ``cpu`` or ``cuda:0``.
            silent: beats since its last word.
            loading: whether that word was that it loads a model.
            longest_round: seconds that a round of what it draws takes, measured in this very
                process; None where that isn't known.
        """
        usual = self.silence or SILENCE_SECONDS.get(kind.partition(":")[0], LOADING_SECONDS)
        if longest_round is not None:
            usual = min(usual, max(LEAST_SILENCE_SECONDS, SLOWNESS * longest_round))
        bound = max(usual, self.loading) if loading else usual
        return bound if silent * BEAT_SECONDS > bound else None
