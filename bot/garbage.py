"""Python's search for garbage: it stops the event loop, for longer the more there is to look at.

A thousand requests that wait take it most of a tenth of a second. So what a full search has found
in use is left out of the next ones, and all is looked at where nobody waits for anything.
"""

import asyncio
import gc
from collections.abc import Callable, Mapping
from contextlib import suppress

LOOK_SECONDS = 1.0
"""How often it is looked whether anybody waits for something."""

QUIET_LOOKS = 60
"""Looks in a row that nobody did, after which nobody is expected to notice a search."""

AT_THE_LATEST = 6 * 3600.0
"""Seconds after which all is searched though somebody waits."""

EVERY = 600.0
"""Least seconds between two searches of everything."""


async def search(
    is_idle: Callable[[], bool],
    every: float = EVERY,
    look: float = LOOK_SECONDS,
    at_the_latest: float = AT_THE_LATEST,
) -> None:
    """Sees to it until it is cancelled.

    Args:
        is_idle: whether nobody waits for anything.
        every: see `EVERY`.
        look: see `LOOK_SECONDS`.
        at_the_latest: see `AT_THE_LATEST`.
    """
    gc.freeze()
    gc.callbacks.append(_spare)
    try:
        while True:
            await asyncio.sleep(every)
            with suppress(TimeoutError):
                async with asyncio.timeout(at_the_latest):
                    await _quiet(is_idle, look)
            gc.unfreeze()
            gc.collect()
    finally:
        gc.callbacks.remove(_spare)


async def _quiet(is_idle: Callable[[], bool], look: float) -> None:
    """Waits until nobody has waited for anything for a while."""
    looks = 0
    while looks < QUIET_LOOKS:
        await asyncio.sleep(look)
        looks = looks + 1 if is_idle() else 0


def _spare(phase: str, found: Mapping[str, int]) -> None:
    if phase == "stop" and found["generation"] == 2:
        gc.freeze()
