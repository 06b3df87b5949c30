"""``/drain`` and ``/stats``: pauses that cost nobody their place, and figures."""

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from engine.testing import FakeExecutor
from tests.discord_double import DiscordDouble
from tests.discord_double.commands import NotOffered
from tests.discord_double.double import MANAGE_GUILD, MANAGE_MESSAGES
from tests.discord_double.world import User
from tests.discord_kit import Bot, running_bot, unescaped

pytest_plugins = ["tests.discord_kit"]

OLGA = User(700000, "olga")
OPERATORS = {"discord_operators": (str(OLGA.id),)}


async def drain(discord: DiscordDouble, **values: str) -> Any:
    return await discord.slash("drain", values=values, user=OLGA, permissions=MANAGE_GUILD)


async def said(discord: DiscordDouble, **values: str) -> str:
    message = await discord.answer(await drain(discord, **values))
    assert not message.ephemeral, "a pause is told to all"
    return unescaped(message.content)


async def test_a_pause_finishes_what_runs_keeps_the_queue_and_tells_who_waits(
    tmp_path: Path, discord: DiscordDouble
) -> None:
    executor = FakeExecutor(hold=True)
    async with running_bot(tmp_path, discord, executor, **OPERATORS) as bot:
        first = await bot.imagine("first")
        running = await bot.drawing()
        second = await bot.imagine("second")
        waiting = await discord.answer(second)

        announced = await drain(discord, reason="new\ncard *tonight*")
        message = await discord.answer(announced)
        before = unescaped(message.content)
        await discord.until(lambda: "drawing is paused" in waiting.content, "what waits is told")
        told = unescaped(waiting.content)
        executor.finish(running)
        await discord.picture(first)
        await discord.until(lambda: "any more" in message.content, "the end of what ran")
        after = unescaped(message.content)
        third = (await discord.answer(await bot.imagine("third"))).content
        begun = len(executor.requests)
        queue = await discord.private_word(await discord.slash("queue"))

        resumed = await said(discord, turn="off")
        for interaction in (second,):
            executor.finish(await bot.drawing())
            await discord.picture(interaction)
        audit = await discord.private_word(
            await discord.slash("server audit", permissions=MANAGE_GUILD)
        )

    assert before == (
        "**Drawing is paused**: new card *tonight*\n1 drawing under way will be finished. "
        "1 request keeps its place. What you ask for now waits in line, too."
    )
    assert "drawing is paused (new card *tonight*), your place is kept" in told
    assert after == f"{before}\n-# Nothing is being drawn any more. 1 request keeps its place."
    assert "drawing is paused" in third, "who asks now is told at once"
    assert begun == 1, "nothing new was begun"
    assert unescaped(queue.content).startswith("**Drawing is paused**: new card *tonight*\n")
    assert resumed == "**Drawing goes on.** 2 requests in line."
    lines = unescaped(audit.content).splitlines()
    assert lines[0].endswith("olga: Went on drawing")
    assert lines[1].endswith("olga: Paused drawing: new card *tonight*")


async def test_a_restart_ends_a_pause_and_draws_what_waited(
    tmp_path: Path, discord: DiscordDouble
) -> None:
    async with running_bot(tmp_path, discord, **OPERATORS) as bot:
        await said(discord)
        asked = await bot.imagine()
        await discord.answer(asked)
    async with running_bot(tmp_path, discord, **OPERATORS) as bot:
        await discord.picture(asked)
        assert bot.app.studio.steward.pause is None


async def test_while_drawing_is_paused_memory_can_be_given_back_and_nothing_is_loaded(
    tmp_path: Path, discord: DiscordDouble
) -> None:
    async with running_bot(tmp_path, discord, **OPERATORS) as bot:
        await discord.picture(await bot.imagine(values={"mode": "other"}))
        await said(discord)

        async def told(line: str) -> str:
            asked = await discord.slash(
                line, values={"mode": "other"}, user=OLGA, permissions=MANAGE_GUILD
            )
            return (await discord.answer(asked)).content

        unloaded = await told("mode unload")
        held = bot.executor.loaded
        refused = await told("mode load")

    assert "is not loaded any more" in unloaded
    assert held == ()
    assert refused == "Drawing is paused, so nothing is loaded. End the pause first."


async def test_a_pause_is_for_those_who_run_the_bot(bot: Bot) -> None:
    with pytest.raises(NotOffered, match="hidden"):
        await bot.discord.slash("drain")
    for permissions in (0, MANAGE_GUILD):
        asked = await bot.discord.slash("drain", permissions=permissions, overridden=True)
        word = await bot.discord.private_word(asked)
        assert word.content.startswith("This concerns all servers")
    await bot.discord.picture(await bot.imagine())


async def test_a_pause_that_is_none_can_not_be_ended_and_a_reason_has_bounds(
    tmp_path: Path, discord: DiscordDouble
) -> None:
    async with running_bot(tmp_path, discord, **OPERATORS) as bot:
        none = await discord.private_word(await drain(discord, turn="off"))
        long = await discord.private_word(await drain(discord, reason="x" * 301))
        await discord.picture(await bot.imagine())

    assert none.content == "Drawing is not paused."
    assert "at most 300 characters" in long.content


# Figures


async def test_stats_are_a_picture_and_a_few_lines(bot: Bot) -> None:
    await bot.discord.picture(await bot.imagine())

    asked = await bot.discord.slash("stats", permissions=MANAGE_MESSAGES)
    message = await bot.discord.answer(asked)

    assert message.ephemeral
    lines = unescaped(message.content).splitlines()
    assert lines[0] == "**Now:** 0 requests waiting, 0 being drawn"
    assert lines[1] == "**In the last hour:** 1 picture for 1 request"
    assert lines[2].startswith("**Longest wait:** ")
    assert any(line.startswith("`fake:0` ▱") for line in lines)
    (attachment,) = message.attachments
    assert Image.open(io.BytesIO(attachment.content)).format == "PNG"
    assert "Pictures per minute in the last hour: 1 at last" in attachment.description


async def test_stats_without_a_plot_are_figures_still(
    bot: Bot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bot.app.studio.plots, "_command", ("/nowhere/python",))

    asked = await bot.discord.slash("stats", values={"last": 24}, permissions=MANAGE_MESSAGES)
    message = await bot.discord.answer(asked)

    assert "**In the last 24 hours:** 0 pictures for 0 requests" in message.content
    assert message.content.endswith("the log of Dream Lab says why.")
    assert not message.attachments


async def test_stats_are_for_moderators(bot: Bot) -> None:
    asked = await bot.discord.slash("stats", overridden=True)

    word = await bot.discord.private_word(asked)

    assert word.content == "Only members with the permission Manage Messages may do that."
