"""A process of ours that does not end as others do."""

import asyncio
import gc

import pytest

from engine import child_process
from engine.child_process import ChildProcess


async def test_a_process_that_outlives_being_killed_is_left_behind_and_heard_of_no_more(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(child_process, "UNKILLABLE_SECONDS", 0.0)
    process = await ChildProcess.spawn("engine.worker_process")
    reading = asyncio.create_task(process.read())
    with monkeypatch.context() as held:
        # The driver of a GPU that hangs can hold a process so; there is none here.
        held.setattr(process, "kill", lambda: None)
        assert await process.reap(0) == -9
        with pytest.raises(asyncio.IncompleteReadError):
            await reading
        assert await process.reap(60) == -9  # at once
    assert f"Process {process.pid} was killed and does not end" in caplog.text

    await process.process.wait()  # here it did end, with its pipes


def test_a_process_that_was_reaped_leaves_nothing_open_where_its_loop_ends_at_once() -> None:
    async def reaped() -> None:
        process = await ChildProcess.spawn("engine.worker_process")
        await process.reap(0)

    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(reaped())
    finally:
        loop.close()
    gc.collect()  # what is still open warns now, which fails
