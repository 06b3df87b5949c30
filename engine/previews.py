"""Latents → a small JPEG, without the VAE's decoder.

An autoencoder's latents are nearly a linear code of the colours under them, so a 4 by 3 matrix and
an offset show a picture in about a millisecond where decoding takes a hundred. The matrix is
fitted to each VAE when it is loaded; a VAE whose code isn't linear gets the published one.
"""

import io
import logging
from dataclasses import dataclass
from typing import Any

import torch  # noqa: TID253 - only the worker process imports this module
from PIL import Image

MAX_SIDE = 256
"""Longest side of a preview in pixels."""

_QUALITY = 80
_FIELDS = 8  # with three times as many the demo model's colours are no better guessed (r² 0.993)
_FIELD_LATENTS = 8
_SEED = 0
_LEAST_R2 = 0.5

log = logging.getLogger(__name__)

# The usual projection for Stable Diffusion 1.x and 2.x latents, as ComfyUI's `latent_formats.py`
# and others ship it; rows are latent channels, columns red, green, blue in -1 to 1.
_PUBLISHED = (
    (0.3512, 0.2297, 0.3227),
    (0.3250, 0.4974, 0.2350),
    (-0.2829, 0.1762, 0.2721),
    (-0.2120, -0.2616, -0.7177),
)


@dataclass(frozen=True, slots=True)
class Projection:
    """What turns latents into colours.

    Attributes:
        weight: ``[channels, 3]``, float32 on the CPU.
        bias: ``[3]``; red, green, blue in -1 to 1.
        r2: share of the colours' variance that it explained when fitted; 0 where not fitted.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    r2: float


def fit_projection(vae: Any) -> Projection:
    """Fits a projection to a VAE: least squares over smooth fields of random colours.

    Args:
        vae: a diffusers ``AutoencoderKL``; its own scaling factor is taken into account.
    """
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    generator = torch.Generator().manual_seed(_SEED)  # the same model always fits the same
    side = _FIELD_LATENTS * factor
    corners = torch.rand((_FIELDS, 3, 3, 3), generator=generator) * 2 - 1
    fields = torch.nn.functional.interpolate(corners, (side, side), mode="bilinear")
    with torch.inference_mode():
        latents = vae.encode(fields.to(vae.device, vae.dtype)).latent_dist.mean
    latents = (latents * vae.config.scaling_factor).float().cpu()
    colours = torch.nn.functional.avg_pool2d(fields, factor)
    if latents.isfinite().all():
        fitted = _least_squares(_columns(latents), _columns(colours))
        if fitted.r2 >= _LEAST_R2:
            return fitted
        log.warning("The VAE's latents are no linear code of colours (r² %.2f).", fitted.r2)
    channels = latents.shape[1]
    weight = torch.zeros((channels, 3))
    weight[: len(_PUBLISHED)] = torch.tensor(_PUBLISHED)[:channels]
    return Projection(weight, torch.zeros(3), 0.0)


def _columns(images: torch.Tensor) -> torch.Tensor:
    """``[n, channels, height, width]`` → ``[n * height * width, channels]``, in float64."""
    return images.movedim(1, -1).reshape(-1, images.shape[1]).double()


def _least_squares(latents: torch.Tensor, colours: torch.Tensor) -> Projection:
    ones = torch.ones((len(latents), 1), dtype=latents.dtype)
    design = torch.cat([latents, ones], dim=1)
    solution = torch.linalg.lstsq(design, colours).solution
    residual = (colours - design @ solution).square().sum()
    total = (colours - colours.mean(dim=0)).square().sum()
    return Projection(solution[:-1].float(), solution[-1].float(), float(1 - residual / total))


def preview_jpeg(latents: torch.Tensor, projection: Projection, width: int, height: int) -> bytes:
    """Returns latents as a JPEG.

    Args:
        latents: ``[1, channels, height, width]``, scaled as the UNet sees them, no noise in them.
        projection: the VAE's.
        width: the picture's width in pixels; the preview keeps its shape within `MAX_SIDE`.
        height: its height.
    """
    grid = latents[0].detach().float().cpu()
    colours = torch.einsum("chw,cr->hwr", grid, projection.weight) + projection.bias
    levels = ((colours.nan_to_num() * 0.5 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
    shrink = min(1.0, MAX_SIDE / max(width, height))
    size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
    image = Image.fromarray(levels.numpy()).resize(size, Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()
