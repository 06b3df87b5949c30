"""All jobs of a pool that have not ended, and how many of them may wait."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from engine.errors import OwnerQueueFullError, QueueFullError
from engine.fair_queue import FairQueue, Place, Ticket
from engine.job_runner import is_drawing, model_of
from engine.jobs import Job, JobType
from engine.submission import Submission

_LOADS = frozenset({JobType.MODEL_LOAD, JobType.MODEL_UNLOAD, JobType.MODE_SWITCH})


class Submissions(Mapping[str, Submission]):
    """Jobs by id, oldest first; those that wait stand in a line besides.

    Args:
        most: how many may wait, as `waiting` counts them.
        most_per_owner: how many of them may be one owner's; None for all.

    Attributes:
        line: those that wait, in fair order.
    """

    def __init__(self, most: int, most_per_owner: int | None) -> None:
        self.line = FairQueue()
        self._most = most
        self._most_per_owner = most_per_owner
        self._by_id: dict[str, Submission] = {}
        self._reserved: Counter[str | None] = Counter()  # places, by owner
        self._errands: set[str] = set()  # ids of what is here and no request

    def __getitem__(self, job_id: str) -> Submission:
        return self._by_id[job_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_id)

    def __len__(self) -> int:
        return len(self._by_id)

    @property
    def waiting(self) -> int:
        """How many wait; loads, unloads and switches take turns, but nobody's place."""
        loads = sum(
            job_id in self.line and _is_load(self._by_id[job_id]) for job_id in self._errands
        )
        return len(self.line) - loads

    def refuse_if_full(self, owner: str | None, places: int = 1) -> None:
        """Refuses so many more that would wait.

        Args:
            owner: whose; None where no owner's bound counts.
            places: how many, at least 1.

        Raises:
            QueueFullError: too many wait for that, or are about to.
            OwnerQueueFullError: too many of this owner do.
        """
        if self.waiting + self._reserved.total() + places > self._most:
            raise QueueFullError(self._most)
        if self._most_per_owner is None or owner is None:
            return
        waiting = self._reserved[owner] + sum(
            each.attempt is None and each.job.owner == owner and not _is_load(each)
            for each in self._by_id.values()
        )
        if waiting + places > self._most_per_owner:
            raise OwnerQueueFullError(waiting, self._most_per_owner, places)

    @contextmanager
    def reserve(self, owner: str | None, places: int = 1) -> Iterator[None]:
        """Holds places in the line, all of them or none.

        Args:
            owner: whose they are; None where no owner's bound counts.
            places: how many, at least 1.

        Raises:
            QueueFullError: too many wait for that, or are about to.
            OwnerQueueFullError: too many of this owner do.
        """
        self.refuse_if_full(owner, places)
        self._reserved[owner] += places
        try:
            yield
        finally:
            self._reserved[owner] -= places

    def add(self, submission: Submission) -> None:
        """Lets a job wait, at the end of its owner's line, however many do.

        Raises:
            ValueError: its weight is not above 0.
        """
        job = submission.job
        key = "" if submission.is_suspect else key_of(job)
        self.line.push(job.id, job.owner, job.cost, job.weight, key, job.place)
        self._by_id[job.id] = submission
        if job.type is not JobType.GENERATION:
            self._errands.add(job.id)

    def restore(self, ticket: Ticket) -> None:
        """Lets a job that was taken out of the line wait again, at its old place."""
        self.line.restore(ticket)

    def remove(self, job_id: str) -> None:
        """Forgets a job, whether it waits or not."""
        if job_id in self.line:
            self.line.remove(job_id)
        del self._by_id[job_id]
        self._errands.discard(job_id)

    def position(self, job_id: str) -> int | None:
        """Returns a waiting job's place among the requests, 1 is next; None where it doesn't wait.

        Loads, switches and handlers take turns too, but are nobody's place.
        """
        place = self.line.position(job_id)
        if place is None:
            return None
        before = [self.line.position(errand) or place for errand in self._errands]
        return place - sum(position < place for position in before)

    def place(self, job_id: str) -> Place | None:
        """Returns where a waiting job stands and behind whom, loads and the like left out."""
        place, position = self.line.place(job_id), self.position(job_id)
        if place is None or position is None:
            return None
        others = place.owners_before
        if others and position < place.position:
            others -= 1  # loads and switches are all of one owner
        return replace(place, position=position, owners_before=others)


def _is_load(submission: Submission) -> bool:
    return submission.job.type in _LOADS


def key_of(job: Job) -> str:
    """Returns the model by which a job may go before others; empty where it may not."""
    model = model_of(job)
    return model.key if model and is_drawing(job) else ""
