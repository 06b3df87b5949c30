"""What the devices hold and what failed lately, looked up once for everybody who asks."""

import asyncio
from datetime import datetime

import psutil
from pydantic import BaseModel, Field

from bot.records import JobRecord
from bot.studio import Studio
from bot.web.mode_schemas import DeviceOut
from bot.web.roles import Role, Visitor
from engine.worker_pool import WorkerPool
from modes.catalog import ModeCatalog

LOOK_EVERY = 2.0
"""Seconds for which one look serves everybody."""

MOST_FAILURES = 20
"""Of the requests that failed, how many are told of."""

_TYPED = ("prompt", "negative")  # fields whose values are what somebody typed
_REFUSED = " is not allowed. Allowed: "
_PATIENCE = 1.0  # seconds that a device has to say what it holds
_GIB = 2**30


class MachineOut(BaseModel):
    """The machine's own memory, in GB of 2**30 bytes."""

    used_gb: float
    total_gb: float


class DevicesOut(BaseModel):
    """What the devices and the machine hold."""

    devices: list[DeviceOut]
    machine: MachineOut
    troubles: list[str] = Field(description="Why a device's worker failed last, in a sentence.")


class FailureOut(BaseModel):
    """A request that failed."""

    at: datetime
    mode: str
    error: str
    is_yours: bool


class FailuresOut(BaseModel):
    """What failed lately, newest first: yours, and for admins everybody's."""

    failures: list[FailureOut]


class DeviceBoard:
    """Looks at the devices."""

    def __init__(self, studio: Studio, catalog: ModeCatalog, pool: WorkerPool) -> None:
        self._studio = studio
        self._catalog = catalog
        self._pool = pool
        self._turn = asyncio.Lock()
        self._seen: DevicesOut | None = None
        self._seen_at = 0.0

    async def now(self, visitor: Visitor) -> DevicesOut:
        """Returns what they hold, as it was within `LOOK_EVERY`; why they failed is for admins."""
        async with self._turn:
            now = asyncio.get_running_loop().time()
            if self._seen is None or now - self._seen_at >= LOOK_EVERY / 2:
                self._seen, self._seen_at = await self._look(), now
            seen = self._seen
        return seen if visitor.role is Role.ADMIN else seen.model_copy(update={"troubles": []})

    async def failures(self, visitor: Visitor) -> FailuresOut:
        """Returns what failed lately; what others typed stays theirs."""
        own = visitor.owner.id
        records = await self._studio.members.failed(
            MOST_FAILURES, None if visitor.role is Role.ADMIN else own
        )
        return FailuresOut(
            failures=[_failure(record, record.owner.id == own) for record in records]
        )

    async def _look(self) -> DevicesOut:
        stats = await self._pool.stats(_PATIENCE)
        memory = psutil.virtual_memory()
        return DevicesOut(
            devices=[
                DeviceOut.of(lane, known, self._catalog.modes, self._catalog.model_root)
                for lane, known in stats
            ],
            machine=MachineOut(
                used_gb=round((memory.total - memory.available) / _GIB, 2),
                total_gb=round(memory.total / _GIB, 2),
            ),
            troubles=[
                f"{lane.device}: {lane.last_error}"
                for lane, _ in stats
                if lane.last_error is not None
            ],
        )


def _failure(record: JobRecord, is_yours: bool) -> FailureOut:
    error = record.error or ""
    return FailureOut(
        at=record.finished_at or record.created_at,
        mode=record.request.mode,
        error=error if is_yours else _without_words(error),
        is_yours=is_yours,
    )


def _without_words(error: str) -> str:
    """Returns an error without the prompt that it may quote, as earlier versions stored it."""
    field = error.partition(":")[0]
    if field not in _TYPED:
        return error
    _, refused, allowed = error.rpartition(_REFUSED)
    return f"{field}: what was typed{refused}{allowed}" if refused else f"{field}: what was typed"
