"""The pool with machines that come and go; the fleet is the test."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.errors import (
    ModelElsewhereError,
    NoDeviceError,
    NotEnoughMemoryError,
    PoisonousRequestError,
    PoolClosedError,
    WorkerDiedError,
    WorkerLostError,
)
from engine.executor import Executor
from engine.jobs import GenerationJob, GenerationResult, LoraSpec, ModelSpec
from engine.lane import DOWN_AFTER
from engine.retries import LOSSES_FORGIVEN
from engine.testing import FakeExecutor
from engine.worker_pool import WorkerPool
from tests.test_worker_pool import (
    FANCY,
    PLAIN,
    Pauses,
    SomeModes,
    a_job,
    a_pool,
    a_request,
    eventually,
    runs,
)


class AFleet:
    """Does what the test says."""

    def __init__(self) -> None:
        self.trouble: str | None = None
        self.join: Callable[[Executor], None]
        self.leave: Callable[[Executor], Awaitable[None]]
        self.demand: Callable[[], int]
        self.runs = asyncio.Event()
        self.has_ended = False

    async def run(self, join: Any, leave: Any, demand: Any) -> None:
        self.join, self.leave, self.demand = join, leave, demand
        self.runs.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.has_ended = True


@asynccontextmanager
async def a_fleet(*executors: FakeExecutor) -> AsyncIterator[tuple[WorkerPool, AFleet]]:
    fleet = AFleet()
    modes = SomeModes(PLAIN, FANCY)
    async with WorkerPool([], modes, fleet=fleet, restart_pause=Pauses()) as pool:
        await fleet.runs.wait()
        for executor in executors:
            fleet.join(executor)
        yield pool, fleet
    assert fleet.has_ended
    assert not any(executor.alive for executor in executors)


async def test_a_machine_that_joins_while_others_are_asked_what_they_hold_is_left_out() -> None:
    first, second = FakeExecutor("first"), FakeExecutor("second")
    async with a_fleet(first) as (pool, fleet):
        await eventually(lambda: all(lane.state == "ready" for lane in pool.status()))
        looking = asyncio.create_task(pool.stats())
        await asyncio.sleep(0)
        fleet.join(second)

        [(status, known)] = await looking

        assert status.device == "first"
        assert known is not None


async def test_what_waits_is_drawn_when_the_first_machine_joins() -> None:
    async with a_fleet() as (pool, fleet):
        future = pool.submit_job(a_job())
        await asyncio.sleep(0)
        assert pool.get_queue_size() == 1
        assert fleet.demand() == 1

        late = FakeExecutor("late")
        fleet.join(late)

        result = await future
        assert isinstance(result, GenerationResult)
        assert result.device == "late"
        assert fleet.demand() == 0


async def test_a_fleet_in_trouble_refuses_and_says_why() -> None:
    async with a_fleet() as (pool, fleet):
        assert [lane.state for lane in pool.status()] == ["starting"]
        fleet.trouble = "The cluster at 10.0.0.2:6379 does not answer any more"

        with pytest.raises(NoDeviceError, match=r"10\.0\.0\.2:6379 does not answer any more\. It"):
            pool.submit_job(a_job())
        [lane] = pool.status()
        assert (lane.device, lane.state, lane.last_error) == ("the cluster", "down", fleet.trouble)
        assert await pool.stats() == [(pool.status()[0], None)]


async def test_a_machine_that_leaves_ends_what_it_draws_and_begins_nothing() -> None:
    first, second = FakeExecutor("first", hold=True), FakeExecutor("second")
    async with a_fleet(first) as (pool, fleet):
        job = a_job()
        future = pool.submit_job(job)
        await runs(first, job)

        leaving = asyncio.create_task(fleet.leave(first))  # type: ignore[arg-type]
        await eventually(lambda: pool.status()[0].state == "closed")
        fleet.join(second)
        other = await pool.submit_job(a_job("another"))
        assert other.device == "second"
        first.finish(job.id)

        assert (await future).device == "first"
        await leaving
        assert [lane.device for lane in pool.status()] == ["second"]
        assert not first.alive
        await fleet.leave(first)  # a second time is no error


async def test_nobody_is_blamed_for_a_machine_that_goes_away() -> None:
    executor = FakeExecutor(hold=True, capacity=2)
    async with a_fleet(executor) as (pool, _):
        heard: list[Any] = []
        job, other = a_job(), a_job("beside it")
        future = pool.submit_job(job, on_event=heard.append)
        pool.submit_job(other)
        for losses in range(LOSSES_FORGIVEN):
            await runs(executor, job, other)  # it is no suspect that would run alone
            executor.die("is gone", WorkerLostError)
            await eventually(lambda losses=losses: heard.count(None) == losses + 1)
        await runs(executor, job)
        executor.finish(job.id)

        assert (await future).images


async def test_a_request_that_takes_machine_after_machine_down_ends() -> None:
    executor = FakeExecutor(hold=True)
    async with a_fleet(executor) as (pool, _):
        job = a_job()
        future = pool.submit_job(job)
        for _ in range(LOSSES_FORGIVEN + 2):
            await runs(executor, job)
            executor.die("is gone", WorkerLostError)
            await eventually(lambda: job.id not in executor.running)

        with pytest.raises(PoisonousRequestError):
            await future


def lacking(device: str, *files: Path, **options: Any) -> FakeExecutor:
    executor = FakeExecutor(device, **options)
    executor.missing = set(files or [PLAIN.model.path])
    return executor


async def test_a_machine_without_the_file_refuses_and_another_draws() -> None:
    without, has = lacking("without"), FakeExecutor("has")
    async with a_fleet(without, has) as (pool, _):
        await eventually(lambda: all(lane.state == "ready" for lane in pool.status()))

        results = [await pool.submit_job(a_job()) for _ in range(4)]

        assert {result.device for result in results} == {"has"}
        assert len(without.requests) <= 1  # it is remembered


async def test_who_waits_for_the_one_machine_with_the_file_holds_up_nobody() -> None:
    without, has = lacking("without"), FakeExecutor("has", hold=True)
    async with a_fleet(without, has) as (pool, _):
        await eventually(lambda: all(lane.state == "ready" for lane in pool.status()))
        first = a_job()
        pool.submit_job(first)
        await runs(has, first)
        second = a_job("waits for it", owner="bob")
        future = pool.submit_job(second)
        await eventually(lambda: bool(without.requests) and pool.position(second.id) == 1)

        fancy = FANCY.build_request
        drawn = await pool.submit_job(
            type(first)(owner="cid", request=fancy(type_draft("of another model")))
        )
        assert drawn.device == "without"
        has.finish(first.id)
        await runs(has, second)
        has.finish(second.id)
        assert (await future).device == "has"


def type_draft(prompt: str) -> Any:
    from engine.jobs import RequestDraft

    return RequestDraft(prompt=prompt)


async def test_where_no_machine_has_the_file_the_request_fails_and_says_so() -> None:
    async with a_fleet(lacking("attic"), lacking("cellar")) as (pool, _):
        await eventually(lambda: all(lane.state == "ready" for lane in pool.status()))
        for _ in range(2):  # also while it is remembered
            with pytest.raises(ModelElsewhereError, match=r"no machine that draws .*attic, cellar"):
                await pool.submit_job(a_job())
        assert pool.get_queue_size() == 0


async def test_a_machine_gets_the_jobs_of_the_model_that_it_has() -> None:
    one, two = FakeExecutor("one"), FakeExecutor("two")
    async with a_fleet(one, two) as (pool, _):
        await eventually(lambda: all(lane.state == "ready" for lane in pool.status()))
        for _ in range(3):
            await pool.submit_job(a_job())
        fancy = type(a_job())(request=FANCY.build_request(type_draft("fancy")))
        await pool.submit_job(fancy)

        assert sorted([len(one.requests), len(two.requests)]) == [1, 3]
        assert Path(PLAIN.model.path).name in {k.rsplit("-", 1)[0] for k in one.loaded + two.loaded}


X, Y = Path("x.safetensors"), Path("y.safetensors")


def with_lora(lora: Path) -> GenerationJob:
    model = replace(PLAIN.model, loras=(LoraSpec(lora),))
    return GenerationJob(request=replace(a_request(), model=model))


def with_refiner(refiner: Path) -> GenerationJob:
    refined = replace(a_request(), refiner=ModelSpec(refiner), refiner_from=0.8)
    return GenerationJob(request=refined)


@pytest.mark.parametrize("using", [with_lora, with_refiner])
async def test_a_machine_without_a_lora_or_a_refiner_draws_what_needs_none(using: Any) -> None:
    attic, barn = lacking("attic", X), lacking("barn", Y, hold=True)
    async with a_fleet(attic, barn) as (pool, _):
        await eventually(lambda: all(lane.state == "ready" for lane in pool.status()))
        job = using(X)
        pool.submit_job(job)
        await runs(barn, job)

        assert (await pool.submit_job(a_job())).device == "attic"
        assert (await pool.submit_job(using(Y))).device == "attic"  # that file it has
        tries = len(attic.requests)
        waiting = pool.submit_job(again := using(X))
        barn.finish(job.id)
        await runs(barn, again)
        barn.finish(again.id)
        await waiting
        assert len(attic.requests) == tries  # it is remembered


async def test_who_waits_for_the_machine_with_a_lora_holds_up_nobody_of_the_same_model() -> None:
    attic, barn = lacking("attic", X), FakeExecutor("barn", hold=True)
    async with a_fleet(attic, barn) as (pool, _):
        await eventually(lambda: all(lane.state == "ready" for lane in pool.status()))
        jobs = [replace(with_lora(X), owner=f"member {number}") for number in range(3)]
        futures = [pool.submit_job(jobs[0])]
        await runs(barn, jobs[0])
        futures += [pool.submit_job(job) for job in jobs[1:]]

        assert (await pool.submit_job(a_job())).device == "attic"

        for job in jobs:
            await runs(barn, job)
            barn.finish(job.id)
        await asyncio.gather(*futures)


async def test_a_switch_is_done_by_a_machine_that_has_the_file() -> None:
    attic, barn = lacking("attic", FANCY.model.path), FakeExecutor("barn")
    async with a_fleet(attic, barn) as (pool, _):
        await eventually(lambda: all(lane.state == "ready" for lane in pool.status()))

        assert await pool.switch_mode("fancy") == "fancy"
        assert pool.get_current_mode() == "fancy"
        assert barn.loaded == (FANCY.model.key,)


async def test_a_shutdown_leaves_what_another_machine_could_draw_to_the_next_start() -> None:
    attic, barn = FakeExecutor("attic", hold=True), FakeExecutor("barn", hold=True)
    async with a_fleet(attic, barn) as (pool, _):
        await eventually(lambda: all(lane.state == "ready" for lane in pool.status()))
        future = pool.submit_job(job := a_job())
        pool.submit_job(beside := a_job("beside it", owner="bob"))
        await runs(attic, job)
        await runs(barn, beside)
        waiting = pool.submit_job(a_job("waits", owner="cid"))
        closing = asyncio.create_task(pool.shutdown(grace=60))
        with pytest.raises(PoolClosedError):
            await waiting

        attic.fail(job.id, ModelElsewhereError(PLAIN.model.path, "attic"))
        with pytest.raises(PoolClosedError):
            await future
        barn.finish(beside.id)
        await closing


async def test_who_waits_for_a_machine_that_goes_down_is_told_at_once() -> None:
    async def pause(failures: int) -> None:
        if failures >= DOWN_AFTER:
            await asyncio.Event().wait()  # some minutes

    attic, barn = lacking("attic"), FakeExecutor("barn")
    async with a_pool(attic, barn, restart_pause=pause) as pool:
        await eventually(lambda: all(lane.state == "ready" for lane in pool.status()))
        barn.start_gate.clear()
        barn.start_errors = [WorkerDiedError("barn", "can't start")] * DOWN_AFTER
        barn.die()
        job = a_job()
        future = pool.submit_job(job)
        await eventually(lambda: bool(attic.requests) and pool.position(job.id) == 1)

        barn.start_gate.set()
        with pytest.raises(ModelElsewhereError, match=r"no machine that draws .*\(attic\)"):
            await future


async def test_a_machine_with_the_file_and_no_memory_is_not_said_to_lack_the_file() -> None:
    small, without = FakeExecutor("small"), lacking("without")
    small.load_errors[PLAIN.model.key] = NotEnoughMemoryError(PLAIN.model.path, 3, 1, 2)
    async with a_fleet(small, without) as (pool, _):
        await eventually(lambda: all(lane.state == "ready" for lane in pool.status()))
        with pytest.raises(ModelElsewhereError, match=r"the machine of without has no file"):
            await pool.submit_job(a_job())
