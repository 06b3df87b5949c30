"""A lane: one executor, kept alive, and what runs on it."""

import asyncio
import enum
import logging
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

from engine.errors import WorkerDiedError
from engine.executor import Executor
from engine.jobs import ModelSpec
from engine.need import Need, Shortage

logger = logging.getLogger(__name__)

LONGEST_RESTART_DELAY = 600.0
"""Seconds between two tries at most, however often they failed."""

SHORT_SECONDS = 60.0
"""How long it is remembered what a device is short of: somebody may copy a file to its machine, or
end what holds its memory."""

DOWN_AFTER = 5
"""Failures in a row after which a lane counts as down; it goes on trying."""

Pause: TypeAlias = Callable[[int], Awaitable[None]]
"""Waits before a worker is started again, given how often in a row it failed (1 or more)."""


class LaneState(enum.StrEnum):
    """What a lane can do for a job."""

    STARTING = "starting"
    """Its worker has not answered yet."""
    READY = "ready"
    """Takes jobs."""
    RESTARTING = "restarting"
    """Its worker died; a new one is on its way."""
    DOWN = "down"
    """Its worker failed again and again; it is tried once more every few minutes."""
    CLOSED = "closed"
    """Takes nothing any more."""


@dataclass(frozen=True, slots=True)
class LaneStatus:
    """A lane as the owner sees it.

    Attributes:
        device: such as ``cuda:0``.
        state: what it can do now.
        in_flight: jobs that run on it.
        capacity: how many may.
        models: keys of the models that it draws with now, then of the one used last.
        last_error: why its worker failed last; None once it has done something since.
    """

    device: str
    state: LaneState
    in_flight: int
    capacity: int
    models: tuple[str, ...]
    last_error: str | None


def restart_delay(failures: int) -> float:
    """Returns seconds to wait after so many failures in a row: 0, 1, 2, 4, … at most 600."""
    if failures <= 1:
        return 0.0
    return min(2.0 ** min(failures - 2, 30), LONGEST_RESTART_DELAY)


async def pause(failures: int) -> None:
    """Waits for `restart_delay`."""
    await asyncio.sleep(restart_delay(failures))


class Lane:
    """Starts an executor again whenever its worker dies, and counts what runs on it.

    Args:
        executor: what it drives.
        pause: waits before another start.
        on_state: called when its state has changed: it can take jobs (again), or can't any more.
        on_change: called when its state, its load, its failures or its models may have changed;
            what the executor loads or drops by itself is the executor's to tell.
    """

    def __init__(
        self,
        executor: Executor,
        *,
        pause: Pause,
        on_state: Callable[[], None],
        on_change: Callable[["Lane"], None] = lambda _: None,
    ) -> None:
        self.executor = executor
        self._state = LaneState.STARTING
        self._pause = pause
        self._on_state = on_state
        self._on_change = on_change
        self._jobs: dict[str, str | None] = {}  # with the key of the model that each needs
        self._quarantined: str | None = None
        self.used_last: str | None = None
        self._last_error: str | None = None
        self._failures = 0
        self._lives = 0  # workers so far: tells late news of a dead one from news of this one
        self._shortages: dict[Shortage, float] = {}  # and until when they are believed
        self._emptied = asyncio.Event()
        self._memory: frozenset[str] | None = None  # what is in memory, unless jobs have changed
        self._memory_of: tuple[tuple[str, ...], str | None] = ((), None)

    @property
    def device(self) -> str:
        """The executor's device."""
        return self.executor.device

    @property
    def state(self) -> LaneState:
        """What it can do for a job."""
        return self._state

    @state.setter
    def state(self, state: LaneState) -> None:
        self._state = state
        self._on_change(self)
        self._on_state()

    @property
    def is_ready(self) -> bool:
        """Whether its worker answers."""
        return self._state is LaneState.READY

    @property
    def is_down(self) -> bool:
        """Whether it has been given up but for a try now and then."""
        return self.state is LaneState.DOWN

    @property
    def may_come_back(self) -> bool:
        """Whether it works, or will soon."""
        return self.state not in (LaneState.DOWN, LaneState.CLOSED)

    @property
    def failures(self) -> int:
        """How often in a row its worker failed, 0 once it has done something."""
        return self._failures

    @property
    def jobs(self) -> tuple[str, ...]:
        """Ids of the jobs that run on it, oldest first."""
        return tuple(self._jobs)

    @property
    def load(self) -> float:
        """Share of its capacity that is taken, 0 to 1."""
        return len(self._jobs) / self.executor.capacity

    @property
    def models(self) -> tuple[str, ...]:
        """Keys of the models that are surely in memory or on their way."""
        keys = [key for key in self._jobs.values() if key is not None]
        if self.used_last is not None:
            keys.append(self.used_last)
        return tuple(dict.fromkeys(keys))

    @property
    def in_memory(self) -> frozenset[str]:
        """Keys of all models that need no loading here."""
        loaded, last = self.executor.loaded, self.used_last
        if self._memory is None or self._memory_of != (loaded, last):
            self._memory_of = loaded, last
            keys = {*self._jobs.values(), *loaded, last}
            self._memory = frozenset(key for key in keys if key is not None)
        return self._memory

    @property
    def held(self) -> int:
        """How many models its worker has in memory."""
        return len(self.executor.loaded)

    def has(self, key: str) -> bool:
        """Returns whether a model is in memory or on its way."""
        return key in self.in_memory

    def note(self, shortage: Shortage) -> None:
        """Remembers for a while what its device is short of."""
        self._shortages[shortage] = asyncio.get_running_loop().time() + SHORT_SECONDS

    def can(self, need: Need) -> bool:
        """Returns whether its device may do a job, as far as anybody knows."""
        if self.executor.pace.space.most_pixels(need) is not None:
            return False
        return not any(each.concerns(need) for each in self._believed())

    def is_short_of(self, shortage: Shortage) -> bool:
        """Returns whether just that was noted of its device."""
        return shortage in self._believed()

    def _believed(self) -> Collection[Shortage]:
        if self._shortages:
            now = asyncio.get_running_loop().time()
            known = self._shortages.items()
            self._shortages = {shortage: until for shortage, until in known if until > now}
        return self._shortages

    @property
    def status(self) -> LaneStatus:
        """What it is like now."""
        return LaneStatus(
            device=self.device,
            state=self.state,
            in_flight=len(self._jobs),
            capacity=self.executor.capacity,
            models=self.models,
            last_error=self._last_error,
        )

    def can_take(self, *, alone: bool) -> bool:
        """Returns whether it has room for one more job, ``alone``: with nothing beside it."""
        if self.state is not LaneState.READY or self._quarantined is not None:
            return False
        return not self._jobs if alone else len(self._jobs) < self.executor.capacity

    def take(self, job_id: str, model: ModelSpec | None, *, alone: bool) -> None:
        """Counts a job that begins to run here; ``alone`` lets none join it."""
        self._jobs[job_id] = None if model is None else model.key
        self._memory = None
        if alone:
            self._quarantined = job_id
        self._on_change(self)

    def release(self, job_id: str) -> None:
        """Counts a job out."""
        self._jobs.pop(job_id, None)
        self._memory = None
        if self._quarantined == job_id:
            self._quarantined = None
        if not self._jobs:
            self._emptied.set()
        self._on_change(self)

    @contextmanager
    def calling(self, model: ModelSpec | None = None) -> Iterator[Executor]:
        """Lends the executor for a call, and learns from its end how the worker is."""
        life = self._lives
        try:
            yield self.executor
        except WorkerDiedError as error:
            self._worker_died(error, life)
            raise
        self._failures = 0
        self._last_error = None
        if model is not None and life == self._lives:
            self.used_last = model.key
        self._on_change(self)

    async def unload(self, model: ModelSpec) -> None:
        """Gives a model's memory back; a dead worker has done so already."""
        try:
            with self.calling() as executor:
                await executor.unload(model)
        except WorkerDiedError:
            return  # noted above, and its memory is free
        if self.used_last == model.key:
            self.used_last = None
        self._on_change(self)

    async def supervise(self) -> None:
        """Starts the worker and starts it again after each death; runs until it is cancelled."""
        while True:
            await self._bring_up()
            self._lives += 1
            self.state = LaneState.READY
            logger.info("Worker on %s is ready", self.device)
            # The executor tells of it, since a worker may die while nobody calls it.
            self._worker_died(await self.executor.death(), self._lives)
            await self._rest()

    async def close(self) -> None:
        """Ends the worker for good."""
        self.state = LaneState.CLOSED
        await self.executor.close()

    async def empty(self) -> None:
        """Takes nothing more, and returns when what runs has left."""
        self.state = LaneState.CLOSED
        while self._jobs:
            self._emptied.clear()
            await self._emptied.wait()

    async def _bring_up(self) -> None:
        while True:
            try:
                await self.executor.start()
            except Exception as error:  # an executor may fail in ways of its own; never give up
                self._failures += 1
                self._last_error = str(error)
                logger.warning(
                    "Worker on %s did not start (%d in a row): %s",
                    self.device,
                    self._failures,
                    error,
                )
                await self._rest()
            else:
                return

    async def _rest(self) -> None:
        """Waits before the next try."""
        if self._failures >= DOWN_AFTER:
            self.state = LaneState.DOWN
        await self._pause(self._failures)

    def _worker_died(self, error: WorkerDiedError, life: int) -> None:
        if life != self._lives or not self.is_ready:
            return  # many tell of the same death, some when the next worker is up
        self.state = LaneState.RESTARTING
        self._failures += 1
        self._last_error = str(error)
        self.used_last = None
        logger.warning("%s %d jobs were under way.", error, len(self._jobs))
