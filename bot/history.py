"""How it went, up to a day back: what was looked at every few seconds, and what the rows tell.

What passes and is written nowhere (the queue's length, memory) is sampled here and lost with the
program. What came of requests is asked of the store, so that it outlives a restart.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import psutil

from bot.database import StoreUnavailableError
from bot.records import Ended
from bot.store import Store
from engine.worker_pool import WorkerPool

log = logging.getLogger(__name__)

PERIOD = 10.0
"""Seconds between two samples."""

DAY = 86_400

MOST_SAMPLES = int(DAY / PERIOD)
"""Samples that are kept; the oldest go."""

SLOTS = 60
"""Parts of equal length that a course is told in."""

MACHINE = "RAM"
"""What the machine's own memory is called."""

Hours = Literal[1, 6, 24]
"""How far one may look back."""

_PATIENCE = 2.0  # seconds that a device has to say what it holds
_GIB = 2**30


@dataclass(frozen=True, slots=True)
class Memory:
    """A device's memory, in GB of 2**30 bytes.

    Attributes:
        used: in use, by whomever.
        total: what there is.
    """

    used: float
    total: float


@dataclass(frozen=True, slots=True)
class Sample:
    """How things were at one moment.

    Attributes:
        at: seconds since 1970.
        waiting: requests in the queue.
        running: jobs that ran, loads included.
        memory: by device, and `MACHINE` for the machine's own; those that didn't answer left out.
    """

    at: float
    waiting: int
    running: int
    memory: Mapping[str, Memory] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Course:
    """How it went, in `SLOTS` parts, the oldest first; None stands where nothing is known.

    Attributes:
        hours: how far it goes back.
        waiting: most requests in the queue.
        running: most jobs that ran.
        memory: most GB in use, by device.
        totals: GB that there are, by device.
        pictures: per minute.
        failed: requests that failed.
        wait: mean seconds until a drawing began.
        longest_wait: likewise the longest.
        step: mean seconds of a step.
        requests: that ended in all of the time.
        drawn: pictures in all of the time.
    """

    hours: int
    waiting: tuple[float | None, ...]
    running: tuple[float | None, ...]
    memory: Mapping[str, tuple[float | None, ...]]
    totals: Mapping[str, float]
    pictures: tuple[float | None, ...]
    failed: tuple[float | None, ...]
    wait: tuple[float | None, ...]
    longest_wait: tuple[float | None, ...]
    step: tuple[float | None, ...]
    requests: int
    drawn: int


def course(hours: int, now: float, samples: Iterable[Sample], ended: Iterable[Ended]) -> Course:
    """Returns the course of the last hours.

    Args:
        hours: how many; at least 1.
        now: seconds since 1970, when the last slot ends.
        samples: in any order; those before and after are left out.
        ended: by slots of the same hours.
    """
    since, width = now - hours * 3600, hours * 3600 / SLOTS
    slots: list[list[Sample]] = [[] for _ in range(SLOTS)]
    totals: dict[str, float] = {}
    for sample in samples:
        if since <= sample.at <= now:
            slots[min(int((sample.at - since) / width), SLOTS - 1)].append(sample)
            totals.update({name: memory.total for name, memory in sample.memory.items()})
    by_slot = {each.slot: each for each in ended if 0 <= each.slot < SLOTS}
    told = [by_slot.get(slot) for slot in range(SLOTS)]
    return Course(
        hours=hours,
        waiting=tuple(_most(each.waiting for each in slot) for slot in slots),
        running=tuple(_most(each.running for each in slot) for slot in slots),
        memory={
            name: tuple(
                _most(each.memory[name].used for each in slot if name in each.memory)
                for slot in slots
            )
            for name in totals
        },
        totals=totals,
        pictures=tuple(60 * each.pictures / width if each else 0.0 for each in told),
        failed=tuple(float(each.failed) if each else 0.0 for each in told),
        wait=tuple(each.wait if each else None for each in told),
        longest_wait=tuple(each.longest_wait if each else None for each in told),
        step=tuple(each.step if each else None for each in told),
        requests=sum(each.requests for each in by_slot.values()),
        drawn=sum(each.pictures for each in by_slot.values()),
    )


class History:
    """Takes samples for as long as `run` runs."""

    def __init__(
        self,
        store: Store,
        pool: WorkerPool,
        clock: Callable[[], float] = time.time,
        period: float = PERIOD,
    ) -> None:
        """Takes the store, the pool, the time in seconds since 1970, and seconds between looks."""
        self._store = store
        self._pool = pool
        self._clock = clock
        self._period = period
        self._samples: deque[Sample] = deque(maxlen=MOST_SAMPLES)

    async def run(self) -> None:
        """Looks again and again until it is cancelled."""
        while True:
            try:
                await self.look()
            except Exception:  # figures are no reason to stop drawing
                log.exception("How things are could not be noted")
            await asyncio.sleep(self._period)

    async def look(self) -> Sample:
        """Takes a sample."""
        stats = await self._pool.stats(_PATIENCE)
        memory = {lane.device: _memory(known) for lane, known in stats}
        known = {device: each for device, each in memory.items() if each is not None}
        if "cpu" not in memory:  # whose memory is the machine's
            machine = psutil.virtual_memory()
            known[MACHINE] = Memory(
                (machine.total - machine.available) / _GIB, machine.total / _GIB
            )
        sample = Sample(
            self._clock(), self._pool.get_queue_size(), len(self._pool.running_jobs()), known
        )
        self._samples.append(sample)
        return sample

    async def course(self, hours: Hours) -> Course:
        """Returns how it went lately; without the rows where the database is kept from reading."""
        now = self._clock()
        width = hours * 3600 / SLOTS
        ended: Sequence[Ended] = ()
        try:
            ended = await self._store.ended(now - hours * 3600, width)
        except StoreUnavailableError as error:
            log.warning("What came of requests can't be looked up: %s", error)
        return course(hours, now, self._samples, ended)


def _memory(stats: Mapping[str, Any] | None) -> Memory | None:
    used, total = (stats or {}).get("used_gb"), (stats or {}).get("total_gb")
    return None if used is None or not total else Memory(float(used), float(total))


def _most(values: Iterable[float]) -> float | None:
    return max((float(value) for value in values), default=None)
