"""Answers in the language of whom they are for, over the whole way to Discord."""

from pathlib import Path

import pytest

from engine.testing import FakeExecutor
from tests.discord_double import DiscordDouble
from tests.discord_double.double import MANAGE_GUILD
from tests.discord_double.world import Room
from tests.discord_kit import Bot, running_bot, unescaped

pytest_plugins = ["tests.discord_kit"]


async def test_commands_are_told_to_discord_in_every_language(bot: Bot) -> None:
    commands = {each["name"]: each for each in bot.discord.world.commands or []}

    imagine = commands["imagine"]
    assert imagine["name_localizations"]["de"] == "bild"
    assert imagine["name_localizations"]["es-419"] == imagine["name_localizations"]["es-ES"]
    assert imagine["description_localizations"]["ja"].startswith("言葉から")
    sizes = next(each for each in imagine["options"] if each["name"] == "size")
    assert sizes["name_localizations"]["fr"] == "taille"


async def test_an_answer_speaks_the_askers_language_to_its_end(
    tmp_path: Path, discord: DiscordDouble
) -> None:
    executor = FakeExecutor(hold=True)
    async with running_bot(tmp_path, discord, executor) as bot:
        asked = await bot.imagine("ein Kreis", locale="de")
        answer = await discord.answer(asked)
        job = await bot.drawing()
        executor.report(job, step=2)
        await discord.until(lambda: "Schritt 2 von 4" in answer.content, "a step in German")
        buttons = list(answer.buttons)
        english = await discord.answer(await bot.imagine("a circle", locale="en-GB"))
        waiting = english.content
    async with running_bot(tmp_path, discord) as bot:
        german = await discord.picture(asked)  # the locale has outlived the restart

    assert "für" in unescaped(answer.content)
    assert buttons == ["Abbrechen"]
    assert "Next in the queue" in waiting
    assert "4 Schritte" in german.content
    assert {"Noch einmal", "Bearbeiten"} <= set(german.buttons)


@pytest.mark.parametrize(
    ("locale", "shown"),
    [
        ("en-US", "Nobody draws in this channel."),
        ("de", "In diesem Kanal malt niemand."),
        ("fr", "Personne ne dessine dans ce salon."),
        ("es-419", "Nadie dibuja en este canal."),
        ("pt-BR", "Ninguém desenha neste canal."),
        ("ja", "このチャンネルでは描けません。"),
        ("zh-CN", "此频道不能画图。"),
        ("uk", "Nobody draws in this channel."),
    ],
)
async def test_refusals_speak_the_askers_language(bot: Bot, locale: str, shown: str) -> None:
    values = {"channels": "elsewhere"}
    bot.discord.guild.rooms.append(_room(bot))
    await bot.discord.gateway.dispatch("CHANNEL_CREATE", bot.discord.guild.channel(_room(bot)))
    changed = await bot.discord.slash("server set", values=values, permissions=MANAGE_GUILD)
    await bot.discord.private_word(changed)

    word = await bot.discord.private_word(await bot.imagine(locale=locale))

    assert unescaped(word.content).startswith(shown)


async def test_what_is_used_up_is_told_in_the_askers_language(bot: Bot) -> None:
    changed = await bot.discord.slash(
        "server set", values={"cooldown": 600}, permissions=MANAGE_GUILD
    )
    await bot.discord.private_word(changed)
    await bot.discord.picture(await bot.imagine())

    word = await bot.discord.private_word(await bot.imagine(locale="de"))

    assert unescaped(word.content).startswith("Dieser Server erlaubt alle 600 s einen Auftrag")


async def test_a_wrong_value_is_told_in_the_askers_language(bot: Bot) -> None:
    word = await bot.discord.private_word(
        await bot.imagine(values={"mode": "nope"}, locale="pt-BR")
    )

    assert unescaped(word.content) == "modo: 'nope' não é permitido. Permitido: small, other."


def _room(bot: Bot) -> Room:
    return Room(bot.discord.guild.channel_id + 50, "elsewhere")


async def test_help_names_commands_as_the_reader_sees_them(bot: Bot) -> None:
    word = await bot.discord.private_word(await bot.discord.slash("help", locale="de"))

    assert "**/bild** Malt ein Bild aus Worten" in unescaped(word.content)
    assert "**/modus wechseln**" in unescaped(word.content)
