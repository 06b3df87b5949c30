"""Plays a fleet of 1 to 1,000 GPUs and 100,000 members; the real queue and placement decide.

    python -m benchmarks.fleet_sim

Pure: members ask at random times, GPUs load and draw for as many seconds as the figures below say.
`engine.fair_queue` says who is next and `engine.placement` where, as in `engine.turns`.
Beside it stands what a plain pool would do: whoever is first goes to the first GPU that is free. A
GPU draws one request at a time here; what shared passes bring comes on top of it.

The second part takes the pool itself, with executors that do nothing, and times whole turns of it,
in processor time: a job ends, the next is chosen, and where it goes, among up to 100,000 that wait.
"""

import argparse
import asyncio
import heapq
import itertools
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.machine import ROOT, headline, machine, write_results
from engine.fair_queue import FairQueue
from engine.jobs import GenerationJob, GenerationRequest, ModelSpec, RequestDraft, Sampler
from engine.placement import Places, had_better_wait
from engine.testing import FakeExecutor
from engine.worker_pool import WorkerPool

BOUND = 1000.0
"""Microseconds that a decision may take at 1,000 GPUs and 100,000 waiting requests."""

MEMBERS, SERVERS = 100_000, 2_000
MODES, POPULARITY = 24, 1.4
"""Modes, and the exponent of Zipf's law by which they are asked for (GenTD26: about 1.4)."""

RESIDENT = 3
"""Models that a GPU's memory holds; the one that was used longest ago goes."""

LOAD_SECONDS = 5.0
"""A switch to a model that is not resident."""

SECONDS_A_PICTURE = (0.4, 1.6, 1.6, 2.4)
"""What a picture of a mode takes, in turn."""

PICTURES = (1, 1, 1, 1, 1, 1, 2, 2, 4, 4)
"""How many a request asks for, each as likely: 4 of 10 ask for several."""

UTILISATION = 0.8
"""Requests come as fast as this share of the GPUs could draw them, if nothing were ever loaded."""

IMAGES = ROOT / "docs" / "images"


@dataclass(slots=True, eq=False)
class Gpu:
    """Fulfils `engine.placement.Spot`."""

    resident: dict[str, None] = field(default_factory=dict)  # the one used last is last
    is_busy: bool = False
    failures: int = 0

    @property
    def load(self) -> float:
        """1 while it draws."""
        return float(self.is_busy)

    @property
    def held(self) -> int:
        """Models in memory."""
        return len(self.resident)

    def has(self, key: str) -> bool:
        """Whether a model is in memory."""
        return key in self.resident

    def take(self, key: str) -> float:
        """Begins to draw with a model and returns the seconds that loading it takes."""
        self.is_busy = True
        loads = key not in self.resident
        self.resident.pop(key, None)
        self.resident[key] = None
        if len(self.resident) > RESIDENT:
            del self.resident[next(iter(self.resident))]
        return LOAD_SECONDS if loads else 0.0


@dataclass(frozen=True, slots=True)
class Asked:
    """A request: when it came, and what it takes to draw."""

    at: float
    mode: str
    seconds: float
    pictures: int


def requests(gpus: int, count: int, seed: int) -> Iterator[tuple[Asked, str, str]]:
    """Yields requests with their members and servers, by time of arrival."""
    random = Random(seed)  # noqa: S311 - made-up requests, no secrets
    shares = [1 / rank**POPULARITY for rank in range(1, MODES + 1)]
    seconds = [SECONDS_A_PICTURE[mode % len(SECONDS_A_PICTURE)] for mode in range(MODES)]
    a_picture = sum(map(float.__mul__, shares, seconds)) / sum(shares)
    rate = UTILISATION * gpus / (a_picture * statistics.mean(PICTURES))
    activity = list(itertools.accumulate(1 / rank for rank in range(1, MEMBERS + 1)))
    at = 0.0
    for _ in range(count):
        at += random.expovariate(rate)
        member = random.choices(range(MEMBERS), cum_weights=activity)[0]
        mode = random.choices(range(MODES), shares)[0]
        pictures = random.choice(PICTURES)
        asked = Asked(at, f"mode {mode}", seconds[mode] * pictures, pictures)
        yield asked, f"member {member}", f"server {member % SERVERS}"


class Fleet:
    """GPUs, who waits for them, and a clock.

    Args:
        gpus: how many.
        is_plain: whether the first goes to the first free GPU, whatever is loaded where.
    """

    def __init__(self, gpus: int, *, is_plain: bool) -> None:
        self._gpus = [Gpu() for _ in range(gpus)]
        self._is_plain = is_plain
        self._queue = FairQueue()
        self._asked: dict[str, Asked] = {}
        self._ends: list[tuple[float, int, Gpu, str]] = []
        self._numbers = itertools.count()
        self._now = 0.0
        self._places: Places[Gpu] = Places()
        for gpu in self._gpus:
            self._put(gpu)
        self.waits: list[float] = []
        self.switches = 0
        self.pictures = 0

    def play(self, coming: Iterator[tuple[Asked, str, str]]) -> float:
        """Draws everything and returns the seconds that it takes."""
        arrival = next(coming, None)
        while arrival is not None or self._ends:
            if arrival is not None and (not self._ends or arrival[0].at <= self._ends[0][0]):
                asked, member, server = arrival
                self._now = asked.at
                job_id = f"job {next(self._numbers)}"
                self._asked[job_id] = asked
                self._queue.push(job_id, member, asked.seconds, key=asked.mode, group=server)
                arrival = next(coming, None)
            else:
                self._now, _, gpu, job_id = heapq.heappop(self._ends)
                gpu.is_busy = False
                self._put(gpu)
                self.pictures += self._asked.pop(job_id).pictures
            self._take_turns()
        return self._now

    def _take_turns(self) -> None:
        """See `WorkerPool._take_turns`."""
        skipped: set[str] = set()
        places = self._places
        while len(places) and (job_id := self._queue.peek(skipped=skipped)) is not None:
            asked = self._asked[job_id]
            if self._had_better_wait(asked):
                skipped.add(asked.mode)
                continue
            if self._is_plain:
                gpu = next(gpu for gpu in self._gpus if not gpu.is_busy)
            else:  # a free one draws nothing, so that nobody need ask which ends first
                chosen = places.choose(asked.mode)
                assert chosen is not None  # noqa: S101 - one of them is free
                gpu = chosen
            loaded = () if self._is_plain else gpu.resident
            ticket = self._queue.pop(loaded, skipped=skipped, lanes=len(self._gpus))
            self._begin(gpu, ticket.job_id)

    def _had_better_wait(self, asked: Asked) -> bool:
        if self._is_plain or self._places.has_room_with(asked.mode):
            return False
        waiting = self._queue.waiting_for(asked.mode)
        holders, _ = self._places.holders(asked.mode)
        return had_better_wait(waiting, holders, asked.seconds, LOAD_SECONDS)

    def _put(self, gpu: Gpu) -> None:
        self._places.put(gpu, gpu.resident, has_room=not gpu.is_busy)

    def _begin(self, gpu: Gpu, job_id: str) -> None:
        asked = self._asked[job_id]
        loading = gpu.take(asked.mode)
        self._put(gpu)
        self.switches += loading > 0
        self.waits.append(self._now + loading - asked.at)
        end = self._now + loading + asked.seconds
        heapq.heappush(self._ends, (end, next(self._numbers), gpu, job_id))


def play(gpus: int, *, is_plain: bool) -> dict[str, Any]:
    """Returns the figures of a fleet."""
    count = max(3_000, 30 * gpus)
    fleet = Fleet(gpus, is_plain=is_plain)
    seconds = fleet.play(requests(gpus, count, seed=gpus))
    cuts = statistics.quantiles(fleet.waits, n=100)
    return {
        "part": "fleet",
        "gpus": gpus,
        "placement": "plain" if is_plain else "ours",
        "requests": count,
        "pictures a second": round(fleet.pictures / seconds, 2),
        "wait p50": round(cuts[49], 2),
        "wait p95": round(cuts[94], 2),
        "switches per 100": round(100 * fleet.switches / count, 1),
    }


# The pool itself ----------------------------------------------------------------------------------


class _Modes:
    """A source of modes that nobody asks."""

    default_mode = "mode 0"

    def names(self) -> Sequence[str]:
        return (self.default_mode,)

    def get(self, name: str) -> Any:
        raise NotImplementedError(name)

    def build_request(self, draft: RequestDraft) -> GenerationRequest:
        raise NotImplementedError(draft)


async def turns(gpus: int, waiting: int, calls: int) -> dict[str, Any]:
    """Times whole turns of the real pool, with so many requests waiting all the time."""
    random = Random(gpus)  # noqa: S311 - as above
    models = [ModelSpec(Path(f"mode {mode}")) for mode in range(MODES)]
    shares = [1 / rank**POPULARITY for rank in range(1, MODES + 1)]
    executors = [FakeExecutor(f"gpu {number}", hold=True) for number in range(gpus)]
    pool = WorkerPool(executors, _Modes(), queue_max=2 * waiting + gpus)
    took: list[float] = []
    dispatcher = pool._dispatcher
    take_turns = dispatcher.take_turns

    def timed() -> None:
        began = time.thread_time_ns()
        take_turns()
        took.append((time.thread_time_ns() - began) / 1000)

    dispatcher.take_turns = timed  # type: ignore[method-assign]

    def ask() -> None:
        member = random.randrange(MEMBERS)
        request = GenerationRequest(
            mode="mode",
            model=random.choices(models, shares)[0],
            prompt="",
            negative_prompt="",
            width=512,
            height=512,
            steps=20,
            guidance_scale=5.0,
            sampler=Sampler.EULER,
            seed=0,
        )
        owner, place = f"member {member}", f"server {member % SERVERS}"
        pool.submit_job(GenerationJob(owner=owner, place=place, request=request))

    async with pool:
        for _ in range(waiting + gpus):
            ask()
        await asyncio.gather(
            *(each.until(lambda each=each: bool(each.running)) for each in executors)
        )
        took.clear()
        for number in range(calls):
            executor = executors[number % gpus]
            [job_id] = executor.running
            executor.finish(job_id)
            # The next one is there, or the GPU waits for one of its model.
            while job_id in executor.running or not executor.running:  # noqa: ASYNC110 - turns
                await asyncio.sleep(0)
            ask()
        figures = took[:]
    return {
        "part": "turns",
        "gpus": gpus,
        "waiting": waiting,
        "median": round(statistics.median(figures), 1),
        "p99": round(statistics.quantiles(figures, n=100)[98], 1),
    }


# Showing ------------------------------------------------------------------------------------------


def draw(figures: Sequence[dict[str, Any]], folder: Path) -> list[Path]:
    """Draws the charts of the documents and returns their files."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 2, figsize=(10, 7), layout="constrained")
    of_fleets = [each for each in figures if each["part"] == "fleet"]
    of_turns = [each for each in figures if each["part"] == "turns"]
    for placement in ("ours", "plain"):
        line = [each for each in of_fleets if each["placement"] == placement]
        gpus = [each["gpus"] for each in line]
        axes[0, 0].plot(gpus, [e["pictures a second"] for e in line], "o-", label=placement)
        axes[0, 1].plot(gpus, [e["wait p95"] for e in line], "o-", label=f"{placement}, p95")
        axes[0, 1].plot(gpus, [e["wait p50"] for e in line], "o--", label=f"{placement}, median")
        axes[1, 0].plot(gpus, [e["switches per 100"] for e in line], "o-", label=placement)
    for waiting in sorted({each["waiting"] for each in of_turns}):
        line = [each for each in of_turns if each["waiting"] == waiting]
        gpus = [each["gpus"] for each in line]
        axes[1, 1].plot(gpus, [e["median"] for e in line], "o-", label=f"{waiting:,} waiting")
    axes[1, 1].axhline(BOUND, color="grey", linestyle=":")
    names = ("pictures a second", "seconds until it is drawn", "loads per 100 requests")
    for axis, name in zip(axes.flat, (*names, "µs for a turn of the pool, median"), strict=True):
        axis.set(xlabel="GPUs", ylabel=name, xscale="log")
        axis.grid(visible=True, alpha=0.3)
        axis.legend(frameon=False)
    for axis in (axes[0, 0], axes[0, 1], axes[1, 1]):
        axis.set_yscale("log")
    folder.mkdir(exist_ok=True)
    path = folder / "fleet.png"
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
    return [path]


def main() -> None:
    """Reads the command line, prints the tables, draws the charts and writes all of it down."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 3, 10, 30, 100, 300, 1000])
    parser.add_argument("--waiting", type=int, nargs="+", default=[1_000, 100_000])
    parser.add_argument("--calls", type=int, default=300, help="turns that are timed, per figure")
    parser.add_argument("--no-charts", action="store_true", help="leave docs/images as it is")
    options = parser.parse_args()
    facts = machine()
    print(headline(facts))
    figures = []
    print(f"\n{MEMBERS:,} members of {SERVERS:,} servers, {MODES} modes, {LOAD_SECONDS:g} s a load")
    for gpus in options.gpus:
        for is_plain in (False, True):
            figures.append(play(gpus, is_plain=is_plain))
            print("  ".join(f"{name} {value}" for name, value in list(figures[-1].items())[1:]))
    print("\nWhole turns of the pool, µs")
    for waiting in options.waiting:
        for gpus in options.gpus:
            figures.append(asyncio.run(turns(gpus, waiting, options.calls)))
            print("  ".join(f"{name} {value}" for name, value in list(figures[-1].items())[1:]))
    timed = [each for each in figures if each["part"] == "turns"]
    for cut in ("median", "p99"):
        longest = max(each[cut] for each in timed)
        print(f"longest {cut}: {longest:g} µs of {BOUND:g} that it may be")
    print(write_results("fleet_sim", facts, figures))
    if not options.no_charts:
        print(*draw(figures, IMAGES))


if __name__ == "__main__":
    main()
