"""Answers in the language of whom they are for, over the whole way to Discord."""

from dataclasses import replace
from pathlib import Path

import pytest

from engine.errors import OutOfMemoryError
from engine.testing import FakeExecutor
from tests.discord_double import DiscordDouble
from tests.discord_double.double import MANAGE_GUILD, MANAGE_MESSAGES
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


# What else is answered ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "values", "shown"),
    [
        ("server show", {}, "**Kanäle zum Malen:** alle"),
        ("server audit", {}, "Bisher wurde nichts geändert."),
        ("mode list", {}, "(hier in Gebrauch): Little pictures · 64x128, 4 Schritte"),
        ("mode info", {"mode": "small"}, "Seiten von 64 bis 128, bis zu 100 Schritte"),
        ("mode reset", {}, "Dieser Server hatte keinen eigenen Modus"),
        ("stats", {}, "**Jetzt:** 0 Aufträge wartend, 0 in Arbeit"),
        ("me", {}, "**Bisher:** noch nichts; gib /bild ein"),
        ("queue", {}, "**In Arbeit: nichts. Wartend: 0.**"),
        ("why", {}, "darf hier malen, zumindest mit Small."),
        ("drain", {}, "Das betrifft alle Server"),
        ("show", {"id": "nope"}, "Erlaubt: die ID eines Auftrags."),
    ],
)
async def test_commands_answer_in_the_askers_language(
    bot: Bot, command: str, values: dict[str, str], shown: str
) -> None:
    permissions = MANAGE_GUILD | MANAGE_MESSAGES
    asked = await bot.discord.slash(command, values=values, permissions=permissions, locale="de")

    word = await bot.discord.private_word(asked)

    assert shown in unescaped(word.content)


async def test_what_was_changed_is_told_in_the_language_of_who_looks(bot: Bot) -> None:
    changed = await bot.discord.slash(
        "server set", values={"cooldown": 7}, permissions=MANAGE_GUILD
    )
    await bot.discord.private_word(changed)

    looked = await bot.discord.slash("server audit", permissions=MANAGE_GUILD, locale="fr")
    word = await bot.discord.private_word(looked)

    assert "Temps entre deux demandes d'un membre : aucune limite → 7 s" in unescaped(word.content)


async def test_a_stored_error_is_told_in_the_language_of_who_looks(held: Bot) -> None:
    asked = await held.imagine(locale="de")
    answer = await held.discord.answer(asked)
    job_id = await held.drawing()
    held.executor.fail(job_id, OutOfMemoryError("cuda:0"))
    await held.discord.until(lambda: "keinen Speicher mehr" in answer.content, "why, in German")

    shown = await held.discord.slash("show", values={"id": job_id}, locale="es-ES")
    word = await held.discord.private_word(shown)

    assert "cuda:0 se quedó sin memoria." in unescaped(word.content)


async def test_history_and_what_a_picture_shows_are_in_the_askers_language(bot: Bot) -> None:
    picture = await bot.discord.picture(await bot.imagine(locale="ja"))
    asked = await bot.discord.slash("history", locale="ja")
    page = await bot.discord.answer(asked)

    assert picture.attachments[0].description is not None
    assert picture.attachments[0].description.startswith("絵。small で、次の言葉から描きました:")
    assert "シード" in page.content
    assert "/表示 に id を付けると" in unescaped(page.content)


async def test_a_form_is_in_the_language_of_who_opens_it(bot: Bot) -> None:
    picture = await bot.discord.picture(await bot.imagine())
    pressed = await bot.discord.click(picture, "Edit", locale="pt-BR")
    await bot.discord.form(pressed)

    assert pressed.modal is not None
    assert pressed.modal["title"] == "Editar e refazer"
    assert next(part["label"] for part in pressed.modal["components"]) == "O que desenhar"


async def test_a_message_is_answered_in_its_servers_language(bot: Bot) -> None:
    await _speak_german(bot)
    asked = await bot.discord.say(f"<@{bot.discord.world.bot.id}> a red circle")
    answer = await bot.discord.reply(asked)

    await bot.discord.until(lambda: "4 Schritte" in answer.content, "the end in German")


async def test_a_message_is_answered_as_its_authors_commands_are(bot: Bot) -> None:
    await _speak_german(bot)
    await bot.discord.picture(await bot.imagine(locale="fr"))
    asked = await bot.discord.say("a red circle", direct=True)
    answer = await bot.discord.reply(asked)

    await bot.discord.until(lambda: "4 étapes" in answer.content, "the end in French")


async def test_a_report_is_in_the_language_of_the_server(bot: Bot) -> None:
    await _speak_german(bot)
    room = f"<#{bot.discord.guild.channel_id}>"
    changed = await bot.discord.slash(
        "server set", values={"reports": room}, permissions=MANAGE_GUILD
    )
    await bot.discord.private_word(changed)
    picture = await bot.discord.picture(await bot.imagine())
    pressed = await bot.discord.click(picture, "Report", locale="fr")
    await bot.discord.form(pressed)
    thanked = await bot.discord.private_word(
        await bot.discord.submit(pressed, {"Pourquoi": "too red"}, locale="fr")
    )
    messages = bot.discord.world.messages.values()
    report = next(m for m in messages if "too red" in m.content)

    assert thanked.content == "Merci. Les modérateurs sont prévenus."
    assert "meldet ein Bild: too red" in unescaped(report.content)
    assert set(report.buttons) == {"Bilder entfernen", "Stehen lassen"}


async def test_suggestions_are_in_the_language_of_who_types(held: Bot) -> None:
    await held.discord.answer(await held.imagine("a fox"))
    await held.drawing()

    offered = await held.discord.complete("cancel", "id", "", locale="de")

    assert [choice["name"] for choice in offered] == ["in Arbeit: a fox"]


async def _speak_german(bot: Bot) -> None:
    bot.discord.guild = german = replace(bot.discord.guild, locale="de")
    bot.discord.world.guilds[german.id] = german
    await bot.discord.gateway.dispatch("GUILD_UPDATE", german.payload(bot.discord.world.bot))
