"""How it went: samples, and what the rows tell."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from bot.history import MACHINE, SLOTS, History, Memory, Sample, course
from bot.records import Ended, JobRecord
from bot.store import Store
from engine.errors import DreamLabError
from engine.jobs import JobStatus
from engine.testing import FakeExecutor
from engine.worker_pool import WorkerPool
from modes.catalog import ModeCatalog
from tests.discord_kit import MODES
from tests.records_kit import a_job, a_request

NOW = 1_800_000_000.0


def at(seconds_ago: float) -> datetime:
    return datetime.fromtimestamp(NOW - seconds_ago, UTC)


def ended(
    seconds_ago: float, *, asked: float, seconds: float | None, status: JobStatus, count: int = 1
) -> JobRecord:
    return a_job(
        request=a_request(count=count, steps=20),
        created_at=at(asked),
        finished_at=at(seconds_ago),
        seconds=seconds,
        status=status,
    )


async def keep(store: Store, *jobs: JobRecord) -> None:
    for job in jobs:
        await store.add(replace(job, status=JobStatus.QUEUED, finished_at=None))
        if job.status.is_final:
            await store.settle(job, carried=False)


@given(
    st.lists(st.tuples(st.floats(-10_000, 10_000), st.integers(0, 99)), max_size=50),
    st.sampled_from([1, 6, 24]),
)
def test_every_sample_of_the_time_counts_once_and_no_other(
    looks: list[tuple[float, int]], hours: int
) -> None:
    samples = [Sample(NOW + offset, waiting, 0) for offset, waiting in looks]

    told = course(hours, NOW, samples, ())

    within = [s.waiting for s in samples if NOW - hours * 3600 <= s.at <= NOW]
    assert len(told.waiting) == SLOTS
    assert max((v for v in told.waiting if v is not None), default=None) == max(
        within, default=None
    )
    assert sum(v is not None for v in told.waiting) <= len(within)


def test_memory_is_told_by_device_and_left_open_where_a_device_said_nothing() -> None:
    samples = [
        Sample(NOW - 3599, 0, 0, {"cuda:0": Memory(5, 24)}),
        Sample(NOW - 3595, 0, 0, {"cuda:0": Memory(9, 24)}),
        Sample(NOW - 1, 0, 0, {MACHINE: Memory(30, 64)}),
    ]

    told = course(1, NOW, samples, ())

    assert told.memory["cuda:0"][0] == 9
    assert told.memory["cuda:0"][1:] == (None,) * (SLOTS - 1)
    assert told.memory[MACHINE][-1] == 30
    assert told.totals == {"cuda:0": 24, MACHINE: 64}


def test_pictures_are_told_per_minute_whatever_the_length_of_a_slot() -> None:
    for hours in (1, 6, 24):
        told = course(hours, NOW, (), [Ended(3, 2, 48, 0, 1.0, 2.0, 0.1)])
        assert told.pictures[3] == 48 / hours
        assert told.drawn == 48


async def test_rows_tell_what_came_of_requests(tmp_path: Path) -> None:
    async with await Store.open(tmp_path / "dreamlab.db") as store:
        await keep(
            store,
            ended(3590, asked=3600, seconds=4, status=JobStatus.DONE, count=2),
            ended(3585, asked=3600, seconds=2, status=JobStatus.DONE),
            ended(30, asked=40, seconds=None, status=JobStatus.FAILED),
            ended(29, asked=40, seconds=None, status=JobStatus.CANCELLED),
            ended(3700, asked=3800, seconds=1, status=JobStatus.DONE),  # too long ago
            a_job(created_at=at(5)),  # has not ended
        )

        first, last = await store.ended(NOW - 3600, 60)

    assert first == Ended(0, 2, 3, 0, wait=9.5, longest_wait=13, step=(4 / (2 * 20) + 2 / 20) / 2)
    assert last == Ended(59, 2, 0, 1, None, None, None)


async def test_a_sample_says_what_waits_runs_and_is_in_memory(tmp_path: Path) -> None:
    for name in ("small", "other"):
        (tmp_path / f"{name}.safetensors").touch()
    (tmp_path / "modes.yaml").write_text(MODES.format(root=tmp_path), encoding="utf-8")
    executor = FakeExecutor(hold=True)
    catalog = ModeCatalog(tmp_path / "modes.yaml")
    async with (
        await Store.open(tmp_path / "dreamlab.db") as store,
        WorkerPool([executor], catalog) as pool,
    ):
        history = History(store, pool, clock=lambda: NOW)
        await executor.until(lambda: executor.alive)
        sample = await history.look()
        executor.die()
        without = await history.look()

        told = await history.course(1)

    assert (sample.waiting, sample.running) == (0, 0)
    assert sample.memory["fake:0"] == Memory(0, 1)
    assert 0 < sample.memory[MACHINE].used < sample.memory[MACHINE].total
    assert "fake:0" not in without.memory, "a device whose worker is away has said nothing"
    assert told.waiting[-1] == 0
    assert told.totals["fake:0"] == 1


async def test_samples_are_taken_until_it_is_cancelled_whatever_fails(tmp_path: Path) -> None:
    class Failing:
        looks = 0
        enough = asyncio.Event()

        async def stats(self, patience: float) -> list[object]:
            self.looks += 1
            if self.looks > 2:
                self.enough.set()
            raise DreamLabError("no")

    async with await Store.open(tmp_path / "dreamlab.db") as store:
        pool = Failing()
        history = History(store, pool, period=0)  # type: ignore[arg-type] # fails before it is one
        running = asyncio.create_task(history.run())
        await pool.enough.wait()
        running.cancel()


async def test_what_is_older_than_a_day_is_forgotten(tmp_path: Path) -> None:
    async with await Store.open(tmp_path / "dreamlab.db") as store:
        history = History(store, pool=None)  # type: ignore[arg-type] # not asked here
        moment = datetime(2026, 1, 1, tzinfo=UTC)
        for number in range(20_000):
            history._samples.append(Sample((moment + timedelta(seconds=number)).timestamp(), 0, 0))
        assert len(history._samples) == 8640
