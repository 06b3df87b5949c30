"""A size in an aspect: a picture's that is drawn from, or one that was asked for by name."""

import math
import re
from collections.abc import Collection, Mapping

from modes.request_fields import SIDE_STEP

ASPECTS: Mapping[str, tuple[int, int]] = {
    "square": (1, 1),
    "portrait": (2, 3),
    "landscape": (3, 2),
}
"""Aspects that have a name, as width to height."""

_RATIO = re.compile(r"\s*(\d{1,4}(?:\.\d{1,3})?)\s*[:/]\s*(\d{1,4}(?:\.\d{1,3})?)\s*", re.ASCII)
_COARSE_FROM = 512
_COARSE_STEP = 64  # UNets halve the latent, an eighth of the picture, three times


def size_like(
    picture: tuple[int, int], default: tuple[int, int], bounds: tuple[int, int]
) -> tuple[int, int]:
    """Returns the size of the default's area and the picture's aspect, as near as is allowed.

    Args:
        picture: its width and height in pixels.
        default: what the mode draws without a picture.
        bounds: shortest and longest side; multiples of `SIDE_STEP`.
    """
    step = _COARSE_STEP if min(default) >= _COARSE_FROM else SIDE_STEP
    area, aspect = math.prod(default), picture[0] / picture[1]
    sides = (math.sqrt(area * aspect), math.sqrt(area / aspect))
    width, height = (min(max(round(side / step) * step, bounds[0]), bounds[1]) for side in sides)
    return width, height


def nearest_size(
    picture: tuple[int, int], default: tuple[int, int], sizes: Collection[tuple[int, int]]
) -> tuple[int, int]:
    """Returns the one of some sizes whose aspect is the picture's most, then the default's area."""

    def unlike(size: tuple[int, int]) -> tuple[float, float]:
        aspect = math.log(size[0] * picture[1] / (size[1] * picture[0]))
        return round(abs(aspect), 6), abs(math.log(math.prod(size) / math.prod(default)))

    return min(sizes, key=unlike)


def read_aspect(text: str) -> tuple[int, int] | None:
    """Returns the aspect that a name or text such as ``16:9`` means, None where it is none.

    Returns:
        Two whole numbers whose ratio is width to height.
    """
    named = ASPECTS.get(text.strip().casefold())
    match = _RATIO.fullmatch(text)
    if named or match is None:
        return named
    # Exact: 1.91:1 is 191:100.
    width, height = (round(float(side) * 1000) for side in match.groups())
    return (width, height) if width and height else None


def within(size: tuple[int, int], bounds: tuple[int, int]) -> tuple[int, int]:
    """Returns a size itself where it is allowed, else the nearest of its aspect that is.

    Args:
        size: as it was asked for, in pixels.
        bounds: shortest and longest side; multiples of `SIDE_STEP`.
    """
    low, high = bounds
    longer, shorter = max(size), max(1, min(size))
    scale = min(1.0, high / longer) if longer > high else max(1.0, low / shorter)
    sides = (round(side * scale / SIDE_STEP) * SIDE_STEP for side in size)
    width, height = (min(max(side, low), high) for side in sides)
    return width, height
