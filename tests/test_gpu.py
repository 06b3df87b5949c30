"""What real devices hold, give back and run out of.

Each test runs on the CPU with tiny models, so that it is known to be right, and on a GPU (marked
``gpu``) with random weights in the families' real shapes.
"""

import gc
import json
import logging
import shutil
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch  # noqa: TID253 - the subject is made of it
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL  # noqa: TID253
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel  # noqa: TID253
from transformers import (  # noqa: TID253
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
)

from engine.errors import DrawingError, NotEnoughMemoryError
from engine.executor import LoadReport
from engine.families import VOCABULARY, config_folder
from engine.jobs import Family, GenerationRequest, GenerationResult, LoraSpec, ModelSpec
from engine.ledger import Ledger
from engine.messages import Answer, JobEvent, JobFailed, Load, Measured, Reply, Run, Unload
from engine.model_registry import ModelRegistry
from engine.pace import Act
from engine.worker_factory import WorkerFactory
from engine.worker_host import WorkerHost
from engine.workers.base import Worker
from engine.workers.host_cache import HostCache
from tests.lora_kit import peft, random_pairs, save_lora
from tests.single_file_kit import save_tiny
from tests.tiny_models import save_pipeline
from tests.worker_kit import SmallRegistry, ask

MIB = 2**20

_KINDS = {
    "unet": UNet2DConditionModel,
    "vae": AutoencoderKL,
    "text_encoder": CLIPTextModel,
    "text_encoder_2": CLIPTextModelWithProjection,
}


def devices() -> list[Any]:
    missing = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
    return ["cpu", pytest.param("cuda:0", marks=[pytest.mark.gpu, missing])]


on_every_device = pytest.mark.parametrize("device", devices())


def save_model(family: Family, folder: Path, device: str) -> ModelSpec:
    """Saves a pipeline with random weights: tiny ones for the CPU, real shapes for a GPU."""
    if device == "cpu":
        save_tiny(family, folder, shallow=True)
        return ModelSpec(folder)
    shutil.copytree(config_folder(family), folder)
    for part in folder.iterdir():
        if part.name.startswith("tokenizer"):
            shutil.copy(VOCABULARY / "vocab.json", part)
            shutil.copy(VOCABULARY / "merges.txt", part)
    for part, kind in _KINDS.items():
        if (folder / part).is_dir():
            config = json.loads((folder / part / "config.json").read_text())
            with torch.device(device):
                module: Any = (
                    kind(CLIPTextConfig.from_dict(config))
                    if part.startswith("text")
                    else kind.from_config(config)
                )
            module.half().save_pretrained(folder / part)
            del module
    torch.cuda.empty_cache()
    return ModelSpec(folder)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Family, str], ModelSpec]:
    made: dict[tuple[Family, str], ModelSpec] = {}

    def model(family: Family, device: str) -> ModelSpec:
        if (family, device) not in made:
            folder = tmp_path_factory.mktemp(family) / family
            made[family, device] = save_model(family, folder, device)
        return made[family, device]

    return model


class Bench:
    """A host on a device, and what it said."""

    def __init__(self, device: str, registry: ModelRegistry | None = None) -> None:
        self.device = device
        self.said: list[Reply] = []
        self.workers: list[weakref.ref[Worker]] = []
        self.registry = registry or ModelRegistry(device)
        self.ledger = Ledger(device)
        self.numbers = iter(range(1, 100_000))
        self.host = WorkerHost(
            device,
            self.said.append,
            create=self.create,
            registry=self.registry,
            ledger=self.ledger,
        )

    def create(self, model: ModelSpec) -> Worker:
        worker = WorkerFactory(self.device).create(model)
        self.workers.append(weakref.ref(worker))
        return worker

    def finish(self) -> None:
        while self.host.busy:
            self.host.tick()

    def answer(self, command: Callable[[int], Load | Unload]) -> Any:
        number = next(self.numbers)
        self.host.handle(command(number))
        self.finish()
        [answer] = [r for r in self.said if isinstance(r, Answer) and r.call_id == number]
        return answer.error or answer.value

    def load(self, model: ModelSpec) -> LoadReport:
        report = self.answer(lambda number: Load(number, model))
        assert isinstance(report, LoadReport), report
        return report

    def draw(self, request: GenerationRequest) -> GenerationResult | Exception:
        number = next(self.numbers)
        self.host.handle(Run(number, f"job {number}", request))
        self.finish()
        for reply in self.said:
            if isinstance(reply, JobFailed) and reply.run_id == number:
                return reply.error
            event = reply.event if isinstance(reply, JobEvent) else None
            if isinstance(event, GenerationResult) and event.job_id == f"job {number}":
                return event
        pytest.fail("the request never ended")

    def small(self, model: ModelSpec) -> GenerationRequest:
        pixels = 64 if self.device == "cpu" else 512
        return ask(model=model, prompt="a hill", width=pixels, height=pixels, steps=2)


def held(device: str, registry: ModelRegistry) -> int:
    """Returns the bytes that models hold: as the device measures them, where it can."""
    gc.collect()
    if device == "cpu":
        return sum(model.vram_bytes for model in registry.get_loaded_models().values())
    torch.cuda.synchronize(device)
    return torch.cuda.memory_allocated(device)


@on_every_device
@pytest.mark.parametrize("family", [Family.SD15, Family.SDXL])
@pytest.mark.timeout(1800)
def test_the_ledger_says_what_the_device_says(
    saved: Callable[[Family, str], ModelSpec], tmp_path: Path, family: Family, device: str
) -> None:
    model = saved(family, device)
    bench = Bench(device)
    before = held(device, bench.registry)
    estimated = bench.ledger.estimate(model)

    report = bench.load(model)

    loaded = held(device, bench.registry) - before
    [entry] = bench.registry.get_loaded_models().values()
    assert entry.vram_bytes == loaded == bench.ledger.needed(model)
    assert loaded == pytest.approx(report.bytes, rel=0.01, abs=2 * MIB)
    assert loaded == pytest.approx(estimated, rel=0.03, abs=2 * MIB)

    worker = bench.workers[0]()
    assert worker is not None
    parts = {"unet": worker._parts.unet}  # type: ignore[attr-defined] # whose shapes the LoRA has
    lora = save_lora(tmp_path / "ink.safetensors", peft(random_pairs(parts, 1), family, parts))
    del worker, parts
    bench.load(replace(model, loras=(LoraSpec(lora),)))
    [entry] = bench.registry.get_loaded_models().values()
    more = held(device, bench.registry) - before - loaded
    assert more == pytest.approx(bench.ledger.estimate_lora(lora), rel=0.2, abs=MIB)
    assert entry.vram_bytes - loaded == pytest.approx(more, abs=MIB)

    assert isinstance(bench.draw(bench.small(model)), GenerationResult)
    assert bench.answer(lambda number: Unload(number, model)) is None
    assert held(device, bench.registry) - before <= 32 * MIB  # what libraries keep for themselves
    assert bench.workers[0]() is None
    bench.host.close()


@on_every_device
@pytest.mark.timeout(1800)
def test_a_model_that_never_fits_is_refused_and_the_loaded_one_stays(
    saved: Callable[[Family, str], ModelSpec], device: str
) -> None:
    small, large = (saved(family, device) for family in (Family.SD15, Family.SDXL))
    taken = held(device, ModelRegistry(device))
    room = taken + (Ledger(device).estimate(small) + Ledger(device).estimate(large)) // 2
    bench = Bench(device, SmallRegistry(room, device))
    bench.load(small)

    error = bench.draw(bench.small(large))

    assert isinstance(error, NotEnoughMemoryError)
    assert error.needed == Ledger(device).estimate(large) > error.free
    assert error.total == room
    assert bench.registry.is_loaded(small.key)
    assert isinstance(bench.draw(bench.small(small)), GenerationResult)
    bench.host.close()


@contextmanager
def shortage(bench: Bench, model: ModelSpec) -> Iterator[None]:
    """Leaves a device too little memory to draw with a model; the CPU's, of which there is no end,
    says so of itself."""
    if bench.device == "cpu":
        worker: Any = bench.host._shelf[model.key]

        def short(*_: Any) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory")

        hook = worker._parts.unet.register_forward_pre_hook(short)
        yield
        hook.remove()
        return
    torch.cuda.empty_cache()
    filler = []
    for size in (1024 * MIB, 64 * MIB, 2 * MIB):
        while torch.cuda.mem_get_info(bench.device)[0] > size + 4 * MIB:
            try:
                filler.append(torch.empty(size, dtype=torch.uint8, device=bench.device))
            except torch.OutOfMemoryError:
                break
    yield
    filler.clear()
    torch.cuda.empty_cache()


@on_every_device
@pytest.mark.timeout(1800)
def test_running_out_of_memory_is_survived(
    saved: Callable[[Family, str], ModelSpec], tmp_path: Path, device: str
) -> None:
    idle, model = saved(Family.SDXL, device), saved(Family.SD15, device)
    bench = Bench(device)
    bench.load(idle)
    expected = bench.draw(bench.small(model))
    assert isinstance(expected, GenerationResult)

    with shortage(bench, model):
        large = replace(bench.small(model), width=1024, height=1024, count=4)
        gone = bench.draw(large if device == "cpu" else replace(large, width=8192, height=8192))

    assert isinstance(gone, DrawingError)
    assert "ran out of memory" in str(gone)
    assert set(bench.registry.get_loaded_models()) == {model.key}  # what was idle went first
    again = bench.draw(bench.small(model))
    assert isinstance(again, GenerationResult)
    assert again.images == expected.images
    assert isinstance(bench.draw(bench.small(idle)), GenerationResult)
    bench.host.close()


@on_every_device
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_switches_between_three_models_leave_memory_flat(
    tmp_path: Path, device: str, request: pytest.FixtureRequest
) -> None:
    """A GPU's memory is what fragments and runs out: 200 of them there.

    On the CPU, whose every load goes through the same code, a fifth of them shows as small a leak
    in each, since less is allowed.
    """
    switches, first, spare_tensors, spare = (
        (40, 8, 4, 40 * MIB) if device == "cpu" else (200, 23, 20, 256 * MIB)
    )
    models = [ModelSpec(save_pipeline(tmp_path / name)) for name in ("one", "two", "three")]
    taken = held(device, ModelRegistry(device))
    room = taken + int(Ledger(device).estimate(models[0]) * 1.5)
    bench = Bench(device, SmallRegistry(room, device))
    process = psutil.Process()

    def measure() -> tuple[int, int, int]:
        memory = held(device, bench.registry)
        tensors = sum(issubclass(type(one), torch.Tensor) for one in gc.get_objects())
        return memory, tensors, process.memory_info().rss

    def switch(number: int) -> None:
        asked = ask(
            model=models[number % 3], prompt="a hill", width=16, height=16, steps=1, seed=number
        )
        result = bench.draw(asked)
        assert isinstance(result, GenerationResult), result
        assert len(bench.registry.get_loaded_models()) == 1
        bench.said.clear()

    gc.collect()
    gc.freeze()  # as a worker process does: each drop of a model looks for what it leaves behind
    request.addfinalizer(gc.unfreeze)
    for number in range(first):
        switch(number)
    memory, tensors, resident = measure()
    for number in range(first, switches):
        switch(number)
        if number % 20 == 0:
            gc.collect()
            assert sum(worker() is not None for worker in bench.workers) == 1
    memory_then, tensors_then, resident_then = measure()

    assert len(bench.workers) == switches
    assert abs(memory_then - memory) < MIB
    assert abs(tensors_then - tensors) < spare_tensors
    assert resident_then - resident < spare
    bench.host.close()
    gc.collect()
    assert not any(worker() for worker in bench.workers)


@on_every_device
@pytest.mark.timeout(1800)
def test_a_load_says_how_many_rows_share_a_pass_on_a_gpu_and_holds_nobody_up_on_a_cpu(
    saved: Callable[[Family, str], ModelSpec], device: str
) -> None:
    model = saved(Family.SD15, device)
    bench = Bench(device)

    bench.answer(lambda number: Load(number, model, bench.small(model)))

    told = [figure for r in bench.said if isinstance(r, Measured) for figure in r.figures]
    rows = {figure.rows for figure in told if figure.act is Act.PASS}
    assert {2, 4} <= rows if device != "cpu" else not rows
    bench.host.close()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("family", [Family.SD15, Family.SDXL])
@pytest.mark.timeout(1800)
def test_a_return_from_the_hosts_memory_takes_little_more_than_the_copy(
    saved: Callable[[Family, str], ModelSpec], family: Family
) -> None:
    """Says how much more; what is asserted is that it is a copy, and what it draws."""
    device, model = "cuda:0", saved(family, "cuda:0")
    bench = Bench(device)
    cache = HostCache(device, 32 * 2**30)
    bench.host = WorkerHost(
        device, bench.said.append, create=bench.create, registry=bench.registry, cache=cache
    )
    expected = bench.draw(bench.small(model))
    assert isinstance(expected, GenerationResult)
    took, floors, copied = [], [], 0
    for _ in range(5):
        bench.host._shelf.drop(model.key)
        report = bench.load(model)
        took.append(report.seconds)
        copied = report.copied
        block = torch.empty(512 * MIB, dtype=torch.uint8, pin_memory=True)
        there = torch.empty_like(block, device=device)
        torch.cuda.synchronize()
        began = time.perf_counter()
        there.copy_(block, non_blocking=True)
        torch.cuda.synchronize()
        floors.append((time.perf_counter() - began) * copied / len(block))
        del block, there

    again = bench.draw(bench.small(model))

    assert len(bench.workers) == 1  # it was read from the disk once
    assert copied == pytest.approx(report.bytes, rel=0.01)
    assert isinstance(again, GenerationResult)
    assert again.images == expected.images
    switch, floor = sorted(took)[2], sorted(floors)[2]
    logging.getLogger(__name__).warning(
        "%s: %.2f GB are back in %.3f s, %.2f times the copy's floor of %.3f s",
        family.value,
        copied / 1e9,
        switch,
        switch / floor,
        floor,
    )
    bench.host.close()
