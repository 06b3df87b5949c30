"""Models that leave a device and come back from the host's memory: the same bits, in a budget."""

import gc
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import psutil
import pytest
import torch  # noqa: TID253 - the subject is made of it
from PIL import Image
from safetensors.torch import load_file, save_file

from engine.errors import ModelNotFoundError
from engine.executor import LoadReport
from engine.jobs import (
    Family,
    GenerationRequest,
    GenerationResult,
    LoraSpec,
    ModelSpec,
    Progress,
    Stage,
)
from engine.ledger import Ledger
from engine.measured_file import MeasuredFile
from engine.messages import Answer, Cancel, JobEvent, JobFailed, Load, Measured, Reply, Run, Unload
from engine.pace import Act, Pace, from_entry
from engine.worker_factory import WorkerFactory
from engine.worker_host import WorkerHost
from engine.workers.base import Worker
from engine.workers.host_arena import HostArena, Plan
from engine.workers.host_cache import HostCache, default_budget
from tests.lora_kit import peft, random_pairs, save_lora
from tests.tiny_models import save_pipeline
from tests.worker_kit import SmallRegistry, ask

MIB = 2**20
BLOCK = MIB
UNETS = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models that differ in their UNets alone, and one that shares nothing with them."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    save_pipeline(folder / "one")
    shutil.copytree(folder / "one", folder / "two")
    weights = load_file(folder / "two" / UNETS)
    save_file(
        {k: v + 0.01 * torch.randn_like(v) for k, v in weights.items()}, folder / "two" / UNETS
    )
    save_pipeline(folder / "other")
    return folder


class Bench:
    """A host on the CPU with room for one model, behind it the host's memory, and what it said."""

    def __init__(
        self,
        folder: Path,
        *,
        models: float = 1.5,
        budget: int = 512 * MIB,
        available: Callable[[], int] | None = None,
        measured: MeasuredFile | None = None,
    ) -> None:
        self.folder = folder
        self.said: list[Reply] = []
        self.read: list[str] = []
        room = int(Ledger("cpu").estimate(self.model("one")) * models)
        self.registry = SmallRegistry(room)
        self.cache = HostCache(
            "cpu", budget, block=BLOCK, available=available or (lambda: 2**40), total=2**30
        )
        self.host = WorkerHost(
            "cpu",
            self.said.append,
            create=self.create,
            registry=self.registry,
            measured=measured,
            cache=self.cache,
        )
        self.numbers = iter(range(1, 10_000))

    def create(self, model: ModelSpec) -> Worker:
        self.read.append(model.path.name)
        return WorkerFactory("cpu").create(model)

    def model(self, name: str) -> ModelSpec:
        return ModelSpec(self.folder / name)

    def request(self, name: str, **changes: object) -> GenerationRequest:
        small = ask(model=self.model(name), width=16, height=16, steps=2, prompt="a hill")
        return replace(small, **changes)  # type: ignore[arg-type]

    def begin(self, request: GenerationRequest) -> int:
        number = next(self.numbers)
        self.host.handle(Run(number, f"job {number}", request))
        return number

    def finish(self) -> None:
        for _ in range(10_000):
            if not self.host.busy:
                return
            self.host.tick()
        pytest.fail("the host never came to rest")

    def result(self, number: int) -> GenerationResult | Exception:
        for reply in self.said:
            if isinstance(reply, JobFailed) and reply.run_id == number:
                return reply.error
            event = reply.event if isinstance(reply, JobEvent) else None
            if isinstance(event, GenerationResult) and event.job_id == f"job {number}":
                return event
        pytest.fail("the request never ended")

    def draw(self, name: str, **changes: object) -> bytes:
        number = self.begin(self.request(name, **changes))
        self.finish()
        result = self.result(number)
        assert isinstance(result, GenerationResult), result
        return result.images[0].png

    def load(self, name: str) -> LoadReport:
        call = next(self.numbers)
        self.host.handle(Load(call, self.model(name)))
        self.finish()
        [answer] = [each for each in self.said if isinstance(each, Answer) and each.call_id == call]
        assert isinstance(answer.value, LoadReport), answer.error
        return answer.value


def pixels(png: bytes) -> bytes:
    return Image.open(BytesIO(png)).tobytes()


@pytest.fixture
def bench(saved: Path) -> Iterator[Bench]:
    bench = Bench(saved)
    yield bench
    bench.host.close()


def test_a_model_that_was_evicted_comes_back_without_its_files_and_draws_the_same(
    saved: Path, tmp_path: Path
) -> None:
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    bench = Bench(tmp_path)
    expected = bench.draw("one")
    bench.draw("other")
    assert bench.host._shelf.keys == (bench.model("other").key,)
    for file in (tmp_path / "one").rglob("*.*"):  # of the same size and age, and nothing in them
        status, empty = file.stat(), file.with_name("empty")
        empty.write_bytes(bytes(status.st_size))
        os.utime(empty, ns=(status.st_atime_ns, status.st_mtime_ns))
        empty.replace(file)

    again = bench.draw("one")

    assert again == expected
    assert bench.read == ["one", "other"]
    bench.host.close()


def test_a_return_says_what_was_copied_and_is_measured_apart_from_loads(
    saved: Path, tmp_path: Path
) -> None:
    file = MeasuredFile(tmp_path / "measured.json")
    bench = Bench(saved, measured=file)
    key = bench.model("one").key
    first = bench.load("one")
    assert (first.copied, bench.load("one").copied) == (0, 0)
    bench.load("other")
    assert bench.cache.waiting == (key,)
    told = [each for each in bench.said if isinstance(each, Measured)][-1]
    assert told.waiting == (key,)

    back = bench.load("one")

    assert back.copied == pytest.approx(first.bytes, rel=0.01)
    assert back.seconds > 0
    entries = file.read("seconds on cpu", lambda entry: entry)
    figures = [from_entry(name, entry) for name, entry in entries.items()]
    acts = {(figure.act, figure.model) for figure in figures if figure}
    assert {(Act.LOAD, key), (Act.SWITCH, key)} <= acts
    assert (Act.SWITCH, bench.model("other").key) not in acts
    bench.host.close()


def test_what_waits_is_expected_back_sooner_than_from_the_disk() -> None:
    pace = Pace()
    pace.note(Act.LOAD, "one", 20.0)
    pace.note(Act.LOAD, "two", 30.0)
    pace.note(Act.SWITCH, "one", 0.5)

    assert pace.load_seconds("one") == 20.0
    pace.take((), ("one", "two", "three"))

    assert pace.load_seconds("one") == 0.5
    assert pace.load_seconds("two") == 30.0  # it never came back so far
    assert pace.load_seconds("three") is None


def test_equal_parts_are_held_once_in_both_memories(saved: Path) -> None:
    bench = Bench(saved, models=9)
    bench.load("one")
    alone = bench.cache.arena.used_bytes
    parts = {
        k: sum(t.nbytes for t in v)
        for k, v in bench.host._shelf[bench.model("one").key].parts().items()
    }

    bench.load("two")

    more = bench.cache.arena.used_bytes - alone
    assert parts["unet"] <= more <= parts["unet"] + BLOCK
    one, two = (bench.host._shelf[bench.model(name).key].parts() for name in ("one", "two"))
    assert [a.data_ptr() for a in one["reader 0"]] == [b.data_ptr() for b in two["reader 0"]]
    assert [a.data_ptr() for a in one["vae"]] == [b.data_ptr() for b in two["vae"]]
    assert not {a.data_ptr() for a in one["unet"]} & {b.data_ptr() for b in two["unet"]}

    bench.load("other")
    assert bench.cache.arena.used_bytes >= 2 * alone + more - BLOCK  # it has nothing in common
    bench.host.close()


def test_a_return_copies_only_what_no_other_model_has_there(saved: Path) -> None:
    bench = Bench(saved, models=9)
    pictures = [bench.draw(name) for name in ("one", "two")]
    bench.host._shelf.drop(bench.model("one").key)

    report = bench.load("one")

    unet = sum(t.nbytes for t in bench.host._shelf[bench.model("one").key].parts()["unet"])
    assert unet <= report.copied < 1.1 * unet  # each tensor begins at a round address
    bench.host._shelf.drop(bench.model("two").key)  # what they share stays for the other
    assert [bench.draw(name) for name in ("one", "two")] == pictures
    assert bench.read == ["one", "two"]
    bench.host.close()


def test_others_go_on_drawing_while_a_model_returns(saved: Path) -> None:
    bench = Bench(saved, models=2.5)
    expected = bench.draw("other"), bench.draw("two", steps=20)
    bench.host._shelf.drop(bench.model("other").key)
    running = bench.begin(bench.request("two", steps=20))
    while not bench.host._jobs:
        bench.host.tick()
    came = bench.begin(bench.request("other"))
    bench.host.tick()
    steps = []

    while bench.host._shelf.arriving:
        steps.append(bench.host._jobs[running].pictures[0].drawing.step)
        assert came not in bench.host._jobs
        bench.host.tick()

    # At every round that the copy took, the one that runs took its step.
    assert len(steps) > 5
    assert steps == list(range(steps[0], steps[0] + len(steps)))
    bench.finish()
    results = bench.result(came), bench.result(running)
    assert tuple(each.images[0].png for each in results) == expected  # type: ignore[union-attr]
    events = [reply for reply in bench.said if isinstance(reply, JobEvent)]
    first = next(event.event for event in events if event.run_id == came)
    assert isinstance(first, Progress)
    assert first.stage is Stage.LOADING
    bench.host.close()


def test_who_takes_back_what_is_on_its_way_holds_up_nobody(saved: Path) -> None:
    bench = Bench(saved, models=2.5)
    bench.draw("one")
    bench.draw("two")
    bench.host._shelf.drop(bench.model("one").key)
    bench.begin(bench.request("two", steps=20))
    bench.host.tick()
    gone = bench.begin(bench.request("one"))
    bench.host.tick()
    assert bench.host._shelf.arriving

    bench.host.handle(Cancel(gone))
    later = bench.begin(bench.request("two"))
    bench.finish()

    assert isinstance(bench.result(later), GenerationResult)
    assert set(bench.host._shelf.keys) == {bench.model("one").key, bench.model("two").key}
    bench.host.close()


def test_a_changed_file_is_read_again(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    bench = Bench(tmp_path)
    before = bench.draw("one")
    bench.draw("other")
    shutil.copy(tmp_path / "two" / UNETS, tmp_path / "new")
    (tmp_path / "new").replace(tmp_path / "one" / UNETS)

    after = bench.draw("one")

    assert pixels(after) != pixels(before)
    assert pixels(after) == pixels(bench.draw("two"))
    assert bench.read == ["one", "other", "one", "two"]
    bench.host.close()


def test_a_model_that_is_gone_from_the_disk_does_not_return(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    bench = Bench(tmp_path)
    bench.draw("one")
    bench.draw("other")
    shutil.rmtree(tmp_path / "one")

    number = bench.begin(bench.request("one"))
    bench.finish()

    assert isinstance(bench.result(number), ModelNotFoundError)
    bench.host.close()


def test_an_unloaded_model_leaves_the_hosts_memory_too(bench: Bench) -> None:
    bench.draw("one")
    assert bench.cache.arena.used_bytes > 0

    bench.host.handle(Unload(999, bench.model("one")))
    bench.finish()

    assert bench.cache.arena.used_bytes == 0
    bench.draw("one")
    assert bench.read == ["one", "one"]


def test_loras_are_put_beside_a_model_anew_after_its_return(saved: Path, tmp_path: Path) -> None:
    bench = Bench(saved)
    bench.load("one")
    parts = bench.host._shelf[bench.model("one").key]._parts  # type: ignore[attr-defined]
    named = {"unet": parts.unet, "text_encoder": parts.readers[0].encoder}
    pairs = random_pairs(named, 1)
    file = save_lora(tmp_path / "ink.safetensors", peft(pairs, Family.SD15, named))
    with_lora = replace(bench.model("one"), loras=(LoraSpec(file),))
    plain, inked = bench.draw("one"), bench.draw("one", model=with_lora)
    assert plain != inked
    bench.draw("other")

    assert bench.draw("one") == plain
    assert bench.draw("one", model=with_lora) == inked
    assert bench.read == ["one", "other"]
    bench.host.close()


def test_the_budget_is_kept_and_the_least_recently_used_goes_first(saved: Path) -> None:
    bench = Bench(saved)
    bench.load("one")
    size = bench.cache.arena.used_bytes
    bench.host.close()

    bench = Bench(saved, budget=size + size // 2)
    for name in ("one", "other", "one", "other"):
        bench.draw(name)
        assert bench.cache.arena.held_bytes <= size + size // 2
    # There is room for one of them: each that comes takes the place of the other.
    assert bench.read == ["one", "other", "one", "other"]
    assert bench.cache.arena.used_bytes <= size
    bench.host.close()

    bench = Bench(saved, budget=BLOCK)  # a part of it would fit
    bench.draw("one")
    bench.draw("other")
    bench.draw("one")
    assert bench.read == ["one", "other", "one"]
    assert bench.cache.arena.used_bytes == 0
    bench.host.close()


def test_no_budget_keeps_nothing(saved: Path) -> None:
    bench = Bench(saved, budget=0)
    expected = bench.draw("one")
    bench.draw("other")

    assert bench.draw("one") == expected
    assert bench.read == ["one", "other", "one"]
    assert bench.cache.arena.held_bytes == 0
    bench.host.close()


def test_copies_go_where_the_machine_lacks_memory(saved: Path) -> None:
    free = 2**40
    bench = Bench(saved, available=lambda: free)
    bench.draw("one")
    bench.draw("other")
    assert bench.cache.waiting
    free = 0

    for _ in range(200):  # it looks now and then
        bench.host.tick()

    assert bench.cache.waiting == ()
    assert bench.cache.arena.held_bytes == 0
    bench.draw("one")
    bench.draw("other")
    assert bench.read == ["one", "other", "one", "other"]
    assert bench.cache.arena.held_bytes == 0  # and none are made
    bench.host.close()


def test_200_switches_leave_memory_flat(saved: Path, request: pytest.FixtureRequest) -> None:
    bench = Bench(saved)
    process = psutil.Process()
    gc.collect()
    gc.freeze()
    request.addfinalizer(gc.unfreeze)

    def switch(number: int) -> None:
        which = ("one", "two", "other")[number % 3]
        bench.draw(which, steps=1, guidance_scale=1.0, seed=number)
        bench.said.clear()

    for number in range(12):
        switch(number)
    gc.collect()
    tensors = sum(issubclass(type(one), torch.Tensor) for one in gc.get_objects())
    blocks, resident = bench.cache.arena.held_bytes, process.memory_info().rss
    for number in range(12, 201):
        switch(number)

    assert bench.read == ["one", "two", "other"]
    gc.collect()
    now = sum(issubclass(type(one), torch.Tensor) for one in gc.get_objects())
    assert abs(now - tensors) < 20
    assert bench.cache.arena.held_bytes == blocks
    assert process.memory_info().rss - resident < 128 * MIB
    bench.host.close()


# The blocks


def test_weights_that_get_another_format_while_they_are_copied_return_as_they_were(
    saved: Path,
) -> None:
    worker = WorkerFactory("cpu").create(ModelSpec(saved / "one"))
    vae = worker._parts.vae.half()  # type: ignore[attr-defined]
    before = [weight.clone() for weight in vae.parameters()]
    cache = HostCache("cpu", 512 * MIB, block=4096, available=lambda: 2**40, total=2**30)
    cache.enter("one", (), worker)
    steps = 0
    while cache.busy:
        cache.work()
        steps += 1
    cache.enter("one", (), worker)
    for _ in range(steps - 20):  # the last are the VAE's
        cache.work()
    vae.float()  # as after a picture that was too much for half precision
    cache.finish()
    assert cache.park("one")
    cache.fetch("one").finish()
    assert [weight.dtype for weight in vae.parameters()] == [torch.half] * len(before)
    assert all(map(torch.equal, vae.parameters(), before))


def test_tensors_come_out_of_a_row_of_bytes_as_they_went_in() -> None:
    torch.manual_seed(0)
    tensors = [
        torch.randn(3, 5),
        torch.randn(2, 8, 4, 4).contiguous(memory_format=torch.channels_last),
        torch.arange(7),
        torch.tensor(2.5, dtype=torch.bfloat16),
        torch.empty(0),
        torch.randn(3000).half(),
    ]
    plan = Plan.of(tensors)
    assert plan is not None
    block = 1024
    row = torch.zeros(plan.size, dtype=torch.uint8)
    for begin in range(0, plan.size, block):
        for at, piece in plan.cut(tensors, begin, begin + block):
            assert begin <= at
            assert at + len(piece) <= begin + block
            row[at : at + len(piece)] = piece

    for view, tensor in zip(plan.views(row), tensors, strict=True):
        assert torch.equal(view, tensor)
        assert view.stride() == tensor.stride()
        assert view.dtype is tensor.dtype
        assert view.data_ptr() % 64 == 0 or not view.numel()


def test_what_is_no_solid_piece_of_memory_is_not_kept() -> None:
    assert Plan.of([torch.randn(1, 4).expand(3, 4)]) is None


def test_blocks_are_bounded_and_used_again() -> None:
    arena = HostArena(3 * BLOCK + 7, pinned=False, block=BLOCK)
    first = arena.take(2)
    assert not arena.has_room(2)
    with pytest.raises(MemoryError, match="budget"):
        arena.take(2)
    arena.give(first)
    again = arena.take(3)

    assert {block.data_ptr() for block in first} <= {block.data_ptr() for block in again}
    assert arena.held_bytes == 3 * BLOCK
    arena.give(again)
    assert (arena.used_bytes, arena.held_bytes) == (0, 3 * BLOCK)
    arena.trim()
    assert arena.held_bytes == 0


def test_the_budget_that_nobody_sets_is_a_gpus_share_of_the_memory() -> None:
    assert default_budget("cuda:1", 2, 64 * 2**30) == 8 * 2**30
    assert default_budget("cpu", 1, 64 * 2**30) == 0
