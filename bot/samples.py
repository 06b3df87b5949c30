"""Sample pictures: what a mode draws, shown beside its name.

Each sees their own newest picture of a mode, until a picture is chosen for everybody. Nothing is
drawn for it, and nothing that somebody drew for themselves is shown to others.
"""

from collections.abc import Mapping

from bot.records import ImageRecord, JobRecord, Owner
from bot.store import Store


class Samples:
    """What the store knows of them."""

    def __init__(self, store: Store) -> None:
        """Takes the store, open."""
        self._store = store

    async def of(self, owner: Owner) -> Mapping[str, str]:
        """Returns the ids of the pictures that somebody is shown, by mode."""
        return await self._store.newest_images(owner.id) | await self._store.samples()

    async def is_shown_to_all(self, image: ImageRecord) -> bool:
        """Says whether a picture was chosen for everybody."""
        return await self._store.is_sample(image.id)

    async def choose(self, image: ImageRecord, job: JobRecord) -> None:
        """Has everybody shown a picture for the mode that drew it."""
        await self._store.choose_sample(job.request.mode, image.id)

    async def forget(self, image: ImageRecord) -> None:
        """Has a picture shown to its owner alone again."""
        await self._store.forget_sample(image.id)
