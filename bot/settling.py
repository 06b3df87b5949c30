"""How jobs end: their pictures are written, then how they ended is stored."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

from bot.database import StoreUnavailableError
from bot.front_ends import CARRIED, RESUMED
from bot.image_folder import ImageFolder
from bot.records import ImageRecord, JobRecord
from bot.store import Store
from engine.errors import DreamLabError, JobCancelledError, ModelError
from engine.jobs import GenerationResult, JobStatus

log = logging.getLogger(__name__)

T = TypeVar("T")


class Settler:
    """Stores how jobs end; while a full disk or a lock refuses that, again and again.

    Attributes:
        pause: seconds until something is stored anew that was refused.
        listeners: called once a job's end is stored, with the job as it ended.
    """

    def __init__(
        self, store: Store, images: ImageFolder, on_settled: Callable[[], None], pause: float
    ) -> None:
        """Takes what it uses, and what is called when a result may be waiting in the outbox."""
        self._store = store
        self._images = images
        self._on_settled = on_settled
        self.pause = pause
        self.listeners: list[Callable[[JobRecord, GenerationResult | DreamLabError], None]] = []
        self._closing = asyncio.Event()

    def close(self) -> None:
        """Has nothing be tried once more; the next start draws it again."""
        self._closing.set()

    async def settle_at_last(
        self,
        record: JobRecord,
        outcome: GenerationResult | DreamLabError,
        on_refusal: Callable[[], None],
    ) -> None:
        """Keeps a job's pictures and settles it, as often as it takes.

        Args:
            record: the job.
            outcome: what came of it.
            on_refusal: called each time that something can't be stored yet.

        Raises:
            StoreUnavailableError: it can't be stored, and is not tried once more.
            OSError: likewise.
        """
        images: list[ImageRecord] = []
        if isinstance(outcome, GenerationResult):
            day = datetime.now(UTC).date()
            keep = partial(asyncio.to_thread, self._images.keep, outcome, day)
            images = await self._at_last(record, keep, on_refusal)
        await self._at_last(record, partial(self.settle, record, outcome, images), on_refusal)

    async def settle(
        self,
        record: JobRecord,
        outcome: GenerationResult | DreamLabError,
        images: Sequence[ImageRecord] = (),
    ) -> None:
        """Stores how a job ended, in one transaction; its pictures' files are there already.

        Raises:
            StoreUnavailableError: that can't be stored just now.
        """
        if isinstance(outcome, GenerationResult):
            final = replace(record, status=JobStatus.DONE, seconds=outcome.seconds)
        elif isinstance(outcome, JobCancelledError):
            final = replace(record, status=JobStatus.CANCELLED)
        else:
            log.warning("Job %s failed: %s", record.id, outcome)
            final = replace(record, status=JobStatus.FAILED, error=told(outcome))
        carried = record.origin.front_end in CARRIED
        final = replace(final, finished_at=datetime.now(UTC))
        if await self._store.settle(final, images, carried=carried):
            for tell in self.listeners:
                tell(final, outcome)
        else:
            await asyncio.to_thread(self._images.remove, images)  # it had ended already
        if carried:
            self._on_settled()

    async def _at_last(
        self, record: JobRecord, store: Callable[[], Awaitable[T]], on_refusal: Callable[[], None]
    ) -> T:
        """Does what stores something as often as it takes; a command's user is told instead."""
        while True:
            try:
                return await store()
            except (StoreUnavailableError, OSError) as error:
                if self._closing.is_set() or record.origin.front_end not in RESUMED:
                    raise
                log.error("Job %s is drawn and can't be stored yet: %s", record.id, error)  # noqa: TRY400 # the reason says it all
            on_refusal()
            with suppress(TimeoutError):
                async with asyncio.timeout(self.pause):
                    await self._closing.wait()


def told(error: DreamLabError) -> str:
    """Returns an error's sentence for the asker, who has no business with the owner's folders."""
    if isinstance(error, ModelError):
        return error.told
    return str(error)
