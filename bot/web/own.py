"""What is the visitor's own: to them, jobs and pictures of others don't exist."""

from typing import Annotated

from fastapi import Depends

from bot.records import ImageRecord, JobView
from bot.studio import UnknownImageError, UnknownJobError
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
