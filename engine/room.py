"""Which sizes a device has room for: its memory, what models hold there, what drawing takes. Pure.

What a size takes beside the weights is what was measured on the device, for the model and the size
or the nearest one, in proportion; else the least that any family takes. So nothing is refused that
would fit, as far as anybody knows.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from engine.need import Need

PASS_BYTES = 158
"""Bytes per pixel and row of a forward pass in half precision: SDXL's, the least of all families
(``python -m benchmarks.activations``)."""

DECODE_BYTES = 1536
"""Bytes per pixel of a decode in half precision, from there as well."""

TILE = 512 * 512
"""Pixels of a tile: where memory lacks, pictures are decoded in tiles."""

SPARE = 0.05
"""Share of a device's memory that drivers and libraries have."""

_SIDE = 64  # pixels; what a smaller size that is proposed is a multiple of


@dataclass(frozen=True, slots=True)
class Space:
    """What a worker process says of its device's memory; all in bytes.

    Attributes:
        total: all there is.
        number: what one number of a model takes.
        held: by models, by `ModelSpec.key`.
        peaks: most that a row of a pass took beside the weights, by model and pixels.
    """

    total: int = 0
    number: int = 2
    held: Mapping[str, int] = field(default_factory=dict)
    peaks: Mapping[tuple[str, int], int] = field(default_factory=dict)

    def beside(self, model: str, pixels: int, rows: int) -> int:
        """Returns what drawing a picture takes beside the weights.

        Args:
            model: `ModelSpec.key`.
            pixels: of the picture.
            rows: of its passes.
        """
        decoded = DECODE_BYTES * min(pixels, TILE) * self.number // 2
        near = [(abs(size - pixels), size) for key, size in self.peaks if key == model]
        if near:
            _, size = min(near)
            return max(decoded, rows * self.peaks[model, size] * pixels // size)
        return max(decoded, rows * PASS_BYTES * pixels * self.number // 2)

    def most_pixels(self, need: Need) -> int | None:
        """Returns how large the pictures of a job may be; None for any size that it asks for."""
        if not self.total or not need.pixels:
            return None
        keys = [model.key for model in need.models]
        if any(key not in self.held for key in keys):
            return None  # nobody knows
        free = (1 - SPARE) * self.total - sum(self.held[key] for key in keys)
        needed = max(self.beside(key, need.pixels, need.rows) for key in keys)
        return None if needed <= free else max(0, int(need.pixels * free / needed))


def smaller(width: int, height: int, pixels: int) -> tuple[int, int] | None:
    """Returns the largest size of an aspect with so many pixels; None where nothing is left of it.

    Both sides are multiples of 64, rounded down.
    """
    scale = min(1.0, (pixels / (width * height)) ** 0.5)
    sides = [int(side * scale) // _SIDE * _SIDE for side in (width, height)]
    return (sides[0], sides[1]) if min(sides) > 0 else None
