import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from engine.errors import DrawingError
from engine.images import (
    Parameters,
    encode_png,
    format_parameters,
    parse_parameters,
    read_png,
    read_source,
    request_parameters,
)
from engine.jobs import MAX_SEED, GenerationRequest, LoraSpec, ModelSpec, Sampler

REQUEST = GenerationRequest(
    mode="dream",
    model=ModelSpec(Path("models/checkpoints/starry.v2.safetensors")),
    prompt="a red house",
    negative_prompt="fog",
    width=512,
    height=768,
    steps=20,
    guidance_scale=7.0,
    sampler=Sampler.EULER_A,
    seed=1,
)
PIXELS = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)

LINES = st.sampled_from(
    ["\n", "\r\n", "Negative prompt:", "\nNegative prompt: ", "\nSteps: 2, Seed: 3"]
)
SIGNS = st.sampled_from(["Prompt lines: 1", '"', "\\", ", ", ": ", " ", "\u2028", "家", "\0"])
# What readers stumble over, mixed with everything else that can be written in UTF-8.
HOSTILE = st.lists(
    st.one_of(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
        st.sampled_from(
            [
                "\n",
                "\n\n",
                "\r\n",
                "Negative prompt:",
                "\nNegative prompt: ",
                "\nSteps: 20, Seed: 3",
                "Prompt lines: 1",
                '"',
                "\\",
                ", ",
                ": ",
                " ",
                "\u2028",
                "家",
                "\N{PILE OF POO}",
                "\0",
            ]
        ),
    ),
    max_size=8,
).map("".join)
SETTINGS = st.dictionaries(
    st.from_regex(r"[A-Z][a-z]{1,8}( [a-z]{1,8})?", fullmatch=True), HOSTILE, max_size=4
).map(lambda pairs: {"Steps": "20"} | pairs)


def test_the_text_is_what_the_web_ui_writes() -> None:
    assert request_parameters(REQUEST, 1) == (
        "a red house\n"
        "Negative prompt: fog\n"
        "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x768, "
        "Model: starry.v2, Mode: dream"
    )


def test_without_a_negative_prompt_there_is_no_such_line() -> None:
    text = request_parameters(replace(REQUEST, negative_prompt="", guidance_scale=7.25), 9)

    assert text.startswith("a red house\nSteps: 20, Sampler: Euler a, CFG scale: 7.25, Seed: 9,")


def test_a_folder_keeps_its_whole_name() -> None:
    request = replace(REQUEST, model=ModelSpec(Path("models/diffusers/dream-demo")))

    assert parse_parameters(request_parameters(request, 1)).settings["Model"] == "dream-demo"


def test_loras_stand_in_the_prompt_as_the_web_ui_has_them() -> None:
    loras = (LoraSpec(Path("l/snow.v1.safetensors"), 0.8), LoraSpec(Path("n.safetensors"), -1.0))
    request = replace(REQUEST, model=replace(REQUEST.model, loras=loras))

    read = parse_parameters(request_parameters(request, 1))

    assert read.prompt == "a red house <lora:snow.v1:0.8> <lora:n:-1>"


def test_what_a_picture_began_with_and_who_refined_it_is_said_in_the_web_uis_words() -> None:
    request = replace(
        REQUEST,
        model=replace(REQUEST.model, vae=Path("vae/fine-tuned.v3.safetensors")),
        source=Path("sources/7f.png"),
        strength=0.75,
        clip_skip=2,
        refiner=ModelSpec(Path("models/checkpoints/fine_1.0.safetensors")),
        refiner_from=0.8,
    )

    text = request_parameters(request, 1)

    assert text.endswith(
        "Model: starry.v2, Mode: dream, VAE: fine-tuned.v3.safetensors, Denoising strength: 0.75, "
        "Clip skip: 2, Refiner: fine_1.0, Refiner switch at: 0.8"
    )
    assert parse_parameters(text).settings["Refiner switch at"] == "0.8"


def test_a_variation_names_the_second_seed_of_just_that_picture() -> None:
    varied = replace(REQUEST, count=2, variation_seed=MAX_SEED, variation_strength=0.35)

    settings = parse_parameters(request_parameters(varied, 2)).settings

    assert settings["Variation seed"] == "0"
    assert settings["Variation seed strength"] == "0.35"


@given(HOSTILE, HOSTILE, SETTINGS)
@example("a\nNegative prompt: b", "", {"Steps": "1"})
@example("", "\nNegative prompt: b", {"Steps": "1"})
@example("a", "b\nSteps: 2, Seed: 3", {"Steps": "1"})
@example("\n", "\n", {"Steps": "1", "Model": 'a, "b": c\\'})
def test_whatever_is_written_reads_back(
    prompt: str, negative_prompt: str, settings: dict[str, str]
) -> None:
    written = Parameters(prompt, negative_prompt, settings)

    assert parse_parameters(format_parameters(written)) == written


@given(HOSTILE, HOSTILE, st.integers(0, MAX_SEED), st.floats(1, 30), st.sampled_from(Sampler))
def test_a_requests_file_says_how_to_draw_it_again(
    prompt: str, negative_prompt: str, seed: int, guidance: float, sampler: Sampler
) -> None:
    request = replace(
        REQUEST,
        prompt=prompt,
        negative_prompt=negative_prompt,
        guidance_scale=guidance,
        sampler=sampler,
    )

    read = read_png(encode_png(PIXELS, request_parameters(request, seed)))

    assert read is not None
    assert (read.prompt, read.negative_prompt) == (prompt, negative_prompt)
    assert float(read.settings["CFG scale"]) == guidance
    assert Sampler(read.settings["Sampler"]) is sampler
    assert int(read.settings["Seed"]) == seed


@given(st.text())
def test_any_text_at_all_can_be_parsed(text: str) -> None:
    read = parse_parameters(text)

    assert isinstance(read.prompt, str)


def test_a_file_of_the_web_ui_is_understood() -> None:
    text = (
        "masterpiece, (castle:1.2)\nby the sea\n"
        "Negative prompt: lowres, blurry\n"
        "Steps: 28, Sampler: DPM++ 2M Karras, CFG scale: 7.5, Seed: 42, Size: 512x512, "
        'Model hash: 6ce0161689, Model: v1-5, Lora hashes: "a: 1, b: 2", Version: v1.6.0'
    )

    read = parse_parameters(text)

    assert read.prompt == "masterpiece, (castle:1.2)\nby the sea"
    assert read.negative_prompt == "lowres, blurry"
    assert read.settings["Model hash"] == "6ce0161689"
    assert read.settings["Lora hashes"] == "a: 1, b: 2"
    assert list(read.settings)[-1] == "Version"


@pytest.mark.parametrize("text", ["only words", "", "two\nlines", "Negative prompt"])
def test_text_without_settings_is_all_prompt(text: str) -> None:
    assert parse_parameters(text) == Parameters(text)


@pytest.mark.parametrize(
    "written", ["a", " ", "a ", 'a:"\\"', "a:", '"', ", "], ids=lambda text: f"{text!r}"
)
@pytest.mark.timeout(60)  # years, where each character began the search anew
def test_a_megabyte_of_anything_is_read_as_fast_as_it_is_long(written: str) -> None:
    text = "p\nSteps: 1, " + written * (2**20 // len(written))

    assert parse_parameters(text).settings["Steps"] == "1"


def test_what_is_no_pair_hides_none_after_it() -> None:
    settings = parse_parameters("p\nSteps: 1, no pair, ?: 2,, Seed: 3").settings

    assert settings == {"Steps": "1", "Seed": "3"}


def test_a_broken_quotation_is_taken_as_it_is() -> None:
    assert parse_parameters('a\nSteps: 2, Model: "\\x"').settings["Model"] == '"\\x"'


def test_the_same_picture_makes_the_same_bytes() -> None:
    assert encode_png(PIXELS, "a") == encode_png(PIXELS.copy(), "a")
    assert b"tIME" not in encode_png(PIXELS, "a")


def test_the_pixels_come_back_unchanged() -> None:
    with Image.open(io.BytesIO(encode_png(PIXELS, "ü"))) as image:
        assert np.array_equal(np.asarray(image), PIXELS)


def test_an_image_does_as_well_as_an_array() -> None:
    assert encode_png(Image.fromarray(PIXELS), "a") == encode_png(PIXELS, "a")


@pytest.mark.parametrize(("text", "chunk"), [("ü", b"tEXt"), ("家", b"iTXt")])
def test_text_beyond_latin_letters_goes_into_a_unicode_chunk(text: str, chunk: bytes) -> None:
    png = encode_png(PIXELS, text)

    assert chunk in png
    with Image.open(io.BytesIO(png)) as image:
        assert image.info["parameters"] == text


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 90), st.integers(1, 90))
def test_a_source_covers_every_size(
    tmp_path_factory: pytest.TempPathFactory, width: int, height: int, wide: int, high: int
) -> None:
    path = tmp_path_factory.getbasetemp() / f"{width}x{height}.png"
    Image.new("RGB", (width, height), (10, 200, 90)).save(path)

    picture = read_source(path, wide, high)

    # All of it is the source: no border is left empty.
    assert (picture.size, picture.getcolors()) == ((wide, high), [(wide * high, (10, 200, 90))])


def test_of_a_wide_source_the_middle_is_kept(tmp_path: Path) -> None:
    wide = Image.new("RGB", (300, 100), "red")
    wide.paste("blue", (100, 0, 200, 100))
    wide.save(tmp_path / "wide.png")

    assert read_source(tmp_path / "wide.png", 100, 100).getcolors() == [(10_000, (0, 0, 255))]


def test_a_source_of_the_asked_size_stays_as_it_is(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "small.png")

    picture = read_source(tmp_path / "small.png", PIXELS.shape[1], PIXELS.shape[0])

    assert np.array_equal(np.asarray(picture), PIXELS)


def test_a_source_that_is_gone_or_no_picture_is_told_without_its_path(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")

    for name, told in (("broken.png", "its file is damaged"), ("none.png", "is gone")):
        with pytest.raises(DrawingError, match=told) as caught:
            read_source(tmp_path / name, 8, 8)
        assert name not in str(caught.value)


def test_half_a_surrogate_pair_is_replaced() -> None:
    read = read_png(encode_png(PIXELS, json.loads('"a\\ud800b"')))

    assert read == Parameters("a?b")


def test_a_file_that_says_nothing_has_no_parameters() -> None:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "PNG")

    assert read_png(buffer.getvalue()) is None


@pytest.mark.parametrize("file", [b"", b"GIF89a", encode_png(PIXELS, "a")[:60]])
def test_what_is_no_png_file_is_refused(file: bytes) -> None:
    with pytest.raises(ValueError, match="no readable PNG file"):
        read_png(file)
