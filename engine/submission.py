"""A submission: a job on its way through the pool, and whoever waits for it."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from engine.fair_queue import Ticket
from engine.jobs import Job, Progress
from engine.lane import Lane
from engine.need import Need

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Attempt:
    """A job under way.

    Attributes:
        lane: where it runs.
        task: what does the work.
        ticket: the way back into the queue.
        deadline: ends it when its time is up; None where it may take any.
    """

    lane: Lane
    task: asyncio.Task[Any]
    ticket: Ticket
    deadline: asyncio.TimerHandle | None = None


@dataclass(slots=True, eq=False)
class Submission:
    """A job that has not ended yet, or has and is still leaving its lane.

    Attributes:
        job: what to do, nothing left open.
        need: what that takes.
        future: how it ends.
        on_event: who hears of its progress, and by None that it waits again.
        progress: the newest; None while it waits.
        stage_since: when its stage began, by the event loop's clock.
        deaths: workers that died while it ran.
        died_on: the lane of the last of them.
        refused_by: lanes whose devices said that they can't do it.
        losses: machines that went away while it ran, or could not be reached any more.
        passed_over: how many were begun before it since it needs a lane to itself.
        attempt: what runs now; None while it waits.
    """

    job: Job
    need: Need
    future: asyncio.Future[Any]
    on_event: Callable[[Progress | None], None] | None = None
    progress: Progress | None = None
    stage_since: float = 0.0
    deaths: int = 0
    died_on: Lane | None = None
    refused_by: set[Lane] = field(default_factory=set)
    losses: int = 0
    passed_over: int = 0
    attempt: Attempt | None = None

    @property
    def is_suspect(self) -> bool:
        """Whether it may be what killed a worker."""
        return self.deaths > 0

    @property
    def has_ended(self) -> bool:
        """Whether whoever waits for it knows how it ended."""
        return self.future.done()

    def tell(self, progress: Progress | None) -> None:
        """Hands on progress, or by None that it waits again; a listener's error is its own."""
        before, self.progress = self.progress, progress
        if before is None or progress is None or before.stage is not progress.stage:
            self.stage_since = asyncio.get_running_loop().time()
        if self.on_event is None or self.has_ended:
            return
        try:
            self.on_event(progress)
        except Exception:
            logger.exception("A listener of job %s failed", self.job.id)

    def succeed(self, value: Any) -> None:
        """Ends it well, unless it has ended."""
        if not self.has_ended:
            self.future.set_result(value)

    def fail(self, error: BaseException) -> None:
        """Ends it with an error, unless it has ended."""
        if not self.has_ended:
            self.future.set_exception(error)
