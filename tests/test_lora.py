import gc
import json
import logging
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch  # noqa: TID253 - the subject is made of it
from diffusers import (  # noqa: TID253 - what is compared with
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from peft import set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file

from engine.errors import (
    ModelError,
    ModelFormatError,
    ModelNotFoundError,
    UnsupportedModelError,
)
from engine.families import config_folder
from engine.jobs import Family, GenerationResult, LoraSpec, ModelSpec, Sampler
from engine.messages import Answer, JobEvent, Reply, Run, Stats
from engine.worker_factory import WorkerFactory
from engine.worker_host import WorkerHost
from engine.workers.latent import LatentWorker
from engine.workers.lora import Layer, LoraFile, Pair
from tests.lora_kit import LAYOUTS, Pairs, kohya, layers, parts_of, peft, random_pairs, save_lora
from tests.single_file_kit import save_tiny
from tests.stock_kit import STOCK, aligned
from tests.tiny_models import write_tensors
from tests.worker_kit import ask

COMPARED = (Family.SD15, Family.SDXL)
"""Families with a stock pipeline that draws from text and takes LoRAs."""


SMALL = ask(prompt="a red house", width=64, height=64, steps=2)
"""Its prompt is no longer than the tiny text encoders read at once."""


@dataclass(frozen=True)
class Tiny:
    """A family's pipeline with tiny layers, loaded once without LoRAs and once to lay some over it.

    That nothing of them stays is tested here. The stock pipeline is loaded once as well.
    """

    family: Family
    model: ModelSpec
    worker: LatentWorker
    other: LatentWorker

    @property
    def parts(self) -> dict[str, Any]:
        return parts_of(self.worker)

    def lora(self, path: Path, pairs: Pairs, layout: str = "kohya") -> Path:
        return save_lora(path, LAYOUTS[layout](pairs, self.family, self.parts))

    def with_loras(self, *loras: LoraSpec) -> ModelSpec:
        return replace(self.model, loras=loras)

    @cached_property
    def pipeline(self) -> Any:
        kind = StableDiffusionXLPipeline if self.family is Family.SDXL else StableDiffusionPipeline
        pipeline = kind.from_pretrained(self.model.path, dtype=torch.float32, local_files_only=True)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    @cached_property
    def plain(self) -> torch.Tensor:
        """The latents of a small picture without LoRAs."""
        return drawn(self.worker)


def load(model: ModelSpec) -> LatentWorker:
    worker = WorkerFactory("cpu").create(model)
    assert isinstance(worker, LatentWorker)
    return worker


@pytest.fixture(scope="module")
def tinies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Family], Tiny]]:
    made: dict[Family, Tiny] = {}

    def tiny(family: Family) -> Tiny:
        if family not in made:
            folder = tmp_path_factory.mktemp(family) / "tiny"
            save_tiny(family, folder, shallow=True)
            model = ModelSpec(folder)
            made[family] = Tiny(family, model, load(model), load(model))
        return made[family]

    yield tiny
    for one in made.values():
        one.worker.close()
        one.other.close()


@pytest.fixture
def tiny(request: pytest.FixtureRequest, tinies: Callable[[Family], Tiny]) -> Tiny:
    return tinies(getattr(request, "param", Family.SD15))


compared = pytest.mark.parametrize("tiny", COMPARED, indirect=True)


def drawn(worker: LatentWorker, model: ModelSpec | None = None) -> torch.Tensor:
    """Returns the latents of a small picture."""
    [drawing] = worker.begin(replace(SMALL, model=model or worker.model))
    while not drawing.done:
        worker.step([drawing])
    return drawing.latents


def drawn_as(worker: LatentWorker, loras: Sequence[LoraSpec]) -> torch.Tensor:
    """Returns the same with LoRAs that are in memory."""
    return drawn(worker, replace(worker.model, loras=tuple(loras)))


def drawn_with(tiny: Tiny, *loras: LoraSpec) -> torch.Tensor:
    """Returns the same with LoRAs over the model, which are gone afterwards."""
    with laid(tiny.worker, *(lora.path for lora in loras)):
        return drawn(tiny.worker, tiny.with_loras(*loras))


@contextmanager
def laid(worker: LatentWorker, *paths: Path) -> Iterator[None]:
    """Loads LoRAs, and drops them again."""
    try:
        for path in dict.fromkeys(paths):
            worker.load_lora(path)
        yield
    finally:
        for path in paths:
            worker.drop_lora(path)


def stock(tiny: Tiny, *sets: Sequence[LoraSpec]) -> list[torch.Tensor]:
    """Returns what the stock pipeline draws with sets of LoRAs, each LoRA loaded once.

    It is made as diffusers' documentation tells people to.
    """
    pipeline = tiny.pipeline
    files = {lora.adapter_name: lora.path for loras in sets for lora in loras}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config`")
        for name, file in files.items():
            pipeline.load_lora_weights(str(file), adapter_name=name)
    request = SMALL
    path = tiny.model.path / "scheduler" / "scheduler_config.json"
    drawings = []
    for loras in sets:
        names = [lora.adapter_name for lora in loras]
        pipeline.set_adapters(names, [lora.strength for lora in loras])
        pipeline.scheduler = STOCK[Sampler.EULER](json.loads(path.read_text()))
        drawings.append(
            aligned(pipeline)(
                request.prompt,
                negative_prompt=request.negative_prompt,
                width=64,
                height=64,
                num_inference_steps=2,
                guidance_scale=request.guidance_scale,
                generator=torch.Generator().manual_seed(request.seed),
                output_type="latent",
            ).images
        )
    pipeline.unload_lora_weights()
    return drawings


def differs(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Returns whether two drawings differ by far more than rounding."""
    return bool((one - other).abs().max() > 1e-2)


@compared
def test_several_loras_draw_what_the_stock_pipeline_draws(tiny: Tiny, tmp_path: Path) -> None:
    loras = [
        LoraSpec(
            tiny.lora(
                tmp_path / f"{layout}.safetensors",
                random_pairs(tiny.parts, rank, [rank], [float(rank)]),
                layout,
            ),
            strength,
            layout,
        )
        for layout, rank, strength in zip(LAYOUTS, (4, 2, 3), (0.7, -0.4, 1.5), strict=True)
    ]

    with laid(tiny.worker, *(lora.path for lora in loras)):
        latents = drawn_as(tiny.worker, loras)
        without_the_last = drawn_as(tiny.worker, loras[:2])

    assert torch.equal(latents, stock(tiny, loras)[0])
    assert differs(latents, without_the_last)


@pytest.mark.parametrize("family", Family)
def test_a_lora_adds_its_pairs_to_the_weights(family: Family, tmp_path: Path) -> None:
    # In kohya's names, layers have numbers: here the family has as many as it has.
    save_tiny(family, tmp_path / "deep")
    worker = load(ModelSpec(tmp_path / "deep"))
    deep = Tiny(family, worker.model, worker, worker)
    pairs = random_pairs(deep.parts, 3, [4, 2, 1], [4.0, 1.0])
    path = deep.lora(tmp_path / "mixed.safetensors", pairs)
    plain = drawn(worker)

    latents = drawn_with(deep, LoraSpec(path, -0.5))

    for place, layer in layers(deep.parts).items():
        if place in pairs:
            pair = pairs[place]
            product = (pair.up.flatten(1) @ pair.down.flatten(1)).view_as(layer.weight)
            layer.weight += -0.5 * pair.alpha / pair.rank * product
    worker.rest()  # forgets what it read
    expected = drawn(worker)
    assert len(pairs) > 20
    torch.testing.assert_close(latents, expected, atol=1e-3 * expected.abs().max().item(), rtol=0)
    assert differs(latents, plain)
    worker.close()


@pytest.mark.parametrize("family", Family)
def test_every_layer_of_a_unet_is_known_by_diffusers_name_in_kohyas_spelling(
    family: Family, tmp_path: Path
) -> None:
    config = json.loads((config_folder(family) / "unet" / "config.json").read_text())
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(config)
    known = {name: at for name, at in unet.named_modules() if isinstance(at, Layer)}
    tensors = {}
    for name, layer in known.items():
        out, *into = layer.weight.shape
        stem = f"lora_unet_{name.replace('.', '_')}"
        tensors[f"{stem}.lora_down.weight"] = torch.zeros(1, *into)
        tensors[f"{stem}.lora_up.weight"] = torch.zeros(out, 1, *(1 for _ in into[1:]))

    file = LoraFile.read(save_lora(tmp_path / "all.safetensors", tensors), unet)

    assert file.pairs({"unet": known})["unet"].keys() == known.keys()


def test_strength_0_is_no_lora(tiny: Tiny, tmp_path: Path) -> None:
    path = tiny.lora(tmp_path / "ink.safetensors", random_pairs(tiny.parts, 1))

    latents = drawn_with(tiny, LoraSpec(path, 0.0))

    assert torch.equal(latents, tiny.plain)


def test_the_models_own_weights_stay_bit_for_bit(tiny: Tiny, tmp_path: Path) -> None:
    path = tiny.lora(tmp_path / "ink.safetensors", random_pairs(tiny.parts, 1))

    with laid(tiny.other, path):
        drawn_as(tiny.other, [LoraSpec(path, 1.0, "a"), LoraSpec(path, -3.0, "b")])
        states = {part: module.state_dict() for part, module in parts_of(tiny.other).items()}

    for part, plain in tiny.parts.items():
        own = {
            name.replace(".base_layer.", "."): tensor
            for name, tensor in states[part].items()
            if ".lora_" not in name
        }
        assert len(own) < len(states[part])
        assert own.keys() == plain.state_dict().keys()
        assert all(torch.equal(own[name], tensor) for name, tensor in plain.state_dict().items())


# Sets over one model


@dataclass(frozen=True)
class Sets:
    """A model with two LoRAs in memory, and what several sets of them are."""

    worker: LatentWorker
    sets: tuple[tuple[LoraSpec, ...], ...]


@pytest.fixture
def sets(tiny: Tiny) -> Sets:
    """The LoRAs stay in memory from test to test: only what one dropped is loaded anew."""
    ink, oil = paths = [tiny.model.path.with_name(f"{name}.safetensors") for name in ("ink", "oil")]
    for seed, (path, layout) in enumerate(zip(paths, ("kohya", "peft"), strict=True)):
        if not path.exists():
            tiny.lora(path, random_pairs(tiny.parts, seed), layout)
    for path in set(tiny.other.loras) - {*paths}:
        tiny.other.drop_lora(path)
    for path in paths:
        if not tiny.other.holds_lora(path):
            tiny.other.load_lora(path)
    return Sets(
        tiny.other,
        (
            (LoraSpec(ink, 0.7, "ink"),),
            (LoraSpec(oil, 1.0, "oil"),),
            (LoraSpec(ink, -0.3, "ink"), LoraSpec(oil, 0.5, "oil")),
            (LoraSpec(oil, 0.5, "oil"), LoraSpec(ink, -0.3, "ink")),
            (LoraSpec(ink, 0.2, "ink"),),
        ),
    )


@compared
def test_sets_that_take_turns_draw_what_the_stock_pipeline_draws(tiny: Tiny, sets: Sets) -> None:
    expected = stock(tiny, *sets.sets)
    assert all(differs(latents, tiny.plain) for latents in expected)

    for _ in range(2):
        for loras, latents in zip(sets.sets, expected, strict=True):
            assert torch.equal(drawn_as(sets.worker, loras), latents)
        assert torch.equal(drawn_as(sets.worker, ()), tiny.plain)


def test_steps_of_different_sets_do_not_touch_each_other(sets: Sets) -> None:
    models = [replace(sets.worker.model, loras=loras) for loras in (*sets.sets, ())]
    alone = [drawn(sets.worker, model) for model in models]

    drawings = [sets.worker.begin(replace(SMALL, model=model))[0] for model in models]
    assert len({sets.worker.batch_key(drawing) for drawing in drawings}) == len(models)
    for _ in range(SMALL.steps):
        for drawing in drawings:
            sets.worker.step([drawing])

    assert all(
        torch.equal(drawing.latents, latents)
        for drawing, latents in zip(drawings, alone, strict=True)
    )


def test_equal_sets_share_a_forward_pass(sets: Sets) -> None:
    model = replace(sets.worker.model, loras=sets.sets[2])
    one, two = (
        sets.worker.begin(replace(SMALL, model=model, seed=seed, prompt=prompt))[0]
        for seed, prompt in enumerate(["a hill", "a lake"])
    )

    assert sets.worker.batch_key(one) == sets.worker.batch_key(two)
    sets.worker.step([one, two])
    assert (one.step, two.step) == (1, 1)


def test_wearing_the_same_set_again_sets_nothing(
    sets: Sets, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapters = sets.worker._parts.loras
    adapters.wear(sets.sets[2])
    monkeypatch.setattr(LoraLayer, "set_adapter", None)  # calling it would raise

    adapters.wear(sets.sets[2])

    assert adapters.worn == adapters.choice(sets.sets[2])


def test_failing_halfway_into_another_set_leaves_nothing_of_it(
    sets: Sets, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = drawn_as(sets.worker, sets.sets[0])
    layers_left = iter(range(5))
    set_scale = LoraLayer.set_scale

    def fail(layer: Any, *rest: Any) -> None:  # no real set does
        if next(layers_left, None) is None:
            raise MemoryError
        set_scale(layer, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(LoraLayer, "set_scale", fail)
        with pytest.raises(MemoryError):
            drawn_as(sets.worker, sets.sets[1])

    assert torch.equal(drawn_as(sets.worker, sets.sets[0]), alone)


@compared
def test_dropping_leaves_the_model_as_if_there_had_been_no_lora(tiny: Tiny, sets: Sets) -> None:
    drawn_as(sets.worker, sets.sets[2])

    ink, oil = (lora.path for lora in sets.sets[2])
    sets.worker.drop_lora(ink)
    one_left = drawn_as(sets.worker, sets.sets[1])
    sets.worker.drop_lora(oil)
    sets.worker.drop_lora(oil)

    assert torch.equal(one_left, drawn_with(tiny, *sets.sets[1]))
    for part, module in parts_of(sets.worker).items():
        state, plain = module.state_dict(), tiny.parts[part].state_dict()
        assert list(state) == list(plain)
        assert all(torch.equal(state[name], tensor) for name, tensor in plain.items())
        assert [*map(type, module.modules())] == [*map(type, tiny.parts[part].modules())]
        assert not hasattr(module, "peft_config") or not module.peft_config
        assert not any(tensor.requires_grad for tensor in module.parameters())
    assert sets.worker.weight_bytes == tiny.worker.weight_bytes
    assert torch.equal(drawn_as(sets.worker, ()), tiny.plain)


def test_dropping_gives_the_memory_back(sets: Sets) -> None:
    weights = [
        weakref.ref(tensor)
        for name, tensor in sets.worker._parts.unet.named_parameters()
        if ".lora_" in name
    ]
    assert len(weights) > 20
    drawn_as(sets.worker, sets.sets[2])

    for path in sets.worker.loras:
        sets.worker.drop_lora(path)
    gc.collect()

    assert not any(weight() is not None for weight in weights)


def test_a_file_that_changed_is_read_anew(tiny: Tiny, tmp_path: Path) -> None:
    worker = tiny.other
    ink = LoraSpec(tiny.lora(tmp_path / "ink.safetensors", random_pairs(tiny.parts, 0)), 0.7)
    with laid(worker, ink.path):
        before = drawn_as(worker, [ink])
        assert worker.holds_lora(ink.path)

        tiny.lora(ink.path, random_pairs(tiny.parts, 99, [3]))
        assert not worker.holds_lora(ink.path)
        assert torch.equal(drawn_as(worker, [ink]), before)  # copied, not mapped
        worker.load_lora(ink.path)

        after = drawn_as(worker, [ink])
        assert differs(after, before)
        assert torch.equal(after, drawn_with(tiny, ink))
        ink.path.unlink()
        assert not worker.holds_lora(ink.path)


def test_running_out_of_memory_half_way_leaves_all_as_it_was(
    tiny: Tiny, sets: Sets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = sets.worker.loras
    parts = iter(parts_of(sets.worker))
    path = tiny.lora(tmp_path / "wax.safetensors", random_pairs(tiny.parts, 5))

    def fill(model: Any, *rest: Any, **more: Any) -> None:  # what tiny files can't do
        if next(parts) != "unet":
            raise torch.OutOfMemoryError("CUDA out of memory")
        set_peft_model_state_dict(model, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr("peft.set_peft_model_state_dict", fill)
        with pytest.raises(torch.OutOfMemoryError):
            sets.worker.load_lora(path)

    assert sets.worker.loras == known
    assert torch.equal(drawn_as(sets.worker, sets.sets[0]), drawn_with(tiny, *sets.sets[0]))
    for dropped in known:
        sets.worker.drop_lora(dropped)
    assert [*parts_of(sets.worker)["unet"].state_dict()] == [*tiny.parts["unet"].state_dict()]


def test_mixed_traffic_through_one_host_equals_each_request_alone(tiny: Tiny, sets: Sets) -> None:
    def run(number: int, loras: tuple[LoraSpec, ...]) -> Run:
        request = replace(SMALL, model=tiny.with_loras(*loras))
        return Run(number, f"job {number}", request)

    def pictures(said: list[Reply]) -> dict[str, bytes]:
        ends = [reply.event for reply in said if isinstance(reply, JobEvent)]
        return {end.job_id: end.images[0].png for end in ends if isinstance(end, GenerationResult)}

    runs = [run(number, loras) for number, loras in enumerate((*sets.sets, ()))]
    said: list[Reply] = []
    host = WorkerHost("cpu", said.append)
    for one in runs:
        host.handle(one)
        while host.busy:
            host.tick()
    alone = pictures(said)
    assert len(alone) == len(runs)

    said.clear()
    for one in runs:
        host.handle(one)
        host.tick()
    host.handle(Stats(99))
    while host.busy:
        host.tick()
    host.close()
    assert pictures(said) == alone

    assert len(set(alone.values())) >= len(runs) - 1  # two differ in their order alone
    [stats] = [reply.value for reply in said if isinstance(reply, Answer)]
    [model] = stats["models"]
    assert sorted(model["loras"]) == sorted(map(str, sets.worker.loras))
    assert model["vram_gb"] * 2**30 == sets.worker.weight_bytes


def test_a_loras_order_and_parts_do_not_matter_beyond_rounding(tiny: Tiny, tmp_path: Path) -> None:
    one = tiny.lora(tmp_path / "one.safetensors", random_pairs(tiny.parts, 1))
    two = tiny.lora(tmp_path / "two.safetensors", random_pairs(tiny.parts, 2))

    whole = drawn_with(tiny, LoraSpec(one, 0.6, "a"), LoraSpec(two, 0.4, "b"))

    parts = LoraSpec(two, 0.4, "b"), LoraSpec(one, 0.5, "a"), LoraSpec(one, 0.1, "rest")
    torch.testing.assert_close(drawn_with(tiny, *parts), whole, atol=1e-4, rtol=0)


def test_half_precision_in_the_file_is_no_half_precision_in_the_model(
    tiny: Tiny, tmp_path: Path
) -> None:
    tensors = peft(random_pairs(tiny.parts, 1), tiny.family, tiny.parts)
    half = {name: tensor.half() for name, tensor in tensors.items()}
    rounded = {name: tensor.float() for name, tensor in half.items()}

    latents = drawn_with(tiny, LoraSpec(save_lora(tmp_path / "h.safetensors", half)))

    whole = LoraSpec(save_lora(tmp_path / "r.safetensors", rounded))
    assert torch.equal(latents, drawn_with(tiny, whole))


def test_closing_gives_the_memory_back(tiny: Tiny, tmp_path: Path) -> None:
    pairs = random_pairs(tiny.parts, 1)
    worker = load(tiny.with_loras(LoraSpec(tiny.lora(tmp_path / "i.safetensors", pairs))))
    drawn(worker)
    [weights, *_] = [
        weakref.ref(tensor)
        for name, tensor in worker._parts.unet.named_parameters()
        if ".lora_" in name
    ]
    added = sum(pair.down.nbytes + pair.up.nbytes for pair in pairs.values())

    assert worker.weight_bytes == tiny.worker.weight_bytes + added
    assert not any(tensor.requires_grad for tensor in worker._parts.unet.parameters())
    worker.close()

    gc.collect()
    assert weights() is None


# Scales in the header


def scales(parts: dict[str, Any], pairs: Pairs, **more: Any) -> dict[str, Any]:
    """Returns what diffusers' trainers write of an adapter."""
    return {
        f"{part}.{key}": value
        for part in parts
        for key, value in {
            "r": 4,
            "lora_alpha": 3,
            "target_modules": [
                place.partition(".")[2] for place in pairs if place.startswith(f"{part}.")
            ],
            **more,
        }.items()
    }


@pytest.mark.parametrize(
    ("tiny", "more"),
    [(Family.SD15, {}), (Family.SDXL, {"use_rslora": True})],
    indirect=["tiny"],
)
def test_scales_in_the_header_count(tiny: Tiny, tmp_path: Path, more: dict[str, Any]) -> None:
    pairs = random_pairs(tiny.parts, 1)
    tensors = peft(pairs, tiny.family, tiny.parts)
    written = scales(tiny.parts, pairs, **more)
    lora = LoraSpec(save_lora(tmp_path / "ink.safetensors", tensors, written), 0.9, "ink")

    latents = drawn_with(tiny, lora)

    assert torch.equal(latents, stock(tiny, [lora])[0])
    unscaled = LoraSpec(save_lora(tmp_path / "plain.safetensors", tensors), 0.9, "ink")
    assert differs(latents, drawn_with(tiny, unscaled))


def test_scales_of_single_layers_are_those_of_kohyas_alphas(tiny: Tiny, tmp_path: Path) -> None:
    pairs = random_pairs(tiny.parts, 1, [4, 2], [4.0, 1.0, 3.0])
    alphas = {place.partition(".")[2]: pair.alpha for place, pair in pairs.items()}
    slow = {"(a+)+$": 1, "^" + "(.*)*" * 9 + "x": 1}  # as regular expressions they'd take for ever
    written = scales(tiny.parts, pairs, alpha_pattern=slow | alphas)
    tensors = peft(pairs, tiny.family, tiny.parts)
    path = save_lora(tmp_path / "peft.safetensors", tensors, written)

    latents = drawn_with(tiny, LoraSpec(path))

    other = tiny.lora(tmp_path / "kohya.safetensors", pairs)
    assert torch.equal(latents, drawn_with(tiny, LoraSpec(other)))


@compared
def test_alphas_beside_diffusers_names_are_kohyas(tiny: Tiny, tmp_path: Path) -> None:
    pairs = random_pairs(tiny.parts, 1, [4, 2], [4.0, 1.0, 3.0])
    other = tiny.lora(tmp_path / "kohya.safetensors", pairs)
    expected = drawn_with(tiny, LoraSpec(other))

    for layout in ("peft", "diffusers"):
        tensors = LAYOUTS[layout](pairs, tiny.family, tiny.parts)
        for name in list(tensors):
            stem, found, _ = name.partition(".lora")
            place = stem.replace(".text_model.", ".", 1) if stem.startswith("text") else stem
            pair = pairs.get(place) or pairs[stem]
            tensors[f"{stem}.alpha"] = torch.tensor(pair.alpha)
            assert found
        path = save_lora(tmp_path / f"{layout}.safetensors", tensors)

        assert torch.equal(drawn_with(tiny, LoraSpec(path)), expected), layout


@pytest.mark.parametrize("layout", ["kohya", "peft", "diffusers"])
def test_alphas_in_whole_numbers_are_those_in_fractions(
    tiny: Tiny, tmp_path: Path, layout: str
) -> None:
    pairs = random_pairs(tiny.parts, 1, alphas=[2.0, 3.0])
    tensors = LAYOUTS[layout](pairs, tiny.family, tiny.parts)
    for name in list(tensors):
        stem, found, _ = name.partition(".lora_down" if layout == "kohya" else ".lora")
        if found:
            tensors.setdefault(f"{stem}.alpha", torch.tensor(2.0))
    whole = {name: t.to(torch.int64) if "alpha" in name else t for name, t in tensors.items()}
    path = save_lora(tmp_path / "whole.safetensors", whole)

    latents = drawn_with(tiny, LoraSpec(path))

    other = save_lora(tmp_path / "fractions.safetensors", tensors)
    assert torch.equal(latents, drawn_with(tiny, LoraSpec(other)))
    assert not torch.equal(latents, tiny.plain)


@compared
def test_a_lora_over_text_encoders_alone_draws_what_the_stock_pipeline_draws(
    tiny: Tiny, tmp_path: Path
) -> None:
    pairs = {
        place: pair
        for place, pair in random_pairs(tiny.parts, 1).items()
        if place.startswith("text")
    }
    loras = [
        LoraSpec(tiny.lora(tmp_path / f"{layout}.safetensors", pairs, layout), 0.8, layout)
        for layout in LAYOUTS
    ]
    [expected] = stock(tiny, loras[:1])  # all of them say the same
    assert differs(expected, tiny.plain)

    for lora in loras:
        assert torch.equal(drawn_with(tiny, lora), expected), lora.adapter_name


@pytest.mark.parametrize(
    "written",
    [
        "{",
        "[" * 100_000,
        "[1]",
        '{"unet.lora_alpha": "many"}',
        '{"unet.lora_alpha": true}',
        '{"unet.lora_alpha": 1e999}',
        '{"unet.lora_alpha": NaN}',
        '{"unet.alpha_pattern": [1]}',
        '{"unet.alpha_pattern": {"a": null}}',
    ],
)
def test_scales_that_are_none_are_refused(tiny: Tiny, tmp_path: Path, written: str) -> None:
    path = tmp_path / "ink.safetensors"
    tensors = peft(random_pairs(tiny.parts, 1), tiny.family, tiny.parts)
    save_file(tensors, path, {"format": "pt", "lora_adapter_metadata": written})

    refusal(tiny, path, ModelFormatError)


def test_the_header_makes_nothing_be_imported(tiny: Tiny, tmp_path: Path) -> None:
    pairs = random_pairs(tiny.parts, 1)
    written = scales(
        tiny.parts, pairs, lora_alpha=4, megatron_config={}, megatron_core="antigravity"
    )
    tensors = peft(pairs, tiny.family, tiny.parts)
    path = save_lora(tmp_path / "ink.safetensors", tensors, written)
    plain = save_lora(tmp_path / "plain.safetensors", tensors)

    latents = drawn_with(tiny, LoraSpec(path))

    assert torch.equal(latents, drawn_with(tiny, LoraSpec(plain)))


# What can't be laid


def refusal(tiny: Tiny, path: Path, kind: type[ModelError]) -> str:
    """Returns what is said of a LoRA that is refused before it has touched the model."""
    with pytest.raises(kind) as caught:
        tiny.worker.load_lora(path)
    assert caught.value.path == path
    assert tiny.worker.loras == ()
    return str(caught.value)


def test_a_missing_file_is_named(tiny: Tiny, tmp_path: Path) -> None:
    path = tmp_path / "ink.safetensors"

    refusal(tiny, path, ModelNotFoundError)
    with pytest.raises(ModelNotFoundError, match="ink"):
        load(tiny.with_loras(LoraSpec(path, 0.0)))


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".bin"])
def test_pickles_are_not_opened(tiny: Tiny, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"ink{suffix}"
    path.write_bytes(b"\x80\x02cos\nsystem\n")

    assert "pickles" in refusal(tiny, path, UnsupportedModelError)


@compared
def test_another_familys_lora_is_refused_with_both_names(
    tiny: Tiny, tinies: Callable[[Family], Tiny], tmp_path: Path
) -> None:
    other = tinies(COMPARED[tiny.family is COMPARED[0]])
    path = other.lora(tmp_path / "ink.safetensors", random_pairs(other.parts, 1))

    with pytest.raises(UnsupportedModelError) as caught:
        load(tiny.with_loras(LoraSpec(path)))

    assert caught.value.path == path
    assert "SDXL base" in str(caught.value)
    assert "SD1.5" in str(caught.value)


@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty", "a folder"])
def test_a_broken_file_is_named(tiny: Tiny, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "ink.safetensors"
    if damage == "a folder":
        path.mkdir()
    else:
        whole = tiny.lora(path, random_pairs(tiny.parts, 1)).read_bytes()
        path.write_bytes({"truncated": whole[:-9], "garbage": b"<html>" * 99, "empty": b""}[damage])

    refusal(tiny, path, ModelFormatError)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_lora_for_other_layers_is_not_passed_over(
    tiny: Tiny, tmp_path: Path, layout: str
) -> None:
    place = "unet.down_blocks.7.attentions.0.transformer_blocks.0.attn2.to_k"
    pairs = random_pairs(tiny.parts, 1)
    pair = next(pair for name, pair in pairs.items() if name.endswith("attn2.to_k"))
    tensors = peft({place: pair}, tiny.family, tiny.parts)
    if layout == "kohya":
        key = "lora_" + place.replace(".", "_")
        tensors = {f"{key}.lora_down.weight": pair.down, f"{key}.lora_up.weight": pair.up}
    elif layout == "diffusers":
        tensors = {f"{place}.lora.down.weight": pair.down, f"{place}.lora.up.weight": pair.up}

    told = refusal(tiny, save_lora(tmp_path / "ink.safetensors", tensors), UnsupportedModelError)

    assert "none of its 2 tensors belongs to a layer of this model" in told
    assert "down_blocks" in told


def test_layers_that_the_model_lacks_are_named_in_the_log(
    tiny: Tiny, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pairs = random_pairs(tiny.parts, 1)
    extra = pairs | {"text_encoder_2.text_projection": Pair(torch.ones(1, 8), torch.ones(8, 1), 1)}
    tensors = peft(extra, tiny.family, tiny.parts)
    lora = LoraSpec(save_lora(tmp_path / "ink.safetensors", tensors))

    with caplog.at_level(logging.WARNING, "engine.workers.lora"):
        latents = drawn_with(tiny, lora)

    assert f"2 of {len(tensors)} tensors" in caplog.text
    assert "text_encoder_2.text_projection" in caplog.text
    plain = LoraSpec(tiny.lora(tmp_path / "plain.safetensors", pairs, "peft"))
    assert torch.equal(latents, drawn_with(tiny, plain))


ATTENTION = "down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"


@pytest.mark.parametrize(
    "name",
    [
        f"lora_unet_{ATTENTION}.hada_w1_a",
        f"lora_unet_{ATTENTION}.lora_mid.weight",
        f"lora_unet_{ATTENTION}.dora_scale",
        "lora_transformer_blocks.lora_down.weight",
        "something_else",
    ],
)
def test_more_than_pairs_is_refused_by_name(tiny: Tiny, tmp_path: Path, name: str) -> None:
    tensors = kohya(random_pairs(tiny.parts, 1), tiny.family, tiny.parts)
    path = save_lora(tmp_path / "ink.safetensors", tensors | {name: torch.ones(4, 4)})

    assert repr(name) in refusal(tiny, path, UnsupportedModelError)


def test_magnitudes_beside_pairs_are_refused_by_name(tiny: Tiny, tmp_path: Path) -> None:
    tensors = peft(random_pairs(tiny.parts, 1), tiny.family, tiny.parts)
    name = next(iter(tensors)).replace("lora_A.weight", "lora_magnitude_vector")
    path = save_lora(tmp_path / "ink.safetensors", tensors | {name: torch.ones(4)})

    assert repr(name) in refusal(tiny, path, UnsupportedModelError)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("half", ["down", "up"])
def test_half_a_pair_is_named(tiny: Tiny, tmp_path: Path, layout: str, half: str) -> None:
    tensors = LAYOUTS[layout](random_pairs(tiny.parts, 1), tiny.family, tiny.parts)
    ends = ("lora_A.weight", "down.weight") if half == "down" else ("lora_B.weight", "up.weight")
    name = next(name for name in tensors if name.endswith(ends) and "attn1" in name)
    del tensors[name]

    told = refusal(tiny, save_lora(tmp_path / "i.safetensors", tensors), ModelFormatError)

    assert "half" in told
    assert "attn1" in told


def shortened(tensor: torch.Tensor) -> torch.Tensor:
    return tensor[:-1]


def narrowed(tensor: torch.Tensor) -> torch.Tensor:
    return tensor[:, :-1]


@pytest.mark.parametrize("layout", ["kohya", "peft"])
@pytest.mark.parametrize(
    "damage",
    [
        shortened,
        narrowed,
        torch.flatten,
        torch.sum,
        lambda tensor: tensor[:0],
        lambda tensor: tensor[..., None],
        lambda tensor: tensor.to(torch.int32),
        lambda tensor: tensor.to(torch.complex64),
    ],
)
@pytest.mark.parametrize("half", [0, 1])
def test_tensors_that_do_not_fit_are_refused(
    tiny: Tiny,
    tmp_path: Path,
    layout: str,
    damage: Callable[[torch.Tensor], torch.Tensor],
    half: int,
) -> None:
    tensors = LAYOUTS[layout](random_pairs(tiny.parts, 1), tiny.family, tiny.parts)
    names = [name for name in tensors if "attn1" in name and "alpha" not in name]
    name = names[half]
    tensors[name] = damage(tensors[name])

    refusal(tiny, save_lora(tmp_path / "ink.safetensors", tensors), ModelFormatError)


@pytest.mark.parametrize("alpha", [float("nan"), float("inf"), [1.0, 2.0], [1, 2], 2j])
def test_an_alpha_that_is_no_number_is_refused(tiny: Tiny, tmp_path: Path, alpha: Any) -> None:
    tensors = kohya(random_pairs(tiny.parts, 1), tiny.family, tiny.parts)
    tensors[next(name for name in tensors if name.endswith(".alpha"))] = torch.tensor(alpha)

    refusal(tiny, save_lora(tmp_path / "ink.safetensors", tensors), ModelError)


@pytest.mark.parametrize("alpha", [[1.0, 2.0], [1, 2], [], float("nan"), float("inf"), 2j])
def test_an_alpha_beside_diffusers_names_that_is_no_number_is_refused(
    tiny: Tiny, tmp_path: Path, alpha: Any
) -> None:
    tensors = peft(random_pairs(tiny.parts, 1), tiny.family, tiny.parts)
    stem = next(iter(tensors)).partition(".lora_A")[0]
    path = save_lora(tmp_path / "i.safetensors", tensors | {f"{stem}.alpha": torch.tensor(alpha)})

    refusal(tiny, path, ModelFormatError)


def test_a_lora_that_is_named_twice_has_both_strengths(tiny: Tiny, tmp_path: Path) -> None:
    path = tiny.lora(tmp_path / "ink.safetensors", random_pairs(tiny.parts, 1))

    latents = drawn_with(tiny, LoraSpec(path, 1.0), LoraSpec(path, -0.5))

    assert torch.equal(latents, drawn_with(tiny, LoraSpec(path, 0.5)))


def test_a_file_of_zeros_with_the_right_names_changes_nothing(tiny: Tiny, tmp_path: Path) -> None:
    tensors = peft(random_pairs(tiny.parts, 1), tiny.family, tiny.parts)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    lora = LoraSpec(write_tensors(tmp_path / "zeros.safetensors", shapes))

    assert torch.equal(drawn_with(tiny, lora), tiny.plain)
