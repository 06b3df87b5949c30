"""How a mode enlarges pictures: by how much, and how much of them is drawn anew."""

from dataclasses import dataclass

from modes.request_fields import SIDE_STEP

FACTORS = (1.25, 4.0)
FACTOR = 2.0
STRENGTH = 0.3
"""Enough for the model to draw details that a plain enlargement lacks, too little to move shapes
(tests/test_upscale.py measures it)."""


@dataclass(frozen=True, slots=True)
class Upscale:
    """A mode's way to enlarge a picture.

    Attributes:
        factor: on each side.
        strength: how much of the enlarged picture is drawn anew; at 0 the model is never asked.
        max_size: pixels of the longest side that the model draws so; None for the mode's own
            ``max_size``. What would be larger is enlarged without the model.
    """

    factor: float = FACTOR
    strength: float = STRENGTH
    max_size: int | None = None

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Returns the enlarged size."""
        large = [round(side * self.factor / SIDE_STEP) * SIDE_STEP for side in (width, height)]
        return large[0], large[1]
