"""``/imagine`` from what somebody types to the picture, over real sockets."""

import asyncio
import itertools
from pathlib import Path
from typing import Any

import pytest

from engine.errors import DrawingError
from engine.testing import FakeExecutor
from tests.discord_double import DiscordDouble, Interaction
from tests.discord_kit import Bot, locked_database, refuse_jobs, running_bot, unescaped

pytest_plugins = ["tests.discord_kit"]

BROKEN = [
    ({"prompt": " "}, "prompt: nothing is not allowed. Allowed: 1 to 2000 characters of text."),
    (
        {"size": "huge"},
        "size: 'huge' is not allowed. Allowed: square, portrait, landscape, an aspect such as "
        "16:9, or width x height such as 512x768.",
    ),
    ({"steps": 0}, "steps: '0' is not allowed. Allowed: a whole number from 1 to 100."),
    ({"guidance": -0.5}, "guidance: '-0.5' is not allowed. Allowed: a number from 1 to 30."),
    ({"seed": -1}, "seed: '-1' is not allowed. Allowed: a whole number from 0 to 4294967295."),
    ({"count": 0}, "count: '0' is not allowed. Allowed: a whole number from 1 to 4."),
    ({"mode": "@everyone"}, "mode: '@everyone' is not allowed. Allowed: small, other."),
]


async def shows(discord: DiscordDouble, asked: Interaction, words: str) -> None:
    """Waits until the answer shows some words."""
    await discord.until(lambda: asked.original and words in asked.original.content, words)


async def test_the_picture_arrives_in_the_answer_to_the_command(bot: Bot) -> None:
    asked = await bot.imagine("a red circle")

    message = await bot.discord.picture(asked)

    assert message is asked.original
    assert [attachment.filename[-4:] for attachment in message.attachments] == [".png"]
    assert message.attachments[0].description == (
        "A picture, drawn with small from the words: a red circle"
    )
    assert {"Upscale", "Vary", "Again", "Edit", "Delete"} <= set(message.buttons)
    assert not message.pinged


async def test_the_result_says_how_it_was_drawn(bot: Bot) -> None:
    values = {
        "negative": "blue",
        "size": "64 x 96",
        "steps": 7,
        "guidance": 2.5,
        "seed": 42,
        "mode": "other",
    }

    message = await bot.discord.picture(await bot.imagine("a red circle", values=values))

    lines = unescaped(message.content).splitlines()
    assert lines[0] == f"**a red circle** for <@{bot.discord.user.id}>"
    assert lines[1] == "-# other · 64x96 · 7 steps · guidance 2.5 · Euler a · seed 42 · 0.0 s"
    assert lines[2] == "-# without blue"


async def test_every_option_reaches_the_drawing(bot: Bot) -> None:
    values = {
        "negative": "blue",
        "size": "96x64",
        "steps": 7,
        "guidance": 3,
        "seed": 42,
        "count": 2,
        "mode": "other",
    }

    message = await bot.discord.picture(await bot.imagine("a red circle", values=values))

    request = bot.executor.requests[0]
    assert (request.prompt, request.negative_prompt, request.mode) == (
        "a red circle",
        "blue",
        "other",
    )
    assert (request.width, request.height, request.steps) == (96, 64, 7)
    assert (request.guidance_scale, request.seed, request.count) == (3.0, 42, 2)
    assert len(message.attachments) == 2
    assert "seeds 42 to 43" in message.content


async def test_the_first_answer_says_where_the_job_stands(held: Bot) -> None:
    first = await held.imagine("one")
    await held.drawing()

    second = await held.discord.answer(await held.imagine("two"))
    third = await held.discord.answer(await held.imagine("three"))

    await held.discord.answer(first)
    assert first.acknowledged == 4  # a message at once, not "thinking"
    assert "Next in the queue" in second.shown[0]
    assert "In the queue: number 2" in third.shown[0]
    assert list(second.buttons) == ["Cancel"]


async def test_progress_shows_the_step_and_the_preview(held: Bot) -> None:
    asked = await held.imagine()
    job_id = await held.drawing()

    held.executor.report(job_id, step=2, preview=b"\xff\xd8 a small picture")
    message = await held.discord.until(
        lambda: asked.original if asked.original and asked.original.attachments else None
    )

    assert message is not None
    assert "▰▰▰▰▰▱▱▱▱▱ Drawing, step 2 of 4" in message.content
    assert message.attachments[0].content == b"\xff\xd8 a small picture"
    assert list(message.buttons) == ["Cancel"]

    held.executor.finish(job_id)
    message = await held.discord.picture(asked)

    assert [a.filename.startswith("dream-") for a in message.attachments] == [True]
    assert "step" not in message.content.splitlines()[0]


async def test_only_the_newest_progress_is_shown(held: Bot) -> None:
    asked = await held.imagine(values={"steps": 50})
    await held.discord.answer(asked)
    job_id = await held.drawing()
    gate = asyncio.Event()
    fault = held.discord.fail("edit_original", until=gate, times=1)
    held.executor.report(job_id, step=1)
    await held.discord.until(lambda: fault.met)

    for step in range(2, 31):
        held.executor.report(job_id, step=step)
    await held.app.studio.view(job_id)  # the reports have a turn of the loop to arrive
    gate.set()
    message = await held.discord.until(
        lambda: asked.original if asked.original and "step 30" in asked.original.content else None
    )

    assert message is not None
    assert len(message.shown) <= 5


async def test_a_pause_lies_between_two_edits(tmp_path: Path, discord: DiscordDouble) -> None:
    executor = FakeExecutor(hold=True)
    async with running_bot(tmp_path, discord, executor, edit_seconds=0.2) as bot:
        asked = await bot.imagine(values={"steps": 50})
        await discord.answer(asked)
        job_id = await bot.drawing()
        for step in range(1, 4):
            bot.executor.report(job_id, step=step)
            await shows(discord, asked, f"step {step} ")

    edits = discord.calls_to("edit_original")
    gaps = [later.came - earlier.came for earlier, later in itertools.pairwise(edits)]
    assert len(edits) >= 3
    # From the end of one to the beginning of the next: never less, however slow the machine is.
    assert min(gaps) >= 0.19


@pytest.mark.parametrize(("values", "sentence"), BROKEN)
async def test_bad_input_is_told_in_private_and_nothing_is_stored(
    bot: Bot, values: dict[str, Any], sentence: str
) -> None:
    asked = await bot.discord.slash("imagine", values={"prompt": "a red circle", **values})

    message = await bot.discord.private_word(asked)

    assert unescaped(message.content) == sentence
    assert not message.pinged
    assert await bot.app.studio.history(f"discord:{bot.discord.user.id}") == []
    assert not asked.followups


async def test_a_full_queue_is_told_in_private(tmp_path: Path, discord: DiscordDouble) -> None:
    executor = FakeExecutor(hold=True)
    async with running_bot(tmp_path, discord, executor, queue_max=1) as bot:
        await bot.imagine("one")
        await bot.drawing()
        await bot.discord.answer(await bot.imagine("two"))

        message = await discord.private_word(await bot.imagine("three"))

    assert "queue: '1 waiting' is not allowed" in unescaped(message.content)


async def test_a_failed_drawing_is_told_where_the_picture_would_be(held: Bot) -> None:
    asked = await held.imagine()
    job_id = await held.drawing()
    held.executor.report(job_id, step=1, preview=b"\xff\xd8")
    await held.discord.until(lambda: asked.original and asked.original.attachments)

    held.executor.fail(job_id, DrawingError("The picture came out empty."))
    message = await held.discord.until(
        lambda: asked.original if asked.original and "Again" in asked.original.buttons else None
    )

    assert message is not None
    assert "The picture came out empty." in unescaped(message.content)
    assert list(message.buttons) == ["Again", "Edit"]
    assert not message.attachments


@pytest.mark.parametrize(
    "prompt",
    [
        "@everyone <@1> <@&2> <#3> look",
        "[free nitro](https://evil.example) discord.gg/abc",
        "**bold** _it_ ~~no~~ ||spoiler|| `code` ```block```",
        "# heading",
        "> quote\n- list\n1. one",
        "\N{RIGHT-TO-LEFT OVERRIDE}evil",
        "x" * 2000,
        "*" * 2000,
        "\N{PILE OF POO}" * 2000,
    ],
)
async def test_hostile_prompts_do_no_harm(bot: Bot, prompt: str) -> None:
    message = await bot.discord.picture(await bot.imagine(prompt))

    assert not message.pinged
    assert len(message.content) <= 2000
    assert message.content.startswith("**")
    assert "https://" not in message.content
    assert "discord.gg/" not in message.content


async def test_it_works_in_a_direct_message(bot: Bot) -> None:
    message = await bot.discord.picture(await bot.imagine(direct=True))

    assert message.channel_id == bot.discord.user.id


async def test_sizes_are_suggested_for_the_mode_that_was_named(bot: Bot) -> None:
    own = await bot.discord.complete("imagine", "size", "")
    named = await bot.discord.complete("imagine", "size", "", {"mode": "other"})
    typed = await bot.discord.complete("imagine", "size", "128")

    aspects = ["square", "portrait", "landscape", "16:9", "9:16"]
    assert [choice["value"] for choice in own] == [*aspects, "64x128", "128x64"]
    assert own[1]["name"] == "portrait (72x112)"
    assert [choice["value"] for choice in named] == [*aspects, "64x64"]
    assert [choice["value"] for choice in typed][:1] == ["128x64"]


async def test_modes_are_suggested_by_name_title_and_description(bot: Bot) -> None:
    everything = await bot.discord.complete("imagine", "mode", "")
    little = await bot.discord.complete("imagine", "mode", "LITTLE")

    assert [choice["value"] for choice in everything] == ["small", "other"]
    assert [choice["name"] for choice in little] == ["Small (small): Little pictures"]


async def test_a_submission_that_takes_long_is_acknowledged_first(bot: Bot, tmp_path: Path) -> None:
    with locked_database(tmp_path):
        asked = await bot.imagine()
        await bot.discord.until(lambda: asked.acknowledged == 5)

    assert (await bot.discord.picture(asked)) is asked.original


async def test_an_error_after_thinking_is_still_private(bot: Bot, tmp_path: Path) -> None:
    with locked_database(tmp_path) as database:
        asked = await bot.imagine()
        await bot.discord.until(lambda: asked.acknowledged == 5)
        refuse_jobs(database, "no")

    message = await bot.discord.private_word(asked)

    assert asked.original is not None
    assert asked.original.deleted
    assert message.ephemeral
    assert not bot.executor.requests


async def test_many_people_at_once_are_all_served(bot: Bot) -> None:
    people = [bot.discord.world.add_user(f"user{number}") for number in range(40)]

    asked = [await bot.imagine(f"picture {p.name}", user=p) for p in people]
    messages = [await bot.discord.picture(one) for one in asked]

    assert all(user.name in m.content for user, m in zip(people, messages, strict=True))
    assert len({message.id for message in messages}) == 40
