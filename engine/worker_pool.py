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

- **Turns.** Jobs of every kind wait in one `FairQueue` and take one place on one lane while they
  run; a lane runs as many at once as its executor's ``capacity``.
- **Deaths.** When a worker dies, what ran on it goes back to its old place, with its request and
  seed. Who is to blame can't be seen from the outside, so each of them next runs alone on its
  lane, on another device where there is one that works: a request that kills its worker again
  fails without taking its neighbours along. While it waits for a lane to empty, others may go on,
  `MOST_OVERTAKINGS` of them.
- **Machines that come and go.** A `Fleet` has lanes added and removed while the pool runs. What ran
  where a machine went away, or can't be reached any more, goes back likewise, and nobody is blamed.
  A machine that lacks a model's file says so: another one gets the job, and where all lack it the
  job fails with that.
- **Devices that fall away.** A lane whose worker fails again and again counts as down and is tried
  once more every few minutes; the others go on. Where all are down, what waits goes on waiting,
  and new jobs are refused.
- **Deadlines.** A job that runs for longer than ``job_timeout`` ends with an error and leaves its
  device at the next step. A worker that doesn't even listen is the executor's to end.
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
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Self, TypeAlias

from engine.errors import (
    DreamLabError,
    JobCancelledError,
    JobTimeoutError,
    ModelElsewhereError,
    NoDeviceError,
    OwnerQueueFullError,
    PoisonousRequestError,
    PoolClosedError,
    QueueFullError,
    TooLargeError,
    TooLongError,
    WorkerDiedError,
    WorkerLostError,
)
from engine.estimates import predict, seconds_alone, share_of
from engine.executor import Executor, Fleet
from engine.fair_queue import MOST_OVERTAKINGS, FairQueue, Place
from engine.job_runner import JobRunner, RunnableJob, can_run, is_drawing, model_of
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
from engine.lane import (
    Lane,
    LaneState,
    LaneStatus,
    Pause,
    choose_lane,
    pause,
    second_opinion,
)
from engine.mode_source import CurrentMode, Mode, ModeSource
from engine.outlook import Outlook
from engine.pace import Act, Measurement
from engine.placement import Places, had_better_wait
from engine.room import smaller
from engine.submission import Attempt, Submission

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

Smaller: TypeAlias = Callable[[int, int, int], tuple[int, int] | None]
"""Returns the largest size to propose in place of one, given its sides and how many pixels fit."""

CLOSE_TIMEOUT = 15.0
"""Seconds that jobs, and then executors, get to end at shutdown before they are given up.

Longer than an executor waits before it kills its process, or that process would be left behind.
"""


LOSSES_FORGIVEN = 3
"""How often a job's machine may go away before that counts as a death like any other: a request
that takes whole machines down must not do so to all of them."""


class WorkerPool:
    """Many jobs, some devices: see the module for how it behaves.

    Used from one event loop. Jobs may be submitted before `start`; they wait.

    Args:
        executors: one per device; the pool starts and closes them.
        fleet: brings more of them, and takes them away, while the pool runs.
        modes: looked up whenever a name must become a model.
        queue_max: jobs that may wait; one more is refused.
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
        self._max_attempts = max_attempts
        self._close_timeout = close_timeout
        self._queue = FairQueue()
        self._submissions: dict[str, Submission] = {}
        self._reserved: Counter[str | None] = Counter()  # places, by owner
        self._errands: set[str] = set()  # ids of what is here and no request
        self._fleet = fleet
        self._lacked: set[str] = set()  # models that a machine said that it has no file of
        self._restart_pause = restart_pause
        self._lanes: list[Lane] = []
        self._places: Places[Lane] = Places()  # those that are ready
        self._changed_lanes: dict[Lane, None] = {}  # since they were put there
        self._outlook = Outlook(self._lanes, self._submissions, lambda: self._queue)
        self._mode = CurrentMode(modes)
        self._runner = JobRunner(self._lanes, self._mode, self._start_helper)
        self._supervisors: dict[Lane, asyncio.Task[None]] = {}
        self._fleet_task: asyncio.Task[None] | None = None
        self._has_started = False
        self._helpers: set[asyncio.Task[None]] = set()
        self._held = False
        self._wake_due = False
        self._queue_changed = False
        self._failed: asyncio.Future[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._cut = asyncio.Event()
        for executor in executors:
            self._add_lane(executor)

    # Lifetime ---------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begins to start the workers and returns at once; a second call does nothing.

        Raises:
            PoolClosedError: it was shut down.
        """
        if self._closing is not None:
            raise PoolClosedError
        if self._has_started:
            return
        self._has_started = True
        for lane in self._lanes:
            self._supervise(lane)
        if self._fleet is not None:
            serving = self._fleet.run(self._join, self._leave, self._demand)
            self._fleet_task = asyncio.create_task(serving, name="fleet")
            self._fleet_task.add_done_callback(self._raise_loudly)

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
        if self._failed is None:
            self._failed = asyncio.get_running_loop().create_future()
        return self._failed

    async def shutdown(self, grace: float = 0) -> None:
        """Ends everything: waiting jobs at once, running ones after the grace, then the workers.

        All that has not ended by then ends with `PoolClosedError`. May be called again, also
        meanwhile: every call returns when all is closed, and the shortest grace counts. What
        does not end by itself is given up after ``close_timeout`` and logged.

        Args:
            grace: seconds that running jobs have to end.
        """
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(), name="pool shutdown")
        if grace > 0:
            timer = asyncio.get_running_loop().call_later(grace, self._cut.set)
            await asyncio.shield(self._closing)
            timer.cancel()
        else:
            self._cut.set()
            await asyncio.shield(self._closing)

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
            self._refuse_if_full(job.owner)
        model = model_of(job)
        # A drawing may go before others because its model is loaded, unless it must be alone.
        key = model.key if model and is_drawing(job) and not is_suspect else ""
        self._queue.push(job.id, job.owner, job.cost, job.weight, key, job.place)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        submission = Submission(job, future, on_event, deaths=int(is_suspect))
        self._submissions[job.id] = submission
        if job.type is not JobType.GENERATION:
            self._errands.add(job.id)
        future.add_done_callback(lambda _: self._future_ended(submission))
        self._touch_queue()
        return future

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
        executors = [lane.executor for lane in self._lanes if lane.is_ready]
        if not executors or not request.is_drawn:
            return
        limits = [executor.pace.space.most_pixels(request) for executor in executors]
        known = [limit for limit in limits if limit is not None]
        if len(known) == len(limits):
            fits = smaller(request.width, request.height, max(known))
            raise TooLargeError(request.width, request.height, fits)
        if self._job_timeout is None:
            return
        took = [seconds_alone(request, each.pace, each.most_rows) for each in executors]
        seconds = min((each if each is not None else 0.0 for each in took), default=0.0)
        if seconds > self._job_timeout:
            raise TooLongError(seconds, self._job_timeout)

    @contextmanager
    def reserve(self, owner: str | None = None) -> Iterator[None]:
        """Holds a place in the queue, for a caller who must store the job before it is submitted.

        Submit inside, with ``admitted=True``.

        Args:
            owner: whose place it is; None where no owner's bound counts.

        Raises:
            PoolClosedError: the pool is shutting down.
            NoDeviceError: all devices are down.
            QueueFullError: ``queue_max`` jobs wait or are about to.
            OwnerQueueFullError: ``queue_max_per_owner`` jobs of this owner do.
        """
        self._refuse_if_closed()
        self._refuse_if_full(owner)
        self._reserved[owner] += 1
        try:
            yield
        finally:
            self._reserved[owner] -= 1

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
        self._withdraw(submission)
        return True

    def position(self, job_id: str) -> int | None:
        """Returns a waiting job's place among the requests, 1 is next; None where it doesn't wait.

        Loads, switches and handlers take turns too, but are nobody's place.
        """
        place = self._queue.position(job_id)
        if place is None:
            return None
        before = [self._queue.position(errand) or place for errand in self._errands]
        return place - sum(position < place for position in before)

    def place(self, job_id: str) -> Place | None:
        """Returns where a waiting job stands and behind whom, loads and the like left out."""
        place, position = self._queue.place(job_id), self.position(job_id)
        if place is None or position is None:
            return None
        others = place.owners_before
        if others and position < place.position:
            others -= 1  # loads and switches are all of one owner
        return replace(place, position=position, owners_before=others)

    def seconds_left(self, job_id: str) -> float | None:
        """Returns in how many seconds a job will be done, whether it waits or runs.

        None where that isn't known: it takes something that was never measured on a device, or
        something before it does; it is far back in the queue; no device works.
        """
        return self._outlook.seconds(job_id)

    def get_queue_size(self) -> int:
        """Returns how many jobs wait; what runs is not counted."""
        return len(self._queue)

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
        found = [lane.status for lane in self._lanes]
        if not found and self._fleet is not None:
            found.append(_missing(self._fleet.trouble))
        return found

    async def stats(self, patience: float = 2.0) -> list[tuple[LaneStatus, dict[str, Any] | None]]:
        """Returns each lane's status with its device's `ModelRegistry.get_vram_stats`.

        Nothing waits in the queue for it. None stands for a device whose worker is away, or says
        nothing within ``patience`` seconds, as while it loads a model.
        """
        lanes = tuple(self._lanes)  # others may come and go meanwhile
        found = await asyncio.gather(*(_stats(lane, patience) for lane in lanes))
        looked = [(lane.status, known) for lane, known in zip(lanes, found, strict=True)]
        return looked or [(status, None) for status in self.status()]

    # Pauses -----------------------------------------------------------------------------------

    @property
    def is_held(self) -> bool:
        """Whether nothing new is begun."""
        return self._held

    def hold(self) -> None:
        """Begins nothing more until `resume`; what runs ends, what waits keeps its place."""
        self._held = True
        self._touch_queue()

    def resume(self) -> None:
        """Begins again."""
        self._held = False
        self._touch_queue()

    async def drained(self) -> None:
        """Waits until nothing runs; returns at once where the pool is not held."""
        while self._held and (running := self._running_tasks()):
            await asyncio.wait(running)
            await asyncio.sleep(0)  # each leaves its lane in a callback

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

    # Coming and going -------------------------------------------------------------------------

    def _add_lane(self, executor: Executor) -> Lane:
        lane = Lane(
            executor, pause=self._restart_pause, on_ready=self._wake, on_change=self._note_change
        )

        def more_is_known() -> None:
            self._note_change(lane)  # of what is loaded
            self._touch_queue()  # what is expected may have changed

        executor.pace.on_take = more_is_known
        executor.pace.on_measurement = self._tell_measurement
        self._note_change(lane)
        self._lanes.append(lane)
        return lane

    def _tell_measurement(self, measurement: Measurement) -> None:
        for listener in self.measurement_listeners:
            listener(measurement)

    def _supervise(self, lane: Lane) -> None:
        supervisor = asyncio.create_task(lane.supervise(), name=f"lane {lane.device}")
        supervisor.add_done_callback(self._raise_loudly)
        self._supervisors[lane] = supervisor

    def _join(self, executor: Executor) -> None:
        """Takes a lane more."""
        if self._closing is None:
            self._supervise(self._add_lane(executor))

    async def _leave(self, executor: Executor) -> None:
        """Lets a lane go, once what runs on it has ended."""
        lane = next((lane for lane in self._lanes if lane.executor is executor), None)
        if lane is None:
            return
        supervisor = self._supervisors.pop(lane, None)
        if supervisor is not None:
            supervisor.cancel()
        await lane.empty()
        await _close_lane(lane)
        if lane in self._lanes:
            self._lanes.remove(lane)
        self._touch_queue()

    def _note_change(self, lane: Lane) -> None:
        self._changed_lanes[lane] = None

    def _up_to_date(self) -> Places[Lane]:
        """Returns the places, as the lanes are now."""
        changed, self._changed_lanes = self._changed_lanes, {}
        for lane in changed:
            if lane.is_ready:
                room = lane.can_take(alone=False)
                self._places.put(lane, lane.in_memory, has_room=room)
            else:
                self._places.remove(lane)
        return self._places

    def _demand(self) -> int:
        return len(self._submissions)

    # Taking turns -----------------------------------------------------------------------------

    def _touch_queue(self) -> None:
        self._queue_changed = True
        self._wake()

    def _wake(self) -> None:
        """Has `_take_turns` run soon: never within a caller's own call, once for many reasons."""
        if not self._wake_due:
            self._wake_due = True
            asyncio.get_running_loop().call_soon(self._loudly, self._take_turns)

    def _take_turns(self) -> None:
        self._wake_due = False
        passed_over: list[Submission] = []
        skipped: set[str] = set()  # models whose jobs wait for a lane that has them
        while self._may_begin and len(self._queue) and (places := self._up_to_date()):
            job_id = self._peek(passed_over, skipped)
            if job_id is None:
                break
            submission = self._submissions[job_id]
            lanes = self._lanes_for(submission)
            waits = self._had_better_wait(submission, lanes, places)
            lane = None if waits else self._choose(submission, lanes, places)
            if lane is not None:
                self._begin(lane, passed_over, skipped)
            elif submission.is_suspect and submission.passed_over < MOST_OVERTAKINGS:
                passed_over.append(submission)  # others need no lane to themselves
            elif (waits or lanes is not self._lanes) and (key := _key_of(submission)):
                if submission.is_suspect:
                    break
                skipped.add(key)  # others need another one
            else:
                break
        if self._queue_changed:
            self._queue_changed = False
            self._outlook.change()
            self._tell_queue_listeners()

    @property
    def _may_begin(self) -> bool:
        return self._closing is None and not self._held

    def _peek(self, passed_over: Sequence[Submission], skipped: Collection[str]) -> str | None:
        return self._queue.peek(passed_over=[each.job.id for each in passed_over], skipped=skipped)

    def _lanes_for(self, submission: Submission) -> Sequence[Lane]:
        """Returns the lanes that may do a job: those of machines that have its model's file.

        Where all are said to lack it, one is asked again, and the job fails with its answer.
        """
        lanes = second_opinion(self._lanes, submission.died_on)
        model = model_of(submission.job)
        key = None if model is None else model.key
        if key is None or key not in self._lacked:
            return lanes
        having = [lane for lane in lanes if not lane.lacks(key)]
        if len(having) == len(lanes):
            return lanes
        return having if any(lane.may_come_back for lane in having) else lanes

    def _choose(
        self, submission: Submission, lanes: Sequence[Lane], places: Places[Lane]
    ) -> Lane | None:
        job, model, alone = submission.job, model_of(submission.job), submission.is_suspect

        def finish(lane: Lane) -> float | None:
            return self._predicted(job, lane)

        prefer_loaded = not is_drawing(job)
        if alone or lanes is not self._lanes:  # rare, so that all may be looked at
            return choose_lane(
                lanes, model, alone=alone, prefer_loaded=prefer_loaded, finish=finish
            )
        key = None if model is None else model.key
        return places.choose(key, prefer_loaded=prefer_loaded, finish=finish)

    def _predicted(self, job: Job, lane: Lane) -> float | None:
        """Returns in how many seconds a drawing would be done on a lane."""
        if not isinstance(job, GenerationJob) or not isinstance(job.request, GenerationRequest):
            return None
        return predict(job.request, self._outlook.device(lane))

    def _had_better_wait(
        self, submission: Submission, lanes: Sequence[Lane], places: Places[Lane]
    ) -> bool:
        """Whether a drawing waits for a full lane that has its model, rather than load a copy."""
        job, key = submission.job, _key_of(submission)
        if not key or submission.is_suspect or not isinstance(job, GenerationJob):
            return False
        request = job.request
        if not isinstance(request, GenerationRequest):
            return False
        if lanes is self._lanes:
            is_there = places.has_room_with(key)
        else:
            is_there = any(lane.has(key) for lane in lanes)
        count, holder = places.holders(key)
        if is_there or holder is None:
            return False
        pace = holder.executor.pace
        return had_better_wait(
            self._queue.waiting_for(key),
            count,
            share_of(request, pace, holder.executor.most_rows),
            pace.seconds(Act.LOAD, key),
        )

    def _begin(
        self, lane: Lane, passed_over: Sequence[Submission], skipped: Collection[str]
    ) -> None:
        ticket = self._queue.pop(
            lane.in_memory,
            [each.job.id for each in passed_over],
            skipped,
            lanes=max(1, len(self._lanes)),
        )
        for each in passed_over:
            each.passed_over += 1
        self._queue_changed = True
        submission = self._submissions[ticket.job_id]
        job = submission.job
        lane.take(job.id, model_of(job), alone=submission.is_suspect)
        task = asyncio.create_task(self._runner.run(submission, lane), name=f"job {job.id}")
        submission.attempt = Attempt(lane, task, ticket, self._deadline(submission))
        # Settled from a callback: a task that is cancelled before its first step runs no finally.
        task.add_done_callback(lambda _: self._loudly(lambda: self._left(submission)))

    def _deadline(self, submission: Submission) -> asyncio.TimerHandle | None:
        if self._job_timeout is None:
            return None
        loop = asyncio.get_running_loop()
        return loop.call_later(self._job_timeout, self._loudly, lambda: self._give_up(submission))

    def _give_up(self, submission: Submission) -> None:
        """Ends a job that has run for too long."""
        if submission.has_ended or self._job_timeout is None:
            return
        error = JobTimeoutError(self._job_timeout)
        logger.warning("Job %s failed: %s", submission.job.id, error)
        submission.fail(error)
        self._withdraw(submission)

    def _left(self, submission: Submission) -> None:
        """Settles a job whose task has ended: it is done, failed or to be tried again."""
        attempt, submission.attempt = submission.attempt, None
        if attempt is None:
            raise RuntimeError(f"job {submission.job.id} left a lane that it was not on")
        attempt.lane.release(submission.job.id)
        if attempt.deadline is not None:
            attempt.deadline.cancel()
        error = _error_of(attempt.task, submission.job.id)
        if isinstance(error, ModelElsewhereError):
            if self._may_elsewhere(submission, attempt.lane):
                self._restore(submission, attempt)
                submission.tell(None)
                return
            error = error.everywhere(error.path, [lane.device for lane in self._lanes])
        if isinstance(error, WorkerDiedError):
            self._count_death(submission, attempt, error)
            if self._may_try_again(submission):
                self._restore(submission, attempt)
                submission.tell(None)
                return
            if self._closing is not None:
                error = PoolClosedError()
            elif submission.deaths > 1:
                error = PoisonousRequestError(error)
        self._forget(submission)
        if error is None:
            submission.succeed(attempt.task.result())
        else:
            _log_failure(submission, error)
            submission.fail(error)
        self._wake()

    def _restore(self, submission: Submission, attempt: Attempt) -> None:
        """Lets a job wait again, at its old place."""
        self._queue.restore(attempt.ticket)
        self._touch_queue()

    @staticmethod
    def _count_death(submission: Submission, attempt: Attempt, error: WorkerDiedError) -> None:
        if isinstance(error, WorkerLostError):
            submission.losses += 1
            if submission.losses <= LOSSES_FORGIVEN:
                return
        submission.deaths += 1
        submission.died_on = attempt.lane

    def _may_elsewhere(self, submission: Submission, lane: Lane) -> bool:
        """Notes that a lane's machine lacks a job's model; returns whether another may have it."""
        model = model_of(submission.job)
        if model is None or self._closing is not None or submission.has_ended:
            return False
        lane.note_lacking(model.key)
        self._lacked.add(model.key)
        return any(each.may_come_back and not each.lacks(model.key) for each in self._lanes)

    def _may_try_again(self, submission: Submission) -> bool:
        return (
            self._closing is None
            and not submission.has_ended
            and submission.deaths < self._max_attempts
        )

    def _forget(self, submission: Submission) -> None:
        del self._submissions[submission.job.id]
        self._errands.discard(submission.job.id)

    def _tell_queue_listeners(self) -> None:
        for listener in tuple(self.queue_listeners):
            try:
                listener()
            except Exception:
                logger.exception("A listener of the queue failed")

    # Leaving early ----------------------------------------------------------------------------

    def _future_ended(self, submission: Submission) -> None:
        if submission.future.cancelled():
            self._withdraw(submission)
        else:
            submission.future.exception()  # looked at, so asyncio won't complain; see the module

    def _withdraw(self, submission: Submission) -> None:
        """Takes a job whose future has ended out of the queue or off its lane."""
        job, attempt = submission.job, submission.attempt
        if self._submissions.get(job.id) is not submission:
            return  # it has left by itself meanwhile
        if attempt is None:
            self._queue.remove(job.id)
            self._forget(submission)
            self._touch_queue()
        elif is_drawing(job):
            self._start_helper(_cancel(attempt.lane, job.id), name=f"cancel {job.id}")
        else:
            attempt.task.cancel()

    async def _close(self) -> None:
        for submission in list(self._submissions.values()):
            if submission.attempt is None:
                submission.fail(PoolClosedError())
                self._withdraw(submission)
        for supervisor in self._supervisors.values():
            supervisor.cancel()
        cut = asyncio.create_task(self._cut.wait(), name="pool grace")
        while (running := self._running_tasks()) and not cut.done():
            await asyncio.wait([*running, cut], return_when=asyncio.FIRST_COMPLETED)
        for submission in self._submissions.values():
            submission.fail(PoolClosedError())
        everything = [
            *self._running_tasks(),
            *self._supervisors.values(),
            *self._helpers,
            cut,
        ]
        for task in everything:
            task.cancel()
        await self._wait_or_give_up(everything)
        await self._wait_or_give_up(
            [
                asyncio.create_task(_close_lane(lane), name=f"close {lane.device}")
                for lane in self._lanes
            ]
        )
        if self._fleet_task is not None:
            self._fleet_task.cancel()
            await self._wait_or_give_up([self._fleet_task])
        if not self.failed.done():
            self.failed.set_result(None)

    def _running_tasks(self) -> list[asyncio.Task[Any]]:
        return [s.attempt.task for s in self._submissions.values() if s.attempt is not None]

    async def _wait_or_give_up(self, tasks: Sequence[asyncio.Task[Any]]) -> None:
        if not tasks:
            return
        _, stuck = await asyncio.wait(tasks, timeout=self._close_timeout)
        for task in stuck:
            logger.error(
                "%s did not end within %.1f s; given up", task.get_name(), self._close_timeout
            )
            task.cancel()

    # Rules and owners -------------------------------------------------------------------------

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

    def _refuse_if_closed(self) -> None:
        if self._closing is not None:
            raise PoolClosedError

    def _refuse_if_full(self, owner: str | None) -> None:
        trouble = self._fleet.trouble if self._fleet is not None else None
        if all(lane.is_down for lane in self._lanes) and (self._lanes or trouble):
            raise NoDeviceError([lane.device for lane in self._lanes], trouble)
        if len(self._queue) + self._reserved.total() >= self.queue_max:
            raise QueueFullError(self.queue_max)
        if self.queue_max_per_owner is None or owner is None:
            return
        waiting = sum(
            submission.attempt is None and submission.job.owner == owner
            for submission in self._submissions.values()
        )
        if waiting + self._reserved[owner] >= self.queue_max_per_owner:
            raise OwnerQueueFullError(waiting, self.queue_max_per_owner)

    def _start_helper(self, work: Coroutine[Any, Any, None], *, name: str) -> None:
        """Runs something beside the jobs; the pool owns it."""
        task = asyncio.create_task(work, name=name)
        self._helpers.add(task)
        task.add_done_callback(self._helpers.discard)
        task.add_done_callback(self._raise_loudly)

    def _raise_loudly(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    def _loudly(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:  # a bug: nothing in a step is expected to raise
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        logger.critical("The pool failed", exc_info=error)
        if not self.failed.done():
            self.failed.set_exception(error)


def _missing(trouble: str | None) -> LaneStatus:
    """Returns what stands for a fleet without a device."""
    state = LaneState.STARTING if trouble is None else LaneState.DOWN
    return LaneStatus("the cluster", state, 0, 0, (), trouble)


def _key_of(submission: Submission) -> str:
    """Returns the model by which a job may go before others; empty where it may not."""
    model = model_of(submission.job)
    return model.key if model and is_drawing(submission.job) else ""


def _error_of(task: asyncio.Task[Any], job_id: str) -> BaseException | None:
    return JobCancelledError(job_id) if task.cancelled() else task.exception()


def _log_failure(submission: Submission, error: BaseException) -> None:
    if submission.has_ended:
        return
    if isinstance(error, DreamLabError):
        logger.warning("Job %s failed: %s", submission.job.id, error)
    else:
        logger.error("Job %s failed", submission.job.id, exc_info=error)


async def _cancel(lane: Lane, job_id: str) -> None:
    try:
        await lane.executor.cancel(job_id)
    except WorkerDiedError:
        pass  # then it runs no more; its own task tells the lane
    except Exception:
        logger.exception("Job %s could not be cancelled on %s", job_id, lane.device)


async def _stats(lane: Lane, patience: float) -> dict[str, Any] | None:
    try:
        async with asyncio.timeout(patience):
            return await lane.executor.stats()
    except (WorkerDiedError, TimeoutError):
        return None


async def _close_lane(lane: Lane) -> None:
    try:
        await lane.close()
    except Exception:
        logger.exception("The worker on %s did not close well", lane.device)
