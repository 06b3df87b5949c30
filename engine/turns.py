"""Whose turn it is, and on which lane: `engine.fair_queue` and `engine.placement` put together.

Jobs of every kind wait in one line and take one place on one lane while they run; a lane runs as
many at once as its executor's ``capacity``. Who is first in fair order begins, or in its place
another whose model that lane has loaded. But somebody may be passed over:

- **It must run alone** (`Submission.is_suspect`) and no lane that it may use is empty. While it
  waits, others go on there, `MOST_OVERTAKINGS` of them; then one of these lanes is kept for it, the
  one that is least busy. Lanes that it can't use have nothing to do with it.
- **It had better wait for a lane that has its model.** Then those go on that need another one.
- **Only some lanes can do it** (`engine.need`) and they are busy. Then those go on that others can
  do.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from engine.estimates import predict, share_of
from engine.fair_queue import MOST_OVERTAKINGS, Ticket
from engine.job_runner import is_drawing
from engine.jobs import GenerationJob, GenerationRequest, Job
from engine.lane import Lane
from engine.lanes import Lanes, choose_lane
from engine.need import Need
from engine.outlook import Outlook
from engine.pace import Act
from engine.placement import Places, had_better_wait
from engine.submission import Submission
from engine.submissions import Submissions, key_of


class Turn(NamedTuple):
    """A job that begins."""

    submission: Submission
    ticket: Ticket
    """Its way back into the line."""
    lane: Lane
    """Where it runs."""


class Turns:
    """Finds who begins and where.

    Args:
        submissions: who is there.
        lanes: all there are.
        outlook: knows what each lane has still to do.
    """

    def __init__(self, submissions: Submissions, lanes: Lanes, outlook: Outlook) -> None:
        self._submissions = submissions
        self._line = submissions.line
        self._lanes = lanes
        self._outlook = outlook

    def take(self) -> Iterator[Turn]:
        """Yields who begins now, until nobody can; each has left the line and is on its lane."""
        look = _Look()
        while len(self._line) and (places := self._lanes.places()):
            lane = self._next_lane(look, places)
            if lane is None:
                return
            yield self._take(lane, look)

    def _next_lane(self, look: "_Look", places: Places[Lane]) -> Lane | None:
        """Returns where the first begins who can; None where nobody can."""
        for job_id in self._line.in_turn(look.passed_over, look.skipped):
            submission = self._submissions[job_id]
            if look.is_vain(submission):
                look.pass_over(submission)
                continue
            may = self._candidates(submission, look.kept)
            if self._had_better_wait(submission, may, places):
                look.skipped.add(key_of(submission.job))  # others need another one
                continue
            lane = self._choose(submission, may, places)
            if lane is not None:
                return lane
            look.pass_over(submission)
            if submission.is_suspect and submission.passed_over >= MOST_OVERTAKINGS:
                look.kept |= _least_busy(filter(may, self._lanes))
                if sum(lane.can_take(alone=False) for lane in look.kept) >= len(places):
                    return None
        return None

    def _take(self, lane: Lane, look: "_Look") -> Turn:
        """Puts on a lane whoever fits there best, which need not be whom it was chosen for."""

        def fits(job_id: str) -> bool:
            other = self._submissions[job_id]
            return lane.can_take(alone=other.is_suspect) and self._candidates(other)(lane)

        ticket = self._line.pop(
            lane.in_memory, look.passed_over, look.skipped, max(1, len(self._lanes)), fits
        )
        for each in look.passed_over.values():
            if each.is_suspect and self._candidates(each)(lane):
                each.passed_over += 1
        submission = self._submissions[ticket.job_id]
        lane.take(submission.job.id, submission.need.model, alone=submission.is_suspect)
        return Turn(submission, ticket, lane)

    def _candidates(
        self, submission: Submission, kept: Collection[Lane] = ()
    ) -> Callable[[Lane], bool]:
        """Returns what says of a lane whether a job may go there, unless it is kept for others."""
        may = self._lanes.candidates(submission.need, submission.died_on, submission.refused_by)
        return lambda lane: lane not in kept and may(lane)

    def _choose(
        self, submission: Submission, may: Callable[[Lane], bool], places: Places[Lane]
    ) -> Lane | None:
        job, model = submission.job, submission.need.model

        def finish(lane: Lane) -> float | None:
            return self._predicted(job, lane)

        prefer_loaded = not is_drawing(job)
        if submission.is_suspect:  # rare, so that all may be looked at
            lanes = [lane for lane in self._lanes if may(lane)]
            return choose_lane(lanes, model, alone=True, prefer_loaded=prefer_loaded, finish=finish)
        key = None if model is None else model.key
        return places.choose(key, fits=may, prefer_loaded=prefer_loaded, finish=finish)

    def _predicted(self, job: Job, lane: Lane) -> float | None:
        """Returns in how many seconds a drawing would be done on a lane."""
        if not isinstance(job, GenerationJob) or not isinstance(job.request, GenerationRequest):
            return None
        return predict(job.request, self._outlook.device(lane))

    def _had_better_wait(
        self, submission: Submission, may: Callable[[Lane], bool], places: Places[Lane]
    ) -> bool:
        """Whether a drawing waits for a full lane that has its model, rather than load a copy."""
        job, key = submission.job, key_of(submission.job)
        if not key or submission.is_suspect or not isinstance(job, GenerationJob):
            return False
        request = job.request
        if not isinstance(request, GenerationRequest):
            return False
        if places.has_room_with(key, may):
            return False
        count, holder = places.holders(key, may)
        if holder is None:
            return False
        pace = holder.executor.pace
        return had_better_wait(
            self._line.waiting_for(key),
            count,
            share_of(request, pace, holder.executor.most_rows),
            pace.seconds(Act.LOAD, key),
        )


@dataclass(slots=True)
class _Look:
    """What one look at the line has found out; while it lasts, lanes only become fuller.

    Attributes:
        passed_over: those whose turn it can't be now, by the ids of their jobs.
        skipped: models whose jobs wait for a lane that has them.
        vain: what no lane with room can do.
        kept: lanes that become empty for those who must run alone.
    """

    passed_over: dict[str, Submission] = field(default_factory=dict)
    skipped: set[str] = field(default_factory=set)
    vain: set[Need] = field(default_factory=set)
    kept: set[Lane] = field(default_factory=set)

    def is_vain(self, submission: Submission) -> bool:
        """Whether it is known of another one that no lane has room for what this one needs."""
        return bool(self.vain) and submission.need in self.vain and not submission.is_suspect

    def pass_over(self, submission: Submission) -> None:
        """Notes that no lane with room can do a job."""
        self.passed_over[submission.job.id] = submission
        if not submission.is_suspect and not submission.refused_by:
            self.vain.add(submission.need)


def _least_busy(lanes: Iterable[Lane]) -> set[Lane]:
    """Returns the lane that will be empty first, as far as can be seen; none where none works."""
    working = [lane for lane in lanes if lane.may_come_back]
    return set(sorted(working, key=lambda lane: (not lane.is_ready, lane.load))[:1])
