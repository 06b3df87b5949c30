"""The pool: turns, modes, deaths of workers and the end, played through by a scripted executor.

The last class draws with the real worker process and the demo model.
"""

import asyncio
import gc
import logging
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from engine.errors import (
    DrawingError,
    JobCancelledError,
    JobTimeoutError,
    ModelFormatError,
    NoDeviceError,
    OwnerQueueFullError,
    PoisonousRequestError,
    PoolClosedError,
    QueueFullError,
    RequestError,
    UnknownModeError,
    WorkerDiedError,
)
from engine.executor import Executor, LoadReport
from engine.fair_queue import MOST_OVERTAKINGS
from engine.jobs import (
    GenerationRequest,
    ModelLoadJob,
    ModelSpec,
    ModelUnloadJob,
    Progress,
    RequestDraft,
    Sampler,
    Stage,
)
from engine.lane import DOWN_AFTER, LaneState, restart_delay
from engine.local_executor import LocalExecutor
from engine.testing import FakeExecutor
from engine.worker_pool import (
    CustomJob,
    GenerationJob,
    Job,
    JobType,
    ModeSwitchJob,
    WorkerPool,
)

pytestmark = pytest.mark.timeout(60)

DEMO = Path(__file__).parents[1] / "models" / "diffusers" / "dream-demo"


@dataclass(frozen=True)
class OneMode:
    name: str
    model: ModelSpec
    size: int = 16
    steps: int = 3
    guidance: float = 5.0

    def build_request(self, draft: RequestDraft) -> GenerationRequest:
        if not draft.prompt:
            raise RequestError("prompt", draft.prompt, "some words")
        return GenerationRequest(
            mode=self.name,
            model=self.model,
            prompt=draft.prompt,
            negative_prompt=draft.negative_prompt or "",
            width=draft.width or self.size,
            height=draft.height or self.size,
            steps=draft.steps or self.steps,
            guidance_scale=self.guidance if draft.guidance_scale is None else draft.guidance_scale,
            sampler=Sampler(draft.sampler or "Euler"),
            seed=draft.seed or 0,
            count=draft.count or 1,
        )


class SomeModes:
    """Modes in a dict, as a catalog would have them."""

    def __init__(self, *modes: OneMode) -> None:
        self.modes = {mode.name: mode for mode in modes}
        self.default_mode = modes[0].name

    def names(self) -> list[str]:
        return list(self.modes)

    def get(self, name: str) -> OneMode:
        if name not in self.modes:
            raise UnknownModeError(name, self.modes)
        return self.modes[name]


PLAIN = OneMode("plain", ModelSpec(Path("plain.safetensors")))
FANCY = OneMode("fancy", ModelSpec(Path("fancy.safetensors")), size=24, steps=5, guidance=2.5)


class Pauses:
    """Stands in for the time between two starts: records it, and ends when the test says so."""

    def __init__(self) -> None:
        self.failures: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, failures: int) -> None:
        self.failures.append(failures)
        await self.gate.wait()


def a_pool(*executors: FakeExecutor, **options: Any) -> WorkerPool:
    options.setdefault("restart_pause", Pauses())
    options.setdefault("close_timeout", 5.0)
    return WorkerPool(executors or (FakeExecutor(),), SomeModes(PLAIN, FANCY), **options)


def a_request(prompt: str = "a red cube", **changes: Any) -> GenerationRequest:
    return PLAIN.build_request(RequestDraft(prompt=prompt, **changes))


def a_job(prompt: str = "a red cube", owner: str = "ann", **changes: Any) -> GenerationJob:
    return GenerationJob(owner=owner, request=a_request(prompt, **changes))


async def eventually(condition: Callable[[], bool]) -> None:
    """Waits turn by turn of the event loop; the test's timeout ends it where it never comes."""
    while not condition():  # noqa: ASYNC110 - turns, not time: what it waits for has no event
        await asyncio.sleep(0)


async def runs(executor: FakeExecutor, *jobs: Job) -> None:
    await executor.until(lambda: all(job.id in executor.running for job in jobs))


@asynccontextmanager
async def a_busy_pool(**options: Any) -> AsyncIterator[tuple[WorkerPool, FakeExecutor, Job]]:
    """A pool whose only device is taken by a drawing that the test may finish."""
    executor = FakeExecutor(hold=True)
    async with a_pool(executor, **options) as pool:
        busy = a_job("in the way", owner="other")
        pool.submit_job(busy)
        await runs(executor, busy)
        yield pool, executor, busy


class TestInit:
    def test_nothing_runs_and_nothing_is_imported_before_start(self):
        executor = FakeExecutor()
        pool = a_pool(executor)
        assert executor.calls == []
        assert pool.get_queue_size() == 0
        assert pool.running_jobs() == ()
        assert [lane.state for lane in pool.status()] == [LaneState.STARTING]

    def test_the_queue_takes_64_unless_told(self):
        assert a_pool().queue_max == 64
        assert a_pool(queue_max=3).queue_max == 3

    def test_the_current_mode_is_the_default_one(self):
        assert a_pool().get_current_mode() == "plain"

    @pytest.mark.parametrize("name", ["queue_max", "max_attempts", "queue_max_per_owner"])
    def test_numbers_below_one_are_refused(self, name):
        with pytest.raises(ValueError, match=f"{name} is 0; allowed: at least 1"):
            a_pool(**{name: 0})

    @pytest.mark.parametrize("seconds", [0, -1, float("nan")])
    def test_a_time_that_is_not_above_zero_is_refused(self, seconds):
        with pytest.raises(ValueError, match="job_timeout is"):
            a_pool(job_timeout=seconds)

    def test_a_pool_without_executors_is_refused(self):
        with pytest.raises(ValueError, match="at least one executor"):
            WorkerPool([], SomeModes(PLAIN))


class TestSubmission:
    async def test_a_request_becomes_its_pictures(self):
        async with a_pool() as pool:
            job = a_job(count=2, seed=7)
            result = await pool.submit_job(job)
        assert result.job_id == job.id
        assert [image.seed for image in result.images] == [7, 8]
        assert all(image.png.startswith(b"\x89PNG") for image in result.images)

    async def test_jobs_submitted_before_start_wait_for_it(self):
        pool = a_pool()
        future = pool.submit_job(a_job())
        await pool.start()
        assert (await future).images
        await pool.shutdown()

    async def test_start_returns_before_the_worker_is_up(self):
        executor = FakeExecutor()
        executor.start_gate.clear()
        async with a_pool(executor) as pool:
            await pool.start()
            future = pool.submit_job(a_job())
            await executor.until(lambda: ("start",) in executor.calls)
            assert pool.status()[0].state is LaneState.STARTING
            assert pool.get_queue_size() == 1
            executor.start_gate.set()
            assert (await future).images
            assert executor.calls.count(("start",)) == 1

    async def test_the_first_event_means_that_the_job_runs(self):
        async with a_busy_pool() as (pool, executor, busy):
            events: list[Progress] = []
            job = a_job()
            future = pool.submit_job(job, on_event=events.append)
            await asyncio.sleep(0)
            assert events == []
            executor.finish(busy.id)
            await runs(executor, job)
            assert events[0] == Progress(job.id, Stage.ENCODING)  # the model was used just before
            assert pool.position(job.id) is None
            executor.report(job.id, step=2, preview=b"jpeg")
            executor.finish(job.id)
            await future
            assert events[-1] == Progress(job.id, Stage.DENOISING, 2, 3, b"jpeg")

    async def test_no_event_comes_before_submit_returns(self):
        async with a_pool() as pool:
            await eventually(lambda: pool.status()[0].state is LaneState.READY)
            events: list[Progress] = []
            future = pool.submit_job(a_job(), on_event=events.append)
            assert events == []
            await future
            assert events

    async def test_a_listener_that_raises_harms_nobody(self, caplog):
        def broken(progress: Progress) -> None:
            raise KeyError("not my day")

        async with a_pool() as pool:
            assert (await pool.submit_job(a_job(), on_event=broken)).images
        assert "listener" in caplog.text

    async def test_the_same_job_twice_is_refused_while_it_is_here(self):
        async with a_busy_pool() as (pool, _, busy):
            with pytest.raises(ValueError, match="already"):
                pool.submit_job(busy)

    async def test_a_refused_job_leaves_nothing_behind(self):
        async with a_busy_pool() as (pool, _, _):
            job = GenerationJob(weight=0, request=a_request())
            with pytest.raises(ValueError, match="weight"):
                pool.submit_job(job)
            assert pool.get_queue_size() == 0
            assert not pool.cancel(job.id)


class TestModeSwitching:
    async def test_a_switch_loads_the_model_and_changes_the_mode(self):
        executor = FakeExecutor()
        async with a_pool(executor) as pool:
            assert await pool.switch_mode("fancy") == "fancy"
            assert pool.get_current_mode() == "fancy"
            assert executor.loaded == (FANCY.model.key,)

    async def test_an_unknown_mode_is_refused_at_once(self):
        async with a_pool() as pool:
            with pytest.raises(UnknownModeError, match="plain, fancy"):
                pool.switch_mode("nope")
            with pytest.raises(UnknownModeError):
                pool.submit_job(ModeSwitchJob(target_mode="nope"))
            assert pool.get_current_mode() == "plain"

    async def test_switching_to_the_current_mode_does_nothing(self):
        executor = FakeExecutor()
        async with a_pool(executor) as pool:
            assert pool.switch_mode("plain").result() == "plain"
            assert await pool.submit_job(ModeSwitchJob(target_mode="plain")) == "plain"
            assert not any(call[0] == "load" for call in executor.calls)

    async def test_a_model_that_does_not_load_leaves_the_old_mode(self):
        executor = FakeExecutor()
        executor.load_errors[FANCY.model.key] = ModelFormatError("fancy.safetensors", "truncated")
        async with a_pool(executor) as pool:
            with pytest.raises(ModelFormatError, match="truncated"):
                await pool.switch_mode("fancy")
            assert pool.get_current_mode() == "plain"
            assert (await pool.submit_job(a_job())).images

    async def test_the_last_of_two_switches_wins(self):
        executor = FakeExecutor(capacity=4)
        executor.load_gate.clear()
        async with a_pool(executor) as pool:
            there, back = pool.switch_mode("fancy"), pool.switch_mode("plain")
            await executor.until(lambda: ("load", FANCY.model.key) in executor.calls)
            assert not back.done()
            executor.load_gate.set()
            assert (await there, await back) == ("fancy", "plain")
            assert pool.get_current_mode() == "plain"

    async def test_a_full_queue_does_not_stop_a_switch(self):
        async with a_busy_pool(queue_max=1) as (pool, executor, busy):
            waiting = a_job()
            pool.submit_job(waiting)
            switch = pool.switch_mode("fancy")
            executor.finish(busy.id)
            await runs(executor, waiting)
            executor.finish(waiting.id)
            assert await switch == "fancy"

    async def test_every_device_loads_the_new_model(self):
        executors = [FakeExecutor("fake:0"), FakeExecutor("fake:1")]
        async with a_pool(*executors) as pool:
            await eventually(lambda: all(lane.state == "ready" for lane in pool.status()))
            await pool.switch_mode("fancy")
            for executor in executors:
                await executor.until(lambda e=executor: e.loaded == (FANCY.model.key,))

    async def test_a_device_that_can_not_load_the_new_model_stops_nothing(self, caplog):
        good, bad = FakeExecutor("fake:0"), FakeExecutor("fake:1")
        bad.load_errors[FANCY.model.key] = ValueError("out of everything")
        async with a_pool(good, bad) as pool:
            await eventually(lambda: all(lane.state == "ready" for lane in pool.status()))
            assert await pool.switch_mode("fancy") == "fancy"
            await eventually(lambda: "fake:1 has not loaded fancy.safetensors" in caplog.text)
            assert not pool.failed.done()

    async def test_a_mode_that_is_removed_gives_way_to_the_default(self):
        modes = SomeModes(PLAIN, FANCY)
        async with WorkerPool([FakeExecutor()], modes) as pool:
            await pool.switch_mode("fancy")
            del modes.modes["fancy"]
            assert pool.get_current_mode() == "plain"


class TestModeDefaults:
    async def test_the_current_mode_fills_what_a_draft_leaves_out(self):
        executor = FakeExecutor()
        async with a_pool(executor) as pool:
            await pool.switch_mode("fancy")
            await pool.submit_job(GenerationJob(request=RequestDraft(prompt="a tree")))
        (request,) = executor.requests
        assert (request.width, request.height) == (24, 24)
        assert (request.steps, request.guidance_scale) == (5, 2.5)
        assert (request.mode, request.model) == ("fancy", FANCY.model)

    async def test_a_draft_keeps_what_it_says(self):
        executor = FakeExecutor()
        draft = RequestDraft(prompt="a tree", mode="fancy", width=32, steps=1, guidance_scale=0.0)
        async with a_pool(executor) as pool:
            await pool.submit_job(GenerationJob(request=draft))
        (request,) = executor.requests
        assert (request.width, request.height, request.steps) == (32, 24, 1)
        assert (request.guidance_scale, request.mode) == (0.0, "fancy")

    async def test_a_job_keeps_the_mode_that_it_was_born_with(self):
        async with a_busy_pool() as (pool, executor, busy):
            job = GenerationJob(request=RequestDraft(prompt="a tree"))
            pool.submit_job(job)
            pool.switch_mode("fancy")
            executor.finish(busy.id)
            await runs(executor, job)
            assert executor.requests[-1].mode == "plain"

    async def test_a_draft_that_is_not_allowed_is_refused_at_once(self):
        async with a_pool() as pool:
            with pytest.raises(RequestError, match="prompt"):
                pool.submit_job(GenerationJob(request=RequestDraft(prompt="")))
            with pytest.raises(UnknownModeError):
                pool.submit_job(GenerationJob(request=RequestDraft(prompt="x", mode="nope")))
            assert pool.get_queue_size() == 0


class TestLifecycle:
    async def test_the_pool_starts_and_closes_its_executors(self):
        executors = [FakeExecutor("fake:0"), FakeExecutor("fake:1")]
        async with a_pool(*executors) as pool:
            await eventually(lambda: all(lane.state == "ready" for lane in pool.status()))
        assert [executor.calls for executor in executors] == [[("start",), ("close",)]] * 2
        assert {lane.state for lane in pool.status()} == {LaneState.CLOSED}

    async def test_a_closed_pool_does_not_start_again(self):
        pool = a_pool()
        await pool.shutdown()
        with pytest.raises(PoolClosedError):
            await pool.start()

    async def test_status_tells_the_facts_of_each_lane(self):
        executor = FakeExecutor("fake:7", capacity=3, hold=True)
        async with a_pool(executor) as pool:
            job = a_job()
            future = pool.submit_job(job)
            await runs(executor, job)
            (lane,) = pool.status()
            assert (lane.device, lane.state, lane.in_flight) == ("fake:7", LaneState.READY, 1)
            assert (lane.capacity, lane.last_error) == (3, None)
            assert lane.models == (PLAIN.model.key,)
            assert pool.running_jobs() == (job,)
            executor.finish(job.id)
            await future
            assert pool.running_jobs() == ()
            assert pool.status()[0].models == (PLAIN.model.key,)

    async def test_a_worker_that_can_not_start_is_tried_again_while_others_draw(self):
        good, bad = FakeExecutor("fake:0"), FakeExecutor("fake:1")
        bad.start_errors = [WorkerDiedError("fake:1", "has no driver"), OSError("no memory")]
        pauses = Pauses()
        pauses.gate.clear()
        async with a_pool(good, bad, restart_pause=pauses) as pool:
            assert (await pool.submit_job(a_job())).device == "fake:0"
            assert pool.status()[1].state is LaneState.STARTING
            assert pool.status()[1].last_error == "The worker on fake:1 has no driver."
            pauses.gate.set()
            await eventually(lambda: pool.status()[1].state is LaneState.READY)
            assert pauses.failures == [1, 2]

    def test_the_time_between_starts_grows_and_is_bounded(self):
        assert [restart_delay(n) for n in (1, 2, 3, 4)] == [0, 1, 2, 4]
        assert restart_delay(10**6) == 600

    async def test_a_worker_that_dies_idle_is_replaced_at_once(self):
        executor = FakeExecutor()
        async with a_pool(executor) as pool:
            await pool.submit_job(a_job())
            executor.die("was killed by signal 9")
            await executor.until(lambda: executor.calls.count(("start",)) == 2 and executor.alive)
            await eventually(lambda: pool.status()[0].state is LaneState.READY)
            assert pool.status()[0].models == ()
            assert executor.calls.count(("run", a_job().id)) == 0
            assert (await pool.submit_job(a_job())).images

    async def test_an_idle_death_is_nobodys_who_comes_after_it(self):
        executor = FakeExecutor(capacity=2, hold=True)
        async with a_pool(executor, max_attempts=1) as pool:
            await eventually(lambda: pool.status()[0].state is LaneState.READY)
            executor.die()
            await executor.until(lambda: executor.calls.count(("start",)) == 2)
            jobs = [a_job(), a_job()]
            futures = [pool.submit_job(job) for job in jobs]
            await runs(executor, *jobs)  # neither alone nor failed
            for job in jobs:
                executor.finish(job.id)
            assert all([(await future).images for future in futures])

    async def test_a_device_that_falls_away_counts_as_down_and_is_tried_on(self):
        executor = FakeExecutor()
        executor.start_errors = [
            WorkerDiedError("fake:0", "has no driver") for _ in range(DOWN_AFTER)
        ]
        pauses = Pauses()
        pauses.gate.clear()
        async with a_pool(executor, restart_pause=pauses) as pool:
            waiting = pool.submit_job(a_job())
            for failures in range(1, DOWN_AFTER):
                await eventually(lambda n=failures: pauses.failures[-1:] == [n])
                assert pool.status()[0].state is LaneState.STARTING
                pauses.gate.set()
                pauses.gate.clear()
            await eventually(lambda: pauses.failures[-1] == DOWN_AFTER)
            (lane,) = pool.status()
            assert (lane.state, lane.last_error) == (
                LaneState.DOWN,
                "The worker on fake:0 has no driver.",
            )
            with pytest.raises(NoDeviceError, match="fake:0 failed again and again"):
                pool.submit_job(a_job())
            with pytest.raises(NoDeviceError), pool.reserve("ann"):
                pass
            assert not waiting.done()
            pauses.gate.set()
            assert (await waiting).images
            assert (await pool.submit_job(a_job())).images

    async def test_a_device_that_is_down_stops_no_other(self):
        good, bad = FakeExecutor("fake:0"), FakeExecutor("fake:1")
        bad.start_errors = [OSError("gone")] * DOWN_AFTER

        async def rest(failures: int) -> None:
            if failures >= DOWN_AFTER:
                await asyncio.Event().wait()

        async with a_pool(good, bad, restart_pause=rest) as pool:
            await eventually(lambda: pool.status()[1].state is LaneState.DOWN)
            assert (await pool.submit_job(a_job())).device == "fake:0"

    async def test_a_bug_in_the_pools_own_task_stops_the_program(self, caplog):
        async def broken(failures: int) -> None:
            raise ZeroDivisionError

        executor = FakeExecutor()
        executor.start_errors = [OSError("no")]
        pool = a_pool(executor, restart_pause=broken)

        async def program() -> None:
            async with pool:
                await asyncio.wait([pool.failed])

        with pytest.raises(ZeroDivisionError):
            await program()
        assert isinstance(pool.failed.exception(), ZeroDivisionError)
        assert "The pool failed" in caplog.text

    async def test_failed_ends_quietly_when_all_went_well(self):
        async with a_pool() as pool:
            failed = pool.failed
        assert failed.result() is None


class TestCustomExecution:
    async def test_a_coroutine_runs_in_the_event_loop(self):
        async def add(a: int, b: int = 0) -> tuple[int, bool]:
            return a + b, threading.current_thread() is threading.main_thread()

        async with a_pool() as pool:
            job = CustomJob(handler=add, args=(2,), kwargs={"b": 3})
            assert await pool.submit_job(job) == (5, True)

    async def test_a_plain_function_does_not_block_the_event_loop(self):
        release = threading.Event()
        async with a_pool() as pool:
            future = pool.submit_job(CustomJob(handler=release.wait, args=(30,)))
            await eventually(lambda: len(pool.running_jobs()) == 1)
            release.set()  # could not happen if the loop were blocked
            assert await future is True

    async def test_what_a_handler_raises_reaches_its_future(self):
        def broken() -> None:
            raise LookupError("nothing there")

        async with a_pool() as pool:
            with pytest.raises(LookupError, match="nothing there"):
                await pool.submit_job(CustomJob(handler=broken))

    @pytest.mark.parametrize("kind", [StopIteration, SystemExit])
    async def test_exceptions_that_python_treats_specially_end_only_their_job(self, kind):
        def broken() -> None:
            raise kind

        async with a_pool() as pool:
            with pytest.raises(RuntimeError, match=kind.__name__):
                await pool.submit_job(CustomJob(handler=broken))
            assert await pool.submit_job(CustomJob(handler=len, args=("four",))) == 4


class TestTypes:
    def test_the_kinds_of_jobs_have_their_types(self):
        assert {kind.value for kind in JobType} == {
            "generation",
            "mode_switch",
            "model_load",
            "model_unload",
            "custom",
        }
        assert a_job().type is JobType.GENERATION
        assert ModeSwitchJob(target_mode="plain").type is JobType.MODE_SWITCH
        assert ModelLoadJob(model=PLAIN.model).type is JobType.MODEL_LOAD
        assert ModelUnloadJob(model=PLAIN.model).type is JobType.MODEL_UNLOAD
        assert CustomJob(handler=print).type is JobType.CUSTOM

    async def test_a_subclass_of_job_adds_a_kind(self):
        @dataclass(frozen=True, slots=True, kw_only=True)
        class StatsJob(Job):
            wanted: str

            async def run(self, executor: Executor) -> Any:
                return (await executor.stats())[self.wanted]

        async with a_pool() as pool:
            assert await pool.submit_job(StatsJob(wanted="device")) == "fake:0"

    async def test_a_load_goes_where_the_model_is_even_if_that_device_is_busier(self):
        executors = [FakeExecutor(f"fake:{n}", capacity=2, hold=True) for n in range(2)]
        executors[0].start_gate.clear()
        async with a_pool(*executors) as pool:
            job = a_job()
            pool.submit_job(job)
            await runs(executors[1], job)
            executors[0].start_gate.set()
            await eventually(lambda: all(lane.state == "ready" for lane in pool.status()))
            await pool.submit_job(ModelLoadJob(model=PLAIN.model))
            assert executors[1].calls[-1] == ("load", PLAIN.model.key)

    async def test_what_a_switch_loads_is_prepared_for_the_modes_own_defaults(self):
        executor = FakeExecutor()
        async with a_pool(executor) as pool:
            await pool.switch_mode("fancy")
            [warm] = executor.warmed
            assert warm.mode == "fancy"
            assert warm.model == FANCY.model

    async def test_a_kind_that_does_not_say_how_it_runs_is_refused(self):
        async with a_pool() as pool:
            with pytest.raises(TypeError, match="async def run"):
                pool.submit_job(Job())

    async def test_a_load_prefers_the_device_that_has_the_model_and_unload_frees_all(self):
        executors = [FakeExecutor("fake:0"), FakeExecutor("fake:1")]
        executors[0].start_gate.clear()
        async with a_pool(*executors) as pool:
            report = await pool.submit_job(ModelLoadJob(model=FANCY.model))
            assert isinstance(report, LoadReport)
            assert report.key == FANCY.model.key
            executors[0].start_gate.set()
            await eventually(lambda: all(lane.state == "ready" for lane in pool.status()))
            await pool.submit_job(ModelLoadJob(model=FANCY.model))
            assert [executor.loaded for executor in executors] == [(), (FANCY.model.key,)]
            assert await pool.submit_job(ModelUnloadJob(model=FANCY.model)) is None
            assert [executor.loaded for executor in executors] == [(), ()]
            assert all(lane.models == () for lane in pool.status())


class TestTurns:
    async def test_a_loaded_model_goes_first_and_nobody_is_told_a_wrong_place(self):
        async with a_busy_pool() as (pool, executor, busy):
            other = GenerationJob(owner="bob", request=replace(a_request(), model=FANCY.model))
            same = a_job(owner="cem")
            pool.submit_job(other)
            pool.submit_job(same)
            assert (pool.position(other.id), pool.position(same.id)) == (1, 2)
            executor.finish(busy.id)
            await runs(executor, same)
            assert pool.position(other.id) == 1
            executor.finish(same.id)
            await runs(executor, other)

    async def test_places_take_turns_however_many_ask_in_one(self):
        async with a_busy_pool() as (pool, executor, busy):
            big = [replace(a_job(owner=f"member {i}"), place="big") for i in range(5)]
            small = [replace(a_job(owner="only"), place="small") for i in range(2)]
            for job in (*big, *small):
                pool.submit_job(job)
            executor.finish(busy.id)
            for job in (big[0], small[0], big[1], small[1], big[2]):
                await runs(executor, job)
                executor.finish(job.id)


class TestErrors:
    async def test_an_error_reaches_its_future_and_the_pool_lives_on(self):
        async with a_busy_pool() as (pool, executor, _):
            job = a_job()
            future = pool.submit_job(job)
            executor.finish(executor.running[0])
            await runs(executor, job)
            executor.fail(job.id, DrawingError("The picture is NaN."))
            with pytest.raises(DrawingError, match="NaN"):
                await future
            executor.hold = False
            assert (await pool.submit_job(a_job())).images

    async def test_an_error_that_nobody_looks_at_makes_no_noise_in_asyncio(self, caplog):
        caplog.set_level(logging.WARNING)
        executor = FakeExecutor()
        executor.load_errors[PLAIN.model.key] = ModelFormatError("plain.safetensors", "truncated")
        async with a_pool(executor) as pool:
            pool.submit_job(a_job())
            await eventually(lambda: executor.requests != [] and not pool.running_jobs())
        gc.collect()
        assert "truncated" in caplog.text
        assert not [record for record in caplog.records if record.name == "asyncio"]

    async def test_after_a_crash_the_same_request_is_drawn_again_at_its_old_place(self):
        async with a_busy_pool() as (pool, executor, busy):
            later = a_job()
            pool.submit_job(later)
            executor.die()
            await eventually(lambda: executor.calls.count(("run", busy.id)) == 2)
            await runs(executor, busy)
            assert pool.position(later.id) == 1
            assert executor.requests == [busy.request, busy.request]
            assert executor.calls.count(("start",)) == 2

    async def test_the_lane_says_why_it_restarts(self):
        pauses = Pauses()
        async with a_busy_pool(restart_pause=pauses) as (pool, executor, busy):
            pauses.gate.clear()
            executor.die("was killed by signal 9")
            await eventually(lambda: pool.position(busy.id) == 1)
            (lane,) = pool.status()
            assert (lane.state, lane.in_flight) == (LaneState.RESTARTING, 0)
            assert lane.last_error == "The worker on fake:0 was killed by signal 9."
            pauses.gate.set()
            await runs(executor, busy)
            executor.finish(busy.id)
            await eventually(lambda: pool.status()[0].last_error is None)

    async def test_a_poisonous_request_fails_and_its_neighbours_go_on(self):
        executor = FakeExecutor(capacity=4, hold=True)
        executor.poison.add("poison")
        async with a_pool(executor) as pool:
            neighbours = [a_job(owner=name) for name in ("ann", "bob", "cem")]
            futures = [pool.submit_job(job) for job in neighbours]
            await runs(executor, *neighbours)
            executor.hold = False
            with pytest.raises(
                PoisonousRequestError,
                match=r"The worker on fake:0 was killed by a prompt\. .* it isn't tried again\.",
            ):
                await pool.submit_job(a_job("poison", owner="eve"))
            assert all([(await future).images for future in futures])
            assert executor.calls.count(("start",)) == 3

    async def test_suspects_run_alone_until_they_are_cleared(self):
        executor = FakeExecutor(capacity=4, hold=True)
        async with a_pool(executor) as pool:
            jobs = [a_job(owner=name) for name in ("ann", "bob")]
            futures = [pool.submit_job(job) for job in jobs]
            await runs(executor, *jobs)
            executor.die()
            await executor.until(lambda: not executor.running)
            fresh = a_job(owner="cem")
            futures.append(pool.submit_job(fresh))
            for job in (*jobs, fresh):
                await runs(executor, job)
                assert executor.running == (job.id,)
                executor.finish(job.id)
            assert all([(await future).images for future in futures])

    async def test_a_suspect_is_not_put_beside_others_on_another_device(self):
        dying, other = (FakeExecutor(f"fake:{n}", capacity=2, hold=True) for n in range(2))
        pauses = Pauses()
        async with a_pool(dying, other, restart_pause=pauses) as pool:
            await eventually(lambda: all(lane.state == "ready" for lane in pool.status()))
            suspect, innocent = a_job(), a_job()
            pool.submit_job(suspect)
            pool.submit_job(innocent)
            await runs(dying, suspect)
            await runs(other, innocent)
            pauses.gate.clear()
            dying.die()
            await eventually(lambda: pool.position(suspect.id) == 1)
            refresh = asyncio.Event()
            pool.queue_listeners.append(refresh.set)
            pool.submit_job(beside := a_job())  # has the pool look again for who may run where
            await refresh.wait()
            await runs(other, beside)
            assert other.running == (innocent.id, beside.id)
            other.finish(innocent.id)
            other.finish(beside.id)
            await runs(other, suspect)

    async def test_others_go_on_while_a_suspect_waits_for_an_empty_lane_and_it_comes_in_time(self):
        executor = FakeExecutor(capacity=2, hold=True)
        async with a_pool(executor) as pool:
            slow, suspect = a_job(owner="ann"), a_job(owner="bob")
            others = [a_job(owner=f"owner-{n}") for n in range(MOST_OVERTAKINGS + 2)]
            pool.submit_job(slow)
            await runs(executor, slow)
            pool.submit_job(suspect, is_suspect=True)
            for job in others:
                pool.submit_job(job)
            for job in others[:MOST_OVERTAKINGS]:
                await runs(executor, job)
                assert suspect.id not in executor.running
                executor.finish(job.id)
            await executor.until(lambda: executor.running == (slow.id,))
            executor.finish(slow.id)
            await runs(executor, suspect)
            assert executor.running == (suspect.id,)
            executor.finish(suspect.id)
            for job in others[MOST_OVERTAKINGS:]:
                await runs(executor, job)
                executor.finish(job.id)

    async def test_a_suspects_owner_gets_no_later_one_before_it(self):
        executor = FakeExecutor(capacity=2, hold=True)
        async with a_pool(executor) as pool:
            slow = a_job(owner="ann")
            pool.submit_job(slow)
            await runs(executor, slow)
            suspect, later, other = a_job(owner="bob"), a_job(owner="bob"), a_job(owner="cem")
            pool.submit_job(suspect, is_suspect=True)
            pool.submit_job(later)
            pool.submit_job(other)
            await runs(executor, other)
            assert executor.running == (slow.id, other.id)
            executor.finish(other.id)
            executor.finish(slow.id)
            await runs(executor, suspect)

    async def test_a_request_is_not_blamed_for_a_device_that_falls_away(self):
        falling, good = FakeExecutor("fake:0", capacity=2), FakeExecutor("fake:1", capacity=2)
        falling.poison.add("a red cube")  # whatever it draws, it dies
        async with a_pool(falling, good) as pool:
            await eventually(lambda: all(lane.state == "ready" for lane in pool.status()))
            futures = [pool.submit_job(a_job(owner=f"owner-{n}")) for n in range(6)]
            assert {(await future).device for future in futures} == {"fake:1"}
            assert falling.requests != []

    async def test_a_listener_hears_that_a_job_waits_again(self):
        pauses = Pauses()
        async with a_busy_pool(restart_pause=pauses) as (pool, executor, busy):
            executor.finish(busy.id)
            pauses.gate.clear()
            heard: list[Progress | None] = []
            job = a_job()
            future = pool.submit_job(job, on_event=heard.append)
            await runs(executor, job)
            executor.die()
            await eventually(lambda: None in heard)
            assert pool.position(job.id) == 1
            pauses.gate.set()
            executor.hold = False
            await future
            assert heard.index(None) < heard.index(Progress(job.id, Stage.DENOISING, 1, 3))

    async def test_a_job_that_takes_too_long_ends_and_leaves_its_device(self, caplog):
        executor = FakeExecutor(hold=True)
        async with a_pool(executor, job_timeout=0.01) as pool:
            late = a_job()
            with pytest.raises(JobTimeoutError, match=r"given up after 0\.01 seconds") as caught:
                await pool.submit_job(late)
            assert caught.value.seconds == 0.01
            await executor.until(lambda: not executor.running)
            assert ("cancel", late.id) in executor.calls
            assert executor.calls.count(("start",)) == 1
            custom = CustomJob(handler=asyncio.Event().wait)
            with pytest.raises(JobTimeoutError):
                await pool.submit_job(custom)
            await eventually(lambda: pool.status()[0].in_flight == 0)

    async def test_a_job_that_ends_in_time_is_left_alone(self, caplog):
        async with a_pool(job_timeout=3600) as pool:
            assert (await pool.submit_job(a_job())).images
        assert "given up" not in caplog.text

    async def test_max_attempts_one_does_not_try_again(self):
        executor = FakeExecutor(hold=True)
        async with a_pool(executor, max_attempts=1) as pool:
            job = a_job()
            future = pool.submit_job(job)
            await runs(executor, job)
            executor.die()
            with pytest.raises(WorkerDiedError):
                await future

    async def test_the_pause_grows_until_something_is_drawn_again(self):
        pauses = Pauses()
        executor = FakeExecutor()
        executor.poison.add("poison")
        async with a_pool(executor, restart_pause=pauses) as pool:
            for _ in range(2):
                with pytest.raises(WorkerDiedError):
                    await pool.submit_job(a_job("poison"))
            await pool.submit_job(a_job())
            with pytest.raises(WorkerDiedError):
                await pool.submit_job(a_job("poison"))
        assert pauses.failures[:5] == [1, 2, 3, 4, 1]

    async def test_a_crash_while_loading_is_tried_again(self):
        executor = FakeExecutor()
        executor.load_gate.clear()
        async with a_pool(executor) as pool:
            switch = pool.switch_mode("fancy")
            await executor.until(lambda: ("load", FANCY.model.key) in executor.calls)
            executor.load_gate.set()
            executor.die()
            assert await switch == "fancy"
            assert executor.calls.count(("load", FANCY.model.key)) == 2

    async def test_an_executor_that_ends_without_a_picture_fails_the_job(self):
        class Empty(FakeExecutor):
            async def run(self, job_id, request):
                yield Progress(job_id, Stage.ENCODING)

        async with a_pool(Empty()) as pool:
            with pytest.raises(DrawingError, match="without a picture"):
                await pool.submit_job(a_job())


class TestCancel:
    async def test_a_waiting_job_leaves_the_queue_at_once(self):
        async with a_busy_pool() as (pool, executor, _):
            job, behind = a_job(), a_job()
            future = pool.submit_job(job)
            pool.submit_job(behind)
            assert pool.cancel(job.id)
            assert (pool.position(job.id), pool.position(behind.id)) == (None, 1)
            with pytest.raises(JobCancelledError):
                await future
            assert ("run", job.id) not in executor.calls

    async def test_a_running_job_leaves_its_device(self):
        async with a_busy_pool() as (pool, executor, busy):
            behind = a_job()
            pool.submit_job(behind)
            assert pool.cancel(busy.id)
            assert pool.running_jobs() == ()
            await runs(executor, behind)
            assert ("cancel", busy.id) in executor.calls
            assert busy.id not in executor.running

    async def test_an_unknown_or_ended_job_can_not_be_cancelled(self):
        async with a_pool() as pool:
            job = a_job()
            await pool.submit_job(job)
            assert not pool.cancel(job.id)
            assert not pool.cancel("nobody")

    async def test_cancelling_twice_says_no_the_second_time(self):
        async with a_busy_pool() as (pool, _, busy):
            assert [pool.cancel(busy.id), pool.cancel(busy.id)] == [True, False]

    async def test_cancelling_the_future_cancels_the_job(self):
        async with a_busy_pool() as (pool, executor, busy):
            waiting = a_job()
            pool.submit_job(waiting).cancel()
            await eventually(lambda: pool.get_queue_size() == 0)
            job = a_job()
            future = pool.submit_job(job)
            executor.finish(busy.id)
            await runs(executor, job)
            future.cancel()
            await executor.until(lambda: not executor.running)
            assert ("cancel", job.id) in executor.calls

    async def test_a_worker_that_is_deaf_to_cancel_loses_the_job_at_its_next_event(self):
        class Deaf(FakeExecutor):
            async def cancel(self, job_id):
                self.calls.append(("cancel", job_id))

        executor = Deaf(hold=True)
        async with a_pool(executor) as pool:
            job = a_job()
            pool.submit_job(job)
            await runs(executor, job)
            pool.cancel(job.id)
            executor.report(job.id, step=1)
            await executor.until(lambda: not executor.running)

    async def test_a_cancelled_job_does_not_come_back_after_a_crash(self):
        pauses = Pauses()
        async with a_busy_pool(restart_pause=pauses) as (pool, executor, busy):
            pauses.gate.clear()
            pool.cancel(busy.id)
            executor.die()
            await eventually(lambda: pool.status()[0].in_flight == 0)
            assert pool.get_queue_size() == 0
            pauses.gate.set()
            await eventually(lambda: executor.calls.count(("start",)) == 2)
            assert (await pool.submit_job(CustomJob(handler=len, args=("",)))) == 0
            assert executor.calls.count(("run", busy.id)) == 1

    async def test_a_custom_job_and_a_switch_can_be_cancelled_while_they_run(self):
        executor = FakeExecutor(capacity=2)
        executor.load_gate.clear()
        async with a_pool(executor) as pool:
            custom = CustomJob(handler=asyncio.Event().wait)
            switch = ModeSwitchJob(target_mode="fancy")
            futures = [pool.submit_job(job) for job in (custom, switch)]
            await executor.until(lambda: ("load", FANCY.model.key) in executor.calls)
            assert pool.cancel(custom.id)
            assert pool.cancel(switch.id)
            for future in futures:
                with pytest.raises(JobCancelledError):
                    await future
            await eventually(lambda: pool.status()[0].in_flight == 0)
            assert pool.get_current_mode() == "plain"

    async def test_a_job_that_is_cancelled_in_the_turn_in_which_it_begins_frees_its_place(self):
        async with a_pool() as pool:
            await eventually(lambda: pool.status()[0].state is LaneState.READY)
            job = CustomJob(handler=asyncio.Event().wait)
            pool.submit_job(job)
            pool.queue_listeners.append(lambda: pool.cancel(job.id))  # called right after its pop
            await eventually(lambda: pool.get_queue_size() == 0)
            pool.queue_listeners.clear()
            assert (await pool.submit_job(a_job())).images


class TestShutdown:
    async def test_waiting_jobs_end_with_an_error_that_says_so(self):
        async with a_busy_pool() as (pool, _, _):
            future = pool.submit_job(a_job())
            await pool.shutdown()
            with pytest.raises(PoolClosedError, match="shutting down"):
                await future
            assert pool.get_queue_size() == 0

    async def test_running_jobs_are_cut_without_grace(self):
        executor = FakeExecutor(hold=True)
        pool = a_pool(executor)
        await pool.start()
        job = a_job()
        future = pool.submit_job(job)
        await runs(executor, job)
        await pool.shutdown()
        with pytest.raises(PoolClosedError):
            await future
        assert executor.running == ()
        assert not executor.alive

    async def test_running_jobs_end_well_within_the_grace(self):
        async with a_busy_pool() as (pool, executor, busy):
            mine = a_job()
            running = pool.running_jobs()
            waiting = pool.submit_job(mine)
            closing = asyncio.create_task(pool.shutdown(grace=30))
            with pytest.raises(PoolClosedError):
                await waiting
            assert pool.running_jobs() == running
            assert not closing.done()
            executor.finish(busy.id)
            await closing
            assert executor.calls[-1] == ("close",)

    async def test_a_second_call_without_grace_cuts_the_first_short(self):
        async with a_busy_pool() as (pool, executor, _):
            patient = asyncio.create_task(pool.shutdown(grace=3600))
            await asyncio.sleep(0)
            await asyncio.gather(pool.shutdown(), pool.shutdown())
            await patient
            assert executor.calls.count(("close",)) == 1

    async def test_the_grace_ends(self):
        async with a_busy_pool() as (pool, executor, _):
            await pool.shutdown(grace=0.01)
            assert executor.running == ()

    async def test_nothing_new_is_taken(self):
        pool = a_pool()
        await pool.start()
        await pool.shutdown()
        await pool.shutdown()
        with pytest.raises(PoolClosedError):
            pool.submit_job(a_job(), admitted=True)
        with pytest.raises(PoolClosedError):
            pool.switch_mode("fancy")
        with pytest.raises(PoolClosedError), pool.reserve():
            pass

    async def test_an_executor_that_never_closes_is_given_up(self, caplog):
        stuck, good = FakeExecutor("fake:0"), FakeExecutor("fake:1")
        stuck.close_gate.clear()
        pool = a_pool(stuck, good, close_timeout=0.05)
        await pool.start()
        await pool.shutdown()
        assert "close fake:0 did not end" in caplog.text
        assert good.calls[-1] == ("close",)

    async def test_a_job_that_will_not_stop_is_given_up(self, caplog):
        let_go = asyncio.Event()

        async def stubborn() -> None:
            while not let_go.is_set():
                try:
                    await let_go.wait()
                except asyncio.CancelledError:
                    continue

        executor = FakeExecutor()
        pool = a_pool(executor, close_timeout=0.05)
        await pool.start()
        future = pool.submit_job(CustomJob(handler=stubborn))
        await eventually(lambda: len(pool.running_jobs()) == 1)
        await asyncio.sleep(0)
        await pool.shutdown()
        with pytest.raises(PoolClosedError):
            await future
        assert executor.calls[-1] == ("close",)
        let_go.set()

    async def test_a_worker_that_is_still_starting_does_not_hold_it_up(self):
        executor = FakeExecutor()
        executor.start_gate.clear()
        pool = a_pool(executor)
        await pool.start()
        await executor.until(lambda: ("start",) in executor.calls)
        await pool.shutdown()
        assert executor.calls == [("start",), ("close",)]

    async def test_a_crash_within_the_grace_is_not_tried_again(self):
        executor = FakeExecutor(hold=True)
        pool = a_pool(executor)
        await pool.start()
        job = a_job()
        future = pool.submit_job(job)
        await runs(executor, job)
        closing = asyncio.create_task(pool.shutdown(grace=30))
        await asyncio.sleep(0)
        executor.die()
        await closing
        with pytest.raises(PoolClosedError):
            await future
        assert executor.calls.count(("start",)) == 1


class TestConcurrency:
    async def test_a_lane_has_as_many_in_flight_as_its_capacity(self):
        executor = FakeExecutor(capacity=3, hold=True)
        async with a_pool(executor) as pool:
            jobs = [a_job() for _ in range(5)]
            for job in jobs:
                pool.submit_job(job)
            await runs(executor, *jobs[:3])
            assert (pool.get_queue_size(), len(executor.running)) == (2, 3)
            executor.finish(jobs[1].id)
            await runs(executor, jobs[3])
            assert executor.running == (jobs[0].id, jobs[2].id, jobs[3].id)

    async def test_devices_share_the_work(self):
        executors = [FakeExecutor(f"fake:{n}", capacity=2, hold=True) for n in range(2)]
        async with a_pool(*executors) as pool:
            await eventually(lambda: all(lane.state == "ready" for lane in pool.status()))
            jobs = [a_job() for _ in range(2)]
            for job in jobs:
                pool.submit_job(job)
            await runs(executors[0], jobs[0])
            await runs(executors[1], jobs[1])

    async def test_loading_on_one_device_does_not_stop_another(self):
        loading, drawing = FakeExecutor("fake:0"), FakeExecutor("fake:1")
        loading.load_gate.clear()
        drawing.start_gate.clear()
        async with a_pool(loading, drawing) as pool:
            switch = pool.switch_mode("fancy")
            await loading.until(lambda: ("load", FANCY.model.key) in loading.calls)
            drawing.start_gate.set()
            for _ in range(3):
                assert (await pool.submit_job(a_job())).device == "fake:1"
            assert not switch.done()
            loading.load_gate.set()
            assert await switch == "fancy"

    async def test_a_hundred_requests_of_many_owners_all_end(self):
        executors = [FakeExecutor(f"fake:{n}", capacity=4) for n in range(3)]
        async with a_pool(*executors, queue_max=100) as pool:
            jobs = [a_job(owner=f"owner-{n % 7}", seed=n) for n in range(100)]
            results = await asyncio.gather(*(pool.submit_job(job) for job in jobs))
        assert [result.job_id for result in results] == [job.id for job in jobs]
        assert [result.images[0].seed for result in results] == list(range(100))

    async def test_devices_that_die_again_and_again_lose_no_job(self):
        executors = [FakeExecutor(f"fake:{n}", capacity=2, hold=True) for n in range(2)]
        async with a_pool(*executors, max_attempts=50) as pool:
            jobs = [a_job(owner=f"owner-{n % 3}") for n in range(12)]
            futures = [pool.submit_job(job) for job in jobs]
            for round_ in range(12):
                executor = executors[round_ % 2]
                await executor.until(lambda e=executor: bool(e.running))
                executor.die()
            for executor in executors:
                executor.hold = False
                for job_id in executor.running:
                    executor.finish(job_id)
            results = await asyncio.gather(*futures)
        assert [result.job_id for result in results] == [job.id for job in jobs]


class TestQueue:
    async def test_a_full_queue_refuses_with_its_size(self):
        async with a_busy_pool(queue_max=2) as (pool, _, _):
            pool.submit_job(a_job())
            pool.submit_job(a_job())
            with pytest.raises(QueueFullError, match="at most 2") as caught:
                pool.submit_job(a_job())
            assert caught.value.size == 2
            pool.submit_job(a_job(), admitted=True)
            assert pool.get_queue_size() == 3

    async def test_one_owner_does_not_fill_the_queue(self):
        async with a_busy_pool(queue_max=8, queue_max_per_owner=2) as (pool, executor, busy):
            first = a_job(owner="ann")
            pool.submit_job(first)
            with pool.reserve("ann"):
                with pytest.raises(OwnerQueueFullError), pool.reserve("ann"):
                    pass
                pool.submit_job(a_job(owner="bob"))
            pool.submit_job(a_job(owner="ann"))
            with pytest.raises(OwnerQueueFullError) as caught:
                pool.submit_job(a_job(owner="ann"))
            assert str(caught.value) == (
                "You have 2 requests waiting; at most 2 may wait at once. "
                "Ask again when one of them is being drawn."
            )
            assert (caught.value.waiting, caught.value.size) == (2, 2)
            pool.submit_job(a_job(owner="ann"), admitted=True)
            executor.finish(busy.id)
            await runs(executor, first)  # what runs doesn't count
            pool.cancel(first.id)

    async def test_several_places_are_reserved_together_or_not_at_all(self):
        async with a_busy_pool(queue_max=6, queue_max_per_owner=4) as (pool, _, _):
            pool.submit_job(a_job(owner="ann"))
            with pool.reserve("ann", 2):
                with pytest.raises(OwnerQueueFullError) as caught, pool.reserve("ann", 2):
                    pass
                with pool.reserve("ann"):
                    pass
                with pytest.raises(QueueFullError), pool.reserve("bob", 4):
                    pass
                with pool.reserve("bob", 3):
                    pass
            assert str(caught.value) == (
                "2 requests are too many beside the 3 that you have waiting; at most 4 may wait at "
                "once. Ask again when fewer of them wait."
            )
            assert (caught.value.waiting, caught.value.size, caught.value.asked) == (3, 4, 2)
            with pool.reserve("ann", 3):
                pass

    async def test_what_is_no_request_is_nobodys_place(self):
        async with a_busy_pool() as (pool, executor, busy):
            load, switch = ModelLoadJob(model=FANCY.model), ModeSwitchJob(target_mode="fancy")
            pool.submit_job(load)
            first, second = a_job(), a_job()
            pool.submit_job(first)
            done = pool.submit_job(switch)
            pool.submit_job(second)
            assert [pool.position(job.id) for job in (first, second)] == [1, 2]
            executor.hold = False
            executor.finish(busy.id)
            await done
            assert pool.position(load.id) is None

    async def test_loads_and_switches_neither_fill_the_queue_nor_count_as_waiting(self):
        async with a_busy_pool(queue_max=2) as (pool, executor, busy):
            for _ in range(4):
                pool.submit_job(ModelLoadJob(model=FANCY.model), admitted=True)
            pool.submit_job(ModelUnloadJob(model=FANCY.model), admitted=True)
            switch = pool.switch_mode("fancy")
            assert pool.get_queue_size() == 0
            jobs = [a_job(), a_job()]
            for job in jobs:
                pool.submit_job(job)
            assert pool.get_queue_size() == 2
            with pytest.raises(QueueFullError):
                pool.submit_job(a_job())
            with pytest.raises(QueueFullError), pool.reserve():
                pass
            executor.hold = False
            executor.finish(busy.id)
            await switch
            await eventually(lambda: pool.get_queue_size() == 0)

    async def test_a_reserved_place_is_kept(self):
        async with a_busy_pool(queue_max=1) as (pool, _, _):
            with pool.reserve():
                with pytest.raises(QueueFullError):
                    pool.submit_job(a_job())
                with pytest.raises(QueueFullError), pool.reserve():
                    pass
                pool.submit_job(a_job(), admitted=True)
            assert pool.get_queue_size() == 1

    async def test_a_reservation_that_is_not_used_is_given_back(self):
        async with a_busy_pool(queue_max=1) as (pool, _, _):
            with pytest.raises(OSError, match="disk full"), pool.reserve():
                raise OSError("disk full")
            pool.submit_job(a_job())

    async def test_many_requests_of_one_do_not_hold_up_another(self):
        async with a_busy_pool() as (pool, executor, busy):
            for _ in range(20):
                pool.submit_job(a_job(owner=busy.owner))
            mine = a_job(owner="newcomer")
            pool.submit_job(mine)
            assert pool.position(mine.id) == 1
            executor.finish(busy.id)
            await runs(executor, mine)

    async def test_positions_follow_what_happens_and_listeners_are_told(self):
        async with a_busy_pool() as (pool, executor, busy):
            jobs = [a_job() for _ in range(3)]
            seen: list[list[int | None]] = []
            pool.queue_listeners.append(
                lambda: seen.append([pool.position(job.id) for job in jobs])
            )
            for job in jobs:
                pool.submit_job(job)
            await eventually(lambda: len(seen) == 1)
            pool.cancel(jobs[1].id)
            await eventually(lambda: len(seen) == 2)
            executor.finish(busy.id)
            await runs(executor, jobs[0])
            assert seen == [[1, 2, 3], [1, None, 2], [None, None, 1]]

    async def test_a_queue_listener_that_raises_stops_nothing(self, caplog):
        def broken() -> None:
            raise KeyError("not my day")

        async with a_pool() as pool:
            pool.queue_listeners.append(broken)
            assert (await pool.submit_job(a_job())).images
        assert "listener of the queue" in caplog.text


@pytest.mark.slow
@pytest.mark.timeout(300)
class TestRealWorker:
    """One story, since each process takes seconds to import torch."""

    async def test_two_are_drawn_at_once_and_a_killed_process_changes_no_picture(self):
        demo = OneMode("demo", ModelSpec(DEMO), size=64, steps=30)
        executor = LocalExecutor("cpu")
        async with WorkerPool([executor], SomeModes(demo)) as pool:
            drafts = [RequestDraft(prompt="a red cube", seed=seed) for seed in (1, 2)]
            order: list[str] = []

            def note(progress: Progress | None) -> None:
                if progress and progress.stage is Stage.DENOISING:
                    order.append(progress.job_id)

            jobs = [GenerationJob(request=draft) for draft in drafts]
            both = await asyncio.gather(*(pool.submit_job(job, on_event=note) for job in jobs))
            assert all(result.images[0].png.startswith(b"\x89PNG") for result in both)
            begins = [order.index(job.id) for job in jobs]
            ends = [len(order) - order[::-1].index(job.id) for job in jobs]
            assert max(begins) < min(ends), "one was drawn after the other"

            undisturbed = await pool.submit_job(GenerationJob(request=drafts[0]))
            victim = executor.pid
            assert victim is not None
            killed: list[int] = []

            def kill(progress: Progress | None) -> None:
                if progress and progress.stage is Stage.DENOISING and not killed:
                    os.kill(victim, signal.SIGKILL)
                    killed.append(progress.step)

            again = await pool.submit_job(GenerationJob(request=drafts[0]), on_event=kill)
            assert killed
            assert killed[0] < 30
            assert executor.pid not in (None, victim)
            assert again.images == undisturbed.images
        assert executor.pid is None

    async def test_a_poisonous_request_changes_no_picture_of_its_neighbours(self):
        demo = OneMode("demo", ModelSpec(DEMO), size=64, steps=30)
        executor = LocalExecutor("cpu")
        async with WorkerPool([executor], SomeModes(demo)) as pool:
            drafts = [RequestDraft(prompt="a red cube", seed=seed) for seed in (1, 2)]
            alone = [await pool.submit_job(GenerationJob(request=draft)) for draft in drafts]
            poison = GenerationJob(request=RequestDraft(prompt="a blue ball", seed=3))
            neighbours = [GenerationJob(request=draft) for draft in drafts]
            drawn: set[str] = set()
            killed: list[int] = []

            def note(progress: Progress | None) -> None:
                if progress is None or progress.stage is not Stage.DENOISING:
                    return
                drawn.add(progress.job_id)
                pid = executor.pid
                together = killed or len(drawn) == 3
                if progress.job_id == poison.id and together and pid and pid not in killed:
                    killed.append(pid)
                    os.kill(pid, signal.SIGKILL)

            futures = [pool.submit_job(job, on_event=note) for job in (*neighbours, poison)]
            with pytest.raises(PoisonousRequestError, match=r"SIGKILL\. .* isn't tried again"):
                await futures.pop()
            results = [await future for future in futures]
        assert len(killed) == 2
        assert [result.images for result in results] == [result.images for result in alone]

    @pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="no process can be stopped here")
    async def test_shutdown_leaves_no_process_even_of_a_worker_that_hangs(self):
        demo = OneMode("demo", ModelSpec(DEMO), size=64, steps=400)
        before = {child.pid for child in psutil.Process().children(recursive=True)}
        executor = LocalExecutor("cpu", close_seconds=0.5)
        pool = WorkerPool([executor], SomeModes(demo))
        await pool.start()
        drawing = asyncio.Event()
        future = pool.submit_job(
            GenerationJob(request=RequestDraft(prompt="a red cube")),
            on_event=lambda progress: drawing.set() if progress and progress.step else None,
        )
        await drawing.wait()
        assert executor.pid is not None
        os.kill(executor.pid, signal.SIGSTOP)

        await pool.shutdown(grace=0.1)

        with pytest.raises(PoolClosedError):
            await future
        assert {child.pid for child in psutil.Process().children(recursive=True)} <= before
