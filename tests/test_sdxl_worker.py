import gc
import json
import shutil
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch  # noqa: TID253 - the subject is made of it
from diffusers import (  # noqa: TID253 - what is compared with
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLPipeline,
)

from engine.errors import (
    DrawingError,
    ModelError,
    ModelFormatError,
    ModelNotFoundError,
    RequestError,
    UnsupportedModelError,
)
from engine.jobs import Family, GenerationRequest, ModelSpec, Sampler
from engine.model_detector import detect
from engine.worker_factory import WorkerFactory
from engine.workers.base import Drawing
from engine.workers.parts import DiffusersFolder, Parts
from engine.workers.sdxl import _READERS, StableDiffusionXLWorker, _vae_format
from engine.workers.single_file import SingleFile
from tests.ldm_layout import State
from tests.single_file_kit import save_single_file, save_tiny
from tests.stock_kit import STOCK, aligned
from tests.tiny_models import write_json
from tests.worker_kit import ask

BASE, REFINER = Family.SDXL, Family.SDXL_REFINER
FAMILIES = (BASE, REFINER)
CPU = torch.device("cpu")

base_alone = pytest.mark.parametrize("tiny", [BASE], indirect=True)
"""For what is alike in both families."""


@dataclass(frozen=True)
class Tiny:
    """A family's pipeline with tiny layers, as a folder and as a single file's tensors."""

    family: Family
    model: ModelSpec
    state: State

    def ask(self, **changes: Any) -> GenerationRequest:
        # The tiny text encoders read fourteen letters at once, and the stock pipelines no more.
        small = {"prompt": "a red house", "width": 64, "height": 64}
        return ask(**{"model": self.model, **small, **changes})

    def copy(self, folder: Path) -> ModelSpec:
        """Copies the pipeline so that a test may break it; weights that stay are links."""
        path = folder / "model"
        shutil.copytree(self.model.path, path, copy_function=_link)
        return ModelSpec(path)


def _link(source: str, target: str) -> None:
    shutil.copyfile(source, target) if source.endswith(".json") else Path(target).symlink_to(source)


def load(model: ModelSpec) -> StableDiffusionXLWorker:
    return StableDiffusionXLWorker.load(model, detect(model.path), "cpu")


@pytest.fixture(scope="module", params=FAMILIES)
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    folder = tmp_path_factory.mktemp(request.param) / "tiny-xl"
    state = save_tiny(request.param, folder, shallow=True)
    return Tiny(request.param, ModelSpec(folder), state)


@pytest.fixture(scope="module")
def worker(tiny: Tiny) -> Iterator[StableDiffusionXLWorker]:
    worker = load(tiny.model)
    yield worker
    worker.close()


@pytest.fixture(scope="module")
def pipeline(tiny: Tiny) -> Any:
    kind = StableDiffusionXLPipeline if tiny.family is BASE else StableDiffusionXLImg2ImgPipeline
    pipeline = kind.from_pretrained(
        tiny.model.path, dtype=torch.float32, local_files_only=True, add_watermarker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    return aligned(pipeline)


def stock(pipeline: Any, request: GenerationRequest, output_type: str) -> Any:
    path = request.model.path / "scheduler" / "scheduler_config.json"
    pipeline.scheduler = STOCK[request.sampler](json.loads(path.read_text()))
    generator = torch.Generator().manual_seed(request.seed)
    words = {
        "prompt": request.prompt,
        # The stock pipelines tell a negative prompt that is empty from none at all.
        "negative_prompt": request.negative_prompt or None,
        "num_inference_steps": request.steps,
        "guidance_scale": request.guidance_scale,
        "generator": generator,
        "output_type": output_type,
    }
    if isinstance(pipeline, StableDiffusionXLPipeline):
        return pipeline(width=request.width, height=request.height, **words).images[0]
    # It goes on from latents: with a start that is said and zero, from these, all the way.
    pipeline.scheduler.set_timesteps(request.steps)
    noise = torch.randn((1, 4, request.height // 8, request.width // 8), generator=generator)
    latents = noise * pipeline.scheduler.init_noise_sigma
    return pipeline(image=latents, strength=1.0, denoising_start=0.0, **words).images[0]


def run(worker: StableDiffusionXLWorker, drawings: Sequence[Drawing]) -> None:
    while waiting := [drawing for drawing in drawings if not drawing.done]:
        worker.step(waiting)


def alone(worker: StableDiffusionXLWorker, request: GenerationRequest) -> Drawing:
    [drawing] = worker.begin(request)
    run(worker, [drawing])
    return drawing


@pytest.mark.parametrize("sampler", Sampler)
def test_alone_a_request_is_bit_equal_to_the_stock_pipeline(
    tiny: Tiny,
    worker: StableDiffusionXLWorker,
    pipeline: Any,
    sampler: Sampler,
) -> None:
    request = tiny.ask(sampler=sampler)

    drawing = alone(worker, request)

    assert torch.equal(drawing.latents[0], stock(pipeline, request, "latent"))


@pytest.mark.parametrize(
    "changes",
    [
        {"width": 96, "height": 64},
        {"prompt": ""},
        {"negative_prompt": ""},
        {"prompt": "", "negative_prompt": "", "guidance_scale": 1.0},
    ],
)
def test_pixels_are_equal_for_other_sizes_and_prompts_too(
    tiny: Tiny, worker: StableDiffusionXLWorker, pipeline: Any, changes: dict[str, Any]
) -> None:
    request = tiny.ask(steps=2, **changes)

    pixels = worker.decode(alone(worker, request))

    assert np.array_equal(pixels, np.asarray(stock(pipeline, request, "pil")))


def test_in_company_a_picture_is_what_it_is_alone(
    tiny: Tiny, worker: StableDiffusionXLWorker
) -> None:
    random = Random(4)  # noqa: S311 - a mixture, not a secret
    requests = [
        tiny.ask(
            sampler=random.choice(list(Sampler)),
            steps=random.randint(2, 4),
            guidance_scale=random.choice([1.0, 3.5, 8.0]),
            prompt=random.choice(["a red house", "a blue tree", ""]),
            negative_prompt=random.choice(["night", ""]),
            seed=random.randrange(2**32),
        )
        for _ in range(5)
    ]
    expected = [alone(worker, request) for request in requests]
    waiting, drawings = list(requests), list[Drawing]()

    while waiting or not all(drawing.done for drawing in drawings):
        for _ in range(random.randint(0, 2)):  # some join, some have left
            if waiting:
                drawings += worker.begin(waiting.pop(0))
        moving = [drawing for drawing in drawings if not drawing.done]
        if moving:
            worker.step(random.sample(moving, random.randint(1, len(moving))))

    for drawing, reference in zip(drawings, expected, strict=True):
        scale = reference.latents.abs().max().item()
        torch.testing.assert_close(drawing.latents, reference.latents, atol=1e-4 * scale, rtol=0)
        difference = worker.decode(drawing).astype(int) - worker.decode(reference)
        assert np.abs(difference).max() <= 1


def test_the_sizes_of_a_batch_may_differ(tiny: Tiny, worker: StableDiffusionXLWorker) -> None:
    def told(**size: float) -> Drawing:
        [drawing] = worker.begin(tiny.ask())
        return replace_last(drawing, **size)

    def replace_last(drawing: Drawing, last: float) -> Drawing:
        time_ids = drawing.added["time_ids"].clone()
        time_ids[:, -1] = last
        drawing.added = {**drawing.added, "time_ids": time_ids}
        return drawing

    single, other = told(last=512), told(last=9)
    run(worker, [single])
    run(worker, [other])

    batch = [told(last=512), told(last=9)]
    assert worker.batch_key(batch[0]) == worker.batch_key(batch[1])
    run(worker, batch)

    assert not torch.equal(single.latents, other.latents)
    for together, apart in zip(batch, [single, other], strict=True):
        torch.testing.assert_close(together.latents, apart.latents, atol=1e-3, rtol=0)


def test_the_unet_hears_of_the_pictures_size_or_its_score(
    tiny: Tiny, worker: StableDiffusionXLWorker
) -> None:
    [drawing] = worker.begin(tiny.ask(width=96, height=64))

    negative, positive = drawing.added["time_ids"].tolist()

    if tiny.family is BASE:
        assert negative == positive == [64, 96, 0, 0, 64, 96]
    else:
        assert (negative, positive) == ([64, 96, 0, 0, 2.5], [64, 96, 0, 0, 6])


def test_a_variation_begins_between_two_noises(tiny: Tiny, worker: StableDiffusionXLWorker) -> None:
    def noise(**changes: Any) -> torch.Tensor:
        return worker.begin(tiny.ask(**changes))[0].latents

    first, other = noise(seed=1), noise(seed=2)
    some = noise(seed=1, variation_seed=2, variation_strength=0.3)

    assert 0 < (some - first).norm() < (some - other).norm()
    assert torch.equal(noise(seed=1, variation_seed=2, variation_strength=0.0), first)


def test_without_guidance_a_picture_takes_one_row_and_ignores_the_negative_prompt(
    tiny: Tiny, worker: StableDiffusionXLWorker
) -> None:
    request = tiny.ask(guidance_scale=1.0)

    drawing = alone(worker, request)

    assert drawing.rows == 1
    assert {len(rows) for rows in drawing.added.values()} == {1}
    other = alone(worker, replace(request, negative_prompt="a red house"))
    assert torch.equal(drawing.latents, other.latents)


def test_prompt_and_negative_prompt_both_change_the_picture(
    tiny: Tiny, worker: StableDiffusionXLWorker
) -> None:
    plain = alone(worker, tiny.ask()).latents

    assert not torch.equal(plain, alone(worker, tiny.ask(prompt="a tree")).latents)
    assert not torch.equal(plain, alone(worker, tiny.ask(negative_prompt="sea")).latents)


@base_alone
@pytest.mark.parametrize("zeros", [True, False, None])
def test_the_index_says_what_an_empty_negative_prompt_is(
    tiny: Tiny, tmp_path: Path, zeros: bool | None
) -> None:
    model = tiny.copy(tmp_path)
    change_json(model.path / "model_index.json", force_zeros_for_empty_prompt=zeros)
    worker = load(model)
    try:
        [drawing] = worker.begin(tiny.ask(negative_prompt=""))
    finally:
        worker.close()

    negative = (drawing.embeddings[0], drawing.added["text_embeds"][0])
    # Where the index says nothing, the stock pipelines take zeros.
    assert all(bool((part == 0).all()) is (zeros is not False) for part in negative)


def test_only_equal_shapes_share_a_batch(tiny: Tiny, worker: StableDiffusionXLWorker) -> None:
    keys = [
        worker.batch_key(worker.begin(request)[0])
        for request in (
            tiny.ask(),
            tiny.ask(steps=9, sampler=Sampler.DDIM, guidance_scale=1.0, negative_prompt=""),
            tiny.ask(width=96),
        )
    ]

    assert keys[0] == keys[1] != keys[2]


def test_there_is_a_preview_after_a_step(tiny: Tiny, worker: StableDiffusionXLWorker) -> None:
    [drawing] = worker.begin(tiny.ask())
    assert worker.preview(drawing) is None

    worker.step([drawing])

    assert (worker.preview(drawing) or b"").startswith(b"\xff\xd8")


@pytest.mark.parametrize(("field", "value"), [("width", 100), ("height", 0), ("steps", 501)])
def test_what_the_model_cannot_draw_is_refused(
    tiny: Tiny, worker: StableDiffusionXLWorker, field: str, value: int
) -> None:
    with pytest.raises(RequestError) as caught:
        worker.begin(tiny.ask(**{field: value}))
    assert (caught.value.field, caught.value.value) == (field, value)


def test_latents_that_are_no_numbers_are_told(tiny: Tiny, worker: StableDiffusionXLWorker) -> None:
    drawing = alone(worker, tiny.ask(steps=1))
    drawing.latents = drawing.latents * float("nan")

    with pytest.raises(DrawingError, match="tiny-xl drew values that are no numbers"):
        worker.finish(drawing)


@base_alone
def test_a_vae_that_overflows_in_half_precision_goes_on_in_single(tiny: Tiny) -> None:
    worker = load(tiny.model)
    vae = worker._parts.vae
    # As the original VAE of SDXL does on a GPU: weights that are fine, activations that are not.
    vae.decoder.conv_in.weight.mul_(3e4)
    vae.decoder.conv_in.bias.mul_(3e4)
    drawing = alone(worker, tiny.ask(steps=1))
    expected = worker.decode(drawing)
    vae.half()

    pixels = worker.decode(drawing)

    assert vae.dtype == torch.float32
    assert np.abs(pixels.astype(int) - expected).max() <= 1
    worker.close()


@base_alone
def test_a_vae_in_bfloat16_draws_nearly_the_same(tiny: Tiny) -> None:
    readers = _READERS[tiny.family]
    source = DiffusersFolder(tiny.model.path)
    parts = Parts.load(source, tiny.model, CPU, readers, lambda _: None, torch.bfloat16)
    worker = StableDiffusionXLWorker(tiny.model, tiny.family, "cpu", parts)
    drawing = alone(worker, tiny.ask(steps=1))

    pixels = worker.decode(drawing)

    assert (parts.unet.dtype, parts.vae.dtype) == (torch.float32, torch.bfloat16)
    parts.vae.float()
    difference = pixels.astype(int) - worker.decode(drawing)
    assert np.abs(difference).mean() < 2
    worker.close()


@pytest.mark.parametrize(
    ("device", "forced", "supported", "expected"),
    [
        ("cpu", True, True, None),
        ("cuda:0", False, True, None),
        ("cuda:0", True, True, torch.bfloat16),
        ("cuda:0", None, True, torch.bfloat16),
        ("cuda:0", True, False, torch.float32),
    ],
)
def test_a_vae_that_asks_for_it_keeps_its_range_on_a_gpu(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    forced: bool | None,
    supported: bool,
    expected: torch.dtype | None,
) -> None:
    # Only a machine with a GPU can say what it supports.
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: supported)
    said = {} if forced is None else {"force_upcast": forced}
    write_json(tmp_path / "vae" / "config.json", said)

    assert _vae_format(tmp_path, torch.device(device)) is expected


def test_closing_gives_the_memory_back(tiny: Tiny) -> None:
    worker = load(tiny.model)
    weights = weakref.ref(worker._parts.unet)
    drawing = alone(worker, tiny.ask(steps=1))
    assert worker.weight_bytes > 1_000_000

    worker.close()
    worker.close()

    del drawing
    gc.collect()
    assert weights() is None


def single_file(tiny: Tiny, path: Path) -> StableDiffusionXLWorker:
    """Loads the tiny pipeline from one file; its configuration is not the one that is shipped."""
    source = SingleFile(path, tiny.family, tiny.model.path)
    model = ModelSpec(path)
    parts = StableDiffusionXLWorker._load_parts(source, model, tiny.family, CPU)
    return StableDiffusionXLWorker(model, tiny.family, "cpu", parts)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_single_file_draws_what_its_folder_draws(family: Family, tmp_path: Path) -> None:
    # In a file, layers have numbers: here the family has as many as it has.
    deep = Tiny(family, ModelSpec(tmp_path / "deep"), save_tiny(family, tmp_path / "deep"))
    worker = load(deep.model)
    one = single_file(deep, save_single_file(tmp_path / "one.safetensors", deep.state))
    request = deep.ask(negative_prompt="", steps=2)

    try:
        assert torch.equal(alone(one, request).latents, alone(worker, request).latents)
    finally:
        one.close()
        worker.close()


def test_the_factory_finds_this_worker_for_a_folder_and_a_file(tiny: Tiny, tmp_path: Path) -> None:
    worker = WorkerFactory("cpu").create(tiny.model)
    assert (type(worker), worker.family) == (StableDiffusionXLWorker, tiny.family)
    worker.close()

    # The layers of a file have the sizes that are shipped for its family, or are refused.
    path = save_single_file(tmp_path / "one.safetensors", tiny.state)
    with pytest.raises(ModelFormatError, match=r"text encoder has .* in the shape|has no") as told:
        WorkerFactory("cpu").create(ModelSpec(path))
    assert told.value.path == path


def change_json(path: Path, **changes: object) -> None:
    merged = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in merged.items() if value is not None}))


def parts_of(family: Family) -> list[str]:
    both = ["text_encoder_2", "tokenizer_2", "unet", "vae", "scheduler"]
    return ["text_encoder", "tokenizer", *both] if family is BASE else both


@pytest.mark.parametrize("part", parts_of(BASE))
def test_a_missing_part_is_named(tiny: Tiny, tmp_path: Path, part: str) -> None:
    if part not in parts_of(tiny.family):
        return
    model, detected = tiny.copy(tmp_path), detect(tiny.model.path)
    shutil.rmtree(model.path / part)

    with pytest.raises(ModelError, match=part) as caught:
        StableDiffusionXLWorker.load(model, detected, "cpu")
    assert caught.value.path.relative_to(model.path).parts[0] == part


@pytest.mark.parametrize(
    ("part", "damage"),
    [
        ("text_encoder_2", "truncated"),
        ("text_encoder_2", "gone"),
        ("unet", "truncated"),
        ("vae", "gone"),
    ],
)
def test_broken_weights_are_named(tiny: Tiny, tmp_path: Path, part: str, damage: str) -> None:
    model, detected = tiny.copy(tmp_path), detect(tiny.model.path)
    [file] = (model.path / part).glob("*.safetensors")
    whole = file.read_bytes()
    file.unlink()
    if damage == "truncated":
        file.write_bytes(whole[: len(whole) // 2])

    with pytest.raises(ModelError) as caught:
        StableDiffusionXLWorker.load(model, detected, "cpu")
    assert caught.value.path == file


@pytest.mark.parametrize(
    ("part", "changes", "kind", "named"),
    [
        ("text_encoder_2", {"model_type": "t5"}, UnsupportedModelError, "t5"),
        ("text_encoder_2", {"hidden_size": 12}, ModelFormatError, "12"),
        ("text_encoder_2", {"projection_dim": 12}, ModelFormatError, "not the 12"),
        ("text_encoder_2", {"projection_dim": "wide"}, ModelFormatError, "not the wide"),
        ("unet", {"time_cond_proj_dim": 256}, UnsupportedModelError, "time_cond_proj_dim"),
        ("unet", {"addition_embed_type": "text"}, UnsupportedModelError, "is text;"),
        ("unet", {"addition_embed_type": None}, UnsupportedModelError, "is None;"),
        ("unet", {"addition_time_embed_dim": None}, ModelFormatError, "None values each"),
        ("unet", {"in_channels": 9}, UnsupportedModelError, "9 channels"),
        ("vae", {"latents_mean": [0, 0, 0, 0]}, UnsupportedModelError, "latents_mean"),
    ],
)
def test_parts_that_do_not_fit_are_refused(
    tiny: Tiny,
    tmp_path: Path,
    part: str,
    changes: dict[str, object],
    kind: type[ModelError],
    named: str,
) -> None:
    model, detected = tiny.copy(tmp_path), detect(tiny.model.path)
    change_json(model.path / part / "config.json", **changes)

    with pytest.raises(kind, match=named) as caught:
        StableDiffusionXLWorker.load(model, detected, "cpu")
    assert caught.value.path.is_relative_to(model.path)


def test_a_base_is_not_taken_for_a_refiner(tiny: Tiny) -> None:
    [other] = set(FAMILIES) - {tiny.family}
    mistaken = replace(detect(tiny.model.path), family=other)

    with pytest.raises(ModelError):
        StableDiffusionXLWorker.load(tiny.model, mistaken, "cpu")


def test_a_tokenizer_without_its_vocabulary_is_found_out(tiny: Tiny, tmp_path: Path) -> None:
    model, detected = tiny.copy(tmp_path), detect(tiny.model.path)
    for name in ("vocab.json", "merges.txt"):
        (model.path / "tokenizer_2" / name).unlink()

    with pytest.raises(ModelFormatError) as caught:
        StableDiffusionXLWorker.load(model, detected, "cpu")
    assert caught.value.path == model.path / "tokenizer_2"


def test_a_model_that_went_away_is_named(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="gone"):
        StableDiffusionXLWorker.load(ModelSpec(tmp_path / "gone"), detect(tiny.model.path), "cpu")
