"""Python's search for garbage: it stops the event loop, for longer the more there is to look at.

A thousand requests that wait take it most of a tenth of a second. So what a full search has found
in use is left out of the next ones, and all is looked at where nobody waits for anything.
"""

import asyncio
import gc
from collections.abc import Callable, Mapping

EVERY = 600.0
"""Seconds between two searches of everything, if then nothing is under way."""

AT_THE_LATEST = 36
"""After so many times in which something was, all is searched nevertheless."""


async def search(
    is_idle: Callable[[], bool], every: float = EVERY, at_the_latest: int = AT_THE_LATEST
) -> None:
    """Sees to it until it is cancelled.

    Args:
        is_idle: whether nobody would notice.
        every: see `EVERY`.
        at_the_latest: see `AT_THE_LATEST`.
    """
    gc.freeze()
    gc.callbacks.append(_spare)
    try:
        while True:
            for _ in range(at_the_latest):
                await asyncio.sleep(every)
                if is_idle():
                    break
            gc.unfreeze()
            gc.collect()
    finally:
        gc.callbacks.remove(_spare)


def _spare(phase: str, found: Mapping[str, int]) -> None:
    if phase == "stop" and found["generation"] == 2:
        gc.freeze()
