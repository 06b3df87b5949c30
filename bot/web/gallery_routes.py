"""The gallery over HTTP: all of one's pictures, found and page by page."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from bot.records import Search
from bot.web.problems import PROBLEMS
from bot.web.schemas import JobOut
from bot.web.services import TheStudio, TheVisitor
from engine.errors import RequestError

gallery = APIRouter(prefix="/api", responses=PROBLEMS)

PAGE = 24
"""Requests on a page, unless told."""

MOST_WORDS = 8
"""That may be looked for at once: all of them are, in each of one's prompts."""


class GalleryOut(BaseModel):
    """A page of your pictures, newest first."""

    jobs: list[JobOut]
    has_newer: bool
    has_older: bool
    modes: list[str] = Field(description="Those that drew any of your pictures.")


@gallery.get("/gallery")
async def get_gallery(
    studio: TheStudio,
    visitor: TheVisitor,
    q: Annotated[
        str,
        Query(
            max_length=200,
            description=f"Up to {MOST_WORDS} words that stand in the prompt, in any order.",
        ),
    ] = "",
    mode: Annotated[str | None, Query(max_length=100, description="What drew them.")] = None,
    before: Annotated[str | None, Query(max_length=100, description="Older than this job.")] = None,
    after: Annotated[str | None, Query(max_length=100, description="Newer than this job.")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = PAGE,
) -> GalleryOut:
    """A page of your pictures; the newest page where the one that is asked for is empty."""
    words = tuple(dict.fromkeys(q.casefold().split()))
    if len(words) > MOST_WORDS:
        raise RequestError("q", f"{len(words)} words", f"at most {MOST_WORDS} words")
    search = Search(words, mode or None)
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
