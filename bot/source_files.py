"""Pictures to draw from, as files: read, kept for the jobs that start from them, removed."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from bot.errors import UnknownImageError
from bot.image_folder import ImageFolder
from bot.records import ImageRecord
from bot.source_images import SourceImage, read_source
from bot.store import Store
from engine.errors import DreamLabError, RequestError
from engine.jobs import GenerationRequest

_READ_AT_ONCE = 2  # pictures that people send; each may take half a gigabyte meanwhile


class SourceFiles:
    """Has a picture's file be there exactly as long as a job may start from it."""

    def __init__(self, store: Store, images: ImageFolder) -> None:
        """Takes what it uses."""
        self._store = store
        self._images = images
        self._reading = asyncio.Semaphore(_READ_AT_ONCE)
        self._changing = asyncio.Lock()

    async def read(self, content: bytes) -> SourceImage:
        """Reads a picture that somebody sent.

        Raises:
            RequestError: as `read_source`.
        """
        async with self._reading:
            return await asyncio.to_thread(read_source, content)

    async def read_drawn(self, image: ImageRecord) -> SourceImage:
        """Reads a picture that was drawn, as one to draw from, which outlives it.

        Raises:
            UnknownImageError: it was deleted meanwhile.
        """
        try:
            content = await asyncio.to_thread(self._images.path(image).read_bytes)
        except FileNotFoundError:
            raise UnknownImageError(image.id) from None
        return await self.read(content)

    def name(self, source: SourceImage) -> Path:
        """Returns the path of a picture, relative, as jobs have it."""
        return self._images.source_of(source)

    def path(self, request: GenerationRequest) -> Path | None:
        """Returns where the picture is that a stored request starts from; None for none."""
        return self._images.source_path(request.source) if request.source else None

    @asynccontextmanager
    async def kept(self, name: Path, source: SourceImage | None) -> AsyncIterator[None]:
        """Has a picture be on the disk, and nobody remove it, while jobs with it are stored.

        Args:
            name: the picture's, see `name`.
            source: the picture; None where it is there already.

        Raises:
            RequestError: it is not.
            DreamLabError: it can't be written.
        """
        async with self._changing:
            try:
                if source:
                    await asyncio.to_thread(self._images.keep_source, source)
                elif not self._images.source_path(name).is_file():
                    raise RequestError("image", "the picture", "one that was not deleted")
            except OSError as error:
                reason = error.strerror or type(error).__name__
                raise DreamLabError(f"The picture can't be kept: {reason}.") from error
            yield

    async def remove(self, names: Sequence[str]) -> None:
        """Deletes pictures, but for those that a job has come to use meanwhile."""
        if not names:
            return
        async with self._changing:
            unused = [Path(name) for name in await self._store.unknown(names)]
            await asyncio.to_thread(self._images.remove_sources, unused)
