"""Says when a file has changed, by the system's own events.

The folder is watched and not the file: editors write a new file and rename it over the old one,
and a watch on the old one would fall silent. Some places send no events (network drives, shared
folders of containers, a link's target elsewhere, a folder that was replaced), so that once a
second one look at the file's time and size catches what they did not tell.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable, Set
from pathlib import Path
from typing import TypeAlias

from watchfiles import awatch

_log = logging.getLogger(__name__)

_DEBOUNCE_MS = 200  # an editor's burst of events is told once
_STEP_MS = 50
_LOOK_EVERY_MS = 1000

_Signature: TypeAlias = tuple[int, ...] | None

OnChange: TypeAlias = Callable[[], Awaitable[object]]
"""Called after a change; the next one is told when it has returned."""


async def watch(path: Path, on_change: OnChange, stop: asyncio.Event) -> None:
    """Calls back whenever a file changes, vanishes or comes back, until told to stop.

    It calls once at the beginning too: nobody knows what changed between the moment the file was
    read and the moment the watch began. Other files of the folder call nothing. A folder that goes
    away is waited for.

    Args:
        path: the file; it need not exist yet.
        on_change: what it raises is logged and the watch goes on.
        stop: set it to end the watch.
    """
    watched = _Watched(path, on_change)
    await watched.tell()
    while not stop.is_set():
        try:
            await watched.follow(stop)
        except OSError as error:
            # There is no such folder now, or the system has no watches left.
            _log.debug("Can't watch %s: %s", watched.path.parent, error)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _LOOK_EVERY_MS / 1000)
            await watched.look(frozenset())


class _Watched:
    """The file, as it was when it was last told about."""

    def __init__(self, path: Path, on_change: OnChange) -> None:
        self.path = Path(os.path.abspath(path))  # noqa: PTH100 - absolute() keeps dots
        self._on_change = on_change
        self._seen = _signature(self.path)

    async def follow(self, stop: asyncio.Event) -> None:
        """Watches until told to stop or the folder is another one.

        Raises:
            OSError: the folder can't be watched.
        """
        folder = self.path.parent
        identity = folder.stat().st_ino
        changes = awatch(
            folder,
            watch_filter=None,
            debounce=_DEBOUNCE_MS,
            step=_STEP_MS,
            rust_timeout=_LOOK_EVERY_MS,
            yield_on_timeout=True,
            recursive=False,
            stop_event=stop,
        )
        async with contextlib.aclosing(changes):
            async for batch in changes:
                await self.look({Path(changed).name for _, changed in batch})
                if folder.stat().st_ino != identity:
                    return

    async def look(self, changed: Set[str]) -> None:
        """Calls back where the file is among the changed names or looks different."""
        now = _signature(self.path)
        if now == self._seen and not (now and self.path.name in changed):
            return
        self._seen = now
        await self.tell()

    async def tell(self) -> None:
        """Calls back."""
        try:
            await self._on_change()
        except Exception:
            _log.exception("A change of %s could not be followed.", self.path)


def _signature(path: Path) -> _Signature:
    """Returns what differs between two versions of a file; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
