"""Modes for members with certain roles: asked for, pressed, switched to and suggested."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.discord_double import DiscordDouble, Interaction
from tests.discord_double.double import MANAGE_GUILD
from tests.discord_double.world import Role
from tests.discord_kit import MODES, Bot, running_bot, unescaped

pytest_plugins = ["tests.discord_kit"]

REFUSAL = "The mode Other_One is for members with the role artists."


@pytest.fixture
async def artists(discord: DiscordDouble) -> Role:
    return await discord.add_role("Artists")


@pytest.fixture
async def patrons(discord: DiscordDouble) -> Role:
    return await discord.add_role("Patrons")


@pytest.fixture
async def guarded(
    tmp_path: Path, discord: DiscordDouble, artists: Role, patrons: Role
) -> AsyncIterator[Bot]:
    """A bot whose second mode is for artists by name, and for patrons by id."""
    modes = MODES + f"    allowed_roles: [artists, '{patrons.id}']\n"
    async with running_bot(tmp_path, discord, modes=modes) as bot:
        yield bot


async def told(bot: Bot, asked: Interaction) -> str:
    """Returns a private refusal; nothing was drawn for it."""
    drawn = len(bot.executor.requests)
    word = await bot.discord.private_word(asked)
    assert len(bot.executor.requests) == drawn
    return unescaped(word.content)


async def test_who_holds_the_role_may_ask_by_its_name_or_its_id(
    guarded: Bot, artists: Role, patrons: Role
) -> None:
    for role in (artists, patrons):
        asked = await guarded.imagine(values={"mode": "other"}, roles=[role])
        await guarded.discord.picture(asked)

    assert [request.mode for request in guarded.executor.requests] == ["other", "other"]


async def test_who_does_not_is_refused_in_private(guarded: Bot) -> None:
    another = await guarded.discord.add_role("Artist")
    values = {"mode": "other"}

    refused = [
        await told(guarded, await guarded.imagine(values=values)),
        await told(guarded, await guarded.imagine(values=values, roles=[another])),
        await told(guarded, await guarded.imagine(values=values, permissions=MANAGE_GUILD)),
        # Elsewhere they may hold it; a direct message has no roles.
        await told(guarded, await guarded.imagine(values=values, direct=True)),
    ]

    assert refused == [REFUSAL] * 4


async def test_a_role_of_another_server_does_not_count(guarded: Bot, artists: Role) -> None:
    elsewhere = guarded.discord.world.add_guild("Elsewhere")

    asked = await guarded.imagine(values={"mode": "other"}, roles=[artists], guild=elsewhere)

    assert await told(guarded, asked) == REFUSAL


@pytest.mark.parametrize("label", ["Again", "Vary"])
async def test_a_button_under_an_artists_picture_is_for_artists(
    guarded: Bot, artists: Role, label: str
) -> None:
    asked = await guarded.imagine(values={"mode": "other"}, roles=[artists])
    message = await guarded.discord.picture(asked)
    friend = guarded.discord.world.add_user("grace")

    refused = await guarded.discord.click(message, label, user=friend)
    assert await told(guarded, refused) == REFUSAL
    assert not message.deleted

    allowed = await guarded.discord.click(message, label, user=friend, roles=[artists])
    await guarded.discord.picture(allowed)


async def test_whoever_lost_the_role_can_repeat_nothing(guarded: Bot, artists: Role) -> None:
    asked = await guarded.imagine(values={"mode": "other"}, roles=[artists])
    message = await guarded.discord.picture(asked)

    assert await told(guarded, await guarded.discord.click(message, "Again")) == REFUSAL


async def test_a_moderator_without_the_role_does_not_switch_to_it(
    guarded: Bot, artists: Role
) -> None:
    values = {"mode": "other"}

    refused = await guarded.discord.slash("mode switch", values=values, permissions=MANAGE_GUILD)
    assert await told(guarded, refused) == REFUSAL
    await guarded.discord.picture(await guarded.imagine())
    assert guarded.executor.requests[-1].mode == "small"

    allowed = await guarded.discord.slash(
        "mode switch", values=values, permissions=MANAGE_GUILD, roles=[artists]
    )
    assert "now draws with" in (await guarded.discord.answer(allowed)).content


async def test_where_it_was_switched_to_members_without_the_role_are_told(
    guarded: Bot, artists: Role
) -> None:
    switched = await guarded.discord.slash(
        "mode switch", values={"mode": "other"}, permissions=MANAGE_GUILD, roles=[artists]
    )
    await guarded.discord.answer(switched)

    assert await told(guarded, await guarded.imagine()) == REFUSAL
    await guarded.discord.picture(await guarded.imagine(values={"mode": "small"}))


async def test_only_modes_that_a_member_may_use_are_suggested(guarded: Bot, artists: Role) -> None:
    member = await guarded.discord.complete("imagine", "mode", "")
    artist = await guarded.discord.complete("imagine", "mode", "", roles=[artists])

    assert [choice["value"] for choice in member] == ["small"]
    assert [choice["value"] for choice in artist] == ["small", "other"]


async def test_the_list_says_for_whom_a_mode_is(guarded: Bot, patrons: Role) -> None:
    asked = await guarded.discord.slash("mode list", overridden=True)

    lines = unescaped((await guarded.discord.private_word(asked)).content).splitlines()

    assert lines[1].endswith(f"64x64, 2 steps, for artists or <@&{patrons.id}>")
