"""The lanes of a pool: kept running, and more or fewer of them as machines come and go.

A lane whose worker fails again and again counts as down and is tried once more every few minutes;
the others go on. Where all are down, what waits goes on waiting, and new jobs are refused.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, overload

from engine.errors import NoDeviceError, WorkerDiedError
from engine.executor import Executor, Fleet
from engine.jobs import ModelSpec
from engine.lane import Lane, LaneState, LaneStatus, Pause
from engine.need import Need
from engine.pace import Measurement
from engine.placement import Places, anywhere, choose
from engine.pool_tasks import PoolTasks

logger = logging.getLogger(__name__)


class Lanes(Sequence[Lane]):
    """All lanes there are, in the order in which they came.

    Args:
        executors: one per device; a lane for each of them.
        fleet: brings more of them, and takes them away.
        tasks: run what watches over lanes.
        pause: waits before a worker is started again; see `engine.lane.pause`.
        on_state: called when one of them can take jobs (again), or can't any more.
        on_news: called when one has gone, or more is known of what its device takes.
        on_measurement: called with each step and load that a worker has measured.
    """

    def __init__(
        self,
        executors: Sequence[Executor],
        fleet: Fleet | None,
        tasks: PoolTasks,
        *,
        pause: Pause,
        on_state: Callable[[], None],
        on_news: Callable[[], None],
        on_measurement: Callable[[Measurement], None],
    ) -> None:
        self._fleet = fleet
        self._tasks = tasks
        self._pause = pause
        self._on_state = on_state
        self._on_news = on_news
        self._on_measurement = on_measurement
        self._lanes: list[Lane] = []
        self._places: Places[Lane] = Places()  # those that are ready
        self._changed: dict[Lane, None] = {}  # since they were put there
        self._supervisors: dict[Lane, asyncio.Task[None]] = {}
        self._fleet_task: asyncio.Task[None] | None = None
        self._is_retired = False
        for executor in executors:
            self._add(executor)

    @overload
    def __getitem__(self, index: int) -> Lane: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Lane]: ...

    def __getitem__(self, index: int | slice) -> Lane | Sequence[Lane]:
        return self._lanes[index]

    def __iter__(self) -> Iterator[Lane]:
        return iter(self._lanes)

    def __len__(self) -> int:
        return len(self._lanes)

    # Lifetime ---------------------------------------------------------------------------------

    def start(self, demand: Callable[[], int]) -> None:
        """Begins to start the workers, and has the fleet bring more.

        Args:
            demand: returns how many requests run or wait.
        """
        for lane in self._lanes:
            self._supervise(lane)
        if self._fleet is not None:
            serving = self._fleet.run(self._join, self._leave, demand)
            # It ends after the lanes do, which may need it until then.
            self._fleet_task = asyncio.create_task(serving, name="fleet")
            self._tasks.watch(self._fleet_task)

    def retire(self) -> None:
        """Starts no worker again and takes no lane more; those that run go on."""
        self._is_retired = True
        for supervisor in self._supervisors.values():
            supervisor.cancel()

    async def close(self) -> None:
        """Ends all workers, then the fleet; who doesn't end in time is given up."""
        await self._tasks.wait(
            [asyncio.create_task(_close(lane), name=f"close {lane.device}") for lane in self._lanes]
        )
        if self._fleet_task is not None:
            self._fleet_task.cancel()
            await self._tasks.wait([self._fleet_task])

    def _add(self, executor: Executor) -> Lane:
        lane = Lane(
            executor, pause=self._pause, on_state=self._on_state, on_change=self._note_change
        )

        def more_is_known() -> None:
            self._note_change(lane)  # of what is loaded
            self._on_news()  # what is expected may have changed

        executor.pace.on_take = more_is_known
        executor.pace.on_measurement = self._on_measurement
        self._note_change(lane)
        self._lanes.append(lane)
        return lane

    def _supervise(self, lane: Lane) -> None:
        supervisor = asyncio.create_task(lane.supervise(), name=f"lane {lane.device}")
        self._tasks.own(supervisor)
        self._supervisors[lane] = supervisor

    def _join(self, executor: Executor) -> None:
        """Takes a lane more."""
        if not self._is_retired:
            self._supervise(self._add(executor))

    async def _leave(self, executor: Executor) -> None:
        """Lets a lane go, once what runs on it has ended."""
        lane = next((lane for lane in self._lanes if lane.executor is executor), None)
        if lane is None:
            return
        supervisor = self._supervisors.pop(lane, None)
        if supervisor is not None:
            supervisor.cancel()
        await lane.empty()
        await _close(lane)
        if lane in self._lanes:
            self._lanes.remove(lane)
        self._on_news()

    # Who may do a job -------------------------------------------------------------------------

    def refuse_if_down(self) -> None:
        """Refuses jobs where nobody could do them.

        Raises:
            NoDeviceError: all devices are down, or the fleet has none and says why.
        """
        trouble = self._fleet.trouble if self._fleet is not None else None
        if all(lane.is_down for lane in self._lanes) and (self._lanes or trouble):
            raise NoDeviceError([lane.device for lane in self._lanes], trouble)

    def places(self) -> Places[Lane]:
        """Returns those that are ready as places for jobs, as they are now."""
        changed, self._changed = self._changed, {}
        for lane in changed:
            if lane.is_ready:
                room = lane.can_take(alone=False)
                self._places.put(lane, lane.in_memory, has_room=room)
            else:
                self._places.remove(lane)
        return self._places

    def candidates(
        self, need: Need, died_on: Lane | None, refused_by: Collection[Lane]
    ) -> Callable[[Lane], bool]:
        """Returns what says of a lane whether it may do a job.

        Args:
            need: what the job needs. Where all are said to be short of it, any is asked again, and
                the job ends with its answer.
            died_on: the lane whose worker died of it, perhaps. Another one is better, if it works,
                so that a device that has fallen away doesn't make a request look poisonous.
            refused_by: lanes that could not do it.
        """

        def can(lane: Lane) -> bool:
            return lane not in refused_by and lane.can(need)

        def can_and_lives(lane: Lane) -> bool:
            return lane is not died_on and can(lane)

        if died_on and any(lane.is_ready and can_and_lives(lane) for lane in self._lanes):
            return can_and_lives
        return can if self.somebody_can(need, refused_by) else anywhere

    def somebody_can(self, need: Need, refused_by: Collection[Lane]) -> bool:
        """Returns whether a lane that works, or will soon, may do a job; arguments as above."""
        return any(
            lane.may_come_back and lane not in refused_by and lane.can(need) for lane in self._lanes
        )

    def _note_change(self, lane: Lane) -> None:
        self._changed[lane] = None

    # What they are like -----------------------------------------------------------------------

    def status(self) -> list[LaneStatus]:
        """Returns what each lane is like now; a fleet without any has one that says why."""
        found = [lane.status for lane in self._lanes]
        if not found and self._fleet is not None:
            found.append(_missing(self._fleet.trouble))
        return found

    async def stats(self, patience: float) -> list[tuple[LaneStatus, dict[str, Any] | None]]:
        """Returns each lane's status with its device's `ModelRegistry.get_vram_stats`.

        None stands for a device whose worker is away, or says nothing within ``patience`` seconds.
        """
        lanes = tuple(self._lanes)  # others may come and go meanwhile
        found = await asyncio.gather(*(_stats(lane, patience) for lane in lanes))
        looked = [(lane.status, known) for lane, known in zip(lanes, found, strict=True)]
        return looked or [(status, None) for status in self.status()]


def choose_lane(
    lanes: Sequence[Lane],
    model: ModelSpec | None,
    *,
    alone: bool,
    prefer_loaded: bool,
    finish: Callable[[Lane], float | None] = lambda _: None,
) -> Lane | None:
    """Returns the lane that a job should run on; None where all are busy or down.

    Args:
        lanes: those that may do it.
        model: what the job needs loaded.
        alone: whether it must have a lane to itself.
        prefer_loaded: whether a lane that has the model goes before a less busy one.
        finish: see `engine.placement.choose`.
    """
    free = [lane for lane in lanes if lane.can_take(alone=alone)]
    key = None if model is None else model.key
    return choose(free, key, prefer_loaded=prefer_loaded, finish=finish)


def _missing(trouble: str | None) -> LaneStatus:
    """Returns what stands for a fleet without a device."""
    state = LaneState.STARTING if trouble is None else LaneState.DOWN
    return LaneStatus("the cluster", state, 0, 0, (), trouble)


async def _stats(lane: Lane, patience: float) -> dict[str, Any] | None:
    try:
        async with asyncio.timeout(patience):
            return await lane.executor.stats()
    except (WorkerDiedError, TimeoutError):
        return None


async def _close(lane: Lane) -> None:
    try:
        await lane.close()
    except Exception:
        logger.exception("The worker on %s did not close well", lane.device)
