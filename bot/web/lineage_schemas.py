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


class ChildOut(BaseModel):
    """What was made of a job."""

    job_id: str
    number: int | None = Field(description="Of which image, 0 is the first; null for all of them.")
    kinship: Kinship
    status: JobStatus
    image_ids: list[str]


class FamilyOut(BaseModel):
    """A job's parent and children, yours alone."""

    parent: ParentOut | None
    children: list[ChildOut] = Field(description="Oldest first; what came to nothing left out.")

    @classmethod
    def of(cls, job: JobRecord, children: Sequence[JobRecord]) -> Self:
        """Returns the family of a job."""
        return cls(
            parent=ParentOut.of(job.parent) if job.parent else None,
            children=[
                ChildOut(
                    job_id=child.id,
                    number=child.parent.number,
                    kinship=child.parent.kinship,
                    status=child.status,
                    image_ids=[image.id for image in child.images],
                )
                for child in children
                if child.parent
            ],
        )
