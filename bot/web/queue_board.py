"""What runs and what waits, and why, as each visitor may see it."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Self

from pydantic import BaseModel, Field

from bot.records import JobRecord, JobView, Setback
from bot.studio import Studio
from bot.web.roles import Role, Visitor
from engine.jobs import (
    Job,
    JobStatus,
    JobType,
    ModelLoadJob,
    ModelUnloadJob,
    ModeSwitchJob,
    Progress,
    Stage,
)
from engine.worker_pool import LaneState, LaneStatus, WorkerPool
from modes.catalog import ModeCatalog

LOOK_EVERY = 0.5
"""Seconds for which one look at the queue serves everybody."""

_CAME_BY = {"discord": "Discord", "web": "the page", "cli": "the terminal"}

_SETBACKS = {
    Setback.RESTART: "Back after a restart.",
    Setback.INTERRUPTED: "It was interrupted and waits for a device again.",
}

_ERRANDS = {
    JobType.MODEL_LOAD: "Loading",
    JobType.MODE_SWITCH: "Switching to",
    JobType.MODEL_UNLOAD: "Giving back",
}


class AdvanceOut(BaseModel):
    """How far a drawing is."""

    stage: Stage
    step: int
    steps: int
    fraction: float = Field(description="Share of the steps that are done, 0 to 1.")

    @classmethod
    def of(cls, progress: Progress) -> Self:
        """Returns the progress without its preview."""
        return cls(
            stage=progress.stage,
            step=progress.step,
            steps=progress.steps,
            fraction=progress.fraction,
        )


class EntryOut(BaseModel):
    """A request that has not ended."""

    id: str | None = Field(description="null where it is not yours to cancel.")
    is_yours: bool
    who: str = Field(description="Whose it is: a name for admins, else 'you' or 'a member'.")
    prompt: str | None = Field(description="null where it is not yours.")
    mode: str
    width: int
    height: int
    count: int
    runs: bool
    position: int | None = Field(description="Place in the queue, 1 is next.")
    why: str | None = Field(description="Why it waits, in words.")
    device: str | None = Field(description="What draws it.")
    progress: AdvanceOut | None
    created_at: datetime
    expected_at: datetime | None


class ErrandOut(BaseModel):
    """Something else that a device does, such as loading a model."""

    text: str
    device: str | None


class QueueOut(BaseModel):
    """What runs, and what waits in turn."""

    running: list[EntryOut]
    waiting: list[EntryOut]
    errands: list[ErrandOut]
    capacity: int = Field(description="How many may be drawn at once now.")
    queue_max: int = Field(description="How many may wait.")


class QueueBoard:
    """Looks at the queue, once for everybody who asks within `LOOK_EVERY`."""

    def __init__(self, studio: Studio, catalog: ModeCatalog, pool: WorkerPool) -> None:
        self._studio = studio
        self._catalog = catalog
        self._pool = pool
        self._views: list[JobView] = []
        self._looked_at = float("-inf")

    def now(self, visitor: Visitor) -> QueueOut:
        """Returns the queue as somebody may see it."""
        now = asyncio.get_running_loop().time()
        if now - self._looked_at >= LOOK_EVERY / 2:
            self._views, self._looked_at = self._studio.live.under_way(), now
        lanes = self._pool.status()
        entries = [self._entry(view, lanes, visitor) for view in self._views]
        return QueueOut(
            running=[entry for entry in entries if entry.runs],
            waiting=[entry for entry in entries if not entry.runs],
            errands=[
                ErrandOut(text=self._errand(job), device=self._pool.device_of(job.id))
                for job in self._pool.running_jobs()
                if job.type in _ERRANDS
            ],
            capacity=sum(lane.capacity for lane in lanes if lane.state is LaneState.READY),
            queue_max=self._pool.queue_max,
        )

    def forget(self) -> None:
        """Has the next look be a fresh one."""
        self._looked_at = float("-inf")

    def _entry(self, view: JobView, lanes: Sequence[LaneStatus], visitor: Visitor) -> EntryOut:
        record = view.record
        request = record.request
        is_yours = record.owner.id == visitor.owner.id
        may_know = is_yours or visitor.role is Role.ADMIN
        runs = record.status is JobStatus.RUNNING
        mode = self._catalog.modes.get(request.mode)
        return EntryOut(
            id=record.id if may_know else None,
            is_yours=is_yours,
            who=_who(record, visitor, is_yours=is_yours),
            prompt=request.shown_prompt if is_yours else None,
            mode=mode.title if mode else request.mode,
            width=request.width,
            height=request.height,
            count=request.count,
            runs=runs,
            position=view.position,
            why=None if runs else reason(view, lanes, shows_weight=may_know),
            device=self._pool.device_of(record.id),
            progress=AdvanceOut.of(view.progress) if view.progress else None,
            created_at=record.created_at,
            expected_at=view.expected_at,
        )

    def _errand(self, job: Job) -> str:
        verb = _ERRANDS[job.type]
        if isinstance(job, ModeSwitchJob):
            mode = self._catalog.modes.get(job.target_mode)
            return f"{verb} {mode.title if mode else job.target_mode}"
        model = job.model if isinstance(job, ModelLoadJob | ModelUnloadJob) else None
        return f"{verb} {model.path.name if model else 'a model'}"


def reason(view: JobView, lanes: Sequence[LaneStatus], *, shows_weight: bool) -> str:
    """Returns why a request waits, in a sentence or two.

    Args:
        view: the request, as it waits.
        lanes: what each device is doing.
        shows_weight: whether what its owner's role counts may be known.
    """
    told = [_SETBACKS[view.setback]] if view.setback else []
    ready = [lane for lane in lanes if lane.state is LaneState.READY]
    if view.paused is not None:
        why = f" ({view.paused})" if view.paused else ""
        return " ".join([*told, f"Drawing is paused{why}; places are kept."])
    if not ready:
        told.append(_no_device(lanes))
    elif view.position and view.position > 1:
        told.append(f"Before it: {view.before or f'{view.position - 1} requests'}.")
    elif all(lane.in_flight >= lane.capacity for lane in ready):
        devices = " and ".join(lane.device for lane in ready)
        told.append(f"Next, as soon as {devices} has room.")
    else:
        told.append("Next.")
    if shows_weight and view.record.weight != 1:
        told.append(f"By its owner's role, its turns count {view.record.weight:g} times as much.")
    if ready and not any(view.record.request.model.key in lane.models for lane in ready):
        told.append("Its model must be loaded first.")
    return " ".join(told)


def _no_device(lanes: Sequence[LaneStatus]) -> str:
    if all(lane.state is LaneState.DOWN for lane in lanes):
        return "No device works; they are tried again every few minutes."
    if any(lane.last_error for lane in lanes):
        return "The worker failed and is being started again."
    return "The worker is starting."


def _who(record: JobRecord, visitor: Visitor, *, is_yours: bool) -> str:
    if is_yours:
        return "you"
    if visitor.role is not Role.ADMIN:
        return "a member"
    front_end = record.origin.front_end
    return f"{record.owner.name}, by {_CAME_BY.get(front_end, front_end)}"
