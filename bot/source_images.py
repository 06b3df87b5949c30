"""Pictures that people send to draw from: hostile files in, plain PNG files out. It blocks.

What comes out is upright, RGB, without metadata (a phone writes where it was into a photograph),
and no larger than anything is drawn from.
"""

import contextlib
import hashlib
import io
import re
from dataclasses import dataclass

from PIL import Image, ImageOps

from engine.errors import RequestError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
MAX_BYTES = 20 * 2**20
MAX_PIXELS = 50_000_000
"""What a phone's camera makes today; it takes half a gigabyte of memory while it is read."""

MAX_SIDE = 2048
"""Pixels of the longer side that are kept; beyond that nothing more is seen in what is drawn."""

MOST_SCANS = 64
"""Of a progressive JPEG; cameras and programs write about ten. Each goes over all pixels again."""

_MOST_SEGMENTS = 10_000  # of a JPEG; a profile of 16 MB has 256
_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd7\xff])", re.DOTALL)
_BEGIN, _END, _SCAN = b"\xd8", b"\xd9", b"\xda"

ALLOWED = (
    f"a PNG, JPEG, WebP or GIF picture of at most {MAX_BYTES // 2**20} MB "
    f"and {MAX_PIXELS // 10**6} megapixels"
)

_DEEP = frozenset({"I;16", "I;16B", "I;16L", "I;16N", "I"})  # 16 bits, in one channel


@dataclass(frozen=True, slots=True)
class SourceImage:
    """A picture to draw from.

    Attributes:
        png: the file; RGB, no metadata.
        width: pixels.
        height: pixels.
    """

    png: bytes
    width: int
    height: int

    @property
    def digest(self) -> str:
        """A name that is equal exactly where the file is."""
        return hashlib.sha256(self.png).hexdigest()


def read_source(content: bytes) -> SourceImage:
    """Reads a picture as it was sent; of a moving one, its first frame.

    Args:
        content: the file, whatever it claims to be.

    Raises:
        RequestError: it is too large, or no whole picture of a known format.
    """
    if len(content) > MAX_BYTES:
        raise RequestError("image", f"a file of more than {MAX_BYTES // 2**20} MB", ALLOWED)
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as file:
            _refuse_huge(file.size)
            _refuse_slow(content)
            picture = _plain(file)
    except RequestError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise RequestError("image", "a picture with too many pixels", ALLOWED) from error
    except Exception as error:  # a hostile file makes decoders raise anything
        raise RequestError("image", _broken(content), ALLOWED) from error
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return SourceImage(buffer.getvalue(), *picture.size)


def _plain(file: Image.Image) -> Image.Image:
    """Returns a picture's pixels alone: upright, RGB, not too large."""
    if file.format == "JPEG":
        file.draft("RGB", (MAX_SIDE, MAX_SIDE))  # decodes at a half, a quarter, an eighth
    file.load()
    with contextlib.suppress(Exception):  # what turns a picture may be damaged where it is not
        ImageOps.exif_transpose(file, in_place=True)
    picture = _rgb(file)
    picture.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    picture.info = {}  # colour profiles, comments: Pillow writes some of it into a PNG
    return picture


def _rgb(picture: Image.Image) -> Image.Image:
    # A copy too many would be another 200 MB.
    if picture.mode in _DEEP:
        return picture.point(lambda value: value / 257).convert("L").convert("RGB")
    if not picture.has_transparency_data:
        return picture if picture.mode == "RGB" else picture.convert("RGB")
    if picture.mode != "RGBA":
        picture = picture.convert("RGBA")
    paper = Image.new("RGB", picture.size, "white")
    paper.paste(picture, mask=picture)
    return paper


def _refuse_huge(size: tuple[int, int]) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        raise RequestError("image", f"a picture of {size[0]}x{size[1]} pixels", ALLOWED)


def _refuse_slow(content: bytes) -> None:
    if content.startswith(b"\xff\xd8") and _has_too_many_scans(content):
        raise RequestError("image", "a picture with too many scans", ALLOWED)


def _has_too_many_scans(jpeg: bytes) -> bool:
    """Whether reading a JPEG would take far longer than its size says (ITU-T T.81, B.1 and B.2)."""
    at = scans = 0
    for _ in range(_MOST_SEGMENTS):
        marker = _MARKER.search(jpeg, at)
        if marker is None or marker[1] == _END:
            return False
        scans += marker[1] == _SCAN
        if scans > MOST_SCANS:
            return True
        at = marker.end()
        if marker[1] != _BEGIN:  # all others that are looked for say how long they are
            at += int.from_bytes(jpeg[at : at + 2], "big")
    return True


def _broken(content: bytes) -> str:
    return "a picture that is damaged or of another kind" if content else "an empty file"
