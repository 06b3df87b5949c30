"""Kills the real program at random moments and looks whether anything was lost or came twice.

    python -m tests.chaos                 # 200 kills; make chaos
    python -m tests.chaos --kills 20 --faults

The bot runs as its owner starts it, with a worker process and the demo model, against the double of
Discord, which lives on in this process. Members ask for pictures while the bot, its worker or both
get SIGKILL. At the end the bot is left in peace until everybody has an answer, and then asked to
stop. Each request has a seed of its own, so that its picture is known by what its file says.
"""

import argparse
import asyncio
import contextlib
import io
import json
import os
import random
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from bot.housekeeping import Housekeeper, Limits
from bot.image_folder import ImageFolder
from bot.store import Store
from engine.images import read_png
from tests.discord_double import Clock, DiscordDouble
from tests.discord_double.calls import Fault
from tests.discord_double.world import Attachment, Interaction

ROOT = Path(__file__).parent.parent
PATIENCE = 300.0
"""Seconds after which a wait is given up; nothing is decided by it."""

MODES = f"""
model_root: {ROOT / "models"}
default_mode: demo
modes:
  demo:
    model: diffusers/dream-demo
    default_size: 64x64
    min_size: 64
    default_steps: 6
    default_guidance: 3
    default_sampler: DDIM
"""

PROMPTS = ("a red circle", "a blue square", "a small green star", "a yellow heart on black")
MEMBERS = ("ada", "bob", "cleo", "dan")
LULL = 10.0
"""Seconds without a word to Discord after which nothing more is waited for."""

MOST_WAITING = 12
"""Requests that may wait at once: a member may have sixteen in the queue, and more is refused."""

_ROUTES = ("edit_original", "followup", "send", "edit")


@dataclass
class Report:
    """What a run came to; all but the first block is to be zero.

    Attributes:
        kills: processes killed, by kind.
        requests: that were acknowledged in words, so that the asker counts on them.
        unheard: that Discord took back, since the bot died before it had answered.
        refused: that were refused in words, and not kept.
        pictures: answers that arrived with the right picture.
        blamed: requests that ended as failed since the program died twice while they were drawn.
        faults: answers of Discord that went wrong on purpose.
        lost: requests without an answer.
        doubled: pictures that were posted more than once.
        different: pictures unlike those of an undisturbed run with the same seed.
        unended: rows that are left waiting, running or undelivered.
        orphaned: picture files without a row, and rows without a file.
        left: processes that outlived the program.
    """

    kills: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    unheard: int = 0
    refused: int = 0
    pictures: int = 0
    blamed: int = 0
    faults: int = 0

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    unended: list[str] = field(default_factory=list)
    orphaned: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    @property
    def wrong(self) -> list[str]:
        """Returns all that must not be."""
        return [
            f"{attribute.name}: {item}"
            for attribute in fields(self)
            if isinstance(items := getattr(self, attribute.name), list)
            for item in items
        ]

    def __str__(self) -> str:
        """Says it on a few lines."""
        killed = ", ".join(f"{number} {kind}" for kind, number in sorted(self.kills.items()))
        lines = [f"kills      {self.kills.total()} ({killed})"]
        for attribute in fields(self)[1:]:
            value = getattr(self, attribute.name)
            number = len(value) if isinstance(value, list) else value
            lines.append(f"{attribute.name:<10} {number}")
        return "\n".join(lines + self.wrong)


class Bot:
    """The program, started again and again on one data folder."""

    def __init__(self, discord: DiscordDouble, folder: Path) -> None:
        self.discord = discord
        self.data = folder / "data"
        self.log = folder / "log.txt"
        self._modes = folder / "modes.yaml"
        folder.mkdir()
        self._modes.write_text(MODES, encoding="utf-8")
        self._process: asyncio.subprocess.Process | None = None
        self._workers: list[psutil.Process] = []

    async def start(self) -> None:
        """Starts it and waits until it is on Discord."""
        self.discord.world.commands = None
        environment = os.environ | {
            "DREAMLAB_DATA": str(self.data),
            "MODES_FILE": str(self._modes),
            "WEB_PORT": "0",
            "DEVICES": "cpu",
            "DISCORD_TOKEN": self.discord.token,
            "DISCORD_API_URL": self.discord.api_url,
            "DISCORD_GATEWAY_URL": self.discord.gateway_url,
        }
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "bot.py", cwd=ROOT, env=environment, stdout=log, stderr=log
            )
        await self.discord.connected()

    def process(self) -> psutil.Process:
        """Returns the program's own process."""
        assert self._process
        return psutil.Process(self._process.pid)

    def workers(self) -> list[psutil.Process]:
        """Returns its worker processes."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return self.process().children(recursive=True)
        return []

    async def kill(self, kind: str) -> None:
        """Kills the bot, its workers or both; starts the bot anew where it died."""
        assert self._process
        workers = self.workers()
        if kind != "worker":
            self._process.kill()
        if kind != "bot":
            for worker in workers:
                with contextlib.suppress(psutil.NoSuchProcess):
                    worker.kill()
        if kind != "worker":
            await self._process.wait()
            self._workers += workers
            self.discord.gateway.forget()
            await self.start()

    async def stop(self) -> list[str]:
        """Ends it in good order; returns the processes that are left of it."""
        assert self._process
        self._workers += self.workers()
        self._process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE):
            await self._process.wait()
        _, alive = await asyncio.to_thread(psutil.wait_procs, self._workers, timeout=PATIENCE)
        return [str(process) for process in alive]

    async def give_up(self) -> None:
        """Kills what is there."""
        if self._process and self._process.returncode is None:
            for process in self.workers():
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            self._process.kill()
            await self._process.wait()


@dataclass
class Asked:
    """A request and the interaction that brought it."""

    seed: int
    prompt: str
    interaction: Interaction

    @property
    def acknowledged(self) -> bool:
        """Whether the asker was told more than that somebody is thinking."""
        answer = self.interaction.original
        return bool(self.interaction.acknowledged and answer and answer.shown)

    @property
    def refused(self) -> bool:
        """Whether the asker alone was told that it can't be."""
        answer = self.interaction.answer
        return bool(answer and answer.ephemeral and answer.content)


class Chaos:
    """One run. See the module."""

    def __init__(self, discord: DiscordDouble, folder: Path, rng: random.Random) -> None:
        self.discord = discord
        self.bot = Bot(discord, folder)
        self.report = Report()
        self._rng = rng
        self._members = [discord.world.add_user(name) for name in MEMBERS]
        self._asked: list[Asked] = []
        self._faults: list[Fault] = []

    async def ask(self) -> Asked:
        """Has a member type /imagine."""
        seed, prompt = len(self._asked), self._rng.choice(PROMPTS)
        interaction = await self.discord.slash(
            "imagine",
            values={"prompt": prompt, "seed": seed},
            user=self._rng.choice(self._members),
        )
        self._asked.append(Asked(seed, prompt, interaction))
        return self._asked[-1]

    async def disturb(self, kills: int, *, faults: bool, longest: float) -> None:
        """Asks and kills, in turn.

        Args:
            kills: how many.
            faults: whether Discord's answers go wrong as well.
            longest: most seconds between a request and the kill after it.
        """
        for _ in range(kills):
            for _ in range(min(self._rng.randint(0, 2), MOST_WAITING - len(self._unended()))):
                await self.ask()
            if faults:
                self._add_fault()
            if self._unended() and self._rng.random() < 0.5:
                await self._edits(self._rng.randint(1, 8))
            await asyncio.sleep(self._rng.uniform(0, longest))
            kind = self._rng.choice(("bot", "worker", "both"))
            await self.bot.kill(kind)
            self.report.kills[kind] += 1

    async def _edits(self, number: int) -> None:
        """Waits until so many messages were written or edited: by then something is drawn.

        Else the next kill would come before the worker has started, most of the times.
        """
        came = len(self.discord.calls)
        with contextlib.suppress(AssertionError):  # nobody waits for anything
            await self.discord.until(
                lambda: len(self.discord.calls) >= came + number, "edits", patience=LULL
            )

    def _add_fault(self) -> None:
        """Has one of the next requests cut, refused, or answered into the void."""
        fault = self.discord.fail(
            self._rng.choice(_ROUTES),
            times=1,
            status=self._rng.choice((0, 500, 502)),
            processed=self._rng.random() < 0.5,
        )
        self._faults.append(fault)

    async def settle(self) -> None:
        """Waits until the store has nothing open, or for as long as there is patience."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and self._unended():  # noqa: ASYNC110 - in its database
            await asyncio.sleep(0.2)

    async def stop(self) -> None:
        """Stops the bot, and sweeps what its deaths left, as its next start in an hour would."""
        self.report.faults = sum(fault.met for fault in self._faults)
        self.report.left = await self.bot.stop()
        async with await Store.open(self.bot.data / "dreamlab.db") as store:
            images = ImageFolder(self.bot.data / "images")
            keeper = Housekeeper(store, images, _no_sources, Limits())
            await keeper.tidy(datetime.now(UTC) + timedelta(hours=2))

    def examine(self, undisturbed: "dict[int, Image.Image]") -> None:
        """Writes the report on a bot that is stopped."""
        report = self.report
        report.unended = self._unended()
        posted = self._posted()
        ends = self._ends()
        for asked in self._asked:
            name = f"seed {asked.seed} ({asked.prompt})"
            job_id, status = ends.get(asked.seed, ("", "no row"))
            if not job_id and not asked.acknowledged:
                report.unheard += 1
                continue
            if not job_id and asked.refused:
                report.refused += 1
                continue
            report.requests += 1
            pictures = posted.get(asked.seed, [])
            if len(pictures) > 1:
                report.doubled.append(name)
            if pictures:
                report.pictures += 1
                if not _alike(pictures[0], undisturbed[asked.seed]):
                    report.different.append(name)
            elif status == "failed" and self._told_given_up(job_id) == 1:
                report.blamed += 1
            else:
                report.lost.append(f"{name}: {status}")
        report.orphaned = self._orphans()

    def requests(self) -> list[Asked]:
        """Returns what was asked so far."""
        return list(self._asked)

    def _posted(self) -> dict[int, list[Image.Image]]:
        """Returns the pictures that are to be seen, by seed."""
        posted: dict[int, list[Image.Image]] = {}
        for message in self.discord.world.messages.values():
            if not message.deleted and "Again" in message.buttons:
                for attachment in message.attachments:
                    parameters = read_png(attachment.content)
                    assert parameters, "every picture says how it was drawn"
                    picture = _picture(attachment)
                    posted.setdefault(int(parameters.settings["Seed"]), []).append(picture)
        return posted

    def _told_given_up(self, job_id: str) -> int:
        """How many messages say that a job is given up, since the program died with it twice."""
        return sum(
            "tried again" in message.content
            and any(
                button.get("custom_id", "").endswith(job_id) for button in message.buttons.values()
            )
            for message in self.discord.world.messages.values()
            if not message.deleted
        )

    def _database(self) -> sqlite3.Connection:
        return sqlite3.connect(f"file:{self.bot.data / 'dreamlab.db'}?mode=ro", uri=True)

    def _unended(self) -> list[str]:
        with contextlib.closing(self._database()) as db:
            return [
                " ".join(map(str, row))
                for row in db.execute(
                    "SELECT jobs.id, status, jobs.attempts, outbox.last_error"
                    " FROM jobs LEFT JOIN outbox ON outbox.job_id = jobs.id"
                    " WHERE finished_at IS NULL OR delivered_at IS NULL"
                )
            ]

    def _ends(self) -> dict[int, tuple[str, str]]:
        """Returns each job's id and what became of it, by seed."""
        with contextlib.closing(self._database()) as db:
            rows = db.execute("SELECT request, id, status FROM jobs").fetchall()
        return {json.loads(request)["seed"]: (job_id, status) for request, job_id, status in rows}

    def _orphans(self) -> list[str]:
        folder = self.bot.data / "images"
        files = {str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file()}
        with contextlib.closing(self._database()) as db:
            rows = {path for (path,) in db.execute("SELECT path FROM images")}
        return sorted(files ^ rows)


async def _no_sources(paths: Sequence[str]) -> None:
    assert not paths, "nobody here sends pictures to draw from"


def _picture(attachment: Attachment) -> Image.Image:
    picture = Image.open(io.BytesIO(attachment.content))
    picture.load()
    return picture


def _alike(picture: Image.Image, other: Image.Image) -> bool:
    """Whether two pictures are those of one request: who shares a batch may change a last bit."""
    difference = np.asarray(picture, dtype=int) - np.asarray(other, dtype=int)
    return bool(np.abs(difference).max() <= 1)


async def undisturbed(requests: list[Asked], folder: Path) -> dict[int, Image.Image]:
    """Draws the same requests with a bot that nobody kills; returns the pictures by seed."""
    async with DiscordDouble.running(Clock(running=True)) as discord:
        bot = Bot(discord, folder)
        try:
            await bot.start()
            pictures = {}
            for asked in requests:
                values = {"prompt": asked.prompt, "seed": asked.seed}
                message = await discord.picture(await discord.slash("imagine", values=values))
                pictures[asked.seed] = _picture(message.attachments[0])
            await bot.stop()
        finally:
            await bot.give_up()
    return pictures


@contextlib.asynccontextmanager
async def _running(folder: Path, seed: int) -> AsyncIterator[Chaos]:
    async with DiscordDouble.running(Clock(running=True)) as discord:
        chaos = Chaos(discord, folder, random.Random(seed))  # noqa: S311 - no secret
        try:
            await chaos.bot.start()
            yield chaos
        finally:
            await chaos.bot.give_up()


async def run(
    folder: Path, kills: int, *, faults: bool = False, seed: int = 0, longest: float = 5.0
) -> Report:
    """Runs it all in a folder, which is made, and returns the report."""
    async with _running(folder, seed) as chaos:
        await chaos.disturb(kills, faults=faults, longest=longest)
        last = await chaos.ask()  # whatever came before, the bot still draws
        await chaos.discord.until(lambda: last.acknowledged, "an answer to the last")
        await chaos.settle()
        await chaos.stop()
        chaos.examine(await undisturbed(chaos.requests(), folder / "undisturbed"))
        return chaos.report


def main() -> None:
    """Runs it from the command line; the exit status is 1 where something was lost or doubled."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--kills", type=int, default=200, help="how many (default: %(default)s)")
    parser.add_argument("--faults", action="store_true", help="Discord's answers go wrong as well")
    parser.add_argument("--seed", type=int, default=0, help="of what is left to chance")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = asyncio.run(
            run(Path(folder) / "chaos", words.kills, faults=words.faults, seed=words.seed)
        )
        if report.wrong:
            sys.stderr.write((Path(folder) / "chaos" / "log.txt").read_text(errors="replace"))
    sys.stdout.write(f"{report}\n")
    sys.exit(bool(report.wrong))


if __name__ == "__main__":
    main()
