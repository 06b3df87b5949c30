import gc
import io
import json
import shutil
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch  # noqa: TID253 - the subject is made of it
from diffusers import StableDiffusionPipeline  # noqa: TID253 - what is compared with
from PIL import Image
from safetensors.torch import load_file, save_file

from engine.errors import (
    DrawingError,
    ModelError,
    ModelFormatError,
    RequestError,
    UnsupportedModelError,
)
from engine.images import read_png
from engine.jobs import GenerationRequest, ModelSpec, Sampler
from engine.model_detector import detect
from engine.workers import parts
from engine.workers.base import Drawing
from engine.workers.sd import StableDiffusionWorker
from tests.stock_kit import STOCK, aligned, drawn_at_once
from tests.worker_kit import DEMO, ask, copy_demo

SMALL = ask(width=64, height=64)

# Each sampler is in one of them.
SHUFFLED = Random(0).sample(list(Sampler), len(Sampler))  # noqa: S311 - a mixture, not a secret
MIXTURES = [SHUFFLED[start::2] for start in range(2)]


def small(**changes: Any) -> GenerationRequest:
    return replace(SMALL, **changes)


def load(model: ModelSpec) -> StableDiffusionWorker:
    return StableDiffusionWorker.load(model, detect(model.path), "cpu")


@pytest.fixture(scope="module")
def worker() -> Iterator[StableDiffusionWorker]:
    worker = load(DEMO)
    yield worker
    worker.close()


@pytest.fixture(scope="module")
def pipeline() -> Any:
    pipeline = StableDiffusionPipeline.from_pretrained(
        DEMO.path, dtype=torch.float32, local_files_only=True
    )
    pipeline.set_progress_bar_config(disable=True)
    return aligned(pipeline)


def stock(pipeline: Any, request: GenerationRequest) -> tuple[torch.Tensor, np.ndarray[Any, Any]]:
    """Returns the stock pipeline's latents and levels."""
    config = json.loads((DEMO.path / "scheduler" / "scheduler_config.json").read_text())
    pipeline.scheduler = STOCK[request.sampler](config)
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


def run(worker: StableDiffusionWorker, drawings: Sequence[Drawing]) -> None:
    while waiting := [drawing for drawing in drawings if not drawing.done]:
        worker.step(waiting)


def alone(worker: StableDiffusionWorker, request: GenerationRequest) -> Drawing:
    [drawing] = worker.begin(request)
    run(worker, [drawing])
    return drawing


def levels(png: bytes) -> np.ndarray[Any, Any]:
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image).astype(int)


@pytest.mark.parametrize(
    ("sampler", "guidance"),
    [
        *((sampler, 5.0) for sampler in Sampler),
        # One that adds noise, one of two passes a step, one that remembers steps.
        *((s, 1.0) for s in (Sampler.EULER_A, Sampler.HEUN, Sampler.DPMPP_2M_SDE_KARRAS)),
    ],
)
def test_alone_a_request_is_bit_equal_to_the_stock_pipeline(
    worker: StableDiffusionWorker, pipeline: Any, sampler: Sampler, guidance: float
) -> None:
    request = small(sampler=sampler, guidance_scale=guidance, steps=4)
    latents, expected = stock(pipeline, request)

    drawing = alone(worker, request)

    assert torch.equal(drawing.latents[0], latents)
    assert np.array_equal(levels(worker.finish(drawing).png), expected)


@pytest.mark.parametrize("guidance", [5.0, 1.0])
def test_a_rehearsal_changes_no_picture(worker: StableDiffusionWorker, guidance: float) -> None:
    request = small(sampler=Sampler.EULER_A, guidance_scale=guidance, steps=2)
    expected = alone(worker, request)

    [drawing] = worker.begin(request)
    while not drawing.done:
        for rows in (1, 2, 3):
            worker.rehearse(drawing, rows)
        worker.step([drawing])
    worker.rehearse(drawing, 8)

    assert torch.equal(drawing.latents, expected.latents)


def test_other_sizes_and_empty_prompts_are_bit_equal_too(
    worker: StableDiffusionWorker, pipeline: Any
) -> None:
    request = small(width=192, height=64, prompt="", negative_prompt="", steps=2)

    assert torch.equal(alone(worker, request).latents[0], stock(pipeline, request)[0])


@pytest.mark.parametrize("seed", range(len(MIXTURES)))
def test_in_company_a_picture_is_what_it_is_alone(worker: StableDiffusionWorker, seed: int) -> None:
    random = Random(seed)  # noqa: S311 - a mixture, not a secret
    requests = [
        small(
            sampler=sampler,
            steps=random.randint(2, 4),
            guidance_scale=random.choice([1.0, 3.5, 8.0]),
            prompt=random.choice(["a red house", "a blue tree", ""]),
            seed=random.randrange(2**32),
        )
        for sampler in MIXTURES[seed]
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
        difference = levels(worker.finish(drawing).png) - levels(worker.finish(reference).png)
        assert np.abs(difference).max() <= 1


def test_each_picture_of_a_request_has_the_seed_that_draws_just_it(
    worker: StableDiffusionWorker,
) -> None:
    request = small(seed=2**32 - 1, count=2, sampler=Sampler.EULER_A)

    drawings = worker.begin(request)
    for drawing in drawings:
        run(worker, [drawing])

    assert [drawing.seed for drawing in drawings] == [2**32 - 1, 0]
    single = alone(worker, replace(request, seed=0, count=1))
    assert torch.equal(drawings[1].latents, single.latents)


def noise_of(worker: StableDiffusionWorker, **changes: Any) -> torch.Tensor:
    return worker.begin(small(**changes))[0].latents


def test_a_variation_begins_between_two_noises_and_is_as_strong(
    worker: StableDiffusionWorker,
) -> None:
    first, other = noise_of(worker, seed=1), noise_of(worker, seed=2)

    assert torch.equal(noise_of(worker, seed=1, variation_seed=2, variation_strength=0.0), first)
    whole = noise_of(worker, seed=1, variation_seed=2, variation_strength=1.0)
    assert torch.allclose(whole, other, atol=1e-5)
    some = noise_of(worker, seed=1, variation_seed=2, variation_strength=0.3)
    assert (some - first).norm() < (some - other).norm()
    assert some.std().item() == pytest.approx(first.std().item(), rel=0.05)


def test_the_variation_of_a_seed_by_itself_is_the_seed(worker: StableDiffusionWorker) -> None:
    same = noise_of(worker, seed=1, variation_seed=1, variation_strength=0.5)

    assert torch.equal(same, noise_of(worker, seed=1))


def test_each_picture_of_a_variation_can_be_drawn_by_itself(worker: StableDiffusionWorker) -> None:
    varied = {"variation_seed": 2**32 - 1, "variation_strength": 0.4}

    second = worker.begin(small(seed=7, count=2, **varied))[1]

    single = worker.begin(small(seed=8, variation_seed=0, variation_strength=0.4))[0]
    assert torch.equal(second.latents, single.latents)


def test_without_guidance_a_picture_takes_one_row_and_ignores_the_negative_prompt(
    worker: StableDiffusionWorker,
) -> None:
    request = small(guidance_scale=1.0)

    drawing = alone(worker, request)

    assert drawing.rows == 1
    other = alone(worker, replace(request, negative_prompt="a red house"))
    assert torch.equal(drawing.latents, other.latents)


def test_prompt_and_negative_prompt_both_change_the_picture(worker: StableDiffusionWorker) -> None:
    plain = alone(worker, SMALL)

    assert not torch.equal(plain.latents, alone(worker, small(prompt="a tree")).latents)
    assert not torch.equal(plain.latents, alone(worker, small(negative_prompt="sea")).latents)


def test_only_equal_shapes_share_a_batch(worker: StableDiffusionWorker) -> None:
    keys = [
        worker.batch_key(worker.begin(request)[0])
        for request in (
            small(),
            small(steps=9, sampler=Sampler.DDIM, guidance_scale=1.0, seed=3),
            small(width=96),
        )
    ]

    assert keys[0] == keys[1] != keys[2]


def test_a_file_says_how_it_was_drawn(worker: StableDiffusionWorker) -> None:
    image = worker.finish(alone(worker, small(seed=11)))

    read = read_png(image.png)
    assert read is not None
    assert (read.prompt, read.settings["Seed"]) == (SMALL.prompt, "11")
    assert (image.seed, image.width, image.height) == (11, 64, 64)


@pytest.fixture(scope="module")
def drawn(worker: StableDiffusionWorker) -> dict[Sampler, Drawing]:
    """A picture of each sampler, drawn side by side."""
    drawings = {sampler: worker.begin(ask(sampler=sampler, steps=8))[0] for sampler in Sampler}
    assert all(worker.preview(drawing) is None for drawing in drawings.values())
    run(worker, [*drawings.values()])
    return drawings


@pytest.mark.parametrize("sampler", Sampler)
def test_the_last_preview_looks_like_the_picture(
    worker: StableDiffusionWorker, drawn: dict[Sampler, Drawing], sampler: Sampler
) -> None:
    drawing = drawn[sampler]

    preview = worker.preview(drawing)

    assert preview is not None
    with Image.open(io.BytesIO(preview), formats=["JPEG"]) as image:
        assert image.size == (128, 128)
        small = np.asarray(image.resize((16, 16), Image.Resampling.BOX)).ravel()
    whole = Image.fromarray(worker.decode(drawing))
    picture = np.asarray(whole.resize((16, 16), Image.Resampling.BOX)).ravel()
    assert np.corrcoef(small, picture)[0, 1] > 0.7
    # What the last step predicted is what it arrived at; DDIM stops a little before the end.
    assert drawing.predicted is not None
    scale = drawing.latents.abs().max().item()
    torch.testing.assert_close(drawing.predicted, drawing.latents, atol=0.03 * scale, rtol=0)


@pytest.mark.parametrize(
    ("field", "value"),
    [("width", 100), ("height", 0), ("width", -8), ("steps", 0), ("steps", 501)],
)
def test_what_the_model_cannot_draw_is_refused(
    worker: StableDiffusionWorker, field: str, value: int
) -> None:
    with pytest.raises(RequestError) as caught:
        worker.begin(small(**{field: value}))
    assert (caught.value.field, caught.value.value) == (field, value)


def test_latents_that_are_no_numbers_are_told(worker: StableDiffusionWorker) -> None:
    drawing = alone(worker, SMALL)
    drawing.latents = drawing.latents * float("nan")

    with pytest.raises(DrawingError, match="dream-demo drew values that are no numbers"):
        worker.finish(drawing)


def test_one_row_of_nonsense_leaves_the_others_alone(worker: StableDiffusionWorker) -> None:
    [good], [bad] = worker.begin(SMALL), worker.begin(small(seed=8))
    bad.latents = bad.latents * float("nan")

    run(worker, [good, bad])

    torch.testing.assert_close(good.latents, alone(worker, SMALL).latents, atol=1e-3, rtol=0)


def test_a_scheduler_that_fails_stops_its_own_picture_alone(
    worker: StableDiffusionWorker,
) -> None:
    [good], [bad] = worker.begin(SMALL), worker.begin(small(seed=8))
    bad.scheduler.step = None

    worker.step([bad, good])

    assert isinstance(bad.error, TypeError)
    assert (bad.step, good.step, good.error) == (0, 1, None)


def test_closing_gives_the_memory_back() -> None:
    worker = load(DEMO)
    weights = weakref.ref(worker._parts.unet)
    drawing = alone(worker, small(steps=1))
    assert worker.weight_bytes > 1_000_000

    worker.close()
    worker.close()

    del drawing
    gc.collect()
    assert weights() is None


def test_a_modes_prediction_type_takes_the_place_of_the_models(
    worker: StableDiffusionWorker,
) -> None:
    own = worker._parts.schedule.prediction_type
    other = "epsilon" if own == "v_prediction" else "v_prediction"
    mistaken = load(replace(DEMO, prediction_type=other))

    try:
        assert not torch.equal(alone(mistaken, SMALL).latents, alone(worker, SMALL).latents)
    finally:
        mistaken.close()


PARTS = ("text_encoder", "unet", "vae", "scheduler", "tokenizer")


@pytest.mark.parametrize("part", PARTS)
def test_a_missing_part_is_named(tmp_path: Path, part: str) -> None:
    model, detected = copy_demo(tmp_path), detect(DEMO.path)
    shutil.rmtree(model.path / part)

    with pytest.raises(ModelError, match=part) as caught:
        StableDiffusionWorker.load(model, detected, "cpu")
    assert caught.value.path.relative_to(model.path).parts[0] == part


@pytest.mark.parametrize("part", PARTS[:4])
@pytest.mark.parametrize("text", ["", "{", "[]", '{"in_channels": NaN}'])
def test_a_broken_configuration_is_named(tmp_path: Path, part: str, text: str) -> None:
    model, detected = copy_demo(tmp_path), detect(DEMO.path)
    name = "scheduler_config.json" if part == "scheduler" else "config.json"
    (model.path / part / name).write_text(text)

    with pytest.raises(ModelFormatError) as caught:
        StableDiffusionWorker.load(model, detected, "cpu")
    assert caught.value.path == model.path / part / name


def weights_of(model: ModelSpec, part: str) -> Path:
    [file] = (model.path / part).glob("*.safetensors")
    return file


@pytest.mark.parametrize("part", PARTS[:3])
@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty", "gone"])
def test_broken_weights_are_named(tmp_path: Path, part: str, damage: str) -> None:
    model, detected = copy_demo(tmp_path), detect(DEMO.path)
    file = weights_of(model, part)
    if damage == "gone":
        file.unlink()
    else:
        whole = file.read_bytes()
        file.write_bytes(
            {"truncated": whole[: len(whole) // 2], "garbage": b"<html>" * 99, "empty": b""}[damage]
        )

    with pytest.raises(ModelError) as caught:
        StableDiffusionWorker.load(model, detected, "cpu")
    assert caught.value.path == file


@pytest.mark.parametrize("part", PARTS[:3])
@pytest.mark.parametrize("damage", ["missing", "mismatched"])
def test_weights_that_do_not_fit_are_not_made_up(tmp_path: Path, part: str, damage: str) -> None:
    model, detected = copy_demo(tmp_path), detect(DEMO.path)
    file = weights_of(model, part)
    tensors = load_file(file)
    name = max(tensors, key=lambda key: (tensors[key].ndim > 1, key))
    if damage == "missing":
        del tensors[name]
    else:
        tensors[name] = tensors[name][:-1].contiguous()
    save_file(tensors, file, metadata={"format": "pt"})

    with pytest.raises(ModelFormatError) as caught:
        StableDiffusionWorker.load(model, detected, "cpu")
    assert caught.value.path == file


def test_weights_full_of_nothing_load_and_fail_to_draw(tmp_path: Path) -> None:
    model = copy_demo(tmp_path)
    file = weights_of(model, "unet")
    tensors = {key: value * float("nan") for key, value in load_file(file).items()}
    save_file(tensors, file, metadata={"format": "pt"})
    worker = load(model)

    with pytest.raises(DrawingError):
        worker.finish(alone(worker, small(model=model)))
    worker.close()


def change_config(model: ModelSpec, part: str, **changes: object) -> None:
    path = model.path / part / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("part", "changes", "kind", "named"),
    [
        ("text_encoder", {"model_type": "t5"}, UnsupportedModelError, "t5"),
        ("text_encoder", {"hidden_size": 12}, ModelFormatError, "12"),
        ("unet", {"time_cond_proj_dim": 256}, UnsupportedModelError, "time_cond_proj_dim"),
        ("unet", {"addition_embed_type": "text_time"}, UnsupportedModelError, "text_time"),
        ("unet", {"in_channels": 9}, UnsupportedModelError, "9 channels"),
        ("unet", {"norm_num_groups": 7}, ModelFormatError, "can't be read"),
        ("vae", {"block_out_channels": "many"}, ModelFormatError, "can't be read"),
    ],
)
def test_parts_that_do_not_fit_are_refused(
    tmp_path: Path, part: str, changes: dict[str, object], kind: type[ModelError], named: str
) -> None:
    model, detected = copy_demo(tmp_path), detect(DEMO.path)
    change_config(model, part, **changes)

    with pytest.raises(kind, match=named):
        StableDiffusionWorker.load(model, detected, "cpu")


@pytest.mark.parametrize(
    ("part", "key", "most", "written"),
    [
        *(
            ("unet", "layers_per_block", 16, written)
            for written in ("one more", 10**9, 0, -1, 2.0, True, "2", None, [], [1, 99999])
        ),
        *(("vae", "layers_per_block", 16, written) for written in ("one more", 0)),
        *(("text_encoder", "num_hidden_layers", 100, written) for written in ("one more", 0)),
    ],
)
def test_a_number_of_layers_that_no_model_has_is_refused_before_any_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str, key: str, most: int, written: object
) -> None:
    model, detected = copy_demo(tmp_path), detect(DEMO.path)
    change_config(model, part, **{key: most + 1 if written == "one more" else written})
    monkeypatch.setattr(parts, "_load_folder", lambda *_: pytest.fail("a part was built"))

    told = f"{key} is .*; allowed are whole numbers from 1 to {most}"
    with pytest.raises(ModelFormatError, match=told) as caught:
        StableDiffusionWorker.load(model, detected, "cpu")
    assert caught.value.path == model.path / part


def test_numbers_of_layers_up_to_the_bound_and_block_by_block_are_let_pass(tmp_path: Path) -> None:
    model = copy_demo(tmp_path)
    change_config(model, "text_encoder", num_hidden_layers=100)
    change_config(model, "unet", layers_per_block=[1, 16])

    parts.check_fit(model.path, ["text_encoder"])


def test_a_tokenizer_without_its_vocabulary_is_found_out(tmp_path: Path) -> None:
    model, detected = copy_demo(tmp_path), detect(DEMO.path)
    for name in ("vocab.json", "merges.txt", "tokenizer.json"):
        (model.path / "tokenizer" / name).unlink(missing_ok=True)

    with pytest.raises(ModelFormatError) as caught:
        StableDiffusionWorker.load(model, detected, "cpu")
    assert caught.value.path == model.path / "tokenizer"


def test_pickled_weights_are_not_opened(tmp_path: Path) -> None:
    model, detected = copy_demo(tmp_path), detect(DEMO.path)
    file = weights_of(model, "vae")
    file.rename(file.with_suffix(".bin"))

    with pytest.raises(UnsupportedModelError, match="pickled"):
        StableDiffusionWorker.load(model, detected, "cpu")


def test_a_file_that_became_empty_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "starry.safetensors"
    path.write_bytes(b"")

    with pytest.raises(ModelFormatError, match="is empty"):
        StableDiffusionWorker.load(ModelSpec(path), detect(DEMO.path), "cpu")


def test_a_variant_in_half_precision_is_found(tmp_path: Path) -> None:
    model = copy_demo(tmp_path)
    for part in PARTS[:3]:
        file = weights_of(model, part)
        file.rename(file.with_name(f"{file.stem}.fp16.safetensors"))

    worker = load(model)

    assert worker._parts.unet.dtype == torch.float32
    worker.close()
