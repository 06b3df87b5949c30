"""What the page is told of families of pictures, as JSON."""

from collections.abc import Sequence
from typing import Self

from pydantic import BaseModel, Field

from bot.records import JobRecord, Kinship, Parent
from engine.jobs import JobStatus


class ParentOut(BaseModel):
    """What a job was made of. It may be forgotten by now."""

    job_id: str
    number: int | None = Field(
        description="Which of its images, 0 is the first; null for all of them."
    )
    kinship: Kinship

    @classmethod
    def of(cls, parent: Parent) -> Self:
        """Returns the parent."""
        return cls(job_id=parent.job_id, number=parent.number, kinship=parent.kinship)


class MemberOut(BaseModel):
    """A job as a member of its family."""

    id: str
    parent_id: str | None = Field(description="Another of the family; null for the eldest known.")
    number: int | None = Field(
        description="Which of its parent's images, 0 is the first; null for all of them."
    )
    kinship: Kinship | None
    prompt: str
    status: JobStatus
    image_ids: list[str] = Field(description="Its images; none where it has not drawn any (yet).")

    @classmethod
    def of(cls, record: JobRecord, *, eldest: bool) -> Self:
        """Returns a member of a family; the eldest has no parent in it."""
        parent = None if eldest else record.parent
        return cls(
            id=record.id,
            parent_id=parent.job_id if parent else None,
            number=parent.number if parent else None,
            kinship=parent.kinship if parent else None,
            prompt=record.request.shown_prompt,
            status=record.status,
            image_ids=[image.id for image in record.images],
        )


class FamilyOut(BaseModel):
    """All that came of the eldest, parents before their children; yours alone."""

    family: list[MemberOut]

    @classmethod
    def of(cls, family: Sequence[JobRecord]) -> Self:
        """Returns a family, the eldest of whom comes first."""
        return cls(
            family=[MemberOut.of(one, eldest=number == 0) for number, one in enumerate(family)]
        )
