"""A process of ours that does not end as others do."""

import asyncio

import psutil
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

    process.kill()
    psutil.Process(process.pid).wait(60)
