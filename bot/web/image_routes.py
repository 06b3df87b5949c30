"""Finished pictures over HTTP: themselves, small ones, and what is made of them."""

import asyncio
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response

from bot.errors import UnknownImageError
from bot.records import Child, ImageRecord
from bot.studio import Studio
from bot.web.own import OwnImage
from bot.web.problems import PROBLEMS
from bot.web.schemas import JobOut
from bot.web.services import HERE, TheFeeds, TheStudio, TheVisitor
from bot.web.thumbnails import SIDE, Thumbnails

images = APIRouter(prefix="/api/images", responses=PROBLEMS)

_ONCE: dict[int | str, dict[str, Any]] = {
    HTTPStatus.OK.value: {"model": JobOut, "description": "It was asked for before."}
}

SMALL: dict[int | str, dict[str, Any]] = {
    HTTPStatus.OK: {
        "description": "The picture.",
        "content": {"image/webp": {"schema": {"type": "string", "format": "binary"}}},
    }
}


def _thumbnails(request: Request) -> Thumbnails:
    thumbnails: Thumbnails = request.app.state.thumbnails
    return thumbnails


TheThumbnails = Annotated[Thumbnails, Depends(_thumbnails)]


@images.get("/{image_id}", response_class=Response)
async def image(
    record: OwnImage,
    studio: TheStudio,
    download: Annotated[bool, Query(description="Have it saved instead of shown.")] = False,
) -> Response:
    """A picture as PNG, its parameters in the text chunk ``parameters``."""
    content = await content_of(record, studio)
    name = f'filename="dream-lab-{record.seed}.png"'
    headers = {
        # A picture never changes under its id.
        "Cache-Control": "private, max-age=31536000, immutable",
        "Content-Disposition": f"{'attachment' if download else 'inline'}; {name}",
    }
    return Response(content, media_type="image/png", headers=headers)


async def content_of(image: ImageRecord, studio: Studio) -> bytes:
    """Returns a picture's file.

    Raises:
        UnknownImageError: it was deleted a moment ago.
    """
    try:
        return await asyncio.to_thread(studio.image_path(image).read_bytes)
    except FileNotFoundError:
        raise UnknownImageError(image.id) from None


@images.get("/{image_id}/small", response_class=Response, responses=SMALL)
async def small(image: OwnImage, studio: TheStudio, thumbnails: TheThumbnails) -> Response:
    """A picture made small, as WebP."""
    return await small_answer(image, studio, thumbnails, SIDE)


async def small_answer(
    image: ImageRecord, studio: Studio, thumbnails: Thumbnails, side: int
) -> Response:
    """Answers with a small picture.

    Args:
        image: which; that it may be seen is known.
        studio: knows its file.
        thumbnails: make it small.
        side: pixels of its longest side.
    """
    try:
        content = await thumbnails.of(studio.image_path(image), side)
    except FileNotFoundError:
        raise UnknownImageError(image.id) from None
    headers = {"Cache-Control": "private, max-age=31536000, immutable"}
    return Response(content, media_type="image/webp", headers=headers)


@images.post("/{image_id}/vary", status_code=HTTPStatus.CREATED, responses=_ONCE)
async def vary(
    record: OwnImage,
    studio: TheStudio,
    feeds: TheFeeds,
    visitor: TheVisitor,
    response: Response,
) -> JobOut:
    """Asks for a picture that resembles one; there is one such child of each picture."""
    child = await studio.remaker.vary(record.id, visitor.owner, HERE)
    return await _born(child, studio, feeds, visitor, response)


@images.post("/{image_id}/upscale", status_code=HTTPStatus.CREATED, responses=_ONCE)
async def upscale(
    record: OwnImage,
    studio: TheStudio,
    feeds: TheFeeds,
    visitor: TheVisitor,
    response: Response,
) -> JobOut:
    """Asks for a picture to be enlarged by its model, or without where none fits (`note`)."""
    child = await studio.remaker.upscale(record.id, visitor.owner, HERE)
    return await _born(child, studio, feeds, visitor, response)


async def _born(
    child: Child, studio: TheStudio, feeds: TheFeeds, visitor: TheVisitor, response: Response
) -> JobOut:
    """Answers with a picture's one child, new or not."""
    if child.is_new:
        feeds.announce(child.job.id, visitor.owner)
    else:
        response.status_code = HTTPStatus.OK
    response.headers["Location"] = f"/api/jobs/{child.job.id}"
    return JobOut.of(await studio.view(child.job.id))
