"""Connecting, staying connected, and giving up only on a wrong token."""

import asyncio
from pathlib import Path

import pytest
from pydantic import SecretStr

from bot.client import DiscordFrontEnd, DiscordLoginError
from engine.testing import FakeExecutor
from tests.discord_double import DiscordDouble
from tests.discord_double.gateway import IDENTIFY, RESUME
from tests.discord_kit import (
    Bot,
    locked_database,
    refuse_jobs,
    running_bot,
    serving,
    settings_for,
)

pytest_plugins = ["tests.discord_kit"]


def sent(discord: DiscordDouble, op: int) -> int:
    return sum(payload["op"] == op for payload in discord.gateway.received)


async def test_no_privileged_intent_is_asked_for(bot: Bot) -> None:
    session = bot.discord.gateway.live

    assert session is not None
    # Servers, and messages with the words of those to the bot alone: nothing else.
    assert session.intents == 1 << 0 | 1 << 9 | 1 << 12


async def test_a_wrong_token_ends_it_with_a_sentence_for_the_owner(
    tmp_path: Path, discord: DiscordDouble
) -> None:
    settings = settings_for(discord, tmp_path, discord_token=SecretStr("wrong.token.altogether"))
    async with serving(settings, discord, [FakeExecutor()]) as (app, _):
        another = DiscordFrontEnd(app.studio, app.catalog, settings)

        with pytest.raises(DiscordLoginError) as caught:
            await another.run()

    assert "DISCORD_TOKEN" in str(caught.value)
    assert "wrong.token" not in str(caught.value)


async def test_a_token_that_only_the_gateway_refuses_ends_it_too(
    tmp_path: Path, discord: DiscordDouble
) -> None:
    async with running_bot(tmp_path, discord) as bot:
        front_end = DiscordFrontEnd(
            bot.app.studio, bot.app.catalog, bot.app.settings, now=discord.clock.now
        )
        discord.gateway.token = "reset since"

        with pytest.raises(DiscordLoginError):
            await front_end.run()


async def test_a_lost_connection_is_resumed_and_misses_nothing(bot: Bot) -> None:
    session = bot.discord.gateway.live
    assert session is not None
    assert session.line is not None

    session.line.cut()
    await bot.discord.until(lambda: session.line is None)
    asked = await bot.imagine()

    await bot.discord.picture(asked)
    assert sent(bot.discord, RESUME) == 1
    assert sent(bot.discord, IDENTIFY) == 1


async def test_a_request_to_reconnect_is_followed(bot: Bot) -> None:
    await bot.discord.gateway.ask_to_reconnect()

    await bot.discord.until(lambda: sent(bot.discord, RESUME))
    await bot.discord.picture(await bot.imagine())


@pytest.mark.parametrize("shards", ["off", 1])
async def test_resuming_stays_on_the_address_that_the_owner_chose(
    tmp_path: Path, discord: DiscordDouble, shards: str | int
) -> None:
    discord.gateway.resume_url = "wss://gateway.invalid/"  # a proxy that passes READY on unread
    async with running_bot(tmp_path, discord, discord_shards=shards) as bot:
        await discord.gateway.ask_to_reconnect()

        await discord.until(lambda: sent(discord, RESUME))
        await discord.picture(await bot.imagine())


async def test_a_forgotten_session_is_begun_anew(bot: Bot) -> None:
    await bot.discord.gateway.invalidate()

    # discord.py waits 5 s before it identifies again, as Discord asks of it.
    await bot.discord.until(lambda: sent(bot.discord, IDENTIFY) == 2)
    await bot.discord.until(lambda: bot.discord.gateway.live)
    await bot.discord.picture(await bot.imagine())


async def test_it_waits_for_a_gateway_that_is_down_at_the_start(
    tmp_path: Path, discord: DiscordDouble
) -> None:
    discord.gateway.refusing = True
    settings = settings_for(discord, tmp_path)
    async with serving(settings, discord, [FakeExecutor()]):
        await discord.until(lambda: discord.gateway.refused >= 1)
        discord.gateway.refusing = False

        await discord.until(lambda: discord.gateway.live)


async def test_it_waits_for_an_api_that_is_down_at_the_start(
    tmp_path: Path, discord: DiscordDouble
) -> None:
    outage = discord.fail("me", status=0, times=1)
    settings = settings_for(discord, tmp_path)
    async with serving(settings, discord, [FakeExecutor()]):
        await discord.until(lambda: outage.met and discord.gateway.live)


@pytest.mark.parametrize("status", [0, 503])
async def test_commands_that_could_not_be_synced_are_synced_later(
    tmp_path: Path, discord: DiscordDouble, status: int
) -> None:
    outage = discord.fail("commands", status=status, times=1)

    async with running_bot(tmp_path, discord) as bot:
        await discord.picture(await bot.imagine())

    assert outage.met == 1


async def test_a_command_that_changed_is_explained(bot: Bot) -> None:
    assert bot.discord.world.commands is not None
    bot.discord.world.commands.append(
        {"id": "1", "name": "dream", "description": "An old one", "options": []}
    )

    word = await bot.discord.private_word(await bot.discord.slash("dream"))

    assert "Reload Discord" in word.content


async def test_a_bug_is_told_with_a_note_and_found_in_the_log(
    bot: Bot, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with locked_database(tmp_path) as database:
        refuse_jobs(database, "secret details")

    word = await bot.discord.private_word(await bot.imagine())

    note = word.content.split("`")[1]
    assert "secret details" not in word.content
    assert f"Note {note}" in caplog.text
    assert "secret details" in caplog.text


async def test_it_ends_while_discord_answers_nothing(
    tmp_path: Path, discord: DiscordDouble
) -> None:
    async with running_bot(tmp_path, discord) as bot:
        discord.fail("callback", until=asyncio.Event())
        await bot.imagine()
        await discord.until(lambda: discord.calls_to("callback"))
    # Leaving the block waits a few seconds for what is being answered, then gives it up.
    assert discord.gateway.live is None


async def test_with_shards_a_connection_says_which_it_is_and_draws(
    tmp_path: Path, discord: DiscordDouble
) -> None:
    # One of one: between two of them discord.py waits for five seconds, as Discord wants it.
    async with running_bot(tmp_path, discord, discord_shards=1) as bot:
        await discord.picture(await bot.imagine())

    identified = [each["d"] for each in discord.gateway.received if each["op"] == IDENTIFY]
    assert [each["shard"] for each in identified] == [[0, 1]]
