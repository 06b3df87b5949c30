import copy
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch  # noqa: TID253 - the subject is made of it
from diffusers import (  # noqa: TID253 - what is compared with
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLPipeline,
)
from PIL import Image

from engine.errors import (
    DreamLabError,
    JobCancelledError,
    NotEnoughMemoryError,
    UnsupportedModelError,
)
from engine.images import read_png
from engine.jobs import (
    Family,
    GenerationRequest,
    GenerationResult,
    ModelSpec,
    Progress,
    Sampler,
    Stage,
)
from engine.messages import Cancel, JobEvent, JobFailed, Reply, Run
from engine.model_registry import ModelRegistry
from engine.worker_factory import WorkerFactory
from engine.worker_host import WorkerHost
from engine.workers.base import Drawing, Worker
from tests.single_file_kit import save_tiny
from tests.stock_kit import STOCK, aligned
from tests.tiny_models import save_pipeline
from tests.worker_kit import ask

SIZE = 64


@dataclass
class Pair:
    """A tiny base model and a tiny refiner: our workers, and the stock pipelines."""

    base: ModelSpec
    refiner: ModelSpec
    workers: dict[str, Worker] = field(default_factory=dict)
    pipelines: dict[str, Any] = field(default_factory=dict)

    def ask(self, **changes: Any) -> GenerationRequest:
        given = {"model": self.base, "refiner": self.refiner, "refiner_from": 0.6}
        size = {"width": SIZE, "height": SIZE, "steps": 6}
        # The tiny encoders take so many letters; stock pipelines cut off what goes beyond.
        return ask(**{"prompt": "a red tree", **size, **given, **changes})

    def worker(self, model: ModelSpec) -> Worker:
        if model.key not in self.workers:
            self.workers[model.key] = WorkerFactory("cpu").create(model)
        return self.workers[model.key]

    def lend(self, model: ModelSpec) -> Worker:
        """Returns a worker that a host may close: over the weights that are loaded already."""
        return copy.copy(self.worker(model))

    def alone(self, request: GenerationRequest) -> Drawing:
        [drawing] = self.worker(self.base).begin(request)
        self.run([drawing])
        return drawing

    def run(self, drawings: Sequence[Drawing]) -> None:
        """Draws each by itself."""
        for drawing in drawings:
            worker = self.worker(self.base)
            while not drawing.done:
                if drawing.leaves:
                    worker = self.worker(self.refiner)
                    worker.take_over(drawing)
                worker.step([drawing])

    def stock(self, request: GenerationRequest, output_type: str = "latent") -> Any:
        words = {
            "prompt": request.prompt,
            "negative_prompt": request.negative_prompt,
            "num_inference_steps": request.steps,
            "guidance_scale": request.guidance_scale,
            "generator": torch.Generator().manual_seed(request.seed),
        }
        ends = {"denoising_end": request.refiner_from, "output_type": "latent"}
        if request.source is None:
            size = {"width": request.width, "height": request.height}
            base = self.pipeline(StableDiffusionXLPipeline, self.base, request.sampler)
            latents = base(**words, **ends, **size).images
        else:
            base = self.pipeline(StableDiffusionXLImg2ImgPipeline, self.base, request.sampler)
            with Image.open(request.source) as image:
                latents = base(**words, **ends, image=image, strength=request.strength).images
        refiner = self.pipeline(StableDiffusionXLImg2ImgPipeline, self.refiner, request.sampler)
        more = {"denoising_start": request.refiner_from, "output_type": output_type}
        return refiner(**words, **more, image=latents).images[0]

    def pipeline(self, kind: Any, model: ModelSpec, sampler: Sampler) -> Any:
        name = f"{kind.__name__} {model.key}"
        if name not in self.pipelines:
            pipeline = kind.from_pretrained(
                model.path, dtype=torch.float32, local_files_only=True, add_watermarker=False
            )
            pipeline.set_progress_bar_config(disable=True)
            self.pipelines[name] = aligned(pipeline)
        path = model.path / "scheduler" / "scheduler_config.json"
        self.pipelines[name].scheduler = STOCK[sampler](json.loads(path.read_text()))
        return self.pipelines[name]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("pair")
    for family in (Family.SDXL, Family.SDXL_REFINER):
        save_tiny(family, folder / family, shallow=True)
    pair = Pair(ModelSpec(folder / Family.SDXL), ModelSpec(folder / Family.SDXL_REFINER))
    yield pair
    for worker in pair.workers.values():
        worker.close()


@pytest.mark.parametrize(
    ("sampler", "share"),
    [
        *((sampler, 0.3) for sampler in Sampler if sampler is not Sampler.HEUN),
        (Sampler.EULER_A, 0.8),
        (Sampler.UNIPC, 0.8),
    ],
)
def test_alone_a_picture_is_bit_equal_to_the_two_stock_pipelines(
    pair: Pair, sampler: Sampler, share: float
) -> None:
    request = pair.ask(sampler=sampler, refiner_from=share, steps=5)

    drawing = pair.alone(request)

    assert torch.equal(drawing.latents[0], pair.stock(request))
    assert drawing.step == drawing.steps == 5


def test_pixels_are_equal_too(pair: Pair) -> None:
    request = pair.ask(steps=3, guidance_scale=1.0, sampler=Sampler.EULER_A)

    pixels = pair.worker(pair.refiner).decode(pair.alone(request))

    assert np.array_equal(pixels, np.asarray(pair.stock(request, "pil")))


def test_a_picture_to_start_from_is_refined_as_the_stock_pipelines_do(
    pair: Pair, tmp_path: Path
) -> None:
    noise = np.random.default_rng(5).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "source.png")
    request = pair.ask(source=tmp_path / "source.png", strength=0.7, sampler=Sampler.EULER_A)

    drawing = pair.alone(request)

    assert torch.equal(drawing.latents[0], pair.stock(request))
    assert drawing.steps == request.steps_taken == 4


def test_what_is_hardly_drawn_anew_is_all_the_refiners(pair: Pair, tmp_path: Path) -> None:
    Image.new("RGB", (SIZE, SIZE), "teal").save(tmp_path / "source.png")
    request = pair.ask(source=tmp_path / "source.png", strength=0.34, refiner_from=0.2)

    [drawing] = pair.worker(pair.base).begin(request)
    assert drawing.leaves
    pair.run([drawing])

    # No more steps than the strength asks for: the picture holds no more noise than that.
    assert drawing.step == request.steps_taken == 2


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.6, 0.9, 1.0])
def test_heun_changes_hands_between_steps_and_makes_all_of_them(pair: Pair, share: float) -> None:
    # The stock pipelines cut such a step in two and make its first half twice.
    request = pair.ask(sampler=Sampler.HEUN, refiner_from=share, steps=4)
    [drawing] = pair.worker(pair.base).begin(request)
    begun = drawing.handover

    pair.run([drawing])

    assert begun is not None
    assert begun % 2 == 0 or begun == drawing.steps
    assert drawing.step == drawing.steps == Sampler.HEUN.passes(4)
    assert drawing.latents.isfinite().all()


def test_a_share_of_all_steps_leaves_nothing_to_the_refiner(pair: Pair) -> None:
    whole = pair.alone(pair.ask(refiner_from=1.0))

    assert torch.equal(whole.latents, pair.alone(pair.ask(refiner=None)).latents)


class Bench:
    """A host beside the CPU with the two tiny models, and everything that it said."""

    def __init__(
        self, pair: Pair, create: Callable[[ModelSpec], Worker] | None = None, room: int = 9
    ) -> None:
        self.pair = pair
        self.said: list[Reply] = []
        self.now = 0.0
        self.registry = SmallRegistry(room)
        self.host = WorkerHost(
            "cpu",
            self.said.append,
            create=create or pair.lend,
            registry=self.registry,
            clock=self.clock,
        )

    def clock(self) -> float:
        self.now += 1  # every report is due
        return self.now

    def run(self, number: int, request: GenerationRequest | None = None, **changes: Any) -> None:
        asked = request or self.pair.ask(seed=number, **changes)
        self.host.handle(Run(number, f"job {number}", asked))

    def finish(self) -> None:
        for _ in range(10_000):
            if not self.host.busy:
                return
            self.host.tick()
        pytest.fail("the host never came to rest")

    def outcome(self, number: int) -> GenerationResult | DreamLabError:
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

    def progress(self, number: int) -> list[Progress]:
        events = [r.event for r in self.said if isinstance(r, JobEvent) and r.run_id == number]
        return [event for event in events if isinstance(event, Progress)]

    def leased(self) -> list[bool]:
        return [self.registry.in_use(model.key) for model in (self.pair.base, self.pair.refiner)]


class SmallRegistry(ModelRegistry):
    """The registry of a device with room for so many models."""

    def __init__(self, room: int) -> None:
        super().__init__("cpu")
        self.room = room

    def make_room(self, vram_bytes: int, model_path: Path | str) -> list[str]:
        loaded = self.get_loaded_models()
        idle = [model for name, model in loaded.items() if not self.in_use(name)]
        if len(loaded) < self.room:
            return []
        if not idle:
            raise NotEnoughMemoryError(model_path, vram_bytes, 0, 0)
        return [idle[0].name]


@contextmanager
def bench(
    pair: Pair, create: Callable[[ModelSpec], Worker] | None = None, room: int = 9
) -> Iterator[Bench]:
    bench = Bench(pair, create, room)
    try:
        yield bench
    finally:
        bench.host.close()


def test_both_models_draw_one_picture_and_it_says_so(pair: Pair) -> None:
    request = pair.ask(sampler=Sampler.EULER_A, seed=1)
    with bench(pair) as it:
        it.run(1, request)
        it.finish()

        outcome = it.outcome(1)
        assert it.leased() == [False, False]
    assert isinstance(outcome, GenerationResult)
    [image] = outcome.images
    drawn = pair.worker(pair.refiner).decode(pair.alone(request))
    [(_, pixels)] = [(image.seed, decoded(image.png))]
    assert np.array_equal(pixels, drawn)
    parameters = read_png(image.png)
    assert parameters is not None
    assert parameters.settings["Refiner"] == pair.refiner.path.name
    assert parameters.settings["Refiner switch at"] == "0.6"


def decoded(png: bytes) -> np.ndarray[Any, Any]:
    import io

    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image)


def test_progress_and_previews_go_on_across_the_change(pair: Pair) -> None:
    with bench(pair) as it:
        it.run(1)
        it.finish()
        drawing = [p for p in it.progress(1) if p.stage is Stage.DENOISING]

    assert [(p.step, p.steps) for p in drawing] == [(step, 6) for step in range(1, 6)]
    assert all((p.preview or b"").startswith(b"\xff\xd8") for p in drawing)
    assert [p.stage for p in it.progress(1)][:3] == [Stage.LOADING, Stage.LOADING, Stage.ENCODING]


def test_whoever_is_on_one_side_shares_its_passes_and_nobody_else(pair: Pair) -> None:
    batches: list[tuple[Family, list[int]]] = []

    def create(model: ModelSpec) -> Worker:
        worker = pair.lend(model)
        step = worker.step

        def seen(drawings: Sequence[Drawing], rows: int = 0) -> None:
            batches.append((worker.family, sorted(drawing.seed for drawing in drawings)))
            step(drawings, rows)

        worker.step = seen  # type: ignore[method-assign] # the real step, watched
        return worker

    with bench(pair, create) as it:
        it.run(1, refiner_from=0.5)
        it.run(2, refiner=None)
        it.run(3, pair.ask(model=pair.refiner, refiner=None, seed=3))
        it.finish()
        assert all(isinstance(it.outcome(n), GenerationResult) for n in (1, 2, 3))

    both = {family: [seeds for f, seeds in batches if f is family] for family in Family}
    assert [1, 2] in both[Family.SDXL]
    assert [1, 3] in both[Family.SDXL_REFINER]
    assert all(3 not in seeds for seeds in both[Family.SDXL])
    assert all(2 not in seeds for seeds in both[Family.SDXL_REFINER])


def test_a_refiner_whose_steps_lie_elsewhere_may_have_none_left(pair: Pair, tmp_path: Path) -> None:
    refiner = tmp_path / "trailing"
    shutil.copytree(pair.refiner.path, refiner)
    config = refiner / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"timestep_spacing": "trailing"}))

    # The base has a step below a fifth of the noise, the refiner none.
    with bench(pair) as it:
        it.run(1, refiner=ModelSpec(refiner), refiner_from=0.8, steps=4, count=3)
        it.run(2, refiner=ModelSpec(refiner), refiner_from=0.5, steps=4)
        it.finish()

        assert all(isinstance(it.outcome(number), GenerationResult) for number in (1, 2))


@pytest.mark.parametrize("ticks", [2, 5])
def test_a_cancel_frees_both_models_on_either_side(pair: Pair, ticks: int) -> None:
    with bench(pair) as it:
        it.run(1, count=2)
        for _ in range(ticks):
            it.host.tick()
        assert it.leased() == [True, True]

        it.host.handle(Cancel(1))

        assert isinstance(it.outcome(1), JobCancelledError)
        assert it.leased() == [False, False]
        it.run(2)
        it.finish()
        assert isinstance(it.outcome(2), GenerationResult)


@pytest.mark.parametrize("family", [Family.SDXL, Family.SDXL_REFINER])
@pytest.mark.parametrize("fault", ["nan", "memory", "bug"])
def test_what_goes_wrong_on_either_side_ends_that_request_alone(
    pair: Pair, family: Family, fault: str
) -> None:
    # A CPU doesn't run out of memory as a GPU does, and a sound model draws no NaN: both are
    # put in where they would come from.
    def create(model: ModelSpec) -> Worker:
        worker = pair.lend(model)
        step = worker.step

        def faulty(drawings: Sequence[Drawing], rows: int = 0) -> None:
            mine = [d for d in drawings if d.seed == 1 and worker.family is family]
            if mine and fault == "memory":
                raise torch.OutOfMemoryError("CUDA out of memory")
            if mine and fault == "bug":
                raise ValueError("a bug")
            step(drawings, rows)
            for drawing in mine:
                drawing.latents = drawing.latents * float("nan")

        worker.step = faulty  # type: ignore[method-assign] # see above
        return worker

    with bench(pair, create) as it:
        it.run(1)
        it.run(2)
        it.finish()

        told = {"nan": "no numbers", "memory": "ran out of memory", "bug": "a bug"}[fault]
        assert told in str(it.outcome(1))
        assert isinstance(it.outcome(2), GenerationResult)
        assert it.leased() == [False, False]


def test_a_refiner_that_cannot_take_over_fails_its_request_alone(pair: Pair) -> None:
    def create(model: ModelSpec) -> Worker:
        worker = WorkerFactory("cpu").create(model)
        if worker.family is Family.SDXL_REFINER:
            worker._parts.readers[0].tokenizer.__class__ = type("Broken", (), {})  # type: ignore[attr-defined]
        return worker

    with bench(pair, create) as it:
        it.run(1)
        it.run(2, refiner=None)
        it.finish()

        assert "Drawing failed" in str(it.outcome(1))
        assert isinstance(it.outcome(2), GenerationResult)
        assert it.leased() == [False, False]


def test_models_that_do_not_fit_together_are_both_named(pair: Pair) -> None:
    with bench(pair, room=1) as it:
        it.run(1)
        it.run(2, refiner=None)
        it.finish()

        outcome = it.outcome(1)
        assert isinstance(outcome, NotEnoughMemoryError)
        assert outcome.path == pair.refiner.path
        assert str(pair.refiner.path) in str(outcome)
        assert str(pair.base.path) in str(outcome)
        assert isinstance(it.outcome(2), GenerationResult)


def test_loading_the_refiner_does_not_drop_the_model_that_it_refines(pair: Pair) -> None:
    with bench(pair, room=2) as it:
        it.run(1, pair.ask(model=pair.refiner, refiner=None, seed=1))
        it.finish()
        other = ModelSpec(pair.base.path, prediction_type="v_prediction")
        it.run(2, pair.ask(model=other, seed=2))
        it.finish()
        it.run(3)
        it.finish()

        assert all(isinstance(it.outcome(n), GenerationResult) for n in (1, 2, 3))


def test_only_a_refiner_refines_and_only_a_base_model_is_refined(
    pair: Pair, tmp_path: Path
) -> None:
    other = ModelSpec(save_pipeline(tmp_path / "other"))
    loaded: list[ModelSpec] = []

    def create(model: ModelSpec) -> Worker:
        loaded.append(model)
        return WorkerFactory("cpu").create(model)

    wrong = {
        1: (other, pair.refiner, other),
        2: (pair.base, other, other),
        3: (pair.base, pair.base, pair.base),
        4: (pair.refiner, pair.refiner, pair.refiner),
    }
    with bench(pair, create) as it:
        for number, (model, refiner, _) in wrong.items():
            it.run(number, pair.ask(model=model, refiner=refiner, seed=number))
        it.finish()

        assert loaded == []
        for number, (_, _, blamed) in wrong.items():
            outcome = it.outcome(number)
            assert isinstance(outcome, UnsupportedModelError)
            assert outcome.path == blamed.path
            assert "the model is SDXL base and the refiner SDXL refiner" in str(outcome)
