"""Devices that differ: what one has no memory for is drawn on another one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

import engine.lane
from bot.app import open_app
from bot.settings import Settings
from engine.errors import NotEnoughMemoryError, OutOfMemoryError, TooLargeError
from engine.jobs import GenerationJob, ModelLoadJob, RequestDraft
from engine.room import Space
from engine.testing import FakeExecutor
from engine.worker_pool import WorkerPool
from tests.test_worker_pool import FANCY, PLAIN, a_job, a_pool, a_request, eventually, runs

pytestmark = pytest.mark.timeout(60)

GB = 2**30
KEY = PLAIN.model.key
LARGE = a_request(width=1024, height=1024)
MODEL_TOO_LARGE = NotEnoughMemoryError("plain.safetensors", 7 * GB, 3 * GB, 4 * GB)


@asynccontextmanager
async def devices(*executors: FakeExecutor) -> AsyncIterator[WorkerPool]:
    """A pool all of whose devices are ready."""
    async with a_pool(*executors) as pool:
        await eventually(lambda: all(lane.state == "ready" for lane in pool.status()))
        yield pool


def of_size(gigabytes: int, **options: object) -> FakeExecutor:
    """A device whose worker has told what memory it has: 6 GB has no room for 1024x1024."""
    executor = FakeExecutor(f"{gigabytes} GB", **options)  # type: ignore[arg-type]
    peaks = {(KEY, 512 * 512): 600 * 2**20}
    executor.pace.take((), (), Space(gigabytes * GB, 2, {KEY: 2 * GB}, peaks))
    return executor


def large(prompt: str = "large", owner: str = "bob") -> GenerationJob:
    return GenerationJob(owner=owner, request=replace(LARGE, prompt=prompt))


async def test_a_model_that_fits_one_of_two_devices_is_drawn_there() -> None:
    small, big = FakeExecutor("small", capacity=8), FakeExecutor("big", capacity=8)
    small.load_errors[KEY] = MODEL_TOO_LARGE
    async with devices(small, big) as pool:
        jobs = [a_job(owner=f"member {number}") for number in range(9)]
        results = await asyncio.gather(*(pool.submit_job(job) for job in jobs))
        assert {result.device for result in results} == {"big"}

        tries = len(small.requests)
        assert (await pool.submit_job(a_job())).device == "big"
        assert len(small.requests) == tries  # it is remembered


async def test_a_size_that_one_device_ran_out_of_memory_for_is_drawn_on_another() -> None:
    small, big = FakeExecutor("small"), FakeExecutor("big")
    small.most_pixels = 512 * 512
    async with devices(small, big) as pool:
        assert (await pool.submit_job(large())).device == "big"
        assert len(small.requests) == 1

        big.hold = True
        pool.submit_job(busy := large())
        await runs(big, busy)  # nothing of this size is tried on the small one again
        assert (await pool.submit_job(a_job("of a size that it draws"))).device == "small"
        big.finish(busy.id)


async def test_where_no_device_has_the_memory_each_is_asked_once_and_the_request_fails() -> None:
    one, two = FakeExecutor("one"), FakeExecutor("two")
    one.most_pixels = two.most_pixels = 512 * 512
    async with devices(one, two) as pool:
        with pytest.raises(OutOfMemoryError):
            await pool.submit_job(large())
        assert (len(one.requests), len(two.requests)) == (1, 1)
        with pytest.raises(OutOfMemoryError):
            await pool.submit_job(large())
        assert len(one.requests) + len(two.requests) == 3  # one answers for both


async def test_a_device_is_asked_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.lane, "SHORT_SECONDS", 0.0)
    small, big = FakeExecutor("small"), FakeExecutor("big", hold=True)
    small.load_errors[KEY] = MODEL_TOO_LARGE
    async with devices(small, big) as pool:
        pool.submit_job(first := a_job())
        await runs(big, first)
        small.load_errors.clear()  # somebody has ended what held its memory
        assert (await pool.submit_job(a_job("later", owner="bob"))).device == "small"
        big.finish(first.id)


async def test_a_size_goes_to_the_device_that_is_known_to_have_room_for_it() -> None:
    small, big = of_size(6, capacity=4), of_size(24, capacity=4, hold=True)
    async with devices(small, big) as pool:
        pool.check(LARGE)  # since one of them draws it
        jobs = [large(owner=f"member {number}") for number in range(3)]
        futures = [pool.submit_job(job) for job in jobs]
        await runs(big, *jobs)
        for job in jobs:
            big.finish(job.id)
        await asyncio.gather(*futures)
        assert small.requests == []


async def test_small_pictures_are_drawn_while_large_ones_wait_for_the_device_with_room() -> None:
    small, big = of_size(6), of_size(24, hold=True)
    async with devices(small, big) as pool:
        waiting = [large(owner=f"member {number}") for number in range(3)]
        futures = [pool.submit_job(job) for job in waiting]
        await runs(big, waiting[0])

        assert (await pool.submit_job(a_job("small", owner="ann"))).device == "6 GB"

        for job in waiting:
            await runs(big, job)
            big.finish(job.id)
        assert {(await future).device for future in futures} == {"24 GB"}


async def test_a_large_picture_does_not_overtake_onto_a_small_device_that_has_its_model() -> None:
    small, big = of_size(6, hold=True), of_size(24, hold=True)
    async with devices(small, big) as pool:
        on_small = a_job("has the model", owner="ann")
        on_big = large(owner="bob")
        pool.submit_job(on_big)
        pool.submit_job(on_small)
        await runs(big, on_big)
        await runs(small, on_small)
        other = FANCY.build_request(RequestDraft(prompt="of another model"))
        pool.submit_job(first := GenerationJob(owner="cid", request=other))
        pool.submit_job(second := large(owner="dan"))
        small.finish(on_small.id)

        await runs(small, first)  # the second has its model there, but no room
        big.finish(on_big.id)
        await runs(big, second)
        small.finish(first.id)
        big.finish(second.id)


async def test_a_model_is_loaded_where_there_is_room_for_it() -> None:
    small, big = FakeExecutor("small"), FakeExecutor("big")
    small.load_errors[KEY] = MODEL_TOO_LARGE
    async with devices(small, big) as pool:
        await pool.submit_job(ModelLoadJob(model=PLAIN.model))
        assert big.loaded == (KEY,)


async def test_a_size_that_a_device_draws_is_not_refused_while_that_one_restarts() -> None:
    small, big = of_size(6), of_size(24)
    async with devices(small, big) as pool:
        big.start_gate.clear()
        big.die()
        await eventually(lambda: pool.status()[1].state == "restarting")
        pool.check(LARGE)  # raises nothing
        future = pool.submit_job(large())
        big.start_gate.set()
        assert (await future).device == "24 GB"
    async with devices(of_size(6)) as pool:
        with pytest.raises(TooLargeError):
            pool.check(LARGE)


async def test_an_enlargement_that_lacks_memory_says_nothing_of_the_model(tmp_path: Path) -> None:
    first, second = FakeExecutor("first"), FakeExecutor("second", hold=True)
    first.most_pixels = 512 * 512
    async with devices(first, second) as pool:
        source = tmp_path / "source.png"
        enlarged = replace(LARGE, source=source, strength=0.0)
        with pytest.raises(OutOfMemoryError):
            await pool.submit_job(GenerationJob(request=enlarged))
        assert (await pool.submit_job(a_job())).device == "first"


@pytest.mark.parametrize(
    ("setting", "found", "falls_back"),
    [
        ((), ("cuda:0",), True),
        ((), ("cuda:0", "cuda:1"), False),
        (("cuda:0",), (), False),
    ],
)
async def test_the_cpu_takes_no_requests_from_devices_that_work(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    setting: tuple[str, ...],
    found: tuple[str, ...],
    falls_back: bool,
) -> None:
    (tmp_path / "plain").mkdir()
    modes = tmp_path / "modes.yaml"
    modes.write_text("model_root: .\ndefault_mode: plain\nmodes:\n  plain: {model: plain}\n")
    made: dict[str, bool] = {}

    def local(device: str, *, may_fall_back: bool, **_: object) -> FakeExecutor:
        made[device] = may_fall_back
        return FakeExecutor(device)

    monkeypatch.setattr("bot.app.LocalExecutor", local)
    monkeypatch.setattr("bot.app.find_devices", lambda: found)
    async with open_app(Settings(data=tmp_path, modes_file=modes, devices=setting)):
        assert made == dict.fromkeys(setting or found, falls_back)
