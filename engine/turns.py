"""Whose turn it is, and on which lane: `engine.fair_queue` and `engine.placement` put together.

Jobs of every kind wait in one line and take one place on one lane while they run; a lane runs as
many at once as its executor's ``capacity``. Who is first in fair order begins, or in its place
another whose model that lane has loaded. But somebody may be passed over:

- **It must run alone** (`Submission.is_suspect`) and no lane is empty. While it waits for one,
  others may go on, `MOST_OVERTAKINGS` of them; then it is waited for.
- **It had better wait for a lane that has its model**, or only some lanes may do it and they are
  busy. Then those go on that need another model.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from engine.estimates import predict, share_of
from engine.fair_queue import MOST_OVERTAKINGS, Ticket
from engine.job_runner import is_drawing, model_of
from engine.jobs import GenerationJob, GenerationRequest, Job
from engine.lane import Lane
from engine.lanes import Lanes, choose_lane
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
        passed_over: list[Submission] = []
        skipped: set[str] = set()  # models whose jobs wait for a lane that has them
        while len(self._line) and (places := self._lanes.places()):
            job_id = self._line.peek(passed_over=_ids(passed_over), skipped=skipped)
            if job_id is None:
                return
            submission = self._submissions[job_id]
            lanes = self._lanes.candidates(model_of(submission.job), submission.died_on)
            waits = self._had_better_wait(submission, lanes, places)
            lane = None if waits else self._choose(submission, lanes, places)
            if lane is not None:
                yield self._take(lane, passed_over, skipped)
            elif submission.is_suspect and submission.passed_over < MOST_OVERTAKINGS:
                passed_over.append(submission)  # others need no lane to themselves
            elif (waits or lanes is not self._lanes) and (key := key_of(submission.job)):
                if submission.is_suspect:
                    return
                skipped.add(key)  # others need another one
            else:
                return

    def _take(
        self, lane: Lane, passed_over: Sequence[Submission], skipped: Collection[str]
    ) -> Turn:
        """Puts on a lane whoever fits there best, which need not be whom it was chosen for."""
        ticket = self._line.pop(
            lane.in_memory, _ids(passed_over), skipped, lanes=max(1, len(self._lanes))
        )
        for each in passed_over:
            each.passed_over += 1
        submission = self._submissions[ticket.job_id]
        job = submission.job
        lane.take(job.id, model_of(job), alone=submission.is_suspect)
        return Turn(submission, ticket, lane)

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
        job, key = submission.job, key_of(submission.job)
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
            self._line.waiting_for(key),
            count,
            share_of(request, pace, holder.executor.most_rows),
            pace.seconds(Act.LOAD, key),
        )


def _ids(submissions: Sequence[Submission]) -> list[str]:
    return [each.job.id for each in submissions]
