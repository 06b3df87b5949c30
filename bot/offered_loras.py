"""The LoRAs that modes offer, read from the disk without holding anybody up."""

import asyncio
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, TypeAlias

from modes.mode_config import ModeConfig, OfferedLora

KEPT = 5.0
"""Seconds for which what was found is good enough for the next request, or the next letter."""

_Key: TypeAlias = tuple[Path | None, tuple[OfferedLora, ...]]


class _Look(NamedTuple):
    """What was found, or is about to be, and until when that counts."""

    found: asyncio.Future[Mapping[str, Path]]
    until: float


class OfferedLoras:
    """Looks in a thread, once for all who ask within some seconds.

    A folder may hold thousands of files, on a disk of another machine.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Takes the time in seconds."""
        self._clock = clock
        self._looks: dict[_Key, _Look] = {}

    def __len__(self) -> int:
        """How many modes' LoRAs are remembered."""
        return len(self._looks)

    async def of(self, mode: ModeConfig) -> Mapping[str, Path]:
        """Returns what `ModeConfig.offered_loras` does, or did up to `KEPT` seconds ago.

        Raises:
            OSError: the disk can't be read.
        """
        key = (mode.lora_folder, mode.loras_allowed)
        now = self._clock()
        look = self._looks.get(key)
        if look is None or look.until < now or _has_failed(look):
            self._looks = {old: look for old, look in self._looks.items() if look.until >= now}
            found = asyncio.ensure_future(asyncio.to_thread(mode.offered_loras))
            look = self._looks[key] = _Look(found, now + KEPT)
        return await asyncio.shield(look.found)


def _has_failed(look: _Look) -> bool:
    if not look.found.done():
        return False
    return look.found.cancelled() or look.found.exception() is not None
