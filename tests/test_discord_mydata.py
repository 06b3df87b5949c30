"""``/mydata``: what is kept of a member, brought to them and deleted, rows and files."""

import asyncio
import io
import json
import sqlite3
import zipfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bot import studio
from bot.export import Exporter
from bot.image_folder import ImageFolder
from engine.jobs import JobStatus
from tests.discord_double import DiscordDouble, Message
from tests.discord_double.double import MANAGE_GUILD
from tests.discord_kit import Bot, running_bot, unescaped

pytest_plugins = ["tests.discord_kit"]

TABLES = ("jobs", "images", "sources", "outbox")


def noise(size: int = 64) -> bytes:
    """Returns a picture that doesn't become small as PNG."""
    buffer = io.BytesIO()
    Image.effect_noise((size, size), 100).save(buffer, "PNG")
    return buffer.getvalue()


def archive(message: Message) -> zipfile.ZipFile:
    (attached,) = message.attachments
    return zipfile.ZipFile(io.BytesIO(attached.content))


def requests_in(packed: zipfile.ZipFile) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(packed.read("requests.json"))
    return found


def rows(folder: Path) -> dict[str, int]:
    """Returns how many rows each table has, as another program reads them."""
    with closing(sqlite3.connect(folder / "dreamlab.db")) as db:
        count = "SELECT count(*) FROM {}"
        return {table: db.execute(count.format(table)).fetchone()[0] for table in TABLES}


def pictures(folder: Path) -> int:
    return len(list(folder.rglob("*.png")))


async def forget(bot: Bot, **user: Any) -> Message:
    """Types the command and confirms it."""
    asked = await bot.discord.private_word(await bot.discord.slash("mydata forget", **user))
    await bot.discord.click(asked, "Delete all of it", **user)
    await bot.discord.until(lambda: asked.content.startswith("Deleted"), "the deletion")
    return asked


# export


async def test_an_export_has_every_request_and_picture_and_only_ones_own(bot: Bot) -> None:
    image = bot.discord.attach("photo.png", noise())
    await bot.discord.picture(await bot.imagine("one", values={"count": 2, "seed": 7}))
    await bot.discord.picture(await bot.imagine("two \u2603", values={"image": image}))
    eve = bot.discord.world.add_user("eve")
    await bot.discord.picture(await bot.imagine("not mine", user=eve))

    message = await bot.discord.private_word(await bot.discord.slash("mydata export"))
    packed = archive(message)

    told = requests_in(packed)
    assert [entry["prompt"] for entry in told] == ["one", "two \u2603"]
    assert [len(entry["files"]) for entry in told] == [2, 2]
    names = set(packed.namelist())
    assert names == {"requests.json"} | {name for entry in told for name in entry["files"]}
    assert len([name for name in names if name.startswith("sources/")]) == 1
    for name in names - {"requests.json"}:
        with Image.open(io.BytesIO(packed.read(name))) as picture:
            picture.verify()
    assert message.buttons == {}


async def test_an_export_tells_no_token_and_no_path_of_the_machine(
    bot: Bot, tmp_path: Path
) -> None:
    await bot.discord.picture(await bot.imagine())

    message = await bot.discord.private_word(await bot.discord.slash("mydata export"))
    text = archive(message).read("requests.json").decode()

    assert str(tmp_path) not in text
    assert not any(token in text for token in bot.discord.world.interactions)


async def test_what_is_too_much_for_one_message_comes_in_parts_also_after_a_restart(
    tmp_path: Path, discord: DiscordDouble
) -> None:
    limit = 12_000
    seen: list[str] = []
    async with running_bot(tmp_path, discord) as bot:
        for number in range(12):
            await discord.picture(await bot.imagine(f"p{number}"))
        asked = await discord.slash("mydata export", upload_limit=limit)
        message = await discord.private_word(asked)
    async with running_bot(tmp_path, discord) as bot:
        while True:
            packed = archive(message)
            seen += [entry["prompt"] for entry in requests_in(packed)]
            assert len(message.attachments[0].content) <= limit
            if "Next part" not in message.buttons:
                break
            pressed = await discord.click(message, "Next part", upload_limit=limit)
            message = await discord.private_word(pressed)

    assert seen == [f"p{number}" for number in range(12)]
    assert "Part 1 of" not in message.content


async def test_a_picture_too_large_for_any_part_is_named(bot: Bot, tmp_path: Path) -> None:
    await bot.discord.picture(await bot.imagine("big"))
    (job,) = await bot.app.studio.members.everything(f"discord:{bot.discord.user.id}")
    images = ImageFolder(tmp_path / "images")
    images.path(job.images[0]).write_bytes(noise(200))
    exporter = Exporter(images.path, images.source_path)

    part = exporter.part([job], 1, 20_000)

    (told,) = requests_in(zipfile.ZipFile(io.BytesIO(part.content)))
    assert part.total == 1
    assert len(part.content) <= 20_000
    assert told["files"] == []
    assert told["too_large"] == [f"pictures/{job.id}-{job.images[0].seed}.png"]


async def test_of_nobody_nothing_is_kept(bot: Bot) -> None:
    for line in ("mydata export", "mydata forget"):
        message = await bot.discord.private_word(await bot.discord.slash(line))
        assert message.content == "Nothing of yours is kept."
        assert message.buttons == {}


# forget


async def test_forgetting_removes_every_row_and_file_of_ones_own_and_none_of_others(
    bot: Bot, tmp_path: Path
) -> None:
    eve = bot.discord.world.add_user("eve")
    shared, own = noise(), noise()
    for content, user in ((shared, None), (own, None), (shared, eve)):
        image = bot.discord.attach("photo.png", content)
        await bot.discord.picture(await bot.imagine(user=user, values={"image": image}))
    await bot.app.outbox.rest()
    before = (rows(tmp_path), pictures(tmp_path))

    message = await forget(bot)

    assert before == ({"jobs": 3, "images": 3, "sources": 3, "outbox": 3}, 5)
    assert rows(tmp_path) == {"jobs": 1, "images": 1, "sources": 1, "outbox": 1}
    assert pictures(tmp_path) == 2
    assert unescaped(message.content) == "Deleted: 2 requests, 2 pictures."
    assert message.buttons == {}
    assert len(await bot.app.studio.history(f"discord:{eve.id}")) == 1


async def test_what_runs_and_waits_is_cancelled_first(held: Bot, tmp_path: Path) -> None:
    await held.discord.answer(await held.imagine())
    job = await held.drawing()
    await held.discord.answer(await held.imagine())

    await forget(held)

    assert rows(tmp_path)["jobs"] == 0
    assert pictures(tmp_path) == 0
    assert ("cancel", job) in held.executor.calls
    assert len(held.executor.requests) == 1


async def test_answers_to_what_is_forgotten_end(held: Bot, tmp_path: Path) -> None:
    runs = await held.discord.answer(await held.imagine("one"))
    held.executor.report(await held.drawing(), step=2)
    await held.discord.until(lambda: "step 2" in runs.content)
    waits = await held.discord.answer(await held.imagine("two"))

    await forget(held)

    for message in (runs, waits):
        assert "Cancelled." in message.content
        assert "Cancel" not in message.buttons
    assert not held.front_end.followers._followers
    assert rows(tmp_path) == {"jobs": 0, "images": 0, "sources": 0, "outbox": 0}


@pytest.mark.parametrize("is_tried", [True, False])
async def test_an_answer_that_can_not_be_brought_keeps_nothing_from_being_forgotten(
    held: Bot,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    is_tried: bool,
) -> None:
    monkeypatch.setattr(studio, "LAST_WORDS", 0.1)
    gate = asyncio.Event()
    held.discord.fail("edit_original", where=lambda call: "Cancelled." in call.content, until=gate)
    await held.discord.answer(await held.imagine())
    await held.drawing()
    if not is_tried:
        held.app.outbox._couriers.clear()

    await forget(held)
    gate.set()
    await held.app.outbox.rest()

    assert not held.front_end.followers._followers
    assert rows(tmp_path) == {"jobs": 0, "images": 0, "sources": 0, "outbox": 0}
    assert "Traceback" not in caplog.text


async def test_nothing_is_deleted_before_it_is_confirmed(
    tmp_path: Path, discord: DiscordDouble
) -> None:
    async with running_bot(tmp_path, discord) as bot:
        await discord.picture(await bot.imagine())
        asked = await discord.private_word(await discord.slash("mydata forget"))
        await bot.app.outbox.rest()
        kept = rows(tmp_path)
    async with running_bot(tmp_path, discord):
        await discord.click(asked, "Delete all of it")
        await discord.until(lambda: asked.content.startswith("Deleted"))

    assert "1 request" in asked.shown[0]
    assert kept["jobs"] == 1
    assert rows(tmp_path)["jobs"] == 0
    assert pictures(tmp_path) == 0


async def test_the_button_deletes_what_is_of_whoever_presses_it(bot: Bot, tmp_path: Path) -> None:
    await bot.discord.picture(await bot.imagine())
    asked = await bot.discord.private_word(await bot.discord.slash("mydata forget"))
    eve = bot.discord.world.add_user("eve")

    await bot.discord.click(asked, "Delete all of it", user=eve)
    await bot.discord.until(lambda: asked.content.startswith("Deleted: 0 requests"))

    assert rows(tmp_path)["jobs"] == 1
    assert pictures(tmp_path) == 1


async def test_forgetting_gives_nobody_a_new_days_quota(bot: Bot, tmp_path: Path) -> None:
    values = {"pictures_per_day": 2}
    asked = await bot.discord.slash("server set", values=values, permissions=MANAGE_GUILD)
    await bot.discord.private_word(asked)
    await bot.discord.picture(await bot.imagine(values={"count": 2}))

    await forget(bot)
    refused = unescaped((await bot.discord.private_word(await bot.imagine())).content)

    assert "you have 0 left" in refused
    assert rows(tmp_path)["jobs"] == 0


async def test_buttons_of_what_was_forgotten_say_so(bot: Bot) -> None:
    message = await bot.discord.picture(await bot.imagine())

    await forget(bot)
    told = await bot.discord.private_word(await bot.discord.click(message, "Again"))

    assert unescaped(told.content).startswith("job: ")


async def test_what_anothers_variation_was_made_from_can_be_forgotten(held: Bot) -> None:
    await held.discord.answer(await held.imagine())
    first = await held.drawing()
    held.executor.finish(first)
    async for _ in held.app.studio.watch(first):
        pass
    eve = held.discord.world.add_user("eve")
    shown = next(m for m in held.discord.world.messages.values() if not m.ephemeral)
    await held.discord.until(lambda: "Vary" in shown.buttons)
    await held.discord.answer(await held.discord.click(shown, "Vary", user=eve))
    second = await held.drawing()

    await forget(held)
    held.executor.finish(second)
    *_, last = [view async for view in held.app.studio.watch(second)]

    assert last.record.status is JobStatus.DONE
