"""The demo model as it ships: stock in form, and it draws what is asked."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# ruff: noqa: TID253 - what is tested here is the model itself
import numpy as np
import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionPipeline
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from safetensors import safe_open

from training.demo import exam
from training.demo.adherence import Sight, judge_sight, look
from training.demo.scenes import HELD_OUT, PALETTE, Scene

MODEL = Path(__file__).resolve().parent.parent / "models" / "diffusers" / "dream-demo"
STEPS, GUIDANCE = 4, 3.0  # fewer steps than people take: it is asked for no less
SEED = 7
BATCH = 16

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Sitting:
    """An exam taken: the questions, what is seen for them, and the marks by shift."""

    questions: list[exam.Question]
    sights: list[Sight]
    marks: dict[int, list[dict[str, bool]]] = field(default_factory=dict)

    def share_right(self, mark: str, *, shift: int = 0, held_out: bool = False) -> float:
        """The share of pictures that have that right, of those that were asked for it."""
        scenes = [question.scene for question in self.questions]
        scenes = scenes[shift:] + scenes[:shift]
        if shift not in self.marks:
            self.marks[shift] = list(map(judge_sight, scenes, self.sights))
        rights = [
            marks[mark]
            for scene, marks in zip(scenes, self.marks[shift], strict=True)
            if mark in marks and (not held_out or _pair(scene) in HELD_OUT)
        ]
        return sum(rights) / len(rights)


def _pair(scene: Scene) -> tuple[str, str] | None:
    return (scene.subject.colour, scene.subject.kind) if scene.subject else None


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionPipeline:
    loaded = StableDiffusionPipeline.from_pretrained(MODEL, dtype=torch.float32)
    loaded.set_progress_bar_config(disable=True)
    loaded.vae.to(memory_format=torch.channels_last)  # it decodes in half the time
    return loaded


@pytest.fixture(scope="module")
def sitting(pipeline: StableDiffusionPipeline) -> Sitting:
    questions = exam.single_shapes(64, SEED) + exam.single_shapes(48, SEED, held_out=True)
    pictures: list[Picture] = []
    for start in range(0, len(questions), BATCH):
        prompts = [question.prompt for question in questions[start : start + BATCH]]
        pictures += list(paint(pipeline, prompts, range(start, start + len(prompts))))
    return Sitting(questions, list(map(look, pictures)))


def paint(
    pipeline: Any, prompts: list[str], seeds: range | list[int], **options: Any
) -> NDArray[np.uint8]:
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    settings = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE} | options
    drawn = pipeline(prompts, generator=generators, output_type="np", **settings).images
    assert np.isfinite(drawn).all()
    return (drawn * 255).round().astype(np.uint8)


def test_colours_and_backgrounds_are_as_asked(sitting: Sitting) -> None:
    assert len(sitting.questions) >= 100
    assert sitting.share_right("colour") >= 0.95
    assert sitting.share_right("background") >= 0.95


def test_shapes_are_as_asked(sitting: Sitting) -> None:
    assert sitting.share_right("shape") >= 0.90


def test_places_and_sizes_are_as_asked(sitting: Sitting) -> None:
    assert sitting.share_right("place") >= 0.90
    assert sitting.share_right("size") >= 0.85


def test_pairs_never_trained_on_are_drawn_too(sitting: Sitting) -> None:
    assert sitting.share_right("colour", held_out=True) >= 0.95
    assert sitting.share_right("shape", held_out=True) >= 0.90


def test_pictures_do_not_fit_other_prompts(sitting: Sitting) -> None:
    assert sitting.share_right("colour", shift=59) <= 0.40
    assert sitting.share_right("shape", shift=59) <= 0.40
    assert sitting.share_right("all", shift=59) <= 0.10


def test_seeds_move_turn_and_scale_what_is_drawn(pipeline: StableDiffusionPipeline) -> None:
    prompt = "a red square on a white background"
    blobs = [look(p).blobs[0] for p in paint(pipeline, [prompt] * 8, range(8))]
    assert np.std([blob.x for blob in blobs]) > 0.01
    assert np.std([blob.y for blob in blobs]) > 0.01
    assert np.std([blob.radius for blob in blobs]) > 0.003


def test_the_same_seed_draws_the_same_picture(pipeline: StableDiffusionPipeline) -> None:
    first, again = (paint(pipeline, ["a blue star"], [3]) for _ in range(2))
    assert (first == again).all()


def test_guidance_and_negative_prompt_change_the_picture(
    pipeline: StableDiffusionPipeline,
) -> None:
    prompt = ["a green ring on a white background"]
    plain = paint(pipeline, prompt, [5]).astype(int)
    stronger = paint(pipeline, prompt, [5], guidance_scale=7.0)
    averse = paint(pipeline, prompt, [5], negative_prompt=["a white background"])
    assert np.abs(plain - stronger).mean() > 0.5
    assert np.abs(plain - averse).mean() > 0.5


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "a unicorn plays chess in the rain",
        "ein roter Kreis, 一只猫 🙂🎨 \u200b\x07",
        "red circle " * 400,
    ],
    ids=["empty", "unknown words", "other scripts", "over-long"],
)
def test_any_prompt_draws_a_picture(pipeline: StableDiffusionPipeline, prompt: str) -> None:
    (picture,) = paint(pipeline, [prompt], [1])
    assert picture.shape == (128, 128, 3)


def test_a_picture_survives_encoder_and_decoder(pipeline: StableDiffusionPipeline) -> None:
    picture = blue_square()
    pixels = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        latents = pipeline.vae.encode(pixels).latent_dist.sample(torch.Generator().manual_seed(0))
        back = pipeline.vae.decode(latents).sample.clamp(-1, 1)
    error = float(((back - pixels) ** 2).mean()) / 4
    assert -10 * np.log10(error) > 26  # decibels


def test_img2img_starts_from_the_given_picture(pipeline: StableDiffusionPipeline) -> None:
    picture = blue_square()
    again = StableDiffusionImg2ImgPipeline(**pipeline.components, requires_safety_checker=False)
    again.set_progress_bar_config(disable=True)
    given = {"image": Image.fromarray(picture), "strength": 0.4, "num_inference_steps": 8}
    drawn = paint(again, ["a blue square"], [1], **given)
    blob, truth = look(drawn[0]).blobs[0], look(picture).blobs[0]
    assert (blob.colour, blob.shape) == ("blue", "square")
    assert abs(blob.x - truth.x) + abs(blob.y - truth.y) < 0.08


def blue_square() -> Picture:
    large = Image.new("RGB", (512, 512), PALETTE["white"])
    ImageDraw.Draw(large).rectangle((120, 180, 300, 360), fill=PALETTE["blue"])
    return np.array(large.resize((128, 128), Image.Resampling.BOX))


def test_every_part_is_a_stock_class() -> None:
    parts = json.loads((MODEL / "model_index.json").read_text("utf-8"))
    libraries = {part[0] for part in parts.values() if isinstance(part, list)}
    assert parts["_class_name"] == "StableDiffusionPipeline"
    assert libraries <= {"diffusers", "transformers", None}


def test_words_and_widths_fit_together(pipeline: StableDiffusionPipeline) -> None:
    text, tokenizer = pipeline.text_encoder.config, pipeline.tokenizer
    assert text.vocab_size == len(tokenizer)
    assert text.max_position_embeddings == tokenizer.model_max_length
    assert text.hidden_size == pipeline.unet.config.cross_attention_dim == 768


def test_weights_are_half_precision_and_small() -> None:
    files = [path for path in MODEL.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 25_000_000
    assert not [p for p in files if p.suffix in (".bin", ".pt", ".ckpt", ".pkl")]
    for path in files:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="np") as weights:
                kinds = {weights.get_slice(name).get_dtype() for name in weights.keys()}  # noqa: SIM118 - no dict
            assert kinds == {"F16"}, path
