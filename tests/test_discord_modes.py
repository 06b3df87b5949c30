"""``/mode``: what a server draws with, who may switch it, and that a restart remembers."""

from pathlib import Path
from typing import Any

import pytest

from engine.errors import ModelError
from engine.testing import FakeExecutor
from tests.discord_double import DiscordDouble
from tests.discord_double.commands import NotOffered
from tests.discord_double.double import MANAGE_GUILD
from tests.discord_double.world import Room, User
from tests.discord_kit import Bot, running_bot, unescaped

pytest_plugins = ["tests.discord_kit"]

MANY = "".join(
    f"  mode-{number}:\n    model: m{number}.safetensors\n    min_size: 64\n"
    f"    description: {'long ' * 20}\n"
    for number in range(60)
)


OWNER = 700000


async def told(bot: Bot, line: str, **options: Any) -> str:
    """Types a command as an admin of the server and returns the private answer as it is read."""
    values = options.pop("values", {})
    asked = await bot.discord.slash(line, values=values, permissions=MANAGE_GUILD, **options)
    return unescaped((await bot.discord.private_word(asked)).content)


async def said(bot: Bot, line: str, **values: Any) -> str:
    """Likewise the answer that all read."""
    asked = await bot.discord.slash(line, values=values, permissions=MANAGE_GUILD)
    message = await bot.discord.answer(asked)
    assert not message.ephemeral
    return unescaped(message.content)


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


async def test_a_server_that_switches_on_and_on_keeps_nobody_elsewhere_from_drawing(
    tmp_path: Path, discord: DiscordDouble
) -> None:
    elsewhere = discord.world.add_guild("Elsewhere")
    executor = FakeExecutor(hold=True)
    async with running_bot(tmp_path, discord, executor, queue_max=4) as bot:
        await discord.answer(await bot.imagine("busy", guild=elsewhere))
        busy = await bot.drawing()
        for mode in ("other", "small") * 4:
            await said(bot, "mode switch", mode=mode)

        asked = await bot.imagine("a fox", guild=elsewhere)
        await discord.answer(asked)
        queue = await discord.private_word(await discord.slash("queue", guild=elsewhere))
        executor.hold = False
        executor.finish(busy)
        await discord.picture(asked)
        await executor.until(lambda: not bot.app.pool.running_jobs())

    assert "Waiting: 1." in queue.content
    other = bot.app.catalog.get("other").model.key
    assert ("load", other) not in executor.calls, "what was chosen last is loaded, and that alone"


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

    assert word.content == "Only members with the permission Manage Server may do that."
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
    assert not await bot.app.catalog.reload()

    member = await bot.discord.slash("mode list", overridden=True)
    admin = await bot.discord.slash("mode list", permissions=MANAGE_GUILD)
    told = (await bot.discord.private_word(member)).content
    more = unescaped((await bot.discord.private_word(admin)).content)

    assert "refused" not in told
    assert unescaped(told) in more
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


# Channels


async def test_a_channel_draws_with_its_own_mode_and_so_do_its_threads(
    tmp_path: Path, discord: DiscordDouble
) -> None:
    art = Room(id=discord.guild.channel_id + 1, name="art")
    thread = Room(id=art.id + 1, name="sketches", parent_id=art.id)
    discord.guild.rooms.extend((art, thread))
    async with running_bot(tmp_path, discord) as bot:
        answer = await said(bot, "mode switch", mode="other", channel=art)
    async with running_bot(tmp_path, discord) as bot:
        for room in (None, art, thread):
            await discord.picture(await bot.imagine(room=room))
        drawn = [request.mode for request in bot.executor.requests]
        listed = await told(bot, "mode list", room=art)
        suggested = await discord.complete("imagine", "size", "", {"prompt": "x"}, room=art)
        audit = await told(bot, "server audit")

    assert answer == f"<#{art.id}> now draws with **Other_One**."
    assert drawn == ["small", "other", "other"]
    assert "`other` (in use here)" in listed
    assert "64x64" in [choice["value"] for choice in suggested]
    assert f"Mode in <#{art.id}>: other" in audit


async def test_a_thread_goes_its_own_way_before_its_channel(bot: Bot) -> None:
    discord = bot.discord
    thread = Room(discord.guild.channel_id + 9, "sketches", parent_id=discord.guild.channel_id)
    discord.guild.rooms.append(thread)
    await said(bot, "mode switch", mode="other", channel=Room(discord.guild.channel_id, "pictures"))
    await said(bot, "mode switch", mode="small", channel=thread)

    await discord.picture(await bot.imagine(room=thread))
    await discord.picture(await bot.imagine())

    assert [request.mode for request in bot.executor.requests] == ["small", "other"]


async def test_a_choice_is_taken_back(bot: Bot) -> None:
    here = Room(bot.discord.guild.channel_id, "pictures")
    await said(bot, "mode switch", mode="other", channel=here)
    first = await said(bot, "mode reset", channel=here)
    second = await told(bot, "mode reset", values={"channel": here})
    await said(bot, "mode switch", mode="other")
    third = await said(bot, "mode reset")
    await bot.discord.picture(await bot.imagine())
    audit = await told(bot, "server audit")

    assert first == f"<#{here.id}> has no mode of its own any more: it draws with **Small**."
    assert second == f"<#{here.id}> had no mode of its own; it draws with **Small**."
    assert third == "This server has no mode of its own any more: it draws with **Small**."
    assert bot.executor.requests[0].mode == "small"
    assert audit.count("none of its own") == 2


# Roles


async def test_a_mode_is_for_the_roles_that_the_server_says(
    tmp_path: Path, discord: DiscordDouble
) -> None:
    artists = await discord.add_role("artists")
    async with running_bot(tmp_path, discord) as bot:
        answer = await told(
            bot, "mode roles", values={"mode": "other", "roles": f"<@&{artists.id}>"}
        )
    async with running_bot(tmp_path, discord) as bot:
        values = {"mode": "other"}
        refused = await discord.private_word(await bot.imagine(values=values))
        await discord.picture(await bot.imagine())
        await discord.picture(await bot.imagine(values=values, roles=[artists]))
        info = await told(bot, "mode info", values=values)
        rules = await told(bot, "server show")
        opened = await told(bot, "mode roles", values={**values, "roles": "all"})
        await discord.picture(await bot.imagine(values=values))
        audit = await told(bot, "server audit")

    assert answer == f"In this server **Other_One** is for <@&{artists.id}>."
    assert unescaped(refused.content) == (
        f"In this server the mode Other_One is for members with a role: <@&{artists.id}>."
    )
    assert answer in info
    assert f"**Modes for some roles:** other: <@&{artists.id}>" in rules
    assert opened == "In this server **Other_One** is for everybody."
    assert audit.count("Modes for some roles") == 2


async def test_again_needs_the_role_as_well(bot: Bot) -> None:
    artists = await bot.discord.add_role("artists")
    picture = await bot.discord.picture(await bot.imagine(values={"mode": "other"}))
    await told(bot, "mode roles", values={"mode": "other", "roles": "artists"})

    word = await bot.discord.private_word(await bot.discord.click(picture, "Again"))

    assert f"for members with a role: <@&{artists.id}>" in unescaped(word.content)
    assert len(bot.executor.requests) == 1


@pytest.mark.parametrize(
    "values",
    [
        {"mode": "nope", "roles": "all"},
        {"mode": "other", "roles": "nobody"},
        {"mode": "other", "roles": "<#1>"},
        {"mode": "other", "roles": "x" * 6000},
    ],
)
async def test_a_role_or_mode_that_is_none_is_refused(bot: Bot, values: dict[str, str]) -> None:
    assert "is not allowed. Allowed: " in await told(bot, "mode roles", values=values)
    assert await told(bot, "server audit") == "Nothing was changed yet."


# Who may


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("mode switch", {"mode": "other"}),
        ("mode reset", {}),
        ("mode roles", {"mode": "other", "roles": "all"}),
    ],
)
async def test_changing_modes_needs_manage_server(
    bot: Bot, line: str, values: dict[str, str]
) -> None:
    asked = await bot.discord.slash(line, values=values, overridden=True)

    word = await bot.discord.private_word(asked)

    assert word.content == "Only members with the permission Manage Server may do that."
    assert await told(bot, "server audit") == "Nothing was changed yet."


@pytest.mark.parametrize("line", ["mode reload", "mode load", "mode unload"])
async def test_what_concerns_all_servers_is_for_those_who_run_the_bot(bot: Bot, line: str) -> None:
    values = {} if line == "mode reload" else {"mode": "other"}

    word = await told(bot, line, values=values)

    assert word.startswith("This concerns all servers")
    assert await told(bot, "server audit") == "Nothing was changed yet."
    assert "load" not in {call[0] for call in bot.executor.calls}


async def test_members_find_the_modes_without_being_let_in_anywhere(bot: Bot) -> None:
    listed = await bot.discord.private_word(await bot.discord.slash("modes"))
    one = await bot.discord.private_word(await bot.discord.slash("modes", values={"mode": "other"}))
    direct = await bot.discord.private_word(await bot.discord.slash("modes", direct=True))

    assert "`small` (in use here)" in listed.content
    assert one.content.startswith(r"**Other\_One**")
    assert "GB" not in listed.content + one.content + direct.content


# Those who run the bot


async def test_who_runs_the_bot_loads_unloads_and_reads_the_modes_again(
    tmp_path: Path, discord: DiscordDouble
) -> None:
    owner = User(OWNER, "olga")
    async with running_bot(tmp_path, discord, discord_operators=(str(OWNER),)) as bot:
        await bot.executor.until(lambda: bot.executor.alive)

        async def told_owner(line: str, **values: str) -> str:
            asked = await discord.slash(line, values=values, user=owner, permissions=MANAGE_GUILD)
            return unescaped((await discord.answer(asked)).content)

        loaded = await told_owner("mode load", mode="other")
        listed = await told_owner("mode list")
        info = await told_owner("mode info", mode="other")
        unloaded = await told_owner("mode unload", mode="other")
        without = await told_owner("mode info", mode="other")
        bot.executor.load_errors[bot.app.catalog.get("small").model.key] = ModelError(
            tmp_path / "small.safetensors", "broken"
        )
        broken = await told_owner("mode load", mode="small")
        path = bot.app.catalog.path
        fine = path.read_text()
        path.write_text(fine.replace("max_size: 128", "max_sise: 128"))
        refused = await told_owner("mode reload")
        path.write_text(fine.replace("other:", "third:"))
        taken = await told_owner("mode reload")
        unknown = await told_owner("mode load", mode="other")
        audit = await told_owner("server audit")

    assert loaded == "**Other_One** is loaded.\n`fake:0` ▱▱▱▱▱▱▱▱▱▱ 0.0 of 1 GB"
    assert "64x64, 2 steps, loaded" in listed
    assert listed.endswith("`fake:0` ▱▱▱▱▱▱▱▱▱▱ 0.0 of 1 GB")
    assert info.endswith("**Loaded:**\n`fake:0` ▱▱▱▱▱▱▱▱▱▱ 0.0 of 1 GB")
    assert unloaded.startswith("**Other_One** is not loaded any more")
    assert without.endswith("-# not loaded")
    assert "broken" in broken
    assert str(tmp_path) not in broken
    assert refused.startswith("**The modes file can't be used; what was before stays:**")
    assert "Did you mean max_size?" in refused
    assert taken == "The modes are read again: small, third."
    assert "Allowed: small, third" in unknown
    assert [line.rpartition("olga: ")[2] for line in audit.splitlines()] == [
        "Read the modes again",
        "Read the modes again: refused",
        "Unloaded: other",
        "Loaded: other",
    ]


async def test_the_owner_of_the_application_runs_the_bot(bot: Bot) -> None:
    asked = await bot.discord.slash(
        "mode reload", user=bot.discord.world.bot, permissions=MANAGE_GUILD
    )

    assert (await bot.discord.answer(asked)).content.startswith("The modes are read again")
