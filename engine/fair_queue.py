"""Who is next: waiting jobs in fair order, decided without a clock, a task or a device.

Every owner has a line, first come first served. Between the lines turns go by start-time fair
queueing (Goyal, Vin and Cheng, 1996): the job at the head of a line carries a *start tag*, the
work that its owner has been given so far on a scale where all owners advance alike, and the
smallest tag goes next. Taking a job moves its owner's next tag on by cost / weight. An owner who
comes back from a pause starts at the tag that was taken last: neither credit for time away nor
more debt than one job.

What follows from that, whatever others have waiting: an owner with nothing ahead waits for at
most one job of each other owner, and for none of those whose turn was just taken, so a hundred
requests of one delay another's single one by what is in service and no more.
"""

import dataclasses
import heapq
import itertools
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

_SWEEP_SLACK = 16
"""Idle owners that are remembered before it is worth to look which of them owe nothing."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """A job's place in the queue.

    Attributes:
        job_id: whose.
        owner: whose line it stands in.
        cost: work it stands for, in pixel-steps; less than 1 is charged as 1, so that free jobs
            can't keep the others waiting for ever.
        weight: share of its owner beside others; twice the weight, twice the work.
        key: what it needs loaded; kept with it for whoever wants to group by it.
        number: order of arrival.
        start: its start tag once it was taken; None before.
    """

    job_id: str
    owner: str
    cost: float
    weight: float
    key: str
    number: int
    start: float | None = None

    @property
    def charge(self) -> float:
        """How far its owner's next start tag lies behind its own."""
        return max(self.cost, 1.0) / self.weight


@dataclass(slots=True)
class _Line:
    """One owner's jobs that were never taken; ``due`` is the start tag of the first."""

    due: float
    waiting: deque[Ticket] = field(default_factory=deque)


class FairQueue:
    """Waiting jobs, fair between owners and first come first served within one.

    Push and pop take O(log owners), `remove` O(waiting), iteration O(n log n), and so does the
    first `position` after a change; the others until the next change are looked up.
    """

    def __init__(self) -> None:
        self._virtual_time = 0.0  # the largest start tag that was taken
        self._numbers = itertools.count()
        self._tickets: dict[str, Ticket] = {}
        self._lines: dict[str, _Line] = {}
        self._sweep_at = _SWEEP_SLACK
        # A heap of (start tag, number, job id): the head of every line and all restored tickets.
        self._heads: list[tuple[float, int, str]] = []
        # Everybody who waits asks for their place after each change.
        self._positions: dict[str, int] | None = None

    def __len__(self) -> int:
        return len(self._tickets)

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._tickets

    def __iter__(self) -> Iterator[str]:
        """Yields the ids in the order in which they would be taken."""
        return iter([job_id for _, _, job_id in sorted(self._places())])

    def push(
        self, job_id: str, owner: str, cost: float, weight: float = 1.0, key: str = ""
    ) -> None:
        """Lets a job wait at the end of its owner's line.

        Raises:
            ValueError: it waits already, or cost or weight are no finite numbers with cost at
                least 0 and weight above 0.
        """
        self._refuse_waiting(job_id)
        if not (math.isfinite(cost) and cost >= 0):
            raise ValueError(f"cost of job {job_id} is {cost}; allowed: finite, at least 0")
        if not (math.isfinite(weight) and weight > 0):
            raise ValueError(f"weight of job {job_id} is {weight}; allowed: finite, above 0")
        ticket = Ticket(job_id, owner, cost, weight, key, next(self._numbers))
        line = self._line(owner)
        if not line.waiting:
            line.due = max(line.due, self._virtual_time)
        line.waiting.append(ticket)
        self._tickets[job_id] = ticket
        self._positions = None
        if len(line.waiting) == 1:
            self._show_head(line)

    def peek(self) -> str | None:
        """Returns the id that `pop` would take; None where nothing waits."""
        return self._heads[0][2] if self._heads else None

    def pop(self) -> Ticket:
        """Takes the next job and charges its owner.

        Raises:
            IndexError: nothing waits.
        """
        if not self._heads:
            raise IndexError("nothing waits")
        start, _, job_id = heapq.heappop(self._heads)
        ticket = self._tickets.pop(job_id)
        self._positions = None
        if ticket.start is not None:
            return ticket  # was charged when it was first taken
        line = self._lines[ticket.owner]
        line.waiting.popleft()
        line.due = start + ticket.charge
        self._show_head(line)
        self._virtual_time = max(self._virtual_time, start)
        return dataclasses.replace(ticket, start=start)

    def restore(self, ticket: Ticket) -> None:
        """Puts a job that was taken back to its old place, without charging it again.

        Raises:
            ValueError: it waits already, or the ticket was never taken.
        """
        self._refuse_waiting(ticket.job_id)
        if ticket.start is None:
            raise ValueError(f"job {ticket.job_id} was never taken, so it has no old place")
        self._tickets[ticket.job_id] = ticket
        self._positions = None
        heapq.heappush(self._heads, (ticket.start, ticket.number, ticket.job_id))

    def remove(self, job_id: str) -> bool:
        """Takes a job out without a charge: the next of its owner moves up. False: not here."""
        ticket = self._tickets.pop(job_id, None)
        if ticket is None:
            return False
        self._positions = None
        if ticket.start is not None:
            self._hide_head((ticket.start, ticket.number, job_id))
            return True
        line = self._lines[ticket.owner]
        if line.waiting[0] is ticket:
            self._hide_head((line.due, ticket.number, job_id))
            line.waiting.popleft()
            self._show_head(line)
        else:
            line.waiting.remove(ticket)
        return True

    def position(self, job_id: str) -> int | None:
        """Returns a job's place, 1 is next; None where it doesn't wait."""
        if self._positions is None:
            self._positions = {waiting: place for place, waiting in enumerate(self, start=1)}
        return self._positions.get(job_id)

    def _places(self) -> Iterator[tuple[float, int, str]]:
        """Yields where every job stands, later ones by what their line will have been charged."""
        for ticket in self._tickets.values():
            if ticket.start is not None:
                yield ticket.start, ticket.number, ticket.job_id
        for line in self._lines.values():
            due = line.due
            for ticket in line.waiting:
                yield due, ticket.number, ticket.job_id
                due += ticket.charge

    def _line(self, owner: str) -> _Line:
        if owner not in self._lines:
            if len(self._lines) >= self._sweep_at:
                self._forget_idle()
            self._lines[owner] = _Line(self._virtual_time)
        return self._lines[owner]

    def _forget_idle(self) -> None:
        """Drops owners who wait for nothing and owe nothing; its cost spreads over the pushes."""
        self._lines = {
            owner: line
            for owner, line in self._lines.items()
            if line.waiting or line.due > self._virtual_time
        }
        self._sweep_at = 2 * len(self._lines) + _SWEEP_SLACK

    def _show_head(self, line: _Line) -> None:
        if line.waiting:
            head = line.waiting[0]
            heapq.heappush(self._heads, (line.due, head.number, head.job_id))

    def _hide_head(self, place: tuple[float, int, str]) -> None:
        self._heads.remove(place)
        heapq.heapify(self._heads)

    def _refuse_waiting(self, job_id: str) -> None:
        if job_id in self._tickets:
            raise ValueError(f"job {job_id} waits already")
