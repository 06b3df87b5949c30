"""Pictures made small, for pages that show many."""

import asyncio
import io
from pathlib import Path

from PIL import Image

SIDE = 384
"""Pixels of the longest side: twice what a page shows, for screens that are fine."""

_AT_ONCE = 2  # so that a page of large pictures leaves processors to the others


class Thumbnails:
    """Makes pictures small. Nothing is kept: browsers keep what they have seen."""

    def __init__(self) -> None:
        self._turn = asyncio.Semaphore(_AT_ONCE)

    async def of(self, path: Path, side: int = SIDE) -> bytes:
        """Returns a picture as a small WebP.

        Args:
            path: one of our own pictures.
            side: pixels of its longest side.

        Raises:
            FileNotFoundError: it is not there.
        """
        async with self._turn:
            return await asyncio.to_thread(_small, path, side)


def _small(path: Path, side: int) -> bytes:
    file = io.BytesIO()
    with Image.open(path) as picture:
        picture.thumbnail((side, side))
        picture.save(file, "WEBP", quality=82, method=4)
    return file.getvalue()
