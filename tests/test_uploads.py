"""Pictures made to fit what Discord takes."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bot import uploads


@pytest.fixture
def noise(tmp_path: Path) -> Path:
    """A picture that compresses badly."""
    path = tmp_path / "noise.png"
    pixels = np.random.default_rng(1).integers(0, 256, (256, 256, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_a_picture_that_fits_goes_as_it_is(noise: Path) -> None:
    upload = uploads.prepare(noise, "dream", noise.stat().st_size)

    assert upload == uploads.Upload("dream.png", noise.read_bytes())


@pytest.mark.parametrize("limit", [150_000, 60_000, 20_000, 5_000, 2_000])
def test_a_picture_over_the_limit_becomes_as_small_as_it_must(noise: Path, limit: int) -> None:
    upload = uploads.prepare(noise, "dream", limit)

    assert upload is not None
    assert len(upload.content) <= limit
    assert upload.filename == "dream.webp"
    with Image.open(io.BytesIO(upload.content)) as picture:
        assert picture.format == "WEBP"
        assert picture.width <= 256
    assert upload.note.startswith("shown as WebP")


def test_the_size_is_kept_as_long_as_it_can_be(noise: Path) -> None:
    upload = uploads.prepare(noise, "dream", noise.stat().st_size - 1)

    assert upload is not None
    with Image.open(io.BytesIO(upload.content)) as picture:
        assert picture.size == (256, 256)
    assert "of its size" not in upload.note


def test_what_can_never_fit_is_nothing(noise: Path) -> None:
    assert uploads.prepare(noise, "dream", 100) is None


def test_a_picture_that_is_gone_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        uploads.prepare(tmp_path / "gone.png", "dream", 1000)


@pytest.mark.parametrize("files", range(11))
def test_all_files_together_stay_within_one_request(files: int) -> None:
    share = uploads.share_of(10 * 2**20, files)

    assert share <= 10 * 2**20
    assert files * share <= 25 * 2**20
