"""Measures what the way through a Ray cluster costs over a process on the same machine.

    python -m benchmarks.ray_overhead

A cluster of a head and two nodes is started here, so that Ray's own processes share the cores. The
same request is drawn by a local process, by a worker of the cluster and by the local process once
more, round by round, in an order that changes from round to round. What Ray costs is the median
over the rounds of the difference within a round; beside it stand the quartiles, and the same
between the two local drawings, which is what the machine's noise amounts to. What is beside the
drawing is asked for by itself: a word and its answer, and pictures of some sizes that come back. At
last two workers that only sleep show how far one is doubled.
"""

import argparse
import asyncio
import itertools
import os
import queue
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

from benchmarks.machine import ROOT, headline, machine, write_results
from engine import messages
from engine.executor import Executor
from engine.jobs import (
    GeneratedImage,
    GenerationRequest,
    GenerationResult,
    ModelSpec,
    Progress,
    Sampler,
    Stage,
)
from engine.local_executor import LocalExecutor
from engine.ray_executor import RayFleet
from engine.ray_worker import RayWorker
from tests.ray_kit import RayCluster

BOUND = 5.0
"""Milliseconds that a picture may take more, its transfer left out."""

SCALING = 1.9
"""Times that two workers must draw as much as one."""

REQUEST = GenerationRequest(
    mode="dream",
    model=ModelSpec(ROOT / "models" / "diffusers" / "dream-demo"),
    prompt="a red house by the sea",
    negative_prompt="",
    width=64,
    height=64,
    steps=4,
    guidance_scale=5.0,
    sampler=Sampler.EULER,
    seed=7,
)
SLEEP = 0.05
"""Seconds that a sleeping worker takes for a step."""


class EchoWorker(RayWorker):
    """A worker that draws nothing: each step sleeps, and the picture is as many bytes as asked.

    The request's prompt says both: seconds of a step, and bytes.
    """

    def _serve(self, start: messages.Start) -> None:
        self._say(messages.Ready(start.device))
        while True:
            match self._next():
                case messages.Run() as run:
                    self._echo(run)
                case messages.Ping(call_id):
                    self._say(messages.Answer(call_id))
                case messages.Stats(call_id):
                    self._say(messages.Answer(call_id, {}))
                case messages.Close():
                    break
        self._end()

    def _next(self) -> Any:
        commands: queue.SimpleQueue[Any] = self._commands
        return commands.get()

    def _echo(self, run: messages.Run) -> None:
        request = run.request
        seconds, size = request.prompt.split()
        for step in range(request.steps):
            time.sleep(float(seconds))
            progress = Progress(run.job_id, Stage.DENOISING, step + 1, request.steps)
            self._say(messages.JobEvent(run.run_id, progress))
        image = GeneratedImage(os.urandom(int(size)), request.seed, 64, 64)
        result = GenerationResult(run.job_id, (image,), 0.0, "cpu")
        self._say(messages.JobEvent(run.run_id, result))


async def timed(work: Callable[[], Awaitable[Any]]) -> float:
    """Returns the milliseconds that something takes."""
    began = time.perf_counter()
    await work()
    return (time.perf_counter() - began) * 1000


async def draw(executor: Executor, job_id: str, request: GenerationRequest) -> int:
    """Draws a request and returns how many events came."""
    count = 0
    async for _ in executor.run(job_id, request):
        count += 1
    return count


async def fleet_of(
    stack: AsyncExitStack, cluster: RayCluster, count: int, **options: Any
) -> list[Executor]:
    """Returns the started executors of a cluster."""
    joined: asyncio.Queue[Executor] = asyncio.Queue()

    async def leave(executor: Executor) -> None:
        await executor.close()

    fleet = RayFleet(cluster.address, gpus_per_worker=0, **options)
    serving = asyncio.create_task(fleet.run(joined.put_nowait, leave, lambda: 0))
    stack.push_async_callback(asyncio.wait, [serving])
    stack.callback(serving.cancel)
    await cluster.until(lambda: joined.qsize() == count)
    executors = [joined.get_nowait() for _ in range(count)]
    for executor in executors:
        await executor.start()
    return executors


async def measure(cluster: RayCluster, calls: int) -> list[dict[str, Any]]:
    """Returns the figures."""
    figures: list[dict[str, Any]] = []
    numbers = itertools.count()
    async with AsyncExitStack() as stack:
        local = LocalExecutor("cpu")
        await local.start()
        stack.push_async_callback(local.close)
        remote, _ = await fleet_of(stack, cluster, 2)
        for what, ask in (("picture of 4 steps, ms", _picture), ("word and answer, ms", _word)):
            rounds = await in_turn({"local": local, "ray": remote, "again": local}, ask, calls)
            figures.append({"of": what, **compared(rounds)})
    async with AsyncExitStack() as stack:
        worker = "benchmarks.ray_overhead:EchoWorker"
        echoing = await fleet_of(stack, cluster, 2, worker=worker, capacity=1)
        for size in (10_000, 500_000, 2_000_000):
            times = []
            for _ in range(calls):
                request = replace(REQUEST, prompt=f"0 {size}", steps=1)
                job_id = f"job {next(numbers)}"
                times.append(await timed(lambda r=request, j=job_id: draw(echoing[0], j, r)))
            figures.append({"of": f"{size:,} bytes back, ms", "ray": _middle(times)})
        steps, few = replace(REQUEST, prompt="0.001 100", steps=200), []
        few.append(await timed(lambda: draw(echoing[0], "steps", steps)))
        figures.append({"of": "step event, ms", "ray": round(few[0] / 200 - 1, 3)})
        figures.append(await scaling(echoing))
    return figures


async def in_turn(
    executors: Mapping[str, Executor],
    ask: Callable[[Executor, int], Awaitable[Any]],
    calls: int,
) -> dict[str, list[float]]:
    """Asks each for the same, round by round, and returns the milliseconds of each in each."""
    took: dict[str, list[float]] = {name: [] for name in executors}
    orders = list(itertools.permutations(executors))
    for number in range(-3, calls):
        for name in orders[number % len(orders)]:
            seconds = await timed(lambda e=executors[name], n=number: ask(e, n))
            if number >= 0:  # the first load the model and learn the knee
                took[name].append(seconds)
    return took


def compared(rounds: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Returns what is local, through Ray, and the differences within the rounds."""
    pairs = list(zip(rounds["local"], rounds["ray"], rounds["again"], strict=True))
    more = [ray - (local + again) / 2 for local, ray, again in pairs]
    noise = [again - local for local, _, again in pairs]
    low, middle, high = statistics.quantiles(more, n=4)
    return {
        "local": _middle([*rounds["local"], *rounds["again"]]),
        "ray": _middle(rounds["ray"]),
        "more": round(middle, 2),
        "quartiles": f"{low:.1f} to {high:.1f}",
        "noise": round(statistics.median(noise), 2),
    }


async def _picture(executor: Executor, number: int) -> None:
    await draw(executor, f"picture {number}", replace(REQUEST, seed=number + 3))


async def _word(executor: Executor, number: int) -> None:
    del number
    await executor.stats()


async def scaling(executors: list[Executor], requests: int = 16) -> dict[str, Any]:
    """Returns how much more two workers draw than one, where each only sleeps."""
    sleepy = replace(REQUEST, prompt=f"{SLEEP} 1000")
    seconds = []
    for workers in (executors[:1], executors):
        waiting = list(range(requests))

        async def serve(executor: Executor, waiting: list[int] = waiting) -> None:
            while waiting:
                await draw(executor, f"sleep {waiting.pop()}", sleepy)

        seconds.append(await timed(lambda w=workers, s=serve: asyncio.gather(*map(s, w))))
    return {"of": "two sleeping workers, times one", "ray": round(seconds[0] / seconds[1], 3)}


def _middle(values: list[float]) -> float:
    return round(statistics.median(values), 2)


async def run(calls: int) -> list[dict[str, Any]]:
    """Starts a cluster, measures and ends it."""
    cluster = RayCluster()
    os.environ.update(cluster.environment())
    try:
        await cluster.start()
        for name in ("one", "two"):
            await cluster.join(name, PYTHONPATH=str(ROOT))
        return await measure(cluster, calls)
    finally:
        await cluster.close()


def main() -> None:
    """Reads the command line, prints the table and writes it down."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--calls", type=int, default=40, help="of each kind")
    options = parser.parse_args()
    facts = machine()
    print(headline(facts))
    figures = asyncio.run(run(options.calls))
    columns = ("local", "ray", "more", "quartiles", "noise")
    print(f"\nMedians of {options.calls}\n\n{'':34}" + "".join(f"{name:>17}" for name in columns))
    for each in figures:
        print(f"{each['of']:34}" + "".join(f"{each.get(name, ''):>17}" for name in columns))
    print(f"\nLoad at the end: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(f"Bounds: {BOUND:g} ms more a picture beside its transfer, {SCALING:g} times with two")
    print(write_results("ray_overhead", facts, figures))


if __name__ == "__main__":
    main()
