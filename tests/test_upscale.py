"""Larger pictures: what a mode says of them, and what the bundled model makes of its own."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from bot.remakes import enlarged
from engine.enlargement import enlarge
from engine.errors import DrawingError
from engine.images import read_png
from engine.jobs import GenerationRequest, LoraSpec, RequestDraft
from engine.worker_factory import WorkerFactory
from engine.workers.base import Worker
from modes.mode_config import ModeConfig
from modes.modes_file import ModesFileError, load_modes, parse_modes
from modes.upscaling import Upscale

SHIPPED = Path(__file__).parent.parent / "modes" / "modes.yaml"
SUBJECTS = ("a red circle on a white background", "a yellow star on a blue background")

DRAWN_APART = 8.0
"""Levels of 255 that an enlarged picture may differ from its original on average, once it is as
small again; the six subjects that this was measured with differ by 1.5 to 4.3."""

PLAIN_APART = 0.5
"""Likewise without the model; they differ by 0.03 to 0.13."""


def upscale_of(lines: str) -> Upscale:
    body = f"model_root: m\nmodes:\n  a:\n    model: x\n    default_size: 512\n    {lines}\n"
    return parse_modes(body, Path("/somewhere/modes.yaml")).modes["a"].upscale


def demo() -> ModeConfig:
    return load_modes(SHIPPED).modes["demo"]


def request(prompt: str = SUBJECTS[0], seed: int = 1) -> GenerationRequest:
    return demo().build_request(RequestDraft(prompt, seed=seed))


def test_a_mode_says_how_its_pictures_are_enlarged() -> None:
    assert upscale_of("") == Upscale(2.0, 0.3, None)
    assert upscale_of("upscale: {factor: 1.5, strength: 0.4, max_size: 2048}") == Upscale(
        1.5, 0.4, 2048
    )


@pytest.mark.parametrize(
    ("lines", "allowed"),
    [
        ("upscale: 2", "keys with values"),
        ("upscale: {by: 2}", "factor, strength, max_size"),
        ("upscale: {factor: 1}", "a number from 1.25 to 4"),
        ("upscale: {factor: .nan}", "a number from 1.25 to 4"),
        ("upscale: {strength: 1.1}", "a number from 0 to 1"),
        ("upscale: {max_size: 1001}", "a whole number from 64 to 4096, a multiple of 8"),
    ],
)
def test_what_a_mode_may_not_say_of_it_is_refused(lines: str, allowed: str) -> None:
    with pytest.raises(ModesFileError, match=allowed):
        upscale_of(lines)


@pytest.mark.parametrize("size", [(64, 72), (104, 512), (8, 8)])
@pytest.mark.parametrize("factor", [1.25, 1.5, 2.0, 3.7])
def test_larger_sizes_are_multiples_of_a_latent_pixel(size: tuple[int, int], factor: float) -> None:
    large = Upscale(factor).size(*size)

    for small, side in zip(size, large, strict=True):
        assert side % 8 == 0
        assert abs(side - small * factor) <= 4


def test_a_mode_that_never_asks_its_model_says_so() -> None:
    mode = replace(demo(), upscale=Upscale(strength=0))

    larger, note = enlarged(request(), Path("x"), mode)

    assert not larger.is_drawn
    assert note == "Enlarged without a model: so it is with the mode Demo."


def test_a_mode_may_draw_larger_pictures_than_it_may_be_asked_for() -> None:
    wide = replace(request(), width=256)

    assert not enlarged(wide, Path("x"), demo())[0].is_drawn
    mode = replace(demo(), upscale=Upscale(max_size=512))
    assert enlarged(wide, Path("x"), mode)[0].is_drawn


def test_a_model_that_is_another_now_or_lacks_a_file_does_not_draw() -> None:
    mode, asked = demo(), request()
    other = replace(asked, model=replace(asked.model, prediction_type="v_prediction"))
    lacking = replace(asked, model=replace(asked.model, loras=(LoraSpec(Path("/gone/y.st")),)))

    assert enlarged(other, Path("x"), mode)[1] == (
        "Enlarged without a model: the mode Demo draws with another model now."
    )
    assert enlarged(lacking, Path("x"), mode)[1] == ("Enlarged without a model: y.st is missing.")


# Drawn


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    worker = WorkerFactory("cpu").create(demo().model)
    yield worker
    worker.close()


def drawn(worker: Worker, asked: GenerationRequest, path: Path) -> Path:
    [drawing] = worker.begin(asked)
    while not drawing.done:
        worker.step([drawing])
    path.write_bytes(worker.finish(drawing).png)
    return path


def levels(path: Path, size: tuple[int, int] | None = None) -> npt.NDArray[np.float64]:
    with Image.open(path) as picture:
        fitting = picture if size is None else picture.resize(size, Image.Resampling.LANCZOS)
        return np.asarray(fitting, np.float64)


@pytest.mark.parametrize("prompt", SUBJECTS)
def test_the_bundled_model_draws_the_same_picture_larger(
    worker: Worker, tmp_path: Path, prompt: str
) -> None:
    asked = request(prompt)
    small = drawn(worker, asked, tmp_path / "small.png")

    larger, note = enlarged(asked, small, demo())
    large = drawn(worker, larger, tmp_path / "large.png")

    assert note is None
    assert levels(large).shape == (256, 256, 3)
    assert np.abs(levels(large, (128, 128)) - levels(small)).mean() <= DRAWN_APART
    plain = tmp_path / "plain.png"
    plain.write_bytes(enlarge("job", larger).images[0].png)
    assert np.abs(levels(plain, (128, 128)) - levels(small)).mean() <= PLAIN_APART
    assert not np.array_equal(levels(plain), levels(large))


def test_a_picture_enlarged_without_a_model_says_so_in_its_file(
    worker: Worker, tmp_path: Path
) -> None:
    asked = replace(request(), steps=1)
    small = drawn(worker, asked, tmp_path / "small.png")
    plain, _ = enlarged(asked, small, None)

    parameters = read_png(enlarge("job", plain).images[0].png)

    assert parameters
    assert parameters.settings["Denoising strength"] == "0"
    assert parameters.settings["Size"] == "256x256"


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n" + b"\0" * 99])
def test_a_picture_that_can_not_be_read_is_told(tmp_path: Path, content: bytes) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(content)

    with pytest.raises(DrawingError, match="can't be read"):
        enlarge("job", enlarged(request(), broken, None)[0])
    with pytest.raises(DrawingError, match="gone"):
        enlarge("job", enlarged(request(), tmp_path / "gone.png", None)[0])
    with pytest.raises(DrawingError, match="no picture"):
        enlarge("job", request())
