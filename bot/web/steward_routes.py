"""Pauses over HTTP, and who changed what."""

from datetime import datetime
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from bot.rules import REASON_LENGTH
from bot.steward import EVERYWHERE
from bot.web.problems import PROBLEMS, ConflictError
from bot.web.schemas import Sent
from bot.web.services import HERE, TheStudio, TheVisitor

steward = APIRouter(prefix="/api", responses=PROBLEMS)


class DrainIn(Sent):
    """Why drawing is paused."""

    reason: str = Field(
        "",
        description="What those are told who wait.",
        max_length=REASON_LENGTH,
        examples=["a new GPU"],
    )


class PauseOut(BaseModel):
    """A pause, as it began."""

    reason: str
    running: int = Field(description="Drawings that were under way; they are finished.")
    waiting: int = Field(description="Requests that waited; they keep their places.")


class ChangeOut(BaseModel):
    """Something that an admin or a moderator did."""

    at: datetime
    by: str
    place: str | None = Field(description="Such as a Discord server; null is all of it.")
    what: str


class AuditOut(BaseModel):
    """Who changed what."""

    changes: list[ChangeOut]


@steward.post("/drain")
async def drain(body: DrainIn, studio: TheStudio, visitor: TheVisitor) -> PauseOut:
    """Finishes what is being drawn and begins nothing new; what waits and what comes is kept.

    Whoever waits is told. A restart ends the pause.
    """
    pause = await studio.steward.drain(visitor.owner, HERE.place, body.reason)
    return PauseOut(reason=pause.reason, running=pause.running, waiting=pause.waiting)


@steward.delete("/drain", status_code=HTTPStatus.NO_CONTENT)
async def resume(studio: TheStudio, visitor: TheVisitor) -> None:
    """Goes on drawing; 409 where nothing was paused."""
    if not await studio.steward.resume(visitor.owner, HERE.place):
        raise ConflictError("Drawing is not paused.")


@steward.get("/audit")
async def audit(studio: TheStudio, limit: Annotated[int, Query(ge=1, le=500)] = 100) -> AuditOut:
    """The newest changes everywhere, newest first."""
    return AuditOut(
        changes=[
            ChangeOut(
                at=entry.created_at,
                by=entry.by.name,
                place=None if entry.place == EVERYWHERE else entry.place,
                what=entry.what,
            )
            for entry in await studio.house.whole_audit(limit)
        ]
    )
