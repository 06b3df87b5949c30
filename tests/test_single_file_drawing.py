"""Single files and SD 2.x through the factory, against the stock pipeline."""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch  # noqa: TID253 - the subject is made of it
from diffusers import (  # noqa: TID253 - what is compared with
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
)
from PIL import Image
from safetensors.torch import load_file

from engine.errors import UnsupportedModelError
from engine.jobs import Family, GenerationRequest, ModelSpec
from engine.worker_factory import WorkerFactory
from engine.workers.base import Drawing, Worker
from tests.single_file_kit import save_single_file, save_tiny
from tests.stock_kit import aligned, drawn_at_once
from tests.worker_kit import ask

DRAWN = [Family.SD15, Family.SD2]
PREDICTS = {Family.SD15: "epsilon", Family.SD2: "v_prediction"}
"""What a mode says of a model; the files and folders here say epsilon, or nothing."""

SMALL = ask(prompt="a red cat", width=64, height=64, steps=2)


@dataclass(frozen=True)
class Tiny:
    family: Family
    folder: Path
    file: Path
    pipelines: dict[Path, Any] = field(default_factory=dict)

    def pipeline(self, path: Path) -> Any:
        """Returns the stock pipeline of a file or folder, loaded once."""
        if path not in self.pipelines:
            if path.is_dir():
                pipeline = StableDiffusionPipeline.from_pretrained(path, local_files_only=True)
            else:
                pipeline = StableDiffusionPipeline.from_single_file(
                    str(path), config=str(self.folder), local_files_only=True
                )
            aligned(pipeline).set_progress_bar_config(disable=True)
            self.pipelines[path] = pipeline
        return self.pipelines[path]


@pytest.fixture(scope="module", params=DRAWN)
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    root = tmp_path_factory.mktemp(request.param)
    state = save_tiny(request.param, root / "folder")
    return Tiny(request.param, root / "folder", save_single_file(root / "one.safetensors", state))


@pytest.fixture
def create(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Worker]]:
    # The shipped configurations are of gigabytes of weights.
    monkeypatch.setattr("engine.workers.single_file.config_folder", lambda _: tiny.folder)
    made = []

    def create(path: Path, prediction_type: str | None = None) -> Worker:
        made.append(WorkerFactory("cpu").create(ModelSpec(path, prediction_type=prediction_type)))
        return made[-1]

    yield create
    for worker in made:
        worker.close()


def assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    scale = expected.abs().max().item()
    torch.testing.assert_close(found, expected, atol=1e-4 * scale, rtol=0)


def draw(worker: Worker, *requests: GenerationRequest) -> list[Drawing]:
    drawings = [drawing for request in requests for drawing in worker.begin(request)]
    while waiting := [drawing for drawing in drawings if not drawing.done]:
        worker.step(waiting)
    return drawings


def stock(
    tiny: Tiny, path: Path, request: GenerationRequest, predicts: str
) -> tuple[torch.Tensor, np.ndarray[Any, Any]]:
    """Returns the stock pipeline's latents and levels."""
    pipeline = tiny.pipeline(path)
    config = dict(pipeline.scheduler.config) | {"prediction_type": predicts}
    pipeline.scheduler = EulerDiscreteScheduler.from_config(config)
    return drawn_at_once(
        pipeline,
        request.prompt,
        negative_prompt=request.negative_prompt,
        width=request.width,
        height=request.height,
        num_inference_steps=request.steps,
        guidance_scale=request.guidance_scale,
        generator=torch.Generator().manual_seed(request.seed),
    )


def test_file_and_folder_draw_what_the_stock_pipeline_draws(
    tiny: Tiny, create: Callable[..., Worker]
) -> None:
    latents = {}
    for path in (tiny.file, tiny.folder):
        worker = create(path, PREDICTS[tiny.family])
        [drawing] = draw(worker, SMALL)
        latents[path] = drawing.latents[0]
        expected, pixels = stock(tiny, path, SMALL, PREDICTS[tiny.family])

        assert worker.family is tiny.family
        assert torch.equal(latents[path], expected)
        with Image.open(io.BytesIO(worker.finish(drawing).png)) as image:
            assert np.array_equal(np.asarray(image), pixels)

    assert torch.equal(latents[tiny.file], latents[tiny.folder])


def test_what_a_file_says_it_predicts_is_drawn_so(
    tiny: Tiny, create: Callable[..., Worker], tmp_path: Path
) -> None:
    hinted = {**load_file(tiny.file), "v_pred": torch.zeros(0)}
    file = save_single_file(tmp_path / "v.safetensors", hinted)

    [drawing] = draw(create(file), SMALL)

    assert torch.equal(drawing.latents[0], stock(tiny, tiny.file, SMALL, "v_prediction")[0])


def test_pictures_of_a_file_share_their_forward_passes(
    tiny: Tiny, create: Callable[..., Worker]
) -> None:
    worker = create(tiny.file, "epsilon")
    requests = [SMALL, replace(SMALL, steps=3, guidance_scale=1.0), replace(SMALL, prompt="night")]
    expected = [draw(worker, request)[0].latents for request in requests]

    together = draw(worker, *requests)

    for drawing, latents in zip(together, expected, strict=True):
        assert_close(drawing.latents, latents)


def test_a_file_without_a_vae_is_refused_by_the_factory(tiny: Tiny, tmp_path: Path) -> None:
    state = load_file(tiny.file)
    kept = {name: t for name, t in state.items() if not name.startswith("first_stage_model.")}
    file = save_single_file(tmp_path / "unet.safetensors", kept)

    with pytest.raises(UnsupportedModelError, match="has no VAE"):
        WorkerFactory("cpu").create(ModelSpec(file))
