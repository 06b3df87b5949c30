"""Compares our step loop with the stock pipeline: one user, and several who arrive one by one.

    python -m benchmarks.step_loop --users 8 --rounds 5

Both draw the same requests with the same model, sampler and seeds on one torch thread, and both
end with PNG files; ours makes its previews as well. Each round runs both, so that whatever else
the machine does meets both alike; what counts are the ratios, round by round. The stock pipeline
serves whoever came first, as behind a lock.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch  # noqa: TID253 - run by itself, no front end imports it
from diffusers import StableDiffusionPipeline  # noqa: TID253 - what is compared with

from engine.images import encode_png, request_parameters
from engine.jobs import GenerationRequest, GenerationResult, ModelSpec, Sampler
from engine.messages import JobEvent, JobFailed, Reply, Run
from engine.samplers import NoiseSchedule, create_scheduler
from engine.worker_host import WorkerHost

MODEL = Path(__file__).parent.parent / "models" / "diffusers" / "dream-demo"


@dataclass(frozen=True, slots=True)
class Served:
    """When everybody had their picture.

    Attributes:
        seconds: from the first arrival to the last picture.
        latency: mean time from arrival to picture, in seconds.
    """

    seconds: float
    latency: float


Serve = Callable[[Sequence[GenerationRequest], float], Served]


def stock_server(model: Path) -> Serve:
    """Returns what serves requests one after another with the stock pipeline."""
    pipeline = StableDiffusionPipeline.from_pretrained(
        model, dtype=torch.float32, local_files_only=True
    )
    pipeline.set_progress_bar_config(disable=True)
    schedule = NoiseSchedule.read(model / "scheduler" / "scheduler_config.json")

    def serve(requests: Sequence[GenerationRequest], gap: float) -> Served:
        began = time.perf_counter()
        latencies = []
        for i, request in enumerate(requests):
            time.sleep(max(0.0, began + i * gap - time.perf_counter()))
            pipeline.scheduler = create_scheduler(request.sampler, schedule, request.steps)
            image = pipeline(
                request.prompt,
                negative_prompt=request.negative_prompt,
                width=request.width,
                height=request.height,
                num_inference_steps=request.steps,
                guidance_scale=request.guidance_scale,
                generator=torch.Generator().manual_seed(request.seed),
            ).images[0]
            encode_png(image, request_parameters(request, request.seed))
            latencies.append(time.perf_counter() - began - i * gap)
        return Served(time.perf_counter() - began, statistics.mean(latencies))

    return serve


def our_server() -> Serve:
    """Returns what serves requests with the step loop, each joining when it arrives."""
    said: list[Reply] = []
    host = WorkerHost("cpu", said.append)

    def serve(requests: Sequence[GenerationRequest], gap: float) -> Served:
        began = time.perf_counter()
        arrivals = list(enumerate(requests))
        latencies = []
        while arrivals or host.busy:
            now = time.perf_counter() - began
            while arrivals and arrivals[0][0] * gap <= now:
                i, request = arrivals.pop(0)
                host.handle(Run(i, str(i), request))
            if host.busy:
                host.tick()
            else:
                time.sleep(max(0.0, arrivals[0][0] * gap - now))
            for reply in said:
                if isinstance(reply, JobFailed):
                    raise reply.error
                if isinstance(reply, JobEvent) and isinstance(reply.event, GenerationResult):
                    latencies.append(time.perf_counter() - began - reply.run_id * gap)
            said.clear()
        return Served(time.perf_counter() - began, statistics.mean(latencies))

    return serve


def compare(
    name: str,
    rounds: int,
    stock: Serve,
    ours: Serve,
    requests: Sequence[GenerationRequest],
    gap: float,
) -> None:
    """Prints the ratios over so many rounds: their median, and the least and the greatest."""
    throughput, latency, seconds = [], [], []
    for number in range(rounds):
        pair: dict[str, Served] = {}
        order = [("stock", stock), ("ours", ours)]
        for which, serve in order if number % 2 else reversed(order):
            pair[which] = serve(requests, gap)
        throughput.append(pair["stock"].seconds / pair["ours"].seconds)
        latency.append(pair["ours"].latency / pair["stock"].latency)
        seconds.append(pair["stock"].seconds)
    print(f"{name}: stock pipeline {statistics.median(seconds):.2f} s")
    print(f"  pictures per second, ours / stock: {_spread(throughput)}")
    print(f"  mean time to picture, ours / stock: {_spread(latency)}")


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main() -> None:
    """Reads the command line and prints the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, default=MODEL, help="a diffusers folder")
    parser.add_argument("--users", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128], help="in pixels")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{platform.platform()}, {platform.machine()}, one torch thread")
    names = ("torch", "diffusers", "transformers")
    print(f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in names))
    stock, ours = stock_server(options.model), our_server()
    for size in options.sizes:
        _measure(options, size, stock, ours)


def _measure(options: Any, size: int, stock: Serve, ours: Serve) -> None:
    request = GenerationRequest(
        mode="benchmark",
        model=ModelSpec(options.model),
        prompt="a red house by the sea",
        negative_prompt="",
        width=size,
        height=size,
        steps=options.steps,
        guidance_scale=5.0,
        sampler=Sampler.EULER,
        seed=1,
    )
    for serve in (stock, ours):
        serve([request], 0.0)  # loads what is loaded late
    alone = min(stock([request], 0.0).seconds for _ in range(3))
    print(f"\n{size} x {size} pixels, {options.steps} steps of {request.sampler}, guidance")
    compare("One user", options.rounds, stock, ours, [request], 0.0)
    crowd = [
        replace(request, seed=i, sampler=list(Sampler)[i % len(Sampler)])
        for i in range(options.users)
    ]
    # Twice as fast as the stock pipeline can serve them.
    name = f"{options.users} users, one every {alone / 2:.2f} s, all samplers"
    compare(name, options.rounds, stock, ours, crowd, alone / 2)


if __name__ == "__main__":
    main()
