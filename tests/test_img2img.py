import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch  # noqa: TID253 - the subject is made of it
from diffusers import (  # noqa: TID253 - what is compared with
    StableDiffusionImg2ImgPipeline,
    StableDiffusionXLImg2ImgPipeline,
)
from PIL import Image

from engine.errors import DrawingError, RequestError
from engine.jobs import Family, GenerationRequest, ModelSpec, Sampler
from engine.worker_factory import WorkerFactory
from engine.workers.base import Drawing, Worker
from engine.workers.latent import LatentWorker
from tests.single_file_kit import save_tiny
from tests.stock_kit import STOCK, aligned
from tests.worker_kit import DEMO, ask

SIZE = 64

UNLIKE = (Sampler.EULER_A, Sampler.HEUN, Sampler.DPMPP_2M_SDE_KARRAS)
"""One that adds noise, one of two passes a step, one that remembers steps."""


def picture(path: Path, size: tuple[int, int] = (SIZE, SIZE)) -> Path:
    """Saves a picture with something to tell every part of it by."""
    noise = np.random.default_rng(5).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(noise).save(path)
    return path


class Tiny:
    """A family with tiny layers: our worker, the stock pipeline, a picture to start from."""

    def __init__(self, family: Family, folder: Path) -> None:
        self.family = family
        self.model = ModelSpec(folder / "tiny")
        save_tiny(family, self.model.path, shallow=True)
        self.source = picture(folder / "source.png")
        self.worker = WorkerFactory("cpu").create(self.model)
        xl = family in (Family.SDXL, Family.SDXL_REFINER)
        kind: Any = StableDiffusionXLImg2ImgPipeline if xl else StableDiffusionImg2ImgPipeline
        more = {"add_watermarker": False} if xl else {}
        self.pipeline = aligned(
            kind.from_pretrained(
                self.model.path, dtype=torch.float32, local_files_only=True, **more
            )
        )
        self.pipeline.set_progress_bar_config(disable=True)

    def ask(self, **changes: Any) -> GenerationRequest:
        given = {"width": SIZE, "height": SIZE, "steps": 5, "source": self.source, "strength": 0.75}
        # No longer than the tiny text encoders read at once, and the stock pipelines no more.
        return ask(**{"model": self.model, "prompt": "a red house", **given, **changes})

    def stock(self, request: GenerationRequest, output_type: str = "latent") -> Any:
        path = self.model.path / "scheduler" / "scheduler_config.json"
        self.pipeline.scheduler = STOCK[request.sampler](json.loads(path.read_text()))
        assert request.source is not None
        with Image.open(request.source) as image:
            return self.pipeline(
                request.prompt,
                image=image,
                strength=request.strength,
                negative_prompt=request.negative_prompt,
                num_inference_steps=request.steps,
                guidance_scale=request.guidance_scale,
                generator=torch.Generator().manual_seed(request.seed),
                output_type=output_type,
            ).images[0]

    @cached_property
    def usual(self) -> torch.Tensor:
        """What the stock pipeline draws where nothing else is asked for."""
        latents: torch.Tensor = self.stock(self.ask())
        return latents

    def alone(self, request: GenerationRequest) -> Drawing:
        [drawing] = self.worker.begin(request)
        self.run([drawing])
        return drawing

    def run(self, drawings: Sequence[Drawing]) -> None:
        while waiting := [drawing for drawing in drawings if not drawing.done]:
            self.worker.step(waiting)


@pytest.fixture(scope="module")
def tinies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Family], Tiny]]:
    made: dict[Family, Tiny] = {}

    def tiny(family: Family) -> Tiny:
        if family not in made:
            made[family] = Tiny(family, tmp_path_factory.mktemp(family))
        return made[family]

    yield tiny
    for one in made.values():
        one.worker.close()


@pytest.fixture(scope="module", params=Family)
def tiny(request: pytest.FixtureRequest, tinies: Callable[[Family], Tiny]) -> Tiny:
    return tinies(request.param)


@pytest.fixture(scope="module")
def small(tinies: Callable[[Family], Tiny]) -> Tiny:
    """One family for what is alike in all."""
    return tinies(Family.SD15)


@pytest.fixture(scope="module")
def demo() -> Iterator[Worker]:
    worker = WorkerFactory("cpu").create(DEMO)
    yield worker
    worker.close()


@pytest.mark.parametrize("sampler", UNLIKE)
def test_alone_a_request_is_bit_equal_to_the_stock_pipeline(tiny: Tiny, sampler: Sampler) -> None:
    request = tiny.ask(sampler=sampler)

    drawing = tiny.alone(request)

    assert torch.equal(drawing.latents[0], tiny.stock(request))
    assert drawing.step == sampler.passes(request.steps_taken)


@pytest.mark.parametrize(
    ("sampler", "strength"),
    [*((sampler, 0.4) for sampler in Sampler), *((sampler, 1.0) for sampler in UNLIKE)],
)
def test_so_it_is_with_little_and_with_all_of_it_drawn_anew(
    small: Tiny, sampler: Sampler, strength: float
) -> None:
    request = small.ask(sampler=sampler, strength=strength)

    drawing = small.alone(request)

    assert torch.equal(drawing.latents[0], small.stock(request))
    assert drawing.step == sampler.passes(request.steps_taken)


def test_pixels_are_equal_too(tiny: Tiny) -> None:
    request = tiny.ask(steps=3, guidance_scale=1.0)

    pixels = tiny.worker.decode(tiny.alone(request))

    assert np.array_equal(pixels, np.asarray(tiny.stock(request, "pil")))


def test_each_picture_of_a_request_is_what_its_seed_draws_alone(small: Tiny) -> None:
    request = small.ask(seed=3, count=2, sampler=Sampler.EULER_A)

    drawings = small.worker.begin(request)
    for drawing in drawings:
        small.run([drawing])

    for drawing in drawings:
        alone = replace(request, seed=drawing.seed, count=1)
        assert torch.equal(drawing.latents[0], small.stock(alone))


def test_the_source_is_encoded_once_whatever_the_number_of_pictures(
    small: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(small.worker, LatentWorker)
    vae, calls = small.worker._parts.vae, []
    encode = vae.encode
    monkeypatch.setattr(vae, "encode", lambda pixels: calls.append(1) or encode(pixels))

    small.worker.begin(small.ask(count=4))

    assert len(calls) == 1


def test_it_shares_forward_passes_with_pictures_from_noise(small: Tiny) -> None:
    random = Random(2)  # noqa: S311 - a mixture, not a secret
    requests = [
        small.ask(
            sampler=sampler,
            seed=random.randrange(2**32),
            steps=4,
            strength=random.choice([0.4, 0.8]),
            **({"source": None} if random.random() < 0.5 else {}),
        )
        for sampler in Sampler
    ]
    expected = [small.alone(request) for request in requests]

    drawings = [drawing for request in requests for drawing in small.worker.begin(request)]
    assert len({small.worker.batch_key(drawing) for drawing in drawings}) == 1
    small.run(drawings)

    for drawing, reference in zip(drawings, expected, strict=True):
        scale = reference.latents.abs().max().item()
        torch.testing.assert_close(drawing.latents, reference.latents, atol=1e-4 * scale, rtol=0)


def test_a_variation_begins_between_two_noises_over_the_same_source(small: Tiny) -> None:
    def begin(**changes: Any) -> torch.Tensor:
        return small.worker.begin(small.ask(**changes))[0].latents

    first, other = begin(seed=1), begin(seed=2)
    some = begin(seed=1, variation_seed=2, variation_strength=0.3)

    assert torch.equal(begin(seed=1, variation_seed=2, variation_strength=0.0), first)
    assert 0 < (some - first).norm() < (some - other).norm()


@pytest.mark.parametrize("size", [(96, 64), (64, 200), (30, 31), (640, 640)])
def test_another_size_is_covered_with_the_middle_of_the_source(
    small: Tiny, tmp_path: Path, size: tuple[int, int]
) -> None:
    wide = picture(tmp_path / "other.png", size)
    with Image.open(wide) as image:
        scale = max(SIZE / size[0], SIZE / size[1])
        width, height = SIZE / scale, SIZE / scale
        left, top = (size[0] - width) / 2, (size[1] - height) / 2
        box = (left, top, left + width, top + height)
        image.resize((SIZE, SIZE), Image.Resampling.LANCZOS, box).save(tmp_path / "covering.png")

    drawing = small.worker.begin(small.ask(source=wide))[0]

    covering = small.worker.begin(small.ask(source=tmp_path / "covering.png"))[0]
    assert torch.equal(drawing.latents, covering.latents)


@pytest.mark.parametrize("mode", ["RGBA", "L", "P", "1", "LA", "I;16"])
def test_pngs_of_every_kind_are_read(small: Tiny, tmp_path: Path, mode: str) -> None:
    with Image.open(small.source) as image:
        kind = image.convert("L").convert("I").convert("I;16") if mode == "I;16" else None
        (kind or image.convert(mode)).save(tmp_path / "kind.png")

    drawing = small.worker.begin(small.ask(source=tmp_path / "kind.png"))[0]

    assert drawing.latents.isfinite().all()


def broken(folder: Path, kind: str) -> Path:
    path = folder / "source.png"
    match kind:
        case "truncated":
            picture(path)
            path.write_bytes(path.read_bytes()[:2000])
        case "empty":
            path.write_bytes(b"")
        case "no picture":
            path.write_bytes(b"#!/bin/sh\n")
        case "a jpeg":
            picture(folder / "source.jpg")
            shutil.move(folder / "source.jpg", path)
        case "a folder":
            path.mkdir()
        case "enormous":
            header = bytes.fromhex("89504e470d0a1a0a0000000d49484452000fffff000fffff0802000000")
            path.write_bytes(header + bytes(100))
    return path


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("gone", "is gone"),
        ("truncated", "is damaged"),
        ("empty", "is damaged"),
        ("no picture", "is damaged"),
        ("a jpeg", "is damaged"),
        ("a folder", "is damaged"),
        ("enormous", "is damaged"),
    ],
)
def test_a_source_that_cannot_be_read_is_told_and_the_worker_draws_on(
    small: Tiny, tmp_path: Path, kind: str, told: str
) -> None:
    path = broken(tmp_path, kind)

    with pytest.raises(DrawingError, match=f"picture to start from .*{told}") as caught:
        small.worker.begin(small.ask(source=path))

    assert str(tmp_path) not in str(caught.value)
    assert torch.equal(small.alone(small.ask()).latents[0], small.usual)


@pytest.mark.parametrize(
    ("steps", "strength", "allowed"),
    [
        (20, 0.04, "0.05 to 1 with 20 steps"),
        (3, 0.3, "0.334 to 1 with 3 steps"),
        (6, 0.0, "0.167 to 1 with 6 steps"),
        (6, -1.0, "0.167 to 1 with 6 steps"),
        (6, 1.01, "0.167 to 1 with 6 steps"),
        (6, float("nan"), "0.167 to 1 with 6 steps"),
        (6, float("inf"), "0.167 to 1 with 6 steps"),
    ],
)
def test_a_strength_that_makes_no_step_is_refused_with_what_is_allowed(
    small: Tiny, steps: int, strength: float, allowed: str
) -> None:
    with pytest.raises(RequestError) as caught:
        small.worker.begin(small.ask(steps=steps, strength=strength))

    assert (caught.value.field, caught.value.allowed) == ("strength", allowed)


def test_the_least_strength_that_is_named_makes_a_step(small: Tiny) -> None:
    for steps in range(1, 501):
        with pytest.raises(RequestError) as caught:
            small.worker.begin(small.ask(steps=steps, strength=0.0, source=Path("unread.png")))
        least = float(caught.value.allowed.split()[0])

        assert small.ask(steps=steps, strength=least).steps_taken >= 1


def test_without_a_source_the_strength_does_not_count(small: Tiny) -> None:
    plain = small.alone(small.ask(source=None, strength=1.0))

    assert torch.equal(small.alone(small.ask(source=None, strength=0.1)).latents, plain.latents)


def test_a_drawn_picture_keeps_its_background_when_it_is_drawn_anew(
    demo: Worker, tmp_path: Path
) -> None:
    drawn = ask(prompt="a red circle on a blue background", negative_prompt="", steps=12)
    first = draw(demo, drawn)
    Image.fromarray(first).save(tmp_path / "first.png")
    # Guidance would pull towards the background of most pictures with such a prompt.
    again = replace(drawn, prompt="a red square", guidance_scale=1.0, seed=2, strength=0.3)

    second = draw(demo, replace(again, source=tmp_path / "first.png"))
    fresh = draw(demo, again)

    assert distance(second, first) < 40
    assert distance(fresh, first) > 120


def test_a_drawn_shape_keeps_its_place_when_half_of_it_is_drawn_anew(
    demo: Worker, tmp_path: Path
) -> None:
    words = "a red circle in the top left on a blue background"
    drawn = ask(prompt=words, negative_prompt="", steps=12)
    Image.fromarray(draw(demo, drawn)).save(tmp_path / "first.png")
    # The words leave the place open, and the model would take the middle.
    words = "a red square on a blue background"
    again = replace(drawn, prompt=words, guidance_scale=1.0, seed=2, strength=0.5)

    second = draw(demo, replace(again, source=tmp_path / "first.png"))
    fresh = draw(demo, again)

    assert max(middle_of_red(second)) < 45
    assert min(middle_of_red(fresh)) > 55


def middle_of_red(pixels: np.ndarray[Any, Any]) -> tuple[float, float]:
    """Where what is red lies, across and down, in pixels."""
    down, across = np.nonzero(pixels[..., 0].astype(int) - pixels[..., 2] > 60)
    return float(across.mean()), float(down.mean())


def draw(worker: Any, request: GenerationRequest) -> np.ndarray[Any, Any]:
    [drawing] = worker.begin(request)
    while not drawing.done:
        worker.step([drawing])
    pixels: np.ndarray[Any, Any] = worker.decode(drawing)
    return pixels


def distance(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    """How far apart the colours are of two pictures' edges, where the background is; in levels."""
    colours = [
        np.median(np.concatenate([p[:6].reshape(-1, 3), p[-6:].reshape(-1, 3)]), axis=0)
        for p in (one, other)
    ]
    return float(np.abs(colours[0] - colours[1]).max())
