import asyncio
import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import termios
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

from engine.errors import (
    DreamLabError,
    JobCancelledError,
    ModelNotFoundError,
    RequestError,
    WorkerDiedError,
)
from engine.executor import Executor
from engine.jobs import (
    GeneratedImage,
    GenerationRequest,
    GenerationResult,
    ModelSpec,
    Progress,
    Stage,
)
from engine.local_executor import LocalExecutor
from engine.pace import Act, Measurement
from engine.patience import BEAT_SECONDS, LEAST_SILENCE_SECONDS, LOADING_SECONDS, Patience
from tests import worker_kit
from tests.worker_kit import DEMO

ROOT = Path(__file__).parent.parent
LONG = 400
"""Steps of a request that is certainly not finished when something happens to it."""

pytestmark = pytest.mark.asyncio(loop_scope="module")


class Beats:
    """Stands in for the time between two looks at a worker: the test says when one has passed."""

    def __init__(self) -> None:
        self._due = asyncio.Event()
        self._looked = asyncio.Event()

    async def __call__(self) -> None:
        due = self._due = asyncio.Event()
        self._looked.set()
        await due.wait()

    async def pass_by(self) -> None:
        """Lets one pass, once somebody has looked."""
        await self._looked.wait()
        self._looked.clear()
        self._due.set()

    async def go_on(self) -> None:
        while True:
            await self.pass_by()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def beats() -> Beats:
    return Beats()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(beats: Beats) -> AsyncIterator[LocalExecutor]:
    """One process for all tests, until one of them has it killed: importing torch takes seconds."""
    executor = LocalExecutor("cpu", patience=Patience(beat=beats))
    yield executor
    await executor.close()


@pytest_asyncio.fixture(loop_scope="module")
async def executor(shared: LocalExecutor) -> LocalExecutor:
    await shared.start()  # brings it back where the test before had it killed
    return shared


def ask(**changes: Any) -> GenerationRequest:
    """Returns a request for a small picture, with changes."""
    return worker_kit.ask(**{"width": 64, "height": 64} | changes)


async def draw(
    executor: Executor, job_id: str, request: GenerationRequest
) -> tuple[GeneratedImage, ...]:
    async for event in executor.run(job_id, request):
        if isinstance(event, GenerationResult):
            return event.images
    pytest.fail("the events ended without a result")


async def begun(executor: Executor, job_id: str, **changes: Any) -> Any:
    """Returns the iterator of a long job that has taken its first step."""
    events = executor.run(job_id, ask(steps=LONG, **changes))
    async for event in events:
        if isinstance(event, Progress) and event.step:
            return events
    pytest.fail("it never took a step")


async def ending(events: Any) -> DreamLabError:
    with pytest.raises(DreamLabError) as caught:
        async for _ in events:
            pass
    return caught.value


async def test_it_fulfils_the_protocol(executor: LocalExecutor) -> None:
    as_protocol: Executor = executor

    assert (as_protocol.device, as_protocol.capacity) == ("cpu", 4)
    assert LocalExecutor("cuda:0").capacity == 16
    assert LocalExecutor("cpu", capacity=2).capacity == 2


async def test_a_request_comes_back_as_progress_and_then_its_pictures(
    executor: LocalExecutor,
) -> None:
    events = [event async for event in executor.run("a", ask(steps=3, count=2))]

    *progress, result = events
    assert all(isinstance(event, Progress) and event.job_id == "a" for event in progress)
    assert [e.stage for e in progress if isinstance(e, Progress)][-1] is Stage.DECODING
    assert any(isinstance(e, Progress) and e.preview for e in progress)
    assert isinstance(result, GenerationResult)
    assert [image.seed for image in result.images] == [7, 8]
    assert result.device == "cpu"


async def test_many_requests_are_under_way_at_once(executor: LocalExecutor) -> None:
    requests = [ask(seed=seed, steps=2 + seed) for seed in range(6)]

    drawn = await asyncio.gather(*(draw(executor, f"many {r.seed}", r) for r in requests))

    assert [image.seed for [image] in drawn] == list(range(6))


async def test_the_talking_process_goes_on_while_models_load_and_draw(
    executor: LocalExecutor,
) -> None:
    await executor.unload(DEMO)
    drawing = asyncio.create_task(draw(executor, "busy", ask(steps=2)))
    turns = 0
    while turns <= 100 and not drawing.done():
        await asyncio.sleep(0)
        turns += 1
    await drawing

    assert turns > 100


async def test_a_killed_process_ends_its_runs_at_once_and_a_new_one_draws_the_same(
    executor: LocalExecutor,
) -> None:
    before = await draw(executor, "before", ask(steps=3))
    runs = [await begun(executor, f"doomed {i}") for i in range(2)]
    call = asyncio.create_task(executor.stats())
    old = executor.pid
    assert old is not None

    os.kill(old, signal.SIGKILL)
    endings = [await ending(events) for events in runs]

    assert [type(error) for error in endings] == [WorkerDiedError] * 2
    assert endings[0] is not endings[1]
    assert str(endings[0]) == "The worker on cpu was killed by SIGKILL."
    await asyncio.gather(call, return_exceptions=True)  # answered before, or ended likewise
    with pytest.raises(WorkerDiedError):
        await executor.stats()
    with pytest.raises(WorkerDiedError):
        await draw(executor, "too late", ask())
    await executor.cancel("too late")
    assert executor.pid is None

    await executor.start()

    assert executor.pid not in (None, old)
    # The same request draws the same file, to the byte, in another process.
    assert await draw(executor, "after", ask(steps=3)) == before


async def test_starting_again_leaves_a_running_process_as_it_is(executor: LocalExecutor) -> None:
    pid = executor.pid

    await asyncio.gather(executor.start(), executor.start())

    assert executor.pid == pid


async def test_a_cancelled_job_says_so(executor: LocalExecutor) -> None:
    events = await begun(executor, "unwanted")

    await executor.cancel("unwanted")
    await executor.cancel("unknown")

    error = await ending(events)
    assert isinstance(error, JobCancelledError)
    assert error.job_id == "unwanted"


async def test_closing_the_iterator_ends_the_job_and_frees_its_name(
    executor: LocalExecutor,
) -> None:
    events = await begun(executor, "left")
    await events.aclose()

    # What the first run still says must not be taken for the second's.
    [image] = await draw(executor, "left", ask(steps=2))
    assert image.seed == 7
    await executor.unload(DEMO)  # would wait for the first run


async def test_a_job_cannot_run_twice_at_once(executor: LocalExecutor) -> None:
    events = await begun(executor, "twin")

    with pytest.raises(ValueError, match="job twin is under way already"):
        await draw(executor, "twin", ask())
    await executor.cancel("twin")
    assert isinstance(await ending(events), JobCancelledError)


async def test_errors_cross_with_their_facts(executor: LocalExecutor, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError) as missing:
        await draw(executor, "no model", ask(model=ModelSpec(tmp_path / "nowhere")))
    with pytest.raises(RequestError) as odd:
        await draw(executor, "odd", ask(width=129))

    assert missing.value.path == tmp_path / "nowhere"
    assert (odd.value.field, odd.value.value) == ("width", 129)


async def test_models_are_loaded_counted_and_unloaded(executor: LocalExecutor) -> None:
    await executor.unload(DEMO)
    report = await executor.load(DEMO)
    again = await executor.load(DEMO)
    stats = await executor.stats()
    await executor.unload(DEMO)

    assert (report.key, report.family) == (DEMO.key, "sd15")
    assert report.seconds > 0 == again.seconds
    assert [model["name"] for model in stats["models"]] == [DEMO.key]
    assert (await executor.stats())["models"] == []
    with pytest.raises(ModelNotFoundError):
        await executor.load(ModelSpec(Path("nowhere")))


async def test_what_each_load_and_step_took_is_told(executor: LocalExecutor) -> None:
    await executor.unload(DEMO)
    await executor.stats()  # what it said of others has come by now
    heard: list[Measurement] = []
    executor.pace.on_measurement = heard.append
    await draw(executor, "measured", ask(steps=3))
    await executor.stats()  # likewise
    executor.pace.on_measurement = lambda _: None

    acts = [measurement.act for measurement in heard]
    assert acts in ([Act.LOAD, *[Act.PASS] * 3], [Act.SWITCH, *[Act.PASS] * 3])
    assert {measurement.family for measurement in heard} == {"sd15"}
    assert all(measurement.seconds > 0 for measurement in heard)


async def test_a_call_is_answered_while_it_draws(executor: LocalExecutor) -> None:
    events = await begun(executor, "asked")

    assert (await executor.stats())["models_loaded"] == 1
    await events.aclose()


async def test_what_was_drawn_before_tells_how_long_a_round_takes(
    executor: LocalExecutor,
) -> None:
    await draw(executor, "once", ask(steps=2))
    events = await begun(executor, "larger", width=96)
    assert executor._child is not None
    assert executor._child.dialogue.longest_round() is None
    await events.aclose()
    assert executor.pace.pass_seconds(DEMO.key, 64 * 64, 2) is not None

    events = await begun(executor, "again")
    assert executor._child.dialogue.longest_round() is not None
    await events.aclose()


async def test_a_process_that_hangs_is_killed_and_a_new_one_draws(
    executor: LocalExecutor, beats: Beats
) -> None:
    pid = executor.pid
    assert pid is not None
    for _ in range(int(LEAST_SILENCE_SECONDS / BEAT_SECONDS) + 2):
        await executor.stats()  # it answers each time, or it would not live
        await beats.pass_by()
    await draw(executor, "once", ask(steps=2))  # what was not drawn before has more time
    events = await begun(executor, "stuck")
    call = asyncio.create_task(executor.stats())

    os.kill(pid, signal.SIGSTOP)
    beating = asyncio.create_task(beats.go_on())

    reason = "The worker on cpu gave no sign of life for 300 seconds and was ended."
    assert str(await ending(events)) == reason
    assert str(await executor.death()) == reason
    await asyncio.gather(call, return_exceptions=True)  # answered before, or ended likewise
    beating.cancel()
    await executor.start()
    assert not psutil.pid_exists(pid)
    assert executor.pid not in (None, pid)
    assert (await draw(executor, "anew", ask(steps=2)))[0].seed == 7


async def test_a_process_that_dies_while_nobody_uses_it_is_noticed(
    executor: LocalExecutor,
) -> None:
    assert executor.pid is not None
    os.kill(executor.pid, signal.SIGKILL)

    assert str(await executor.death()) == "The worker on cpu was killed by SIGKILL."
    assert executor.pid is None


@pytest.mark.parametrize(
    ("patience", "device", "loading", "bound"),
    [
        (Patience(), "cuda:1", False, 300),
        (Patience(), "cuda:1", True, LOADING_SECONDS),
        (Patience(), "cpu", False, 1800),
        (Patience(silence=60), "cpu", False, 60),
        (Patience(silence=60, loading=90), "cuda:0", True, 90),
        (Patience(silence=60, loading=30), "cuda:0", True, 60),
    ],
)
async def test_who_loads_a_model_may_be_silent_for_longer(
    patience: Patience, device: str, loading: bool, bound: float
) -> None:
    last = int(bound / BEAT_SECONDS)

    assert patience.ends(device, last, loading=loading) is None
    assert patience.ends(device, last + 1, loading=loading) == bound


@pytest.mark.parametrize(
    ("device", "longest", "bound"),
    [
        ("cpu", 0.0, 300),
        ("cpu", 0.5, 300),
        ("cpu", 40.0, 800),
        ("cpu", 9999.0, 1800),
        ("cuda:0", 0.5, 300),
        ("cuda:0", 9999.0, 300),
        ("cpu", None, 1800),
    ],
)
async def test_a_hang_is_noticed_sooner_where_it_is_known_how_long_a_round_takes(
    device: str, longest: float | None, bound: float
) -> None:
    last = int(bound / BEAT_SECONDS)

    ends = partial(Patience().ends, device, loading=False, longest_round=longest)
    assert ends(last) is None
    assert ends(last + 1) == bound


async def test_signals_to_all_are_the_parents_to_act_on(executor: LocalExecutor) -> None:
    assert executor.pid is not None
    os.kill(executor.pid, signal.SIGINT)
    os.kill(executor.pid, signal.SIGTERM)

    await executor.stats()


async def test_the_process_is_told_no_secrets(
    executor: LocalExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISCORD_TOKEN", "made up")
    doomed = LocalExecutor("cpu")
    starting = asyncio.create_task(doomed.start())
    children = await _new_workers(os.getpid(), executor.pid)

    environment = psutil.Process(children.pop()).environ()

    await doomed.close()
    assert isinstance((await asyncio.gather(starting, return_exceptions=True))[0], WorkerDiedError)
    assert "DISCORD_TOKEN" not in environment
    assert environment["HF_HUB_OFFLINE"] == "1"


async def test_closing_while_it_starts_leaves_nothing_behind(executor: LocalExecutor) -> None:
    late = LocalExecutor("cpu")
    starting = asyncio.create_task(late.start())
    children = await _new_workers(os.getpid(), executor.pid)

    await late.close()

    with pytest.raises(WorkerDiedError, match="was shut down"):
        await starting
    assert not any(psutil.pid_exists(pid) for pid in children)


@pytest.mark.parametrize("turns", [0, 1, 2, 4])
async def test_a_start_that_is_told_to_stop_again_and_again_leaves_nothing_behind(
    executor: LocalExecutor, turns: int
) -> None:
    late = LocalExecutor("cpu")
    supervisor = asyncio.create_task(late.start())
    children = await _new_workers(os.getpid(), executor.pid)

    for _ in range(2):
        supervisor.cancel()
        for _ in range(turns):
            await asyncio.sleep(0)
    await late.close()

    assert not any(psutil.pid_exists(pid) for pid in children)
    with pytest.raises(asyncio.CancelledError):
        await supervisor


async def test_a_start_that_is_given_up_leaves_nothing_behind(executor: LocalExecutor) -> None:
    before = _workers(os.getpid())
    impatient = LocalExecutor("cpu", start_seconds=0.05)

    with pytest.raises(WorkerDiedError, match=r"gave no answer within 0\.05 seconds"):
        await impatient.start()

    assert _workers(os.getpid()) == before
    await impatient.close()


async def test_closing_ends_runs_and_process(executor: LocalExecutor) -> None:
    events, pid = await begun(executor, "closed"), executor.pid
    assert pid is not None

    await executor.close()
    await executor.close()

    assert str(await ending(events)) == "The worker on cpu was shut down."
    assert not psutil.pid_exists(pid)
    with pytest.raises(WorkerDiedError, match="is not running"):
        await executor.load(DEMO)


async def test_a_device_that_is_not_there_is_told() -> None:
    nowhere = LocalExecutor("cuda:99")

    with pytest.raises(WorkerDiedError) as caught:
        await nowhere.start()

    told = "The worker on cuda:99 can't start: torch can't use the device ("
    assert str(caught.value).startswith(told)
    await nowhere.close()


PROGRAM = """
import asyncio, os, sys, time
from pathlib import Path
from engine.jobs import ModelSpec, Progress, Stage
from engine.local_executor import LocalExecutor
from tests.worker_kit import ask

print("main", flush=True)  # no `if __name__ == "__main__":` protects it
folder = sys.argv[1]

async def reached(events, what):
    async for event in events:
        if isinstance(event, Progress) and what(event):
            return

async def main():
    executor = LocalExecutor("cpu")
    await executor.start()
    os.environ["PYTHONPATH"] = folder + os.pathsep + os.environ["PYTHONPATH"]
    starting = [asyncio.create_task(LocalExecutor("cpu").start()) for _ in range(2)]
    while len(list(Path(folder).glob("imported by *"))) < len(starting):
        await asyncio.sleep(0.01)
    drawing = executor.run("a", ask(steps=400, count=4))
    await reached(drawing, lambda event: event.step)
    loading = executor.run("b", ask(model=ModelSpec(Path(folder, "model"))))
    await reached(loading, lambda event: event.stage is Stage.LOADING)
    print("loading in", executor.pid, flush=True)
    time.sleep(3600)  # what the worker says is read no more

asyncio.run(main())
"""

TORCH = """
import os, pathlib, threading
pathlib.Path(__file__).with_name(f"imported by {os.getpid()}").touch()
threading.Event().wait()
"""
"""A torch whose import does not end."""


async def test_a_killed_parent_leaves_no_orphan_whatever_its_workers_do(tmp_path: Path) -> None:
    """One loads a model while it draws, two are being started, and one of them hangs."""
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "torch.py").write_text(TORCH)
    (tmp_path / "model").symlink_to(DEMO.path)
    parent = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        str(tmp_path / "program.py"),
        str(tmp_path),
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert parent.stdout
    assert await parent.stdout.readline() == b"main\n"
    *_, drawing = (await parent.stdout.readline()).split()
    children = [psutil.Process(pid) for pid in _workers(parent.pid)]
    [hanging, _] = [child for child in children if child.pid != int(drawing)]
    if sys.platform == "linux":  # elsewhere no kernel ends a stopped process
        hanging.suspend()

    parent.kill()
    await parent.wait()

    await asyncio.to_thread(psutil.wait_procs, children, timeout=60)
    assert not any(child.is_running() for child in children)
    assert await parent.stdout.read() == b"", "the main module ran more than once"


async def test_a_closed_pipe_ends_it_while_it_draws_and_waits_for_somebody_to_read(
    executor: LocalExecutor,
) -> None:
    child, pid = executor._child, executor.pid
    assert child is not None
    assert pid is not None
    drawing = await begun(executor, "cut off")
    said: Any = child.process._transport.get_pipe_transport(1)
    pipe = said.get_extra_info("pipe")
    loud = executor.run("loud", worker_kit.ask(steps=2, count=4))
    await anext(loud)
    said.pause_reading()
    if sys.platform == "linux":  # elsewhere nobody says how full a pipe is
        # More than the pipe holds: the worker can't end what it has begun to say.
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 32_768)
        while _unread(pipe) < 16_000:  # noqa: ASYNC110 - it sends no events
            await asyncio.sleep(0.01)

    child.process.stdin.close()

    while psutil.pid_exists(pid):  # noqa: ASYNC110 - likewise
        await asyncio.sleep(0.01)
    said.resume_reading()
    for events in (drawing, loud):
        assert str(await ending(events)) == "The worker on cpu ended with exit code 0."


def _unread(pipe: Any) -> int:
    """Returns how many bytes wait in a pipe."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


async def _new_workers(parent: int, known: int | None = None) -> set[int | None]:
    """Waits for worker processes of a parent, beside the known one, in the process table."""
    while not (found := _workers(parent) - {known}):  # noqa: ASYNC110 - it sends no events
        await asyncio.sleep(0.01)
    return found


def _workers(parent: int) -> set[int | None]:
    """Returns the worker processes of a parent, by the process table."""
    found: set[int | None] = set()
    for process in psutil.Process(parent).children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if "engine.worker_process" in " ".join(process.cmdline()):
                found.add(process.pid)
    return found
