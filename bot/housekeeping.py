"""Housekeeping: what is too old or too much is forgotten, and files that belong to nobody go.

What goes is decided by pure functions; `Housekeeper` does it, a little at a time, at the start and
once an hour. Rows go before their files: a crash in between leaves files without rows, which the
next start sweeps, and never a row without its file.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bot.database import StoreError, open_for_reading
from bot.image_folder import ImageFolder, PictureFile
from bot.records import FinishedJob
from bot.store import Store

log = logging.getLogger(__name__)

EVERY = timedelta(hours=1)

SAFE_AGE = timedelta(hours=1)
"""Age from which a file without a row is nobody's: a command beside the bot writes files first."""

_AT_ONCE = 100
"""Jobs that one transaction forgets."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the owner lets be kept.

    Attributes:
        age: how long a finished job is kept; None is for ever.
        size: bytes of pictures that are kept; None is any number.
    """

    age: timedelta | None = None
    size: int | None = None


def expired(
    jobs: Sequence[FinishedJob],
    sizes: Mapping[str, int],
    limits: Limits,
    total: int,
    now: datetime,
) -> list[str]:
    """Returns the ids of the jobs that must go: all too old, and as many as make the rest fit.

    Args:
        jobs: those that may go, oldest first.
        sizes: bytes of each picture's file, by its path.
        limits: what may be kept.
        total: bytes of all pictures of jobs now, those of jobs that may not go included.
        now: the time.
    """
    gone: list[str] = []
    for job in jobs:
        too_old = limits.age is not None and now - job.finished_at > limits.age
        too_much = limits.size is not None and total > limits.size
        if not (too_old or too_much):
            break
        gone.append(job.id)
        total -= sum(sizes.get(path, 0) for path in job.paths)
    return gone


def strays(
    files: Mapping[str, PictureFile], oldest: datetime | None, started: datetime, now: datetime
) -> list[str]:
    """Returns the paths of files that a crash may have left without rows.

    Args:
        files: what is there.
        oldest: when the oldest job that is known was asked for. What is older than that is left
            alone: the database may have begun anew, and the pictures are the owner's.
        started: when this program started, whose own files have rows or are about to.
        now: the time.
    """
    if oldest is None:
        return []
    until = min(started, now - SAFE_AGE)
    return [path for path, file in files.items() if oldest <= file.written_at < until]


def forerunners(files: Mapping[str, PictureFile], oldest: datetime | None) -> list[str]:
    """Returns the paths of files from before the first job that is known.

    Those of them without rows are of a database that was here before: the owner's, whose budget
    is for what this program keeps.

    Args:
        files: what is there.
        oldest: when the oldest job that is known was asked for; None where there is none.
    """
    return [path for path, file in files.items() if oldest is None or file.written_at < oldest]


class Housekeeper:
    """Keeps the data folder within its limits."""

    def __init__(
        self,
        store: Store,
        images: ImageFolder,
        remove_sources: Callable[[Sequence[str]], Awaitable[None]],
        limits: Limits,
    ) -> None:
        """Takes what it uses, `SourceFiles.remove` included, and the owner's limits."""
        self._store = store
        self._images = images
        self._remove_sources = remove_sources
        self._limits = limits
        self._started = datetime.now(UTC)
        self._has_told = False

    async def run(self) -> None:
        """Tidies up now and every hour until it is cancelled."""
        while True:
            try:
                await self.tidy(datetime.now(UTC))
            except (StoreError, OSError) as error:
                log.warning("Tidying up is put off by an hour: %s", error)
            await asyncio.sleep(EVERY.total_seconds())

    async def tidy(self, now: datetime) -> None:
        """Sweeps what is nobody's, then forgets what is beyond the limits."""
        files = await asyncio.to_thread(self._images.survey)
        oldest = await self._store.oldest()
        stray = await self._store.unknown(strays(files, oldest, self._started, now))
        await self._remove(stray)
        if stray:
            log.info("%d picture files that belonged to no request are deleted.", len(stray))
        if self._limits == Limits():
            return
        owners = await self._store.unknown(forerunners(files, oldest))
        if self._limits.size is not None and owners and not self._has_told:
            self._has_told = True
            size = sum(files[path].size for path in owners) / 2**30
            log.warning(
                "%d picture files (%.2f GB) are older than all requests that are known, such as "
                "those of an earlier database. They stay, and DISK_BUDGET_GB does not count them; "
                "delete or move them yourself.",
                len(owners),
                size,
            )
        others = {*stray, *owners}
        sizes = {path: file.size for path, file in files.items() if path not in others}
        if forgotten := await self._forget(sizes, now):
            log.info("%d old requests are forgotten, their pictures deleted.", forgotten)
            while await self._store.shrink():
                pass

    async def _forget(self, sizes: Mapping[str, int], now: datetime) -> int:
        """Forgets what is beyond the limits, some at a time; returns how many."""
        total, forgotten = sum(sizes.values()), 0
        while True:
            jobs = await self._store.disposable(_AT_ONCE)
            ids = expired(jobs, sizes, self._limits, total, now)
            if not ids:
                return forgotten
            paths = await self._store.forget(ids)
            await self._remove(paths)
            forgotten += len(ids)
            total -= sum(sizes.get(path, 0) for path in paths)

    async def _remove(self, paths: Sequence[str]) -> None:
        sources = [path for path in paths if self._images.is_source(path)]
        await self._remove_sources(sources)
        drawn = [path for path in paths if path not in set(sources)]
        await asyncio.to_thread(self._images.discard, drawn)


def lost_pictures(database: Path, images: Path) -> tuple[int, int]:
    """Returns how many pictures have rows, and how many of those have no file. Blocks.

    Raises:
        sqlite3.Error: the database can't be read.
    """
    with closing(open_for_reading(database)) as db:
        paths = [row["path"] for row in db.execute("SELECT path FROM images")]
    return len(paths), sum(not (images / path).is_file() for path in paths)
