"""Measures the page under a crowd: streams of events that are open, and requests that keep coming.

    python -m benchmarks.web --streams 200 --rate 50 --seconds 60

The real program is started with the demo model and tokens for eight artists. Browsers keep a stream
of everything open, one of the artists has a picture drawn now and then, and in between jobs are
looked up at a steady rate, whether the last answer has come or not. Program and browsers share the
machine, and drawing takes what it takes of it: all three are slower than each alone.
"""

import argparse
import asyncio
import itertools
import secrets
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import aiohttp
import psutil

from benchmarks.machine import headline, machine, write_results
from bot.loop_lag import LoopLag
from tests.program_kit import a_program

TARGETS = {"p99": 0.050, "lag": 0.100, "growth": 16.0}
"""Seconds, seconds, and MiB over the run: what the page is meant to keep."""

_PACKAGES = ("fastapi", "uvicorn", "starlette", "pydantic", "aiohttp")
_ARTISTS = 8
_DRAW_EVERY = 10.0
"""Seconds between two pictures; each has all of its artist's browsers told of every step."""

_PROMPT = {"prompt": "a red circle on a white background"}


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured; times in seconds, memory in MiB.

    Attributes:
        seconds: how long it went.
        requests: answers that came, all of them 200.
        failed: answers that were none, or another.
        p50: of looking a job up, from when it was due to the last byte.
        p99: likewise.
        longest: likewise.
        lag: how late the program's event loop was at most, in the last minute.
        own_lag: how late the browsers' own loop was at most, which every answer waited for.
        events: how many came over all streams.
        before: memory of the program, in the middle of the first tenth.
        after: likewise of the last one.
        most: likewise the most.
    """

    seconds: float
    requests: int
    failed: int
    p50: float
    p99: float
    longest: float
    lag: float
    own_lag: float
    events: int
    before: float
    after: float
    most: float

    def lines(self) -> Iterator[str]:
        """Yields them for a terminal, beside what is meant to be kept."""
        yield f"{self.requests} answers in {self.seconds:.0f} s, {self.failed} failed"
        yield f"{self.events} events over the streams"
        yield f"p50 {self.p50 * 1e3:.1f} ms, p99 {self.p99 * 1e3:.1f} ms" + _meant("p99", self.p99)
        yield f"longest {self.longest * 1e3:.1f} ms"
        yield f"lag of the program's loop {self.lag * 1e3:.1f} ms" + _meant("lag", self.lag)
        yield f"lag of the browsers' own loop {self.own_lag * 1e3:.1f} ms"
        growth = self.after - self.before
        yield (
            f"memory {self.before:.1f} MiB, then {self.after:.1f} MiB, at most {self.most:.1f} MiB;"
            f" grew by {growth:.1f} MiB"
        ) + _meant("growth", growth)


class Crowd:
    """Browsers of some artists."""

    def __init__(self, address: str, tokens: Sequence[str]) -> None:
        self._address = address
        self._headers = [{"Authorization": f"Bearer {token}"} for token in tokens]
        self.events = 0
        self.failed = 0
        self.waits: list[float] = []

    @asynccontextmanager
    async def browsing(self, streams: int) -> AsyncIterator[aiohttp.ClientSession]:
        """Keeps streams open, and gives what the other requests go through."""
        limits = aiohttp.TCPConnector(limit=0)
        patience = aiohttp.ClientTimeout(total=None, sock_read=None)
        async with aiohttp.ClientSession(
            self._address, connector=limits, timeout=patience
        ) as session:
            opened = asyncio.Semaphore(0)
            tasks = [
                asyncio.create_task(self._listen(session, headers, opened))
                for headers in itertools.islice(itertools.cycle(self._headers), streams)
            ]
            try:
                for _ in tasks:
                    await opened.acquire()
                yield session
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def size(self) -> int:
        """How many artists there are."""
        return len(self._headers)

    async def job(self, session: aiohttp.ClientSession, artist: int, steps: int = 20) -> str:
        """Asks for a picture and returns its job."""
        headers, body = self._headers[artist % self.size], {**_PROMPT, "steps": steps}
        async with session.post("/api/jobs", json=body, headers=headers) as answer:
            told = await answer.json()
        return str(told["id"])

    async def drawn(self, session: aiohttp.ClientSession) -> None:
        """Waits until nothing is drawn any more."""
        while True:
            async with session.get("/api/status", headers=self._headers[0]) as answer:
                status = await answer.json()
            busy = any(lane["in_flight"] for lane in status["lanes"])
            if status["can_draw"] and not status["waiting"] and not busy:
                return
            await asyncio.sleep(0.2)

    async def look_up(
        self, session: aiohttp.ClientSession, artist: int, job_id: str, due: float
    ) -> None:
        """Looks a job up, and notes how long that took."""
        path = f"/api/jobs/{job_id}"
        async with session.get(path, headers=self._headers[artist]) as answer:
            await answer.read()
        self.waits.append(time.perf_counter() - due)
        self.failed += answer.status != 200

    async def _listen(
        self, session: aiohttp.ClientSession, headers: dict[str, str], opened: asyncio.Semaphore
    ) -> None:
        async with session.get("/api/events", headers=headers) as answer:
            answer.raise_for_status()
            opened.release()
            # By pieces: a line may hold a long history.
            async for piece in answer.content.iter_any():
                self.events += piece.count(b"event: ")


async def measure(streams: int, rate: float, seconds: float, folder: Path) -> Figures:
    """Starts the program in a folder, has a crowd use it, and returns what was measured."""
    tokens = [secrets.token_urlsafe(24) for _ in range(_ARTISTS)]
    settings = {"WEB_TOKEN": secrets.token_urlsafe(24), "WEB_ARTIST_TOKEN": ",".join(tokens)}
    async with a_program(folder, settings) as program:
        address = (await program.says(r"http://\S+")).group()
        crowd = Crowd(address, tokens)
        return await use(crowd, program.process.pid, streams, rate, seconds)


async def use(crowd: Crowd, pid: int, streams: int, rate: float, seconds: float) -> Figures:
    """Has a crowd use a page that is served, and returns what was measured.

    Args:
        crowd: who.
        pid: of the process that serves it.
        streams: that are open.
        rate: requests a second.
        seconds: for how long.
    """
    own_lag, memory = LoopLag(), Memory(pid)
    async with crowd.browsing(streams) as session:
        jobs = [await crowd.job(session, artist, steps=1) for artist in range(crowd.size)]
        await crowd.drawn(session)
        working = [
            asyncio.create_task(work)
            for work in (own_lag.run(), memory.run(seconds / 100), _draw(crowd, session))
        ]
        began = time.perf_counter()
        await _ask(crowd, session, jobs, rate, seconds)
        took = time.perf_counter() - began
        async with session.get("/healthz") as answer:
            lag = float((await answer.json())["loop_lag"])
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)
    waits = sorted(crowd.waits)
    return Figures(
        seconds=took,
        requests=len(waits) - crowd.failed,
        failed=crowd.failed,
        p50=statistics.median(waits),
        p99=waits[int(len(waits) * 0.99)],
        longest=waits[-1],
        lag=lag,
        own_lag=own_lag.worst,
        events=crowd.events,
        before=memory.early,
        after=memory.late,
        most=max(memory.looks),
    )


class Memory:
    """A process's own memory, in MiB, looked at again and again."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self.looks: list[float] = [self._look()]

    async def run(self, pause: float) -> None:
        """Looks until it is cancelled."""
        while True:
            await asyncio.sleep(pause)
            self.looks.append(self._look())

    @property
    def early(self) -> float:
        """The median of the first tenth."""
        return statistics.median(self.looks[: len(self.looks) // 10 + 1])

    @property
    def late(self) -> float:
        """The median of the last tenth."""
        return statistics.median(self.looks[-(len(self.looks) // 10 + 1) :])

    def _look(self) -> float:
        return float(self._process.memory_info().rss / 2**20)


async def _ask(
    crowd: Crowd, session: aiohttp.ClientSession, jobs: Sequence[str], rate: float, seconds: float
) -> None:
    """Looks jobs up at their times, whether the last answer has come or not."""
    began = time.perf_counter()
    asked = []
    for number in range(int(rate * seconds)):
        due = began + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        artist = number % crowd.size
        asked.append(asyncio.create_task(crowd.look_up(session, artist, jobs[artist], due)))
    await asyncio.gather(*asked)


async def _draw(crowd: Crowd, session: aiohttp.ClientSession) -> None:
    for artist in itertools.count():
        await crowd.job(session, artist)
        await asyncio.sleep(_DRAW_EVERY)


def _meant(name: str, value: float) -> str:
    bound = TARGETS[name]
    shown = f"{bound:.0f} MiB" if name == "growth" else f"{bound * 1e3:.0f} ms"
    return f" (meant: below {shown}; {'kept' if value < bound else 'NOT KEPT'})"


def main() -> None:
    """Reads the command line and prints the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--rate", type=float, default=50.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    facts = machine()
    facts["packages"] = {name: version(name) for name in _PACKAGES}
    print(headline(facts))
    print(f"{options.streams} streams, {options.rate:g} requests/s")
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(measure(options.streams, options.rate, options.seconds, Path(folder)))
    for line in found.lines():
        print(line)
    write_results("web", facts, asdict(found))


if __name__ == "__main__":
    main()
