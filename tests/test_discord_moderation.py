"""What a server allows: settings, blocks, denials, the audit; over the whole way to Discord."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bot.rules import Nsfw
from engine.errors import DrawingError
from tests.discord_double import DiscordDouble, Message
from tests.discord_double.commands import NotOffered
from tests.discord_double.double import MANAGE_GUILD, MANAGE_MESSAGES
from tests.discord_double.world import Role, User
from tests.discord_kit import MODES, Bot, running_bot, unescaped

pytest_plugins = ["tests.discord_kit"]

NSFW_MODES = MODES.replace("    title: Other_One", "    title: Other_One\n    nsfw: true")


async def told(bot: Bot, line: str, permissions: int = 0, **options: Any) -> str:
    """Types a command and returns the private answer as it is read."""
    values = options.pop("values", {})
    asked = await bot.discord.slash(line, values=values, permissions=permissions, **options)
    return unescaped((await bot.discord.private_word(asked)).content)


async def decree(bot: Bot, **values: Any) -> str:
    """Has an admin change settings."""
    return await told(bot, "server set", MANAGE_GUILD, values=values)


async def denied(bot: Bot, prompt: str = "a red circle", **options: Any) -> str:
    """Types ``/imagine``, which must be refused in private, and returns the reason."""
    before = len(bot.executor.requests)
    word = await bot.discord.private_word(await bot.imagine(prompt, **options))
    assert len(bot.executor.requests) == before
    return unescaped(word.content)


async def drawn(bot: Bot, prompt: str = "a red circle", **options: Any) -> Message:
    return await bot.discord.picture(await bot.imagine(prompt, **options))


# Settings


async def test_settings_are_shown_changed_one_by_one_and_survive_a_restart(
    tmp_path: Path, discord: DiscordDouble
) -> None:
    async with running_bot(tmp_path, discord) as bot:
        first = await told(bot, "server show", MANAGE_GUILD)
        await decree(bot, pictures_per_day=10, blocked_words="Gore, red flag")
        await decree(bot, cooldown=30)
    async with running_bot(tmp_path, discord) as bot:
        shown = (await told(bot, "server show", MANAGE_GUILD)).splitlines()

    assert "**Pictures per member and day:** no limit" in first
    assert "**Pictures per member and day:** 10" in shown
    assert "**Time between two requests of a member:** 30 s" in shown
    assert "**Blocked words:** gore, red flag" in shown
    assert "**Channels to draw in:** all" in shown


async def test_settings_are_taken_back(bot: Bot) -> None:
    role = await bot.discord.add_role("artists")
    await decree(bot, channels="pictures", roles=f"<@&{role.id}>", blocked_words="gore", waiting=1)

    shown = await decree(bot, channels="all", roles="ALL", blocked_words=",", waiting=0)

    assert "**Channels to draw in:** all" in shown
    assert "**Roles that may draw:** everybody" in shown
    assert "**Blocked words:** none" in shown
    await drawn(bot, "gore")


async def test_nothing_changed_says_so_and_leaves_no_trace(bot: Bot) -> None:
    assert (await decree(bot)).startswith("Nothing has changed.")
    assert await told(bot, "server audit", MANAGE_GUILD) == "Nothing was changed yet."


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("channels", "<#1>"),
        ("channels", "nowhere"),
        ("channels", "1"),
        ("channels", "<@&1>"),
        ("channels", " "),
        ("roles", "<@&1>"),
        ("roles", "'; DROP TABLE rules; --"),
        ("roles", "@nobody"),
        ("blocked_words", "x" * 4000),
    ],
)
async def test_a_value_that_is_none_is_refused_and_changes_nothing(
    bot: Bot, setting: str, value: str
) -> None:
    assert "is not allowed. Allowed: " in await decree(bot, **{setting: value})
    assert await told(bot, "server audit", MANAGE_GUILD) == "Nothing was changed yet."


async def test_servers_have_rules_of_their_own(bot: Bot) -> None:
    elsewhere = bot.discord.world.add_guild("Elsewhere")
    await decree(bot, blocked_words="gore")

    await drawn(bot, "gore", guild=elsewhere)
    await drawn(bot, "gore", direct=True)
    await denied(bot, "gore")


# Who may


@pytest.mark.parametrize("line", ["server show", "server set", "server audit"])
async def test_members_may_not_administrate_even_where_the_command_was_opened(
    bot: Bot, line: str
) -> None:
    with pytest.raises(NotOffered, match="hidden"):
        await bot.discord.slash(line, permissions=MANAGE_MESSAGES)

    answer = await told(bot, line, MANAGE_MESSAGES, overridden=True)

    assert answer == "Only members with the permission Manage Server may do that."


@pytest.mark.parametrize("line", ["block", "unblock", "why"])
async def test_members_may_not_moderate_even_where_the_command_was_opened(
    bot: Bot, line: str
) -> None:
    eve = bot.discord.world.add_user("eve")

    answer = await told(bot, line, overridden=True, values={"member": eve})

    assert answer == "Only members with the permission Manage Messages may do that."
    await drawn(bot, user=eve)


# Denials


async def block(bot: Bot, member: User, reason: str = "spam") -> str:
    mod = bot.discord.world.add_user("mod")
    values = {"member": member, "reason": reason}
    return await told(bot, "block", MANAGE_MESSAGES, values=values, user=mod)


async def test_who_is_blocked_is_told_by_whom_and_why_until_they_are_unblocked(bot: Bot) -> None:
    before = await drawn(bot)
    said = await block(bot, bot.discord.user)

    reason = await denied(bot)
    again = await bot.discord.private_word(await bot.discord.click(before, "Again"))
    job = before.buttons["Again"]["custom_id"].split(":")[2]
    shown = await told(bot, "show", values={"id": job})
    await drawn(bot, direct=True)
    values = {"member": bot.discord.user}
    freed = await told(bot, "unblock", MANAGE_MESSAGES, values=values)
    once_more = await told(bot, "unblock", MANAGE_MESSAGES, values=values)

    assert "can't draw in this server any more: spam." in said
    assert reason == "mod has blocked you from drawing in this server: spam."
    assert unescaped(again.content) == shown == reason
    assert freed.endswith("may draw in this server again.")
    assert once_more.endswith("was not blocked.")
    await drawn(bot)


async def test_a_block_survives_a_restart(tmp_path: Path, discord: DiscordDouble) -> None:
    async with running_bot(tmp_path, discord) as bot:
        await block(bot, discord.user, "")
    async with running_bot(tmp_path, discord) as bot:
        assert await denied(bot) == (
            "mod has blocked you from drawing in this server; no reason was given."
        )


async def test_a_reason_that_is_too_long_is_refused_and_blocks_nobody(bot: Bot) -> None:
    said = await block(bot, bot.discord.user, "x" * 4000)

    assert said == "reason: '4000 characters' is not allowed. Allowed: at most 300 characters."
    await drawn(bot)


async def test_a_hostile_reason_pings_and_formats_nothing(bot: Bot) -> None:
    await block(bot, bot.discord.user, "@everyone **x** [a](https://evil.example) <@1>\n# big")

    word = await bot.discord.private_word(await bot.imagine())

    assert "\\*\\*x\\*\\*" in word.content
    assert "\n" not in word.content
    assert word.pinged == ()


async def test_a_role_is_needed_where_the_server_says_so(bot: Bot) -> None:
    role = await bot.discord.add_role("artists")
    await decree(bot, roles="artists")

    reason = await denied(bot)
    await drawn(bot, roles=[role])

    assert reason == f"Drawing in this server is for members with a role: <@&{role.id}>."


async def test_channels_that_are_not_allowed_refuse_and_threads_count_as_theirs(
    tmp_path: Path, discord: DiscordDouble
) -> None:
    art = discord.world.add_room(discord.guild, "art")
    thread = discord.world.add_room(discord.guild, "a thread", parent_id=art.id)
    stray = discord.world.add_room(discord.guild, "another", parent_id=discord.guild.channel_id)
    async with running_bot(tmp_path, discord) as bot:
        await decree(bot, channels=f"<#{art.id}>")

        reason = await denied(bot)
        await denied(bot, room=stray)
        await drawn(bot, room=art)
        await drawn(bot, room=thread)

    assert reason == f"Nobody draws in this channel. Channels for that: <#{art.id}>."


@pytest.mark.parametrize("prompt", ["gore", "some (GO)RE", "g\u200bore", "\uff27ore and more"])
async def test_blocked_words_refuse_and_are_named(bot: Bot, prompt: str) -> None:
    await decree(bot, blocked_words="gore")

    reason = await denied(bot, prompt)
    await denied(bot, "x", values={"negative": prompt})

    assert reason == "This server doesn't want the word gore in requests."


async def test_a_picture_from_elsewhere_with_a_blocked_word_is_neither_shown_nor_repeated(
    bot: Bot,
) -> None:
    before = await drawn(bot, "gore")
    await decree(bot, blocked_words="gore")
    job = before.buttons["Again"]["custom_id"].split(":")[2]

    shown = await told(bot, "show", values={"id": job})
    pressed = await bot.discord.click(before, "Vary")

    assert shown == "This server doesn't want the word gore in requests."
    assert unescaped((await bot.discord.private_word(pressed)).content) == shown


async def test_a_cooldown_says_when_it_ends_and_is_each_members_own(bot: Bot) -> None:
    await decree(bot, cooldown=3600)
    await drawn(bot)

    reason = await denied(bot)
    await drawn(bot, user=bot.discord.world.add_user("eve"))

    assert reason.startswith("This server allows a request every 3600 s: you may ask again <t:")


async def test_only_so_many_may_be_under_way(held: Bot) -> None:
    await decree(held, waiting=2)
    await held.discord.answer(await held.imagine())
    first = await held.drawing()
    await held.discord.answer(await held.imagine())

    word = unescaped((await held.discord.private_word(await held.imagine())).content)

    assert word.startswith("You have 2 under way; this server allows 2 of one member at once.")
    held.executor.finish(first)
    async for _ in held.app.studio.watch(first):
        pass
    shown = await held.discord.answer(await held.imagine())
    assert not shown.ephemeral


async def test_pictures_of_a_day_are_counted_and_the_rest_is_told(bot: Bot) -> None:
    await decree(bot, pictures_per_day=3)
    await drawn(bot, values={"count": 2})

    reason = await denied(bot, values={"count": 2})
    await drawn(bot)
    nothing = await denied(bot)
    me = await told(bot, "me")

    assert "allows 3 pictures of one member a day; you have 1 left and asked for 2." in reason
    assert "you have 0 left and asked for 1." in nothing
    assert "**Left here:** 0 pictures of 3 today (until 00:00 UTC)" in me


@pytest.mark.parametrize("end", ["fails", "cancelled"])
async def test_what_fails_or_is_cancelled_uses_nothing_up(held: Bot, end: str) -> None:
    await decree(held, pictures_per_day=1)
    await held.discord.answer(await held.imagine())
    job = await held.drawing()
    assert "0 left" in await denied(held)

    if end == "fails":
        held.executor.fail(job, DrawingError("no"))
    else:
        await told(held, "cancel", values={"id": job})
    async for _ in held.app.studio.watch(job):
        pass

    assert not (await held.discord.answer(await held.imagine())).ephemeral


async def test_two_requests_at_once_cannot_share_the_last_picture(held: Bot) -> None:
    await decree(held, pictures_per_day=1)

    asked = [await held.imagine(f"p{number}") for number in range(5)]
    answers = [await held.discord.answer(each) for each in asked]

    assert sorted(message.ephemeral for message in answers) == [False, True, True, True, True]


async def test_the_first_reason_in_order_is_told(bot: Bot) -> None:
    role = await bot.discord.add_role("artists")
    await drawn(bot)
    await decree(bot, roles="artists", blocked_words="gore", cooldown=3600, pictures_per_day=1)
    await block(bot, bot.discord.user)

    blocked = await denied(bot, "gore")
    await told(bot, "unblock", MANAGE_MESSAGES, values={"member": bot.discord.user})
    without_role = await denied(bot, "gore")
    words = await denied(bot, "gore", roles=[role])
    cooldown = await denied(bot, roles=[role])
    await decree(bot, cooldown=0)
    quota = await denied(bot, roles=[role])

    assert "has blocked you" in blocked
    assert "with a role" in without_role
    assert "the word gore" in words
    assert "a request every" in cooldown
    assert "pictures of one member a day" in quota


# NSFW


async def test_nsfw_modes_are_for_age_restricted_channels(
    tmp_path: Path, discord: DiscordDouble
) -> None:
    adults = discord.world.add_room(discord.guild, "adults", nsfw=True)
    thread = discord.world.add_room(discord.guild, "thread", parent_id=adults.id)
    values = {"mode": "other"}
    async with running_bot(tmp_path, discord, modes=NSFW_MODES) as bot:
        reason = await denied(bot, values=values)
        direct = await denied(bot, values=values, direct=True)
        shown = await drawn(bot, values=values, room=adults)
        await drawn(bot, values=values, room=thread)
        job = shown.buttons["Again"]["custom_id"].split(":")[2]
        posted = await told(bot, "show", values={"id": job})
        history = await discord.private_word(await discord.slash("history"))

    assert reason == "The mode Other_One is NSFW, which is for age-restricted channels alone."
    assert direct == posted == reason
    assert not shown.attachments[0].filename.startswith("SPOILER_")
    assert all(each.filename.startswith("SPOILER_") for each in history.attachments)


async def test_an_nsfw_picture_that_comes_as_a_direct_message_is_covered(
    tmp_path: Path, discord: DiscordDouble
) -> None:
    adults = discord.world.add_room(discord.guild, "adults", nsfw=True)
    async with running_bot(tmp_path, discord, modes=NSFW_MODES) as bot:
        await told(bot, "settings", values={"ping": "direct message"})
        shown = await drawn(bot, values={"mode": "other"}, room=adults)
        await bot.app.outbox.rest()
        direct = [
            message
            for message in discord.world.messages.values()
            if message.channel_id == discord.user.id and message.attachments
        ]

    assert not shown.attachments[0].filename.startswith("SPOILER_")
    assert [m.attachments[0].filename.startswith("SPOILER_") for m in direct] == [True]


async def test_a_server_may_have_nsfw_pictures_as_spoilers_in_every_channel(
    tmp_path: Path, discord: DiscordDouble
) -> None:
    values = {"mode": "other"}
    async with running_bot(tmp_path, discord, modes=NSFW_MODES) as bot:
        await decree(bot, nsfw="everywhere, as spoilers")
        covered = await drawn(bot, values=values)
        again = await discord.picture(await discord.click(covered, "Again"))
        job = covered.buttons["Again"]["custom_id"].split(":")[2]
        shown = await discord.picture(await discord.slash("show", values={"id": job}))
        plain = await drawn(bot, values={"mode": "small"})
        direct = await denied(bot, values=values, direct=True)

    for message in (covered, again, shown):
        assert message.attachments[0].filename.startswith("SPOILER_")
    assert not plain.attachments[0].filename.startswith("SPOILER_")
    assert "age-restricted" in direct


RENAMED = NSFW_MODES.replace("  other:", "  lewd:")
REUSED = (
    RENAMED
    + """
  other:
    model: small.safetensors
    default_size: 64x64
    min_size: 64
"""
)


def forget_what_is_nsfw(folder: Path) -> None:
    """Leaves rows as they were before it was noted."""
    with closing(sqlite3.connect(folder / "dreamlab.db")) as db:
        db.execute("UPDATE jobs SET request = json_remove(request, '$.nsfw')")
        db.commit()


@pytest.mark.parametrize(
    ("modes", "is_noted"),
    [(RENAMED, True), (RENAMED, False), (REUSED, True)],
    ids=["renamed", "renamed, of before it was noted", "name taken by another"],
)
async def test_an_nsfw_picture_stays_one_whatever_becomes_of_its_mode(
    tmp_path: Path, discord: DiscordDouble, modes: str, is_noted: bool
) -> None:
    adults = discord.world.add_room(discord.guild, "adults", nsfw=True)
    async with running_bot(tmp_path, discord, modes=NSFW_MODES) as bot:
        await decree(bot, nsfw="everywhere, as spoilers")
        before = await drawn(bot, values={"mode": "other"})
        job = before.buttons["Again"]["custom_id"].split(":")[2]
    if not is_noted:
        forget_what_is_nsfw(tmp_path)
    (tmp_path / "modes.yaml").write_text(modes.format(root=tmp_path), encoding="utf-8")
    async with running_bot(tmp_path, discord) as bot:
        covered = await discord.picture(await discord.slash("show", values={"id": job}))
        await decree(bot, nsfw=Nsfw.RESTRICTED.value)
        shown = await told(bot, "show", values={"id": job})
        refused = await discord.private_word(await discord.click(before, "Upscale"))
        asked = await discord.slash("show", values={"id": job}, room=adults)
        there = await discord.picture(asked)
        large = await discord.picture(await discord.click(there, "Upscale", room=adults))
        larger = large.buttons["Again"]["custom_id"].split(":")[2]
        shown_large = await told(bot, "show", values={"id": larger})

    reason = "This picture counts as NSFW, which is for age-restricted channels alone."
    assert shown == unescaped(refused.content) == shown_large == reason
    assert covered.attachments[0].filename.startswith("SPOILER_")
    for message in (there, large):
        assert not message.attachments[0].filename.startswith("SPOILER_")


async def test_a_picture_that_was_not_nsfw_is_shown_everywhere_though_its_mode_is_gone(
    tmp_path: Path, discord: DiscordDouble
) -> None:
    async with running_bot(tmp_path, discord) as bot:
        message = await drawn(bot, values={"mode": "other"})
        job = message.buttons["Again"]["custom_id"].split(":")[2]
    (tmp_path / "modes.yaml").write_text(RENAMED.format(root=tmp_path), encoding="utf-8")
    async with running_bot(tmp_path, discord) as bot:
        shown = await discord.picture(await discord.slash("show", values={"id": job}))
        large = await discord.picture(await discord.click(shown, "Upscale"))

    for message in (shown, large):
        assert not message.attachments[0].filename.startswith("SPOILER_")


# Audit and why


async def test_the_audit_names_who_changed_what_newest_first_and_ten_at_most(bot: Bot) -> None:
    await decree(bot, cooldown=5)
    await block(bot, bot.discord.user, "spam")
    await told(bot, "unblock", MANAGE_MESSAGES, values={"member": bot.discord.user})
    asked = await bot.discord.slash(
        "mode switch", values={"mode": "other"}, permissions=MANAGE_GUILD
    )
    await bot.discord.answer(asked)

    lines = (await told(bot, "server audit", MANAGE_GUILD)).splitlines()
    for number in range(1, 10):
        await decree(bot, waiting=number)
    later = (await told(bot, "server audit", MANAGE_GUILD)).splitlines()

    assert [line.split("> ", 1)[1] for line in lines] == [
        "ada: Mode: other",
        "ada: Unblocked: ada",
        "mod: Blocked: ada, spam",
        "ada: Time between two requests of a member: no limit → 5 s",
    ]
    assert len(later) == 10
    assert later[0].endswith("Requests under way per member: 8 → 9")


async def test_why_tells_every_reason_that_somebody_would_meet_here(bot: Bot) -> None:
    eve = bot.discord.world.add_user("eve")
    role: Role = await bot.discord.add_role("artists")
    fine = await told(bot, "why")
    await drawn(bot, user=eve)
    await decree(bot, roles="artists", pictures_per_day=1)
    await block(bot, eve)

    reasons = await told(bot, "why", MANAGE_MESSAGES, values={"member": eve})
    bot.discord.guild.held[eve.id] = [role]
    fewer = await told(bot, "why", MANAGE_MESSAGES, values={"member": eve})
    own = await told(bot, "why")

    assert fine == f"<@{bot.discord.user.id}> may draw here, with Small at least."
    assert len(reasons.splitlines()) == 4
    assert "mod has blocked you" in reasons
    assert "with a role" in reasons
    assert "with a role" not in fewer
    assert "a day" in fewer
    assert "with a role" in own


async def test_bots_are_not_blocked(bot: Bot) -> None:
    assert await block(bot, bot.discord.world.bot) == (
        "Bots don't draw, so there is nothing to block."
    )


# Work, and what moderators do to others' requests


async def test_work_of_a_day_is_used_up_survives_deletion_and_is_told(
    tmp_path: Path, discord: DiscordDouble
) -> None:
    # 64x128 in 4 steps are 0.033 million.
    async with running_bot(tmp_path, discord) as bot:
        await decree(bot, work_per_day=1)
        await drawn(bot, values={"count": 4, "steps": 29})
        left = await told(bot, "me")
        asked = await discord.slash("mydata forget")
        question = await discord.private_word(asked)
        await discord.click(question, "Delete all of it")
        await discord.until(lambda: not _rows(tmp_path, "jobs"), "the end of the rows")
        reason = await denied(bot, values={"count": 4, "steps": 29})
        await drawn(bot)

    assert "0.0497 million pixel-steps of 1 today" in left
    assert reason.startswith(
        "This server allows 1 million pixel-steps of one member a day; you have 0.0497 left and "
        "asked for 0.95."
    )


async def test_what_moderators_cancel_and_delete_stands_in_the_audit(held: Bot) -> None:
    discord = held.discord
    moderator = User(800000, "mo")
    first = await held.imagine("first")
    running = await held.drawing()
    second = await held.imagine("second")
    await discord.answer(second)
    waiting = next(job for job in _rows_of(held) if job != running)

    await told(held, "cancel", MANAGE_MESSAGES, user=moderator, values={"id": waiting})
    held.executor.finish(running)
    picture = await discord.picture(first)
    await discord.click(picture, "Delete", user=moderator, permissions=MANAGE_MESSAGES)
    await discord.until(lambda: picture.deleted or not picture.attachments, "no picture")
    own = await held.imagine("third")
    await discord.click(await discord.answer(own), "Cancel")
    await discord.until(lambda: "Cancelled" in (own.answer.content if own.answer else ""), "an end")
    audit = await told(held, "server audit", MANAGE_GUILD)

    lines = audit.splitlines()
    assert len(lines) == 2, "what somebody does to their own is nobody's business"
    assert f"mo: Deleted the pictures of a request: {discord.user.name}, {running}" in lines[0]
    assert f"mo: Cancelled a request: {discord.user.name}, {waiting}" in lines[1]


def _rows(folder: Path, table: str) -> list[str]:
    with closing(sqlite3.connect(folder / "dreamlab.db")) as db:
        return [str(row[0]) for row in db.execute(f"SELECT id FROM {table}")]  # noqa: S608 # ours


def _rows_of(bot: Bot) -> list[str]:
    return _rows(bot.app.settings.data, "jobs")
