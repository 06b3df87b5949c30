"""The one service that every front end calls: submit, cancel, delete, watch, recover."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Self

from bot import policy
from bot.admission import Admission, covered
from bot.errors import UnknownJobError, refuse
from bot.export import Exporter
from bot.front_ends import RESUMED
from bot.history import History
from bot.house import House
from bot.image_folder import ImageFolder
from bot.intake import Intake
from bot.lineage import Lineage
from bot.live_jobs import LiveJobs
from bot.lookup import stored_image, stored_job
from bot.members import Members
from bot.mode_choices import ModeChoices
from bot.offered_loras import OfferedLoras
from bot.plots import Plotter
from bot.records import ImageRecord, JobRecord, JobView, Origin, Owner, Parent, Setback
from bot.remaker import Remaker
from bot.reports import Reports
from bot.samples import Samples
from bot.sessions import KeptSessions
from bot.settling import Settler
from bot.source_files import SourceFiles
from bot.steward import Steward
from bot.store import Store
from engine.errors import DreamLabError, JobCancelledError
from engine.jobs import JobStatus, RequestDraft
from engine.worker_pool import WorkerPool
from modes.catalog import ModeCatalog
from modes.mode_config import ModeConfig

CRASHES = 2
"""Crashes of the whole program while a job ran, after which it is not tried again."""

STORE_PAUSE = 5.0
"""Seconds until a result is stored anew that the disk or the database has refused."""

LAST_WORDS = 5.0
"""Seconds that somebody's results have to arrive before all that is kept of them goes."""

_POISONOUS = (
    "Dream Lab crashed each time while this was being drawn, so it is not tried again. "
    "Ask for it once more, perhaps smaller."
)


async def _nothing(_: str) -> None:
    """Waits for no results: nobody brings any."""


class Studio:
    """Owns every job from its request to its last state; it and its parts alone write statuses.

    Attributes:
        live: jobs that have not ended, and how many wait.
        remaker: asks for what is made of earlier requests.
        choices: the modes that places have chosen.
        admission: who is let do what where.
        loras: what modes offer.
        sources: files of pictures to draw from.
        members: what is whose.
        house: what places allow.
        lineage: what was made of what.
        reports: what moderators were told of.
        samples: pictures that show what modes draw.
        sessions: who is signed in to the page.
        exporter: packs what is somebody's.
        steward: pauses, loads and unloads, and keeps who did.
        past: how it went; the program has it run.
        plots: the same, drawn.
        begun_listeners: called when a job begins to be drawn.
        ended_listeners: called once a job's end is stored, with the job as it ended.
    """

    def __init__(
        self,
        store: Store,
        pool: WorkerPool,
        catalog: ModeCatalog,
        images: ImageFolder,
        on_settled: Callable[[], None] = lambda: None,
        store_pause: float = STORE_PAUSE,
        weights: Mapping[str, float] = MappingProxyType({}),
        brought_to: Callable[[str], Awaitable[None]] = _nothing,
    ) -> None:
        """Takes what it uses.

        Args:
            store: open.
            pool: draws.
            catalog: the modes.
            images: keeps the picture files.
            on_settled: called when a result may be waiting in the outbox.
            store_pause: seconds until a result is stored anew that was refused.
            weights: of roles whose members' turns count more or less; see `bot.priorities`.
            brought_to: waits until no result is on its way to an owner any more.
        """
        self._store = store
        self._catalog = catalog
        self._images = images
        self._brought_to = brought_to
        self.members = Members(store)
        self.house = House(store)
        self.lineage = Lineage(store)
        self.reports = Reports(store)
        self.samples = Samples(store)
        self.sessions = KeptSessions(store)
        self.exporter = Exporter(images.path, images.source_path)
        self.steward = Steward(store, pool, catalog)
        self.past = History(store, pool)
        self.plots = Plotter(self.past)
        self.admission = Admission(self.house, catalog)
        self.choices = ModeChoices(store, pool, catalog, self.steward)
        self.sources = SourceFiles(store, images)
        self._settler = Settler(store, images, on_settled, store_pause)
        self.live = LiveJobs(store, pool, self.steward, self._settler, self.sources)
        self.loras = OfferedLoras()
        self._intake = Intake(store, pool, catalog, self.sources, self.live, self.loras, weights)
        self.remaker = Remaker(
            store, catalog, self.lineage, self.admission, self._intake, self.sources
        )
        self.begun_listeners = self.live.begun_listeners
        self.ended_listeners = self._settler.listeners

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Waits until what the pool has ended is stored. Call it after the pool's shutdown."""
        self._settler.close()
        await self.plots.close()
        await self._intake.close()
        await self.live.close()

    # Asking

    async def submit(
        self,
        draft: RequestDraft,
        owner: Owner,
        origin: Origin,
        parent: Parent | None = None,
    ) -> JobRecord:
        """Stores a request and queues it; it is committed when this returns.

        Raises:
            NotAllowedError: the mode is for others; nothing was stored.
            RequestError: something in the draft is not allowed; likewise.
            QueueFullError: likewise.
            PoolClosedError: likewise.
        """
        (record,) = await self.submit_all([draft], owner, [origin], parent)
        return record

    async def submit_all(
        self,
        drafts: Sequence[RequestDraft],
        owner: Owner,
        origins: Sequence[Origin],
        parent: Parent | None = None,
    ) -> list[JobRecord]:
        """Stores several requests and queues them: all of them, or none.

        Args:
            drafts: what is asked for; all start from the first one's picture, if it has one.
            owner: who asks.
            origins: from where, for each; of one place.
            parent: what all of them are made of.

        Raises:
            DreamLabError: as `submit`, of any of them.
        """
        modes = []
        for draft, origin in zip(drafts, origins, strict=True):
            mode = (
                self._catalog.get(draft.mode)
                if draft.mode
                else await self.choices.mode_of(origin.place, origin.channels)
            )
            rules = await self.admission.enter(mode, owner, origin)
            modes.append(mode)
        image = drafts[0].image
        source = None if image is None else await self.sources.read(image)
        name = self.sources.name(source) if source else None
        requests = []
        for mode, draft, origin in zip(modes, drafts, origins, strict=True):
            if source and draft.width is None and draft.height is None:
                width, height = mode.size_like(source.width, source.height)
                draft = replace(draft, width=width, height=height)
            request = await self._intake.build(mode, draft, name)
            requests.append((request, covered(request, mode, origin)))
        return await self._intake.accept_all(requests, owner, rules, parent, source)

    async def try_out(
        self, mode: ModeConfig, draft: RequestDraft, owner: Owner, origin: Origin
    ) -> JobRecord:
        """Asks in words for a picture with a mode that need not be in force, such as an edited one.

        Raises:
            DreamLabError: as `submit`.
        """
        rules = await self.admission.enter(mode, owner, origin)
        request = await self._intake.build(mode, draft, None)
        return await self._intake.accept(
            request, owner, covered(request, mode, origin), rules, None
        )

    # Ending

    async def cancel(self, job_id: str, by: Owner, *, moderator: bool = False) -> bool:
        """Takes a job back; False where it had ended already.

        Raises:
            UnknownJobError: no such job.
            NotAllowedError: it is somebody else's and ``moderator`` is false.
            StoreUnavailableError: that can't be stored just now.
        """
        record = await stored_job(self._store, job_id)
        refuse(policy.job_refusal(record, by, "cancel", moderator=moderator))
        done = await self._cancel(record)
        if done and by.id != record.owner.id:
            await self._note(by, record, f"Cancelled a request: {_whose(record)}")
        return done

    async def _cancel(self, record: JobRecord) -> bool:
        if await self.live.cancel(record):
            return (await stored_job(self._store, record.id)).status is JobStatus.CANCELLED
        if record.status.is_final:
            return False
        # Nobody draws it now: its result could not be stored, so the next start would.
        await self._settler.settle(record, JobCancelledError(record.id))
        return True

    async def delete(self, job_id: str, by: Owner, *, moderator: bool = False) -> JobRecord:
        """Removes a job's pictures, files included, and returns what it was; ends it if it runs.

        Raises:
            UnknownJobError: no such job.
            NotAllowedError: it is somebody else's and ``moderator`` is false.
        """
        record = await stored_job(self._store, job_id)
        refuse(policy.job_refusal(record, by, "delete", moderator=moderator))
        if job_id in self.live:
            await self.cancel(job_id, by, moderator=moderator)
            record = await stored_job(self._store, job_id)
        unused = await self._store.forget_images(job_id)
        await asyncio.to_thread(self._images.remove, record.images)
        await self.sources.remove(unused)
        if by.id != record.owner.id:
            await self._note(by, record, f"Deleted the pictures of a request: {_whose(record)}")
        return record

    async def _note(self, by: Owner, record: JobRecord, what: str) -> None:
        """Keeps what a moderator did to somebody else's request."""
        await self.steward.note(record.origin.place, by, what)

    async def forget(self, owner: Owner) -> tuple[list[str], int]:
        """Ends an owner's jobs, has that shown, and deletes all of them, rows and files.

        Returns:
            The ids of the jobs, and how many pictures there were.
        """
        # The last first: else the next would begin as one ends.
        for record in reversed(await self._store.unfinished_of(owner.id)):
            await self.cancel(record.id, owner)
        # Without its row nobody knows where an answer is that still says "Drawing".
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS):
                await self._brought_to(owner.id)
        job_ids, drawn, sources = await self._store.forget_owner(owner.id, datetime.now(UTC))
        await asyncio.to_thread(self._images.discard, drawn)
        await self.sources.remove(sources)
        return job_ids, len(drawn)

    # Looking

    async def view(self, job_id: str) -> JobView:
        """Returns a job as it is now.

        Raises:
            UnknownJobError: no such job.
        """
        if live := self.live.get(job_id):
            return self.live.seen(live)
        return JobView(await stored_job(self._store, job_id))

    async def watch(self, job_id: str) -> AsyncIterator[JobView]:
        """Yields a job's view now and whenever it changes; the final one is the last.

        A slow reader misses views in between, never the final one. Any number may watch. Where
        the studio closes first, the last view is the one that the next start goes on from.

        Raises:
            UnknownJobError: no such job.
        """
        shown = None
        while live := self.live.get(job_id):
            changed = live.changed  # taken before the look, so that no change is missed
            view = self.live.seen(live)
            if view != shown:
                shown = view
                yield view
            await changed.wait()
        yield JobView(await stored_job(self._store, job_id))

    async def visible(self, job_id: str, asker: Owner, place: str | None) -> JobRecord:
        """Returns a job of the asker's own or of the place that they are in.

        Raises:
            UnknownJobError: there is none; others' are not told from those that never were.
        """
        record = await stored_job(self._store, job_id)
        if not policy.is_visible(record, asker, place):
            raise UnknownJobError(job_id)
        return record

    async def endable(
        self, job_id: str, asker: Owner, place: str | None, *, moderator: bool
    ) -> JobRecord:
        """Returns a job as `visible` does; moderators may end private ones without seeing them.

        Raises:
            UnknownJobError: likewise.
        """
        record = await stored_job(self._store, job_id)
        if not policy.is_endable(record, asker, place, moderator=moderator):
            raise UnknownJobError(job_id)
        return record

    def is_visible(self, job: JobRecord, asker: Owner, place: str | None) -> bool:
        """Says whether somebody may look at a job where they are, as `visible` does."""
        return policy.is_visible(job, asker, place)

    async def history(self, owner_id: str, limit: int = 50) -> list[JobRecord]:
        """Returns an owner's newest jobs, newest first."""
        return await self._store.history(owner_id, limit)

    async def keyed(self, owner_id: str, key: str, since: datetime) -> JobRecord | None:
        """Returns the job that an owner asked for with a key; None where none was since then."""
        return await self._store.keyed(owner_id, key, since)

    async def remixable(self, job_id: str) -> JobRecord | None:
        """Returns a job whose pictures can be drawn from; None where there is none any more."""
        record = await self._store.get(job_id)
        return record if record and record.images else None

    async def image(self, image_id: str) -> ImageRecord:
        """Returns a picture's record.

        Raises:
            UnknownImageError: no such picture.
        """
        return await stored_image(self._store, image_id)

    def image_path(self, image: ImageRecord) -> Path:
        """Returns where a picture's file is."""
        return self._images.path(image)

    # Answering

    async def answered(self, job_id: str, message_id: int) -> None:
        """Notes which message is the answer to a request, for whoever brings its result."""
        await self._store.note_address(job_id, "answer_id", message_id)

    async def shared(self, job_id: str, message_id: int) -> None:
        """Notes which message shows a private answer to all."""
        await self._store.note_address(job_id, "shared_id", message_id)

    # Going on

    async def recover(self) -> list[JobRecord]:
        """Queues again what was unfinished when the process ended, in its old order.

        What ran in several crashes is failed instead. What ran in one gets a device to itself, so
        that nobody else's is counted with it should it crash the program once more.
        """
        for record in await self._store.running(RESUMED):
            if record.attempts >= CRASHES:
                await self._settler.settle(record, DreamLabError(_POISONOUS))
        records = await self._store.requeue(RESUMED)
        for record in records:
            await self.live.add(record, Setback.RESTART)
        return records


def _whose(record: JobRecord) -> str:
    return f"{record.owner.name}, {record.id}"
