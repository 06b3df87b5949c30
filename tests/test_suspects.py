"""Jobs whose worker died wait for a lane to themselves; others go on, and on the right lanes."""

import asyncio

import pytest

from engine.fair_queue import MOST_OVERTAKINGS
from engine.jobs import GenerationJob
from engine.testing import FakeExecutor
from engine.worker_pool import WorkerPool
from tests.test_worker_pool import a_job, a_pool, eventually, runs

pytestmark = pytest.mark.timeout(60)


def some(count: int, whose: str) -> list[GenerationJob]:
    return [a_job(owner=f"{whose} {number}") for number in range(count)]


def devices(count: int, capacity: int) -> list[FakeExecutor]:
    return [FakeExecutor(f"fake:{n}", capacity=capacity, hold=True) for n in range(count)]


async def are_full(*executors: FakeExecutor) -> None:
    """Waits until each device draws as many as it takes."""
    await eventually(lambda: all(len(each.running) == each.capacity for each in executors))


async def ends_one(pool: WorkerPool, executor: FakeExecutor) -> None:
    """Finishes what a device has drawn for longest, and lets the pool see it."""
    job_id = executor.running[0]
    executor.finish(job_id)
    await eventually(lambda: pool.device_of(job_id) is None)


async def ends_one_and_begins_another(pool: WorkerPool, executor: FakeExecutor) -> None:
    """Does that on a full device which somebody else may use at once."""
    await ends_one(pool, executor)
    await are_full(executor)


async def drawn_to_the_end(pool: WorkerPool, *executors: FakeExecutor) -> None:
    """Finishes all that runs and waits."""
    while pool.get_queue_size() or pool.running_jobs():
        for executor in executors:
            for job_id in executor.running:
                executor.finish(job_id)
        await asyncio.sleep(0)


async def suspects_of_the_first(
    pool: WorkerPool, executors: list[FakeExecutor], waiting: list[GenerationJob]
) -> list[str]:
    """Fills all devices, lets some wait, kills the first one's worker; returns who ran there."""
    await eventually(lambda: all(lane.state == "ready" for lane in pool.status()))
    for job in some(sum(each.capacity for each in executors), "member"):
        pool.submit_job(job)
    await are_full(*executors)
    for job in waiting:
        pool.submit_job(job)
    suspects = list(executors[0].running)
    executors[0].die()
    # Its lane is full of others again: the suspects are tried elsewhere.
    await eventually(lambda: not set(suspects) & set(executors[0].running))
    await are_full(executors[0])
    return suspects


async def test_a_device_goes_on_while_the_suspects_of_its_crash_run_one_by_one_on_another() -> None:
    falling, other = executors = devices(2, capacity=4)
    async with a_pool(*executors) as pool:
        suspects = await suspects_of_the_first(pool, executors, some(60, "waiting"))
        alone = []
        while len(alone) < len(suspects):
            await ends_one_and_begins_another(pool, falling)  # whatever becomes of the suspects
            if (drawn := other.running[0]) in suspects:
                assert other.running == (drawn,)
                alone.append(drawn)
            await ends_one(pool, other)
            await eventually(lambda: bool(other.running))
        assert alone == suspects
        await drawn_to_the_end(pool, *executors)


async def test_who_begins_where_a_suspect_may_not_run_does_not_overtake_it() -> None:
    falling, other = executors = devices(2, capacity=2)
    async with a_pool(*executors) as pool:
        await suspects_of_the_first(pool, executors, some(40, "waiting"))
        for _ in range(2 * MOST_OVERTAKINGS):  # on the device that they died on
            await ends_one_and_begins_another(pool, falling)

        for _ in range(MOST_OVERTAKINGS):  # on the one that they wait for
            await ends_one_and_begins_another(pool, other)
        await ends_one(pool, other)
        await ends_one_and_begins_another(pool, falling)
        assert len(other.running) == 1
        await drawn_to_the_end(pool, *executors)


async def test_one_device_of_several_becomes_empty_for_a_suspect() -> None:
    executors = devices(3, capacity=2)
    first, second, third = executors
    async with a_pool(*executors) as pool:
        await eventually(lambda: all(lane.state == "ready" for lane in pool.status()))
        for job in some(6, "member"):
            pool.submit_job(job)
        await are_full(*executors)
        suspect = a_job(owner="suspect")
        pool.submit_job(suspect, is_suspect=True)
        for job in some(40, "waiting"):
            pool.submit_job(job)
        for _ in range(MOST_OVERTAKINGS):
            await ends_one_and_begins_another(pool, second)

        await ends_one(pool, first)  # it is the least busy one now, and kept
        for _ in range(3):
            for executor in (second, third):
                await ends_one_and_begins_another(pool, executor)
        assert len(first.running) == 1
        await ends_one(pool, first)
        await runs(first, suspect)
        assert first.running == (suspect.id,)
        await drawn_to_the_end(pool, *executors)
