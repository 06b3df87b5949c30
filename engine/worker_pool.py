"""The pool: takes jobs, lets them wait in fair order and runs them on the devices' lanes.

A kind of job of your own is a frozen dataclass that derives from `Job` and says how it runs::

    @dataclass(frozen=True, slots=True, kw_only=True)
    class StatsJob(Job):
        async def run(self, executor: Executor) -> dict[str, Any]:
            return await executor.stats()

    stats = await pool.submit_job(StatsJob(owner="system"))

What ``run`` returns or raises is what the job's future ends with. It waits, is cancelled and is
retried after a worker's death like any other, so running it twice must do no harm.

How it behaves:

- **Turns.** Jobs of every kind wait in fair order for a place on one lane, and run there
  (`engine.turns`).
- **Deaths.** When a worker dies or its machine goes away, what ran on it goes back to its old
  place, with its request and seed; a request that kills its worker again fails without taking its
  neighbours along (`engine.retries`).
- **Devices that differ.** What one has no memory or no file for is tried on another one that may
  have it (`engine.need`, `engine.retries`).
- **Devices that come, go and fall away.** A `Fleet` has lanes added and removed while the pool
  runs, and a lane that fails again and again counts as down (`engine.lanes`).
- **Deadlines.** A job that runs for longer than ``job_timeout`` ends with an error
  (`engine.dispatcher`).
- **Futures.** A future ends with the result or the error. Nobody has to await it: an error that
  is never looked at is logged here, once, and asyncio stays silent. Cancelling the future cancels
  the job.
- **Mode switches.** A switch is done, and the mode is the current one, when one lane has loaded
  its model; the other lanes load it right after, and where that fails they try again with their
  first request. Switches happen one after the other.
- **Bugs.** An error in the pool's own tasks ends `WorkerPool.failed`, for which the program must
  wait; leaving ``async with`` raises it as well.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Self

from engine.dispatcher import Dispatcher
from engine.errors import JobCancelledError, PoolClosedError
from engine.executor import Executor, Fleet
from engine.fair_queue import Place
from engine.feasibility import Smaller, refuse_impossible
from engine.job_runner import JobRunner, RunnableJob, can_run, need_of
from engine.jobs import (
    CustomJob,
    GenerationJob,
    GenerationRequest,
    Job,
    JobType,
    ModelLoadJob,
    ModelSpec,
    ModelUnloadJob,
    ModeSwitchJob,
    Progress,
    RequestDraft,
)
from engine.lane import LaneState, LaneStatus, Pause, pause
from engine.lanes import Lanes
from engine.mode_source import CurrentMode, Mode, ModeSource
from engine.outlook import Outlook
from engine.pace import Measurement
from engine.pool_tasks import PoolTasks
from engine.retries import Retries
from engine.room import smaller
from engine.submission import Submission
from engine.submissions import Submissions
from engine.turns import Turns

__all__ = [
    "CustomJob",
    "GenerationJob",
    "Job",
    "JobType",
    "LaneState",
    "LaneStatus",
    "Mode",
    "ModeSource",
    "ModeSwitchJob",
    "ModelLoadJob",
    "ModelUnloadJob",
    "RunnableJob",
    "WorkerPool",
]

logger = logging.getLogger(__name__)

QUEUE_MAX = 64
"""Jobs that may wait unless told."""

CLOSE_TIMEOUT = 15.0
"""Seconds that jobs, and then executors, get to end at shutdown before they are given up.

Longer than an executor waits before it kills its process, or that process would be left behind.
"""


class WorkerPool:
    """Many jobs, some devices: see the module for how it behaves.

    Used from one event loop. Jobs may be submitted before `start`; they wait.

    Args:
        executors: one per device; the pool starts and closes them.
        fleet: brings more of them, and takes them away, while the pool runs.
        modes: looked up whenever a name must become a model.
        queue_max: jobs that may wait, as `get_queue_size` counts them; one more is refused.
        queue_max_per_owner: how many of them may be one owner's; None for all.
        job_timeout: seconds that a job may run at a time; None for any.
        max_attempts: how often a job is begun before a dying worker is blamed on it.
        restart_pause: waits before a worker is started again; see `engine.lane.pause`.
        close_timeout: seconds after which `shutdown` gives up what doesn't end.

    Attributes:
        queue_max: as given.
        queue_max_per_owner: as given.
        queue_listeners: called after the positions of waiting jobs, or when they will be done, may
            have changed, once for all the changes of one turn of the event loop.
        measurement_listeners: called with each step and load that a worker has measured.

    Raises:
        ValueError: neither an executor nor a fleet, a number below 1, or a time that is not
            above 0.
    """

    def __init__(  # noqa: PLR0913 - each but two has a default that is right for most
        self,
        executors: Sequence[Executor],
        modes: ModeSource,
        *,
        fleet: Fleet | None = None,
        queue_max: int = QUEUE_MAX,
        queue_max_per_owner: int | None = None,
        job_timeout: float | None = None,
        max_attempts: int = 2,
        restart_pause: Pause = pause,
        close_timeout: float = CLOSE_TIMEOUT,
    ) -> None:
        if not executors and fleet is None:
            raise ValueError("a pool needs at least one executor")
        for name, number in (
            ("queue_max", queue_max),
            ("queue_max_per_owner", queue_max_per_owner),
            ("max_attempts", max_attempts),
        ):
            if number is not None and number < 1:
                raise ValueError(f"{name} is {number}; allowed: at least 1")
        if job_timeout is not None and not job_timeout > 0:
            raise ValueError(f"job_timeout is {job_timeout}; allowed: above 0")
        self.queue_max = queue_max
        self.queue_max_per_owner = queue_max_per_owner
        self.queue_listeners: list[Callable[[], None]] = []
        self.measurement_listeners: list[Callable[[Measurement], None]] = []
        self._job_timeout = job_timeout
        self._tasks = PoolTasks(close_timeout)
        self._submissions = Submissions(queue_max, queue_max_per_owner)
        self._lanes = Lanes(
            executors,
            fleet,
            self._tasks,
            pause=restart_pause,
            on_state=lambda: self._dispatcher.wake(),
            on_news=lambda: self._dispatcher.note_move(),
            on_measurement=self._tell_measurement_listeners,
        )
        self._outlook = Outlook(self._lanes, self._submissions, lambda: self._submissions.line)
        self._mode = CurrentMode(modes)
        self._dispatcher = Dispatcher(
            self._submissions,
            Turns(self._submissions, self._lanes, self._outlook),
            JobRunner(self._lanes, self._mode, self._tasks.start),
            Retries(self._lanes, max_attempts),
            self._tasks,
            job_timeout=job_timeout,
            on_move=self._tell_queue_listeners,
        )
        self._has_started = False
        self._closing: asyncio.Task[None] | None = None
        self._cut = asyncio.Event()

    # Lifetime ---------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begins to start the workers and returns at once; a second call does nothing.

        Raises:
            PoolClosedError: it was shut down.
        """
        self._refuse_if_closed()
        if not self._has_started:
            self._has_started = True
            self._lanes.start(demand=lambda: len(self._submissions))

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        await self.shutdown()
        if kind is None:
            self.failed.result()

    @property
    def failed(self) -> asyncio.Future[None]:
        """Ends with the error when one of the pool's own tasks died, with None once closed."""
        return self._tasks.failed

    async def shutdown(self, grace: float = 0) -> None:
        """Ends everything: waiting jobs at once, running ones after the grace, then the workers.

        All that has not ended by then ends with `PoolClosedError`. May be called again, also
        meanwhile: every call returns when all is closed, and the shortest grace counts. What
        does not end by itself is given up after ``close_timeout`` and logged.

        Args:
            grace: seconds that running jobs have to end.
        """
        if self._closing is None:
            self._dispatcher.stop()
            self._lanes.retire()
            self._closing = asyncio.create_task(self._close(), name="pool shutdown")
        if grace > 0:
            timer = asyncio.get_running_loop().call_later(grace, self._cut.set)
            await asyncio.shield(self._closing)
            timer.cancel()
        else:
            self._cut.set()
            await asyncio.shield(self._closing)

    async def _close(self) -> None:
        await self._dispatcher.run_out(self._cut)
        await self._tasks.end(self._dispatcher.running())
        await self._lanes.close()
        self._tasks.finish()

    def _refuse_if_closed(self) -> None:
        if self._closing is not None:
            raise PoolClosedError

    # Jobs -------------------------------------------------------------------------------------

    def submit_job(
        self,
        job: Job,
        *,
        on_event: Callable[[Progress | None], None] | None = None,
        admitted: bool = False,
        is_suspect: bool = False,
    ) -> asyncio.Future[Any]:
        """Lets a job wait for its turn; the future ends with its result or its error.

        Results by kind: `GenerationResult`, the mode's name, `LoadReport`, None for an unload,
        the handler's value.

        Args:
            job: what to do. A draft is filled from its mode, or the current one, now.
            on_event: called with the job's progress in the event loop, never before this returns;
                the first call means that the job runs now. None says that its worker died and it
                waits again; its progress starts over then.
            admitted: whether it may wait beyond ``queue_max``: its place was reserved, or it was
                taken before a restart.
            is_suspect: whether it may have killed the program before: it runs with nothing beside
                it, and one worker's death is counted already.

        Raises:
            PoolClosedError: the pool is shutting down.
            NoDeviceError: all devices are down.
            QueueFullError: ``queue_max`` jobs wait.
            OwnerQueueFullError: ``queue_max_per_owner`` jobs of this owner wait.
            UnknownModeError: a draft or a switch names an unknown mode.
            RequestError: the mode doesn't allow what a draft asks for.
            TypeError: the job's kind doesn't say how it runs.
            ValueError: a job of this id is here already, or its weight is not above 0.
        """
        self._refuse_if_closed()
        if job.id in self._submissions:
            raise ValueError(f"job {job.id} was submitted already and has not ended")
        job = self._resolved(job)
        if not admitted:
            self._lanes.refuse_if_down()
            self._submissions.refuse_if_full(job.owner)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        need = need_of(job, self._mode)
        submission = Submission(job, need, future, on_event, deaths=int(is_suspect))
        self._submissions.add(submission)
        future.add_done_callback(lambda _: self._future_ended(submission))
        self._dispatcher.note_move()
        return future

    def _resolved(self, job: Job) -> Job:
        """Returns the job with nothing left open, or refuses it."""
        if not can_run(job):
            raise TypeError(
                f"{type(job).__name__} doesn't say how it runs: give it"
                " `async def run(self, executor)`"
            )
        if isinstance(job, ModeSwitchJob):
            self._mode.get(job.target_mode)
        if isinstance(job, GenerationJob) and isinstance(job.request, RequestDraft):
            return replace(job, request=self._mode.build_request(job.request))
        return job

    def _future_ended(self, submission: Submission) -> None:
        if submission.future.cancelled():
            self._dispatcher.withdraw(submission)
        else:
            submission.future.exception()  # looked at, so asyncio won't complain; see the module

    def check(self, request: GenerationRequest, smaller: Smaller = smaller) -> None:
        """Refuses what no device can draw, as far as that is known before it is tried.

        Args:
            request: what is asked for.
            smaller: returns the largest size that may be asked for in its place, given its own and
                how many pixels fit.

        Raises:
            TooLargeError: there is no memory for the size on any device.
            TooLongError: it takes longer than ``job_timeout``, alone on the fastest device.
        """
        working = [lane.executor for lane in self._lanes if lane.may_come_back]
        refuse_impossible(request, working, self._job_timeout, smaller)

    @contextmanager
    def reserve(self, owner: str | None = None, places: int = 1) -> Iterator[None]:
        """Holds places in the queue, for a caller who must store jobs before they are submitted.

        Submit inside, with ``admitted=True``.

        Args:
            owner: whose places they are; None where no owner's bound counts.
            places: how many, at least 1: all of them are held, or none.

        Raises:
            PoolClosedError: the pool is shutting down.
            NoDeviceError: all devices are down.
            QueueFullError: more than ``queue_max`` jobs would wait.
            OwnerQueueFullError: more than ``queue_max_per_owner`` jobs of this owner would.
        """
        self._refuse_if_closed()
        self._lanes.refuse_if_down()
        with self._submissions.reserve(owner, places):
            yield

    def cancel(self, job_id: str) -> bool:
        """Takes a job back: its future ends with `JobCancelledError` now.

        A drawing leaves its device at the next step. A plain function of a `CustomJob` can't be
        interrupted; it ends in its thread, unheard.

        Returns:
            False where there is no such job or it has ended.
        """
        submission = self._submissions.get(job_id)
        if submission is None or submission.has_ended:
            return False
        submission.fail(JobCancelledError(job_id))
        self._dispatcher.withdraw(submission)
        return True

    # Looking ----------------------------------------------------------------------------------

    def position(self, job_id: str) -> int | None:
        """Returns a waiting job's place among the requests, 1 is next; None where it doesn't wait.

        Loads, switches and handlers take turns too, but are nobody's place.
        """
        return self._submissions.position(job_id)

    def place(self, job_id: str) -> Place | None:
        """Returns where a waiting job stands and behind whom, loads and the like left out."""
        return self._submissions.place(job_id)

    def seconds_left(self, job_id: str) -> float | None:
        """Returns in how many seconds a job will be done, whether it waits or runs.

        None where that isn't known: it takes something that was never measured on a device, or
        something before it does; it is far back in the queue; no device works.
        """
        return self._outlook.seconds(job_id)

    def get_queue_size(self) -> int:
        """Returns how many jobs wait; what runs is not counted, nor are loads and switches."""
        return self._submissions.waiting

    def running_jobs(self) -> tuple[Job, ...]:
        """Returns the jobs that run now, oldest first."""
        return tuple(
            submission.job
            for submission in self._submissions.values()
            if submission.attempt is not None and not submission.has_ended
        )

    def device_of(self, job_id: str) -> str | None:
        """Returns the device that a job runs on; None where it doesn't run."""
        submission = self._submissions.get(job_id)
        return submission.attempt.lane.device if submission and submission.attempt else None

    def status(self) -> list[LaneStatus]:
        """Returns what each lane is like now; a fleet without any has one that says why."""
        return self._lanes.status()

    async def stats(self, patience: float = 2.0) -> list[tuple[LaneStatus, dict[str, Any] | None]]:
        """Returns each lane's status with its device's `ModelRegistry.get_vram_stats`.

        Nothing waits in the queue for it. None stands for a device whose worker is away, or says
        nothing within ``patience`` seconds, as while it loads a model.
        """
        return await self._lanes.stats(patience)

    def _tell_queue_listeners(self) -> None:
        self._outlook.change()
        for listener in tuple(self.queue_listeners):
            try:
                listener()
            except Exception:
                logger.exception("A listener of the queue failed")

    def _tell_measurement_listeners(self, measurement: Measurement) -> None:
        for listener in self.measurement_listeners:
            listener(measurement)

    # Pauses -----------------------------------------------------------------------------------

    @property
    def is_held(self) -> bool:
        """Whether nothing new is begun."""
        return self._dispatcher.is_held

    def hold(self) -> None:
        """Begins nothing more until `resume`; what runs ends, what waits keeps its place."""
        self._dispatcher.hold()

    def resume(self) -> None:
        """Begins again."""
        self._dispatcher.resume()

    async def drained(self) -> None:
        """Waits until nothing runs; returns at once where the pool is not held."""
        await self._dispatcher.drained()

    async def unload(self, model: ModelSpec) -> None:
        """Has every device forget a model now, before anything that waits."""
        ready = [lane for lane in self._lanes if lane.is_ready]
        await asyncio.gather(*(lane.unload(model) for lane in ready))

    # Modes ------------------------------------------------------------------------------------

    def get_current_mode(self) -> str:
        """Returns the mode that a draft without one draws with.

        It is the last that was switched to; the default until then and after its removal.
        """
        return self._mode.name

    def switch_mode(self, name: str) -> asyncio.Future[str]:
        """Loads a mode's model and makes the mode the current one; a full queue is no obstacle.

        The future ends with the name, or with the error, and then the old mode stays. Switching
        to the current mode does nothing, unless a switch to another is under way.

        Raises:
            PoolClosedError: the pool is shutting down.
            UnknownModeError: no mode has this name.
        """
        self._refuse_if_closed()
        self._mode.get(name)
        under_way = any(isinstance(s.job, ModeSwitchJob) for s in self._submissions.values())
        if name == self._mode.name and not under_way:
            done: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            done.set_result(name)
            return done
        return self.submit_job(ModeSwitchJob(target_mode=name), admitted=True)
