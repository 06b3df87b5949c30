"""The one service that every front end calls: submit, cancel, settle, recover, history."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from contextvars import copy_context
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self, TypeVar

from bot import policy, remakes
from bot.database import StoreUnavailableError
from bot.expectation import expected_at
from bot.export import Exporter
from bot.history import History
from bot.house import House
from bot.image_folder import ImageFolder
from bot.lineage import Lineage
from bot.members import Members
from bot.plots import Plotter
from bot.priorities import weight_of
from bot.records import (
    Child,
    ImageRecord,
    JobRecord,
    JobView,
    Kinship,
    Origin,
    Owner,
    Parent,
    Setback,
)
from bot.reports import Reports
from bot.rules import Rules, Usage
from bot.samples import Samples
from bot.sessions import KeptSessions
from bot.source_images import SourceImage, read_source
from bot.steward import Steward
from bot.store import Store
from bot.store_lineage import OnlyChildError
from engine.enlargement import EnlargementJob, enlarge
from engine.errors import (
    DreamLabError,
    JobCancelledError,
    ModelError,
    PoolClosedError,
    RequestError,
    UnknownModeError,
)
from engine.fair_queue import Place
from engine.jobs import (
    GenerationJob,
    GenerationRequest,
    GenerationResult,
    JobStatus,
    Progress,
    RequestDraft,
    new_job_id,
)
from engine.mode_source import loading_of
from engine.outlook import FORESEEN
from engine.room import smaller
from engine.worker_pool import WorkerPool
from modes.catalog import ModeCatalog
from modes.mode_config import ModeConfig

log = logging.getLogger(__name__)

T = TypeVar("T")

CARRIED = frozenset({"discord"})
"""Front ends whose results a courier brings; the others fetch theirs."""

RESUMED = ("discord", "web")
"""Front ends whose jobs go on after a restart. A command draws its own jobs or nobody does."""

CRASHES = 2
"""Crashes of the whole program while a job ran, after which it is not tried again."""

STORE_PAUSE = 5.0
"""Seconds until a result is stored anew that the disk or the database has refused."""

_READ_AT_ONCE = 2  # pictures that people send; each may take half a gigabyte meanwhile
_POSITIONS_EVERY = 0.25
"""Seconds between looks at the queue for those who watch it, however fast it moves."""


_POISONOUS = (
    "Dream Lab crashed each time while this was being drawn, so it is not tried again. "
    "Ask for it once more, perhaps smaller."
)


class UnknownJobError(RequestError):
    """There is no such job."""

    def __init__(self, job_id: str) -> None:
        super().__init__("job", job_id, "the id of a request")


class UnknownImageError(RequestError):
    """There is no such picture, or it was deleted."""

    def __init__(self, image_id: str) -> None:
        super().__init__("image", image_id, "the id of a picture that was not deleted")


class NotAllowedError(DreamLabError):
    """Somebody tried what only others may: the asker, a moderator, members with a role."""


class _Live:
    """A job between its submission and its end, and those who watch it."""

    def __init__(self, record: JobRecord, setback: Setback | None) -> None:
        self.view = JobView(record, setback=setback)
        self.begun = asyncio.Event()
        self.changed = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self.expected_at: datetime | None = None  # as it was told last
        self.is_refused = False  # what came of it can't be stored yet

    def show(self, view: JobView) -> None:
        """Makes a view the newest and wakes who watches."""
        if view != self.view:
            self.view = view
            self.wake()

    def wake(self) -> None:
        """Wakes who watches; each looks for itself what has changed."""
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()


class Studio:
    """Owns every job from its request to its last state; the only writer of statuses.

    Attributes:
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
        """
        self._weights = weights
        self._store = store
        self._pool = pool
        self._catalog = catalog
        self._images = images
        self._on_settled = on_settled
        self._store_pause = store_pause
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
        self.begun_listeners: list[Callable[[JobRecord], None]] = []
        self.ended_listeners: list[
            Callable[[JobRecord, GenerationResult | DreamLabError], None]
        ] = []
        self._closing = asyncio.Event()
        self._live: dict[str, _Live] = {}
        self._keeping: set[asyncio.Task[None]] = set()
        self._look: asyncio.TimerHandle | None = None
        self._moved_again = False
        self._reading = asyncio.Semaphore(_READ_AT_ONCE)
        self._sources = asyncio.Lock()
        pool.queue_listeners.append(self._queue_moved)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Waits until what the pool has ended is stored. Call it after the pool's shutdown."""
        self._closing.set()
        await self.plots.close()
        if self._look:
            self._look.cancel()
        await asyncio.gather(*self._keeping, return_exceptions=True)
        tasks = [live.task for live in self._live.values() if live.task]
        await asyncio.gather(*tasks, return_exceptions=True)

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
                else await self.mode_of(origin.place, origin.channels)
            )
            rules = await self._enter(mode, owner, origin)
            modes.append(mode)
        image = drafts[0].image
        source = None if image is None else await self._read(image)
        path = self._images.source_of(source) if source else None
        requests = []
        for mode, draft, origin in zip(modes, drafts, origins, strict=True):
            if source and draft.width is None and draft.height is None:
                width, height = mode.size_like(source.width, source.height)
                draft = replace(draft, width=width, height=height)
            requests.append((_built(mode, draft, path), _covered(mode, origin)))
        return await self._accept_all(requests, owner, rules, parent, source)

    async def try_out(
        self, mode: ModeConfig, draft: RequestDraft, owner: Owner, origin: Origin
    ) -> JobRecord:
        """Asks in words for a picture with a mode that need not be in force, such as an edited one.

        Raises:
            DreamLabError: as `submit`.
        """
        rules = await self._enter(mode, owner, origin)
        request = _built(mode, draft, None)
        return await self._accept(request, owner, _covered(mode, origin), rules, None)

    async def again(
        self, job_id: str, owner: Owner, origin: Origin, *, vary: bool = False
    ) -> JobRecord:
        """Asks for the same once more: with a fresh seed, or varied, the seed kept.

        Of an enlarged picture it is what was enlarged.

        Raises:
            UnknownJobError: no such job.
            NotAllowedError: as `submit`.
            RequestError: likewise.
        """
        earlier = (await self.lineage.unenlarged(await self._record(job_id))).request
        mode = self._catalog.get(earlier.mode)
        rules = await self._enter(mode, owner, origin)
        draft = remakes.draft_of(earlier, mode, seed=earlier.seed if vary else None)
        request = _built(mode, draft, earlier.source)
        request = remakes.varied(request) if vary else request
        parent = Parent(job_id, None, Kinship.VARY if vary else Kinship.AGAIN)
        return await self._accept(request, owner, _covered(mode, origin), rules, parent)

    async def edit(
        self, job_id: str, draft: RequestDraft, owner: Owner, origin: Origin
    ) -> JobRecord:
        """Asks for what somebody has made of an earlier request; its picture to start from stays.

        Of an enlarged picture it is what was enlarged.

        Raises:
            UnknownJobError: no such job.
            NotAllowedError: as `submit`.
            RequestError: likewise.
        """
        earlier = (await self.lineage.unenlarged(await self._record(job_id))).request
        mode = self._catalog.get(draft.mode or earlier.mode)
        rules = await self._enter(mode, owner, origin)
        request = _built(mode, draft, earlier.source)
        parent = Parent(job_id, None, Kinship.EDIT)
        return await self._accept(request, owner, _covered(mode, origin), rules, parent)

    async def vary(self, image_id: str, owner: Owner, origin: Origin) -> Child:
        """Asks for a picture that resembles one, unless there is one: its seed and a second noise.

        Of an enlarged picture it is what was enlarged that is varied.

        Raises:
            UnknownImageError: no such picture.
            NotAllowedError: as `submit`.
            RequestError: likewise.
        """
        image, job = await self._pictured(image_id)
        mode = self._catalog.get(job.request.mode)
        rules = await self._enter(mode, owner, origin)
        parent = Parent(job.id, image.number, Kinship.VARY)
        if child := await self.lineage.only_child(parent):
            return Child(child, is_new=False)
        earlier = (await self.lineage.unenlarged(job)).request
        draft = remakes.draft_of(remakes.single(earlier, image.seed), mode, seed=image.seed)
        request = remakes.varied(_built(mode, draft, earlier.source))
        return await self._bear(request, owner, _covered(mode, origin), rules, parent)

    async def upscale(self, image_id: str, owner: Owner, origin: Origin) -> Child:
        """Asks for a picture to be enlarged, unless it was: drawn in part anew, by its own model.

        Where no model fits, it is enlarged without; the job's note says so.

        Raises:
            UnknownImageError: no such picture.
            NotAllowedError: as `submit`.
            RequestError: likewise, or it is too large already.
        """
        image, job = await self._pictured(image_id)
        mode = self._catalog.modes.get(job.request.mode)
        if mode:
            rules = await self._enter(mode, owner, origin)
        else:
            rules = await self._enter_to_show(job, owner, origin)
        parent = Parent(job.id, image.number, Kinship.UPSCALE)
        if child := await self.lineage.only_child(parent):
            return Child(child, is_new=False)
        source = await self._read_kept(image)
        request, note = remakes.enlarged(
            remakes.single(job.request, image.seed), self._images.source_of(source), mode
        )
        return await self._bear(
            request, owner, _covered(mode, origin), rules, parent, source=source, note=note
        )

    async def cancel(self, job_id: str, by: Owner, *, moderator: bool = False) -> bool:
        """Takes a job back; False where it had ended already.

        Raises:
            UnknownJobError: no such job.
            NotAllowedError: it is somebody else's and ``moderator`` is false.
            StoreUnavailableError: that can't be stored just now.
        """
        record = await self._record(job_id)
        _refuse(policy.job_refusal(record, by, "cancel", moderator=moderator))
        done = await self._cancel(record)
        if done and by.id != record.owner.id:
            await self._note(by, record, f"Cancelled a request: {_whose(record)}")
        return done

    async def _cancel(self, record: JobRecord) -> bool:
        job_id = record.id
        live = self._live.get(job_id)
        if live is None or live.task is None:
            if record.status.is_final:
                return False
            # Nobody draws it now: its result could not be stored, so the next start would.
            await self._settle(record, JobCancelledError(job_id))
            return True
        self._pool.cancel(job_id)
        while not (live.task.done() or live.is_refused):
            await live.changed.wait()
        if live.is_refused:
            await self._settle(record, JobCancelledError(job_id))
            live.task.cancel()
        return (await self._record(job_id)).status is JobStatus.CANCELLED

    async def delete(self, job_id: str, by: Owner, *, moderator: bool = False) -> JobRecord:
        """Removes a job's pictures, files included, and returns what it was; ends it if it runs.

        Raises:
            UnknownJobError: no such job.
            NotAllowedError: it is somebody else's and ``moderator`` is false.
        """
        record = await self._record(job_id)
        _refuse(policy.job_refusal(record, by, "delete", moderator=moderator))
        if job_id in self._live:
            await self.cancel(job_id, by, moderator=moderator)
            record = await self._record(job_id)
        unused = await self._store.forget_images(job_id)
        await asyncio.to_thread(self._images.remove, record.images)
        await self.remove_sources(unused)
        if by.id != record.owner.id:
            await self._note(by, record, f"Deleted the pictures of a request: {_whose(record)}")
        return record

    async def _note(self, by: Owner, record: JobRecord, what: str) -> None:
        """Keeps what a moderator did to somebody else's request."""
        await self.steward.note(record.origin.place, by, what)

    async def forget(self, owner: Owner) -> tuple[int, int]:
        """Ends an owner's jobs and deletes all of them, rows and files.

        Returns:
            How many jobs and how many pictures there were.
        """
        # The last first: else the next would begin as one ends.
        for record in reversed(await self._store.unfinished_of(owner.id)):
            await self.cancel(record.id, owner)
        count, drawn, sources = await self._store.forget_owner(owner.id, datetime.now(UTC))
        await asyncio.to_thread(self._images.discard, drawn)
        await self.remove_sources(sources)
        return count, len(drawn)

    async def view(self, job_id: str) -> JobView:
        """Returns a job as it is now.

        Raises:
            UnknownJobError: no such job.
        """
        if live := self._live.get(job_id):
            return self._seen(live)
        return JobView(await self._record(job_id))

    async def watch(self, job_id: str) -> AsyncIterator[JobView]:
        """Yields a job's view now and whenever it changes; the final one is the last.

        A slow reader misses views in between, never the final one. Any number may watch. Where
        the studio closes first, the last view is the one that the next start goes on from.

        Raises:
            UnknownJobError: no such job.
        """
        shown = None
        while live := self._live.get(job_id):
            changed = live.changed  # taken before the look, so that no change is missed
            view = self._seen(live)
            if view != shown:
                shown = view
                yield view
            await changed.wait()
        yield JobView(await self._record(job_id))

    async def visible(self, job_id: str, asker: Owner, place: str | None) -> JobRecord:
        """Returns a job of the asker's own or of the place that they are in.

        Raises:
            UnknownJobError: there is none; others' are not told from those that never were.
        """
        record = await self._record(job_id)
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
        record = await self._record(job_id)
        if not policy.is_endable(record, asker, place, moderator=moderator):
            raise UnknownJobError(job_id)
        return record

    def is_visible(self, job: JobRecord, asker: Owner, place: str | None) -> bool:
        """Says whether somebody may look at a job where they are, as `visible` does."""
        return policy.is_visible(job, asker, place)

    async def refuse_to_show(self, job: JobRecord, asker: Owner, origin: Origin) -> None:
        """Refuses to have a job's pictures posted where they may not be.

        Raises:
            NotAllowedError: with the reason.
        """
        await self._enter_to_show(job, asker, origin)

    def is_covered(self, job: JobRecord, origin: Origin) -> bool:
        """Says whether a job's pictures are shown as spoilers somewhere."""
        return policy.is_covered(self._catalog.modes.get(job.request.mode), origin)

    def under_way(self) -> list[JobView]:
        """Returns everybody's jobs that have not ended: what runs, then what waits, in turn."""
        views = [self._seen(live) for live in self._live.values()]
        return sorted(views, key=lambda view: view.position or 0)

    def line_place(self, job_id: str) -> Place | None:
        """Returns where a waiting job stands and behind whom; None where it doesn't wait."""
        return self._pool.place(job_id)

    def drawn_now(self) -> list[GenerationJob]:
        """Returns the drawings that run now, oldest first."""
        return [job for job in self._pool.running_jobs() if isinstance(job, GenerationJob)]

    def waiting_bound(self) -> int | None:
        """Returns how many jobs of one owner may wait; None where that is not bounded."""
        return self._pool.queue_max_per_owner

    def waiting(self) -> int:
        """Returns how many jobs wait."""
        return self._pool.get_queue_size()

    def load(self) -> Counter[tuple[str, bool]]:
        """Returns how many jobs there are of each mode that wait (False) and run (True)."""
        return Counter(
            (live.view.record.request.mode, live.begun.is_set()) for live in self._live.values()
        )

    async def history(self, owner_id: str, limit: int = 50) -> list[JobRecord]:
        """Returns an owner's newest jobs, newest first."""
        return await self._store.history(owner_id, limit)

    async def keyed(self, owner_id: str, key: str, since: datetime) -> JobRecord | None:
        """Returns the job that an owner asked for with a key; None where none was since then."""
        return await self._store.keyed(owner_id, key, since)

    async def answered(self, job_id: str, message_id: int) -> None:
        """Notes which message is the answer to a request, for whoever brings its result."""
        await self._store.note_address(job_id, "answer_id", message_id)

    async def shared(self, job_id: str, message_id: int) -> None:
        """Notes which message shows a private answer to all."""
        await self._store.note_address(job_id, "shared_id", message_id)

    async def remixable(self, job_id: str) -> JobRecord | None:
        """Returns a job whose pictures can be drawn from; None where there is none any more."""
        record = await self._store.get(job_id)
        return record if record and record.images else None

    async def mode_of(self, place: str | None, channels: Iterable[str] = frozenset()) -> ModeConfig:
        """Returns the mode that is drawn with when nobody names one.

        A channel's goes before its place's. What was chosen and then removed falls back to the
        current one.

        Args:
            place: as in `Origin`.
            channels: likewise.
        """
        chosen = await self._store.mode_of(place, channels) if place else None
        try:
            return self._catalog.get(chosen or self._pool.get_current_mode())
        except UnknownModeError:
            return self._catalog.get(self._catalog.default_mode)

    def loaded_models(self) -> frozenset[str]:
        """Returns the keys of the models that are surely in some device's memory, or on the way."""
        return frozenset(key for lane in self._pool.status() for key in lane.models)

    async def reset_mode(self, place: str, by: Owner, channel: str | None = None) -> bool:
        """Forgets the choice of a place, or of one channel in it; False where there was none."""
        return await self._store.forget_mode(place, by, datetime.now(UTC), channel)

    async def switch_mode(
        self,
        name: str,
        place: str | None,
        by: Owner,
        *,
        channel: str | None = None,
        wait: bool = False,
    ) -> ModeConfig:
        """Makes a mode the place's and has its model loaded in the background.

        Without a place it becomes the one of all who have chosen none, as soon as it is loaded.

        Args:
            name: the mode's.
            place: see `Origin`.
            by: who switches.
            channel: id of the one that it is for; None is the whole place.
            wait: return when it is loaded, and raise what prevents that.

        Raises:
            UnknownModeError: no such mode; nothing changed.
            NotAllowedError: who switches may not draw with it; likewise.
            PoolClosedError: likewise.
        """
        mode = self._catalog.get(name)
        _refuse(policy.mode_refusal(mode, by))
        if place is None:
            loading = self._pool.switch_mode(name)
            await self.steward.note(None, by, f"Mode: {name}")
        else:
            await self._store.choose_mode(place, name, by, datetime.now(UTC), channel)
            loading = self._pool.submit_job(loading_of(mode), admitted=True)
        loading.add_done_callback(_log_failure)
        if wait:
            await asyncio.shield(loading)
        return mode

    async def image(self, image_id: str) -> ImageRecord:
        """Returns a picture's record.

        Raises:
            UnknownImageError: no such picture.
        """
        image = await self._store.image(image_id)
        if image is None:
            raise UnknownImageError(image_id)
        return image

    def image_path(self, image: ImageRecord) -> Path:
        """Returns where a picture's file is."""
        return self._images.path(image)

    def source_path(self, request: GenerationRequest) -> Path | None:
        """Returns where the picture is that a stored request starts from; None for none."""
        return self._images.source_path(request.source) if request.source else None

    async def remove_sources(self, paths: Sequence[str]) -> None:
        """Deletes pictures to draw from, but for those that a job has come to use meanwhile."""
        if not paths:
            return
        async with self._sources:
            unused = [Path(path) for path in await self._store.unknown(paths)]
            await asyncio.to_thread(self._images.remove_sources, unused)

    async def recover(self) -> list[JobRecord]:
        """Queues again what was unfinished when the process ended, in its old order.

        What ran in several crashes is failed instead. What ran in one gets a device to itself, so
        that nobody else's is counted with it should it crash the program once more.
        """
        for record in await self._store.running(RESUMED):
            if record.attempts >= CRASHES:
                await self._settle(record, DreamLabError(_POISONOUS))
        records = await self._store.requeue(RESUMED)
        for record in records:
            self._enqueue(record, Setback.RESTART)
        return records

    async def _record(self, job_id: str) -> JobRecord:
        record = await self._store.get(job_id)
        if record is None:
            raise UnknownJobError(job_id)
        return record

    async def _enter(self, mode: ModeConfig, owner: Owner, origin: Origin) -> Rules:
        """Returns what the place allows to somebody who may draw there.

        Raises:
            NotAllowedError: they may not.
        """
        standing = await self.house.standing(origin.place, owner.id)
        _refuse(policy.draw_refusal(standing, mode, owner, origin))
        return standing.rules

    async def _enter_to_show(self, job: JobRecord, asker: Owner, origin: Origin) -> Rules:
        """Returns what the place allows to somebody who may have a job's pictures posted there.

        Raises:
            NotAllowedError: they may not.
        """
        standing = await self.house.standing(origin.place, asker.id)
        mode = self._catalog.modes.get(job.request.mode)
        _refuse(policy.show_refusal(standing, job, mode, asker, origin))
        return standing.rules

    async def _pictured(self, image_id: str) -> tuple[ImageRecord, JobRecord]:
        image = await self.image(image_id)
        return image, await self._record(image.job_id)

    async def _read_kept(self, image: ImageRecord) -> SourceImage:
        """Returns a kept picture as one to draw from, which outlives it."""
        try:
            content = await asyncio.to_thread(self._images.path(image).read_bytes)
        except FileNotFoundError:
            raise UnknownImageError(image.id) from None
        return await self._read(content)

    async def _bear(
        self,
        request: GenerationRequest,
        owner: Owner,
        origin: Origin,
        rules: Rules,
        parent: Parent,
        *,
        source: SourceImage | None = None,
        note: str | None = None,
    ) -> Child:
        """Accepts the one child of a picture; whoever comes second gets the first one's."""
        try:
            job = await self._accept(request, owner, origin, rules, parent, source, note)
        except OnlyChildError as error:
            return Child(await self._record(error.child_id), is_new=False)
        return Child(job, is_new=True)

    async def _read(self, content: bytes) -> SourceImage:
        async with self._reading:
            return await asyncio.to_thread(read_source, content)

    async def _accept(
        self,
        request: GenerationRequest,
        owner: Owner,
        origin: Origin,
        rules: Rules,
        parent: Parent | None,
        source: SourceImage | None = None,
        note: str | None = None,
    ) -> JobRecord:
        requests = [(request, origin)]
        (record,) = await self._accept_all(requests, owner, rules, parent, source, note)
        return record

    async def _accept_all(
        self,
        requests: Sequence[tuple[GenerationRequest, Origin]],
        owner: Owner,
        rules: Rules,
        parent: Parent | None,
        source: SourceImage | None = None,
        note: str | None = None,
    ) -> list[JobRecord]:
        for request, _ in requests:
            _refuse(policy.words_refusal(rules, request))
            mode = self._catalog.modes.get(request.mode)
            self._pool.check(request, mode.smaller if mode else smaller)
        now = datetime.now(UTC)
        records = [
            JobRecord(
                id=new_job_id(),
                owner=owner,
                origin=origin,
                request=request,
                status=JobStatus.QUEUED,
                created_at=now,
                parent=parent,
                note=note,
                weight=weight_of(owner, self._weights),
            )
            for request, origin in requests
        ]
        pictures = sum(request.count for request, _ in requests)
        pixel_steps = sum(
            request.count * request.width * request.height * request.steps
            for request, _ in requests
        )

        spoken = copy_context()  # the store's thread has none of whose language it is

        def admit(usage: Usage) -> None:
            _refuse(
                spoken.run(
                    policy.usage_refusal,
                    rules,
                    usage,
                    pictures,
                    now,
                    requests=len(requests),
                    pixel_steps=pixel_steps,
                )
            )

        # A task of its own: whoever asks may be gone in the middle of the commit, and a job that is
        # stored but not queued would wait for the next start.
        keeping = asyncio.create_task(
            self._keep(records, source, admit), name=f"keep {records[0].id}"
        )
        self._keeping.add(keeping)
        keeping.add_done_callback(self._keeping.discard)
        await asyncio.shield(keeping)
        return records

    async def _keep(
        self,
        records: Sequence[JobRecord],
        source: SourceImage | None,
        admit: Callable[[Usage], None],
    ) -> None:
        """Commits new jobs and queues them."""
        with ExitStack() as places:
            for record in records:
                places.enter_context(self._pool.reserve(record.owner.id))
            path = records[0].request.source
            if path is None:
                await self._store.add_all(records, admit)
            else:
                await self._add_with_source(records, path, source, admit)
            # A shutdown may have begun meanwhile. What is committed is drawn at the next start.
            with suppress(PoolClosedError):
                for record in records:
                    self._enqueue(record)

    async def _add_with_source(
        self,
        records: Sequence[JobRecord],
        path: Path,
        source: SourceImage | None,
        admit: Callable[[Usage], None],
    ) -> None:
        """Commits jobs that start from a picture, which is on the disk before.

        Args:
            records: the jobs.
            path: the picture's, as the jobs have it.
            source: the picture; None where it is there already.
            admit: as `Store.add` takes it.

        Raises:
            RequestError: it is not.
            DreamLabError: it can't be written.
        """
        async with self._sources:  # so that nobody removes it meanwhile
            try:
                if source:
                    await asyncio.to_thread(self._images.keep_source, source)
                elif not self._images.source_path(path).is_file():
                    raise RequestError("image", "the picture", "one that was not deleted")
            except OSError as error:
                reason = error.strerror or type(error).__name__
                raise DreamLabError(f"The picture can't be kept: {reason}.") from error
            await self._store.add_all(records, admit)

    def _enqueue(self, record: JobRecord, setback: Setback | None = None) -> None:
        live = _Live(record, setback)
        running = replace(record, status=JobStatus.RUNNING, attempts=record.attempts + 1)

        def on_event(progress: Progress | None) -> None:
            if progress is None:  # its worker died: it waits again
                live.begun.clear()
                live.show(JobView(record, setback=Setback.WORKER_DIED))
            else:
                live.begun.set()
                live.show(JobView(running, progress=progress))

        # The row's path is relative, so that the data folder may be moved.
        request = replace(record.request, source=self.source_path(record.request))
        kind = GenerationJob if request.is_drawn else EnlargementJob
        future = self._pool.submit_job(
            kind(
                id=record.id,
                owner=record.owner.id,
                place=record.origin.place,
                weight=record.weight,
                request=request,
            ),
            on_event=on_event,
            admitted=True,
            is_suspect=record.attempts > 0,
        )
        self._live[record.id] = live
        future.add_done_callback(lambda _: live.begun.set())
        live.task = asyncio.create_task(self._accompany(live, future), name=f"job {record.id}")

    async def _accompany(self, live: _Live, future: asyncio.Future[GenerationResult]) -> None:
        """Notes in the store what becomes of a job; ends when the job has."""
        record = live.view.record
        try:
            await live.begun.wait()
            if not future.done():
                for tell in self.begun_listeners:
                    tell(record)
                await self._note_begin(record.id)
            await self._settle_at_last(live, await self._fallen_back(live, await _outcome(future)))
        except PoolClosedError:
            # It goes on at the next start. A pool that broke counts as a crash.
            if not (self._pool.failed.done() and self._pool.failed.exception()):
                await self._note_return(record.id)
        except Exception:
            log.exception("Job %s can't be stored; it is drawn again after a restart", record.id)
        finally:
            del self._live[record.id]
            live.wake()

    async def _fallen_back(
        self, live: _Live, outcome: GenerationResult | DreamLabError
    ) -> GenerationResult | DreamLabError:
        """Returns a job's outcome; what could not be drawn larger is enlarged without the model."""
        record = live.view.record
        is_enlarged = record.parent and record.parent.kinship is Kinship.UPSCALE
        if not (is_enlarged and isinstance(outcome, DreamLabError) and remakes.falls_back(outcome)):
            return outcome
        request = replace(record.request, source=self.source_path(record.request), strength=0.0)
        try:
            plain = await asyncio.to_thread(enlarge, record.id, request)
        except DreamLabError as error:
            return error
        note = remakes.without(_told(outcome))
        live.view = replace(live.view, record=replace(record, note=note))
        return plain

    async def _note_begin(self, job_id: str) -> None:
        """Notes that a job runs. Its end can be stored without it, so a failure ends nothing."""
        try:
            await self._store.begin(job_id)
        except Exception:
            log.exception("That job %s runs is not stored", job_id)

    async def _note_return(self, job_id: str) -> None:
        """Notes that a job waits again; else it would seem to have run during a crash."""
        try:
            await self._store.give_back(job_id)
        except Exception:
            log.exception("That job %s waits again is not stored", job_id)

    async def _settle_at_last(self, live: _Live, outcome: GenerationResult | DreamLabError) -> None:
        """Settles a job; while a full disk or a lock refuses that, again and again."""
        record = live.view.record
        images: list[ImageRecord] = []
        if isinstance(outcome, GenerationResult):
            day = datetime.now(UTC).date()
            keep = partial(asyncio.to_thread, self._images.keep, outcome, day)
            images = await self._at_last(live, keep)
        await self._at_last(live, partial(self._settle, record, outcome, images))

    async def _at_last(self, live: _Live, store: Callable[[], Awaitable[T]]) -> T:
        """Does what stores something as often as it takes; a command's user is told instead."""
        while True:
            try:
                return await store()
            except (StoreUnavailableError, OSError) as error:
                record = live.view.record
                if self._closing.is_set() or record.origin.front_end not in RESUMED:
                    raise
                log.error("Job %s is drawn and can't be stored yet: %s", record.id, error)  # noqa: TRY400 # the reason says it all
            live.is_refused = True
            live.wake()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._store_pause):
                    await self._closing.wait()

    async def _settle(
        self,
        record: JobRecord,
        outcome: GenerationResult | DreamLabError,
        images: Sequence[ImageRecord] = (),
    ) -> None:
        """Stores how a job ended, in one transaction; its pictures' files are there already."""
        if isinstance(outcome, GenerationResult):
            final = replace(record, status=JobStatus.DONE, seconds=outcome.seconds)
        elif isinstance(outcome, JobCancelledError):
            final = replace(record, status=JobStatus.CANCELLED)
        else:
            log.warning("Job %s failed: %s", record.id, outcome)
            final = replace(record, status=JobStatus.FAILED, error=_told(outcome))
        carried = record.origin.front_end in CARRIED
        final = replace(final, finished_at=datetime.now(UTC))
        if await self._store.settle(final, images, carried=carried):
            for tell in self.ended_listeners:
                tell(final, outcome)
        else:
            await asyncio.to_thread(self._images.remove, images)  # it had ended already
        if carried:
            self._on_settled()

    def _seen(self, live: _Live) -> JobView:
        waits = not live.begun.is_set()
        job_id = live.view.record.id
        position = self._pool.position(job_id) if waits else None
        place = self._pool.place(job_id) if position and position <= FORESEEN else None
        pause = self.steward.pause if waits else None
        is_far = position is not None and position > FORESEEN
        seconds = None if pause or is_far else self._pool.seconds_left(job_id)
        live.expected_at = expected_at(live.expected_at, seconds, datetime.now(UTC))
        return replace(
            live.view,
            position=position,
            before=place.before if place else None,
            expected_at=live.expected_at,
            paused=pause.reason if pause else None,
        )

    def _queue_moved(self) -> None:
        if self._look is None:
            loop = asyncio.get_running_loop()
            self._look = loop.call_later(_POSITIONS_EVERY, self._wake_waiting)
        else:
            self._moved_again = True

    def _wake_waiting(self) -> None:
        self._look = None
        if self._moved_again:
            # What is expected may have been worked out just before the last move: once more later.
            self._moved_again = False
            self._queue_moved()
        for live in self._live.values():
            if not live.begun.is_set():
                live.wake()


async def _outcome(future: asyncio.Future[GenerationResult]) -> GenerationResult | DreamLabError:
    """Waits for a job's end; an error that was not foreseen becomes one that can be told."""
    try:
        return await future
    except PoolClosedError:
        raise
    except DreamLabError as error:
        return error
    except Exception:
        log.exception("A job ended with an error that nobody foresaw")
        return DreamLabError("Something went wrong inside Dream Lab; the log has the details.")


def _built(mode: ModeConfig, draft: RequestDraft, source: Path | None) -> GenerationRequest:
    """Returns the request of a draft; a mode whose files are missing is refused at once."""
    request = mode.build_request(draft, source)
    if missing := mode.missing():
        raise RequestError(
            "mode", mode.name, f"a mode that is complete: {missing[0].name} is missing"
        )
    return request


def _covered(mode: ModeConfig | None, origin: Origin) -> Origin:
    """Returns where a request comes from, with the note that its pictures are spoilers."""
    if not policy.is_covered(mode, origin):
        return origin
    return replace(origin, address={**origin.address, "spoiler": True})


def _told(error: DreamLabError) -> str:
    """Returns an error's sentence for the asker, who has no business with the owner's folders."""
    if isinstance(error, ModelError):
        return error.told
    return str(error)


def _whose(record: JobRecord) -> str:
    return f"{record.owner.name}, {record.id}"


def _refuse(reason: str | None) -> None:
    if reason:
        raise NotAllowedError(reason)


def _log_failure(future: asyncio.Future[Any]) -> None:
    if not future.cancelled() and (error := future.exception()):
        log.warning("The model could not be loaded: %s", error)
