import itertools
import os
import re
import shutil
import threading
import weakref
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch  # noqa: TID253 - its out-of-memory error is the subject of a test

from engine.errors import (
    DrawingError,
    JobCancelledError,
    ModelError,
    ModelFormatError,
    ModelNotFoundError,
    NotEnoughMemoryError,
    OutOfMemoryError,
    RequestError,
)
from engine.executor import LoadReport
from engine.jobs import (
    Family,
    GeneratedImage,
    GenerationRequest,
    GenerationResult,
    LoraSpec,
    ModelSpec,
    Progress,
    Sampler,
    Stage,
)
from engine.ledger import Ledger
from engine.measured_file import MeasuredFile
from engine.messages import (
    Answer,
    Cancel,
    JobEvent,
    JobFailed,
    Load,
    Loading,
    Measured,
    Ping,
    Reply,
    Run,
    Stats,
    Unload,
)
from engine.model_files import file_stamp
from engine.pace import Act, Pace
from engine.shelf import LORAS_KEPT
from engine.timekeeper import REHEARSAL_SECONDS
from engine.worker_host import (
    REPORT_SECONDS,
    DeviceUnusableError,
    WorkerHost,
    prepare_device,
)
from engine.workers.base import Drawing, Worker, to_image
from tests.tiny_models import unet_shapes, write_folder, write_lora
from tests.worker_kit import SmallRegistry, ask


class OneByteLedger(Ledger):
    """Knows how large quick workers are: a byte each, and one for each LoRA."""

    def __init__(self) -> None:
        super().__init__("cpu")

    def needed(self, model: ModelSpec) -> int:
        return 1

    def estimate_lora(self, path: Path) -> int:
        return 1


class QuickWorker(Worker):
    """A real worker in all but the drawing: its pictures are one colour, its prompts are orders.

    A prompt ``fail at 2`` makes every forward pass fail that has the picture's step 2 in it,
    ``nan`` what comes out no picture, ``nan in company`` only where others took part in a pass;
    ``error at 2`` is a fault of the picture alone.
    """

    def __init__(self, model: ModelSpec, fits: int = 99) -> None:
        self.model = model
        self.family = Family.SD15
        self.device = "cpu"
        self.laid: dict[Path, tuple[int, int]] = {}
        self.fits = fits
        self.batches: list[list[int]] = []
        self.rehearsed: list[int] = []
        self.work: Callable[[int], None] = lambda rows: None
        self.begun: list[GenerationRequest] = []
        self.spoilt: list[Drawing] = []
        self.closed = False

    @property
    def weight_bytes(self) -> int:  # type: ignore[override] # never set from outside
        return 1 + len(self.laid)

    @property
    def loras(self) -> tuple[Path, ...]:
        return tuple(self.laid)

    def holds_lora(self, path: Path) -> bool:
        return path.exists() and self.laid.get(path) == file_stamp(path)

    def load_lora(self, path: Path) -> None:
        if "broken" in path.name:
            raise ModelFormatError(path, "is broken")
        self.laid.pop(path, None)
        self.laid[path] = file_stamp(path)

    def drop_lora(self, path: Path) -> None:
        self.laid.pop(path, None)

    def begin(self, request: GenerationRequest) -> list[Drawing]:
        assert {lora.path for lora in request.model.loras} <= self.laid.keys()
        if request.prompt == "refuse":
            raise RequestError("prompt", "refuse", "anything else")
        self.begun.append(request)
        rows = 2 if request.guidance_scale > 1 else 1
        nothing: Any = None
        return [
            Drawing(
                request=request,
                seed=seed,
                scheduler=None,
                generator=nothing,
                latents=nothing,
                embeddings=np.zeros((rows, 1, 1)),  # type: ignore[arg-type] # only counted
                steps=request.steps,
            )
            for seed in request.seeds
        ]

    def take_over(self, drawing: Drawing) -> None:
        raise RequestError("refiner", drawing.request.refiner, "none")

    def batch_key(self, drawing: Drawing) -> Hashable:
        return drawing.request.width, drawing.request.model.loras

    def step(self, drawings: Sequence[Drawing], rows: int = 0) -> None:
        assert not self.closed
        assert len({self.batch_key(drawing) for drawing in drawings}) == 1
        if sum(drawing.rows for drawing in drawings) > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        for drawing in drawings:
            if _ordered("fail", drawing):
                raise ValueError("a bug")
        self.batches.append([drawing.seed for drawing in drawings])
        self.work(sum(drawing.rows for drawing in drawings))
        self.spoilt += drawings if len(drawings) > 1 else []
        for drawing in drawings:
            if _ordered("error", drawing):
                drawing.error = ValueError("a fault")
            else:
                drawing.step += 1

    def rehearse(self, drawing: Drawing, rows: int) -> None:
        self.rehearsed.append(rows)
        if rows > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.work(rows)

    def preview(self, drawing: Drawing) -> bytes:
        if drawing.request.prompt == "no preview":
            raise ValueError("a bug")
        return b"step %d" % drawing.step

    def decode(self, drawing: Drawing) -> npt.NDArray[np.uint8]:
        prompt = drawing.request.prompt
        if prompt == "nan" or (prompt == "nan in company" and drawing in self.spoilt):
            raise DrawingError("no picture")
        request = drawing.request
        return np.full((request.height, request.width, 3), drawing.seed % 256, np.uint8)

    def close(self) -> None:
        self.closed = True


def _ordered(word: str, drawing: Drawing) -> bool:
    found = re.fullmatch(rf"{word} at (\d+)", drawing.request.prompt)
    return found is not None and int(found[1]) == drawing.step


class Bench:
    """A host with quick workers, and everything that it said."""

    def __init__(
        self,
        folder: Path,
        room: int = 2,
        fits: int = 99,
        max_rows: int = 8,
        measured: MeasuredFile | None = None,
    ) -> None:
        self.folder = folder
        self.said: list[Reply] = []
        self.workers: dict[str, QuickWorker] = {}
        self.now = 0.0
        self.fits = fits
        self.cost: Callable[[int], float] = lambda rows: 0.0
        self.registry = SmallRegistry(room)
        self.host = WorkerHost(
            "cpu",
            self.said.append,
            create=self.create,
            registry=self.registry,
            ledger=OneByteLedger(),
            measured=measured,
            max_rows=max_rows,
            clock=lambda: self.now,
        )

    def model(self, name: str) -> ModelSpec:
        path = self.folder / name
        if not path.exists():
            write_folder(path, {"cross_attention_dim": 768, "in_channels": 4}, unet_shapes(768))
        return ModelSpec(path)

    def create(self, model: ModelSpec) -> Worker:
        if "broken" in model.path.name:
            raise ValueError("a bug while loading")
        worker = self.workers[model.path.name] = QuickWorker(model, self.fits)
        worker.work = self.work
        return worker

    def work(self, rows: int) -> None:
        """A pass takes what the test says; no clock runs but this one."""
        self.now += self.cost(rows)

    def run(self, number: int, model: str = "one", **changes: Any) -> None:
        request = ask(model=self.model(model), width=16, height=16, seed=number, **changes)
        self.host.handle(Run(number, f"job {number}", request))

    def finish(self) -> None:
        for _ in range(10_000):
            if not self.host.busy:
                return
            self.host.tick()
        pytest.fail("the host never came to rest")

    def progress(self, number: int) -> list[Progress]:
        events = [r.event for r in self.said if isinstance(r, JobEvent) and r.run_id == number]
        return [event for event in events if isinstance(event, Progress)]

    def outcome(self, number: int) -> GenerationResult | Exception:
        """What a run ended with; it must have ended exactly once."""
        ends = [
            reply.event if isinstance(reply, JobEvent) else reply.error
            for reply in self.said
            if (isinstance(reply, JobFailed) and reply.run_id == number)
            or (
                isinstance(reply, JobEvent)
                and reply.run_id == number
                and isinstance(reply.event, GenerationResult)
            )
        ]
        [end] = ends
        assert not isinstance(end, Progress)
        return end

    def seeds(self, number: int) -> list[int]:
        outcome = self.outcome(number)
        assert isinstance(outcome, GenerationResult), outcome
        assert outcome.job_id == f"job {number}"
        return [image.seed for image in outcome.images]

    def answer(self, number: int) -> Answer:
        [answer] = [r for r in self.said if isinstance(r, Answer) and r.call_id == number]
        return answer


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.host.close()


def test_a_request_is_drawn_from_loading_to_its_pictures(bench: Bench) -> None:
    bench.run(1, steps=3, count=2)

    bench.finish()

    assert bench.seeds(1) == [1, 2]
    said = bench.progress(1)
    assert [(p.stage, p.step, p.steps) for p in said] == [
        (Stage.LOADING, 0, 0),
        (Stage.ENCODING, 0, 0),
        (Stage.DENOISING, 2, 6),
        (Stage.DECODING, 6, 6),
    ]
    assert [p.preview for p in said] == [None, None, b"step 1", None]


def test_a_loaded_model_is_not_loaded_again(bench: Bench) -> None:
    bench.run(1)
    bench.finish()
    bench.run(2)
    bench.finish()

    assert bench.progress(2)[0].stage is Stage.ENCODING


def test_requests_join_and_leave_between_steps(bench: Bench) -> None:
    bench.run(1, steps=4)
    bench.host.tick()
    bench.host.tick()
    bench.run(2, steps=1)
    bench.finish()

    assert bench.seeds(1) == [1]
    assert bench.seeds(2) == [2]
    assert bench.workers["one"].batches == [[1], [1], [1, 2], [1]]


def test_a_crowd_shares_what_fits_and_everybody_is_drawn(tmp_path: Path) -> None:
    bench = Bench(tmp_path, max_rows=4)
    for number in range(1, 8):
        bench.run(number, steps=3, guidance_scale=1.0 if number % 2 else 4.0)

    bench.finish()

    assert all(bench.seeds(number) == [number] for number in range(1, 8))
    assert max(len(batch) for batch in bench.workers["one"].batches) > 1
    bench.host.close()


def test_a_request_with_many_pictures_does_not_hold_up_a_single_one(tmp_path: Path) -> None:
    bench = Bench(tmp_path, max_rows=4)
    bench.run(1, steps=4, count=8)
    bench.host.tick()
    bench.run(50, steps=4)

    bench.finish()

    assert all(50 in batch for batch in bench.workers["one"].batches[1:5])
    assert bench.seeds(50) == [50]
    assert bench.seeds(1) == list(range(1, 9))
    bench.host.close()


def test_reports_come_no_faster_than_they_may(bench: Bench) -> None:
    bench.run(1, steps=9)
    for _ in range(9):
        bench.host.tick()
        bench.now += REPORT_SECONDS / 2.5  # every third step
    bench.finish()

    assert [p.step for p in bench.progress(1) if p.stage is Stage.DENOISING] == [1, 4, 7]
    assert isinstance(bench.outcome(1), GenerationResult)


def test_the_seconds_leave_loading_out(bench: Bench) -> None:
    bench.host._shelf.create = lambda model: setattr(bench, "now", 100.0) or QuickWorker(model)  # type: ignore[func-returns-value]
    bench.run(1, steps=2)
    bench.host.tick()
    bench.now += 3
    bench.finish()

    outcome = bench.outcome(1)
    assert isinstance(outcome, GenerationResult)
    assert outcome.seconds == 3


@pytest.mark.parametrize(
    ("prompt", "kind"),
    [
        ("fail at 1", DrawingError),
        ("error at 1", DrawingError),
        ("nan", DrawingError),
        ("refuse", RequestError),
    ],
)
def test_one_requests_failure_harms_nobody_else(
    bench: Bench, prompt: str, kind: type[Exception]
) -> None:
    bench.run(1, steps=3)
    bench.run(2, steps=3, prompt=prompt, count=2)
    bench.run(9, steps=3)

    bench.finish()

    assert bench.seeds(1) == [1]
    assert bench.seeds(9) == [9]
    assert isinstance(bench.outcome(2), kind)
    assert not bench.registry.in_use(bench.model("one").key)


def test_what_is_no_picture_in_company_is_drawn_again_by_itself(bench: Bench) -> None:
    varied = {"variation_seed": 30, "variation_strength": 0.5}
    bench.host.handle(Load(9, bench.model("one")))
    bench.run(1, steps=3)
    bench.run(5, steps=2, prompt="nan in company", count=2, **varied)

    bench.finish()

    assert bench.seeds(1) == [1]
    assert bench.seeds(5) == [5, 6]
    worker = bench.workers["one"]
    again = [(r.seed, r.count, r.variation_seed) for r in worker.begun if r.seed > 1]
    assert again == [(5, 2, 30), (5, 1, 30), (6, 1, 31)]
    assert worker.batches[:2] == [[1, 5, 6], [1, 5, 6]]
    assert sorted(worker.batches[2:]) == [[1], [5], [5], [6], [6]]


def test_what_is_never_a_picture_is_drawn_twice_at_most(bench: Bench) -> None:
    bench.host.handle(Load(9, bench.model("one")))
    bench.run(1, steps=2, prompt="nan")
    bench.run(2, steps=2, prompt="nan")

    bench.finish()

    assert [isinstance(bench.outcome(number), DrawingError) for number in (1, 2)] == [True, True]
    batches = bench.workers["one"].batches
    assert batches[:2] == [[1, 2], [1, 2]]
    assert sorted(batches[2:]) == [[1], [1], [2], [2]]


def test_what_nobody_raised_on_purpose_is_told_in_a_sentence(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.run(1, prompt="fail at 0")

    bench.finish()

    assert str(bench.outcome(1)) == "Drawing failed: ValueError: a bug"
    assert "Traceback" in caplog.text


def test_a_failing_preview_is_no_failing_picture(bench: Bench) -> None:
    bench.run(1, prompt="no preview")

    bench.finish()

    assert bench.seeds(1) == [1]


def test_out_of_memory_makes_the_batches_smaller(tmp_path: Path) -> None:
    bench = Bench(tmp_path, fits=4)
    for number in range(1, 5):
        bench.run(number, steps=2)

    bench.finish()

    assert all(bench.seeds(number) == [number] for number in range(1, 5))
    assert max(len(batch) for batch in bench.workers["one"].batches) == 2
    bench.host.close()


def test_two_single_rows_that_do_not_fit_together_are_drawn_one_by_one(tmp_path: Path) -> None:
    bench = Bench(tmp_path, fits=1)
    for number in (1, 2):
        bench.run(number, guidance_scale=1.0)

    bench.finish()

    assert [bench.seeds(number) for number in (1, 2)] == [[1], [2]]


def test_what_does_not_fit_alone_fails_alone(tmp_path: Path) -> None:
    bench = Bench(tmp_path, fits=1)
    bench.run(1, guidance_scale=4.0)
    bench.run(2, guidance_scale=1.0)

    bench.finish()

    assert "ran out of memory" in str(bench.outcome(1))
    assert bench.seeds(2) == [2]
    bench.host.close()


def test_a_lost_device_ends_the_host(bench: Bench) -> None:
    def lost(_: Sequence[Drawing], rows: int) -> None:
        raise torch.AcceleratorError("CUDA error: device-side assert triggered\nmore")

    bench.run(1)
    bench.host.tick()
    bench.workers["one"].step = lost  # type: ignore[method-assign] # the one thing a CPU can't do

    with pytest.raises(DeviceUnusableError, match="failed: CUDA error: device-side assert"):
        bench.host.tick()


def test_a_cancelled_request_ends_at_once_wherever_it_is(bench: Bench) -> None:
    bench.run(1, steps=50)
    bench.host.tick()
    bench.run(2)
    bench.host.handle(Cancel(2))  # waits
    bench.host.handle(Cancel(1))  # is drawn
    bench.host.handle(Cancel(3))  # was never there

    assert not bench.host.busy
    for number in (1, 2):
        outcome = bench.outcome(number)
        assert isinstance(outcome, JobCancelledError)
        assert outcome.job_id == f"job {number}"
    assert not bench.registry.in_use(bench.model("one").key)


def test_a_cancelled_request_does_not_come_back_from_the_encoder(bench: Bench) -> None:
    bench.run(1, steps=1)
    bench.host._admit()
    bench.host._step()
    bench.host._decode()
    bench.host.handle(Cancel(1))

    bench.finish()

    assert isinstance(bench.outcome(1), JobCancelledError)


def test_a_missing_model_is_named(bench: Bench) -> None:
    bench.host.handle(Run(1, "job 1", ask(model=ModelSpec(bench.folder / "nowhere"))))
    bench.run(2)

    bench.finish()

    assert isinstance(bench.outcome(1), ModelNotFoundError)
    assert bench.seeds(2) == [2]


def test_a_model_that_fails_to_load_drops_nobody_for_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path, room=1)
    bench.run(1)
    bench.finish()
    (tmp_path / "garbage.safetensors").write_bytes(b"<html>")

    bench.host.handle(Run(2, "job 2", ask(model=ModelSpec(tmp_path / "garbage.safetensors"))))
    bench.finish()

    assert isinstance(bench.outcome(2), ModelError)
    assert not bench.workers["one"].closed
    bench.host.close()


def test_a_lora_that_does_not_fit_drops_nobody_for_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path, room=1)
    bench.run(1)
    bench.finish()
    lora = LoraSpec(write_lora(tmp_path / "ink.safetensors", 2048))

    model = replace(bench.model("two"), loras=(lora,))
    bench.host.handle(Run(2, "job 2", ask(model=model)))
    bench.finish()

    assert "a LoRA for SDXL base" in str(bench.outcome(2))
    assert not bench.workers["one"].closed
    bench.host.close()


def test_room_is_made_for_loras_too(tmp_path: Path) -> None:
    bench = Bench(tmp_path, room=2)
    bench.run(1)
    bench.finish()
    lora = LoraSpec(write_lora(tmp_path / "ink.safetensors", 768))

    model = replace(bench.model("two"), loras=(lora,))
    bench.host.handle(Run(2, "job 2", ask(model=model)))
    bench.finish()

    assert isinstance(bench.outcome(2), GenerationResult)
    assert bench.workers["one"].closed
    bench.host.close()


def lora(bench: Bench, name: str, strength: float = 1.0) -> LoraSpec:
    path = bench.folder / f"{name}.safetensors"
    return LoraSpec(path if path.exists() else write_lora(path, 768), strength)


def with_loras(bench: Bench, model: str, *names: str) -> ModelSpec:
    return replace(bench.model(model), loras=tuple(lora(bench, name) for name in names))


def stats(bench: Bench) -> dict[str, list[str]]:
    """Returns which LoRAs are over which model, by their names."""
    return {
        model.model_path.name: [Path(path).stem for path in model.loras]
        for model in bench.registry.get_loaded_models().values()
    }


def draw(bench: Bench, number: int, model: ModelSpec, **changes: Any) -> None:
    request = ask(model=model, width=16, height=16, seed=number, **changes)
    bench.host.handle(Run(number, f"job {number}", request))


def test_sets_of_loras_share_a_model_but_no_forward_pass(tmp_path: Path) -> None:
    bench = Bench(tmp_path, room=3)
    for number, names in enumerate([(), ("ink",), ("oil",), ("ink",)]):
        draw(bench, number, with_loras(bench, "one", *names), steps=2)

    bench.finish()

    assert [bench.seeds(number) for number in range(4)] == [[0], [1], [2], [3]]
    assert stats(bench) == {"one": ["ink", "oil"]}
    batches = [set(batch) for batch in bench.workers["one"].batches]
    assert {1, 3} in batches
    assert all(batch <= {1, 3} or len(batch) == 1 for batch in batches)
    assert bench.registry.get_used_vram() == 3
    bench.host.close()


def test_a_lora_of_strength_0_is_not_even_loaded(bench: Bench) -> None:
    model = replace(bench.model("one"), loras=(lora(bench, "ink", 0.0),))
    bench.host.handle(Load(1, model))

    bench.finish()

    assert bench.answer(1).value == LoadReport(bench.model("one").key, "sd15", 0.0, 1)


@pytest.mark.parametrize("name", ["broken", "strange", "gone"])
def test_a_lora_that_cannot_be_loaded_fails_its_request_alone(bench: Bench, name: str) -> None:
    bench.run(1, steps=4)
    bench.host.tick()
    model = with_loras(bench, "one", name)
    if name == "strange":
        write_lora(bench.folder / "strange.safetensors", 2048)
    if name == "gone":
        (bench.folder / "gone.safetensors").unlink()
    draw(bench, 2, model)
    bench.run(3)

    bench.finish()

    outcome = bench.outcome(2)
    assert isinstance(outcome, ModelError)
    assert outcome.path.stem == name
    assert [bench.seeds(number) for number in (1, 3)] == [[1], [3]]
    assert stats(bench) == {"one": []}


def test_the_least_recently_loaded_loras_go_beyond_a_bound(tmp_path: Path) -> None:
    bench = Bench(tmp_path, room=99)
    draw(bench, 99, with_loras(bench, "one", "kept"), steps=50)
    bench.host.tick()
    for number in range(LORAS_KEPT + 2):
        bench.host.handle(Load(number, with_loras(bench, "one", f"lora{number}")))
        bench.host.tick()
    names = stats(bench)["one"]

    assert names == ["kept", *(f"lora{number}" for number in range(3, LORAS_KEPT + 2))]
    bench.finish()
    assert bench.seeds(99) == [99]
    bench.host.close()


def test_more_loras_than_the_bound_may_be_drawn_with_at_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path, room=99)
    names = [f"lora{number}" for number in range(LORAS_KEPT + 2)]

    draw(bench, 1, with_loras(bench, "one", *names))
    bench.finish()

    assert bench.seeds(1) == [1]
    assert stats(bench) == {"one": names}
    bench.host.close()


def test_loras_that_nobody_draws_with_go_before_a_model(tmp_path: Path) -> None:
    bench = Bench(tmp_path, room=4)
    bench.host.handle(Load(1, with_loras(bench, "one", "ink")))
    draw(bench, 2, with_loras(bench, "two", "oil"), steps=9)
    bench.host.tick()
    bench.host.tick()

    bench.host.handle(Load(3, bench.model("three")))
    bench.host.tick()

    assert stats(bench) == {"one": [], "two": ["oil"], "three": []}
    bench.finish()
    assert bench.seeds(2) == [2]
    bench.host.close()


def test_a_lora_takes_the_place_of_idle_ones_over_its_own_model(tmp_path: Path) -> None:
    bench = Bench(tmp_path, room=3)
    for number, model in enumerate(
        [bench.model("other"), with_loras(bench, "one", "ink"), with_loras(bench, "one", "oil")]
    ):
        draw(bench, number, model)
        bench.finish()

    assert stats(bench) == {"other": [], "one": ["oil"]}
    bench.host.close()


def test_a_lora_takes_the_place_of_idle_ones_where_nothing_else_can_go(tmp_path: Path) -> None:
    bench = Bench(tmp_path, room=3)
    draw(bench, 1, with_loras(bench, "one", "ink"), steps=9)
    bench.host.tick()
    bench.host.handle(Load(2, with_loras(bench, "one", "oil")))
    bench.host.tick()
    bench.host.handle(Load(3, with_loras(bench, "one", "wax")))
    bench.host.tick()

    assert stats(bench) == {"one": ["ink", "wax"]}
    bench.finish()
    assert bench.seeds(1) == [1]
    bench.host.close()


def test_a_changed_lora_waits_for_who_draws_with_what_it_was(bench: Bench) -> None:
    model = with_loras(bench, "one", "ink")
    draw(bench, 1, model, steps=3)
    bench.host.tick()
    before = dict(bench.workers["one"].laid)
    write_lora(bench.folder / "ink.safetensors", 768, rank=5)
    draw(bench, 2, model, steps=1)

    bench.host.tick()
    assert bench.workers["one"].laid == before
    bench.finish()

    assert bench.workers["one"].batches == [[1], [1], [1], [2]]
    assert bench.workers["one"].laid != before


def test_what_never_fits_is_refused_at_once_though_others_draw(tmp_path: Path) -> None:
    bench = Bench(tmp_path, room=2)
    bench.run(1, steps=9)
    bench.host.tick()
    draw(bench, 2, with_loras(bench, "two", "ink", "oil"))
    bench.host.tick()

    outcome = bench.outcome(2)
    assert isinstance(outcome, NotEnoughMemoryError)
    assert (outcome.needed, outcome.free, outcome.total) == (3, 1, 2)
    bench.finish()
    assert bench.seeds(1) == [1]
    assert not bench.workers["one"].closed
    bench.host.close()


def test_out_of_memory_while_drawing_drops_what_is_idle_and_goes_on(tmp_path: Path) -> None:
    bench = Bench(tmp_path, room=9)
    for number, name in enumerate(["old", "new"]):
        bench.host.handle(Load(number, with_loras(bench, name, "ink")))
        bench.host.tick()
    bench.run(7, steps=2)
    bench.host.tick()
    worker = bench.workers["one"]
    plenty = worker.step
    left = iter(["everything", "all but LoRAs", "all but the old model"])

    def short(drawings: Sequence[Drawing], rows: int) -> None:
        if next(left, None):
            raise torch.OutOfMemoryError("CUDA out of memory")
        plenty(drawings, rows)

    worker.step = short  # type: ignore[method-assign, assignment] # a CPU has no such error
    states = []
    for _ in range(3):
        bench.host.tick()
        states.append(stats(bench))
    bench.finish()

    assert states == [{"old": [], "new": [], "one": []}, {"new": [], "one": []}, {"one": []}]
    assert bench.seeds(7) == [7]
    assert not bench.host._times.ceilings
    bench.host.close()


def test_out_of_memory_while_beginning_drops_what_is_idle_and_begins_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path, room=9)
    bench.host.handle(Load(1, with_loras(bench, "one", "ink")))
    bench.run(2, model="two")
    bench.finish()
    worker = bench.workers["two"]
    plenty = worker.begin
    left = iter(["everything", "all but LoRAs", "all but the other model"])

    def short(request: GenerationRequest) -> list[Drawing]:
        if next(left, None):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plenty(request)

    worker.begin = short  # type: ignore[method-assign] # a CPU has no such error
    bench.run(3, model="two")
    bench.finish()

    assert "ran out of memory" in str(bench.outcome(3))
    assert stats(bench) == {"two": []}
    bench.run(4, model="two")
    bench.finish()
    assert bench.seeds(4) == [4]
    bench.host.close()


def test_out_of_memory_while_loading_drops_what_is_idle_and_tries_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path, room=9)
    bench.run(1)
    bench.finish()
    create = bench.host._shelf.create
    full = iter([NotEnoughMemoryError(tmp_path, 2, 1, 9)])

    def sometimes(model: ModelSpec) -> Worker:
        if error := next(full, None):
            raise error
        return create(model)

    bench.host._shelf.create = sometimes
    bench.run(2, model="two")
    bench.finish()

    assert bench.seeds(2) == [2]
    assert stats(bench) == {"two": []}
    bench.host.close()


def test_out_of_memory_while_a_model_is_prepared_drops_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path, room=9)
    bench.host.handle(Load(1, with_loras(bench, "old", "ink")))
    bench.finish()

    def short(request: GenerationRequest) -> list[Drawing]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    model = with_loras(bench, "one", "oil")
    bench.host.handle(Load(2, model))
    bench.finish()
    bench.workers["one"].begin = short  # type: ignore[method-assign] # a CPU has no such error
    bench.host.handle(Load(3, model, ask(model=model)))
    bench.finish()

    assert bench.answer(3).error is None
    assert stats(bench) == {"old": ["ink"], "one": ["oil"]}
    bench.host.close()


def test_out_of_memory_while_a_lora_is_laid_drops_what_is_idle_but_nothing_that_it_needs(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path, room=9)
    bench.host.handle(Load(1, with_loras(bench, "old", "ink")))
    bench.host.handle(Load(2, with_loras(bench, "one", "ink")))
    bench.finish()
    worker = bench.workers["one"]
    plenty = worker.load_lora
    left = iter(["everything", "all but LoRAs", "all but the other model"])

    def short(path: Path) -> None:
        if path.stem == "wax" and next(left, None):
            raise torch.OutOfMemoryError("CUDA out of memory")
        plenty(path)

    worker.load_lora = short  # type: ignore[method-assign] # a CPU has no such error
    for number in (3, 4):
        bench.host.handle(Load(number, with_loras(bench, "one", "oil", "wax")))
        bench.finish()

    assert isinstance(bench.answer(3).error, OutOfMemoryError)
    assert stats(bench) == {"one": ["oil", "wax"]}
    bench.host.close()


def test_a_load_answers_with_the_loras_bytes_too(bench: Bench) -> None:
    bench.host.handle(Load(1, with_loras(bench, "one", "ink")))

    bench.finish()

    assert bench.answer(1).value == LoadReport(bench.model("one").key, "sd15", 0.0, 2)


def test_a_loader_that_breaks_fails_its_request_alone(bench: Bench) -> None:
    bench.run(1, model="broken")
    bench.run(2)

    bench.finish()

    assert "a bug while loading" in str(bench.outcome(1))
    assert bench.seeds(2) == [2]


def test_the_least_recently_used_model_makes_room(bench: Bench) -> None:
    for number, model in enumerate(["one", "two", "one", "three"]):
        bench.run(number, model=model)
        bench.finish()

    assert bench.workers["two"].closed
    assert not bench.workers["one"].closed
    assert set(bench.registry.get_loaded_models()) == {
        bench.model("one").key,
        bench.model("three").key,
    }


def test_a_model_in_use_is_waited_for_and_nobody_overtakes(tmp_path: Path) -> None:
    bench = Bench(tmp_path, room=1)
    bench.run(1, steps=3)
    bench.host.tick()
    bench.run(2, model="two", steps=1)
    bench.run(3, steps=1)  # its model is loaded, but 2 was here first

    bench.finish()

    assert [bench.seeds(number) for number in (1, 2, 3)] == [[1], [2], [3]]
    assert bench.workers["two"].closed
    bench.host.close()


def test_a_cancelled_request_that_waited_holds_nobody_up(tmp_path: Path) -> None:
    bench = Bench(tmp_path, room=1)
    bench.run(1, steps=50)
    bench.host.tick()
    bench.run(2, model="two")
    bench.run(3, steps=1)
    bench.host.tick()
    bench.host.handle(Cancel(2))
    bench.host.tick()

    assert bench.workers["one"].batches[-1] == [1, 3]
    bench.finish()
    assert bench.seeds(3) == [3]
    bench.host.close()


def test_a_model_that_never_fits_is_refused(tmp_path: Path) -> None:
    bench = Bench(tmp_path, room=0)
    bench.run(1)

    bench.finish()

    assert isinstance(bench.outcome(1), NotEnoughMemoryError)
    bench.host.close()


def test_loading_and_unloading_answer_what_they_did(bench: Bench) -> None:
    model = bench.model("one")
    bench.host.handle(Load(1, model))
    bench.finish()
    bench.host.handle(Load(2, model))
    bench.host.handle(Unload(3, model))
    bench.host.handle(Unload(4, model))
    bench.host.handle(Load(5, ModelSpec(bench.folder / "nowhere")))
    bench.finish()

    assert bench.answer(1).value == LoadReport(model.key, "sd15", 0.0, 1)
    assert bench.answer(2).value == LoadReport(model.key, "sd15", 0.0, 1)
    assert bench.answer(3) == Answer(3)
    assert bench.answer(4) == Answer(4)
    assert isinstance(bench.answer(5).error, ModelNotFoundError)
    assert bench.workers["one"].closed
    assert bench.registry.get_loaded_models() == {}


def test_unloading_waits_for_whoever_draws(bench: Bench) -> None:
    bench.run(1, steps=3)
    bench.host.tick()
    bench.host.handle(Unload(2, bench.model("one")))

    bench.finish()

    assert bench.seeds(1) == [1]
    assert bench.workers["one"].closed
    order = [type(reply).__name__ for reply in bench.said if not isinstance(reply, Measured)]
    assert order[-2:] == ["JobEvent", "Answer"]


def test_questions_are_answered_at_once(bench: Bench) -> None:
    bench.run(1)
    bench.host.handle(Stats(2))
    bench.host.handle(Ping(3))

    assert bench.answer(2).value["device"] == "cpu"
    assert bench.answer(3).error is None


def test_a_failed_forward_pass_holds_no_memory_while_it_is_tried_in_parts(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Activations:
        pass

    held: list[weakref.ref[Activations]] = []

    def step(worker: QuickWorker, drawings: Sequence[Drawing], rows: int) -> None:
        assert all(reference() is None for reference in held)
        if len(drawings) > 1:
            activations = Activations()
            held.append(weakref.ref(activations))
            raise torch.OutOfMemoryError("CUDA out of memory")
        drawings[0].step += 1

    monkeypatch.setattr(QuickWorker, "step", step)
    bench.run(1, steps=2, count=2, guidance_scale=1.0)
    bench.finish()

    assert bench.seeds(1) == [1, 2]
    assert held


def test_the_cpus_own_words_for_out_of_memory_are_understood(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(QuickWorker, "step", lambda *_: torch.empty(2**56, dtype=torch.uint8))
    bench.run(1)
    bench.finish()

    assert "cpu ran out of memory" in str(bench.outcome(1))


def test_out_of_memory_while_loading_is_one_clear_error_and_the_host_lives_on(
    bench: Bench,
) -> None:
    create = bench.host._shelf.create

    def full(model: ModelSpec) -> Worker:
        if model.path.name == "huge":
            torch.empty(2**56, dtype=torch.uint8)
        return create(model)

    bench.host._shelf.create = full
    bench.run(1, "huge")
    bench.host.handle(Load(2, bench.model("huge")))
    bench.run(3)
    bench.finish()

    refused = bench.outcome(1)
    assert isinstance(refused, NotEnoughMemoryError)
    assert refused.path.name == "huge"
    assert isinstance(bench.answer(2).error, NotEnoughMemoryError)
    assert bench.seeds(3) == [3]


def test_a_model_whose_file_was_replaced_is_loaded_anew_when_nobody_draws_with_the_old_one(
    bench: Bench,
) -> None:
    bench.run(1, steps=5)
    bench.host.tick()
    bench.host.tick()
    old = bench.workers["one"]
    [weights] = (bench.model("one").path / "unet").glob("*.safetensors")
    os.utime(weights, ns=(0, 0))
    bench.run(2, steps=2)
    bench.host.tick()
    assert not old.closed
    assert bench.workers["one"] is old
    bench.finish()

    assert bench.seeds(1) == [1]
    assert bench.seeds(2) == [2]
    assert old.closed
    assert old.batches == [[1]] * 5
    assert bench.progress(2)[0].stage is Stage.LOADING
    assert bench.workers["one"].batches == [[2]] * 2
    bench.run(3)
    bench.finish()
    assert bench.progress(3)[0].stage is Stage.ENCODING


def test_a_loaded_model_whose_file_is_gone_goes_on_being_used(bench: Bench) -> None:
    bench.run(1)
    bench.finish()
    request = ask(model=bench.model("one"), width=16, height=16, seed=2)
    shutil.rmtree(bench.folder / "one")

    bench.host.handle(Run(2, "job 2", request))
    bench.finish()

    assert bench.seeds(2) == [2]
    bench.host.handle(Unload(3, request.model))
    bench.host.handle(Run(4, "job 4", request))
    bench.finish()
    assert isinstance(bench.outcome(4), ModelNotFoundError)


def test_a_load_is_announced_since_it_is_silent_for_long(bench: Bench) -> None:
    bench.run(1)
    bench.host.handle(Load(2, bench.model("one")))
    bench.finish()

    assert [type(reply) for reply in bench.said].count(Loading) == 1


def test_the_last_file_is_waited_for_and_not_asked_after_again_and_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, waited = 0, threading.Event()

    def make(*rest: Any) -> GeneratedImage:
        nonlocal made
        made += 1
        if made == 2:
            waited.wait()
        return to_image(*rest)

    def watch(files: Sequence[Future[GeneratedImage]], *rest: Any) -> None:
        if made == 2 and not any(file.done() for file in files):
            waited.set()
        wait(files, *rest)

    monkeypatch.setattr("engine.worker_host.to_image", make)
    monkeypatch.setattr("engine.worker_host.wait", watch)
    bench.run(1, count=2, steps=1)

    try:
        bench.finish()
    finally:
        waited.set()

    assert bench.seeds(1) == [1, 2]


def test_closing_drops_everything(bench: Bench) -> None:
    bench.run(1, steps=50)
    bench.host.tick()

    bench.host.close()
    bench.host.close()

    assert bench.workers["one"].closed
    assert not bench.host.busy


def test_the_real_model_is_drawn_with_like_any_other() -> None:
    said: list[Reply] = []
    host = WorkerHost("cpu", said.append)
    for number, sampler in enumerate(Sampler):
        host.handle(Run(number, f"job {number}", ask(sampler=sampler, steps=2 + number)))

    while host.busy:
        host.tick()
    host.close()

    results = [r.event for r in said if isinstance(r, JobEvent)]
    drawn = [event for event in results if isinstance(event, GenerationResult)]
    assert sorted(event.job_id for event in drawn) == [f"job {n}" for n in range(len(Sampler))]
    assert all(event.images[0].png.startswith(b"\x89PNG") for event in drawn)


def test_a_device_that_torch_does_not_have_is_refused() -> None:
    with pytest.raises(DeviceUnusableError, match="can't start: torch can't use the device"):
        prepare_device("cuda:99", may_fall_back=False)
    with pytest.raises(DeviceUnusableError, match="can't start"):
        prepare_device("toaster", may_fall_back=False)


def test_a_device_that_nobody_named_may_become_the_cpu(caplog: pytest.LogCaptureFixture) -> None:
    assert prepare_device("cuda:99", may_fall_back=True) == "cpu"
    assert "Drawing on the CPU instead" in caplog.text


def sizes(bench: Bench) -> set[int]:
    """Rows of the passes that were made, two for each picture."""
    return {2 * len(batch) for batch in bench.workers["one"].batches}


def crowd(bench: Bench, first: int, requests: int = 4, steps: int = 6) -> None:
    for number in range(first, first + requests):
        bench.run(number, steps=steps)
    bench.finish()


def flat_up_to(rows: int, seconds: float) -> Callable[[int], float]:
    return lambda asked: seconds * max(1.0, asked / rows)


@pytest.mark.parametrize(("knee", "most"), [(2, 2), (4, 4), (8, 8), (99, 8)])
def test_pictures_share_passes_up_to_where_more_rows_bring_no_more(
    tmp_path: Path, knee: int, most: int
) -> None:
    bench = Bench(tmp_path)
    bench.cost = flat_up_to(knee, 0.01)
    crowd(bench, 1, requests=1)
    bench.workers["one"].batches.clear()

    crowd(bench, 2)

    assert max(sizes(bench)) == most
    bench.host.close()


def test_how_many_rows_are_worth_while_is_tried_once_for_a_size(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.cost = flat_up_to(4, 0.01)
    crowd(bench, 1)
    tried = list(bench.workers["one"].rehearsed)
    crowd(bench, 5)

    assert set(tried) == {2, 4}
    assert bench.workers["one"].rehearsed == tried
    bench.host.close()


def test_nothing_is_tried_where_it_takes_long_and_it_is_learned_while_drawing(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path)
    bench.cost = flat_up_to(2, REHEARSAL_SECONDS)
    crowd(bench, 1, requests=1)
    crowd(bench, 2)
    assert bench.workers["one"].rehearsed == []
    assert max(sizes(bench)) == 8
    bench.workers["one"].batches.clear()

    crowd(bench, 6)

    assert sizes(bench) == {2}
    bench.host.close()


def test_trying_ends_before_it_takes_long(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.cost = flat_up_to(99, REHEARSAL_SECONDS / 10)
    crowd(bench, 1, requests=1)

    worker = bench.workers["one"]
    assert sum(bench.cost(rows) for rows in worker.rehearsed) <= REHEARSAL_SECONDS
    assert worker.rehearsed
    bench.host.close()


def test_trying_rows_that_do_not_fit_is_no_failure(tmp_path: Path) -> None:
    bench = Bench(tmp_path, fits=4)
    bench.cost = flat_up_to(99, 0.01)
    crowd(bench, 1)

    assert [bench.seeds(number) for number in range(1, 5)] == [[1], [2], [3], [4]]
    assert max(sizes(bench)) == 4
    bench.host.close()


def test_what_things_take_is_told_and_remembered(tmp_path: Path) -> None:
    file = MeasuredFile(tmp_path / "measured.json")
    bench = Bench(tmp_path, measured=file)
    bench.cost = flat_up_to(4, 0.01)
    crowd(bench, 1)
    bench.host.close()

    told = Pace()
    for reply in bench.said:
        if isinstance(reply, Measured):
            told.take(reply.figures)
    key, size = bench.model("one").key, 16 * 16
    again = Bench(tmp_path, measured=file)
    [first] = again.said
    assert isinstance(first, Measured)
    remembered = Pace(first.figures)
    for pace in (told, remembered):
        assert pace.pass_seconds(key, size, 2) == pytest.approx(0.01)
        assert pace.pass_seconds(key, size, 8) == pytest.approx(0.02)
        assert pace.most_rows(key, size, 8) == 4
        assert pace.seconds(Act.LOAD, key) == pace.seconds(Act.BEGIN, key) == 0
        assert pace.seconds(Act.DECODE, key, size) == 0
    again.cost = flat_up_to(4, 0.01)
    crowd(again, 1)
    assert again.workers["one"].rehearsed == []
    assert max(sizes(again)) == 4
    again.host.close()


def test_each_step_and_load_is_told_once_and_what_is_only_tried_never(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.cost = flat_up_to(99, 0.01)
    for number in range(1, 6):  # one after the other, so that more rows are tried beside them
        bench.run(number, steps=4)
        bench.finish()
    assert bench.workers["one"].rehearsed

    told = [each for r in bench.said if isinstance(r, Measured) for each in r.measurements]
    assert [each.act for each in told] == [Act.LOAD] + [Act.PASS] * 5 * 4
    assert {each.family for each in told} == {"sd15"}
    assert sum(each.seconds for each in told) == pytest.approx(5 * 4 * 0.01)
    bench.host.close()


def test_it_says_which_models_are_loaded(bench: Bench) -> None:
    bench.run(1)
    bench.finish()
    bench.host.handle(Unload(2, bench.model("one")))
    bench.finish()

    loaded = [reply.loaded for reply in bench.said if isinstance(reply, Measured)]
    assert [names for names, _ in itertools.groupby(loaded)] == [(bench.model("one").key,), ()]
