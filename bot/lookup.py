"""Jobs and pictures by their ids."""

from bot.errors import UnknownImageError, UnknownJobError
from bot.records import ImageRecord, JobRecord
from bot.store import Store


async def stored_job(store: Store, job_id: str) -> JobRecord:
    """Returns a job.

    Raises:
        UnknownJobError: there is none.
    """
    record = await store.get(job_id)
    if record is None:
        raise UnknownJobError(job_id)
    return record


async def stored_image(store: Store, image_id: str) -> ImageRecord:
    """Returns a picture's record.

    Raises:
        UnknownImageError: no such picture.
    """
    image = await store.image(image_id)
    if image is None:
        raise UnknownImageError(image_id)
    return image
