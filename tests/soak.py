"""Keeps the real program busy for a while and looks whether it grows or stalls.

    python -m tests.soak                  # 30 minutes; make soak
    python -m tests.soak --minutes 3

The bot runs as its owner starts it, with a worker process and the demo model, against the double of
Discord. Members ask, press buttons, take requests back and ask for what is not allowed; browsers
follow the page's events and leave in the middle. Every few seconds the memory, the open files and
the threads of both processes are read. What a process has after the first third is compared with
what it has at the end: caches have filled by then, and what grows further is a leak.
"""

import argparse
import asyncio
import random
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.chaos import MEMBERS, PATIENCE, PROMPTS, Bot
from tests.discord_double import Clock, DiscordDouble
from tests.discord_double.world import Message

SAMPLE_SECONDS = 2.0
MEMORY_GROWTH = 0.05
"""Share of its memory that a process may grow by; allocators and SQLite's cache wander as much."""

FILES_GROWTH = 4
"""Files that may be open beyond those of the first third: connections come and go."""

MIB = 2**20


@dataclass
class Curve:
    """What one process used, look by look."""

    memory: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)

    def look(self, process: psutil.Process) -> None:
        """Adds what a process uses now."""
        with process.oneshot():
            self.memory.append(process.memory_info().rss)
            self.files.append(process.num_fds())
            self.threads.append(process.num_threads())


@dataclass
class Report:
    """What a run came to.

    Attributes:
        seconds: how long it was.
        pictures: that were posted.
        refused: requests that were not allowed and were told so.
        streams: browsers that came and left.
        worst_lag: the longest that the event loop was late, in seconds.
        curves: by process.
    """

    seconds: float = 0.0
    pictures: int = 0
    refused: int = 0
    streams: int = 0
    worst_lag: float = 0.0
    curves: dict[str, Curve] = field(default_factory=lambda: {"bot": Curve(), "worker": Curve()})

    @property
    def grown(self) -> list[str]:
        """Returns what has grown beyond what may be."""
        wrong = []
        for name, curve in self.curves.items():
            early, late = early_and_late(curve.memory)
            if late > early * (1 + MEMORY_GROWTH):
                wrong.append(f"{name}: memory grew from {early / MIB:.0f} to {late / MIB:.0f} MiB")
            early, late = early_and_late(curve.files)
            if late > early + FILES_GROWTH:
                wrong.append(f"{name}: open files grew from {early:.0f} to {late:.0f}")
        return wrong

    def __str__(self) -> str:
        """Says it on a few lines."""
        lines = [
            f"{self.seconds / 60:.1f} minutes, {self.pictures} pictures, {self.refused} refusals, "
            f"{self.streams} browsers",
            f"event loop at most {self.worst_lag * 1000:.0f} ms late",
        ]
        for name, curve in self.curves.items():
            memory, files, threads = map(early_and_late, (curve.memory, curve.files, curve.threads))
            lines.append(
                f"{name:<7} memory {memory[0] / MIB:.0f} → {memory[1] / MIB:.0f} MiB, "
                f"open files {files[0]:.0f} → {files[1]:.0f}, "
                f"threads {threads[0]:.0f} → {threads[1]:.0f}"
            )
        return "\n".join(lines + self.grown)


def early_and_late(values: list[int]) -> tuple[float, float]:
    """Returns the medians of the second and the last third of a run; 0 where there are none."""
    third = len(values) // 3
    if not third:
        return 0.0, 0.0
    return statistics.median(values[third : 2 * third]), statistics.median(values[-third:])


class Soak:
    """One run. See the module."""

    def __init__(self, discord: DiscordDouble, folder: Path, rng: random.Random) -> None:
        self.discord = discord
        self.bot = Bot(discord, folder)
        self.report = Report()
        self._rng = rng
        self._page = ""

    async def run(self, seconds: float) -> None:
        """Starts the bot and keeps it busy."""
        await self.bot.start()
        self._page = await self._address()
        began = time.monotonic()
        async with asyncio.TaskGroup() as crowd:
            tasks = [crowd.create_task(self._for_ever(self._member(name))) for name in MEMBERS]
            tasks += [crowd.create_task(self._for_ever(self._browser)) for _ in range(2)]
            tasks.append(crowd.create_task(self._for_ever(self._look)))
            await asyncio.sleep(seconds)
            for task in tasks:
                task.cancel()
        self.report.seconds = time.monotonic() - began
        await self.bot.stop()

    async def _for_ever(self, act: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while True:
            await act()

    def _member(self, name: str) -> Callable[[], Coroutine[Any, Any, None]]:
        user = self.discord.world.add_user(name)

        async def act() -> None:
            chance = self._rng.random()
            values: dict[str, Any] = {"prompt": self._rng.choice(PROMPTS)}
            if chance < 0.1:
                values["size"] = "as large as it gets"
                refusal = await self.discord.slash("imagine", values=values, user=user)
                await self.discord.private_word(refusal)
                self.report.refused += 1
                return
            asked = await self.discord.slash("imagine", values=values, user=user)
            message = await self.discord.picture(asked)
            self.report.pictures += 1
            if chance < 0.3:
                await self._press(message, "Again", user)
            elif chance < 0.5:
                await self._press(message, "Vary", user)
            elif chance < 0.7:
                deleted = await self.discord.click(message, "Delete", user=user)
                await self.discord.until(lambda: deleted.acknowledged, "an answer to Delete")
            self._tidy()

        return act

    async def _press(self, message: Message, label: str, user: Any) -> None:
        await self.discord.picture(await self.discord.click(message, label, user=user))
        self.report.pictures += 1

    def _tidy(self) -> None:
        """Forgets what the double keeps, which would fill this process in half an hour."""
        del self.discord.calls[:-200]

    async def _browser(self) -> None:
        """Follows the page's events for a moment and leaves without a word."""
        async with httpx.AsyncClient(base_url=self._page, timeout=PATIENCE) as client:
            for path in ("/", "/api/jobs", "/api/modes"):
                (await client.get(path)).raise_for_status()
            with suppress(TimeoutError):
                async with (
                    asyncio.timeout(self._rng.uniform(0.1, 2)),
                    client.stream("GET", "/api/events") as events,
                ):
                    async for _ in events.aiter_lines():
                        pass
        self.report.streams += 1

    async def _look(self) -> None:
        await asyncio.sleep(SAMPLE_SECONDS)
        async with httpx.AsyncClient(base_url=self._page, timeout=PATIENCE) as client:
            health = (await client.get("/healthz")).json()
        self.report.worst_lag = max(self.report.worst_lag, health["loop_lag"])
        bot, workers = self.bot.process(), self.bot.workers()
        self.report.curves["bot"].look(bot)
        if workers:
            self.report.curves["worker"].look(workers[0])

    async def _address(self) -> str:
        found = None
        while found is None:  # it is on Discord, and the page comes before that
            text = await asyncio.to_thread(self.bot.log.read_text, errors="replace")
            found = re.search(r"Dream Lab is at (\S+)", text)
            await asyncio.sleep(0.05)
        return found[1]


async def run(folder: Path, seconds: float, seed: int = 0) -> Report:
    """Runs it all in a folder, which is made, and returns the report."""
    async with DiscordDouble.running(Clock(running=True)) as discord:
        soak = Soak(discord, folder, random.Random(seed))  # noqa: S311 - no secret
        try:
            await soak.run(seconds)
        finally:
            await soak.bot.give_up()
        return soak.report


def main() -> None:
    """Runs it from the command line; the exit status is 1 where something has grown."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--minutes", type=float, default=30, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of what is left to chance")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = asyncio.run(run(Path(folder) / "soak", words.minutes * 60, words.seed))
    sys.stdout.write(f"{report}\n")
    sys.exit(bool(report.grown))


if __name__ == "__main__":
    main()
