"""Modes whose pictures depend on no company, and modes that are drawn with compiled code."""

import gc
import logging
import random
import threading
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch  # noqa: TID253 - the subject is made of it

from engine.errors import OutOfMemoryError
from engine.jobs import Family, GenerationRequest, GenerationResult, LoraSpec, ModelSpec, Sampler
from engine.messages import Answer, Cancel, JobEvent, JobFailed, Load, Reply, Run
from engine.row_buckets import EXACT_ROWS, exact_rows, filled_up
from engine.worker_factory import WorkerFactory
from engine.worker_host import WorkerHost
from engine.workers.base import Worker
from engine.workers.compiled import CompiledPasses
from engine.workers.latent import LatentWorker
from tests.lora_kit import peft, random_pairs, save_lora
from tests.tiny_models import save_pipeline
from tests.worker_kit import DEMO, ask


class Bench:
    """A host on the CPU, and what it said."""

    def __init__(self, create: Callable[[ModelSpec], Worker] | None = None) -> None:
        self.said: list[Reply] = []
        self.workers: list[Any] = []
        self._create = create or WorkerFactory("cpu").create
        self.host = WorkerHost("cpu", self.said.append, create=self.create)
        self.numbers = iter(range(1, 10_000))

    def create(self, model: ModelSpec) -> Worker:
        self.workers.append(self._create(model))
        return self.workers[-1]

    def begin(self, request: GenerationRequest) -> int:
        number = next(self.numbers)
        self.host.handle(Run(number, f"job {number}", request))
        return number

    def finish(self) -> None:
        while self.host.busy:
            self.host.tick()

    def result(self, number: int) -> bytes | Exception:
        for reply in self.said:
            if isinstance(reply, JobFailed) and reply.run_id == number:
                return reply.error
            event = reply.event if isinstance(reply, JobEvent) else None
            if isinstance(event, GenerationResult) and event.job_id == f"job {number}":
                return event.images[0].png
        pytest.fail("the request never ended")

    def draw(self, request: GenerationRequest) -> bytes:
        number = self.begin(request)
        self.finish()
        result = self.result(number)
        assert isinstance(result, bytes), result
        return result


# Exact


def test_an_exact_picture_is_the_same_to_the_last_bit_in_any_company(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Beside it: how many shared its passes varied; else this test would show nothing."""
    bench, chance = Bench(), random.Random(5)  # noqa: S311 - company, no secrets
    requests = [
        ask(model=DEMO, prompt=prompt, width=64, height=64, seed=seed, exact=True, **more)
        for seed, (prompt, more) in enumerate(
            [
                ("a red circle", {"steps": 3}),
                ("a green star on a white background", {"steps": 5, "sampler": Sampler.EULER_A}),
                ("two blue hearts", {"steps": 3, "guidance_scale": 1.0}),
                ("a yellow ring", {"steps": 4, "sampler": Sampler.DPMPP_2M_KARRAS}),
                ("an orange cross", {"steps": 2, "guidance_scale": 9.0, "sampler": Sampler.HEUN}),
            ]
        )
    ]
    latents: dict[int, torch.Tensor] = {}
    company: dict[int, set[int]] = defaultdict(set)
    decode, step = LatentWorker.decode, LatentWorker.step

    def noted(self: LatentWorker, drawing: Any) -> Any:
        latents[drawing.seed] = drawing.latents.clone()
        return decode(self, drawing)

    def counted(self: LatentWorker, drawings: Sequence[Any], rows: int = 0) -> None:
        for drawing in drawings:
            company[drawing.seed].add(sum(each.rows for each in drawings))
        step(self, drawings, rows)

    monkeypatch.setattr(LatentWorker, "decode", noted)
    monkeypatch.setattr(LatentWorker, "step", counted)
    for request in requests:
        bench.draw(request)
    alone = dict(latents)

    for _ in range(4):
        crowd = chance.sample(requests, chance.randint(2, len(requests)))
        gone = bench.begin(replace(requests[0], seed=99, steps=7))
        for request in crowd:
            bench.begin(request)
            for _ in range(chance.randint(0, 3)):
                bench.host.tick()
        bench.host.handle(Cancel(gone))
        bench.finish()
        for request in crowd:
            assert torch.equal(latents[request.seed], alone[request.seed])

    assert all(len(company[request.seed]) > 1 for request in requests)
    bench.host.close()


def test_every_exact_pass_has_as_many_rows_and_others_have_those_of_their_company(
    tmp_path: Path,
) -> None:
    bench = Bench()
    model = ModelSpec(save_pipeline(tmp_path / "model"))
    small = ask(model=model, prompt="a hill", width=16, height=16, steps=2)
    bench.draw(small)
    rows: list[int] = []
    bench.workers[0]._parts.unet.register_forward_pre_hook(
        lambda _module, args, kwargs: rows.append(len(kwargs["sample"])), with_kwargs=True
    )

    for guidance, count in ((5.0, 1), (1.0, 1), (5.0, 4)):
        bench.draw(replace(small, guidance_scale=guidance, count=count, exact=True))
    assert rows == [EXACT_ROWS["cpu"]] * (2 + 2 + 4)

    rows.clear()
    for guidance in (5.0, 1.0):
        bench.draw(replace(small, guidance_scale=guidance))
    assert {1, 2} <= set(rows)  # more are tried, to learn how many are worth it
    bench.host.close()


def test_an_exact_pass_that_has_no_memory_fails_rather_than_shrink(tmp_path: Path) -> None:
    bench = Bench()
    model = ModelSpec(save_pipeline(tmp_path / "model"))
    small = ask(model=model, prompt="a hill", width=16, height=16, steps=2)
    bench.draw(small)

    def short(_module: Any, _args: Any, kwargs: Any) -> None:
        if len(kwargs["sample"]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    bench.workers[0]._parts.unet.register_forward_pre_hook(short, with_kwargs=True)
    numbers = [bench.begin(replace(small, seed=seed, exact=True)) for seed in range(2)]
    bench.finish()

    assert all(isinstance(bench.result(number), OutOfMemoryError) for number in numbers)
    assert bench.draw(small)
    bench.host.close()


def test_passes_are_filled_up_as_the_mode_asks() -> None:
    asked = [1, 2, 3, 4, 6, 9, 16]

    def rows(*, exact: bool = False, compiled: bool = False, most: int = 16) -> list[int]:
        return [filled_up(n, "cuda:0", most, exact=exact, compiled=compiled) for n in asked]

    assert rows() == asked
    assert rows(compiled=True) == [2, 2, 4, 4, 8, 16, 16]
    assert rows(exact=True) == [8, 8, 8, 8, 8, 9, 16]
    assert rows(compiled=True, most=6) == [2, 2, 4, 4, 6, 9, 16]  # nor is a batch made smaller
    assert exact_rows("cpu", 2) == 2
    assert exact_rows("cuda:1", 16) == EXACT_ROWS["cuda"]


# Compiled


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    return ModelSpec(save_pipeline(tmp_path_factory.mktemp("model") / "tiny"))


def compiling(backend: str) -> Callable[[ModelSpec], Worker]:
    def create(model: ModelSpec) -> Worker:
        worker = WorkerFactory("cpu").create(model)
        worker.backend = backend  # type: ignore[attr-defined] # which needs no C++ compiler
        return worker

    return create


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench(compiling("aot_eager"))
    yield bench
    bench.host.close()


def small(tiny: ModelSpec, **changes: Any) -> GenerationRequest:
    request = ask(model=tiny, prompt="a hill", width=16, height=16, steps=2, compiled=True)
    return replace(request, **changes)


def test_pictures_are_drawn_without_code_until_it_is_made_and_then_with_it(
    bench: Bench, tiny: ModelSpec, caplog: pytest.LogCaptureFixture
) -> None:
    """One test, since making the code takes seconds."""
    caplog.set_level(logging.INFO, "engine")
    plain = bench.draw(small(tiny, compiled=False))
    first = bench.draw(small(tiny))
    [worker] = bench.workers
    worker.compiled.wait()
    calls: list[int] = []
    worker._parts.unet.register_forward_hook(lambda *_: calls.append(1))

    assert first == bench.draw(small(tiny)) == plain  # this backend changes no bit
    assert not calls  # nothing went through the module itself
    assert "tiny is compiled for passes of 2 rows of 4x8x8" in caplog.text

    # The model leaves the device and returns: its weights lie elsewhere, the code still counts.
    parameters = list(worker._parts.unet.parameters())
    kept = [parameter.data.clone() for parameter in parameters]
    worker.rest()
    for parameter in parameters:
        parameter.data = torch.empty(0)
    for parameter, data in zip(parameters, kept, strict=True):
        parameter.data = data
    assert bench.draw(small(tiny)) == plain
    assert not calls
    assert not worker.compiled.busy


def test_a_load_has_the_code_made_for_all_numbers_of_rows_before_anybody_draws(
    tiny: ModelSpec, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "engine")
    bench = Bench(compiling("eager"))
    bench.host.handle(Load(1, tiny, small(tiny)))
    bench.finish()
    [worker] = bench.workers
    worker.compiled.wait()
    told = [each.message for each in caplog.records if "is compiled for" in each.message]
    assert [int(text.partition("passes of ")[2].split()[0]) for text in told] == [2, 4, 8]
    passed: list[int] = []
    worker._parts.unet.register_forward_hook(lambda *_: passed.append(1))

    bench.draw(small(tiny))

    assert not passed
    bench.host.close()


def test_a_model_is_loaded_even_if_nothing_can_be_prepared(tiny: ModelSpec) -> None:
    bench = Bench(compiling("eager"))
    bench.host.handle(Load(1, tiny, small(tiny, width=17)))
    bench.finish()

    [answer] = [reply for reply in bench.said if isinstance(reply, Answer)]
    assert answer.error is None
    assert "compiled" not in vars(bench.workers[0])
    bench.draw(small(tiny, compiled=False))
    bench.host.close()


def test_numbers_of_rows_are_rounded_up_so_that_there_are_few_codes(
    bench: Bench, tiny: ModelSpec
) -> None:
    bench.draw(small(tiny, compiled=False))
    rows: list[int] = []
    [worker] = bench.workers
    worker.compiled.passes = lambda arguments: rows.append(len(arguments["sample"]))
    for number in range(3):  # six rows
        bench.begin(small(tiny, seed=number))

    bench.finish()

    assert set(rows) <= {2, 4, 8}
    assert 8 in rows


def test_a_model_with_loras_is_drawn_without_code(
    bench: Bench, tiny: ModelSpec, tmp_path: Path
) -> None:
    bench.draw(small(tiny, compiled=False))
    [worker] = bench.workers
    named = {"unet": worker._parts.unet, "text_encoder": worker._parts.readers[0].encoder}
    file = save_lora(tmp_path / "ink.safetensors", peft(random_pairs(named, 1), Family.SD15, named))
    inked = replace(tiny, loras=(LoraSpec(file),))

    with_lora = bench.draw(small(tiny, model=inked))

    assert with_lora == bench.draw(small(tiny, model=inked, compiled=False))
    assert "compiled" not in vars(worker)  # none was asked for


class Gated:
    """A backend whose making of code, and whose code, each wait until they may go on."""

    def __init__(self) -> None:
        self.makes, self.runs = threading.Event(), threading.Event()
        self.may_make, self.may_run = threading.Event(), threading.Event()

    def __call__(self, graph: Any, _: Any) -> Any:
        self.makes.set()
        assert self.may_make.wait(20)

        def run(*arguments: Any) -> Any:
            self.runs.set()
            assert self.may_run.wait(20)
            return graph.forward(*arguments)

        return run


def test_weights_do_not_go_while_code_that_was_just_made_reads_them() -> None:
    unet, gated = torch.nn.Linear(4, 4), Gated()
    passes = CompiledPasses(unet, "tiny", gated)
    sample = {"input": torch.ones(2, 4)}

    with torch.inference_mode():
        assert passes.passes(sample) is None
    assert gated.makes.wait(20)
    passes.rest()  # nothing reads them yet: that takes no time
    gated.may_make.set()
    passes.wait()
    assert not gated.runs.is_set()  # they are gone, or about to go

    with torch.inference_mode():
        assert passes.passes(sample) is None
    assert gated.runs.wait(20)
    resting = threading.Thread(target=passes.rest)
    resting.start()
    resting.join(0.1)
    assert resting.is_alive()
    gated.may_run.set()
    resting.join(60)
    assert not resting.is_alive()
    passes.wait()
    assert not passes._failed

    # Torch keeps code as long as the process lives; the weights it was made for may go.
    gone = weakref.ref(unet)
    del unet, passes, resting
    gc.collect()
    assert gone() is None


def test_where_compiling_fails_it_is_drawn_without_and_the_log_says_so_once(
    tiny: ModelSpec, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(compiling("there is no such backend"))
    plain = bench.draw(small(tiny, compiled=False))

    for _ in range(3):
        assert bench.draw(small(tiny)) == plain
        bench.workers[0].compiled.wait()

    told = [each.message for each in caplog.records if "can't be compiled" in each.message]
    assert len(told) == 1
    assert "tiny" in told[0]
    assert "compile: true" in told[0]
    bench.host.close()


def test_code_that_was_made_while_the_weights_were_away_does_not_count() -> None:
    unet = torch.nn.Linear(2, 2)
    passes = CompiledPasses(unet, "model", "eager")
    arguments = {"input": torch.ones(1, 2)}
    with torch.inference_mode():
        assert passes.passes(arguments) is None
        passes.rest()
        passes.wait()
        assert passes.passes(arguments) is None  # it is made anew
        passes.wait()
