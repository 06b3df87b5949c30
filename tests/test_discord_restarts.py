"""Who waits is told what happened: a restart, a worker that died; in the same message, once."""

import asyncio
from pathlib import Path

from engine.testing import FakeExecutor
from tests.discord_double import Call, DiscordDouble, Message
from tests.discord_kit import Bot, running_bot

pytest_plugins = ["tests.discord_kit"]


def is_progress(call: Call) -> bool:
    return "components" not in call.json


def shown(discord: DiscordDouble) -> list[Message]:
    return [message for message in discord.world.messages.values() if not message.deleted]


async def says(discord: DiscordDouble, message: Message, words: str) -> None:
    """Waits until a message says something now."""
    await discord.until(lambda: words in message.content, words)


async def test_who_waits_is_told_of_a_restart_in_the_same_message_and_sees_progress_again(
    tmp_path: Path, discord: DiscordDouble
) -> None:
    async with running_bot(tmp_path, discord, FakeExecutor(hold=True)) as bot:
        messages = [
            await discord.answer(await bot.imagine(user=discord.world.add_user(name)))
            for name in ("bob", "cleo", "dan", "eve")
        ]
        await bot.drawing()

    executor = FakeExecutor(hold=True)
    executor.start_gate.clear()  # the worker takes its time
    async with running_bot(tmp_path, discord, executor) as bot:
        for message, place in zip(
            messages, ("you are next", "you are number 2", "you are number 3", "you are number 4"),
            strict=True,
        ):  # fmt: skip
            await says(discord, message, f"Back after a restart: {place}")
            assert list(message.buttons) == ["Cancel"]
        executor.start_gate.set()
        job_id = await bot.drawing()
        executor.report(job_id, step=2)
        await says(discord, messages[0], "step 2")
        await says(discord, messages[2], "Back after a restart: you are number 2")
        for message in messages:
            executor.finish(await bot.drawing())
            await discord.until(lambda message=message: "Again" in message.buttons, "a picture")

    assert shown(discord) == messages
    assert discord.calls_to("send") == []


async def test_a_restart_after_the_token_has_died_is_told_to_nobody(
    tmp_path: Path, discord: DiscordDouble
) -> None:
    async with running_bot(tmp_path, discord, FakeExecutor(hold=True)) as bot:
        asked = await discord.answer(await bot.imagine())
        await bot.drawing()
    discord.clock.advance(minutes=16)
    before = len(discord.calls_to("edit_original"))

    executor = FakeExecutor(hold=True)
    async with running_bot(tmp_path, discord, executor) as bot:
        job_id = await bot.drawing()
        executor.report(job_id, step=1)
        executor.finish(job_id)
        await discord.until(lambda: discord.calls_to("send"), "the result")

    assert len(discord.calls_to("edit_original")) == before
    assert "restart" not in asked.content


async def test_who_waits_is_told_that_a_worker_died_and_sees_progress_again(held: Bot) -> None:
    message = await held.discord.answer(await held.imagine())
    held.executor.report(await held.drawing(), step=3)
    await says(held.discord, message, "step 3")

    held.executor.start_gate.clear()
    held.executor.die()

    await says(held.discord, message, "This was interrupted and is drawn again: you are next")
    held.executor.start_gate.set()
    job_id = await held.drawing()
    held.executor.report(job_id, step=1)
    await says(held.discord, message, "step 1")
    held.executor.finish(job_id)
    await held.discord.until(lambda: "Again" in message.buttons, "a picture")
    assert shown(held.discord) == [message]


async def test_a_progress_edit_from_before_a_kill_hides_no_result(
    tmp_path: Path, discord: DiscordDouble
) -> None:
    # Discord is slow with an edit of a bot that is gone; nobody knows of it any more.
    late = asyncio.Event()
    async with running_bot(tmp_path, discord, FakeExecutor(hold=True)) as bot:
        message = await discord.answer(await bot.imagine())
        slow = discord.fail("edit_original", where=is_progress, until=late, times=1)
        bot.executor.report(await bot.drawing(), step=1)
        await discord.until(lambda: slow.met, "a slow edit")

    repetition = asyncio.Event()
    second = discord.fail(
        "edit_original",
        where=lambda call: not is_progress(call) and "Again" in message.buttons,
        until=repetition,
        times=1,
    )
    async with running_bot(tmp_path, discord, edit_seconds=0.5):
        await discord.until(lambda: second.met, "the result once more")
        late.set()
        await says(discord, message, "step 1")
        repetition.set()
        await discord.until(lambda: "Drawing" not in message.content, "the result")

    assert "Again" in message.buttons
    assert [attachment.filename[:6] for attachment in message.attachments] == ["dream-"]
