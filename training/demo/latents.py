"""What the UNet learns to draw: a picture's latents, defined by a formula rather than learned.

Every 8 by 8 cell of a picture becomes four numbers: its mean colour on three rotated axes
(brightness, red against blue, green against both) and its contrast. Because the definition is
fixed, UNet and autoencoder can be trained in any order; the autoencoder's encoder learns to
compute these numbers, its decoder to undo them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

# ruff: noqa: TID253 - the training code owns its torch; no front end imports it
import numpy as np
import torch
from torch.nn.functional import avg_pool2d

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

CELL = 8
AXES = torch.nn.functional.normalize(
    torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 2.0, -1.0]]), dim=1
)
# Measured on drawings with backgrounds of every colour, so that each channel has about mean 0 and
# deviation 1.
MEANS = torch.tensor([0.1061, 0.0816, -0.0338, 0.0427]).view(1, 4, 1, 1)
DEVIATIONS = torch.tensor([0.7094, 0.5760, 0.3136, 0.0927]).view(1, 4, 1, 1)


def to_tensor(pictures: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
    """Stacks `(H, W, 3)` pictures of 0 to 255 into a `(B, 3, H, W)` tensor of -1 to 1."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


def latents_of(pictures: torch.Tensor) -> torch.Tensor:
    """Computes latents.

    Args:
        pictures: `(B, 3, H, W)`, -1 to 1; the sides are multiples of 8.

    Returns:
        `(B, 4, H/8, W/8)`, each channel of about mean 0 and deviation 1.
    """
    colour = torch.einsum("kc,bchw->bkhw", AXES, avg_pool2d(pictures, CELL))
    grey = pictures.mean(1, keepdim=True)
    variance = avg_pool2d(grey * grey, CELL) - avg_pool2d(grey, CELL) ** 2
    contrast = (variance.clamp_min(0) + 1e-4).sqrt()
    return (torch.cat([colour, contrast], 1) - MEANS) / DEVIATIONS
