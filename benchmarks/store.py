"""Measures how many submissions a second are committed: one by one, and as they come together.

    python -m benchmarks.store --jobs 2000 --rounds 5

Each is committed and synced before it counts. One by one: the next is asked for when the one
before is on the disk. Together: all are asked for at once, as by many members, and share
transactions. Rounds alternate, so that whatever else the machine does meets both alike.
"""

import argparse
import asyncio
import itertools
import sqlite3
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.machine import headline, machine
from bot.records import JobRecord, Origin, Owner
from bot.store import Store
from engine.jobs import GenerationRequest, JobStatus, ModelSpec, Sampler, new_job_id

_REQUEST = GenerationRequest(
    mode="demo",
    model=ModelSpec(Path("models/checkpoints/a-model-with-a-name.safetensors")),
    prompt="a lighthouse at dawn, waves, gulls, soft light, oil on canvas",
    negative_prompt="blurry",
    width=512,
    height=512,
    steps=20,
    guidance_scale=7.0,
    sampler=Sampler.DPMPP_2M_KARRAS,
    seed=1,
)


MEMBERS = 200
"""Who asks, in turn: what a member has asked for today is counted with each request."""

_numbers = itertools.count()


def a_job() -> JobRecord:
    """Returns a new request, of the next member."""
    member = 80351110224678912 + next(_numbers) % MEMBERS
    return JobRecord(
        id=new_job_id(),
        owner=Owner(f"discord:{member}", "Ada"),
        origin=Origin("discord", "discord:1", {"channel_id": 1, "token": "t" * 200}),
        request=_REQUEST,
        status=JobStatus.QUEUED,
        created_at=datetime.now(UTC),
    )


async def one_by_one(store: Store, jobs: int) -> float:
    """Returns submissions a second, each waiting for the one before."""
    began = time.perf_counter()
    for _ in range(jobs):
        await store.add(a_job())
    return jobs / (time.perf_counter() - began)


async def together(store: Store, jobs: int) -> float:
    """Returns submissions a second, all asked for at once."""
    began = time.perf_counter()
    await asyncio.gather(*(store.add(a_job()) for _ in range(jobs)))
    return jobs / (time.perf_counter() - began)


async def measure(folder: Path, jobs: int, rounds: int) -> None:
    """Prints both rates and their ratio, round by round and in the middle."""
    single, grouped = [], []
    async with await Store.open(folder / "dreamlab.db") as store:
        for _ in range(rounds):
            single.append(await one_by_one(store, max(1, jobs // 10)))
            grouped.append(await together(store, jobs))
    ratios = [group / one for one, group in zip(single, grouped, strict=True)]
    print(f"one by one: {_spread(single)} commits/s")
    print(f"together:   {_spread(grouped)} commits/s")
    print(f"ratio:      {_spread(ratios)}")


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):,.1f} ({min(values):,.1f} to {max(values):,.1f})"


def main() -> None:
    """Reads the command line and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="on the disk to measure; a temporary one")
    options = parser.parse_args()
    print(headline(machine()))
    print(f"SQLite {sqlite3.sqlite_version}, synchronous=FULL")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        asyncio.run(measure(Path(folder), options.jobs, options.rounds))


if __name__ == "__main__":
    main()
