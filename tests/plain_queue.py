"""The fair queue's rules written down plainly: everything is sorted anew for every question."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field, replace

from engine.fair_queue import LOOK_AHEAD, MOST_OVERTAKINGS, SKIPPED_AT_MOST, Ticket


@dataclass
class Line:
    due: int
    jobs: list[Ticket] = field(default_factory=list)


@dataclass
class Group:
    due: int
    clock: int = 0
    lines: dict[str, Line] = field(default_factory=dict)

    @property
    def waits(self) -> bool:
        return any(line.jobs for line in self.lines.values())


class PlainQueue:
    """Answers as `FairQueue` must, in as much time as it takes."""

    def __init__(self) -> None:
        self.clock = 0
        self.arrivals = 0
        self.takings = 0
        self.groups: dict[str, Group] = {}
        self.restored: list[Ticket] = []
        self.overtaken: Counter[str] = Counter()

    def order(self) -> list[Ticket]:
        """All that wait, in fair order."""
        tagged = []
        for group in self.groups.values():
            jobs = []
            for line in group.lines.values():
                tag = line.due
                for job in line.jobs:
                    jobs.append((tag, job.number, job))
                    tag += job.charge
            tag = group.due
            for _, number, job in sorted(jobs, key=lambda each: each[:2]):
                tagged.append((tag, number, job))
                tag += job.charge
        before = sorted(self.restored, key=lambda job: job.taken or 0)
        return before + [job for *_, job in sorted(tagged, key=lambda each: each[:2])]

    def push(
        self, job_id: str, owner: str, cost: float, weight: float, key: str, group: str | None
    ) -> None:
        name = f"owner {owner}" if group is None else f"group {group}"
        found = self.groups.get(name)
        if found is None or (not found.waits and found.due <= self.clock):
            found = self.groups[name] = Group(self.clock)
        line = found.lines.setdefault(owner, Line(found.clock))
        if not line.jobs:
            line.due = max(line.due, found.clock)
        line.jobs.append(Ticket(job_id, owner, name, cost, weight, key, self.arrivals))
        self.arrivals += 1

    def find(
        self,
        loaded: Collection[str] = (),
        passed_over: Collection[str] = (),
        skipped: Collection[str] = (),
        lanes: int = 1,
    ) -> list[Ticket]:
        """The jobs up to the one to take: it is the last; the others it overtakes."""
        order = [job for job in self.order() if job.job_id not in passed_over]
        if skipped:
            order = [job for job in order[:SKIPPED_AT_MOST] if job.key not in skipped]
        at = next((at for at, job in enumerate(order) if self._may_go(job)), None)
        if at is None:
            return []
        first = order[at]
        if not loaded or first.taken is not None or not first.key or first.key in loaded:
            return [first]
        near = order[at : at + LOOK_AHEAD]
        for count, job in enumerate(near):
            if job.key in loaded and self._may_go(job):
                return near[: count + 1]
            if self.overtaken[job.job_id] >= MOST_OVERTAKINGS * lanes:
                break
        return [first]

    def pop(self, *asked: Collection[str], lanes: int = 1) -> Ticket:
        """Takes a job; the arguments are those of `find`."""
        *overtaken, job = self.find(*asked, lanes=lanes)
        self.overtaken.update(each.job_id for each in overtaken)
        del self.overtaken[job.job_id]
        if job.taken is not None:
            self.restored.remove(job)
            return replace(job, overtook=0)
        group = self.groups[job.group]
        line = group.lines[job.owner]
        if not overtaken:
            self.clock = max(self.clock, group.due)
            group.clock = max(group.clock, line.due)
        line.jobs.remove(job)
        line.due += job.charge
        group.due += job.charge
        self.takings += 1
        return replace(job, taken=self.takings - 1, overtook=len(overtaken))

    def remove(self, job: Ticket) -> None:
        del self.overtaken[job.job_id]
        if job.taken is not None:
            self.restored.remove(job)
        else:
            self.groups[job.group].lines[job.owner].jobs.remove(job)

    def _may_go(self, job: Ticket) -> bool:
        return job.taken is not None or self.groups[job.group].lines[job.owner].jobs[0] == job
