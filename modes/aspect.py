"""A size in another picture's aspect: what is drawn from a picture when nobody asks for a size."""

import math
from collections.abc import Collection

from modes.request_fields import SIDE_STEP

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
