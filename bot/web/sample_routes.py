"""Sample pictures over HTTP: small ones, and which of them everybody is shown."""

from http import HTTPStatus

from fastapi import APIRouter, Response

from bot.records import ImageRecord
from bot.web.image_routes import SMALL, TheThumbnails, small_answer
from bot.web.own import OwnImage, own_image
from bot.web.problems import PROBLEMS
from bot.web.services import HERE, TheStudio, TheVisitor

samples = APIRouter(prefix="/api", responses=PROBLEMS)

SIDE = 192
"""Pixels of the longest side: twice what a card shows, for screens that are fine."""


def sample_url(image_id: str) -> str:
    """Returns a sample's address."""
    return f"/api/samples/{image_id}"


@samples.get("/samples/{image_id}", response_class=Response, responses=SMALL)
async def sample(
    image_id: str, studio: TheStudio, visitor: TheVisitor, thumbnails: TheThumbnails
) -> Response:
    """A picture of yours, or one that everybody is shown for its mode, as a small WebP."""
    return await small_answer(await _shown(image_id, studio, visitor), studio, thumbnails, SIDE)


@samples.put("/images/{image_id}/sample", status_code=HTTPStatus.NO_CONTENT)
async def choose(image: OwnImage, studio: TheStudio, visitor: TheVisitor) -> None:
    """Has everybody who draws on the page shown a picture of yours for the mode that drew it."""
    job = (await studio.view(image.job_id)).record
    await studio.samples.choose(image, job)
    what = f"Chose a sample picture of a mode: {job.request.mode}"
    await studio.steward.note(HERE.place, visitor.owner, what)


@samples.delete("/images/{image_id}/sample", status_code=HTTPStatus.NO_CONTENT)
async def take_back(image: OwnImage, studio: TheStudio) -> None:
    """Has a picture shown to you alone again; one that is no sample stays as it is."""
    await studio.samples.forget(image)


async def _shown(image_id: str, studio: TheStudio, visitor: TheVisitor) -> ImageRecord:
    image = await studio.image(image_id)
    if await studio.samples.is_shown_to_all(image):
        return image
    return await own_image(image_id, studio, visitor)
