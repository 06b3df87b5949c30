"""A lane hears of a worker's death from many calls, and restarts it once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from engine.errors import WorkerDiedError
from engine.jobs import ModelSpec
from engine.lane import Lane, LaneState
from engine.lanes import choose_lane
from engine.testing import FakeExecutor

MODEL = ModelSpec(Path("plain.safetensors"))


class Story:
    """A lane, its executor, and how often it became ready."""

    def __init__(self) -> None:
        self.executor = FakeExecutor(capacity=2)
        self.failures: list[int] = []
        self.ready = asyncio.Semaphore(0)
        self.lane = Lane(self.executor, pause=self.pause, on_state=self.heard)

    def heard(self) -> None:
        if self.lane.is_ready:
            self.ready.release()

    async def pause(self, failures: int) -> None:
        self.failures.append(failures)

    async def call(self) -> None:
        with self.lane.calling(MODEL) as executor:
            await executor.load(MODEL)


@asynccontextmanager
async def a_ready_lane() -> AsyncIterator[Story]:
    story = Story()
    supervisor = asyncio.create_task(story.lane.supervise())
    await story.ready.acquire()
    yield story
    supervisor.cancel()
    with suppress(asyncio.CancelledError):
        await supervisor


async def test_one_death_heard_from_two_calls_is_one_restart():
    async with a_ready_lane() as story:
        story.executor.load_gate.clear()
        calls = [asyncio.create_task(story.call()) for _ in range(2)]
        await story.executor.until(lambda: story.executor.calls.count(("load", MODEL.key)) == 2)
        story.executor.die()
        assert [type(e) for e in await asyncio.gather(*calls, return_exceptions=True)] == [
            WorkerDiedError,
            WorkerDiedError,
        ]
        await story.ready.acquire()
        assert story.failures == [1]


async def test_late_news_of_a_dead_worker_does_not_touch_the_next_one():
    async with a_ready_lane() as story:

        async def slow_to_tell() -> None:
            with story.lane.calling():
                story.executor.die()
                with pytest.raises(WorkerDiedError):
                    await story.call()
                await story.ready.acquire()
                await story.call()
                raise WorkerDiedError(story.executor.device, "was killed")

        with pytest.raises(WorkerDiedError):
            await slow_to_tell()
        assert story.lane.state is LaneState.READY
        assert story.lane.models == (MODEL.key,)
        assert story.executor.calls.count(("start",)) == 2


async def test_a_restarted_worker_has_nothing_loaded():
    async with a_ready_lane() as story:
        await story.call()
        assert story.lane.models == (MODEL.key,)
        story.executor.die()
        with pytest.raises(WorkerDiedError):
            await story.call()
        assert story.lane.models == ()
        assert choose_lane([story.lane], MODEL, alone=False, prefer_loaded=True) is None
