"""Ways to ask beside plain options: parameters, sizes by name, braces, in private; own defaults."""

import json
import sqlite3
import zipfile
from contextlib import closing
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from bot.store_preferences import MOST_WISHES
from bot.wishes import Wish
from engine.testing import FakeExecutor
from tests.discord_double import DiscordDouble, Interaction, Message
from tests.discord_double.double import MANAGE_GUILD
from tests.discord_double.world import EPHEMERAL
from tests.discord_kit import MODES, Bot, locked_database, refuse_jobs, running_bot, unescaped

pytest_plugins = ["tests.discord_kit"]


async def told(bot: Bot, asked: Interaction) -> str:
    """Returns what somebody is told in private."""
    return unescaped((await bot.discord.private_word(asked)).content)


def shown(bot: Bot) -> list[Message]:
    """Returns the messages that show finished pictures."""
    messages = bot.discord.world.messages.values()
    return [m for m in messages if m.attachments and "Again" in m.buttons and not m.deleted]


async def settings(bot: Bot, **values: Any) -> str:
    return await told(bot, await bot.discord.slash("settings", values=values))


async def jobs(bot: Bot) -> int:
    return len(await bot.app.studio.history(f"discord:{bot.discord.user.id}"))


# Parameters and sizes


async def test_parameters_behind_the_prompt_reach_the_drawing(bot: Bot) -> None:
    prompt = "a fox \u2014ar 1:2 --seed 7 --no text, blur --steps 30 \u2013count 2 --sampler DDIM"

    message = await bot.discord.picture(await bot.imagine(f"{prompt} --cfg 3.5 --mode OTHER_one"))

    (request,) = bot.executor.requests
    assert (request.prompt, request.negative_prompt) == ("a fox", "text, blur")
    assert (request.width, request.height) == (64, 88)
    assert (request.seed, request.steps, request.count) == (7, 30, 2)
    assert (request.sampler, request.guidance_scale, request.mode) == ("DDIM", 3.5, "other")
    assert unescaped(message.content).startswith("**a fox** for")


async def test_an_option_counts_more_than_a_parameter_and_the_reply_says_so(bot: Bot) -> None:
    asked = await bot.imagine("a fox --seed 7 --v 6", values={"seed": 8, "steps": 3})

    first = unescaped((await bot.discord.answer(asked)).shown[0])
    last = unescaped((await bot.discord.picture(asked)).content)

    assert bot.executor.requests[0].seed == 8
    for text in (first, last):
        assert "-# --v has no meaning here and was left out; seed: the option's 8 counts" in text


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("a --foo 3", "parameter: '--foo' is not allowed. Allowed: --ar --size --seed"),
        ("a --seed x", "seed: 'x' is not allowed. Allowed: a whole number from 0"),
        ("a --steps", "--steps: nothing is not allowed. Allowed: a number such as 30"),
        ("a --ar 0:1", "size: '0:1' is not allowed. Allowed: square, portrait"),
        ("a --strength 0.5", "strength: '0.5' is not allowed. Allowed: one beside a picture"),
        ("--seed 7", "prompt: nothing is not allowed."),
        ("{a,b}" * 9, "prompt: '512 combinations' is not allowed. Allowed: at most 10 at once"),
        ("a --mode @everyone", "mode: '@everyone' is not allowed. Allowed: small, other."),
        ("a --lora <@1>", "lora: '<@1>' is not allowed."),
    ],
)
async def test_what_can_not_be_meant_is_refused_with_what_is_allowed(
    bot: Bot, prompt: str, words: str
) -> None:
    assert words in await told(bot, await bot.imagine(prompt))
    assert not bot.executor.requests


async def test_what_is_a_little_off_is_brought_within_bounds_and_told(bot: Bot) -> None:
    values = {"size": "4096x2048", "steps": 500, "count": 9, "guidance": 99.0}
    off = await bot.discord.picture(await bot.imagine(values=values))
    odd = await bot.discord.picture(await bot.imagine(values={"size": "65x128", "guidance": 0.0}))

    first, second = bot.executor.requests
    assert (first.width, first.height, first.steps, first.count) == (128, 64, 100, 4)
    assert first.guidance_scale == 30
    assert (second.width, second.height, second.guidance_scale) == (64, 128, 1)
    text = unescaped(off.content)
    assert "size: 128x64 instead of 4096x2048; sides are multiples of 8 from 64 to 128" in text
    assert "steps: 100 instead of 500, the most in this mode" in text
    assert "count: 4 instead of 9" in text
    assert "guidance: 30 instead of 99" in text
    assert "size: 64x128 instead of 65x128" in unescaped(odd.content)


async def test_sizes_have_names(bot: Bot) -> None:
    sizes = ("Square", "portrait", "landscape", "16:9", "2/1")
    for size in sizes:
        await bot.discord.picture(await bot.imagine(values={"size": size}))

    drawn = [(request.width, request.height) for request in bot.executor.requests]
    assert drawn == [(88, 88), (72, 112), (112, 72), (120, 68 // 8 * 8), (128, 64)]


async def test_a_mode_of_fixed_sizes_takes_the_nearest_and_says_where_it_is_far(
    tmp_path: Path, discord: DiscordDouble
) -> None:
    fixed = MODES.replace("    max_size: 128\n", "    max_size: 128\n    sizes: [64x128, 96x96]\n")
    async with running_bot(tmp_path, discord, modes=fixed) as bot:
        message = await discord.picture(await bot.imagine("a --ar 16:9"))
        refused = await told(bot, await bot.imagine("a --size 64x96"))

    assert bot.executor.requests[0].width == 96
    assert "size: 96x96, as near to 16:9 as this mode comes" in unescaped(message.content)
    assert refused == "size: '64x96' is not allowed. Allowed: 64x128, 96x96."


# Braces


async def test_braces_are_drawn_once_they_are_confirmed_also_after_a_restart(
    tmp_path: Path, discord: DiscordDouble
) -> None:
    prompt = "a {red, blue} {cat, dog} --seed 7 --count 2"
    async with running_bot(tmp_path, discord) as bot:
        asked = await bot.imagine(prompt)
        question = await discord.private_word(asked)
        assert question.ephemeral
        assert unescaped(question.content).splitlines() == [
            "**This draws 8 pictures, in 4 requests:**",
            "- a red cat",
            "- a red dog",
            "- a blue cat",
            "- a blue dog",
        ]
        assert list(question.buttons) == ["Draw 8 pictures", "Don't"]
        assert not bot.executor.requests
    async with running_bot(tmp_path, discord) as bot:
        pressed = await discord.click(question, "Draw 8 pictures")
        await discord.until(lambda: len(shown(bot)) == 4)
        await bot.app.outbox.rest()

        drawn = [(request.prompt, request.seed) for request in bot.executor.requests]
        assert sorted(drawn) == [(f"a {c} {x}", 7) for c in ("blue", "red") for x in ("cat", "dog")]
        assert question.content == "Drawing: 4 requests."
        assert question.buttons == {}
        assert all(message in pressed.followups for message in shown(bot))
        assert [len(message.attachments) for message in shown(bot)] == [2, 2, 2, 2]
        stale = next(iter(question.buttons), None)
        assert stale is None


async def test_a_confirmation_pressed_twice_draws_once_and_says_so(bot: Bot) -> None:
    question = await bot.discord.private_word(await bot.imagine("a {red, blue} cat"))
    buttons = question.components

    await bot.discord.click(question, "Draw 2 pictures")
    await bot.discord.until(lambda: len(shown(bot)) == 2)
    question.components = buttons
    word = await told(bot, await bot.discord.click(question, "Draw 2 pictures"))

    assert word.startswith("This is no longer valid: it was confirmed or taken back before")
    assert len(bot.executor.requests) == 2


async def test_what_is_not_confirmed_is_not_drawn(bot: Bot) -> None:
    question = await bot.discord.private_word(await bot.imagine("a {red, blue} cat"))
    buttons = question.components
    eve = bot.discord.world.add_user("eve")

    foreign = await told(bot, await bot.discord.click(question, "Draw 2 pictures", user=eve))
    await bot.discord.click(question, "Don't")
    await bot.discord.until(lambda: question.content == "Nothing is drawn.")
    question.components = buttons
    word = await told(bot, await bot.discord.click(question, "Draw 2 pictures"))

    assert foreign == "Only who asked for this may confirm it."
    assert word.startswith("This is no longer valid")
    assert await jobs(bot) == 0


async def test_braces_are_all_drawn_or_none_and_may_be_confirmed_again(bot: Bot) -> None:
    await bot.discord.private_word(
        await bot.discord.slash(
            "server set", values={"pictures_per_day": 3}, permissions=MANAGE_GUILD
        )
    )
    question = await bot.discord.private_word(await bot.imagine("{a, b, c, d}"))

    word = await told(bot, await bot.discord.click(question, "Draw 4 pictures"))

    assert "allows 3 pictures of one member a day; you have 3 left and asked for 4." in word
    assert await jobs(bot) == 0
    await bot.discord.private_word(
        await bot.discord.slash(
            "server set", values={"pictures_per_day": 4}, permissions=MANAGE_GUILD
        )
    )
    await bot.discord.click(question, "Draw 4 pictures")
    await bot.discord.until(lambda: len(shown(bot)) == 4)


async def test_what_fails_for_a_reason_nobody_foresaw_may_be_confirmed_again(
    bot: Bot, tmp_path: Path
) -> None:
    question = await bot.discord.private_word(await bot.imagine("a {red, blue} cat"))
    with locked_database(tmp_path) as database:
        refuse_jobs(database, "a bug")
    await told(bot, await bot.discord.click(question, "Draw 2 pictures"))
    with locked_database(tmp_path) as database:
        database.execute("DROP TRIGGER refusal")

    await bot.discord.click(question, "Draw 2 pictures")

    await bot.discord.until(lambda: len(shown(bot)) == 2)


async def test_braces_are_no_way_around_the_time_between_two_requests(bot: Bot) -> None:
    await bot.discord.private_word(
        await bot.discord.slash("server set", values={"cooldown": 60}, permissions=MANAGE_GUILD)
    )
    question = await bot.discord.private_word(await bot.imagine("{a, b}"))

    word = await told(bot, await bot.discord.click(question, "Draw 2 pictures"))

    assert "allows a request every 60 s, and this would be 2 at once" in word
    assert await jobs(bot) == 0


async def test_braces_that_come_to_one_request_need_no_confirmation(
    tmp_path: Path, discord: DiscordDouble
) -> None:
    async with running_bot(tmp_path, discord, permutations_max=2) as bot:
        await discord.picture(await bot.imagine(r"a {red} \{cat, dog\} {b, b}"))
        refused = await told(bot, await bot.imagine("{a, b, c}"))

    assert bot.executor.requests[0].prompt == "a {red} {cat, dog} b"
    assert "Allowed: at most 2 at once" in refused


# In private


async def test_a_private_answer_is_seen_by_its_asker_until_they_share_it(bot: Bot) -> None:
    asked = await bot.imagine("a fox", values={"private": True})
    message = await bot.discord.until(
        lambda: asked.original if asked.original and "Share" in asked.original.buttons else None
    )
    assert message is not None
    assert message.ephemeral
    assert message.attachments
    eve = bot.discord.world.add_user("eve")
    (job,) = await bot.app.studio.history(f"discord:{bot.discord.user.id}")
    hidden = await told(bot, await bot.discord.slash("show", values={"id": job.id}, user=eve))
    foreign = await told(bot, await bot.discord.click(message, "Share", user=eve))
    before = message.components

    first = await told(bot, await bot.discord.click(message, "Share"))
    await bot.discord.until(lambda: message.buttons["Share"].get("disabled"))
    message.components = before  # as somebody sees it whose program is slow
    second = await told(bot, await bot.discord.click(message, "Share"))

    (posted,) = [m for m in shown(bot) if not m.ephemeral]
    assert "is not allowed" in hidden
    assert foreign == "Only who asked for this may share it."
    assert first == second
    assert first.endswith(f"/{bot.discord.guild.channel_id}/{posted.id}")
    assert f"for <@{bot.discord.user.id}>" in posted.content
    assert "Share" not in posted.buttons
    await bot.discord.picture(await bot.discord.slash("show", values={"id": job.id}, user=eve))


async def test_what_came_as_a_direct_message_is_shared_with_nobody_by_that(bot: Bot) -> None:
    await settings(bot, ping="direct message")
    asked = await bot.imagine("a secret", values={"private": True})
    await bot.discord.until(lambda: asked.answer and asked.answer.attachments)
    await bot.app.outbox.rest()
    (direct,) = [m for m in shown(bot) if not m.ephemeral]
    (job,) = await bot.app.studio.history(f"discord:{bot.discord.user.id}")
    eve = bot.discord.world.add_user("eve")

    word = await told(bot, await bot.discord.click(direct, "Share", direct=True))
    hidden = await told(bot, await bot.discord.slash("show", values={"id": job.id}, user=eve))

    assert word == "This can be shared where you asked for it, and nowhere else."
    assert "is not allowed" in hidden
    assert [m for m in shown(bot) if not m.ephemeral] == [direct]


async def test_what_was_deleted_is_not_shared(bot: Bot) -> None:
    asked = await bot.imagine("a secret", values={"private": True})
    await bot.discord.until(lambda: asked.answer and asked.answer.attachments)
    assert asked.answer
    (job,) = await bot.app.studio.history(f"discord:{bot.discord.user.id}")
    await bot.app.studio.delete(job.id, job.owner)

    word = await told(bot, await bot.discord.click(asked.answer, "Share"))

    assert word == "This picture is not there any more: it was deleted."
    assert all(m.ephemeral for m in bot.discord.world.messages.values())


async def test_what_is_shared_where_the_bot_may_not_write_is_shared_all_the_same(bot: Bot) -> None:
    asked = await bot.imagine("{a, b}", values={"private": True})
    question = await bot.discord.private_word(asked)
    pressed = await bot.discord.click(question, "Draw 2 pictures")
    await bot.discord.until(lambda: len([m for m in pressed.followups if m.attachments]) == 2)
    bot.discord.world.forbidden.add(bot.discord.guild.channel_id)

    clicked = await bot.discord.click(pressed.followups[0], "Share")
    posted = await bot.discord.until(
        lambda: next((m for m in clicked.followups if m.attachments), None)
    )

    assert posted
    assert not posted.ephemeral
    assert all(message.ephemeral for message in pressed.followups)


async def test_a_private_result_later_than_its_token_waits_for_results(held: Bot) -> None:
    await held.discord.answer(await held.imagine("late", values={"private": True}))
    job_id = await held.drawing()
    held.discord.clock.advance(minutes=16)
    held.executor.finish(job_id)
    async for _ in held.app.studio.watch(job_id):
        pass
    await held.app.outbox.rest()

    results = await held.discord.private_word(await held.discord.slash("results"))

    assert held.discord.calls_to("send") == []
    assert "late" in results.content
    assert len(results.attachments) == 1


async def test_what_takes_long_in_private_is_thought_of_in_private(
    bot: Bot, tmp_path: Path
) -> None:
    with closing(sqlite3.connect(tmp_path / "dreamlab.db", isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        asked = await bot.imagine(values={"private": True})
        await bot.discord.until(lambda: asked.acknowledged == 5)
        db.execute("COMMIT")

    await bot.discord.until(lambda: asked.original and asked.original.attachments)

    assert asked.original
    assert asked.original.flags & EPHEMERAL


# Own defaults


async def test_own_defaults_count_where_nothing_is_said_also_after_a_restart(
    tmp_path: Path, discord: DiscordDouble
) -> None:
    async with running_bot(tmp_path, discord) as bot:
        nothing = await settings(bot)
        kept = await settings(bot, mode="Other_One", size="16 : 9", ping="ping")
    async with running_bot(tmp_path, discord) as bot:
        await discord.picture(await bot.imagine("one"))
        await discord.picture(await bot.imagine("two", values={"mode": "small", "size": "square"}))
        again = await settings(bot)
        back = await settings(bot, mode="default", size="Default", ping="quiet")
        await discord.picture(await bot.imagine("three"))

    drawn = [(r.mode, r.width, r.height) for r in bot.executor.requests]
    assert "mode: the one of where you ask" in nothing
    assert "quiet: the answer changes and nothing rings" in nothing
    assert kept.replace("Kept. ", "") == again
    assert "- mode: other\n- size: 16:9\n- ping: a word below" in again
    assert "- mode: the one of where you ask\n- size: the one of the mode" in back
    assert drawn == [("other", 88, 64), ("small", 88, 88), ("small", 64, 128)]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"mode": "@everyone"}, "mode: '@everyone' is not allowed. Allowed: small, other."),
        ({"size": "huge"}, "size: 'huge' is not allowed. Allowed: square"),
        ({"size": "0:0"}, "size: '0:0' is not allowed."),
        ({"size": "0x64"}, "size: '0x64' is not allowed."),
    ],
)
async def test_defaults_that_can_not_be_are_refused(
    bot: Bot, values: dict[str, str], words: str
) -> None:
    assert words in await settings(bot, **values)
    assert "mode: the one of where you ask" in await settings(bot)


async def test_a_default_size_that_a_mode_does_not_have_gives_way_to_the_nearest(
    tmp_path: Path, discord: DiscordDouble
) -> None:
    modes = MODES + "    sizes: [64x64, 64x128]\n"
    async with running_bot(tmp_path, discord, modes=modes) as bot:
        await settings(bot, size="72x128", mode="other")
        message = await discord.picture(await bot.imagine())
        refused = await told(bot, await bot.imagine(values={"size": "72x128"}))
        await settings(bot, size="64x64")
        exact = await discord.picture(await bot.imagine())

    assert [(r.width, r.height) for r in bot.executor.requests] == [(64, 128), (64, 64)]
    assert "size: 64x128 instead of your 72x128, by this mode" in message.content
    assert "instead" not in exact.content
    assert "72x128" in refused


async def test_what_a_parameter_said_in_vain_is_not_repeated_to_all(bot: Bot) -> None:
    asked = await bot.imagine("a fox --sampler rude words", values={"sampler": "DDIM"})

    message = await bot.discord.picture(asked)

    assert "sampler: the option's DDIM counts, not --sampler" in unescaped(message.content)
    assert "rude" not in message.content


async def test_a_default_mode_that_is_not_to_be_had_is_told(
    tmp_path: Path, discord: DiscordDouble
) -> None:
    async with running_bot(tmp_path, discord) as bot:
        await settings(bot, mode="other")
        (tmp_path / "modes.yaml").write_text(
            MODES.format(root=tmp_path).split("  other:")[0], encoding="utf-8"
        )
        await bot.app.catalog.reload()
        message = await discord.picture(await bot.imagine())

    assert "mode: Small instead of other, which is not to be had here" in message.content


async def test_who_wants_a_ping_gets_a_word_below_the_answer_once(bot: Bot) -> None:
    await settings(bot, ping="ping")
    bot.discord.fail("send", status=0, processed=True, times=1)

    message = await bot.discord.picture(await bot.imagine())
    word = await bot.discord.reply(message)
    await bot.app.outbox.rest()

    assert word.pinged == (bot.discord.user.id,)
    assert word.content == f"<@{bot.discord.user.id}> what you asked for is there."
    replies = [m for m in bot.discord.world.messages.values() if m.replies_to is message]
    assert replies == [word]


async def test_who_wants_a_direct_message_gets_the_picture_there(bot: Bot) -> None:
    await settings(bot, ping="direct message")

    message = await bot.discord.picture(await bot.imagine("a fox"))
    await bot.app.outbox.rest()
    (direct,) = [m for m in shown(bot) if m is not message]

    assert direct.channel_id == bot.discord.user.id
    assert len(direct.attachments) == 1
    link = f"/{bot.discord.guild.id}/{bot.discord.guild.channel_id}/{message.id}"
    assert direct.content.splitlines()[-1].endswith(link)


async def test_who_takes_no_direct_messages_has_the_answer_all_the_same(bot: Bot) -> None:
    await settings(bot, ping="direct message")
    bot.discord.world.closed.add(bot.discord.user.id)

    message = await bot.discord.picture(await bot.imagine("a fox"))
    await bot.app.outbox.rest()

    assert shown(bot) == [message]
    assert await bot.app.store.next_due(("discord",)) is None


@pytest.mark.parametrize("ping", ["quiet", "ping", "direct message"])
async def test_a_late_result_rings_as_its_asker_wants(held: Bot, ping: str) -> None:
    await settings(held, ping=ping)
    await held.discord.answer(await held.imagine("late"))
    job_id = await held.drawing()
    held.discord.clock.advance(minutes=16)
    held.executor.finish(job_id)

    (message,) = await held.discord.until(lambda: shown(held))

    own = held.discord.user.id
    assert message.pinged == ((own,) if ping == "ping" else ())
    expected = own if ping == "direct message" else held.discord.guild.channel_id
    assert message.channel_id == expected


async def test_an_open_question_alone_can_be_deleted(bot: Bot) -> None:
    question = await bot.discord.private_word(await bot.imagine("{a, b}"))

    asked = await bot.discord.private_word(await bot.discord.slash("mydata forget"))
    await bot.discord.click(asked, "Delete all of it")
    await bot.discord.until(lambda: asked.content.startswith("Deleted"))
    word = await told(bot, await bot.discord.click(question, "Draw 2 pictures"))

    assert word.startswith("This is no longer valid")


async def test_open_questions_of_one_member_are_bounded(bot: Bot) -> None:
    store, now = bot.app.store, datetime.now(UTC)
    for number in range(MOST_WISHES + 2):
        moment = now + timedelta(seconds=number)
        await store.keep_wish(f"wish-{number}", "discord:1", Wish(str(number)), moment)
    await store.keep_wish("other", "discord:2", Wish("other"), now)

    kept = await store.wishes_of("discord:1")

    assert [wish.prompt for wish in kept] == [str(n) for n in range(2, MOST_WISHES + 2)]
    assert len(await store.wishes_of("discord:2")) == 1


async def test_own_defaults_and_open_questions_are_exported_and_forgotten(
    bot: Bot, tmp_path: Path
) -> None:
    await settings(bot, size="portrait")
    await bot.discord.private_word(await bot.imagine("{a, b}"))

    export = await bot.discord.private_word(await bot.discord.slash("mydata export"))
    packed = zipfile.ZipFile(BytesIO(export.attachments[0].content))
    kept = json.loads(packed.read("settings.json"))
    (open_question,) = json.loads(packed.read("unconfirmed.json"))
    question = await bot.discord.private_word(await bot.discord.slash("mydata forget"))
    await bot.discord.click(question, "Delete all of it")
    await bot.discord.until(lambda: question.content.startswith("Deleted"))

    assert kept == {"mode": None, "size": "portrait", "ping": "quiet"}
    assert open_question["prompt"] == "{a, b}"
    with closing(sqlite3.connect(tmp_path / "dreamlab.db")) as db:
        assert db.execute("SELECT count(*) FROM preferences").fetchone() == (0,)
        assert db.execute("SELECT count(*) FROM wishes").fetchone() == (0,)


# Where


async def test_direct_messages_and_installs_of_ones_own_are_the_owners_to_allow(
    tmp_path: Path, discord: DiscordDouble
) -> None:
    async with running_bot(tmp_path, discord, FakeExecutor()) as bot:
        message = await discord.picture(await bot.imagine("here"))
        synced = {command["name"]: command for command in discord.world.commands or []}
        assert synced["imagine"]["contexts"] == [0, 1]
        assert synced["imagine"]["integration_types"] == [0]
    closed: dict[str, Any] = {"discord_direct": False, "discord_user_install": True}
    async with running_bot(tmp_path, discord, FakeExecutor(), **closed) as bot:
        synced = {command["name"]: command for command in discord.world.commands or []}
        assert synced["imagine"]["contexts"] == [0, 2]
        assert synced["imagine"]["integration_types"] == [0, 1]
        word = await told(bot, await discord.click(message, "Again", direct=True))
        brought = await discord.picture(await bot.imagine("brought along", installed=False))
        many = await told(bot, await bot.imagine("{1,2,3,4,5,6}", installed=False))

    assert word == "Drawing in direct messages is switched off; ask in a server."
    assert "brought along" in brought.content
    assert "at most 5 at once where you alone have brought the bot along" in many
