"""A pool that is held begins nothing, loses nothing, and goes on where it was."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from engine.jobs import GenerationJob, GenerationRequest, ModelLoadJob
from engine.testing import FakeExecutor
from engine.worker_pool import WorkerPool
from modes.catalog import ModeCatalog
from tests.discord_kit import MODES
from tests.records_kit import a_request


@asynccontextmanager
async def a_pool(folder: Path, executor: FakeExecutor) -> AsyncIterator[WorkerPool]:
    for name in ("small", "other"):
        (folder / f"{name}.safetensors").touch()
    (folder / "modes.yaml").write_text(MODES.format(root=folder), encoding="utf-8")
    async with WorkerPool([executor], ModeCatalog(folder / "modes.yaml")) as pool:
        await executor.until(lambda: executor.alive)
        yield pool


def a_job(**changes: object) -> GenerationJob:
    request = a_request(width=64, height=64, steps=2, **changes)
    assert isinstance(request, GenerationRequest)
    return GenerationJob(owner="ada", request=request)


async def test_what_runs_ends_and_what_waits_keeps_its_order(tmp_path: Path) -> None:
    executor = FakeExecutor(hold=True)
    async with a_pool(tmp_path, executor) as pool:
        jobs = [a_job(seed=number) for number in range(3)]
        futures = [pool.submit_job(job) for job in jobs]
        await executor.until(lambda: jobs[0].id in executor.running)

        pool.hold()
        draining = asyncio.create_task(pool.drained())
        executor.finish(jobs[0].id)
        await draining
        positions = [pool.position(job.id) for job in jobs]
        begun = len(executor.requests)
        late = pool.submit_job(ModelLoadJob(model=jobs[0].request.model))  # type: ignore[union-attr]

        pool.resume()
        for job in jobs[1:]:
            await executor.until(lambda job=job: job.id in executor.running)  # type: ignore[misc]
            executor.finish(job.id)
        await asyncio.gather(*futures, late)

    assert positions == [None, 1, 2]
    assert begun == 1
    assert [request.seed for request in executor.requests] == [0, 1, 2]


async def test_a_worker_that_dies_meanwhile_is_no_reason_to_begin(tmp_path: Path) -> None:
    executor = FakeExecutor(hold=True)
    async with a_pool(tmp_path, executor) as pool:
        job = a_job(seed=1)
        future = pool.submit_job(job)
        await executor.until(lambda: job.id in executor.running)

        pool.hold()
        executor.die()
        await pool.drained()
        await executor.until(lambda: executor.alive)
        held = pool.position(job.id), len(executor.requests)

        pool.resume()
        await executor.until(lambda: job.id in executor.running)
        executor.finish(job.id)
        await future

    assert held == (1, 1)
    assert len(executor.requests) == 2


async def test_a_pool_that_is_not_held_is_never_waited_for(tmp_path: Path) -> None:
    executor = FakeExecutor(hold=True)
    async with a_pool(tmp_path, executor) as pool:
        job = a_job(seed=1)
        pool.submit_job(job)
        await executor.until(lambda: job.id in executor.running)

        await pool.drained()

        assert executor.running == (job.id,)
