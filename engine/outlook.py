"""The pool's outlook: when what runs and what waits will be done, by `engine.estimates`."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice

from engine.estimates import Device, Leg, Work, forecast, work_of
from engine.job_runner import is_drawing
from engine.jobs import GenerationJob, GenerationRequest, ModelLoadJob, ModelUnloadJob, Stage
from engine.lane import Lane
from engine.submission import Submission

FORESEEN = 50
"""Jobs in line, from the first, of which it is said when they will be done."""

GOOD_FOR = 1.0
"""Seconds after which it is worked out anew, though nobody came or went."""

_BUSY_FOR = 0.2  # likewise, where somebody did: it takes some milliseconds among many


class Outlook:
    """When the jobs of a pool will be done.

    Args:
        lanes: all there are.
        submissions: all jobs that have not ended, by id.
        line: yields the ids of those that wait, in fair order.
    """

    def __init__(
        self,
        lanes: Sequence[Lane],
        submissions: Mapping[str, Submission],
        line: Callable[[], Iterable[str]],
    ) -> None:
        self._lanes = lanes
        self._submissions = submissions
        self._line = line
        self._seconds: dict[str, float] = {}
        self._seen: set[str] = set()
        self._made_at = -GOOD_FOR
        self._good_for = GOOD_FOR

    def seconds(self, job_id: str) -> float | None:
        """Returns in how many seconds a job will be done; None where that isn't known."""
        if job_id not in self._submissions:
            return None
        now = asyncio.get_running_loop().time()
        if now - self._made_at >= self._good_for or job_id not in self._seen:
            self._made_at, self._good_for = now, GOOD_FOR
            self._look(now)
        found = self._seconds.get(job_id)
        return None if found is None else max(0.0, self._made_at + found - now)

    def change(self) -> None:
        """Notes that somebody came or went, or that more was measured."""
        self._good_for = _BUSY_FOR

    def _look(self, now: float) -> None:
        waiting = [self._submissions[job_id] for job_id in islice(self._line(), FORESEEN)]
        self._seen = set(self._submissions)
        self._seconds = forecast(
            [self.device(lane) for lane in self._lanes if lane.is_ready],
            [_work(submission) for submission in waiting],
        )

    def device(self, lane: Lane) -> Device:
        """Returns what a lane is like now."""
        now = asyncio.get_running_loop().time()
        running = [self._submissions[job_id] for job_id in lane.jobs]
        loading = [now - each.stage_since for each in running if _stage(each) is Stage.LOADING]
        executor = lane.executor
        return Device(
            pace=executor.pace,
            capacity=executor.capacity,
            most_rows=executor.most_rows,
            loaded=executor.loaded,
            running=[_work(submission) for submission in running],
            loading=max(loading, default=0.0),
        )


def _stage(submission: Submission) -> Stage | None:
    return submission.progress.stage if submission.progress else None


def _work(submission: Submission) -> Work:
    """Returns what is left of a job."""
    job, progress = submission.job, submission.progress
    match job:
        case GenerationJob(request=GenerationRequest() as request) if is_drawing(job):
            work = work_of(job.id, request)
            if progress is None or progress.stage in (Stage.LOADING, Stage.ENCODING):
                return work
            return work.after(progress.fraction if progress.stage is Stage.DENOISING else 1.0)
        case ModelLoadJob():
            return Work(job.id, models=(job.model.key,))
        case ModelUnloadJob():
            return Work(job.id)
    return Work(job.id, (Leg("", 1),))  # of a kind of its own: nobody knows what it takes
