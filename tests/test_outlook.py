"""When jobs will be done, as the pool tells it; the device is scripted, the times are made up."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from engine.jobs import CustomJob, GenerationJob, ModelLoadJob, Progress, Stage
from engine.pace import Act, Figure
from engine.testing import FakeExecutor
from engine.worker_pool import WorkerPool
from tests.test_worker_pool import FANCY, PLAIN, a_job, a_pool, eventually

pytestmark = pytest.mark.timeout(60)

LOAD, BEGIN, PASS, DECODE = 100.0, 5.0, 20.0, 1.0
DRAWING = BEGIN + 3 * PASS + DECODE  # `PLAIN` takes three steps


def figures(model: str = PLAIN.model.key) -> list[Figure]:
    pixels = PLAIN.size**2
    return [
        Figure(Act.LOAD, model, LOAD),
        Figure(Act.BEGIN, model, BEGIN),
        Figure(Act.PASS, model, PASS, 5, pixels, 2),
        Figure(Act.DECODE, model, DECODE, 1, pixels),
    ]


@pytest.fixture
def executor() -> FakeExecutor:
    return FakeExecutor(hold=True)


@pytest.fixture
async def pool(executor: FakeExecutor) -> AsyncIterator[WorkerPool]:
    async with a_pool(executor) as pool:
        yield pool


async def draws(pool: WorkerPool, executor: FakeExecutor) -> GenerationJob:
    """A drawing that runs, its model loaded and its prompts being read."""
    job, told = a_job(), asyncio.Event()

    def listen(progress: Progress | None) -> None:
        if progress and progress.stage is Stage.ENCODING:
            told.set()

    pool.submit_job(job, on_event=listen)
    await told.wait()
    return job


def soon(seconds: float) -> object:
    """As many seconds, less what this test has taken meanwhile."""
    return pytest.approx(seconds - 2, abs=2.5)


async def test_nothing_is_told_before_anything_was_measured(pool, executor):
    running, waiting = await draws(pool, executor), a_job()
    pool.submit_job(waiting)

    assert pool.seconds_left(running.id) is None
    assert pool.seconds_left(waiting.id) is None
    assert pool.seconds_left("nobody") is None


async def test_what_waits_is_told_of_what_is_before_it(pool, executor):
    executor.pace.take(figures())
    running = await draws(pool, executor)
    first, second = a_job(), a_job()
    for job in (first, second):
        pool.submit_job(job)

    assert pool.seconds_left(running.id) == soon(DRAWING)
    assert pool.seconds_left(first.id) == soon(2 * DRAWING)
    assert pool.seconds_left(second.id) == soon(3 * DRAWING)


async def test_steps_that_are_made_are_left_out(pool, executor):
    executor.pace.take(figures())
    running = await draws(pool, executor)
    executor.report(running.id, step=2)
    await eventually(lambda: pool._submissions[running.id].progress.step == 2)

    assert pool.seconds_left(running.id) == soon(PASS + DECODE)


async def test_a_load_before_it_counts(pool, executor):
    executor.pace.take(figures() + figures(FANCY.model.key))
    running = await draws(pool, executor)
    load, job = ModelLoadJob(model=FANCY.model), a_job()
    pool.submit_job(load)
    pool.submit_job(job)

    assert pool.seconds_left(running.id) == soon(DRAWING)
    assert pool.seconds_left(job.id) == soon(2 * DRAWING + LOAD)


async def test_nobody_knows_how_long_a_handler_takes(pool, executor):
    executor.pace.take(figures())
    running, job = await draws(pool, executor), a_job()
    pool.submit_job(CustomJob(handler=lambda: None))
    pool.submit_job(job)

    assert pool.seconds_left(running.id) == soon(DRAWING)
    assert pool.seconds_left(job.id) is None


async def test_nothing_is_told_while_no_device_works(pool, executor):
    executor.pace.take(figures())
    running = await draws(pool, executor)
    executor.start_gate.clear()
    executor.die()
    await eventually(lambda: not pool._lanes[0].is_ready)
    await eventually(lambda: pool._submissions[running.id].attempt is None)
    pool.submit_job(job := a_job())

    assert pool.seconds_left(job.id) is None


async def test_who_listens_hears_that_something_was_measured(pool, executor):
    await draws(pool, executor)
    heard = asyncio.Event()
    pool.queue_listeners.append(heard.set)

    executor.pace.take(figures())

    await heard.wait()
