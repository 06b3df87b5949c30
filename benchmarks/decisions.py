"""Measures what a decision costs: who is next, where somebody stands, who shares a forward pass.

    python -m benchmarks.decisions

Each figure is the median over many calls at a crowd that stays about as large, in microseconds of
processor time, so that what else the machine does counts little; the worst of a hundred stands
beside it. The crowds: 20 Discord servers, and one server alone.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from benchmarks.machine import headline, machine, write_results
from engine.fair_queue import FairQueue
from engine.step_batcher import StepBatcher

BOUND = 100.0
"""Microseconds that a decision may take."""

_MODELS = tuple(f"model-{number}" for number in range(8))
_SIZES = (64 * 64, 96 * 96, 128 * 128)


def a_queue(waiting: int, servers: int) -> tuple[FairQueue, list[str], Callable[[], str]]:
    """Returns a queue with so many waiting, their ids, and what lets one more wait."""
    queue, random = FairQueue(), Random(1)  # noqa: S311 - random requests, no secrets
    ids: list[str] = []

    def push() -> str:
        job_id = f"job-{len(ids)}"
        server = random.randrange(servers)
        member = random.randrange(1 + waiting // (10 * servers))
        cost = random.choice(_SIZES) * random.randint(10, 40)
        weight = random.choice((1.0, 1.0, 1.0, 2.0))
        queue.push(job_id, f"member-{member}", cost, weight, random.choice(_MODELS), str(server))
        ids.append(job_id)
        return job_id

    for _ in range(waiting):
        push()
    return queue, ids, push


def queue_costs(waiting: int, servers: int, calls: int) -> dict[str, dict[str, float]]:
    """Returns the cost of each decision of the fair queue."""
    queue, ids, push = a_queue(waiting, servers)
    random = Random(2)  # noqa: S311 - as above
    costs: dict[str, list[float]] = {
        name: [] for name in ("push", "pop", "pop, models loaded", "position", "place", "cancel")
    }
    for number in range(calls):
        loaded = _MODELS[:3] if number % 2 else ()
        took = costs["pop, models loaded" if loaded else "pop"]
        took.append(_timed(lambda loaded=loaded: queue.pop(loaded)))
        costs["push"].append(_timed(push))
        somebody = random.choice(ids)
        while somebody not in queue:
            somebody = random.choice(ids)
        costs["position"].append(_timed(lambda job_id=somebody: queue.position(job_id)))
        costs["place"].append(_timed(lambda job_id=somebody: queue.place(job_id)))
        costs["cancel"].append(_timed(lambda job_id=somebody: queue.remove(job_id)))
        push()
    return {name: _summary(took) for name, took in costs.items()}


def batcher_costs(pictures: int, calls: int) -> dict[str, dict[str, float]]:
    """Returns the cost of each decision of the step batcher, at eight keys and a cap of 16."""
    batcher: StepBatcher[int, str] = StepBatcher()
    random = Random(3)  # noqa: S311 - as above
    here: list[int] = []
    numbers = iter(range(10**9))

    def join() -> None:
        number = next(numbers)
        key = random.randrange(8)
        batcher.join(number, key, number // 2, 2, _SIZES[key % 3])
        here.append(number)

    for _ in range(pictures):
        join()
    costs: dict[str, list[float]] = {name: [] for name in ("join", "next batch", "leave")}
    for _ in range(calls):
        costs["next batch"].append(_timed(lambda: batcher.next_batch(lambda _: 16)))
        at = random.randrange(len(here))
        here[at], here[-1] = here[-1], here[at]
        gone = here.pop()
        costs["leave"].append(_timed(lambda gone=gone: batcher.leave(gone)))
        costs["join"].append(_timed(join))
    return {name: _summary(took) for name, took in costs.items()}


def _timed(call: Callable[[], Any]) -> float:
    began = time.thread_time_ns()
    call()
    return (time.thread_time_ns() - began) / 1000


def _summary(took: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(took, n=100) if len(took) > 1 else took * 100
    return {"median": round(statistics.median(took), 1), "p99": round(cuts[98], 1)}


def measure(crowds: list[int], calls: int) -> Iterator[dict[str, Any]]:
    """Yields each decision's cost at each crowd."""
    for crowd in crowds:
        for servers in (20, 1):
            for name, cost in queue_costs(crowd, servers, calls).items():
                where = f"fair queue, {servers} server{'s' if servers > 1 else ''}"
                yield {"of": where, "decision": name, "crowd": crowd, **cost}
        for name, cost in batcher_costs(crowd, calls).items():
            yield {"of": "step batcher, 8 keys", "decision": name, "crowd": crowd, **cost}


def main() -> None:
    """Reads the command line, prints the table and writes it down."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--crowds", type=int, nargs="+", default=[10, 1_000, 100_000])
    parser.add_argument("--calls", type=int, default=1000, help="of each kind, per figure")
    options = parser.parse_args()
    facts = machine()
    print(headline(facts))
    figures = list(measure(options.crowds, options.calls))
    print(f"\nMicroseconds per decision, median (99th percentile) of {options.calls} calls\n")
    print(f"{'':45}" + "".join(f"{crowd:>18,}" for crowd in options.crowds))
    rows: dict[tuple[str, str], list[str]] = {}
    for each in figures:
        cell = f"{each['median']:.1f} ({each['p99']:.1f})"
        rows.setdefault((each["of"], each["decision"]), []).append(cell)
    for (of, decision), cells in rows.items():
        print(f"{of + ': ' + decision:45}" + "".join(f"{cell:>18}" for cell in cells))
    above = [each for each in figures if each["median"] > BOUND]
    print(f"\n{len(figures) - len(above)} of {len(figures)} are within {BOUND:.0f} µs")
    print(write_results("decisions", facts, figures))


if __name__ == "__main__":
    main()
