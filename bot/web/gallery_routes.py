"""The gallery over HTTP: all of one's pictures, small ones of them, and whole families."""

from http import HTTPStatus
from typing import Annotated, Any, Self

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, Field

from bot.records import JobRecord, Kinship, Search
from bot.studio import Studio, UnknownImageError
from bot.web.problems import PROBLEMS
from bot.web.routes import OwnImage, OwnJob
from bot.web.schemas import JobOut
from bot.web.services import TheStudio, TheVisitor
from bot.web.thumbnails import Thumbnails
from engine.jobs import JobStatus

gallery = APIRouter(prefix="/api", responses=PROBLEMS)

PAGE = 24
"""Requests on a page, unless told."""

MOST_KIN = 60
"""Members of a family that are told of."""

_SMALL: dict[int | str, dict[str, Any]] = {
    HTTPStatus.OK: {
        "description": "The picture.",
        "content": {"image/webp": {"schema": {"type": "string", "format": "binary"}}},
    }
}


class GalleryOut(BaseModel):
    """A page of your pictures, newest first."""

    jobs: list[JobOut]
    has_newer: bool
    has_older: bool
    modes: list[str] = Field(description="Those that drew any of your pictures.")


class KinOut(BaseModel):
    """A job as a member of its family."""

    id: str
    parent_id: str | None = Field(description="Another of the family; null for the eldest known.")
    number: int | None = Field(description="Which of its parent's pictures; null for all.")
    kinship: Kinship | None
    prompt: str
    status: JobStatus
    small: str | None = Field(description="Its first picture, small; null where there is none.")

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
            small=f"/api/images/{record.images[0].id}/small" if record.images else None,
        )


class TreeOut(BaseModel):
    """All that came of the eldest, parents before their children."""

    family: list[KinOut]


def _thumbnails(request: Request) -> Thumbnails:
    thumbnails: Thumbnails = request.app.state.thumbnails
    return thumbnails


TheThumbnails = Annotated[Thumbnails, Depends(_thumbnails)]


@gallery.get("/gallery")
async def get_gallery(
    studio: TheStudio,
    visitor: TheVisitor,
    q: Annotated[
        str, Query(max_length=200, description="Words that stand in the prompt, in any order.")
    ] = "",
    mode: Annotated[str | None, Query(max_length=100, description="What drew them.")] = None,
    before: Annotated[str | None, Query(max_length=100, description="Older than this job.")] = None,
    after: Annotated[str | None, Query(max_length=100, description="Newer than this job.")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = PAGE,
) -> GalleryOut:
    """A page of your pictures; the newest page where the one that is asked for is empty."""
    search = Search(tuple(q.split()), mode or None)
    members = studio.members
    page = await members.page(
        visitor.owner.id, before=before, after=after, size=limit, search=search
    )
    return GalleryOut(
        jobs=[JobOut.of_record(record) for record in page.jobs],
        has_newer=page.has_newer,
        has_older=page.has_older,
        modes=await members.modes(visitor.owner.id),
    )


@gallery.get("/jobs/{job_id}/tree")
async def get_tree(view: OwnJob, studio: TheStudio) -> TreeOut:
    """What a job was made of, and what was made of that and of it, as far as it is yours."""
    members = await _family(view.record, studio)
    return TreeOut(
        family=[KinOut.of(member, eldest=index == 0) for index, member in enumerate(members)]
    )


@gallery.get("/images/{image_id}/small", response_class=Response, responses=_SMALL)
async def small(image: OwnImage, studio: TheStudio, thumbnails: TheThumbnails) -> Response:
    """A picture made small, as WebP."""
    try:
        content = await thumbnails.of(studio.image_path(image))
    except FileNotFoundError:
        raise UnknownImageError(image.id) from None
    headers = {"Cache-Control": "private, max-age=31536000, immutable"}
    return Response(content, media_type="image/webp", headers=headers)


async def _family(job: JobRecord, studio: Studio) -> list[JobRecord]:
    """Returns the family of a job, parents before children; those between it and the eldest first.

    At most `MOST_KIN`; where there are more, the nearest to the eldest.
    """
    line = [job]
    while len(line) < MOST_KIN:
        parent = await studio.lineage.parent(line[0])
        if parent is None or parent.owner.id != job.owner.id:
            break
        line.insert(0, parent)
    found = {member.id: member for member in line}
    left = list(line)
    while left and len(found) < MOST_KIN:
        for child in await studio.lineage.children(left.pop(0).id):
            if child.id not in found and child.owner.id == job.owner.id and len(found) < MOST_KIN:
                found[child.id] = child
                left.append(child)
    return list(found.values())
