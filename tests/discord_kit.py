"""The bot on Discord for tests: everything real but Discord itself and the drawing.

Its fixtures are had with ``pytest_plugins = ["tests.discord_kit"]``.
"""

import asyncio
import re
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from bot.app import App, open_app
from bot.client import DiscordFrontEnd
from bot.settings import Settings
from engine.executor import Executor
from engine.testing import FakeExecutor
from tests.discord_double import DiscordDouble, Interaction

MODES = """
model_root: {root}
default_mode: small
modes:
  small:
    title: Small
    description: Little pictures
    model: small.safetensors
    default_size: 64x128
    default_steps: 4
    min_size: 64
    max_size: 128
  other:
    title: Other_One
    model: other.safetensors
    default_size: 64x64
    default_steps: 2
    min_size: 64
"""

QUICK = 0.01
"""Seconds between edits where a test is not about them."""


@dataclass
class Bot:
    """A running bot and what it talks to."""

    app: App
    front_end: DiscordFrontEnd
    discord: DiscordDouble
    executor: FakeExecutor

    async def imagine(self, prompt: str = "a red circle", **options: Any) -> Interaction:
        """Has somebody type ``/imagine``; options of the double go beside ``values``."""
        values = {"prompt": prompt, **options.pop("values", {})}
        return await self.discord.slash("imagine", values=values, **options)

    async def drawing(self) -> str:
        """Waits until a job is held by the executor and returns its id."""
        await self.executor.until(lambda: bool(self.executor.running))
        return self.executor.running[0]


def settings_for(discord: DiscordDouble, folder: Path, modes: str = MODES, **more: Any) -> Settings:
    """Returns settings that point at the double; the modes' files are made."""
    values: dict[str, Any] = {
        "data": folder,
        "modes_file": write_modes(folder, modes),
        "discord_token": SecretStr(discord.token),
        "discord_api_url": discord.api_url,
        "discord_gateway_url": discord.gateway_url,
    }
    return Settings(**(values | more))


def write_modes(folder: Path, modes: str = MODES) -> Path:
    """Makes the modes file, unless there is one, and the models that it names; returns its path."""
    for name in ("small", "other"):
        (folder / f"{name}.safetensors").touch()
    path = folder / "modes.yaml"
    if not path.exists():
        path.write_text(modes.format(root=folder), encoding="utf-8")
    return path


@asynccontextmanager
async def serving(
    settings: Settings,
    discord: DiscordDouble,
    executors: list[Executor] | None = None,
    edit_seconds: float = QUICK,
) -> AsyncIterator[tuple[App, DiscordFrontEnd]]:
    """Runs the bot as the program does; leaving ends it at once, whatever is under way."""
    async with open_app(settings, executors) as app:
        app.outbox._delay = lambda _: timedelta(0)  # what is tried again is tried at once
        recovered = await app.studio.recover()
        front_end = DiscordFrontEnd(
            app.studio, app.catalog, settings, now=discord.clock.now, edit_seconds=edit_seconds
        )
        app.outbox.employ({"discord": front_end.courier})
        tasks = [
            asyncio.create_task(front_end.run(), name="discord"),
            asyncio.create_task(app.outbox.run(), name="outbox"),
        ]
        try:
            await front_end.resume(recovered)
            yield app, front_end
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def running_bot(
    folder: Path,
    discord: DiscordDouble,
    executor: FakeExecutor | None = None,
    *,
    edit_seconds: float = QUICK,
    modes: str = MODES,
    **settings: Any,
) -> AsyncIterator[Bot]:
    """Runs the bot with a fake executor and waits until its commands are there."""
    executor = executor or FakeExecutor()
    discord.world.commands = None
    chosen = settings_for(discord, folder, modes, **settings)
    async with serving(chosen, discord, [executor], edit_seconds) as (app, front_end):
        await discord.connected()
        yield Bot(app, front_end, discord, executor)
    discord.gateway.forget()


@contextmanager
def locked_database(folder: Path) -> Iterator[sqlite3.Connection]:
    """Keeps the database from being written, as another program does; commits in the end."""
    with closing(sqlite3.connect(folder / "dreamlab.db", isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        yield db
        db.execute("COMMIT")


def refuse_jobs(db: sqlite3.Connection, words: str) -> None:
    """Has the database refuse every new job, in a way that nobody foresaw."""
    db.execute(
        f"CREATE TRIGGER refusal BEFORE INSERT ON jobs BEGIN SELECT RAISE(ABORT, '{words}'); END"
    )


def unescaped(text: str) -> str:
    """Returns what Discord shows of text with backslashes before its special characters."""
    return re.sub(r"\\([^0-9A-Za-z\s])", r"\1", text)


@pytest.fixture
async def discord() -> AsyncIterator[DiscordDouble]:
    """Discord, without a bot yet."""
    async with DiscordDouble.running() as double:
        yield double


@pytest.fixture
async def bot(tmp_path: Path, discord: DiscordDouble) -> AsyncIterator[Bot]:
    """A bot whose drawings are done at once."""
    async with running_bot(tmp_path, discord) as running:
        yield running


@pytest.fixture
async def held(tmp_path: Path, discord: DiscordDouble) -> AsyncIterator[Bot]:
    """A bot whose drawing the test plays."""
    async with running_bot(tmp_path, discord, FakeExecutor(hold=True)) as running:
        yield running
