"""``/mode``: what a server draws with, who may switch it, and that a restart remembers."""

from pathlib import Path

import pytest

from tests.discord_double import DiscordDouble
from tests.discord_double.commands import NotOffered
from tests.discord_double.double import MANAGE_GUILD
from tests.discord_kit import Bot, running_bot, unescaped

pytest_plugins = ["tests.discord_kit"]

MANY = "".join(
    f"  mode-{number}:\n    model: m{number}.safetensors\n    min_size: 64\n"
    f"    description: {'long ' * 20}\n"
    for number in range(60)
)


async def test_switching_is_told_to_all_and_the_next_picture_is_drawn_with_it(bot: Bot) -> None:
    asked = await bot.discord.slash(
        "mode switch", values={"mode": "other"}, permissions=MANAGE_GUILD
    )

    message = await bot.discord.answer(asked)

    assert unescaped(message.content) == "This server now draws with **Other_One**."
    assert not message.ephemeral
    await bot.discord.picture(await bot.imagine())
    assert bot.executor.requests[0].mode == "other"


async def test_a_switched_mode_survives_a_restart(tmp_path: Path, discord: DiscordDouble) -> None:
    async with running_bot(tmp_path, discord):
        asked = await discord.slash(
            "mode switch", values={"mode": "other"}, permissions=MANAGE_GUILD
        )
        await discord.answer(asked)

    async with running_bot(tmp_path, discord) as bot:
        await discord.picture(await bot.imagine())

        assert bot.executor.requests[0].mode == "other"


async def test_servers_have_modes_of_their_own(tmp_path: Path, discord: DiscordDouble) -> None:
    elsewhere = discord.world.add_guild("Elsewhere")
    async with running_bot(tmp_path, discord) as bot:
        asked = await discord.slash(
            "mode switch", values={"mode": "other"}, permissions=MANAGE_GUILD
        )
        await discord.answer(asked)

        await discord.picture(await bot.imagine(guild=elsewhere))

        assert bot.executor.requests[0].mode == "small"


async def test_discord_hides_the_command_from_members_by_default(bot: Bot) -> None:
    with pytest.raises(NotOffered, match="hidden"):
        await bot.discord.slash("mode switch", values={"mode": "other"})


async def test_a_member_may_not_switch_even_where_admins_opened_the_command(bot: Bot) -> None:
    asked = await bot.discord.slash("mode switch", values={"mode": "other"}, overridden=True)

    word = await bot.discord.private_word(asked)

    assert word.content == "Only members with the permission Manage Server may switch modes."
    await bot.discord.picture(await bot.imagine())
    assert bot.executor.requests[0].mode == "small"


async def test_there_is_nothing_to_switch_in_a_direct_message(bot: Bot) -> None:
    asked = await bot.discord.slash("mode switch", values={"mode": "other"}, direct=True)

    word = await bot.discord.private_word(asked)

    assert (
        unescaped(word.content) == "A mode can be switched in a server alone: /mode switch there."
    )


@pytest.mark.parametrize("name", ["nope", "@everyone", "*" * 500, " "])
async def test_an_unknown_mode_is_told_in_private_and_changes_nothing(bot: Bot, name: str) -> None:
    asked = await bot.discord.slash("mode switch", values={"mode": name}, permissions=MANAGE_GUILD)

    word = await bot.discord.private_word(asked)

    assert unescaped(word.content).endswith("is not allowed. Allowed: small, other.")
    await bot.discord.picture(await bot.imagine())
    assert bot.executor.requests[0].mode == "small"


async def test_the_list_names_every_mode_and_marks_the_one_in_use(bot: Bot) -> None:
    asked = await bot.discord.slash("mode list", overridden=True)

    word = await bot.discord.private_word(asked)

    assert unescaped(word.content).splitlines() == [
        "**Small** `small` (in use here): Little pictures · 64x128, 4 steps",
        "**Other_One** `other` · 64x64, 2 steps",
    ]


async def test_the_list_tells_what_is_loaded(bot: Bot) -> None:
    await bot.discord.picture(await bot.imagine(values={"mode": "other"}))

    asked = await bot.discord.slash("mode list", overridden=True)
    word = await bot.discord.private_word(asked)

    assert word.content.splitlines()[1].endswith("64x64, 2 steps, loaded")


async def test_a_refused_edit_is_told_to_those_who_may_switch_alone(bot: Bot) -> None:
    path = bot.app.catalog.path
    path.write_text(path.read_text().replace("max_size: 128", "max_sise: 128"))
    assert not bot.app.catalog.reload()

    member = await bot.discord.slash("mode list", overridden=True)
    admin = await bot.discord.slash("mode list", permissions=MANAGE_GUILD)
    told = (await bot.discord.private_word(member)).content
    more = unescaped((await bot.discord.private_word(admin)).content)

    assert "refused" not in told
    assert more.endswith(unescaped(told))
    assert (
        "- modes.yaml, line 12: modes.small.max_sise: unknown key. Did you mean max_size?" in more
    )
    assert str(path.parent) not in more


async def test_info_tells_defaults_and_bounds(bot: Bot) -> None:
    own = await bot.discord.slash("mode info", overridden=True)
    named = await bot.discord.slash("mode info", values={"mode": "other"}, overridden=True)

    word = (await bot.discord.private_word(own)).content
    other = (await bot.discord.private_word(named)).content

    assert "64x128, 4 steps, guidance 7, Euler a" in word
    assert "Sides from 64 to 128, up to 100 steps, guidance 1 to 30" in word
    assert other.startswith(r"**Other\_One** `other`")


async def test_more_modes_than_discord_shows_are_found_by_typing(
    tmp_path: Path, discord: DiscordDouble
) -> None:
    modes = f"model_root: {{root}}\ndefault_mode: mode-7\nmodes:\n{MANY}"
    (tmp_path / "m42.safetensors").touch()
    async with running_bot(tmp_path, discord, modes=modes) as bot:
        everything = await discord.complete("mode switch", "mode", "")
        found = await discord.complete("mode switch", "mode", "mode-59")
        listed = await discord.private_word(await discord.slash("mode list", overridden=True))
        drawn = await discord.picture(
            await bot.imagine(values={"mode": "mode-42", "size": "64x64"})
        )

    assert len(everything) == 25
    assert [choice["value"] for choice in found] == ["mode-59"]
    assert "more: type" in listed.content
    assert "mode-42" in drawn.content
