"""What speaks with a cluster, without one: its machines' places, and a worker's files."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine import messages
from engine.dialogue import Dialogue
from engine.errors import (
    JobCancelledError,
    ModelNotFoundError,
    WorkerDiedError,
    WorkerLostError,
)
from engine.jobs import GenerationResult, LoraSpec, ModelSpec, Progress, Stage
from engine.messages import Answer, Load, Run
from engine.model_contents import Contents
from engine.pace import Pace
from engine.patience import Patience
from engine.process_executor import LivingWorker, ProcessExecutor
from engine.ray_driver import _Life
from engine.ray_executor import RayExecutor, RayFleet
from engine.ray_messages import Aside, Keep, Locate, Lost, Open, Place, SourcedRun, Tell
from engine.ray_places import places_of
from engine.ray_worker import FOLDER, MODELS, THREADS, RayWorker, threads_of, version
from tests.test_model_contents import same_header
from tests.worker_kit import ask


def node(name: str, node_id: str = "1234abcd", **changes: Any) -> dict[str, Any]:
    return {
        "Alive": True,
        "NodeID": node_id,
        "NodeName": name,
        "NodeManagerAddress": "10.0.0.3",
        "NodeManagerHostname": "host",
        "Resources": {"CPU": 8.0, "GPU": 2.0},
        "Labels": {"tier": "fast"},
    } | changes


@pytest.mark.parametrize(
    ("gpus", "devices"),
    [
        (1, ["attic gpu 0", "attic gpu 1"]),
        (0.5, [f"attic gpu {number}" for number in range(4)]),
        (1 / 3, [f"attic gpu {number}" for number in range(6)]),
        (2, ["attic gpu 0"]),
        (4, []),
        (0, ["attic cpu"]),
    ],
)
def test_a_machine_has_a_place_for_each_worker_that_fits(gpus: float, devices: list[str]) -> None:
    places = places_of([node("attic")], gpus)

    assert [place.device for place in places] == devices
    assert len({place.key for place in places}) == len(devices)
    assert all(place.workers == len(devices) for place in places)
    assert {place.kind for place in places} <= {"cpu" if gpus == 0 else "cuda:0"}


def test_workers_of_a_machine_share_its_cores() -> None:
    assert [threads_of(workers, cores=16) for workers in (1, 3, 16, 99)] == [16, 5, 1, 1]
    assert threads_of(1) >= 1


def test_only_living_machines_with_the_labels_count() -> None:
    nodes = [
        node("attic"),
        node("cellar", "2", Labels={"tier": "slow"}),
        node("shed", "3", Labels=None),
        node("gone", "4", Alive=False),
        node("empty", "5", Resources={}),
    ]

    assert [p.device for p in places_of(nodes, 2, [("tier", "fast")])] == ["attic gpu 0"]
    assert len(places_of(nodes, 2)) == 3


def test_machines_are_called_by_their_names_and_told_apart() -> None:
    nodes = [node("10.0.0.3", "aaaa1", Resources={"CPU": 1}), node("", "bbbb2")]

    assert [p.device for p in places_of(nodes, 0)] == ["host-aaaa cpu", "host-bbbb cpu"]
    assert places_of([{"Alive": True, "NodeID": "12345678ff", "Resources": {"CPU": 1}}], 0)


class Quiet(RayWorker):
    """A worker whose step loop the test plays."""

    def _serve(self, start: messages.Start) -> None:
        self.start = start

    def told(self) -> Any:
        return self._commands.get(timeout=10)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another machine's folder of models; its worker keeps its own things beside it."""
    monkeypatch.setenv(MODELS, str(tmp_path / "worker"))
    monkeypatch.setenv(FOLDER, str(tmp_path / "kept"))
    monkeypatch.setenv(THREADS, "1")  # put back after the worker has set it
    return tmp_path / "worker"


async def a_worker() -> Quiet:
    worker = Quiet()
    start = messages.frame(messages.Start("cpu", False, 30, None))
    await worker.open(start, version())
    return worker


async def ask_of(worker: Quiet, message: object) -> Answer:
    await worker.tell((messages.frame(message),))
    [said] = await said_by(worker)
    assert isinstance(said, Aside)
    assert isinstance(said.word, Answer)
    return said.word


async def said_by(worker: Quiet) -> list[Any]:
    frames, _ = await worker.listen()
    return [messages.unframe(frame[messages.HEADER.size :]) for frame in frames]


async def test_models_are_drawn_with_from_where_the_machine_has_them(
    tmp_path: Path, machine: Path
) -> None:
    model = same_header(tmp_path / "bot" / "dream.safetensors", b"1")
    lora = same_header(tmp_path / "bot" / "lora.safetensors", b"2")
    here = same_header(machine / "sd" / "other.safetensors", b"1")
    lora_here = same_header(machine / "loras" / "x.safetensors", b"2")
    contents = Contents(None)
    files = tuple((path, contents.of(path)) for path in (model, lora))
    model.unlink()
    lora.unlink()
    worker = await a_worker()

    assert (await ask_of(worker, Locate(1, files))).value == ()
    spec = ModelSpec(model, (LoraSpec(lora, 0.5),))
    await worker.tell((messages.frame(Load(2, spec)),))

    told = worker.told()
    assert isinstance(told, Load)
    assert told.model.path == here
    assert told.model.loras == (LoraSpec(lora_here, 0.5),)
    assert told.model.key == spec.key  # as the bot knows it
    assert worker.start.ledger == tmp_path / "kept" / "measured.json"


async def test_a_file_that_is_lacking_is_named_and_can_be_sent_in_parts(
    tmp_path: Path, machine: Path
) -> None:
    model = same_header(tmp_path / "bot" / "dream.safetensors", b"1")
    content, data = Contents(None).of(model), model.read_bytes()
    model.unlink()
    worker = await a_worker()
    assert (await ask_of(worker, Locate(1, ((model, content),)))).value == (model,)
    assert (await ask_of(worker, Locate(2, ((model, None),)))).value == (model,)

    half = len(data) // 2
    for offset, part in ((0, data[:half]), (half, data[half:])):
        keep = Keep(3, model, content, "", offset, part, is_last=offset > 0)
        assert (await ask_of(worker, keep)).error is None

    await worker.tell((messages.frame(Load(4, ModelSpec(model))),))
    assert worker.told().model.path.read_bytes() == data
    another = await a_worker()  # a later one finds it
    assert (await ask_of(another, Locate(5, ((model, content),)))).value == ()


async def test_a_file_that_came_changed_or_would_lie_elsewhere_is_not_kept(
    tmp_path: Path, machine: Path
) -> None:
    model = same_header(tmp_path / "bot" / "dream.safetensors", b"1")
    content = Contents(None).of(model)
    worker = await a_worker()

    changed = await ask_of(worker, Keep(1, model, content, "", 0, b"changed", is_last=True))
    assert "came changed" in str(changed.error)
    climbing = Keep(2, model, content, "../../../../evil", 0, b"x", is_last=True)
    assert "elsewhere" in str((await ask_of(worker, climbing)).error)

    assert not await asyncio.to_thread(found, tmp_path, "evil")
    assert not await asyncio.to_thread(found, tmp_path / "kept", "*.safetensors")


def found(folder: Path, pattern: str) -> list[Path]:
    return list(folder.rglob(pattern))


async def test_a_picture_to_draw_from_comes_along_and_goes_with_the_request(
    machine: Path,
) -> None:
    worker = await a_worker()
    request = ask(source=Path("/bot/only/source.png"))

    await worker.tell((messages.frame(SourcedRun(Run(7, "job", request), b"pixels")),))

    told = worker.told()
    assert told.request.source.read_bytes() == b"pixels"
    assert told.request == replace(request, source=told.request.source, model=told.request.model)
    worker._say(messages.JobFailed(7, "job", messages.DreamLabError("no")))
    assert not told.request.source.exists()


async def test_another_version_is_refused_in_a_sentence(machine: Path) -> None:
    worker = Quiet()

    await worker.open(messages.frame(messages.Start("cpu", False, 30, None)), "another")

    [frame], has_ended = await worker.listen()
    said = messages.unframe(frame[messages.HEADER.size :])
    assert isinstance(said, messages.Unusable)
    assert "the bot has another; install the same on both" in said.reason
    assert has_ended


async def test_its_last_words_are_heard_also_while_others_travel(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, frame = await a_worker(), messages.frame
    worker._say(messages.Loading())

    def framed(message: object) -> bytes:
        monkeypatch.undo()
        worker._say(messages.Unusable("failed: the device is gone"))
        worker._end()
        return frame(message)

    monkeypatch.setattr("engine.ray_worker.messages.frame", framed)
    said: list[bytes] = []
    has_ended = False
    while not has_ended:
        frames, has_ended = await worker.listen()
        said += frames

    assert len(said) == 2
    for task in worker._tasks:
        task.cancel()
    await asyncio.gather(*worker._tasks, return_exceptions=True)


async def test_progress_waits_a_moment_for_what_comes_next_and_an_end_does_not(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.ray_worker.GATHERED", 60.0)
    worker = await a_worker()
    worker._say(messages.JobEvent(1, Progress("job", Stage.DENOISING, 1, 2)))
    hearing = asyncio.create_task(worker.listen())
    await asyncio.sleep(0)
    worker._say(messages.JobEvent(1, Progress("job", Stage.DENOISING, 2, 2)))
    worker._say(messages.JobEvent(1, GenerationResult("job", (), 0.0, "cpu")))

    async with asyncio.timeout(30):
        frames, _ = await hearing

    assert len(frames) == 3
    for task in worker._tasks:
        task.cancel()
    await asyncio.gather(*worker._tasks, return_exceptions=True)


async def test_silence_is_answered_so_that_the_way_is_known_to_be_open(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.ray_worker.LISTENING", 0.01)
    worker = await a_worker()

    assert await worker.listen() == ((), False)
    for task in worker._tasks:
        task.cancel()
    await asyncio.gather(*worker._tasks, return_exceptions=True)


class DiesEarly(ProcessExecutor):
    """An executor whose worker is gone by the time that it knows where the files are."""

    async def _spawn(self) -> LivingWorker:
        class Worker:
            dialogue = Dialogue(
                "attic gpu 0",
                "cpu",
                send=lambda _: None,
                kill=lambda: None,
                patience=Patience(),
                pace=Pace(),
                most_rows=None,
            )

            async def end(self, reason: str, seconds: float) -> None:
                self.dialogue.die(reason)

        return Worker()

    async def _make_known(self, worker: LivingWorker, models: object) -> None:
        worker.dialogue.die("is gone: its machine has left the cluster", WorkerLostError)


async def test_who_asks_a_worker_that_has_just_gone_is_told_so() -> None:
    for ask_it in (
        lambda executor: anext(executor.run("job", ask())),
        lambda executor: executor.load(ModelSpec(Path("model"))),
    ):
        executor = DiesEarly("attic gpu 0")
        await executor.start()
        with pytest.raises(WorkerLostError, match="left the cluster"):
            async with asyncio.timeout(5):
                await ask_it(executor)
        await executor.close()


class NearFleet(RayFleet):
    """A fleet whose one worker is the test."""

    def __init__(self) -> None:
        super().__init__("nowhere", gpus_per_worker=0, sends_models=True)
        self.told: asyncio.Queue[Any] = asyncio.Queue()
        self.worker: Any = None
        self.start: messages.Start | None = None

    def open(self, worker: Any, start: messages.Start, seconds: float) -> int:
        self.worker, self.start = worker, start
        self.say(messages.Ready("cpu"))
        return 1

    def send(self, message: object) -> None:
        if isinstance(message, Tell):
            told = messages.unframe(message.frame[messages.HEADER.size :])
            if not isinstance(told, messages.Ping):
                self.told.put_nowait(told)

    def say(self, message: object) -> None:
        self.worker.hear((messages.frame(message),))


async def test_a_cancel_ends_what_is_sent_for_a_request_and_the_next_may_send_it(
    tmp_path: Path,
) -> None:
    model = ModelSpec(same_header(tmp_path / "dream.safetensors", b"1"))
    fleet = NearFleet()
    executor = RayExecutor(fleet, Place("key", "node", "attic gpu 0", "cpu", workers=3))
    await executor.start()
    assert fleet.start is not None
    assert fleet.start.workers == 3

    async def until_sent(job_id: str) -> tuple[asyncio.Task[Any], Keep]:
        events = executor.run(job_id, ask(model=model))
        drawing = asyncio.ensure_future(anext(events))
        while True:
            async with asyncio.timeout(30):
                told = await fleet.told.get()
            if isinstance(told, Keep):
                return drawing, told
            assert isinstance(told, Locate)
            fleet.say(Aside(Answer(told.call_id, (model.path,))))

    drawing, _ = await until_sent("unwanted")
    await executor.cancel("unwanted")

    with pytest.raises(JobCancelledError):
        await drawing
    drawing, keep = await until_sent("wanted")
    fleet.say(Aside(Answer(keep.call_id)))
    async with asyncio.timeout(30):
        run = await fleet.told.get()
    assert run.job_id == "wanted"
    fleet.say(messages.JobEvent(run.run_id, GenerationResult("wanted", (), 0.0, "cpu")))
    assert (await drawing).device == "attic gpu 0"
    await executor.close()


@pytest.mark.parametrize("is_load", [False, True])
async def test_files_that_a_worker_can_not_use_any_more_are_located_anew(
    tmp_path: Path, is_load: bool
) -> None:
    model = ModelSpec(same_header(tmp_path / "dream.safetensors", b"1"))
    fleet = NearFleet()
    executor = RayExecutor(fleet, Place("key", "node", "attic gpu 0", "cpu"))
    await executor.start()
    moved = ModelNotFoundError("/srv/models/dream.safetensors")

    async def told() -> Any:
        async with asyncio.timeout(30):
            return await fleet.told.get()

    for number in range(2):
        if is_load:
            asking = asyncio.ensure_future(executor.load(model))
        else:
            asking = asyncio.ensure_future(anext(executor.run(f"job {number}", ask(model=model))))
        located = await told()
        assert isinstance(located, Locate)
        fleet.say(Aside(Answer(located.call_id, ())))
        command = await told()
        if isinstance(command, Load):
            fleet.say(Answer(command.call_id, error=moved))
        else:
            fleet.say(messages.JobFailed(command.run_id, command.job_id, moved))
        with pytest.raises(ModelNotFoundError):
            await asking
    await executor.close()


async def test_a_picture_to_draw_from_is_held_until_it_travels_and_no_longer(
    tmp_path: Path,
) -> None:
    source = tmp_path / "source.png"
    source.write_bytes(b"pixels")
    fleet = NearFleet()
    executor = RayExecutor(fleet, Place("key", "node", "attic gpu 0", "cpu"))
    await executor.start()
    drawing = asyncio.ensure_future(anext(executor.run("job", ask(source=source))))
    async with asyncio.timeout(30):
        located = await fleet.told.get()
        fleet.say(Aside(Answer(located.call_id, ())))
        sourced = await fleet.told.get()

    assert sourced.source == b"pixels"
    assert not fleet.worker.sources
    await executor.close()
    with pytest.raises(WorkerDiedError):
        await drawing


async def test_an_actor_that_can_not_be_made_is_told_as_lost() -> None:
    class NoActors:
        def __init__(self) -> None:
            self.said: list[object] = []
            self.forgotten: list[int] = []

        def actor(self, command: Open) -> Any:
            raise AttributeError("module 'engine.ray_worker' has no attribute 'Nobody'\nmore")

        def say(self, message: object) -> None:
            self.said.append(message)

        def forget(self, number: int) -> None:
            self.forgotten.append(number)

    driver = NoActors()
    await _Life(driver, Open(4, Place("key", "node", "attic cpu", "cpu"), b"", 1.0)).run()

    reason = "can't start: module 'engine.ray_worker' has no attribute 'Nobody'"
    assert driver.said == [Lost(4, reason, is_machine=False)]
    assert driver.forgotten == [4]
