"""Pictures made to fit: Discord refuses files over a server's limit."""

import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

REQUEST_BYTES = 24 * 2**20
"""All files of one message together: Discord's 25 MiB, less what the form around them takes."""

# Tried in turn: share of each side, WebP quality. What people notice least comes first.
_LADDER = ((1.0, 92), (1.0, 80), (0.75, 85), (0.5, 85), (0.35, 80), (0.25, 75), (0.125, 70))


@dataclass(frozen=True, slots=True)
class Upload:
    """A file ready to be sent.

    Attributes:
        filename: with the ending of what it is.
        content: the bytes.
        note: what was done to the picture; empty where nothing was.
    """

    filename: str
    content: bytes
    note: str = ""


def share_of(limit: int, files: int) -> int:
    """Returns the bytes that each of a number of files may have, given the limit for one."""
    return min(limit, REQUEST_BYTES // max(files, 1))


def prepare(path: Path, name: str, limit: int) -> Upload | None:
    """Returns a picture as a file of at most ``limit`` bytes; None where even the smallest isn't.

    The PNG itself goes where it fits. It blocks: call it in a thread.

    Raises:
        OSError: the file is gone or can't be read.
    """
    png = path.read_bytes()
    if len(png) <= limit:
        return Upload(f"{name}.png", png)
    with Image.open(io.BytesIO(png)) as image:
        picture = image.convert("RGB")
    for share, quality in _LADDER:
        content = _webp(picture, share, quality)
        if len(content) <= limit:
            smaller = f" at {share:.0%} of its size" if share < 1 else ""
            megabytes = len(png) / 2**20
            note = f"shown as WebP{smaller}: the PNG of {megabytes:.1f} MB is too large for here"
            return Upload(f"{name}.webp", content, note)
    return None


def _webp(picture: Image.Image, share: float, quality: int) -> bytes:
    if share < 1:
        size = (max(1, round(picture.width * share)), max(1, round(picture.height * share)))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=quality)
    return buffer.getvalue()
