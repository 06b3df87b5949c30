import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import pytest
import torch  # noqa: TID253 - the subject is made of it
from diffusers import (  # noqa: TID253 - what is compared with
    StableDiffusionPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLPipeline,
)
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import RequestError
from engine.jobs import Family, GenerationRequest, ModelSpec
from engine.worker_factory import WorkerFactory
from engine.workers.base import Drawing
from engine.workers.latent import LatentWorker
from engine.workers.prompts import MAX_CHUNKS, MAX_WEIGHT, PromptEncoder, PromptReader, parse
from engine.workers.sd import StableDiffusionWorker
from engine.workers.sdxl import StableDiffusionXLWorker
from tests.single_file_kit import save_tiny
from tests.stock_kit import aligned
from tests.worker_kit import DEMO, ask

XL = (Family.SDXL, Family.SDXL_REFINER)
STOCK_PIPELINES = {
    Family.SDXL: StableDiffusionXLPipeline,
    Family.SDXL_REFINER: StableDiffusionXLImg2ImgPipeline,
}
LAYERS = 3

# The tiny tokenizers spell: a letter is a token, and fourteen of them a chunk.
LONG = "a red house by the sea at night"
CHUNKS = ("a red house by the", "sea at night")


# --- the notation


@pytest.mark.parametrize(
    ("prompt", "pieces"),
    [
        ("", []),
        ("a red house", [("a red house", 1)]),
        ("a (red) house", [("a ", 1), ("red", 1.1), (" house", 1)]),
        ("((red))", [("red", 1.1 * 1.1)]),
        ("[red]", [("red", 1 / 1.1)]),
        ("(red:1.3)", [("red", 1.3)]),
        ("(red: +.5 )", [("red", 0.5)]),
        ("(red:2.) (sea:-1)", [("red", 2), (" ", 1), ("sea", -1)]),
        ("(a (red:1.5) house:2)", [("a ", 2), ("red", 3), (" house", 2)]),
        ("([red])", [("red", 1)]),
        ("(red [sea) sky]", [("red ", 1.1), ("sea", 1.1 / 1.1), (" sky", 1 / 1.1)]),
        # As in the web UI: what nothing closes reaches to the end, what closes nothing is text.
        ("a (red house", [("a ", 1), ("red house", 1.1)]),
        ("((red) house", [("red", 1.1 * 1.1), (" house", 1.1)]),
        ("a red) house]", [("a red) house]", 1)]),
        ("red:1.3) house", [("red:1.3) house", 1)]),
        ("[red:1.3]", [("red:1.3", 1 / 1.1)]),
        ("()", []),
        (r"a \(red\) house", [("a (red) house", 1)]),
        (r"\[red\] \\(sea\\)", [("[red] \\", 1), ("sea\\", 1.1)]),
        (r"a\b :\ ", [(r"a\b :\ ", 1)]),
        ("12:30, 16:9", [("12:30, 16:9", 1)]),
        # Weights that are none, and weights that are too much.
        ("(x:nan)", [("x:nan", 1.1)]),
        ("(x:1e999)", [("x:1e999", 1.1)]),
        ("(x:1.2.3)", [("x:1.2.3", 1.1)]),
        ("(x:.)", [("x:.", 1.1)]),
        ("(x:٣)", [("x:٣", 1.1)]),
        ("(x:99)", [("x", MAX_WEIGHT)]),
        ("(x:-99)", [("x", -MAX_WEIGHT)]),
        ("((x:" + "9" * 400 + "):0)", [("x", 0)]),
    ],
)
def test_weights_are_written_as_in_the_web_ui(prompt: str, pieces: list[tuple[str, float]]) -> None:
    parsed = parse(prompt)

    assert [text for text, _ in parsed] == [text for text, _ in pieces]
    assert [weight for _, weight in parsed] == pytest.approx([weight for _, weight in pieces])


@given(st.text())
def test_text_with_its_brackets_escaped_is_plain(text: str) -> None:
    escaped = re.sub(r"([\\()\[\]])", r"\\\1", text)

    assert parse(escaped) == ([(text, 1.0)] if text else [])


@given(st.text(alphabet="ab ,()[]:\\.+-0129eE", max_size=60))
def test_whatever_is_written_gives_bounded_weights_and_no_new_letters(prompt: str) -> None:
    parsed = parse(prompt)

    assert all(-MAX_WEIGHT <= weight <= MAX_WEIGHT for _, weight in parsed)
    assert all(one[1] != other[1] for one, other in pairwise(parsed))
    left = iter(prompt)
    assert all(letter in left for text, _ in parsed for letter in text)


def hostile(length: int) -> list[str]:
    return [
        "(" * length,
        ")" * length,
        "[(" * (length // 2) + "a" + ")]" * (length // 2),
        "(a" * (length // 4) + "b)" * (length // 4),
        "(" * (length // 4) + "a" + ":9)" * (length // 4),
        "((a:" + "9" * length + "):0)",
        ":" + " " * length + "1" * length,
        "\\" * (length + 1),
        "(x:1e999) (y:nan) (z:inf) (a:-3) [b:0] (c:0)",
    ]


@pytest.mark.parametrize("prompt", hostile(20_000))
def test_hostile_brackets_are_read_at_once(prompt: str) -> None:
    assert all(abs(weight) <= MAX_WEIGHT for _, weight in parse(prompt))


# --- chunks and readings


@dataclass(frozen=True)
class Tiny:
    """A family's pipeline with tiny layers: as ours, and as the stock one."""

    family: Family
    worker: LatentWorker

    @cached_property
    def pipeline(self) -> Any:
        kind = STOCK_PIPELINES.get(self.family, StableDiffusionPipeline)
        more = {"add_watermarker": False} if self.family in XL else {}
        pipeline = kind.from_pretrained(
            self.worker.model.path, dtype=torch.float32, local_files_only=True, **more
        )
        pipeline.set_progress_bar_config(disable=True)
        return aligned(pipeline)

    @property
    def encoder(self) -> PromptEncoder:
        assert isinstance(self.worker, StableDiffusionWorker | StableDiffusionXLWorker)
        return self.worker._prompts

    def ask(self, **changes: Any) -> GenerationRequest:
        small = {"model": self.worker.model, "width": 64, "height": 64, "steps": 2}
        return ask(**{**small, **changes})

    def rows(self, **changes: Any) -> torch.Tensor:
        """What our worker reads: ``[rows, tokens, width]``."""
        return self.worker.begin(self.ask(**changes))[0].embeddings

    def stock_rows(self, prompt: str, **changes: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
        """What the stock pipeline makes of a prompt and nothing else, and its summary."""
        if self.family in XL:
            rows, _, summary, _ = self.pipeline.encode_prompt(
                prompt, do_classifier_free_guidance=False, **changes
            )
            return rows, summary
        rows, _ = self.pipeline.encode_prompt(prompt, torch.device("cpu"), 1, False, **changes)
        return rows, None


@pytest.fixture(scope="module", params=Family)
def tiny(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Tiny]:
    folder = tmp_path_factory.mktemp(request.param) / "tiny"
    save_tiny(request.param, folder, LAYERS, shallow=True)
    worker = WorkerFactory("cpu").create(ModelSpec(folder))
    assert isinstance(worker, LatentWorker)
    yield Tiny(request.param, worker)
    worker.close()


def run(worker: LatentWorker, drawing: Drawing) -> Drawing:
    while not drawing.done:
        worker.step([drawing])
    return drawing


def words_of(tiny: Tiny, prompt: str) -> list[str]:
    """The chunks of a prompt as text."""
    reader: PromptReader = tiny.worker._parts.readers[-1]
    chunks = reader.chunks(prompt, reader.max_tokens)
    return [reader.tokenizer.decode([token for token, _ in words]).strip() for words in chunks]


@pytest.mark.parametrize(
    ("prompt", "chunks"),
    [
        ("", [""]),
        ("a red house", ["a red house"]),
        (LONG, list(CHUNKS)),
        ("abcdefghijklmn", ["abcdefghijklmn"]),
        ("abcdefghijklmno", ["abcdefghijklmn", "o"]),
        # A phrase that would be cut goes into the next chunk, one that ends just there does not.
        ("a red, green house", ["a red ,", "green house"]),
        ("a blue, red house, sea", ["a blue , red house", ", sea"]),
        ("a BREAK b", ["a", "b"]),
        ("(a BREAK b:1.2) breaks", ["a", "b breaks"]),
        ("BREAK a BREAK", ["", "a"]),
    ],
)
def test_a_prompt_is_read_in_chunks(tiny: Tiny, prompt: str, chunks: list[str]) -> None:
    assert words_of(tiny, prompt) == chunks


def test_an_encoder_without_room_ends_the_reading_too(tiny: Tiny) -> None:
    assert len(tiny.worker._parts.readers[0].chunks("abc", 2)) == 3


def test_a_long_prompt_is_what_the_stock_pipeline_makes_of_its_chunks_side_by_side(
    tiny: Tiny,
) -> None:
    first, second = (tiny.stock_rows(chunk)[0] for chunk in CHUNKS)
    night, empty = tiny.stock_rows("night")[0], tiny.stock_rows("")[0]

    rows = tiny.rows(prompt=LONG, negative_prompt="night")
    swapped = tiny.rows(prompt="night", negative_prompt=LONG)

    assert torch.equal(rows[1:], torch.cat([first, second], dim=1))
    assert torch.equal(rows[:1], torch.cat([night, empty], dim=1))
    assert torch.equal(swapped, rows.flip(0))


def test_a_long_prompt_draws_what_the_stock_pipeline_draws_with_its_chunks(tiny: Tiny) -> None:
    request = tiny.ask(prompt=LONG, negative_prompt="night")
    chunks = [tiny.stock_rows(chunk) for chunk in CHUNKS]
    away, empty = tiny.stock_rows("night"), tiny.stock_rows("")
    words = {
        "prompt_embeds": torch.cat([rows for rows, _ in chunks], dim=1),
        "negative_prompt_embeds": torch.cat([away[0], empty[0]], dim=1),
    }
    if tiny.family in XL:
        words |= {"pooled_prompt_embeds": chunks[0][1], "negative_pooled_prompt_embeds": away[1]}
    [drawing] = tiny.worker.begin(request)
    generator = torch.Generator().manual_seed(request.seed)
    start = torch.randn(drawing.latents.shape, generator=generator)
    pipeline = tiny.pipeline
    pipeline.scheduler = type(drawing.scheduler).from_config(drawing.scheduler.config)
    common = {
        "num_inference_steps": request.steps,
        "guidance_scale": request.guidance_scale,
        "output_type": "latent",
    }
    if tiny.family is Family.SDXL_REFINER:
        pipeline.scheduler.set_timesteps(request.steps)
        begun = start * pipeline.scheduler.init_noise_sigma
        stock = pipeline(image=begun, strength=1.0, denoising_start=0.0, **words, **common)
    else:
        stock = pipeline(latents=start, width=64, height=64, **words, **common)

    assert torch.equal(run(tiny.worker, drawing).latents, stock.images)


@pytest.mark.parametrize("prompts", [(LONG, "night"), ("night", LONG)])
def test_a_word_of_the_second_chunk_changes_the_picture(
    tiny: Tiny, prompts: tuple[str, str]
) -> None:
    def latents(prompt: str, negative: str) -> torch.Tensor:
        [drawing] = tiny.worker.begin(tiny.ask(prompt=prompt, negative_prompt=negative))
        return run(tiny.worker, drawing).latents

    other = [prompt.replace("at night", "at noon") for prompt in prompts]

    assert not torch.equal(latents(*prompts), latents(*other))


def test_both_rows_are_as_long_as_the_longer_prompt_and_zeros_stay_zeros(tiny: Tiny) -> None:
    one = tiny.worker._parts.readers[0].max_tokens

    assert tiny.rows(prompt="a", negative_prompt=LONG).shape[:2] == (2, 2 * one)
    assert tiny.rows(prompt="a", negative_prompt=LONG, guidance_scale=1.0).shape[:2] == (1, one)
    rows = tiny.rows(prompt=LONG, negative_prompt="")
    assert rows.shape[:2] == (2, 2 * one)
    assert bool((rows[0] == 0).all()) is (tiny.family is Family.SDXL)


def test_a_long_prompt_keeps_to_its_own_batch(tiny: Tiny) -> None:
    short, other, long = (
        tiny.worker.batch_key(tiny.worker.begin(tiny.ask(prompt=prompt))[0])
        for prompt in ("a", "b", LONG)
    )

    assert short == other != long


def test_a_chunk_is_read_once(tiny: Tiny) -> None:
    calls = []
    encoder = tiny.worker._parts.readers[-1].encoder
    handle = encoder.register_forward_hook(lambda *_: calls.append(1))
    try:
        first = tiny.rows(prompt="kept once, kept twice", negative_prompt="")
        read = len(calls)
        again = tiny.rows(prompt="kept once, kept twice", negative_prompt="")
        assert (len(calls), torch.equal(first, again)) == (read, True)
        tiny.rows(prompt="kept once, (kept:1.1) twice", clip_skip=1)
        assert len(calls) > read
        read = len(calls)
        tiny.encoder.read(tiny.ask(prompt="a"), guided=False, loras="one set")
        tiny.encoder.read(tiny.ask(prompt="a"), guided=False, loras="another")
        tiny.encoder.read(tiny.ask(prompt="a"), guided=False, loras="one set")
        assert len(calls) == read + 2
    finally:
        handle.remove()


# --- weights


def test_a_weight_of_one_changes_nothing(tiny: Tiny) -> None:
    plain = tiny.rows(prompt="a red house")

    for prompt in ("a (red:1) house", "a ([red]) house", "(a) red house"):
        same = torch.equal(tiny.rows(prompt=prompt), plain)
        assert same is (prompt != "(a) red house")


def test_the_rows_of_weighted_words_are_multiplied(tiny: Tiny) -> None:
    if tiny.family not in XL:
        return  # behind a norm they are multiplied once more: the next test
    weights = torch.ones(16, 1)
    weights[2:5] = 1.5
    weights[5:10] = -0.5

    rows = tiny.rows(prompt="a (red:1.5)(house:-0.5)", guidance_scale=1.0)

    torch.testing.assert_close(rows, tiny.rows(prompt="a red house", guidance_scale=1.0) * weights)


def test_behind_a_norm_the_mean_stays_what_it_was() -> None:
    worker = WorkerFactory("cpu").create(DEMO)
    assert isinstance(worker, LatentWorker)

    def rows(prompt: str) -> torch.Tensor:
        return worker.begin(ask(prompt=prompt, guidance_scale=1.0))[0].embeddings

    plain, weighted = rows("a red circle"), rows("a (red:1.5) circle")
    worker.close()

    multiplied = plain.clone()
    multiplied[0, 2] *= 1.5
    factor = plain.mean() / multiplied.mean()
    assert abs(factor - 1) > 1e-3
    torch.testing.assert_close(weighted, multiplied * factor)


# --- layers


@pytest.mark.parametrize("skip", range(1, LAYERS + 1))
def test_clip_skip_reads_the_layer_that_the_stock_pipelines_read(tiny: Tiny, skip: int) -> None:
    if tiny.family in XL:
        stock = skip - 2  # counted from the layer that the family was trained with
    else:
        stock = skip - 1
        # Where transformers 4 had the norm, and diffusers 0.42 still looks for it.
        object.__setattr__(tiny.pipeline.text_encoder, "text_model", tiny.pipeline.text_encoder)
    expected = [tiny.stock_rows(prompt, clip_skip=stock)[0] for prompt in ("night", "a red house")]

    rows = tiny.rows(prompt="a red house", negative_prompt="night", clip_skip=skip)

    assert torch.equal(rows, torch.cat(expected))


def test_without_a_clip_skip_it_is_the_familys_own(tiny: Tiny) -> None:
    own = 2 if tiny.family in XL else 1
    words = {"prompt": "a red house", "negative_prompt": "night"}

    rows = tiny.rows(**words)

    assert torch.equal(rows, tiny.rows(**words, clip_skip=own))
    assert not torch.equal(rows, tiny.rows(**words, clip_skip=own + 1))


@pytest.mark.parametrize("skip", [0, -1, LAYERS + 1, 10**30, True, 1.0])
def test_a_layer_that_the_encoder_does_not_have_is_refused(tiny: Tiny, skip: Any) -> None:
    with pytest.raises(RequestError, match=r"clip_skip: .* Allowed: 1 to 3 for this model\."):
        tiny.worker.begin(tiny.ask(clip_skip=skip))


# --- hostile prompts


@pytest.mark.parametrize("prompt", hostile(2_000))
def test_a_hostile_prompt_draws_numbers_or_is_refused(tiny: Tiny, prompt: str) -> None:
    with suppress(RequestError):
        [drawing] = tiny.worker.begin(tiny.ask(prompt=prompt, negative_prompt=prompt[::-1]))
        assert run(tiny.worker, drawing).latents.isfinite().all()


@pytest.mark.parametrize("weight", [-99, -1, 0, 99])
def test_no_weight_draws_anything_but_numbers(tiny: Tiny, weight: float) -> None:
    [drawing] = tiny.worker.begin(tiny.ask(prompt=f"(a red house:{weight})"))

    assert run(tiny.worker, drawing).latents.isfinite().all()


def test_a_prompt_of_too_many_chunks_is_refused(tiny: Tiny) -> None:
    most = "a" * 14 * MAX_CHUNKS
    assert tiny.rows(prompt=most).shape[1] == 16 * MAX_CHUNKS

    with pytest.raises(RequestError, match=r"^prompt: 'a prompt of 462 tokens' .* about 448 "):
        tiny.worker.begin(tiny.ask(prompt=most + "a"))
    with pytest.raises(RequestError, match=r"^negative: ") as caught:
        tiny.worker.begin(tiny.ask(negative_prompt="house BREAK " * 99))
    assert "house" not in str(caught.value)
