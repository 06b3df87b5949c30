"""Jobs between their submission and their end: queued, accompanied, looked at."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from bot import remakes
from bot.expectation import expected_at
from bot.records import JobRecord, JobView, Kinship, Setback
from bot.settling import Settler, told
from bot.source_files import SourceFiles
from bot.steward import Steward
from bot.store import Store
from engine.enlargement import EnlargementJob, enlarge
from engine.errors import DreamLabError, JobCancelledError, PoolClosedError
from engine.fair_queue import Place
from engine.jobs import GenerationJob, GenerationResult, JobStatus, Progress
from engine.outlook import FORESEEN
from engine.worker_pool import WorkerPool

log = logging.getLogger(__name__)

_UNFORESEEN = "Something went wrong inside Dream Lab; the log has the details."

_POSITIONS_EVERY = 0.25
"""Seconds between looks at the queue for those who watch it, however fast it moves."""


class LiveJob:
    """A job between its submission and its end, and those who watch it.

    Attributes:
        view: the newest, but for what `LiveJobs.seen` adds.
        begun: set once it runs, or has ended.
        changed: set, and replaced by another, when there is something new to see.
        task: accompanies it to its end.
        expected_at: when it will be done, as it was told last.
        is_refused: whether what came of it can't be stored yet.
    """

    def __init__(self, record: JobRecord, setback: Setback | None) -> None:
        self.view = JobView(record, setback=setback)
        self.begun = asyncio.Event()
        self.changed = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self.expected_at: datetime | None = None
        self.is_refused = False

    def show(self, view: JobView) -> None:
        """Makes a view the newest and wakes who watches."""
        if view != self.view:
            self.view = view
            self.wake()

    def refuse(self) -> None:
        """Notes that what came of it can't be stored yet."""
        self.is_refused = True
        self.wake()

    def wake(self) -> None:
        """Wakes who watches; each looks for itself what has changed."""
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()


class LiveJobs:
    """Hands jobs to the pool, and what becomes of them to the store.

    Attributes:
        begun_listeners: called when a job begins to be drawn.
    """

    def __init__(
        self,
        store: Store,
        pool: WorkerPool,
        steward: Steward,
        settler: Settler,
        sources: SourceFiles,
    ) -> None:
        """Takes what it uses."""
        self._store = store
        self._pool = pool
        self._steward = steward
        self._settler = settler
        self._sources = sources
        self.begun_listeners: list[Callable[[JobRecord], None]] = []
        self._live: dict[str, LiveJob] = {}
        self._look: asyncio.TimerHandle | None = None
        self._moved_again = False
        pool.queue_listeners.append(self._queue_moved)

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._live

    async def close(self) -> None:
        """Waits until what the pool has ended is stored. Call it after the pool's shutdown."""
        if self._look:
            self._look.cancel()
        tasks = [live.task for live in self._live.values() if live.task]
        await asyncio.gather(*tasks, return_exceptions=True)

    def get(self, job_id: str) -> LiveJob | None:
        """Returns a job; None where it has ended, or there was none."""
        return self._live.get(job_id)

    async def add(self, record: JobRecord, setback: Setback | None = None) -> None:
        """Queues a job that is stored, and stays with it to its end.

        One that the pool does not take, for a reason that nobody foresaw, fails: it would be in the
        way of all others, at each start anew.

        Args:
            record: the job.
            setback: why it waits once more; None where it doesn't.

        Raises:
            PoolClosedError: the program ends; the next start goes on with it.
            StoreUnavailableError: it fails, which can't be stored just now.
        """
        try:
            self._queue(record, setback)
        except PoolClosedError:
            raise
        except Exception:
            log.exception("Job %s can't be queued", record.id)
            await self._settler.settle(record, DreamLabError(_UNFORESEEN))

    def _queue(self, record: JobRecord, setback: Setback | None) -> None:
        live = LiveJob(record, setback)
        running = replace(record, status=JobStatus.RUNNING, attempts=record.attempts + 1)

        def on_event(progress: Progress | None) -> None:
            if progress is None:  # its worker died, or its device had no room: it waits again
                live.begun.clear()
                live.show(JobView(record, setback=Setback.INTERRUPTED))
            else:
                live.begun.set()
                live.show(JobView(running, progress=progress))

        # The row's path is relative, so that the data folder may be moved.
        request = replace(record.request, source=self._sources.path(record.request))
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

    async def cancel(self, record: JobRecord) -> bool:
        """Ends a job, or sees it end by itself meanwhile; False where it is not live.

        Raises:
            StoreUnavailableError: that can't be stored just now.
        """
        live = self._live.get(record.id)
        if live is None or live.task is None:
            return False
        self._pool.cancel(record.id)
        while not (live.task.done() or live.is_refused):
            await live.changed.wait()
        if live.is_refused:
            await self._settler.settle(record, JobCancelledError(record.id))
            live.task.cancel()
        return True

    # What is seen of them

    def seen(self, live: LiveJob) -> JobView:
        """Returns a job as it is now, with its place in the queue and when it is expected."""
        waits = not live.begun.is_set()
        job_id = live.view.record.id
        position = self._pool.position(job_id) if waits else None
        place = self._pool.place(job_id) if position and position <= FORESEEN else None
        pause = self._steward.pause if waits else None
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

    def under_way(self) -> list[JobView]:
        """Returns everybody's jobs that have not ended: what runs, then what waits, in turn."""
        views = [self.seen(live) for live in self._live.values()]
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

    # What becomes of them

    async def _accompany(self, live: LiveJob, future: asyncio.Future[GenerationResult]) -> None:
        """Notes in the store what becomes of a job; ends when the job has."""
        record = live.view.record
        try:
            await live.begun.wait()
            if not future.done():
                for tell in self.begun_listeners:
                    tell(record)
                await self._note_begin(record.id)
            outcome = await self._fallen_back(live, await _outcome(future))
            await self._settler.settle_at_last(live.view.record, outcome, live.refuse)
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
        self, live: LiveJob, outcome: GenerationResult | DreamLabError
    ) -> GenerationResult | DreamLabError:
        """Returns a job's outcome; what could not be drawn larger is enlarged without the model."""
        record = live.view.record
        is_enlarged = record.parent and record.parent.kinship is Kinship.UPSCALE
        if not (is_enlarged and isinstance(outcome, DreamLabError) and remakes.falls_back(outcome)):
            return outcome
        request = replace(record.request, source=self._sources.path(record.request), strength=0.0)
        try:
            plain = await asyncio.to_thread(enlarge, record.id, request)
        except DreamLabError as error:
            return error
        note = remakes.without(told(outcome))
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
        return DreamLabError(_UNFORESEEN)
