"""What the studio is doing, in a word and a sentence."""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, Field

from engine.jobs import JobType
from engine.worker_pool import LaneState, LaneStatus, WorkerPool
from modes.catalog import ModeCatalog
from modes.mode_config import ModeConfig

State = Literal["ready", "loading", "unavailable"]

_LOADING = frozenset({JobType.MODE_SWITCH, JobType.MODEL_LOAD})


class LaneOut(BaseModel):
    """A device and what runs on it."""

    device: str
    state: LaneState
    in_flight: int
    capacity: int


class StatusOut(BaseModel):
    """What the studio is doing."""

    state: State
    text: str = Field(description="The same for people.")
    can_draw: bool = Field(description="Whether a request would be drawn now.")
    mode: str = Field(description="Name of the mode that draws when nobody names one.")
    waiting: int = Field(description="Requests in the queue.")
    lanes: list[LaneOut]


class HealthOut(BaseModel):
    """The program answers."""

    status: Literal["alive"] = "alive"
    loop_lag: float = Field(
        description="Seconds that the event loop was late at most in the last minute."
    )


class StatusBoard:
    """Looks at the pool and the current mode."""

    def __init__(self, pool: WorkerPool, catalog: ModeCatalog) -> None:
        self._pool = pool
        self._catalog = catalog

    def now(self) -> StatusOut:
        """Returns how things are."""
        lanes = self._pool.status()
        waiting = self._pool.get_queue_size()
        loads = any(job.type in _LOADING for job in self._pool.running_jobs())
        mode = self._mode()
        state, text = describe(lanes, mode, loads=loads, waiting=waiting)
        if self._pool.is_held:
            state, text = "unavailable", f"Drawing is paused, {waiting} waiting"
        return StatusOut(
            state=state,
            text=text,
            can_draw=state != "unavailable" and _any_ready(lanes),
            mode=mode.name,
            waiting=waiting,
            lanes=[
                LaneOut(
                    device=lane.device,
                    state=lane.state,
                    in_flight=lane.in_flight,
                    capacity=lane.capacity,
                )
                for lane in lanes
            ],
        )

    def _mode(self) -> ModeConfig:
        modes = self._catalog.modes
        # The current one may have left the file since it was switched to.
        return modes.get(self._pool.get_current_mode()) or modes[self._catalog.default_mode]


def describe(
    lanes: Sequence[LaneStatus], mode: ModeConfig, *, loads: bool, waiting: int
) -> tuple[State, str]:
    """Returns the state and what to tell people about it.

    Args:
        lanes: what each device is doing.
        mode: the one that draws when nobody names another.
        loads: whether a model is being loaded or switched to.
        waiting: requests in the queue.
    """
    if missing := mode.missing():
        return "unavailable", f"{mode.title} can't draw: {missing[0].name} is missing"
    if not _any_ready(lanes):
        if any(lane.last_error for lane in lanes):
            devices = ", ".join(lane.device for lane in lanes)
            if all(lane.state is LaneState.DOWN for lane in lanes):
                return "unavailable", f"{devices} failed again and again; tried every few minutes"
            return "unavailable", f"The worker on {devices} is down and being started again"
        return "loading", "Starting"
    if loads:
        return "loading", "Loading a model"
    if waiting:
        return "ready", f"Drawing, {waiting} waiting"
    if any(lane.in_flight for lane in lanes):
        return "ready", "Drawing"
    return "ready", "Ready"


def _any_ready(lanes: Sequence[LaneStatus]) -> bool:
    return any(lane.state is LaneState.READY for lane in lanes)
