"""Loads of what places have chosen: few, however often they choose."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bot.loads import PlaceLoads
from bot.records import Owner
from engine.errors import JobCancelledError, ModelFormatError
from engine.executor import LoadReport
from engine.jobs import GenerationJob, ModelSpec, RequestDraft
from engine.testing import FakeExecutor
from engine.worker_pool import WorkerPool
from modes.mode_config import ModeConfig
from tests.test_studio import ADA, DISCORD, WEB, Room, a_room

MALLORY = Owner("discord:6", "Mallory")
HERE, THERE = "discord:1", "discord:2"
FIRST, SECOND, THIRD = (
    ModeConfig(name, ModelSpec(Path(f"{name}.safetensors")), min_size=64, default_size=(64, 64))
    for name in ("first", "second", "third")
)


class Modes:
    """Modes that the pool looks up."""

    default_mode = FIRST.name

    def names(self) -> list[str]:
        return [FIRST.name]

    def get(self, name: str) -> ModeConfig:
        return FIRST


class Device:
    """A pool whose only device draws until the test lets it go on, and what loads are asked of."""

    def __init__(self, pool: WorkerPool, executor: FakeExecutor) -> None:
        self.pool = pool
        self.executor = executor
        self.loads = PlaceLoads(pool)

    def go_on(self) -> None:
        self.executor.finish(self.executor.running[0])

    def loaded(self) -> list[str]:
        return [call[1] for call in self.executor.calls if call[0] == "load"]


@asynccontextmanager
async def a_busy_device() -> AsyncIterator[Device]:
    executor = FakeExecutor(hold=True)
    async with WorkerPool([executor], Modes(), close_timeout=5.0) as pool:
        pool.submit_job(GenerationJob(request=RequestDraft("busy")))
        await executor.until(lambda: bool(executor.running))
        yield Device(pool, executor)


@pytest.fixture
async def device() -> AsyncIterator[Device]:
    async with a_busy_device() as device:
        yield device


async def outcomes(*loads: asyncio.Future[LoadReport]) -> list[Any]:
    """Returns how loads ended: the models' keys, or errors' kinds."""
    ended = await asyncio.gather(*loads, return_exceptions=True)
    return [each.key if isinstance(each, LoadReport) else type(each) for each in ended]


async def test_of_all_that_a_place_chooses_meanwhile_the_last_alone_is_loaded(
    device: Device,
) -> None:
    asked = [device.loads.ask(HERE, mode) for mode in (FIRST, SECOND, THIRD, FIRST, SECOND)]

    device.go_on()

    assert await outcomes(*asked) == [JobCancelledError] * 4 + [SECOND.model.key]
    assert device.loaded() == [SECOND.model.key]


async def test_what_is_chosen_again_right_away_is_loaded_once(device: Device) -> None:
    asked = [device.loads.ask(HERE, SECOND) for _ in range(3)]

    device.go_on()

    assert await outcomes(*asked) == [SECOND.model.key] * 3
    assert device.loaded() == [SECOND.model.key]


async def test_a_model_that_several_places_wait_for_is_loaded_once(device: Device) -> None:
    asked = [device.loads.ask(place, SECOND) for place in (HERE, THERE)]

    device.go_on()

    assert await outcomes(*asked) == [SECOND.model.key] * 2
    assert device.loaded() == [SECOND.model.key]


async def test_a_place_that_chooses_anew_takes_no_load_from_another(device: Device) -> None:
    asked = [device.loads.ask(place, SECOND) for place in (HERE, THERE)]
    asked.append(device.loads.ask(HERE, THIRD))

    device.go_on()

    keys = [SECOND.model.key, THIRD.model.key]
    assert await outcomes(*asked) == [keys[0], *keys]
    assert device.loaded() == keys


async def test_a_load_under_way_is_finished_and_the_last_choice_comes_next(device: Device) -> None:
    device.executor.load_gate.clear()
    begun = device.loads.ask(HERE, SECOND)
    device.go_on()
    await device.executor.until(lambda: device.loaded() == [SECOND.model.key])

    asked = [device.loads.ask(HERE, mode) for mode in (THIRD, SECOND, FIRST, THIRD)]
    device.executor.load_gate.set()

    second, third = SECOND.model.key, THIRD.model.key
    assert await outcomes(begun, *asked) == [
        second,
        JobCancelledError,
        second,
        JobCancelledError,
        third,
    ]
    assert device.loaded() == [second, third]


async def test_what_has_ended_is_loaded_anew_when_it_is_chosen_anew(device: Device) -> None:
    key = SECOND.model.key
    device.executor.load_errors[key] = ModelFormatError("second.safetensors", "truncated")
    failed = device.loads.ask(HERE, SECOND)
    device.go_on()
    first = await outcomes(failed)
    device.executor.load_errors.clear()

    assert first == [ModelFormatError]
    assert await outcomes(device.loads.ask(HERE, SECOND)) == [key]
    assert device.loaded() == [key, key]


async def test_a_place_that_switches_on_and_on_takes_no_place_in_the_queue(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with a_room(tmp_path, hold=True, queue_max=2) as room:
        await room.drawing(await room.studio.submit(RequestDraft("busy"), ADA, WEB))

        for mode in ["other", "small"] * 5:
            await room.studio.choices.switch_mode(mode, HERE, MALLORY)

        assert room.pool.get_queue_size() == 0
        waiting = [await room.studio.submit(RequestDraft("x"), ADA, DISCORD) for _ in range(2)]
        assert [room.pool.position(job.id) for job in waiting] == [1, 2]
        await let_draw(room)
        assert room.executor.loaded == (room.catalog.get("small").model.key,)
    assert "could not be loaded" not in caplog.text


async def let_draw(room: Room) -> None:
    """Lets everything that waits be done."""
    room.executor.hold = False
    room.executor.finish(room.executor.running[0])
    for job in await room.studio.members.unfinished(ADA.id):
        await room.ended(job)
