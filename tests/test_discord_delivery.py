"""Results arrive once, whatever happens on the way: dead tokens, restarts, a failing Discord."""

import asyncio
from functools import partial
from pathlib import Path

import pytest

from bot.records import JobRecord
from engine.errors import DrawingError
from engine.jobs import JobStatus
from engine.testing import FakeExecutor
from tests.discord_double import Call, DiscordDouble, Fault, Message
from tests.discord_double.world import SILENT
from tests.discord_kit import Bot, running_bot, unescaped

pytest_plugins = ["tests.discord_kit"]


def met(fault: Fault, times: int) -> bool:
    return fault.met >= times


def is_progress(call: Call) -> bool:
    return "components" not in call.json


def is_result(call: Call) -> bool:
    return "components" in call.json


def results(discord: DiscordDouble) -> list[Message]:
    """Returns every message that shows a finished picture."""
    messages = discord.world.messages.values()
    return [m for m in messages if m.attachments and "Again" in m.buttons and not m.deleted]


async def delivered(bot: Bot) -> None:
    """Waits until nothing is left to be delivered."""
    while await bot.app.store.next_due(("discord",)) is not None:  # noqa: ASYNC110 # rows tell nobody
        await asyncio.sleep(0.01)


async def ended(bot: Bot, number: int) -> list[JobRecord]:
    """Waits until the newest of a number of jobs has ended and returns all, newest first."""
    while True:
        jobs = await bot.app.studio.history(f"discord:{bot.discord.user.id}")
        if len(jobs) == number and jobs[0].status.is_final:
            return jobs
        await asyncio.sleep(0.01)


async def late_job(bot: Bot) -> str:
    """Returns a job that is being drawn while its token has died."""
    await bot.discord.answer(await bot.imagine("late words"))
    job_id = await bot.drawing()
    bot.discord.clock.advance(minutes=15)
    return job_id


async def test_a_result_later_than_the_token_comes_as_a_message(held: Bot) -> None:
    held.executor.finish(await late_job(held))

    message = await held.discord.until(lambda: next(iter(results(held.discord)), None))

    assert message is not None
    assert message.channel_id == held.discord.guild.channel_id
    assert message.pinged == ()  # who wants to be pinged says so: /settings
    assert message.flags & SILENT
    assert "**late words**" in message.content
    assert {"Upscale", "Vary", "Again", "Delete"} <= set(message.buttons)
    assert all(is_progress(call) for call in held.discord.calls_to("edit_original"))


async def test_a_late_failure_is_told_too(held: Bot) -> None:
    held.executor.fail(await late_job(held), DrawingError("It came out empty."))

    await held.discord.until(lambda: held.discord.calls_to("send"))

    assert "It came out empty." in held.discord.calls_to("send")[0].content


async def test_the_buttons_of_a_late_message_work(held: Bot) -> None:
    held.executor.finish(await late_job(held))
    message = await held.discord.until(lambda: next(iter(results(held.discord)), None))
    assert message is not None

    await held.discord.click(message, "Delete")

    await held.discord.until(lambda: message.deleted)


@pytest.mark.parametrize(("status", "code"), [(404, 10015), (404, 10008), (401, 50027)])
async def test_a_token_that_dies_early_costs_no_picture(bot: Bot, status: int, code: int) -> None:
    bot.discord.fail("edit_original", where=is_result, status=status, code=code)

    await bot.imagine()

    await bot.discord.until(lambda: results(bot.discord))
    assert len(bot.discord.calls_to("send")) == 1


async def test_an_answer_says_its_last_word_before_its_token_dies(
    tmp_path: Path, discord: DiscordDouble
) -> None:
    executor = FakeExecutor(hold=True)
    async with running_bot(tmp_path, discord, executor) as bot:
        asked = await bot.imagine()
        await discord.answer(asked)
        await bot.drawing()
    discord.clock.advance(minutes=14, seconds=40)

    async with running_bot(tmp_path, discord, FakeExecutor(hold=True)):
        await discord.until(
            lambda: asked.original and "comes as a new message" in asked.original.content
        )


async def test_a_restart_in_the_middle_loses_nothing_and_repeats_nothing(
    tmp_path: Path, discord: DiscordDouble
) -> None:
    executor = FakeExecutor(hold=True)
    async with running_bot(tmp_path, discord, executor) as bot:
        asked = await bot.imagine()
        job_id = await bot.drawing()
        executor.report(job_id, step=2)
        await discord.until(lambda: asked.original and "step 2" in asked.original.content)
    seed = executor.requests[0].seed

    async with running_bot(tmp_path, discord) as bot:
        message = await discord.picture(asked)
        await delivered(bot)

        assert message is asked.original
        assert results(discord) == [message]
        assert len(message.attachments) == 1
        assert f"seed {seed}" in message.content


async def test_progress_goes_on_after_a_restart(tmp_path: Path, discord: DiscordDouble) -> None:
    executor = FakeExecutor(hold=True)
    async with running_bot(tmp_path, discord, executor) as bot:
        asked = await bot.imagine()
        await bot.drawing()

    executor = FakeExecutor(hold=True)
    async with running_bot(tmp_path, discord, executor) as bot:
        executor.report(await bot.drawing(), step=3)

        await discord.until(lambda: asked.original and "step 3" in asked.original.content)


async def test_a_result_finished_while_discord_is_away_comes_after_the_restart(
    tmp_path: Path, discord: DiscordDouble
) -> None:
    executor = FakeExecutor(hold=True)
    async with running_bot(tmp_path, discord, executor) as bot:
        asked = await bot.imagine()
        job_id = await bot.drawing()
        outage = discord.fail("edit_original", status=0)
        executor.finish(job_id)
        await discord.until(lambda: any(map(is_result, discord.calls_to("edit_original"))))
    discord.mend(outage)

    async with running_bot(tmp_path, discord) as bot:
        await discord.picture(asked)
        await delivered(bot)

        assert len(results(discord)) == 1
        assert bot.executor.requests == []


async def test_an_edit_whose_answer_is_lost_is_repeated_in_place(bot: Bot) -> None:
    bot.discord.fail("edit_original", where=is_result, status=0, processed=True, times=1)

    message = await bot.discord.picture(await bot.imagine())
    await delivered(bot)

    edits = [call for call in bot.discord.calls_to("edit_original") if is_result(call)]
    assert len(edits) == 2
    assert results(bot.discord) == [message]
    assert len(message.attachments) == 1


async def test_a_dropped_connection_costs_no_picture(bot: Bot) -> None:
    bot.discord.fail("edit_original", where=is_result, status=0, times=3)

    message = await bot.discord.picture(await bot.imagine())

    assert results(bot.discord) == [message]


@pytest.mark.parametrize("minutes", [0, 6])
async def test_a_late_message_whose_answer_is_lost_is_not_posted_twice(
    held: Bot, minutes: int
) -> None:
    held.discord.fail("send", status=0, processed=True, times=1)
    held.executor.finish(await late_job(held))
    await held.discord.until(lambda: results(held.discord))
    # Discord forgets the nonce after a few minutes; the channel's history doesn't.
    held.discord.clock.advance(minutes=minutes)
    await delivered(held)

    assert len(results(held.discord)) == 1


async def test_a_late_message_needs_no_permission_to_read_the_channel(held: Bot) -> None:
    held.discord.fail("history", status=403, code=50001)
    held.discord.fail("send", status=0, processed=True, times=1)

    held.executor.finish(await late_job(held))
    await held.discord.until(lambda: len(held.discord.calls_to("send")) > 1)
    await delivered(held)

    assert len(results(held.discord)) == 1


async def test_a_late_message_that_was_deleted_is_not_posted_again(held: Bot) -> None:
    held.discord.fail("send", status=0, processed=True, times=1)
    gate = asyncio.Event()
    held.discord.fail("history", where=lambda _: bool(results(held.discord)), until=gate)

    held.executor.finish(await late_job(held))
    (message,) = await held.discord.until(lambda: results(held.discord))
    message.deleted = True
    gate.set()
    await delivered(held)

    assert results(held.discord) == []
    assert len(held.discord.calls_to("send")) == 2


@pytest.mark.parametrize(
    ("status", "code"),
    [(404, 10003), (403, 50001), (404, 10004), (403, 50013)],
    ids=["channel gone", "channel closed", "kicked", "may not write"],
)
async def test_a_result_that_can_not_be_brought_is_had_with_results(
    held: Bot, status: int, code: int
) -> None:
    job = await late_job(held)
    held.discord.fail("send", status=status, code=code)
    held.discord.fail("history", status=status, code=code)
    held.executor.finish(job)
    await held.discord.until(lambda: held.discord.calls_to("history"))
    await held.app.outbox.rest()

    word = await held.discord.private_word(await held.discord.slash("results", direct=True))

    assert len(word.attachments) == 1
    assert results(held.discord) == []


async def test_a_channel_that_is_closed_to_the_bot_is_given_up(held: Bot) -> None:
    held.discord.world.forbidden.add(held.discord.guild.channel_id)

    held.executor.finish(await late_job(held))
    await held.discord.until(lambda: held.discord.calls_to("history"))
    await delivered(held)

    assert results(held.discord) == []
    (job,) = await held.app.studio.history(f"discord:{held.discord.user.id}")
    assert job.images


async def test_failing_progress_edits_do_not_hold_up_the_result(held: Bot) -> None:
    fault = held.discord.fail("edit_original", where=is_progress, status=500)
    asked = await held.imagine()
    await held.discord.answer(asked)
    job_id = await held.drawing()
    for step in (1, 2):
        held.executor.report(job_id, step=step)
        await held.discord.until(partial(met, fault, step))

    held.executor.finish(job_id)
    message = await held.discord.picture(asked)

    assert len(message.attachments) == 1


@pytest.mark.parametrize("status", [0, 401, 404, 429, 503])
async def test_progress_goes_on_after_an_edit_that_failed(held: Bot, status: int) -> None:
    held.discord.fail(
        "edit_original", status=status, times=1, headers={"Retry-After": "0.1", "Via": "1.1 google"}
    )
    asked = await held.imagine()
    job_id = await held.drawing()
    for step in (1, 2, 3):
        held.executor.report(job_id, step=step)
        await asyncio.sleep(0.05)

    await held.discord.until(lambda: asked.original and "step 3" in asked.original.content)


async def test_progress_never_lands_on_top_of_the_result(held: Bot) -> None:
    gate = asyncio.Event()
    fault = held.discord.fail("edit_original", where=is_progress, until=gate, times=1)
    asked = await held.imagine()
    await held.discord.answer(asked)
    job_id = await held.drawing()
    held.executor.report(job_id, step=1)
    await held.discord.until(lambda: fault.met)

    held.executor.finish(job_id)
    await asyncio.sleep(0.2)  # long enough for a result that would not wait
    gate.set()
    message = await held.discord.picture(asked)
    await delivered(held)

    assert "Drawing" not in message.content
    assert "Drawing" not in message.shown[-1]
    assert "Again" in message.buttons


async def test_an_edit_that_discord_never_answers_is_dropped(held: Bot) -> None:
    never = asyncio.Event()
    fault = held.discord.fail("edit_original", where=is_progress, until=never, times=1)
    asked = await held.imagine()
    await held.discord.answer(asked)
    job_id = await held.drawing()
    held.executor.report(job_id, step=1)
    await held.discord.until(lambda: fault.met)

    held.executor.finish(job_id)
    message = await held.discord.picture(asked)

    assert len(message.attachments) == 1


async def test_a_dropped_edit_that_discord_does_later_hides_nothing(held: Bot) -> None:
    late, repetition = asyncio.Event(), asyncio.Event()
    fault = held.discord.fail("edit_original", where=is_progress, until=late, times=1)
    asked = await held.imagine()
    await held.discord.answer(asked)
    job_id = await held.drawing()
    held.executor.report(job_id, step=1)
    await held.discord.until(lambda: fault.met)
    second = held.discord.fail(
        "edit_original",
        where=lambda call: is_result(call) and bool(results(held.discord)),
        until=repetition,
        times=1,
    )
    held.executor.finish(job_id)
    message = await held.discord.picture(asked)

    await held.discord.until(lambda: second.met)
    late.set()
    await held.discord.until(lambda: "step" in message.content)
    repetition.set()
    await delivered(held)

    assert "Drawing" not in message.content
    assert "Again" in message.buttons
    assert [attachment.filename[:6] for attachment in message.attachments] == ["dream-"]


async def test_a_result_does_not_overtake_the_first_answer(bot: Bot) -> None:
    gate = asyncio.Event()
    bot.discord.fail("callback", until=gate, times=1)
    asked = await bot.imagine()
    await ended(bot, 1)

    gate.set()
    message = await bot.discord.picture(asked)

    assert message is asked.original
    assert bot.discord.calls_to("send") == []


@pytest.mark.parametrize("processed", [False, True])
async def test_a_first_answer_that_is_lost_on_the_way_is_repeated(
    bot: Bot, processed: bool
) -> None:
    bot.discord.fail("callback", status=0, processed=processed, times=1)

    asked = await bot.imagine()
    message = await bot.discord.picture(asked)

    assert message is asked.original
    assert len(bot.discord.world.messages) == 1


async def test_a_job_that_discord_gave_up_on_is_not_drawn(held: Bot) -> None:
    await held.discord.answer(await held.imagine("in the way"))
    held.discord.fail("callback", status=404, code=10062, times=1)

    await held.imagine("too slow")
    jobs = await ended(held, 2)
    await delivered(held)

    assert jobs[0].status is JobStatus.CANCELLED
    assert jobs[0].request.prompt == "too slow"
    assert held.discord.calls_to("send") == []


async def test_pictures_over_the_limit_of_the_place_are_made_smaller(bot: Bot) -> None:
    asked = await bot.imagine(values={"size": "128x128"}, upload_limit=200)

    message = await bot.discord.picture(asked)

    assert len(message.attachments[0].content) <= 200
    assert message.attachments[0].filename.endswith(".webp")
    assert "as lossless WebP, pixel for pixel the same" in unescaped(message.content)


async def test_a_limit_that_discord_over_reported_is_survived(bot: Bot) -> None:
    fault = bot.discord.fail("edit_original", where=is_result, status=413, code=40005, times=1)

    message = await bot.discord.picture(await bot.imagine())

    assert fault.met == 1
    assert len(message.attachments) == 1


async def test_no_token_is_ever_logged(
    tmp_path: Path, discord: DiscordDouble, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    discord.fail("callback", status=0, times=1)
    discord.fail("edit_original", status=0, times=2)
    discord.fail("edit_original", where=is_result, status=401, code=50027, times=1)

    async with running_bot(tmp_path, discord) as bot:
        asked = await bot.imagine()
        await discord.until(lambda: results(discord))

    assert "not delivered yet" in caplog.text
    assert asked.token not in caplog.text
    assert discord.token not in caplog.text
