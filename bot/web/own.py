"""What is the visitor's own: to them, jobs and pictures of others don't exist."""

from typing import Annotated

from fastapi import Depends

from bot.errors import UnknownImageError, UnknownJobError
from bot.records import ImageRecord, JobView, Kinship, Parent
from bot.studio import Studio
from bot.web.roles import Visitor
from bot.web.schemas import DraftIn
from bot.web.services import TheStudio, TheVisitor


async def own_job(job_id: str, studio: TheStudio, visitor: TheVisitor) -> JobView:
    """Returns one of the visitor's own jobs; to them, those of others don't exist."""
    view = await studio.view(job_id)
    if view.record.owner.id != visitor.owner.id:
        raise UnknownJobError(job_id)
    return view


OwnJob = Annotated[JobView, Depends(own_job)]


async def own_image(image_id: str, studio: TheStudio, visitor: TheVisitor) -> ImageRecord:
    """Returns one of the visitor's own pictures; likewise."""
    record = await studio.image(image_id)
    if (await studio.view(record.job_id)).record.owner.id != visitor.owner.id:
        raise UnknownImageError(image_id)
    return record


OwnImage = Annotated[ImageRecord, Depends(own_image)]


async def own_parent(body: DraftIn, studio: Studio, visitor: Visitor) -> Parent | None:
    """Returns what a request was made of, as it says; None where it was asked for in words."""
    if body.made_of is None:
        return None
    job = (await own_job(body.made_of, studio, visitor)).record
    return Parent(job.id, None, Kinship.EDIT if body.image is None else Kinship.REMIX)
