"""Messages as requests: naming the bot, writing to it alone, replying to one of its pictures."""

import io
from pathlib import Path

import pytest
from PIL import Image

from engine.testing import FakeExecutor
from tests.discord_double import DiscordDouble, Message
from tests.discord_double.double import MANAGE_GUILD
from tests.discord_kit import Bot, running_bot, unescaped

pytest_plugins = ["tests.discord_kit"]


def picture(colour: str = "orange", size: tuple[int, int] = (40, 80)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


def named(bot: Bot, words: str) -> str:
    return f"<@{bot.discord.world.bot.id}> {words}"


async def drawn(bot: Bot, message: Message) -> Message:
    """Waits until the reply to a message holds a finished picture."""
    reply = await bot.discord.reply(message)
    await bot.discord.until(lambda: "Again" in reply.buttons, "a picture")
    await bot.app.outbox.rest()
    return reply


async def jobs(bot: Bot) -> int:
    return len(await bot.app.studio.history(f"discord:{bot.discord.user.id}"))


async def test_naming_the_bot_asks_for_a_picture_and_the_answer_replies(bot: Bot) -> None:
    eve = bot.discord.world.add_user("eve")
    words = f"a red circle for <@{eve.id}> <:party:123> \u2014seed 7 --v 6"

    asked = await bot.discord.say(named(bot, words))
    reply = await drawn(bot, asked)

    (request,) = bot.executor.requests
    assert (request.prompt, request.seed) == ("a red circle for eve party", 7)
    assert reply.channel_id == bot.discord.guild.channel_id
    assert "-# --v has no meaning here and was left out" in unescaped(reply.content)
    assert len(reply.attachments) == 1
    assert reply.pinged == ()
    own = [m for m in bot.discord.world.messages.values() if m.author == bot.discord.world.bot]
    assert own == [reply]


async def test_the_answer_shows_progress_and_can_be_taken_back(held: Bot) -> None:
    asked = await held.discord.say(named(held, "a red circle"))
    reply = await held.discord.reply(asked)
    job_id = await held.drawing()

    held.executor.report(job_id, step=2)
    await held.discord.until(lambda: "step 2 of 4" in reply.content)
    await held.discord.click(reply, "Cancel")
    await held.discord.until(lambda: "Cancelled." in reply.content)

    assert reply.pinged == ()


async def test_writing_to_the_bot_alone_needs_no_name(bot: Bot) -> None:
    reply = await drawn(bot, await bot.discord.say("a red circle", direct=True))

    assert bot.executor.requests[0].prompt == "a red circle"
    assert reply.channel_id == bot.discord.user.id


async def test_a_picture_that_came_along_is_what_is_drawn_from(bot: Bot) -> None:
    notes = bot.discord.attach("notes.txt", b"words")
    photo = bot.discord.attach("photo.png", picture())

    await drawn(bot, await bot.discord.say(named(bot, "a fox"), files=[notes, photo]))
    asked = await bot.discord.say(named(bot, "a fox"), files=[notes])
    refused = await bot.discord.reply(asked)

    (request,) = bot.executor.requests
    assert request.source is not None
    assert (request.width, request.height) == (64, 128)
    assert "Allowed: a PNG, JPEG, WebP or GIF picture" in refused.content


async def test_replying_to_a_picture_of_the_bots_remixes_it(bot: Bot) -> None:
    first = await drawn(bot, await bot.discord.say(named(bot, "a cat --mode other --count 2")))

    asked = await bot.discord.say(named(bot, "as a dog"), replies_to=first)
    await drawn(bot, asked)
    silent = await bot.discord.say(named(bot, ""), replies_to=first)
    await drawn(bot, silent)

    _, second, third = bot.executor.requests
    assert (second.prompt, second.mode, second.strength) == ("as a dog", "other", 0.75)
    assert third.prompt == "a cat"
    with Image.open(second.source or "") as source:
        assert source.size == (64, 64)
    newest, *_ = await bot.app.studio.history(f"discord:{bot.discord.user.id}")
    assert newest.parent is not None
    assert (newest.parent.number, newest.parent.kinship) == (0, "remix")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (r"a \{red, blue\} cat", "a {red, blue} cat"),
        (r"poster \--sale", "poster --sale"),
        (r"poster \--steps 3", "poster --steps 3"),
        (r"\\{a, b\}", r"\{a, b}"),
    ],
)
async def test_a_reply_without_words_draws_from_the_pictures_own_as_they_are(
    bot: Bot, typed: str, meant: str
) -> None:
    first = await drawn(bot, await bot.discord.say(named(bot, typed)))

    silent = await bot.discord.say(named(bot, ""), replies_to=first)
    await drawn(bot, silent)

    assert [request.prompt for request in bot.executor.requests] == [meant, meant]
    assert {request.steps for request in bot.executor.requests} == {4}


async def test_words_of_a_reply_are_read_like_any_others(bot: Bot) -> None:
    first = await drawn(bot, await bot.discord.say(named(bot, "a cat")))

    await drawn(bot, await bot.discord.say(named(bot, "a dog --steps 3"), replies_to=first))
    word = await bot.discord.reply(
        await bot.discord.say(named(bot, "a {red, blue} dog"), replies_to=first)
    )

    assert (bot.executor.requests[1].prompt, bot.executor.requests[1].steps) == ("a dog", 3)
    assert list(word.buttons) == ["Draw 2 pictures", "Don't"]


async def test_a_reply_without_the_name_is_small_talk(bot: Bot) -> None:
    first = await drawn(bot, await bot.discord.say(named(bot, "a cat")))

    # As a reply with its bell on: the bot is named, though not in the words.
    await bot.discord.say("how nice", replies_to=first)
    await drawn(bot, await bot.discord.say(named(bot, "a dog")))

    assert [request.prompt for request in bot.executor.requests] == ["a cat", "a dog"]


async def test_bots_webhooks_and_messages_to_others_ask_for_nothing(bot: Bot) -> None:
    discord = bot.discord
    eve = discord.world.add_user("eve")

    await discord.say(named(bot, "one"), user=discord.world.bot)
    await discord.say(named(bot, "two"), webhook_id=5)
    await discord.say(f"<@{eve.id}> three")
    await discord.say("four")
    await drawn(bot, await discord.say(named(bot, "five")))

    assert [request.prompt for request in bot.executor.requests] == ["five"]


async def test_a_message_that_discord_tells_twice_is_one_request(
    tmp_path: Path, discord: DiscordDouble
) -> None:
    async with running_bot(tmp_path, discord) as bot:
        asked = await discord.say(named(bot, "a cat"))
        await discord.tell(asked, guild=discord.guild)
        await drawn(bot, asked)
        await discord.tell(asked, guild=discord.guild)
        await drawn(bot, await discord.say(named(bot, "a dog")))
        assert await jobs(bot) == 2
    async with running_bot(tmp_path, discord) as bot:
        await discord.tell(asked, guild=discord.guild)
        await drawn(bot, await discord.say(named(bot, "a fox")))

        assert await jobs(bot) == 3
        assert [request.prompt for request in bot.executor.requests] == ["a fox"]


async def test_a_resume_that_replays_a_message_makes_no_second_job(bot: Bot) -> None:
    discord = bot.discord
    asked = await discord.say(named(bot, "a cat"))
    await drawn(bot, asked)
    session = discord.gateway.live
    assert session is not None
    assert session.line is not None
    session.line.cut()
    await discord.until(lambda: session.line is None)
    # What was sent while the line was down, and the earlier message once more.
    await discord.gateway.dispatch(
        "MESSAGE_CREATE",
        {**asked.seen_by(discord.world.bot, direct=False), "guild_id": str(discord.guild.id)},
    )

    await discord.until(lambda: discord.gateway.live)
    await drawn(bot, await discord.say(named(bot, "a dog")))

    assert [request.prompt for request in bot.executor.requests] == ["a cat", "a dog"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("a --foo", "parameter: '--foo' is not allowed. Allowed: --ar"),
        ("a --mode @everyone", "mode: '@everyone' is not allowed. Allowed: small, other."),
        ("--seed 7", "prompt: nothing is not allowed."),
        ("", "Write what to draw beside my name, such as: <@"),
    ],
)
async def test_a_refusal_replies_and_names_nobody(bot: Bot, words: str, told: str) -> None:
    reply = await bot.discord.reply(await bot.discord.say(named(bot, words)))

    assert told in unescaped(reply.content)
    assert reply.pinged == ()
    assert not bot.executor.requests


async def test_a_servers_rules_hold_for_messages_too(bot: Bot) -> None:
    values = {"blocked_words": "frog", "pictures_per_day": 1}
    asked = await bot.discord.slash("server set", values=values, permissions=MANAGE_GUILD)
    await bot.discord.private_word(asked)

    word = await bot.discord.reply(await bot.discord.say(named(bot, "a Frog")))
    await drawn(bot, await bot.discord.say(named(bot, "a cat")))
    quota = await bot.discord.reply(await bot.discord.say(named(bot, "a dog")))

    assert "doesn't want the word frog" in word.content
    assert "you have 0 left" in quota.content
    assert await jobs(bot) == 1


async def test_braces_in_a_message_are_confirmed_by_who_wrote_it(bot: Bot) -> None:
    question = await bot.discord.reply(await bot.discord.say(named(bot, "a {red, blue} cat")))
    eve = bot.discord.world.add_user("eve")

    foreign = await bot.discord.private_word(
        await bot.discord.click(question, "Draw 2 pictures", user=eve)
    )
    pressed = await bot.discord.click(question, "Draw 2 pictures")
    await bot.discord.until(lambda: len([m for m in pressed.followups if m.attachments]) == 2)

    assert foreign.content == "Only who asked for this may confirm it."
    assert sorted(r.prompt for r in bot.executor.requests) == ["a blue cat", "a red cat"]


async def test_more_combinations_than_may_wait_are_refused_before_anybody_confirms_them(
    tmp_path: Path, discord: DiscordDouble
) -> None:
    async with running_bot(tmp_path, discord, queue_max_per_owner=4) as bot:
        words = "a {red, green, blue, grey, pink} cat"
        refused = await discord.reply(await discord.say(named(bot, words)))
        likewise = await discord.private_word(await bot.imagine(words))
        question = await discord.private_word(await bot.imagine("a {red, green, blue, grey} cat"))
        await discord.click(question, "Draw 4 pictures")
        await discord.until(lambda: question.content == "Drawing: 4 requests.")

    for word in (refused, likewise):
        assert unescaped(word.content) == (
            "prompt: '5 combinations' is not allowed. "
            "Allowed: at most 4 at once; fewer words between { }."
        )
        assert word.buttons == {}


async def test_combinations_that_may_not_wait_yet_are_told_how_many_do_and_may_be_confirmed_later(
    tmp_path: Path, discord: DiscordDouble
) -> None:
    executor = FakeExecutor(hold=True)
    async with running_bot(tmp_path, discord, executor, queue_max_per_owner=4) as bot:
        await discord.answer(await bot.imagine("running"))
        running = await bot.drawing()
        for words in ("one", "two", "three"):
            await discord.answer(await bot.imagine(words))
        question = await discord.private_word(await bot.imagine("a {red, blue} cat"))

        refused = await discord.private_word(await discord.click(question, "Draw 2 pictures"))
        executor.finish(running)
        await executor.until(lambda: bool(executor.running) and running not in executor.running)
        await discord.click(question, "Draw 2 pictures")
        await discord.until(lambda: question.content == "Drawing: 2 requests.")

    assert unescaped(refused.content) == (
        "2 requests are too many beside the 3 that you have waiting; at most 4 may wait at once. "
        "Ask again when fewer of them wait."
    )


async def test_where_the_bot_may_not_write_it_makes_a_sign_and_draws_nothing(
    tmp_path: Path, discord: DiscordDouble
) -> None:
    async with running_bot(tmp_path, discord, FakeExecutor(hold=True)) as bot:
        discord.world.forbidden.add(discord.guild.channel_id)
        asked = await discord.say(named(bot, "a cat"))
        await discord.until(lambda: asked.reactions)
        discord.world.unreacted.add(discord.guild.channel_id)
        await discord.say(named(bot, "a dog"))
        await discord.until(lambda: discord.calls_to("direct_channel"))
        direct = await discord.until(
            lambda: next(
                (
                    m
                    for m in discord.world.messages.values()
                    if m.channel_id == discord.user.id and m.author == discord.world.bot
                ),
                None,
            )
        )
        discord.world.closed.add(discord.user.id)
        await discord.say(named(bot, "a fox"))
        await discord.until(lambda: [c for c in discord.calls_to("send") if c.code == 50007])
        discord.world.forbidden.clear()
        reply = await discord.reply(await discord.say(named(bot, "a hen")))

        history = await bot.app.studio.history(f"discord:{discord.user.id}")

    assert asked.reactions == ["\N{NO ENTRY SIGN}"]
    assert direct is not None
    assert direct.content == (
        f"I may not write in <#{discord.guild.channel_id}>. Ask me here, or in another channel."
    )
    assert reply is not None
    assert [job.status.value for job in history][1:] == ["cancelled"] * 3


async def test_where_the_bot_may_not_attach_pictures_it_says_where_they_are(bot: Bot) -> None:
    for route in ("edit", "send"):
        bot.discord.fail(route, where=lambda call: bool(call.files), status=403, code=50013)

    reply = await bot.discord.reply(await bot.discord.say(named(bot, "a cat")))
    await bot.discord.until(lambda: "I may not attach pictures here" in reply.content)
    await bot.app.outbox.rest()
    results = await bot.discord.private_word(await bot.discord.slash("results"))

    assert reply.buttons == {}
    assert len(results.attachments) == 1


async def test_an_answer_that_is_lost_on_the_way_comes_once(bot: Bot) -> None:
    bot.discord.fail("send", status=0, processed=True, times=1)

    asked = await bot.discord.say(named(bot, "a cat"))
    await bot.discord.until(lambda: len(bot.executor.requests) == 1)
    await bot.discord.until(
        lambda: [m for m in bot.discord.world.messages.values() if "Again" in m.buttons]
    )
    await bot.app.outbox.rest()

    results = [m for m in bot.discord.world.messages.values() if "Again" in m.buttons]
    assert len(results) == 1
    assert results[0].replies_to is asked


async def test_a_restart_in_the_middle_goes_on_in_the_same_answer(
    tmp_path: Path, discord: DiscordDouble
) -> None:
    async with running_bot(tmp_path, discord, FakeExecutor(hold=True)) as bot:
        asked = await discord.say(named(bot, "a cat"))
        reply = await discord.reply(asked)
        await bot.drawing()
        await bot.app.store.note_address("unknown", "answer_id", 1)  # written after the answer's
    discord.clock.advance(minutes=40)
    async with running_bot(tmp_path, discord) as bot:
        done = await drawn(bot, asked)

    assert done is reply
    assert reply.attachments


async def test_an_answer_that_somebody_deleted_comes_anew(held: Bot) -> None:
    asked = await held.discord.say(named(held, "a cat"))
    first = await held.discord.reply(asked)
    job_id = await held.drawing()
    first.deleted = True
    held.executor.finish(job_id)

    second = await held.discord.reply(asked)

    assert second is not first
    assert second.attachments


async def test_direct_messages_are_refused_where_the_owner_wants_that(
    tmp_path: Path, discord: DiscordDouble
) -> None:
    async with running_bot(tmp_path, discord, discord_direct=False) as bot:
        reply = await discord.reply(await discord.say("a cat", direct=True))

        assert reply.content == "Drawing in direct messages is switched off; ask in a server."
        assert not bot.executor.requests
