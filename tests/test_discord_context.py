"""A message's own menu: remixing any picture, and how a picture was made."""

import asyncio
import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from engine.images import Parameters, encode_png, format_parameters
from tests.discord_double import DiscordDouble, Message
from tests.discord_kit import Bot, running_bot, unescaped

pytest_plugins = ["tests.discord_kit"]

REMIX, DETAILS = "Remix this picture", "Picture details"
WORDS, STRENGTH, WHICH = "What to draw", "How much to draw anew, above 0 to 1", "Which picture"

# As AUTOMATIC1111's web UI writes it.
ELSEWHERE = Parameters(
    "a castle, <lora:ink:1>",
    "blur",
    {"Steps": "20", "Sampler": "DPM++ 2M", "CFG scale": "7", "Seed": "5", "Size": "40x80"},
)


def png(parameters: Parameters | None = None, size: tuple[int, int] = (40, 80)) -> bytes:
    image = Image.new("RGB", size, "orange")
    if parameters:
        return encode_png(image, format_parameters(parameters))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


async def post(bot: Bot, *contents: bytes, name: str = "a.png", **more: Any) -> Message:
    """Has somebody else post pictures, without a word to the bot."""
    eve = bot.discord.world.add_user("eve")
    files = [bot.discord.attach(name, content) for content in contents]
    return await bot.discord.say("look", user=eve, files=files, **more)


async def told(bot: Bot, message: Message, entry: str = DETAILS) -> str:
    asked = await bot.discord.menu(entry, message)
    return unescaped((await bot.discord.private_word(asked)).content)


async def test_any_picture_is_remixed_with_the_words_that_its_file_has(bot: Bot) -> None:
    message = await post(bot, png(ELSEWHERE))

    asked = await bot.discord.menu(REMIX, message)
    form = await bot.discord.form(asked)
    sent = await bot.discord.submit(asked, {WORDS: "a ruin --seed 9", STRENGTH: "0.5"})
    await bot.discord.picture(sent)

    assert form == {WORDS: "a castle, <lora:ink:1>", STRENGTH: "0.75"}
    (request,) = bot.executor.requests
    assert (request.prompt, request.seed, request.strength) == ("a ruin", 9, 0.5)
    assert (request.width, request.height) == (64, 128)
    with Image.open(request.source or "") as source:
        assert source.size == (40, 80)


async def test_one_of_several_of_the_bots_own_pictures_is_remixed_after_a_restart(
    tmp_path: Path, discord: DiscordDouble
) -> None:
    async with running_bot(tmp_path, discord) as bot:
        values = {"count": 3, "mode": "other", "seed": 7}
        message = await discord.picture(await bot.imagine("a cat", values=values))
        asked = await discord.menu(REMIX, message)
        form = await discord.form(asked)
    async with running_bot(tmp_path, discord) as bot:
        sent = await discord.submit(asked, {WHICH: "2", WORDS: "a dog"})
        await discord.picture(sent)
        job, first = await bot.app.studio.history(f"discord:{discord.user.id}")

    assert form == {WORDS: "a cat", STRENGTH: "0.75", WHICH: "0"}
    (request,) = bot.executor.requests
    assert (request.prompt, request.mode) == ("a dog", "other")
    assert job.parent is not None
    assert (job.parent.job_id, job.parent.number) == (first.id, 2)
    third = bot.app.studio.image_path(first.images[2])
    with Image.open(request.source or "") as source, Image.open(third) as kept:
        assert source.getpixel((0, 0)) == kept.getpixel((0, 0))


async def test_a_picture_is_known_by_its_file_where_another_one_was_taken_away(bot: Bot) -> None:
    message = await bot.discord.picture(await bot.imagine("a cat", values={"count": 3}))
    del message.attachments[0]

    asked = await bot.discord.menu(REMIX, message)
    await bot.discord.picture(await bot.discord.submit(asked, {WHICH: "1", WORDS: "a dog"}))

    job, _ = await bot.app.studio.history(f"discord:{bot.discord.user.id}")
    assert job.parent is not None
    assert job.parent.number == 2


async def test_a_pictures_own_words_in_the_form_are_drawn_as_they_are_unless_changed(
    bot: Bot,
) -> None:
    message = await bot.discord.picture(await bot.imagine(r"a \{red, blue\} poster \--sale"))

    asked = await bot.discord.menu(REMIX, message)
    form = await bot.discord.form(asked)
    await bot.discord.picture(await bot.discord.submit(asked, {}))
    asked = await bot.discord.menu(REMIX, message)
    changed = await bot.discord.submit(asked, {WORDS: "a {red, blue} poster"})
    question = await bot.discord.private_word(changed)

    assert form[WORDS] == "a {red, blue} poster --sale"
    assert [request.prompt for request in bot.executor.requests] == [form[WORDS]] * 2
    assert list(question.buttons) == ["Draw 2 pictures", "Don't"]


async def test_a_form_is_drawn_for_whom_it_was_shown_to_alone(bot: Bot) -> None:
    asked = await bot.discord.menu(REMIX, await post(bot, png()))
    eve = bot.discord.world.add_user("eve")

    sent = await bot.discord.submit(asked, {WORDS: "a fox"}, user=eve)

    word = await bot.discord.private_word(sent)
    assert word.content == "Only who asked for this may confirm it."
    assert not bot.executor.requests


async def test_a_picture_behind_a_link_is_taken_from_discords_own_copy(bot: Bot) -> None:
    copy = bot.discord.attach("copy.png", png())
    hostile = "http://169.254.169.254/latest"
    embed = {"type": "image", "image": {"url": hostile, "proxy_url": copy.payload()["url"]}}
    message = await post(bot, embeds=[embed])

    asked = await bot.discord.menu(REMIX, message)
    await bot.discord.picture(await bot.discord.submit(asked, {WORDS: "a fox"}))

    assert len(bot.executor.requests) == 1


@pytest.mark.parametrize("words", ["a secret", "a secret {cat, dog}"])
async def test_a_remix_of_a_private_answer_is_private_after_a_restart_too(
    tmp_path: Path, discord: DiscordDouble, words: str
) -> None:
    async with running_bot(tmp_path, discord) as bot:
        first = await bot.imagine("a secret", values={"private": True})
        private = await discord.until(
            lambda: first.answer if first.answer and first.answer.attachments else None
        )
        assert private is not None
        asked = await discord.menu(REMIX, private)
        await discord.form(asked)
    async with running_bot(tmp_path, discord) as bot:
        sent = await discord.submit(asked, {WORDS: words})
        if "{" in words:
            question = await discord.private_word(sent)
            sent = await discord.click(question, "Draw 2 pictures")
        drawn = 2 if "{" in words else 1
        await bot.executor.until(lambda: len(bot.executor.requests) == drawn)
        jobs = await bot.app.studio.history(f"discord:{discord.user.id}")
        for job in jobs:
            async for _ in bot.app.studio.watch(job.id):
                pass
        await bot.app.outbox.rest()

    assert all(message.ephemeral for message in discord.world.messages.values())
    assert [job.origin.address["private"] for job in jobs] == [True] * (drawn + 1)


async def test_a_remix_of_a_public_answer_is_public_though_it_was_asked_for_in_private(
    bot: Bot,
) -> None:
    first = await bot.imagine("a secret", values={"private": True})
    private = await bot.discord.until(
        lambda: first.answer if first.answer and first.answer.attachments else None
    )
    assert private is not None
    await bot.discord.private_word(await bot.discord.click(private, "Share"))
    (shared,) = [m for m in bot.discord.world.messages.values() if not m.ephemeral]

    asked = await bot.discord.menu(REMIX, shared)
    remixed = await bot.discord.picture(await bot.discord.submit(asked, {}))

    assert not remixed.ephemeral


async def test_braces_in_the_form_are_confirmed(bot: Bot) -> None:
    asked = await bot.discord.menu(REMIX, await post(bot, png()))

    sent = await bot.discord.submit(asked, {WORDS: "a {cat, dog}"})
    question = await bot.discord.private_word(sent)
    pressed = await bot.discord.click(question, "Draw 2 pictures")
    await bot.discord.until(lambda: len([m for m in pressed.followups if m.attachments]) == 2)

    assert [request.source is not None for request in bot.executor.requests] == [True, True]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({WORDS: "a", STRENGTH: "much"}, "strength: 'much' is not allowed. Allowed: a number"),
        ({WORDS: "a", STRENGTH: "nan"}, "strength: 'nan' is not allowed."),
        ({WORDS: "a --foo"}, "parameter: '--foo' is not allowed."),
    ],
)
async def test_a_form_that_can_not_be_meant_is_refused(
    bot: Bot, values: dict[str, str], words: str
) -> None:
    asked = await bot.discord.menu(REMIX, await post(bot, png()))

    sent = await bot.discord.submit(asked, values)

    assert words in unescaped((await bot.discord.private_word(sent)).content)
    assert not bot.executor.requests


async def test_a_form_that_was_kept_open_for_days_says_so(bot: Bot) -> None:
    asked = await bot.discord.menu(REMIX, await post(bot, png()))
    await bot.discord.form(asked)
    assert asked.modal is not None
    asked.modal["custom_id"] = "dream:remix:AAAAAAAAAAAAAAAA"

    sent = await bot.discord.submit(asked, {WORDS: "a fox"})

    word = await bot.discord.private_word(sent)
    assert word.content.startswith("This is no longer valid")


@pytest.mark.parametrize("content", [b"", png()[:30], b"\x89PNG\r\n\x1a\n" + b"\xff" * 99, b"GIF"])
async def test_a_file_that_is_no_picture_is_told_when_it_is_drawn_from(
    bot: Bot, content: bytes
) -> None:
    message = await post(bot, content)

    asked = await bot.discord.menu(REMIX, message)
    sent = await bot.discord.submit(asked, {WORDS: "a fox"})
    word = unescaped((await bot.discord.private_word(sent)).content)

    assert "Allowed: a PNG, JPEG, WebP or GIF picture" in word
    assert await told(bot, message) == "Its file doesn't say how it was made."


async def test_the_form_does_not_wait_for_a_file_that_takes_long(bot: Bot) -> None:
    gate = asyncio.Event()
    bot.discord.fail("cdn", until=gate, times=1)

    asked = await bot.discord.menu(REMIX, await post(bot, png(ELSEWHERE)))
    form = await bot.discord.form(asked)

    gate.set()
    assert form[WORDS] == ""


async def test_a_message_without_a_picture_has_nothing_to_offer(bot: Bot) -> None:
    message = await post(bot, b"words", name="notes.txt")

    for entry in (REMIX, DETAILS):
        assert await told(bot, message, entry) == "There is no picture in this message."


async def test_details_come_from_the_store_or_from_the_file(bot: Bot) -> None:
    own = await bot.discord.picture(await bot.imagine("a cat --seed 7"))
    forged = await post(bot, png(), name=own.attachments[0].filename)
    foreign = await post(bot, png(ELSEWHERE), png())

    mine = await told(bot, own)
    theirs = await told(bot, foreign)

    assert "a cat" in mine
    assert "7" in mine
    assert theirs.splitlines() == [
        "**Picture 1:** **a castle, <lora:ink:1>**",
        "-# without blur",
        "-# Steps 20 · Sampler DPM++ 2M · CFG scale 7 · Seed 5 · Size 40x80",
        "**Picture 2:** Its file doesn't say how it was made.",
    ]
    # Whose message it is counts, not what its file is called.
    assert await told(bot, forged) == "Its file doesn't say how it was made."


async def test_details_of_hostile_files_are_words_and_name_nobody(bot: Bot) -> None:
    prompt = "@everyone <@1> **bold** " + "x" * 5000
    message = await post(bot, png(Parameters(prompt, "y" * 5000, {"Steps": "`1`", "A": "z" * 900})))

    asked = await bot.discord.menu(DETAILS, message)
    word = await bot.discord.private_word(asked)

    assert len(word.content) <= 2000
    assert "<@1>" not in word.content
    assert word.pinged == ()


async def test_the_menus_are_offered_where_the_owner_wants_it(
    tmp_path: Path, discord: DiscordDouble
) -> None:
    async with running_bot(tmp_path, discord, discord_user_install=True) as bot:
        message = await post(bot, png())
        asked = await discord.menu(REMIX, message, installed=False)
        await discord.picture(await discord.submit(asked, {WORDS: "a fox"}, installed=False))

        assert len(bot.executor.requests) == 1
