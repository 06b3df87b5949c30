"""The power goes at every point between a request and its delivery: one answer, the right one.

A request's whole way is gone once undisturbed. At each boundary (before each SQL statement, before
and after each fsync, before and after Discord does what it is asked) the data folder and all that
Discord remembers are copied. Then the bot is started on each of these pasts; those in which nothing
has changed since the boundary before are the same one.
"""

import asyncio
import copy
import os
import pickle
import shutil
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pydantic import TypeAdapter

from bot.database import open_database
from bot.housekeeping import Housekeeper, Limits
from bot.image_folder import ImageFolder
from bot.store import Store
from engine.jobs import GenerationRequest
from engine.testing import FakeExecutor, fake_result
from tests.discord_double import Call, DiscordDouble, Interaction, Message
from tests.discord_double.world import World
from tests.discord_kit import Bot, running_bot

pytest_plugins = ["tests.discord_kit"]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # a start of the bot for each boundary

ROUTES = ("callback", "edit_original", "history", "send")

REQUESTS = TypeAdapter(GenerationRequest)

PATIENCE = 60.0
"""Seconds after which a wait is given up; nothing is decided by it."""

NO_PROGRESS = 3600.0
"""Seconds between progress edits: none comes, so that boundaries are the same in every run."""


@dataclass(frozen=True)
class Past:
    """All that is left after a power cut.

    Attributes:
        name: the boundary.
        data: the bot's data folder.
        world: what Discord remembers.
    """

    name: str
    data: Path
    world: World


class Recorder:
    """Takes a copy of everything at each boundary, while it is told to."""

    def __init__(self, data: Path, discord: DiscordDouble, folder: Path) -> None:
        self.pasts: list[Past] = []
        self.reached = 0
        self.is_on = False
        self._data = data
        self._discord = discord
        self._folder = folder
        self._loop = asyncio.get_running_loop()
        self._last: tuple[dict[str, bytes], bytes] | None = None

    def reach(self, name: str) -> None:
        """Copies all, in the event loop, so that Discord stands still meanwhile."""
        if not self.is_on:
            return
        self.reached += 1
        folder = self._folder / str(self.reached)
        # The shared memory beside the log is no file that survives.
        shutil.copytree(self._data, folder, ignore=shutil.ignore_patterns("*-shm", "*.lock"))
        world = copy.copy(self._discord.world)
        world.commands = None  # each start tells them anew
        remembered = pickle.dumps({k: v for k, v in vars(world).items() if k != "clock"})
        here = (contents(folder), remembered)
        if here == self._last:
            shutil.rmtree(folder)
            return
        self._last = here
        vars(world).update(pickle.loads(remembered))  # noqa: S301 - written above
        self.pasts.append(Past(f"{self.reached}: {name}", folder, world))

    def reach_in_thread(self, name: str) -> None:
        """Holds up a thread meanwhile."""

        async def reach() -> None:
            self.reach(name)

        if self.is_on:
            asyncio.run_coroutine_threadsafe(reach(), self._loop).result()

    def watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Begins to listen to what is written, to fsyncs and to Discord."""
        sync, answer = os.fsync, self._discord.rest._answer

        def opening(path: Path) -> sqlite3.Connection:
            db = open_database(path)
            db.set_trace_callback(lambda words: self.reach_in_thread(f"before {words[:50]}"))
            return db

        def syncing(descriptor: int) -> None:
            self.reach_in_thread("before an fsync")
            sync(descriptor)
            self.reach_in_thread("after an fsync")

        async def answering(
            call: Call, handler: Callable[[Call], Awaitable[Any]], request: web.Request
        ) -> web.Response:
            if call.route not in ROUTES:
                return await answer(call, handler, request)
            self.reach(f"before Discord's {call.route}")
            response = await answer(call, handler, request)
            self.reach(f"after Discord's {call.route}")
            return response

        monkeypatch.setattr("bot.store_access.open_database", opening)
        monkeypatch.setattr(os, "fsync", syncing)
        monkeypatch.setattr(self._discord.rest, "_answer", answering)


def contents(folder: Path) -> dict[str, bytes]:
    """Returns what lies in a folder, by path; folders in it are empty bytes."""
    return {
        str(path.relative_to(folder)): b"" if path.is_dir() else path.read_bytes()
        for path in folder.rglob("*")
    }


def finals(world: World) -> list[Message]:
    """Returns every message that shows the end of a request."""
    return [m for m in world.messages.values() if "Again" in m.buttons and not m.deleted]


@contextmanager
def database(data: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(data / "dreamlab.db")) as db:
        db.row_factory = sqlite3.Row
        yield db


def rows(data: Path) -> list[sqlite3.Row]:
    with database(data) as db:
        return rows_in(db)


def rows_in(db: sqlite3.Connection) -> list[sqlite3.Row]:
    return db.execute(
        "SELECT jobs.*, due_at, delivered_at, last_error"
        " FROM jobs LEFT JOIN outbox ON outbox.job_id = jobs.id"
    ).fetchall()


async def sweep(data: Path) -> set[str]:
    """Tidies up as a start does that comes much later; returns which pictures the store knows."""
    async with await Store.open(data / "dreamlab.db") as store:

        async def nobody(_: object) -> None:
            pass

        keeper = Housekeeper(store, ImageFolder(data / "images"), nobody, Limits())
        await keeper.tidy(datetime.now(UTC) + timedelta(hours=2))
        records = [await store.get(row["id"]) for row in rows(data)]
    return {image.path for record in records if record for image in record.images}


def files(data: Path) -> set[str]:
    folder = data / "images"
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


async def runs(bot: Bot) -> str:
    """Waits until the store knows that a drawing runs; returns its job."""
    while not (running := await bot.app.store.running(("discord",))):  # noqa: ASYNC110 # rows tell nobody
        await asyncio.sleep(0.01)
    return running[0].id


async def delivered(data: Path) -> None:
    """Waits until everything has ended and nothing is left to be delivered."""
    with database(data) as db:
        async with asyncio.timeout(PATIENCE):
            while any(row["delivered_at"] is None for row in rows_in(db)):  # noqa: ASYNC110 # likewise
                await asyncio.sleep(0.01)


async def ask(bot: Bot) -> Interaction:
    return await bot.imagine(values={"count": 2, "seed": 7})


@asynccontextmanager
async def recorded(
    data: Path, discord: DiscordDouble, monkeypatch: pytest.MonkeyPatch, *, start: bool = False
) -> AsyncIterator[tuple[Bot, Recorder]]:
    """Runs a bot whose drawing the test plays, and which is heard at every boundary.

    Args:
        data: its data folder.
        discord: what it is on.
        monkeypatch: as in the test.
        start: whether its start is copied as well.
    """
    recorder = Recorder(data, discord, data.parent)
    recorder.is_on = start
    with monkeypatch.context() as patch:
        recorder.watch(patch)
        executor = FakeExecutor(hold=True)
        async with running_bot(data, discord, executor, edit_seconds=NO_PROGRESS) as bot:
            try:
                yield bot, recorder
            finally:
                recorder.is_on = False


async def go_on(past: Past, discord: DiscordDouble) -> str | None:
    """Starts the bot on a past and sees that all ends well.

    Returns:
        How the request ended; None where it had not been stored.
    """
    try:
        return await _go_on(past, discord)
    except Exception as error:
        error.add_note(f"The power went at the boundary {past.name}")
        raise


async def _go_on(past: Past, discord: DiscordDouble) -> str | None:
    world = discord.world = discord.rest._world = discord.gateway._world = past.world
    was_stored = bool(rows(past.data))
    async with running_bot(past.data, discord) as bot:
        await delivered(past.data)
        requests = bot.executor.requests
    kept = await sweep(past.data)

    asked = next(iter(world.interactions.values()))
    messages = finals(world)
    if not was_stored:
        assert asked.acknowledged is None, "what is acknowledged is stored"
        assert (requests, messages, files(past.data)) == ([], [], set())
        return None
    (row,) = rows(past.data)
    assert len(messages) == 1, f"{len(messages)} answers"
    message = messages[0]
    assert (row["due_at"], row["last_error"]) == (None, None)
    pictures = [attachment.content for attachment in message.attachments]
    if row["status"] == "cancelled":
        assert (pictures, files(past.data)) == ([], set())
        assert "Cancelled." in message.content
    else:
        assert row["status"] == "done"
        request = REQUESTS.validate_json(row["request"])
        assert pictures == [image.png for image in fake_result(row["id"], request).images]
        assert files(past.data) == kept
        assert len(kept) == 2
    # Beside the answer there is only what the bot could not take back: where it stood in line.
    others = [m for m in world.messages.values() if not m.deleted and m is not message]
    assert others in ([], [asked.original])
    return str(row["status"])


@pytest.mark.parametrize("outage", [0, 16], ids=["back at once", "back when the token is dead"])
async def test_a_power_cut_anywhere_between_a_request_and_its_answer_loses_and_doubles_nothing(
    tmp_path: Path, discord: DiscordDouble, monkeypatch: pytest.MonkeyPatch, outage: int
) -> None:
    async with recorded(a_folder(tmp_path), discord, monkeypatch) as (bot, recorder):
        recorder.is_on = True
        await ask(bot)
        bot.executor.finish(await runs(bot))
        await delivered(bot.app.settings.data)
    discord.clock.advance(minutes=outage)

    ends = [await go_on(past, discord) for past in recorder.pasts]

    assert recorder.reached > 40
    assert len(ends) > 7
    assert set(ends) == {None, "done"}


async def test_a_power_cut_anywhere_while_a_late_result_is_posted_loses_and_doubles_nothing(
    tmp_path: Path, discord: DiscordDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = a_folder(tmp_path)
    async with running_bot(data, discord, FakeExecutor(hold=True)) as bot:
        await discord.answer(await ask(bot))
        await runs(bot)
    discord.clock.advance(minutes=16)

    async with recorded(data, discord, monkeypatch, start=True) as (bot, recorder):
        bot.executor.finish(await runs(bot))
        await delivered(data)

    ends = [await go_on(past, discord) for past in recorder.pasts]

    assert recorder.reached > 40
    assert len(ends) > 7
    assert set(ends) == {"done"}


async def test_a_power_cut_anywhere_while_a_request_is_cancelled_ends_it_once(
    tmp_path: Path, discord: DiscordDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with recorded(a_folder(tmp_path), discord, monkeypatch) as (bot, recorder):
        message = await discord.answer(await ask(bot))
        await runs(bot)
        recorder.is_on = True
        await discord.click(message, "Cancel")
        await delivered(bot.app.settings.data)

    ends = [await go_on(past, discord) for past in recorder.pasts]

    assert set(ends) == {"done", "cancelled"}


def a_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder
