"""What the worker process puts off importing, and that it draws the same with what it has."""

import builtins
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from engine.jobs import Family, LoraSpec, ModelSpec
from engine.workers.light_imports import put_off
from tests.program_kit import ROOT
from tests.worker_kit import ask

SMALL = ask(prompt="a red house", width=64, height=64, steps=2)

DRAWING = """
import json, os, sys
from engine.workers.light_imports import import_lightly
import_lightly()
from engine.worker_host import prepare_device
from tests.test_light_imports import code_agrees, draw_all, here
prepare_device("cpu", may_fall_back=False)
before = here()
compiling = os.fork()  # from here on, what one of the two imports the other has not
if not compiling:
    os._exit(0 if code_agrees() else 1)
found = [before, draw_all(json.loads(sys.argv[1])), here()]
print(json.dumps([*found, os.waitpid(compiling, 0)[1] == 0]))
"""

PUT_OFF = (
    "diffusers.models.autoencoders.autoencoder_asym_kl",
    "diffusers.models.transformers.transformer_flux",
    "diffusers.models.unets.unet_1d",
    "peft",
    "sympy",
    "torch._inductor",
    "torch.distributed.tensor",
)


def here() -> list[str]:
    """Returns which of `PUT_OFF` are imported."""
    return [name for name in PUT_OFF if name in sys.modules]


def draw_all(jobs: Sequence[tuple[str, str | None, str]]) -> list[str]:
    """Returns fingerprints of what is drawn; a job is a model, a LoRA, and its configurations."""
    import hashlib

    from engine.worker_factory import WorkerFactory

    found = []
    for model, lora, config in jobs:
        with pytest.MonkeyPatch.context() as patch:
            # The shipped configurations are of gigabytes of weights.
            patch.setattr("engine.workers.single_file.config_folder", lambda _, at=config: Path(at))
            loras = () if lora is None else (LoraSpec(Path(lora)),)
            spec = ModelSpec(Path(model), loras=loras)
            worker = WorkerFactory("cpu").create(spec)
        [drawing] = worker.begin(replace(SMALL, model=spec))
        while not drawing.done:
            worker.step([drawing])
        found.append(hashlib.sha256(worker.decode(drawing).tobytes()).hexdigest())
    return found


def code_agrees() -> bool:
    """Returns whether a UNet's code, made here, returns what the UNet does."""
    import torch
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    from engine.workers.compiled import CompiledPasses

    unet: Any = UNet2DConditionModel(
        block_out_channels=(8,),
        down_block_types=("CrossAttnDownBlock2D",),
        mid_block_type=None,
        up_block_types=("UpBlock2D",),
        cross_attention_dim=8,
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=4,
    )
    unet.eval().requires_grad_(False)
    passes = CompiledPasses(unet, "model", "aot_eager")
    arguments = {
        "sample": torch.ones(2, 4, 8, 8),
        "timestep": torch.full((2,), 5.0),
        "encoder_hidden_states": torch.ones(2, 7, 8),
        "return_dict": False,
    }
    with torch.inference_mode():
        assert passes.passes(arguments) is None
        passes.wait()
        made = passes.passes(arguments)
        assert made is not None
        return torch.equal(made[0], unet(**arguments)[0])


@dataclass(frozen=True)
class Drawn:
    """What a process said that imports lightly.

    Attributes:
        jobs: what it was given to draw.
        before: which of `PUT_OFF` it had imported before it drew.
        pictures: fingerprints of what it drew.
        after: as `before`, when it had drawn.
        code_agrees: see `code_agrees`; in a copy of it that drew nothing.
    """

    jobs: list[tuple[str, str | None, str]]
    before: list[str]
    pictures: list[str]
    after: list[str]
    code_agrees: bool


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    """One process for two tests, since its imports take seconds."""
    from engine.worker_factory import WorkerFactory
    from tests.lora_kit import kohya, parts_of, random_pairs, save_lora
    from tests.single_file_kit import save_single_file, save_tiny

    made = tmp_path_factory.mktemp("light")
    folder = made / "model"
    file = save_single_file(
        made / "model.safetensors", save_tiny(Family.SD15, folder, shallow=True)
    )
    parts = parts_of(WorkerFactory("cpu").create(ModelSpec(folder)))
    tensors = kohya(random_pairs(parts, 1), Family.SD15, parts)
    lora = save_lora(made / "lora.safetensors", tensors)
    jobs: list[tuple[str, str | None, str]]
    jobs = [(str(file), None, str(folder)), (str(folder), str(lora), str(folder))]

    told = subprocess.run(
        [sys.executable, "-c", DRAWING, json.dumps(jobs)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert told.returncode == 0, told.stderr[-2000:]
    return Drawn(jobs, *json.loads(told.stdout))


def test_what_is_put_off_changes_no_picture(drawn: Drawn) -> None:
    assert drawn.pictures == draw_all(drawn.jobs)
    assert drawn.before == []
    assert "peft" in drawn.after


def test_code_is_made_in_a_process_that_has_put_the_compilers_import_off(drawn: Drawn) -> None:
    assert drawn.before == []
    assert drawn.code_agrees


class Site:
    """A folder that packages are imported from, and what ran of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, path: str, text: str = "") -> None:
        file = self.folder / path
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"import builtins; builtins.ran.append(__name__)\n{text}")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(builtins, "ran", [], raising=False)
    known = set(sys.modules)
    site = Site(tmp_path)
    site.write("far/__init__.py", "from far.away import place\nwide = 3")
    site.write("far/away.py", "place = 'there'")
    yield site
    for name in set(sys.modules) - known:
        del sys.modules[name]


def ran() -> list[str]:
    found: list[str] = builtins.ran  # type: ignore[attr-defined] # see `site`
    return found


@pytest.mark.usefixtures("site")
def test_a_module_runs_when_something_of_it_is_used() -> None:
    put_off("far")
    import far

    assert ran() == []
    assert far.wide == 3
    assert far.place == "there"
    assert ran() == ["far", "far.away"]
    with pytest.raises(AttributeError, match="no attribute 'deep'"):
        far.deep  # noqa: B018 # asking is the test


@pytest.mark.usefixtures("site")
def test_what_lies_below_is_imported_without_it() -> None:
    put_off("far")
    from far import away
    from far.away import place

    assert (away.place, place) == ("there", "there")
    assert ran() == ["far.away"]


def test_what_may_lie_below_can_be_named(site: Site) -> None:
    site.write("far/off.py")
    put_off("far", ("off",), wide=2)
    from far import off, wide

    assert (off.__name__, wide, ran()) == ("far.off", 2, ["far.off"])
    importlib.import_module("far.away")
    assert ran() == ["far.off", "far", "far.away"]


@pytest.mark.usefixtures("site")
def test_a_stand_in_is_used_until_the_module_runs() -> None:
    put_off("far", wide=2)
    from far import wide

    assert (wide, ran()) == (2, [])
    import far

    assert far.place == "there"
    assert far.wide == 3


def test_a_module_below_another_is_put_off_alone(site: Site) -> None:
    site.write("near/__init__.py")
    site.write("near/by.py", "here = 1")
    put_off("near.by")
    import near

    assert ran() == ["near"]
    assert near.by.here == 1
    assert ran() == ["near", "near.by"]


def test_one_that_puts_another_into_its_place_gives_what_that_has(site: Site) -> None:
    site.write(
        "far/__init__.py",
        "import sys, types\nother = types.ModuleType(__name__)\n"
        "other.first, other.second = 1, 2\nsys.modules[__name__] = other",
    )
    put_off("far")
    from far import first, second

    assert (first, second) == (1, 2)
    assert ran() == ["far"]


def test_one_that_is_not_there_is_told() -> None:
    with pytest.raises(ModuleNotFoundError, match="nowhere_at_all"):
        put_off("nowhere_at_all")
