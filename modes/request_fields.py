"""The fields of a request: what may stand in each, apart from any mode's own bounds.

Each function returns the field's clean value or raises a `RequestError` that names the field, what
was asked for and what is allowed. Hostile input is normal here: it comes from chat and from HTTP.
"""

import re
import unicodedata
from collections.abc import Collection

from engine.errors import RequestError
from engine.jobs import Sampler

MAX_TEXT = 2000
"""Longest prompt in characters; far beyond the 77 tokens that CLIP reads at once."""

SIDE_STEP = 8
"""Sides are multiples of this: a latent pixel stands for 8 by 8 pixels."""

_SIZE = re.compile(r"\s*(\d{1,5})\s*[xX*]\s*(\d{1,5})\s*", re.ASCII)
_BREAKS = re.compile("\r\n|[\t\n\v\f\r\x85\u2028\u2029]")


def clean_text(field: str, value: object, *, required: bool) -> str:
    """Returns text on one line, without blanks around it.

    Tabs and line breaks become spaces. Other control characters and lone surrogates are refused:
    nobody types them, and they break logs, files and the database.

    Args:
        field: name for the error.
        value: what was given.
        required: whether something visible must be there.

    Raises:
        RequestError: it is no text, too long, empty though required, or holds such characters.
    """
    allowed = f"{1 if required else 0} to {MAX_TEXT} characters of text"
    if not isinstance(value, str):
        raise RequestError(field, value, allowed)
    text = _BREAKS.sub(" ", value).strip()
    if len(text) > MAX_TEXT:
        raise RequestError(field, f"{len(text)} characters", allowed)
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        # The value goes into answers and logs, which are UTF-8.
        shown = text.encode("utf-8", "replace").decode()
        raise RequestError(field, shown, f"{allowed}, without control characters")
    if required and not any(c.isprintable() and not c.isspace() for c in text):
        raise RequestError(field, "", allowed)
    return text


def whole_number(field: str, value: object, low: int, high: int, step: int = 1) -> int:
    """Returns a whole number within bounds, both included.

    Raises:
        RequestError: it is something else; true, false and 20.0 are no whole numbers.
    """
    # true is an int to Python.
    if type(value) is int and low <= value <= high and value % step == 0:
        return value
    allowed = f"a whole number from {low} to {high}"
    if step > 1:
        allowed = f"{allowed}, a multiple of {step}"
    raise RequestError(field, _printable(value), allowed)


def number(field: str, value: object, low: float, high: float) -> float:
    """Returns a finite number within bounds, both included.

    Raises:
        RequestError: it is something else.
    """
    # Not a number compares as false and so doesn't fit either.
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise RequestError(field, _printable(value), f"a number from {low:g} to {high:g}")
    return float(value)


def sampler(field: str, value: object, allowed: Collection[Sampler] = tuple(Sampler)) -> Sampler:
    """Returns a sampler by the name that people know, in capitals or not.

    Raises:
        RequestError: none of this name is allowed; it lists those that are.
    """
    wanted = " ".join(value.split()).casefold() if isinstance(value, str) else None
    for known in allowed:
        if known.value.casefold() == wanted:
            return known
    raise RequestError(field, _printable(value), ", ".join(allowed))


def one_of_sizes(
    width: object, height: object, allowed: Collection[tuple[int, int]]
) -> tuple[int, int]:
    """Returns a size that is allowed as a whole.

    Raises:
        RequestError: it is another one; it lists those that are allowed.
    """
    for size in allowed:
        # 512.0 and 512 are equal to Python.
        if type(width) is int and type(height) is int and (width, height) == size:
            return size
    asked = f"{_printable(width)}x{_printable(height)}"
    raise RequestError("size", asked, ", ".join(map(size_text, allowed)))


def size_text(size: tuple[int, int]) -> str:
    """Returns a size as people write it, such as ``512x768``."""
    return f"{size[0]}x{size[1]}"


def parse_size(text: str) -> tuple[int, int] | None:
    """Returns the width and height of text such as ``512x768``; None where it is no size."""
    match = _SIZE.fullmatch(text)
    return (int(match[1]), int(match[2])) if match else None


def read_size(text: str) -> tuple[int, int]:
    """Returns the width and height of text such as ``512x768``.

    Raises:
        RequestError: it is no size.
    """
    size = parse_size(text)
    if size is None:
        raise RequestError("size", text, "width x height in pixels, such as 512x768")
    return size


def _printable(value: object) -> object:
    """Returns the value, or words for a number that Python won't write out."""
    if isinstance(value, int) and value.bit_length() > 1000:
        return "a number of many digits"
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    return value
