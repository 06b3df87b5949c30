"""The dispatcher: begins jobs as soon as it is their turn, and settles them when they end.

A job that runs for longer than ``job_timeout`` ends with an error and leaves its device at the next
step. A worker that doesn't even listen is the executor's to end.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from engine.errors import (
    DreamLabError,
    JobCancelledError,
    JobTimeoutError,
    PoolClosedError,
    WorkerDiedError,
)
from engine.job_runner import JobRunner, is_drawing
from engine.lane import Lane
from engine.pool_tasks import PoolTasks
from engine.retries import Retries
from engine.submission import Attempt, Submission
from engine.submissions import Submissions
from engine.turns import Turn, Turns

logger = logging.getLogger(__name__)


class Dispatcher:
    """Sees each job from its turn to its end.

    Args:
        submissions: those that are there; who is settled leaves them.
        turns: who is next, and where.
        runner: does the jobs.
        retries: which of them are tried again.
        tasks: run what ends jobs.
        job_timeout: seconds that a job may run at a time; None for any.
        on_move: called after the positions of waiting jobs, or when they will be done, may have
            changed, once for all the changes of one turn of the event loop.
    """

    def __init__(
        self,
        submissions: Submissions,
        turns: Turns,
        runner: JobRunner,
        retries: Retries,
        tasks: PoolTasks,
        *,
        job_timeout: float | None,
        on_move: Callable[[], None],
    ) -> None:
        self._submissions = submissions
        self._turns = turns
        self._runner = runner
        self._retries = retries
        self._tasks = tasks
        self._job_timeout = job_timeout
        self._on_move = on_move
        self._is_held = False
        self._is_stopped = False
        self._wake_due = False
        self._has_moved = False

    @property
    def is_held(self) -> bool:
        """Whether nothing new is begun."""
        return self._is_held

    def hold(self) -> None:
        """Begins nothing more until `resume`; what runs ends, what waits keeps its place."""
        self._is_held = True
        self.note_move()

    def resume(self) -> None:
        """Begins again."""
        self._is_held = False
        self.note_move()

    async def drained(self) -> None:
        """Waits until nothing runs; returns at once where it is not held."""
        while self._is_held and (running := self.running()):
            await asyncio.wait(running)
            await asyncio.sleep(0)  # each leaves its lane in a callback

    def running(self) -> list[asyncio.Task[Any]]:
        """Returns the tasks of the jobs that run."""
        return [s.attempt.task for s in self._submissions.values() if s.attempt is not None]

    def note_move(self) -> None:
        """Hears that positions, or when jobs will be done, may have changed."""
        self._has_moved = True
        self.wake()

    def wake(self) -> None:
        """Has `take_turns` run soon: never within a caller's own call, once for many reasons."""
        if not self._wake_due:
            self._wake_due = True
            asyncio.get_running_loop().call_soon(self._tasks.call, self.take_turns)

    def take_turns(self) -> None:
        """Begins all that can begin now."""
        self._wake_due = False
        if not self._is_held and not self._is_stopped:
            for turn in self._turns.take():
                self._begin(turn)
        if self._has_moved:
            self._has_moved = False
            self._on_move()

    def withdraw(self, submission: Submission) -> None:
        """Takes a job whose future has ended out of the queue or off its lane.

        A drawing leaves its device at the next step. A plain function of a `CustomJob` can't be
        interrupted; it ends in its thread, unheard.
        """
        job, attempt = submission.job, submission.attempt
        if self._submissions.get(job.id) is not submission:
            return  # it has left by itself meanwhile
        if attempt is None:
            self._submissions.remove(job.id)
            self.note_move()
        elif is_drawing(job):
            self._tasks.start(_cancel(attempt.lane, job.id), name=f"cancel {job.id}")
        else:
            attempt.task.cancel()

    def stop(self) -> None:
        """Begins nothing more, for good; nothing is tried again either."""
        self._is_stopped = True

    async def run_out(self, cut: asyncio.Event) -> None:
        """Fails what waits at once, and what still runs at the cut; returns earlier if all ended.

        What fails so fails with `PoolClosedError`; its task may still run.
        """
        for submission in list(self._submissions.values()):
            if submission.attempt is None:
                submission.fail(PoolClosedError())
                self.withdraw(submission)
        grace = asyncio.create_task(cut.wait(), name="pool grace")
        self._tasks.own(grace)
        while (running := self.running()) and not grace.done():
            await asyncio.wait([*running, grace], return_when=asyncio.FIRST_COMPLETED)
        for submission in self._submissions.values():
            submission.fail(PoolClosedError())

    def _begin(self, turn: Turn) -> None:
        self._has_moved = True
        submission, ticket, lane = turn
        name = f"job {submission.job.id}"
        task = asyncio.create_task(self._runner.run(submission, lane), name=name)
        submission.attempt = Attempt(lane, task, ticket, self._deadline(submission))
        # Settled from a callback: a task that is cancelled before its first step runs no finally.
        task.add_done_callback(lambda _: self._tasks.call(lambda: self._left(submission)))

    def _deadline(self, submission: Submission) -> asyncio.TimerHandle | None:
        if self._job_timeout is None:
            return None
        seconds = self._job_timeout
        return asyncio.get_running_loop().call_later(
            seconds, self._tasks.call, lambda: self._give_up(submission, seconds)
        )

    def _give_up(self, submission: Submission, seconds: float) -> None:
        """Ends a job that has run for too long."""
        if submission.has_ended:
            return
        error = JobTimeoutError(seconds)
        logger.warning("Job %s failed: %s", submission.job.id, error)
        submission.fail(error)
        self.withdraw(submission)

    def _left(self, submission: Submission) -> None:
        """Settles a job whose task has ended: it is done, failed or to be tried again."""
        job_id = submission.job.id
        attempt, submission.attempt = submission.attempt, None
        if attempt is None:
            raise RuntimeError(f"job {job_id} left a lane that it was not on")
        attempt.lane.release(job_id)
        if attempt.deadline is not None:
            attempt.deadline.cancel()
        error = _error_of(attempt.task, job_id)
        if error is None:
            self._submissions.remove(job_id)
            submission.succeed(attempt.task.result())
        elif (failure := self._judge(submission, attempt.lane, error)) is None:
            self._submissions.restore(attempt.ticket)
            self.note_move()
            submission.tell(None)
        else:
            self._submissions.remove(job_id)
            _log_failure(submission, failure)
            submission.fail(failure)
        self.wake()

    def _judge(
        self, submission: Submission, lane: Lane, error: BaseException
    ) -> BaseException | None:
        return self._retries.verdict(submission, lane, error, is_closing=self._is_stopped)


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
