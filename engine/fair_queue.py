"""Who is next: waiting jobs in fair order, decided without a clock, a task or a device.

Turns are taken at two levels, by start-time fair queueing at both (Goyal, Vin and Cheng, 1996):
*groups* take turns (a Discord server is one), and within a group its *owners* (its members), each
with a line, first come first served. Who has no group is one of their own. At either level the job
at the head carries a *start tag*, the work that has been given so far on a scale where all who wait
advance alike, and the smallest tag goes next. Taking a job moves the next tag of its owner and of
its group on by cost / weight. Who comes back from a pause starts at the tag that was taken last:
neither credit for time away nor more debt than one job.

What follows, whatever others have waiting:

- Two who wait all the time get work by weight, within one job each; so do two groups, however many
  owners either has.
- An owner with nothing ahead waits for at most one job of each other owner of the group, and for
  none of those whose turn was just taken; a group likewise. So two hundred requests of one delay
  another's single one by what is in service and no more.

**Loaded models first.** `FairQueue.pop` may be told what is loaded where the job will run. Where
the first in fair order needs something else, the first whose model is loaded goes before it, if it
is the next of its owner and among the first `LOOK_AHEAD`. Nobody is overtaken in this way more than
`MOST_OVERTAKINGS` times for each lane there is, which is as long as on a single one; who overtakes
is charged as always, and the fair order of the rest stays.
"""

import heapq
import itertools
import math
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from operator import attrgetter

from engine.summed_list import SummedList

LOOK_AHEAD = 32
"""How many of the first in fair order are looked at for one whose model is loaded."""

MOST_OVERTAKINGS = 8
"""How often a job may be overtaken by others because their models are loaded."""

SKIPPED_AT_MOST = 256
"""How far is looked past jobs that wait for a lane of their model."""

_EXPLAINED = 50  # places up to which the owners ahead are counted
_UNIT = 2**32  # tags are whole numbers, so that sums are exact in any order
_BY_NUMBER = attrgetter("number")
_SWEEP_SLACK = 16  # idle ones that are remembered before it is worth to look who owes nothing


@dataclass(frozen=True, slots=True)
class Ticket:
    """A job's place in the queue.

    Attributes:
        job_id: whose.
        owner: whose line it stands in.
        group: among whom the owner takes turns.
        cost: work it stands for, in pixel-steps; less than 1 is charged as 1, so that free jobs
            can't keep the others waiting for ever.
        weight: share of its owner beside others; twice the weight, twice the work. It counts for
            the group as well: a job of weight 2 is charged half to both.
        key: the model that it needs loaded; empty where it needs none.
        number: order of arrival.
        taken: in which order it was taken; None before.
        overtook: how many, in fair order before it, it was taken ahead of for its model's sake.
    """

    job_id: str
    owner: str
    group: str
    cost: float
    weight: float
    key: str
    number: int
    taken: int | None = None
    overtook: int = 0

    @property
    def charge(self) -> int:
        """How far the next start tags of its owner and its group lie behind its own."""
        return max(1, round(max(self.cost, 1.0) * _UNIT / self.weight))

    @property
    def reason(self) -> str:
        """Why it was its turn, as people are told."""
        if self.overtook:
            return "drawn with a model that is loaded already"
        return "first in fair order"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a job stands in fair order.

    Attributes:
        position: 1 is next.
        own_before: jobs of the same owner in the same group before it.
        owners_before: other owners who have jobs before it; None far from the front, where nobody
            counts them.
        overtaken: by how many it was overtaken because their models were loaded.
    """

    position: int
    own_before: int
    owners_before: int | None
    overtaken: int

    @property
    def before(self) -> str | None:
        """Who is before it, in words; None where nobody is, or nobody counted them."""
        if self.owners_before is None or self.position == 1:
            return None
        before = []
        if self.own_before:
            before.append(f"{self.own_before} of your own")
        if self.owners_before:
            before.append(f"{self.owners_before} member{'s' if self.owners_before > 1 else ''}")
        return " and ".join(before) or None

    def __str__(self) -> str:
        """Says it to people."""
        if self.position == 1:
            return "next"
        place = f"number {self.position}"
        return f"{place}: {self.before} before you" if self.before else place


# A job in its group's order: its start tag there, and in the lowest bits its number of arrival. One
# number is compared sooner than a tuple, and lies in one piece of memory rather than three.
_Entry = int
_NUMBER_BITS = 48
_NUMBER = 2**_NUMBER_BITS - 1


# A group's turn: its ``due``, the number of its first job, its name.
_Head = tuple[int, int, str]


@dataclass(slots=True)
class _Line:
    """One owner's jobs; ``due`` is the start tag of the first, ``end`` that of the next to come."""

    due: int
    end: int
    waiting: deque[Ticket] = field(default_factory=deque)

    def index(self, ticket: Ticket) -> int:
        """Returns how many wait in this line before a job that does."""
        return bisect_left(self.waiting, ticket.number, key=_BY_NUMBER)


@dataclass(slots=True)
class _Group:
    """Owners who take turns; ``due`` is the start tag, among groups, of the group's first job.

    In ``order`` each job is as wide as its charge: where it begins, counted from ``due``, is its
    own start tag among groups. ``head`` says where the group's turn stands.
    """

    due: int
    clock: int = 0  # the largest start tag that was taken in turn
    lines: dict[str, _Line] = field(default_factory=dict)
    order: SummedList[_Entry] = field(default_factory=SummedList)
    head: _Head | None = None  # as it stands among those of the others
    sweep_at: int = _SWEEP_SLACK


class FairQueue:
    """Waiting jobs, fair between groups, between their owners, and first come first served.

    Among n jobs in g groups a push and a pop take O(log n) steps, and a position O(g log n): exact,
    and some microseconds each. What a removal costs beyond that is the rest of its owner's line,
    which moves up.
    """

    def __init__(self) -> None:
        self._clock = 0  # the largest start tag among groups that was taken in turn
        self._numbers = itertools.count()
        self._takings = itertools.count()
        self._tickets: dict[str, Ticket] = {}
        self._entries: dict[str, _Entry] = {}  # of those that were never taken
        self._numbered: dict[int, Ticket] = {}  # likewise, by number of arrival
        self._overtaken: dict[str, int] = {}
        self._keys: Counter[str] = Counter()  # of those that wait
        self._groups: dict[str, _Group] = {}
        self._heads: SummedList[_Head] = SummedList()
        self._restored: list[tuple[int, str]] = []  # order of being taken, job id
        self._sweep_at = _SWEEP_SLACK

    def __len__(self) -> int:
        return len(self._tickets)

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._tickets

    def __iter__(self) -> Iterator[str]:
        """Yields the ids in fair order."""
        return (ticket.job_id for ticket in self._in_order())

    def _in_order(self) -> Iterator[Ticket]:
        yield from (self._tickets[job_id] for _, job_id in self._restored)
        # Groups begin to take part in the merge when it has come as far as their first jobs.
        heads = iter(self._heads)
        head = next(heads, None)
        merged: list[tuple[int, int, int, Iterator[tuple[_Entry, int]]]] = []
        while head is not None or merged:
            while head is not None and (not merged or head[:2] < merged[0][:2]):
                group = self._groups[head[2]]
                self._advance(merged, group.due, group.order.spans())
                head = next(heads, None)
            _, number, due, spans = heapq.heappop(merged)
            self._advance(merged, due, spans)
            yield self._numbered[number]

    @staticmethod
    def _advance(
        merged: list[tuple[int, int, int, Iterator[tuple[_Entry, int]]]],
        due: int,
        spans: Iterator[tuple[_Entry, int]],
    ) -> None:
        span = next(spans, None)
        if span is not None:
            entry, begin = span
            heapq.heappush(merged, (due + begin, entry & _NUMBER, due, spans))

    def push(
        self,
        job_id: str,
        owner: str,
        cost: float,
        weight: float = 1.0,
        key: str = "",
        group: str | None = None,
    ) -> None:
        """Lets a job wait at the end of its owner's line.

        Args:
            job_id: unique among those that wait.
            owner: whose turn it takes within the group.
            cost: in pixel-steps.
            weight: see `Ticket`.
            key: the model that it needs loaded; empty where it needs none.
            group: whose turn it takes among groups; None is the owner alone.

        Raises:
            ValueError: it waits already, or cost or weight are no finite numbers with cost at
                least 0 and weight above 0.
        """
        self._refuse_waiting(job_id)
        if not (math.isfinite(cost) and cost >= 0):
            raise ValueError(f"cost of job {job_id} is {cost}; allowed: finite, at least 0")
        if not (math.isfinite(weight) and weight > 0):
            raise ValueError(f"weight of job {job_id} is {weight}; allowed: finite, above 0")
        # Names of groups and of lone owners must not meet.
        name = f"owner {owner}" if group is None else f"group {group}"
        ticket = Ticket(job_id, owner, name, cost, weight, key, next(self._numbers))
        group_ = self._group(name)
        line = self._line(group_, owner)
        if not line.waiting:
            line.due = line.end = max(line.due, group_.clock)
        line.waiting.append(ticket)
        self._tickets[job_id] = ticket
        self._numbered[ticket.number] = ticket
        self._keys[key] += 1
        self._enter(group_, line, ticket)
        self._show_head(name, group_)

    def in_turn(
        self, passed_over: Collection[str] = (), skipped: Collection[str] = ()
    ) -> Iterator[str]:
        """Yields the ids of those who may go, as far as `SKIPPED_AT_MOST`, in fair order.

        Arguments as of `pop`; what is added to them meanwhile counts from then on.
        """
        order = itertools.islice(self._in_order(), len(passed_over) + SKIPPED_AT_MOST)
        for ticket in order:
            if ticket.job_id in passed_over or ticket.key in skipped:
                continue
            if self._may_go(ticket):
                yield ticket.job_id

    def peek(
        self,
        loaded: Collection[str] = (),
        passed_over: Collection[str] = (),
        skipped: Collection[str] = (),
    ) -> str | None:
        """Returns the id that `pop` would take; None where it would take none."""
        found = self._find(loaded, passed_over, skipped)
        return found[-1] if found else None

    def pop(
        self,
        loaded: Collection[str] = (),
        passed_over: Collection[str] = (),
        skipped: Collection[str] = (),
        lanes: int = 1,
        fits: Callable[[str], bool] = lambda _: True,
    ) -> Ticket:
        """Takes a job and charges its owner and its group.

        Args:
            loaded: keys of models that need no loading where the job will run; without any, the
                first in fair order is taken.
            passed_over: ids of those whose turn it can't be now; they keep their places, and so
                do the later ones of their owners.
            skipped: keys of models whose jobs can't go now, likewise; they are looked past as far
                as `SKIPPED_AT_MOST`.
            lanes: that take jobs: a job may be overtaken `MOST_OVERTAKINGS` times for each, or
                those that have its model would never get the time to end what they draw.
            fits: returns of an id whether that job can go where this one does; asked of those that
                would overtake.

        Raises:
            IndexError: nothing else waits.
        """
        found = self._find(loaded, passed_over, skipped, lanes, fits)
        if not found:
            raise IndexError("nothing waits")
        *overtaken, job_id = found
        for other in overtaken:
            self._overtaken[other] = self._overtaken.get(other, 0) + 1
        self._overtaken.pop(job_id, None)
        ticket = self._tickets.pop(job_id)
        self._keys[ticket.key] -= 1
        if ticket.taken is not None:
            self._restored.remove((ticket.taken, job_id))
            return replace(ticket, overtook=0)  # was charged when it was first taken
        self._charge(ticket, in_turn=not overtaken)
        return replace(ticket, taken=next(self._takings), overtook=len(overtaken))

    def restore(self, ticket: Ticket) -> None:
        """Puts a job that was taken back, without charging it again.

        It goes before all that were never taken, and keeps its place among those that were.

        Raises:
            ValueError: it waits already, or the ticket was never taken.
        """
        self._refuse_waiting(ticket.job_id)
        if ticket.taken is None:
            raise ValueError(f"job {ticket.job_id} was never taken, so it has no old place")
        self._tickets[ticket.job_id] = ticket
        self._keys[ticket.key] += 1
        self._restored.append((ticket.taken, ticket.job_id))
        self._restored.sort()

    def remove(self, job_id: str) -> bool:
        """Takes a job out without a charge: the next of its owner move up. False: not here."""
        ticket = self._tickets.pop(job_id, None)
        if ticket is None:
            return False
        self._keys[ticket.key] -= 1
        self._overtaken.pop(job_id, None)
        if ticket.taken is not None:
            self._restored.remove((ticket.taken, job_id))
            return True
        del self._numbered[ticket.number]
        group = self._groups[ticket.group]
        line = group.lines[ticket.owner]
        at = line.index(ticket)
        del line.waiting[at]
        group.order.remove(self._entries.pop(job_id))
        charge = ticket.charge
        for each in itertools.islice(line.waiting, at, None):
            entry = self._entries[each.job_id]
            nearer = self._entries[each.job_id] = entry - (charge << _NUMBER_BITS)
            group.order.add(nearer, group.order.remove(entry))
        line.end -= charge
        self._show_head(ticket.group, group)
        return True

    def waiting_for(self, key: str) -> int:
        """Returns how many jobs wait that need a model."""
        return self._keys[key]

    def position(self, job_id: str) -> int | None:
        """Returns a job's place in fair order, 1 is next; None where it doesn't wait."""
        ticket = self._tickets.get(job_id)
        if ticket is None:
            return None
        if ticket.taken is not None:
            return self._restored.index((ticket.taken, job_id)) + 1
        own = self._groups[ticket.group]
        before, begin = own.order.locate(self._entries[job_id])
        start = own.due + begin
        groups, own_name, own_number = self._groups, ticket.group, ticket.number
        for due, number, name in self._heads:
            if due > start or (due == start and number > own_number):
                break
            if name != own_name:
                rank, there = groups[name].order.begun(start - due)
                before += rank
                if there is not None and there & _NUMBER < own_number:
                    before += 1  # it begins there as well, and came earlier
        return len(self._restored) + before + 1

    def place(self, job_id: str) -> Place | None:
        """Returns where a job stands and behind whom; None where it doesn't wait."""
        position = self.position(job_id)
        if position is None:
            return None
        ticket = self._tickets[job_id]
        overtaken = self._overtaken.get(job_id, 0)
        if position > _EXPLAINED:
            line = self._groups[ticket.group].lines[ticket.owner]
            return Place(position, line.index(ticket), None, overtaken)
        ahead = list(itertools.islice(self._in_order(), position - 1))
        who = [(other.group, other.owner) for other in ahead]
        own = who.count((ticket.group, ticket.owner))
        others = {owner for _, owner in who} - {ticket.owner}
        return Place(position, own, len(others), overtaken)

    # Choosing -----------------------------------------------------------------------------------

    def _find(
        self,
        loaded: Collection[str],
        passed_over: Collection[str],
        skipped: Collection[str] = (),
        lanes: int = 1,
        fits: Callable[[str], bool] = lambda _: True,
    ) -> list[str]:
        """Returns the ids up to the one to take: it is the last; the others it overtakes."""
        order: Iterator[Ticket] = self._in_order()
        if passed_over:
            order = (ticket for ticket in order if ticket.job_id not in passed_over)
        if skipped:
            near = itertools.islice(order, SKIPPED_AT_MOST)
            order = (ticket for ticket in near if ticket.key not in skipped)
        first = next((ticket for ticket in order if self._may_go(ticket)), None)
        if first is None:
            return []
        if not loaded or first.taken is not None or not first.key or first.key in loaded:
            return [first.job_id]
        passed = []
        for ticket in itertools.chain([first], itertools.islice(order, LOOK_AHEAD - 1)):
            is_loaded = ticket.key in loaded and self._may_go(ticket)
            if is_loaded and not fits(ticket.job_id):
                continue  # it waits for another place
            passed.append(ticket.job_id)
            if is_loaded:
                return passed
            if self._overtaken.get(ticket.job_id, 0) >= MOST_OVERTAKINGS * lanes:
                break
        return [first.job_id]

    def _may_go(self, ticket: Ticket) -> bool:
        """Whether it is not behind another one of its owner."""
        if ticket.taken is not None:
            return True
        return self._groups[ticket.group].lines[ticket.owner].waiting[0] is ticket

    # Groups, lines and tags ---------------------------------------------------------------------

    def _charge(self, ticket: Ticket, *, in_turn: bool) -> None:
        """Takes the first of a line out of its group."""
        group = self._groups[ticket.group]
        line = group.lines[ticket.owner]
        if in_turn:
            self._clock = max(self._clock, group.due)
            group.clock = max(group.clock, line.due)
        group.order.remove(self._entries.pop(ticket.job_id))
        del self._numbered[ticket.number]
        line.waiting.popleft()
        charge = ticket.charge
        line.due += charge
        group.due += charge
        self._show_head(ticket.group, group)

    def _enter(self, group: _Group, line: _Line, ticket: Ticket) -> None:
        entry = self._entries[ticket.job_id] = (line.end << _NUMBER_BITS) + ticket.number
        charge = ticket.charge
        line.end += charge
        group.order.add(entry, charge)

    def _show_head(self, name: str, group: _Group) -> None:
        """Has a group's turn stand where it belongs, after its jobs have changed."""
        head = None
        if len(group.order):
            head = (group.due, group.order.first() & _NUMBER, name)
        if head == group.head:
            return
        if group.head is not None:
            self._heads.remove(group.head)
        if head is not None:
            self._heads.add(head)
        group.head = head

    def _group(self, name: str) -> _Group:
        """Returns a group, ready for one more job."""
        group = self._groups.get(name)
        if group is None or (not len(group.order) and group.due <= self._clock):
            # Who waits for nothing and owes nothing begins anew, and may as well be forgotten.
            if len(self._groups) >= self._sweep_at:
                self._groups = {
                    other: group
                    for other, group in self._groups.items()
                    if len(group.order) or group.due > self._clock
                }
                self._sweep_at = 2 * len(self._groups) + _SWEEP_SLACK
            group = self._groups[name] = _Group(due=self._clock)
        return group

    @staticmethod
    def _line(group: _Group, owner: str) -> _Line:
        line = group.lines.get(owner)
        if line is None:
            if len(group.lines) >= group.sweep_at:
                group.lines = {
                    other: line
                    for other, line in group.lines.items()
                    if line.waiting or line.due > group.clock
                }
                group.sweep_at = 2 * len(group.lines) + _SWEEP_SLACK
            line = group.lines[owner] = _Line(group.clock, group.clock)
        return line

    def _refuse_waiting(self, job_id: str) -> None:
        if job_id in self._tickets:
            raise ValueError(f"job {job_id} waits already")
