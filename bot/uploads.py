"""Pictures made to fit: Discord refuses files over a server's limit.

What people notice least comes first: the PNG itself, then the same pixels as lossless WebP, then
WebP that loses a little, then smaller pictures. All of them carry the picture's parameters. There
is no JPEG among them: every client of Discord's shows WebP, which looks better at the same size.
"""

import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from engine.images import PARAMETERS_KEY

REQUEST_BYTES = 24 * 2**20
"""All files of one message together: Discord's 25 MiB, less what the form around them takes."""

# Tried in turn: share of each side, quality.
_LADDER = ((1.0, 92), (1.0, 80), (0.75, 85), (0.5, 85), (0.35, 80), (0.25, 75), (0.125, 70))
_LOSSLESS_GAIN = 2.0
"""How many times smaller than the PNG lossless WebP may turn out; beyond that trying, which takes
a second or two for a megapixel, is of no use."""

_USER_COMMENT = 0x9286
_EXIF = 0x8769
_UTF_16 = b"UNICODE\0"  # what the next bytes are, says Exif


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

    It blocks: call it in a thread.

    Raises:
        OSError: the file is gone or can't be read.
    """
    whole = original(path, name, limit)
    if whole:
        return whole
    picture, exif, megabytes = _opened(path)
    for share, quality in _LADDER:
        content = _smaller(picture, exif, share, quality)
        if len(content) <= limit:
            note = f"the PNG of {megabytes} MB is too large for here; Details has the original"
            if share < 1:
                note = f"shown as WebP at {share:.0%} of its size: {note}"
            else:
                note = f"shown as WebP: {note}"
            return Upload(f"{name}.webp", content, note)
    return None


def original(path: Path, name: str, limit: int) -> Upload | None:
    """Returns a picture with every pixel as it is in at most ``limit`` bytes; None if it can't.

    It blocks: call it in a thread.

    Raises:
        OSError: the file is gone or can't be read.
    """
    size = path.stat().st_size
    if size <= limit:
        return Upload(f"{name}.png", path.read_bytes())
    if size > limit * _LOSSLESS_GAIN:
        return None
    picture, exif, megabytes = _opened(path)
    content = _webp(picture, exif, lossless=True)
    if len(content) > limit:
        return None
    note = f"as lossless WebP, pixel for pixel the same: the PNG has {megabytes} MB"
    return Upload(f"{name}.webp", content, note)


def _opened(path: Path) -> tuple[Image.Image, Image.Exif, str]:
    """Returns a picture's pixels, its parameters as Exif, and the file's size in MB."""
    with Image.open(path) as image:
        picture = image.convert("RGB")
        parameters = str(image.info.get(PARAMETERS_KEY, ""))
    exif = Image.Exif()
    if parameters:
        # As AUTOMATIC1111's web UI has them in JPEG and WebP files.
        comment = _UTF_16 + parameters.encode("utf-16-be", "replace")
        exif.get_ifd(_EXIF)[_USER_COMMENT] = comment
    return picture, exif, f"{path.stat().st_size / 2**20:.1f}"


def _smaller(picture: Image.Image, exif: Image.Exif, share: float, quality: int) -> bytes:
    if share < 1:
        size = (max(1, round(picture.width * share)), max(1, round(picture.height * share)))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    return _webp(picture, exif, quality=quality)


def _webp(picture: Image.Image, exif: Image.Exif, **how: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", exif=exif, **how)
    return buffer.getvalue()
