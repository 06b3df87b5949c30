"""How late the event loop runs what is due: what every front end's answers are late by at least."""

import asyncio
from collections import deque
from collections.abc import Callable

PERIOD = 0.02
"""Seconds between two looks; what is shorter than this may go unseen."""

MEMORY = 60.0
"""Seconds that a look is remembered."""


class LoopLag:
    """Looks at its own event loop for as long as `run` runs."""

    def __init__(self, period: float = PERIOD, memory: float = MEMORY) -> None:
        self._period = period
        self._memory = memory
        self._looks: deque[tuple[float, float]] = deque()
        self._clock: Callable[[], float] | None = None

    async def run(self) -> None:
        """Measures until it is cancelled."""
        self._clock = asyncio.get_running_loop().time
        while True:
            due = self._clock() + self._period
            await asyncio.sleep(self._period)
            self._note(self._clock(), max(0.0, self._clock() - due))

    @property
    def worst(self) -> float:
        """The longest delay of the last minute, in seconds; 0 where nothing was measured yet."""
        if self._clock is not None:
            self._forget_until(self._clock() - self._memory)
        return max((lag for _, lag in self._looks), default=0.0)

    def _note(self, now: float, lag: float) -> None:
        # One that is neither newer nor longer will never be the longest again.
        while self._looks and self._looks[-1][1] <= lag:
            self._looks.pop()
        self._looks.append((now, lag))
        self._forget_until(now - self._memory)

    def _forget_until(self, moment: float) -> None:
        while self._looks and self._looks[0][0] < moment:
            self._looks.popleft()
