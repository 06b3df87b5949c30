"""Which jobs are tried again after an error, and what the others fail with.

When a worker dies, what ran on it goes back to its old place, with its request and seed. Who is to
blame can't be seen from the outside, so each of them next runs alone on its lane, on another device
where there is one that works: a request that kills its worker again fails without taking its
neighbours along. What ran where a machine went away, or can't be reached any more, goes back
likewise, and nobody is blamed. A device that has no memory for a job, or whose machine lacks a
file of its model, says so: that is remembered, another one gets the job, and where none is left the
job fails with that.
"""

import logging

from engine.errors import (
    ModelElsewhereError,
    PoisonousRequestError,
    PoolClosedError,
    WorkerDiedError,
    WorkerLostError,
)
from engine.lane import Lane
from engine.lanes import Lanes
from engine.need import lack_of, shortage_of
from engine.submission import Submission

logger = logging.getLogger(__name__)

LOSSES_FORGIVEN = 3
"""How often a job's machine may go away before that counts as a death like any other: a request
that takes whole machines down must not do so to all of them."""


class Retries:
    """Judges errors.

    Args:
        lanes: all there are.
        max_attempts: how often a job is begun before a dying worker is blamed on it.
    """

    def __init__(self, lanes: Lanes, max_attempts: int) -> None:
        self._lanes = lanes
        self._max_attempts = max_attempts

    def verdict(
        self, submission: Submission, lane: Lane, error: BaseException, *, is_closing: bool
    ) -> BaseException | None:
        """Returns what a job fails with; None where it is to be tried again.

        Args:
            submission: the job, which learns what it has to answer for.
            lane: where it ran.
            error: what that ended with.
            is_closing: whether nothing is begun any more.
        """
        may_go_on = not is_closing and not submission.has_ended
        shortage = shortage_of(submission.need, error)
        if shortage is not None:
            lane.note(shortage)
            submission.refused_by.add(lane)
            if self._lanes.somebody_can(submission.need, submission.refused_by):
                if is_closing:
                    return PoolClosedError()
                if may_go_on:
                    logger.info("Job %s goes to another device: %s", submission.job.id, error)
                    return None
        if isinstance(error, ModelElsewhereError):
            return self._told_by_all(error)
        if not isinstance(error, WorkerDiedError):
            return error
        _count(submission, lane, error)
        if may_go_on and submission.deaths < self._max_attempts:
            return None
        if is_closing:
            return PoolClosedError()
        return PoisonousRequestError(error) if submission.deaths > 1 else error

    def _told_by_all(self, error: ModelElsewhereError) -> ModelElsewhereError:
        """Returns the error in the name of all machines that work, if all of them have said so."""
        lack = lack_of(error.path)
        lacking = [lane for lane in self._lanes if lane.is_short_of(lack)]
        if any(lane.may_come_back and lane not in lacking for lane in self._lanes):
            return error
        return error.everywhere(error.path, [lane.device for lane in lacking] or [error.device])


def _count(submission: Submission, lane: Lane, error: WorkerDiedError) -> None:
    """Notes a worker's death, or that it was lost with its machine."""
    if isinstance(error, WorkerLostError):
        submission.losses += 1
        if submission.losses <= LOSSES_FORGIVEN:
            return
    submission.deaths += 1
    submission.died_on = lane
