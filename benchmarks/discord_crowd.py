"""Measures the bot on Discord under a crowd: a burst of requests, then many more while they wait.

    python -m benchmarks.discord_crowd --burst 1000 --rate 50 --seconds 60

The real program is started with the demo model and connects, over real sockets, to the double of
Discord in this process, which is as strict as Discord: what is acknowledged after three seconds is
refused. A thousand members type ``/imagine`` at once. While what they have asked for is drawn, more
is asked for at a steady rate, faster than it is drawn, so that those who wait become no fewer. At
the end it is waited until all of it is drawn, and counted who got how many answers.

An acknowledgement takes from the moment when the interaction is sent until the bot's first answer
has come in. Program, worker and double share the machine: drawing alone takes a core of it.
"""

import argparse
import asyncio
import statistics
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import aiohttp
import psutil

from benchmarks.machine import ROOT, headline, machine, write_results
from bot.loop_lag import LoopLag
from tests.discord_double import Clock, DiscordDouble, Interaction
from tests.program_kit import Program, a_program

TARGETS = {"burst": 3.0, "p99": 0.250, "lag": 0.100}
"""Seconds that the bot is meant to keep: until the last one of the burst is acknowledged, until
99 of 100 are while others wait, and of the event loop's delay meanwhile."""

MODES = f"""
model_root: {ROOT / "models"}
default_mode: demo
modes:
  demo:
    model: diffusers/dream-demo
    default_size: 64x64
    min_size: 64
    default_steps: 1
    default_guidance: 1
    default_sampler: DDIM
"""
"""The least that can be drawn: what is measured is the front end, and every picture is brought."""

_PACKAGES = ("discord.py", "aiohttp")
_LULL = 60.0
"""Seconds without a request of the bot's after which nothing more is waited for."""

Lag = Callable[[], Awaitable[float]]
"""Asks the program how late its event loop was at most in the last minute, in seconds."""


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """How long some interactions waited for their first answer; times in seconds.

    Attributes:
        sent: interactions.
        late: those that Discord gave up on, or that were never answered.
        p50: the median of those that were answered at all, in time or not.
        p99: likewise.
        longest: likewise.
        lag: how late the program's event loop was at most.
        cpu: processor time that the program itself took meanwhile; the worker's is not in it.
    """

    sent: int
    late: int
    p50: float
    p99: float
    longest: float
    lag: float
    cpu: float


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured; times in seconds.

    Attributes:
        burst: all at once.
        steady: at a steady rate, while others wait.
        waiting: who waited when the steady ones began, and when they ended.
        once: interactions with one message that holds the picture.
        more: interactions with further messages.
        never: interactions without a picture.
        seconds: from the first interaction to the last answer.
        own_lag: how late the double's own loop was at most, which every figure contains.
    """

    burst: Acknowledged
    steady: Acknowledged
    waiting: tuple[int, int]
    once: int
    more: int
    never: int
    seconds: float
    own_lag: float

    def lines(self) -> Iterator[str]:
        """Yields them for a terminal, beside what is meant to be kept."""
        yield from _lines(f"burst of {self.burst.sent}", self.burst)
        yield f"  last acknowledged after {_ms(self.burst.longest)}" + _meant(
            "burst", self.burst.longest, kept=not self.burst.late
        )
        yield from _lines(f"{self.steady.sent} while {self.waiting[0]} wait", self.steady)
        yield f"  p99 {_ms(self.steady.p99)}" + _meant("p99", self.steady.p99)
        yield f"  lag of the program's loop {_ms(self.steady.lag)}" + _meant("lag", self.steady.lag)
        yield f"waiting at the end of that: {self.waiting[1]}"
        wrong = self.more + self.never
        yield (
            f"answered once {self.once}, more than once {self.more}, never {self.never} "
            f"in {self.seconds:.0f} s (meant: each once; {'NOT KEPT' if wrong else 'kept'})"
        )
        yield f"lag of the double's own loop {_ms(self.own_lag)}"


class Crowd:
    """Members of a server who type ``/imagine``, and what became of it."""

    def __init__(self, discord: DiscordDouble, size: int) -> None:
        self._discord = discord
        self._members = [discord.world.add_user(f"member {number}") for number in range(size)]
        self._sent: dict[int, float] = {}
        self._came: dict[int, float] = {}
        self._read = 0
        self.asked: list[Interaction] = []

    async def ask(self) -> None:
        """Has the next member ask for a picture."""
        number = len(self.asked)
        sent = asyncio.get_running_loop().time()
        interaction = await self._discord.slash(
            "imagine",
            values={"prompt": "a red circle", "seed": number},
            user=self._members[number % len(self._members)],
        )
        self._sent[interaction.id] = sent
        self.asked.append(interaction)

    def acknowledged(self, start: int) -> bool:
        """Whether the bot has said something to all of the interactions from one on."""
        self._note()
        return all(asked.id in self._came for asked in self.asked[start:])

    def waits(self, start: int, end: int) -> list[float]:
        """Returns the seconds until the first answer to some interactions, sorted."""
        self._note()
        ids = [asked.id for asked in self.asked[start:end]]
        return sorted(self._came[each] - self._sent[each] for each in ids if each in self._came)

    def waiting(self) -> int:
        """How many have no picture yet."""
        return sum(not _pictures(asked) for asked in self.asked)

    def _note(self) -> None:
        calls = self._discord.calls
        for call in calls[self._read :]:
            if call.route == "callback":
                self._came.setdefault(int(call.params["interaction"]), call.came)
        self._read = len(calls)


async def use(
    discord: DiscordDouble, lag: Lag, pid: int, burst: int, rate: float, seconds: float
) -> Figures:
    """Has a crowd use a bot that is connected, and returns what was measured.

    Args:
        discord: what it is connected to.
        lag: asks it.
        pid: of its process.
        burst: requests at once, each of another member.
        rate: requests a second afterwards.
        seconds: for how long.
    """
    crowd, own_lag, program = Crowd(discord, burst), LoopLag(), psutil.Process(pid)
    looking = asyncio.create_task(own_lag.run())
    loop = asyncio.get_running_loop()
    began, used = loop.time(), _cpu(program)
    for _ in range(burst):
        await crowd.ask()
    await _until(discord, lambda: crowd.acknowledged(0))
    first = _acknowledged(crowd, 0, await lag(), _cpu(program) - used)

    before, used = crowd.waiting(), _cpu(program)
    due = loop.time()
    for _ in range(int(rate * seconds)):
        await crowd.ask()
        due += 1 / rate
        await asyncio.sleep(max(0.0, due - loop.time()))
    steady_lag, after = await lag(), crowd.waiting()
    await _until(discord, lambda: crowd.acknowledged(burst))
    steady = _acknowledged(crowd, burst, steady_lag, _cpu(program) - used)

    await _until(discord, lambda: not crowd.waiting())
    looking.cancel()
    pictures = [_pictures(asked) for asked in crowd.asked]
    return Figures(
        burst=first,
        steady=steady,
        waiting=(before, after),
        once=pictures.count(1),
        more=sum(number > 1 for number in pictures),
        never=pictures.count(0),
        seconds=loop.time() - began,
        own_lag=own_lag.worst,
    )


async def measure(folder: Path, burst: int, rate: float, seconds: float) -> Figures:
    """Starts the program in a folder, has a crowd use it, and returns what was measured."""
    (folder / "modes.yaml").write_text(MODES, encoding="utf-8")
    async with DiscordDouble.running(Clock(running=True)) as discord:
        settings = {
            "MODES_FILE": str(folder / "modes.yaml"),
            "QUEUE_MAX": str(2 * burst + int(2 * rate * seconds)),
            "DISCORD_TOKEN": discord.token,
            "DISCORD_API_URL": discord.api_url,
            "DISCORD_GATEWAY_URL": discord.gateway_url,
        }
        async with a_program(folder / "data", settings) as program:
            address = (await program.says(r"http://\S+")).group()
            reading = asyncio.create_task(_listen(program))
            await discord.connected()
            await discord.picture(await discord.slash("imagine", values={"prompt": "a star"}))

            async def lag() -> float:
                async with aiohttp.request("GET", f"{address}/healthz") as answer:
                    return float((await answer.json())["loop_lag"])

            try:
                return await use(discord, lag, program.process.pid, burst, rate, seconds)
            finally:
                reading.cancel()


def _acknowledged(crowd: Crowd, start: int, lag: float, cpu: float) -> Acknowledged:
    """Returns how long the interactions from one on have waited."""
    asked, waits = crowd.asked[start:], crowd.waits(start, len(crowd.asked))
    return Acknowledged(
        sent=len(asked),
        late=sum(each.acknowledged is None for each in asked),
        p50=statistics.median(waits),
        p99=waits[int(len(waits) * 0.99)],
        longest=waits[-1],
        lag=lag,
        cpu=cpu,
    )


def _pictures(asked: Interaction) -> int:
    """How many messages an interaction was answered with that hold a finished picture."""
    messages = [*asked.followups, *([asked.original] if asked.original else [])]
    return sum(
        bool(each.attachments) and "Again" in each.buttons for each in messages if not each.deleted
    )


async def _listen(program: Program) -> None:
    """Hears what a program says: with nobody to read, it would wait for the pipe to be emptied."""
    while program.process.stdout and await program.process.stdout.readline():
        pass


async def _until(discord: DiscordDouble, reached: Callable[[], bool]) -> None:
    """Waits until something is so, or until the bot has had nothing to say for a while."""
    while not reached():
        calls = len(discord.calls)
        for _ in range(int(_LULL / 0.1)):
            await asyncio.sleep(0.1)
            if len(discord.calls) > calls:
                break
        else:
            return


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _lines(what: str, figures: Acknowledged) -> Sequence[str]:
    return (
        f"{what}: {figures.late} not acknowledged in time",
        f"  p50 {_ms(figures.p50)}, p99 {_ms(figures.p99)}, longest {_ms(figures.longest)}, "
        f"loop's lag {_ms(figures.lag)}, {figures.cpu:.1f} s of processor time",
    )


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.0f} ms"


def _meant(name: str, value: float, *, kept: bool = True) -> str:
    bound = TARGETS[name]
    verdict = "kept" if kept and value < bound else "NOT KEPT"
    return f" (meant: below {_ms(bound)}; {verdict})"


def main() -> None:
    """Reads the command line and prints the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--burst", type=int, default=1000, help="requests at once")
    parser.add_argument("--rate", type=float, default=50.0, help="requests a second, afterwards")
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    facts = machine()
    facts["packages"] = {name: version(name) for name in _PACKAGES}
    print(headline(facts))
    print(f"{options.burst} requests at once, then {options.rate:g}/s for {options.seconds:g} s")
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(measure(Path(folder), options.burst, options.rate, options.seconds))
    for line in found.lines():
        print(line)
    write_results("discord_crowd", facts, asdict(found))


if __name__ == "__main__":
    main()
