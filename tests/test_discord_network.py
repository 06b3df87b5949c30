"""The network fails in every way at every route that a request's answer takes: one answer comes."""

import asyncio
from pathlib import Path

import pytest

from bot import client, outbox
from engine.testing import FakeExecutor
from tests.discord_double import Call, DiscordDouble, Message
from tests.discord_kit import Bot, running_bot

pytest_plugins = ["tests.discord_kit"]


def is_result(call: Call) -> bool:
    return call.route != "callback" and "components" in call.json


def finals(discord: DiscordDouble) -> list[Message]:
    """Returns every message that shows the end of a request."""
    messages = discord.world.messages.values()
    return [m for m in messages if "Again" in m.buttons and not m.deleted]


async def delivered(bot: Bot) -> None:
    """Waits until a result is there and nothing is left to be delivered."""
    await bot.discord.until(lambda: finals(bot.discord), "a result")
    while await bot.app.store.next_due(("discord",)) is not None:  # noqa: ASYNC110 # rows tell nobody
        await asyncio.sleep(0.01)


async def late_job(bot: Bot) -> str:
    """Returns a job that is being drawn while its token has died."""
    await bot.discord.answer(await bot.imagine())
    job_id = await bot.drawing()
    bot.discord.clock.advance(minutes=15)
    return job_id


@pytest.mark.parametrize("processed", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("status", [0, 502], ids=["cut", "bad gateway"])
@pytest.mark.parametrize("route", ["history", "send"])
async def test_a_late_result_comes_once_whatever_is_lost_on_the_way(
    held: Bot, route: str, status: int, processed: bool
) -> None:
    fault = held.discord.fail(route, status=status, processed=processed, times=1)

    held.executor.finish(await late_job(held))
    await delivered(held)

    assert fault.met == 1
    assert len(finals(held.discord)) == 1


@pytest.mark.parametrize("processed", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("status", [0, 502], ids=["cut", "bad gateway"])
async def test_a_result_comes_once_whatever_is_lost_on_the_way(
    bot: Bot, status: int, processed: bool
) -> None:
    fault = bot.discord.fail(
        "edit_original", where=is_result, status=status, processed=processed, times=1
    )

    asked = await bot.imagine()
    await delivered(bot)

    assert fault.met == 1
    assert finals(bot.discord) == [asked.original]
    assert len(bot.discord.world.messages) == 1


@pytest.mark.parametrize("route", ["edit_original", "history", "send"])
async def test_a_request_that_discord_does_long_after_it_was_given_up_doubles_nothing(
    held: Bot, monkeypatch: pytest.MonkeyPatch, route: str
) -> None:
    monkeypatch.setattr(outbox, "CARRY_SECONDS", 0.3)
    late = asyncio.Event()
    asked = await held.imagine()
    job_id = await held.drawing()
    await held.discord.answer(asked)
    slow = held.discord.fail(
        route, where=lambda call: route == "history" or is_result(call), until=late, times=1
    )
    if route != "edit_original":
        held.discord.clock.advance(minutes=15)
    held.executor.finish(job_id)
    await held.discord.until(lambda: slow.met, "a slow request")
    await delivered(held)

    late.set()
    calls = held.discord.calls_to(route)
    await held.discord.until(lambda: all(call.status for call in calls), "the slow request's end")

    (message,) = finals(held.discord)
    assert len(message.attachments) == 1
    assert (message is asked.original) == (route == "edit_original")


async def test_an_error_that_is_lost_on_the_way_is_told_by_nobody_twice(bot: Bot) -> None:
    fault = bot.discord.fail("callback", status=0, processed=True, times=1)

    await bot.imagine(values={"size": "huge"})
    await bot.discord.until(lambda: fault.met, "the lost word")
    message = await bot.discord.picture(await bot.imagine())

    assert finals(bot.discord) == [message]
    assert sum(m.ephemeral for m in bot.discord.world.messages.values()) == 1


@pytest.mark.parametrize("processed", [False, True], ids=["before", "after"])
async def test_a_follow_up_that_is_lost_on_the_way_harms_nothing(bot: Bot, processed: bool) -> None:
    asked = await bot.imagine()
    message = await bot.discord.picture(asked)
    message.components = [{"type": 1, "components": [a_cancel_button(message)]}]
    fault = bot.discord.fail("followup", status=0, processed=processed)

    await bot.discord.click(message, "Cancel")
    await bot.discord.until(lambda: fault.met, "a lost follow-up")
    bot.discord.mend(fault)

    await bot.discord.picture(await bot.imagine())


def a_cancel_button(message: Message) -> dict[str, object]:
    """Returns what was under a message before its job had ended."""
    job_id = message.buttons["Again"]["custom_id"].rpartition(":")[2]
    return {"type": 2, "style": 2, "label": "Cancel", "custom_id": f"dream:cancel:{job_id}"}


async def test_a_result_for_a_channel_that_is_gone_is_kept_told_once_and_never_tried_again(
    tmp_path: Path, discord: DiscordDouble, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_bot(tmp_path, discord, FakeExecutor(hold=True)) as bot:
        job_id = await late_job(bot)
        del discord.world.channels[discord.guild.channel_id]
        bot.executor.finish(job_id)
        await discord.until(lambda: discord.calls_to("history"), "a try")
        while (await row(bot, job_id)) is not None:  # noqa: ASYNC110 # rows tell nobody
            await asyncio.sleep(0.01)
    tries = len(discord.calls_to("history"))

    async with running_bot(tmp_path, discord) as bot:
        await bot.app.outbox.rest()
        job = (await bot.app.studio.view(job_id)).record
        path = bot.app.studio.image_path(job.images[0])

    assert path.is_file()
    assert (tries, len(discord.calls_to("history"))) == (1, 1)
    assert discord.calls_to("send") == []
    told = [record for record in caplog.records if "can't be delivered" in record.getMessage()]
    assert len(told) == 1
    assert "10003" in told[0].getMessage()


async def row(bot: Bot, job_id: str) -> object:
    """Returns when a delivery is due; None where it was given up."""
    found = await bot.app.store._row("SELECT due_at FROM outbox WHERE job_id = ?", job_id)
    return found["due_at"] if found else "not yet"


async def test_a_result_that_was_deleted_while_its_delivery_was_in_doubt_is_not_posted(
    bot: Bot,
) -> None:
    asked = await bot.imagine()
    fault = bot.discord.fail("edit_original", where=is_result, status=0, processed=True)
    (message,) = await bot.discord.until(lambda: finals(bot.discord), "a result")

    await bot.discord.click(message, "Delete")
    await bot.discord.until(lambda: message.deleted, "the deletion")
    bot.discord.mend(fault)
    await bot.app.outbox.rest()

    assert asked.original is message
    assert finals(bot.discord) == []
    assert bot.discord.calls_to("send") == []


async def test_a_result_that_is_deleted_in_the_middle_of_its_second_delivery_is_not_posted(
    bot: Bot,
) -> None:
    await bot.imagine()
    bot.discord.fail("edit_original", where=is_result, status=0, processed=True, times=1)
    second = bot.discord.fail("edit_original", where=is_result, until=asyncio.Event(), times=1)
    (message,) = await bot.discord.until(lambda: finals(bot.discord), "a result")
    await bot.discord.until(lambda: second.met, "the second delivery")

    await bot.discord.click(message, "Delete")
    await bot.discord.until(lambda: message.deleted, "the deletion")
    bot.discord.mend(second)
    await bot.app.outbox.rest()

    assert finals(bot.discord) == []
    assert bot.discord.calls_to("send") == []


@pytest.mark.parametrize("processed", [False, True], ids=["before", "after"])
async def test_an_acknowledgement_that_hangs_keeps_nobody_from_seeing_progress(
    held: Bot, monkeypatch: pytest.MonkeyPatch, processed: bool
) -> None:
    monkeypatch.setattr(client, "ANSWER_SECONDS", 0.3)
    never = asyncio.Event()
    hanging = held.discord.fail("callback", until=never, processed=processed, times=1)
    asked = await held.imagine()
    job_id = await held.drawing()
    await held.discord.until(lambda: hanging.met, "an acknowledgement that hangs")
    held.executor.report(job_id, 2)

    await held.discord.until(
        lambda: asked.original is not None and "step 2 of" in asked.original.content, "progress"
    )
