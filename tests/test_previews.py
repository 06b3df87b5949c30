import io
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch  # noqa: TID253 - the subject is made of it
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL  # noqa: TID253 - likewise
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from engine.previews import MAX_SIDE, Projection, fit_projection, preview_jpeg
from tests.worker_kit import DEMO

PLAIN = Projection(torch.eye(4)[:, :3], torch.zeros(3), 1.0)


@pytest.fixture(scope="module")
def vae() -> Any:
    return AutoencoderKL.from_pretrained(DEMO.path / "vae", dtype=torch.float32).eval()


def opened(jpeg: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(jpeg), formats=["JPEG"])
    image.load()
    return image


def test_a_fitted_projection_explains_the_models_own_latents(vae: Any) -> None:
    assert fit_projection(vae).r2 > 0.8


def test_the_same_vae_always_fits_the_same(vae: Any) -> None:
    first, second = fit_projection(vae), fit_projection(vae)

    torch.testing.assert_close(first.weight, second.weight)
    torch.testing.assert_close(first.bias, second.bias)


def test_a_preview_has_the_colours_of_the_decoded_picture(vae: Any) -> None:
    colours = torch.zeros(1, 3, 128, 128)
    colours[:, 0, :, :64] = 0.8  # red on the left, blue on the right
    colours[:, 2, :, 64:] = 0.8
    with torch.inference_mode():
        latents = vae.encode(colours).latent_dist.mean * vae.config.scaling_factor

    preview = np.asarray(opened(preview_jpeg(latents, fit_projection(vae), 128, 128)), int)

    left, right = preview[:, 16:48].mean((0, 1)), preview[:, 80:112].mean((0, 1))
    assert left[0] > left[2] + 30
    assert right[2] > right[0] + 30


class _StrangeVae:
    """A VAE whose latents have nothing to do with the colours."""

    config = SimpleNamespace(block_out_channels=(1, 1, 1, 1), scaling_factor=1.0)
    device = torch.device("cpu")
    dtype = torch.float32

    def __init__(self, value: float) -> None:
        self.value = value

    def encode(self, images: torch.Tensor) -> Any:
        n, _, height, width = images.shape
        noise = torch.randn((n, 4, height // 8, width // 8), generator=torch.Generator())
        return SimpleNamespace(latent_dist=SimpleNamespace(mean=noise * self.value))


@pytest.mark.parametrize("value", [1.0, float("nan")])
def test_a_vae_that_is_no_linear_code_gets_the_published_projection(value: float) -> None:
    projection = fit_projection(_StrangeVae(value))

    assert projection.r2 == 0
    assert projection.weight.shape == (4, 3)
    assert projection.weight.abs().sum() > 1


@given(st.integers(1, 200), st.integers(1, 200))
@settings(max_examples=25)
def test_a_preview_keeps_the_shape_within_its_bounds(columns: int, rows: int) -> None:
    width, height = columns * 8, rows * 8

    image = opened(preview_jpeg(torch.zeros(1, 4, rows, columns), PLAIN, width, height))

    assert max(image.size) == min(MAX_SIDE, max(width, height))
    expected = image.width * height / width
    assert abs(image.height - max(1, expected)) <= 1 + expected / image.width


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e30])
def test_latents_that_are_no_picture_still_make_a_preview(value: float) -> None:
    assert opened(preview_jpeg(torch.full((1, 4, 4, 4), value), PLAIN, 32, 32)).size == (32, 32)


def test_half_precision_will_do() -> None:
    latents = torch.zeros((1, 4, 4, 4), dtype=torch.float16)

    assert opened(preview_jpeg(latents, PLAIN, 32, 32)).size == (32, 32)
