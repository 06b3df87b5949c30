"""The buttons and forms of an answer over real sockets: what one makes, sees and reports."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bot.records import JobRecord, Kinship
from bot.views import ended_view
from engine.testing import FakeExecutor
from tests.discord_double import DiscordDouble, Interaction, Message
from tests.discord_double.double import MANAGE_MESSAGES
from tests.discord_double.world import User
from tests.discord_kit import Bot, running_bot, unescaped
from tests.records_kit import a_job, a_request, an_image, done

pytest_plugins = ["tests.discord_kit"]


MODES_TO_256 = """
model_root: {root}
modes:
  small: {{model: small.safetensors, default_size: 64x128, max_size: 256, default_steps: 4}}
"""


@pytest.fixture
async def bot(tmp_path: Path, discord: DiscordDouble) -> AsyncIterator[Bot]:
    """A bot whose mode may draw pictures twice their size."""
    async with running_bot(tmp_path, discord, modes=MODES_TO_256) as running:
        yield running


@pytest.fixture
async def two(bot: Bot) -> Message:
    """A message with two pictures of the seeds 5 and 6."""
    return await bot.discord.picture(await bot.imagine(values={"seed": 5, "count": 2}))


async def press(bot: Bot, message: Message, label: str, **user: object) -> Message:
    """Presses a button and waits for the picture that it makes."""
    return await bot.discord.picture(await bot.discord.click(message, label, **user))


async def told(bot: Bot, message: Message, label: str, **user: object) -> Message:
    """Presses a button and waits for what only the member is told."""
    pressed = await bot.discord.click(message, label, **user)
    return await bot.discord.private_word(pressed)


def pictures(folder: Path) -> list[Path]:
    return list(folder.rglob("*.png"))


async def jobs_of(bot: Bot, user: User | None = None) -> list[JobRecord]:
    return await bot.app.studio.history(f"discord:{(user or bot.discord.user).id}")


# What stands under an answer


@pytest.mark.parametrize("pictures", range(1, 11))
def test_the_buttons_of_any_number_of_pictures_fit_under_a_message(pictures: int) -> None:
    job = done(a_job(request=a_request(count=pictures)))
    job = JobRecord(
        **{name: getattr(job, name) for name in job.__slots__ if name != "images"},
        images=tuple(an_image(job, number) for number in range(pictures)),
    )

    async def rows() -> list[dict[str, list[dict[str, str]]]]:
        return ended_view(job, frozenset({(Kinship.VARY, 0)})).to_components()

    components = asyncio.run(rows())
    ids = [button["custom_id"] for row in components for button in row["components"]]
    labels = [button["label"] for row in components for button in row["components"]]
    assert len(components) <= 5
    assert all(len(row["components"]) <= 5 for row in components)
    assert len(set(ids)) == 2 * pictures + 5
    assert all(len(custom_id) <= 100 for custom_id in ids)
    assert ("Vary ✓" if pictures == 1 else "V1 ✓") in labels


# Larger and varied


async def test_each_picture_has_its_own_buttons_and_the_used_one_shows_it(
    bot: Bot, two: Message
) -> None:
    large = await press(bot, two, "U2")
    varied = await press(bot, two, "V1")

    second, first = bot.executor.requests[-2:]
    assert (second.seed, second.width, second.height) == (6, 128, 256)
    assert (first.seed, first.width, first.height) == (5, 64, 128)
    assert "enlarged" in large.content
    assert "variation" in varied.content
    await bot.discord.until(lambda: {"U2 ✓", "V1 ✓"} <= set(two.buttons))
    assert {"U1", "V2"} <= set(two.buttons)


async def test_a_single_picture_has_buttons_of_plain_words(bot: Bot) -> None:
    message = await bot.discord.picture(await bot.imagine())

    assert list(message.buttons) == [
        "Upscale",
        "Vary",
        "Again",
        "Edit",
        "Details",
        "Report",
        "Delete",
    ]


async def test_a_picture_too_large_for_the_mode_says_that_no_model_drew_it(bot: Bot) -> None:
    message = await bot.discord.picture(await bot.imagine())
    large = await press(bot, message, "Upscale")

    larger = await press(bot, large, "Upscale")

    assert "Enlarged without a model: 256x512 is more than the mode small draws" in (
        unescaped(larger.content)
    )
    assert "256x512" in larger.content
    assert len(bot.executor.requests) == 2


async def test_many_who_press_at_once_get_one_child(tmp_path: Path, discord: DiscordDouble) -> None:
    executor = FakeExecutor(hold=True)
    async with running_bot(tmp_path, discord, executor) as bot:
        asked = await bot.imagine()
        executor.finish(await bot.drawing())
        message = await discord.picture(asked)
        crowd = [discord.world.add_user(f"member{number}") for number in range(6)]

        pressed = await asyncio.gather(
            *(discord.click(message, "Vary", user=user) for user in crowd)
        )
        child = await bot.drawing()
        answers = [await discord.answer(one) for one in pressed]

        assert len(executor.requests) == 2
        public = [answer for answer in answers if not answer.ephemeral]
        private = [answer for answer in answers if answer.ephemeral]
        assert (len(public), len(private)) == (1, 5)
        for word in private:
            assert f"This was asked for already (`{child}`)" in word.content
        executor.finish(child)
        await discord.until(lambda: public[0].attachments)


async def test_pressing_again_later_shows_the_child_to_the_one_who_did(
    bot: Bot, two: Message
) -> None:
    await press(bot, two, "V1")
    await bot.discord.until(lambda: "V1 ✓" in two.buttons)

    word = await told(bot, two, "V1 ✓", user=bot.discord.world.add_user("eve"))

    assert word.content.startswith("This was asked for already")
    assert word.attachments
    assert len(bot.executor.requests) == 2


async def test_the_pressed_button_works_after_a_restart(
    tmp_path: Path, discord: DiscordDouble
) -> None:
    async with running_bot(tmp_path, discord) as bot:
        message = await discord.picture(await bot.imagine())
    async with running_bot(tmp_path, discord) as bot:
        child = await press(bot, message, "Vary")
    async with running_bot(tmp_path, discord) as bot:
        word = await told(bot, message, "Vary ✓")
        assert word.attachments
        await press(bot, child, "Again")


async def test_an_answer_that_is_brought_once_more_still_shows_what_was_used(
    bot: Bot, two: Message
) -> None:
    job = (await jobs_of(bot))[0]
    await press(bot, two, "V1")
    await bot.discord.until(lambda: "V1 ✓" in two.buttons)
    edits = len(bot.discord.calls_to("edit_original"))

    await bot.app.store.postpone(job.id, datetime.now(UTC), "an answer was lost")
    await bot.app.outbox.rest()

    assert len(bot.discord.calls_to("edit_original")) > edits
    assert "V1 ✓" in two.buttons


async def test_a_private_answer_shows_what_was_used(bot: Bot) -> None:
    asked = await bot.imagine(values={"private": True})
    message = await bot.discord.until(
        lambda: asked.answer if asked.answer and asked.answer.attachments else None
    )
    assert message is not None
    assert message.ephemeral

    pressed = await bot.discord.click(message, "Vary")

    await bot.discord.until(lambda: "Vary ✓" in message.buttons)
    await bot.discord.until(lambda: pressed.answer and pressed.answer.attachments)


@pytest.mark.parametrize("label", ["Upscale", "Vary", "Again", "Edit"])
async def test_what_is_made_of_a_private_answer_is_private(bot: Bot, label: str) -> None:
    asked = await bot.imagine("a secret", values={"private": True})
    message = await bot.discord.until(
        lambda: asked.answer if asked.answer and asked.answer.attachments else None
    )
    assert message is not None

    pressed = await bot.discord.click(message, label)
    if label == "Edit":
        pressed = await bot.discord.submit(pressed, {})
    answer = await bot.discord.until(
        lambda: pressed.answer if pressed.answer and pressed.answer.attachments else None
    )

    assert answer is not None
    assert answer.ephemeral
    assert "Share" in answer.buttons
    assert all(shown.ephemeral for shown in bot.discord.world.messages.values())


async def test_a_private_child_of_a_shared_picture_is_shown_to_nobody_else(bot: Bot) -> None:
    asked = await bot.imagine("a secret", values={"private": True})
    message = await bot.discord.until(
        lambda: asked.answer if asked.answer and asked.answer.attachments else None
    )
    assert message is not None
    pressed = await bot.discord.click(message, "Vary")
    await bot.discord.until(lambda: pressed.answer and pressed.answer.attachments)
    await bot.discord.private_word(await bot.discord.click(message, "Share"))
    (posted,) = [m for m in bot.discord.world.messages.values() if not m.ephemeral]
    eve = bot.discord.world.add_user("eve")

    word = await told(bot, posted, "Vary", user=eve)

    assert word.content == "This was asked for already, in private."
    assert word.attachments == []
    assert len(bot.executor.requests) == 2


@pytest.mark.parametrize("is_drawn", [True, False])
async def test_a_child_from_a_direct_message_is_shown_to_its_asker_alone(
    tmp_path: Path, discord: DiscordDouble, is_drawn: bool
) -> None:
    executor = FakeExecutor(hold=True)
    async with running_bot(tmp_path, discord, executor) as bot:
        await discord.private_word(
            await discord.slash("settings", values={"ping": "direct message"})
        )
        asked = await bot.imagine()
        executor.finish(await bot.drawing())
        message = await discord.picture(asked)
        await bot.app.outbox.rest()
        (copy,) = [m for m in discord.world.messages.values() if m.channel_id == discord.user.id]
        pressed = await discord.click(copy, "Vary", direct=True)
        child = await bot.drawing()
        if is_drawn:
            executor.finish(child)
            await discord.picture(pressed)

        hers = await told(bot, message, "Vary", user=discord.world.add_user("eve"))
        own = await told(bot, message, "Vary")

        assert hers.content == "This was asked for already, elsewhere."
        assert not hers.attachments
        assert own.content.startswith(f"This was asked for already (`{child}`)")
        assert bool(own.attachments) is is_drawn


async def test_a_child_from_another_server_is_not_shown_here(bot: Bot, two: Message) -> None:
    (job,) = await jobs_of(bot)
    elsewhere = bot.discord.world.add_guild("Elsewhere")
    asked = await bot.discord.slash("show", values={"id": job.id}, guild=elsewhere)
    await press(bot, await bot.discord.picture(asked), "V1", guild=elsewhere)

    word = await told(bot, two, "V1", user=bot.discord.world.add_user("eve"))

    assert word.content == "This was asked for already, elsewhere."
    assert not word.attachments


async def test_a_blocked_member_is_refused_with_the_reason(bot: Bot, two: Message) -> None:
    eve = bot.discord.world.add_user("eve")
    studio, place = bot.app.studio, f"discord:{bot.discord.guild.id}"
    by = (await jobs_of(bot))[0].owner
    await studio.house.block(place, type(by)(f"discord:{eve.id}", "eve"), "spam", by)

    for label in ("U1", "V2", "Again"):
        word = await told(bot, two, label, user=eve)
        assert "has blocked you from drawing in this server: spam" in word.content
    assert len(bot.executor.requests) == 1


async def test_a_message_that_is_gone_keeps_nothing_from_its_child(bot: Bot, two: Message) -> None:
    bot.discord.fail("edit", status=404, code=10008)

    child = await press(bot, two, "V1")

    assert child.attachments


async def test_a_child_whose_token_has_died_is_posted(
    tmp_path: Path, discord: DiscordDouble
) -> None:
    executor = FakeExecutor(hold=True)
    async with running_bot(tmp_path, discord, executor) as bot:
        asked = await bot.imagine()
        executor.finish(await bot.drawing())
        message = await discord.picture(asked)
        await discord.click(message, "Vary")
        child = await bot.drawing()
        discord.clock.advance(minutes=16)

        executor.finish(child)

        await discord.until(lambda: discord.calls_to("send"))
        posted = [m for m in discord.world.messages.values() if m.attachments and m is not message]
        assert len(posted) == 1


async def test_pictures_that_were_deleted_have_no_children(bot: Bot, two: Message) -> None:
    job = (await jobs_of(bot))[0]
    await bot.app.studio.delete(job.id, job.owner)

    word = await told(bot, two, "U1")

    assert word.content == "This picture is not there any more: it was deleted."


# Edited


async def edit(bot: Bot, message: Message, values: dict[str, str], **user: object) -> Interaction:
    opened = await bot.discord.click(message, "Edit", **user)
    return await bot.discord.submit(opened, values, **user)


async def test_the_form_holds_what_was_asked_for(bot: Bot) -> None:
    values = {"seed": 5, "negative": "blue", "steps": 3, "sampler": "DDIM"}
    message = await bot.discord.picture(await bot.imagine("a *red* circle", values=values))

    held = await bot.discord.form(await bot.discord.click(message, "Edit"))

    assert held == {
        "What to draw": "a *red* circle",
        "What to keep away from": "blue",
        "Seed": "5",
        "Width x height": "64x128",
        "Settings": "steps 3, guidance 7, sampler DDIM, count 1, mode small",
    }


async def test_an_edited_request_is_drawn_as_it_was_changed(bot: Bot, two: Message) -> None:
    values = {
        "What to draw": "a blue star",
        "Seed": "",
        "Width x height": "128x64",
        "Settings": "Steps: 7, guidance 3,5",
    }
    friend = bot.discord.world.add_user("grace")

    message = await bot.discord.picture(await edit(bot, two, values, user=friend))

    request = bot.executor.requests[-1]
    assert (request.prompt, request.width, request.height) == ("a blue star", 128, 64)
    assert (request.steps, request.guidance_scale, request.count) == (7, 3.5, 1)
    assert request.seed not in (5, 6)
    assert f"for <@{friend.id}>" in message.content
    (job,) = await jobs_of(bot, friend)
    assert job.parent
    assert job.parent.kinship is Kinship.EDIT


async def test_a_form_that_is_open_across_a_restart_is_taken_back(
    tmp_path: Path, discord: DiscordDouble
) -> None:
    async with running_bot(tmp_path, discord) as bot:
        message = await discord.picture(await bot.imagine())
        opened = await discord.click(message, "Edit")
        await discord.form(opened)
    async with running_bot(tmp_path, discord) as bot:
        sent = await discord.submit(opened, {"What to draw": "a blue star"})

        await discord.picture(sent)
        assert bot.executor.requests[-1].prompt == "a blue star"


REFUSED: list[tuple[dict[str, str], str]] = [
    ({"Seed": "seven"}, "seed: 'seven' is not allowed"),
    ({"Seed": "-1"}, "seed: '-1' is not allowed"),
    ({"Seed": "99999999999"}, "seed: '99999999999' is not allowed"),
    ({"Width x height": "huge"}, "size: 'huge' is not allowed"),
    ({"Width x height": "64x9999"}, "height: '9999' is not allowed"),
    ({"Settings": "steps many"}, "steps: 'many' is not allowed. Allowed: a number"),
    ({"Settings": "steps 3, steps 4"}, "settings: 'steps 4' is not allowed"),
    ({"Settings": "speed 3"}, "settings: 'speed 3' is not allowed. Allowed: steps 30"),
    ({"Settings": "mode @everyone"}, "mode: '@everyone' is not allowed"),
    ({"Settings": "steps 501"}, "steps: '501' is not allowed"),
    ({"What to draw": "\N{ZERO WIDTH SPACE}"}, "prompt: nothing is not allowed"),
]


async def test_what_the_form_can_not_hold_is_told_in_private(bot: Bot) -> None:
    message = await bot.discord.picture(await bot.imagine())

    for values, said in REFUSED:
        word = await bot.discord.private_word(await edit(bot, message, values))
        assert said in unescaped(word.content)
    assert len(bot.executor.requests) == 1


async def test_a_form_of_another_version_says_so(bot: Bot, two: Message) -> None:
    opened = await bot.discord.click(two, "Edit")
    await bot.discord.form(opened)
    assert opened.modal is not None
    opened.modal["custom_id"] = "dream:gone:x"

    word = await bot.discord.private_word(await bot.discord.submit(opened))

    assert word.content == "This form has changed since it was opened. Please open it anew."


# All that is known


async def test_details_are_for_one_pair_of_eyes(bot: Bot, two: Message) -> None:
    job = (await jobs_of(bot))[0]

    word = await told(bot, two, "Details", user=bot.discord.world.add_user("eve"))

    assert word.ephemeral
    for known in ("seeds 5, 6", "4 steps", "Euler a", "64x128", f"`{job.id}`"):
        assert known in unescaped(word.content)


async def test_a_family_is_walked_down_and_up(bot: Bot, two: Message) -> None:
    await press(bot, two, "U2")
    await press(bot, two, "Again")
    word = await told(bot, two, "Details")
    assert {"Larger, picture 2", "The same again"} <= set(word.buttons)

    await bot.discord.click(word, "Larger, picture 2")
    await bot.discord.until(lambda: "picture 2 of" in word.content)
    assert word.attachments

    await bot.discord.click(word, "What it was made of")
    await bot.discord.until(lambda: "seeds 5, 6" in word.content)
    assert len(word.attachments) == 2


async def test_history_leads_to_the_details_of_each_entry(bot: Bot) -> None:
    await bot.discord.picture(await bot.imagine("a *red* circle", values={"seed": 5}))
    page = await bot.discord.private_word(await bot.discord.slash("history"))

    word = await told(bot, page, "a *red* circle")

    assert "seed 5" in word.content
    assert "Original files" in word.buttons


async def test_nobody_walks_to_pictures_of_other_places(bot: Bot, two: Message) -> None:
    eve = bot.discord.world.add_user("eve")
    await bot.discord.answer(await bot.discord.click(two, "Again", user=eve, direct=True))
    await bot.discord.until(lambda: len(bot.executor.requests) == 2)

    word = await told(bot, two, "Details")

    assert "The same again" not in word.buttons
    own = await told(bot, two, "Details", user=eve)
    assert "The same again" in own.buttons


async def test_the_original_files_come_one_by_one(bot: Bot, two: Message) -> None:
    word = await told(bot, two, "Details")
    kept = [bot.app.studio.image_path(i).read_bytes() for i in (await jobs_of(bot))[0].images]

    pressed = await bot.discord.click(word, "Original files")
    await bot.discord.until(lambda: len(sent_files(bot, pressed)) == 2)

    assert sorted(sent_files(bot, pressed)) == sorted(kept)


def sent_files(bot: Bot, interaction: Interaction) -> list[bytes]:
    shown = [*interaction.followups, interaction.original]
    own = {message.id: message for message in shown if message and message.ephemeral}
    return [one.content for message in own.values() for one in message.attachments]


async def test_originals_that_are_gone_are_told(bot: Bot, two: Message) -> None:
    word = await told(bot, two, "Details")
    for image in (await jobs_of(bot))[0].images:
        bot.app.studio.image_path(image).unlink()

    said = await told(bot, word, "Original files")

    assert "is not allowed. Allowed: the id of a request" in said.content


async def test_an_original_too_large_for_here_says_where_it_can_be_had(bot: Bot) -> None:
    message = await bot.discord.picture(await bot.imagine())
    (job,) = await jobs_of(bot)
    noise = np.random.default_rng(1).integers(0, 256, (256, 256, 3), np.uint8)
    Image.fromarray(noise).save(bot.app.studio.image_path(job.images[0]))
    word = await told(bot, message, "Details")

    pressed = await bot.discord.click(word, "Original files", upload_limit=2**16)
    said = await bot.discord.private_word(pressed)

    assert f"/show {job.id}" in said.content


# Reported


async def with_reports(bot: Bot) -> None:
    room = f"<#{bot.discord.guild.channel_id}>"
    await bot.discord.private_word(
        await bot.discord.slash("server set", values={"reports": room}, permissions=1 << 5)
    )


async def report(bot: Bot, message: Message, reason: str = "", **user: object) -> Message:
    opened = await bot.discord.click(message, "Report", **user)
    sent = await bot.discord.submit(opened, {"Why": reason}, **user)
    return await bot.discord.private_word(sent)


async def posted(bot: Bot) -> Message:
    """Waits for a report in the moderators' channel."""

    def look() -> Message | None:
        messages = bot.discord.world.messages.values()
        return next((m for m in messages if "Leave them" in m.buttons), None)

    message = await bot.discord.until(look, "a report")
    assert message is not None
    return message


async def test_a_report_reaches_the_moderators_once(bot: Bot, two: Message) -> None:
    await with_reports(bot)
    eve, mallory = (bot.discord.world.add_user(name) for name in ("eve", "mallory"))

    first = await report(bot, two, "it is @everyone's **cat**", user=eve)
    second = await report(bot, two, user=mallory)

    assert first.content == "Thank you. The moderators have it."
    assert second.content == "The moderators know of this already. Thank you."
    told_them = await posted(bot)
    assert told_them.content.startswith(f"<@{eve.id}> reports a picture: it is @everyone's \\*\\*")
    assert f"/{two.id}" in told_them.content
    assert len(bot.discord.calls_to("send")) == 1
    assert bot.discord.calls_to("send")[0].json["allowed_mentions"] == {"parse": []}


@pytest.mark.parametrize("is_left", [False, True])
async def test_what_was_reported_in_one_server_can_be_reported_in_another(
    bot: Bot, two: Message, is_left: bool
) -> None:
    await with_reports(bot)
    elsewhere = bot.discord.world.add_guild("Elsewhere")
    (job,) = await jobs_of(bot)
    reports = {"reports": str(elsewhere.channel_id)}
    await bot.app.studio.house.change(f"discord:{elsewhere.id}", job.owner, reports)
    await report(bot, two)
    if is_left:
        told_them = await posted(bot)
        await bot.discord.click(told_them, "Leave them", permissions=MANAGE_MESSAGES)
    asked = await bot.discord.slash("show", values={"id": job.id}, guild=elsewhere)
    there = await bot.discord.picture(asked)
    eve, mallory = (bot.discord.world.add_user(name) for name in ("eve", "mallory"))

    first = await report(bot, there, user=eve, guild=elsewhere)
    second = await report(bot, there, user=mallory, guild=elsewhere)

    assert first.content == "Thank you. The moderators have it."
    assert second.content == "The moderators know of this already. Thank you."
    brought = [m for m in bot.discord.world.messages.values() if f"/{there.id}" in m.content]
    assert [message.channel_id for message in brought] == [elsewhere.channel_id]


async def test_without_a_channel_a_report_says_what_to_do(bot: Bot, two: Message) -> None:
    word = await told(bot, two, "Report")
    alone = await told(bot, two, "Report", direct=True)

    assert "/server set reports" in unescaped(word.content)
    assert "nobody else sees what is drawn here" in alone.content


async def test_a_report_that_reaches_nobody_is_not_kept(bot: Bot, two: Message) -> None:
    await with_reports(bot)
    fault = bot.discord.fail("send", status=403, code=50013)

    assert "I can't write to the channel" in (await report(bot, two)).content
    bot.discord.mend(fault)
    assert "Thank you." in (await report(bot, two)).content


async def test_a_moderator_removes_what_was_reported(
    bot: Bot, two: Message, tmp_path: Path
) -> None:
    await with_reports(bot)
    await report(bot, two)
    message = await posted(bot)
    mod = bot.discord.world.add_user("mod")

    refused = await told(bot, message, "Remove the pictures")
    assert "This is for moderators" in refused.content
    assert pictures(tmp_path)
    await bot.discord.click(message, "Remove the pictures", user=mod, permissions=MANAGE_MESSAGES)

    await bot.discord.until(lambda: f"Removed by <@{mod.id}>" in message.content)
    assert two.deleted
    assert not message.buttons
    assert not pictures(tmp_path)


async def test_a_moderator_leaves_what_was_reported(bot: Bot, two: Message) -> None:
    await with_reports(bot)
    await report(bot, two)
    message = await posted(bot)

    await bot.discord.click(message, "Leave them", permissions=MANAGE_MESSAGES)

    await bot.discord.until(lambda: "Left as it is by" in message.content)
    assert not two.deleted
    assert not message.buttons


# Deleted


async def test_what_is_deleted_is_gone_though_its_message_was_before(
    bot: Bot, two: Message, tmp_path: Path
) -> None:
    bot.discord.fail("delete_original", status=404, code=10008)

    pressed = await bot.discord.click(two, "Delete")
    await bot.discord.until(lambda: bot.discord.calls_to("delete_original"))

    await bot.discord.until(lambda: not pictures(tmp_path))
    assert not pressed.followups


# Described


async def test_every_picture_is_described_in_words(bot: Bot) -> None:
    prompt = "a *red*   circle @everyone " + "very " * 300 + "large"
    message = await bot.discord.picture(await bot.imagine(prompt, values={"count": 2}))

    texts = [one.description for one in message.attachments]

    assert texts[0].startswith("Picture 1 of 2, drawn with small from the words: a *red* circle")
    assert texts[1].startswith("Picture 2 of 2")
    assert all(len(text) == 1024 and text.endswith("…") for text in texts)
