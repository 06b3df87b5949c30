"""What Discord shows, as text."""

import re
import unicodedata
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot import replies
from bot.records import JobRecord, JobView
from engine.jobs import JobStatus, ModelSpec, Progress, Sampler, Stage
from modes.mode_config import ModeConfig, OfferedLora
from tests.discord_kit import unescaped
from tests.records_kit import a_job, a_request, an_image, done

# What Discord's markdown gives a meaning, unless a backslash stands before it.
MEANING = re.compile(r"(?<!\\)(?:\\\\)*([*_~`|<>\[\]/])")
ASKER = "discord:123"


def a_discord_job(**request: Any) -> JobRecord:
    return a_job("discord", ASKER, request=a_request(**request))


def a_result(**request: Any) -> JobRecord:
    job = done(a_discord_job(**request))
    return replace(job, images=(an_image(job),))


def progress(job: JobRecord, stage: Stage, step: int = 0, steps: int = 20) -> JobView:
    running = replace(job, status=JobStatus.RUNNING)
    return JobView(running, progress=Progress(job.id, stage, step, steps))


@given(st.text())
def test_no_text_has_a_meaning_to_discord(text: str) -> None:
    assert not MEANING.search(replies.plain(text, 10_000))


@given(st.text())
def test_text_is_one_line_and_begins_nothing(text: str) -> None:
    shown = replies.plain(text, 10_000)

    assert len(shown.splitlines()) <= 1
    assert not re.match(r"[#>+-]|\d+\.", shown)


@given(st.text())
def test_text_is_shown_as_it_was_typed_but_for_blanks(text: str) -> None:
    shown = unescaped(replies.plain(text, 10_000))

    assert shown.split() == [
        word for word in re.sub(r"[\u202a-\u202e\u2066-\u2069]", "", _printed(text)).split() if word
    ]


@given(st.text(), st.integers(1, 50))
def test_text_is_cut_between_characters_never_within_an_escape(text: str, limit: int) -> None:
    shown = replies.plain(text, limit)

    assert len(shown) <= limit
    assert not MEANING.search(shown)
    if len(shown) < len(replies.plain(text, 10_000)):
        assert shown.endswith("…")
        backslashes = re.search(r"\\*(?=…$)", shown)
        assert backslashes is not None
        assert len(backslashes[0]) % 2 == 0


@given(st.text(min_size=1, max_size=9), st.text(max_size=9))
def test_every_message_fits(prompt: str, negative: str) -> None:
    job = a_result(prompt=prompt * 300, negative_prompt=negative * 300)

    assert len(replies.outcome(job, ["a note"])) <= replies.CONTENT_LIMIT
    assert len(replies.status(JobView(job))) <= replies.CONTENT_LIMIT
    assert len(replies.farewell(JobView(job))) <= replies.CONTENT_LIMIT
    assert len(replies.alt_text(job.request)) <= replies.ALT_TEXT_LIMIT
    failed = replace(job, status=JobStatus.FAILED, error=negative * 3000)
    assert len(replies.outcome(failed)) <= replies.CONTENT_LIMIT


@pytest.mark.parametrize(
    ("position", "words"),
    [(None, "In the queue"), (1, "Next in the queue"), (7, "In the queue: number 7")],
)
def test_a_waiting_job_says_where_it_stands(position: int | None, words: str) -> None:
    text = replies.status(JobView(a_discord_job(), position=position))

    assert text.splitlines()[1] == words


def test_a_waiting_job_says_who_is_before_it_and_when_it_will_be_done() -> None:
    end = datetime(2026, 5, 4, 12, tzinfo=UTC) + timedelta(seconds=0.4)
    view = JobView(a_discord_job(), position=4, before="1 of your own and 2 members")

    words = "In the queue: number 4, 1 of your own and 2 members before you"
    moment = f"<t:{int(end.timestamp()) + 1}:R>"
    assert replies.status(view).splitlines()[1] == words
    told = replies.status(replace(view, expected_at=end))
    assert told.splitlines()[1] == f"{words} · done {moment}"
    running = replace(progress(a_discord_job(), Stage.DECODING, 20), expected_at=end)
    assert replies.status(running).splitlines()[1] == f"Finishing · done {moment}"


@pytest.mark.parametrize(
    ("stage", "step", "words"),
    [
        (Stage.LOADING, 0, "Loading x"),
        (Stage.ENCODING, 0, "Reading the prompt"),
        (Stage.DENOISING, 0, "▱▱▱▱▱▱▱▱▱▱ Drawing, step 0 of 20"),
        (Stage.DENOISING, 12, "▰▰▰▰▰▰▱▱▱▱ Drawing, step 12 of 20"),
        (Stage.DENOISING, 20, "▰▰▰▰▰▰▰▰▰▰ Drawing, step 20 of 20"),
        (Stage.DECODING, 20, "Finishing"),
    ],
)
def test_a_running_job_says_what_is_being_done(stage: Stage, step: int, words: str) -> None:
    text = replies.status(progress(a_discord_job(), stage, step))

    assert text.splitlines()[1] == words


def test_a_job_that_has_reported_nothing_is_starting() -> None:
    running = replace(a_discord_job(), status=JobStatus.RUNNING)

    assert replies.status(JobView(running)).endswith("\nStarting")


def test_a_result_names_all_that_is_needed_to_draw_it_again() -> None:
    job = a_result(prompt="a *red* circle", negative_prompt="blue", count=3, seed=2**32 - 2)

    assert replies.outcome(job, ["a note"]).splitlines() == [
        r"**a \*red\* circle** for <@123>",
        "-# demo · 128x64 · 20 steps · guidance 3 · DPM++ 2M Karras · "
        "seeds 4294967294 to 0 · 1.5 s",
        "-# without blue",
        "-# a note",
    ]


def test_people_see_what_was_typed_and_not_what_the_mode_adds() -> None:
    job = a_result(
        prompt="pixel art of a fox",
        typed_prompt="a fox",
        negative_prompt="blue, text",
        typed_negative="blue",
    )

    headline, _, without = replies.outcome(job).splitlines()
    assert (headline, without) == ("**a fox** for <@123>", "-# without blue")
    assert replies.alt_text(job.request).endswith("words: a fox")


def test_a_modes_own_rules_are_told() -> None:
    mode = ModeConfig(
        "pixels",
        a_request().model,
        default_negative="fog",
        prompt_prefix="pixel_art of",
        prompt_suffix="warm",
        negative_always="text",
        negative_allowed=False,
        sizes=((512, 768), (640, 640)),
        samplers=(Sampler.DDIM, Sampler.LCM),
        nsfw=True,
    )

    assert unescaped(replies.mode_info(mode, mode)).splitlines() == [
        "**pixels** (in use here) · 512x512, 25 steps, NSFW",
        "512x512, 25 steps, guidance 7, Euler a",
        "-# Sizes 512x768, 640x640, up to 100 steps, guidance 1 to 30, up to 4 pictures at once",
        "-# samplers DDIM, LCM",
        "-# puts your words into: pixel_art of … warm",
        "-# without fog",
        "-# always without text",
        "-# takes no negative prompt of yours",
        "-# with y at 0.5",
    ]


def test_what_belongs_to_a_modes_model_and_for_whom_it_is_is_told() -> None:
    mode = ModeConfig(
        "art",
        ModelSpec(Path("/secret/a.safetensors"), vae=Path("/secret/soft_vae.safetensors")),
        refiner=ModelSpec(Path("/secret/refiner")),
        refiner_from=0.8,
        clip_skip=2,
        loras_allowed=(OfferedLora("ink_wash", Path("/secret/i")),),
        max_loras=2,
        max_lora_strength=1.5,
        allowed_roles=("Artists*", "123"),
    )

    told = unescaped(replies.mode_info(mode, mode))

    assert told.splitlines()[0].endswith("25 steps, for Artists* or <@&123>")
    assert told.splitlines()[-4:] == [
        "-# the last 20% of the steps by refiner",
        "-# decoded by soft_vae.safetensors",
        "-# clip skip 2",
        "-# LoRAs that you may add, 2 at most, to strength 1.5: `ink_wash`",
    ]
    assert "secret" not in told


def test_a_mode_with_everything_fits_into_a_message() -> None:
    mode = ModeConfig(
        "m" * 40,
        a_request().model,
        default_negative="*" * 2000,
        prompt_prefix="*" * 500,
        negative_always="*" * 500,
        sizes=tuple((512, side) for side in range(64, 64 + 20 * 8, 8)),
        loras_allowed=tuple(OfferedLora(f"{n:_^100}", Path("x")) for n in range(500)),
        allowed_roles=tuple("*" * 100 for _ in range(50)),
    )

    assert 0 < len(replies.mode_info(mode, mode)) <= replies.CONTENT_LIMIT
    assert 0 < len(replies.mode_list([mode] * 5, mode)) <= replies.CONTENT_LIMIT


def test_a_picture_that_was_started_from_is_told() -> None:
    job = a_result(source=Path("sources/x.png"), strength=0.6)

    assert "from a picture, strength 0.6" in replies.outcome(job)


def test_a_variation_names_its_second_seed() -> None:
    job = a_result(variation_seed=99, variation_strength=0.35)

    assert "seed 7 · variation 99" in replies.outcome(job)


def test_other_ends_say_what_they_are() -> None:
    job = done(a_discord_job())

    failed = replace(job, status=JobStatus.FAILED, error="It came out <@1>.")
    cancelled = replace(job, status=JobStatus.CANCELLED)

    assert replies.outcome(failed).splitlines()[1] == r"It came out \<@1\>."
    assert replies.outcome(cancelled).splitlines()[1] == "-# Cancelled."
    assert replies.outcome(job).splitlines()[1] == "-# The pictures were deleted."


def test_an_asker_from_elsewhere_is_named() -> None:
    assert replies.mention(a_job(owner="web:local")) == "Ada"


def test_a_long_list_of_modes_is_cut_and_counted() -> None:
    request = a_request()
    modes = [
        ModeConfig(f"mode-{number}", request.model, description="words " * 30)
        for number in range(200)
    ]

    text = replies.mode_list(modes, modes[1])

    assert len(text) <= replies.CONTENT_LIMIT
    shown = text.count("**") // 2
    assert text.endswith(f"and {200 - shown} more: type /modes to find them")
    assert text.splitlines()[1].startswith("**mode-1** (in use here): words")


def test_a_refused_edit_stands_above_the_modes() -> None:
    mode = ModeConfig("small", a_request().model)
    problems = ["modes.yaml, line 3: modes.a.stepz: unknown key", *["*" * 400] * 9]

    text = replies.mode_list([mode] * 200, mode, loaded={mode.model.key}, problems=problems)

    lines = unescaped(text).splitlines()
    assert lines[:2] == [
        "**The last edit of the modes was refused; what was before stays:**",
        "- modes.yaml, line 3: modes.a.stepz: unknown key",
    ]
    assert lines[4] == "-# and 7 more in the log"
    assert lines[5] == "**small** (in use here) · 512x512, 25 steps, loaded"
    assert lines[-1] == f"-# and {200 - (len(lines) - 6)} more: type /modes to find them"
    assert len(text) <= replies.CONTENT_LIMIT


def _printed(text: str) -> str:
    """Returns text with a blank for every character that no line can hold."""
    return "".join(
        " " if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") else character
        for character in text
    )


def test_a_models_name_may_have_dots() -> None:
    assert replies.file_name(Path("checkpoints/sd_xl_base_1.0.safetensors")) == r"sd\_xl\_base\_1.0"
    assert replies.file_name(Path("diffusers/dreamshaper-8.1")) == "dreamshaper-8.1"
