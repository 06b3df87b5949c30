"""Pictures made to fit what Discord takes."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bot import uploads
from engine.images import encode_png


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


def test_what_fits_as_lossless_webp_keeps_every_pixel_and_its_parameters(tmp_path: Path) -> None:
    path = tmp_path / "smooth.png"
    small = np.random.default_rng(1).integers(0, 256, (8, 8, 3), np.uint8)
    picture = Image.fromarray(small).resize((256, 256), Image.Resampling.BICUBIC)
    path.write_bytes(encode_png(picture, "a red circle \N{SUNRISE}\nSteps: 4"))

    upload = uploads.prepare(path, "dream", path.stat().st_size - 1)

    assert upload is not None
    assert upload == uploads.original(path, "dream", path.stat().st_size - 1)
    assert upload.filename == "dream.webp"
    assert upload.note.startswith("as lossless WebP, pixel for pixel the same")
    with Image.open(io.BytesIO(upload.content)) as sent:
        assert np.array_equal(np.asarray(sent), np.asarray(picture))
        comment = sent.getexif().get_ifd(0x8769)[0x9286]
    assert (
        comment.removeprefix(b"UNICODE\0")
        .decode("utf-16-be")
        .startswith("a red circle \N{SUNRISE}")
    )


def test_an_original_that_loses_pixels_is_none(noise: Path) -> None:
    assert uploads.original(noise, "dream", noise.stat().st_size // 2) is None
    assert uploads.original(noise, "dream", noise.stat().st_size // 4) is None


def test_a_file_that_is_no_picture_says_so(tmp_path: Path) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(b"no picture at all")

    with pytest.raises(OSError, match="cannot identify"):
        uploads.prepare(path, "dream", 10)


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
