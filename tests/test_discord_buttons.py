"""The buttons under a message: again, vary, delete, cancel; before and after a restart."""

from dataclasses import replace
from pathlib import Path

import pytest

from engine.jobs import JobStatus
from tests.discord_double import DiscordDouble, Message
from tests.discord_double.double import MANAGE_MESSAGES
from tests.discord_kit import Bot, running_bot, unescaped

pytest_plugins = ["tests.discord_kit"]


def pictures(folder: Path) -> list[Path]:
    return list(folder.rglob("*.png"))


async def waiting(bot: Bot) -> Message:
    """Returns the message of a job that is being drawn."""
    message = await bot.discord.answer(await bot.imagine())
    await bot.drawing()
    return message


async def test_again_draws_the_same_with_another_seed_in_a_new_message(bot: Bot) -> None:
    values = {"steps": 3, "negative": "blue", "seed": 5}
    first = await bot.discord.picture(await bot.imagine(values=values))

    pressed = await bot.discord.click(first, "Again")
    second = await bot.discord.picture(pressed)

    assert second is not first
    one, two = bot.executor.requests
    assert (two.prompt, two.negative_prompt, two.steps) == (one.prompt, "blue", 3)
    assert two.seed != one.seed
    assert first.attachments
    assert not first.deleted


async def test_vary_keeps_the_seed_and_mixes_in_another(bot: Bot) -> None:
    first = await bot.discord.picture(await bot.imagine(values={"seed": 5}))

    pressed = await bot.discord.click(first, "Vary")
    await bot.discord.picture(pressed)

    varied = bot.executor.requests[1]
    assert varied.seed == 5
    assert varied.variation_seed is not None
    assert varied.variation_strength > 0


async def test_anyone_may_press_again_and_it_becomes_their_request(bot: Bot) -> None:
    first = await bot.discord.picture(await bot.imagine())
    friend = bot.discord.world.add_user("grace")

    pressed = await bot.discord.click(first, "Again", user=friend)
    message = await bot.discord.picture(pressed)

    assert f"for <@{friend.id}>" in message.content
    assert len(await bot.app.studio.history(f"discord:{friend.id}")) == 1


async def test_buttons_work_after_a_restart(tmp_path: Path, discord: DiscordDouble) -> None:
    async with running_bot(tmp_path, discord) as bot:
        first = await discord.picture(await bot.imagine("a red circle"))

    async with running_bot(tmp_path, discord) as bot:
        message = await discord.picture(await discord.click(first, "Again"))
        assert "a red circle" in message.content

        await discord.click(message, "Delete")
        await discord.until(lambda: message.deleted)


async def test_delete_removes_the_message_and_the_files(bot: Bot, tmp_path: Path) -> None:
    message = await bot.discord.picture(await bot.imagine())
    assert pictures(tmp_path)

    await bot.discord.click(message, "Delete")
    await bot.discord.until(lambda: message.deleted)

    assert not pictures(tmp_path)


async def test_others_may_not_delete(bot: Bot, tmp_path: Path) -> None:
    message = await bot.discord.picture(await bot.imagine())

    pressed = await bot.discord.click(message, "Delete", user=bot.discord.world.add_user("eve"))
    word = await bot.discord.private_word(pressed)

    assert word.content == "Only ada or a moderator may delete this."
    assert not message.deleted
    assert pictures(tmp_path)


async def test_a_moderator_may_delete(bot: Bot) -> None:
    message = await bot.discord.picture(await bot.imagine())

    mod = bot.discord.world.add_user("mod")
    await bot.discord.click(message, "Delete", user=mod, permissions=MANAGE_MESSAGES)

    await bot.discord.until(lambda: message.deleted)


async def test_cancel_ends_a_running_job(held: Bot) -> None:
    message = await waiting(held)

    await held.discord.click(message, "Cancel")
    await held.discord.until(lambda: "Cancelled." in message.content)

    assert list(message.buttons) == ["Again", "Edit"]
    (job,) = await held.app.studio.history(f"discord:{held.discord.user.id}")
    assert job.status is JobStatus.CANCELLED


async def test_cancel_shows_even_when_the_answer_can_no_longer_be_edited(held: Bot) -> None:
    message = await waiting(held)
    held.discord.clock.advance(minutes=16)

    await held.discord.click(message, "Cancel")

    await held.discord.until(lambda: "Cancelled." in message.content)
    assert held.discord.calls_to("send") == []


async def test_cancel_ends_a_waiting_job_without_drawing_it(held: Bot) -> None:
    await waiting(held)
    second = await held.discord.answer(await held.imagine("another"))

    await held.discord.click(second, "Cancel")
    await held.discord.until(lambda: "Cancelled." in second.content)

    assert len(held.executor.requests) == 1


async def test_others_may_not_cancel(held: Bot) -> None:
    message = await waiting(held)

    pressed = await held.discord.click(message, "Cancel", user=held.discord.world.add_user("eve"))
    word = await held.discord.private_word(pressed)

    assert word.content == "Only ada or a moderator may cancel this."
    assert held.executor.running


async def test_cancelling_what_has_ended_says_so(held: Bot) -> None:
    message = await waiting(held)
    stale = replace(message)
    held.executor.finish(held.executor.running[0])
    await held.discord.until(lambda: message.attachments and "Again" in message.buttons)

    word = await held.discord.private_word(await held.discord.click(stale, "Cancel"))

    assert word.content == "This had ended already."


@pytest.mark.parametrize("job", ["AAAAAAAAAAAAAAAA", "x", "-" * 64])
async def test_a_button_of_an_unknown_job_is_told_in_private(bot: Bot, job: str) -> None:
    message = await bot.discord.picture(await bot.imagine())
    message.buttons["Again"]["custom_id"] = f"dream:again:{job}"

    word = await bot.discord.private_word(await bot.discord.click(message, "Again"))

    assert unescaped(word.content).startswith(f"job: '{job}' is not allowed.")
