import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch  # noqa: TID253 - the subject is made of it
from diffusers import (  # noqa: TID253 - what is compared with
    AutoencoderKL,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from safetensors.torch import load_file, save_file

from engine.errors import (
    ModelError,
    ModelFormatError,
    ModelNotFoundError,
    UnsupportedModelError,
)
from engine.jobs import Family, ModelSpec, Sampler
from engine.vae_detector import detect_vae
from engine.worker_factory import WorkerFactory, check_model
from engine.workers.parts import open_source
from tests.ldm_layout import vae_state
from tests.single_file_kit import save_single_file, save_tiny
from tests.stock_kit import STOCK, aligned
from tests.tiny_models import write_checkpoint, write_json, write_lora, write_tensors
from tests.worker_kit import ask

REQUEST = ask(prompt="a red house", negative_prompt="a hill", width=64, height=64, steps=2)
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Family], Path]:
    made: dict[Family, Path] = {}

    def folder(family: Family) -> Path:
        if family not in made:
            made[family] = tmp_path_factory.mktemp(family) / "tiny"
            save_tiny(family, made[family], shallow=True)
        return made[family]

    return folder


def other_vae(model: Path, seed: int = 5) -> Any:
    """Returns a VAE built as a model's own, with other weights."""
    torch.manual_seed(seed)
    return AutoencoderKL.from_config(json.loads((model / "vae" / "config.json").read_text())).eval()


def bare(vae: Any) -> dict[str, torch.Tensor]:
    return {
        name.removeprefix("first_stage_model."): tensor for name, tensor in vae_state(vae).items()
    }


def aged(vae: Any) -> dict[str, torch.Tensor]:
    """Returns the tensors as diffusers named them before its attention was rewritten."""
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = {}
    for name, tensor in vae.state_dict().items():
        old = name
        for now, then in names.items():
            old = old.replace(f"attentions.0.{now}.", f"attentions.0.{then}.")
        tensors[old] = tensor
    assert tensors.keys() != vae.state_dict().keys()
    return tensors


FORMS: dict[str, Callable[[Any, Path], Path]] = {
    "original": lambda vae, path: save_single_file(path / "v.safetensors", vae_state(vae)),
    "bare": lambda vae, path: save_single_file(path / "v.safetensors", bare(vae)),
    "diffusers": lambda vae, path: save_single_file(path / "v.safetensors", vae.state_dict()),
    "old diffusers": lambda vae, path: save_single_file(path / "v.safetensors", aged(vae)),
    "folder": lambda vae, path: vae.save_pretrained(path / "v") or path / "v",
}


def pixels(model: ModelSpec) -> Any:
    worker = WorkerFactory("cpu").create(model)
    [drawing] = worker.begin(REQUEST)
    while not drawing.done:
        worker.step([drawing])
    picture = worker.decode(drawing)
    worker.close()
    return picture


def stock(model: Path, vae: Any, family: Family) -> Any:
    kind = StableDiffusionXLPipeline if family is Family.SDXL else StableDiffusionPipeline
    pipeline = kind.from_pretrained(model, vae=vae, dtype=torch.float32, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    path = model / "scheduler" / "scheduler_config.json"
    pipeline.scheduler = STOCK[Sampler.EULER](json.loads(path.read_text()))
    [image] = aligned(pipeline)(
        REQUEST.prompt,
        negative_prompt=REQUEST.negative_prompt,
        width=64,
        height=64,
        num_inference_steps=REQUEST.steps,
        guidance_scale=REQUEST.guidance_scale,
        generator=torch.Generator().manual_seed(REQUEST.seed),
        output_type="np",
    ).images
    return (image * 255).round().astype("uint8")


@pytest.mark.parametrize(
    ("family", "forms"), [(Family.SD15, [*FORMS]), (Family.SDXL, ["original", "folder"])]
)
def test_a_vae_in_place_of_the_models_own_draws_what_the_stock_pipeline_draws(
    folders: Callable[[Family], Path], tmp_path: Path, family: Family, forms: list[str]
) -> None:
    model = folders(family)
    vae = other_vae(model)
    expected = stock(model, vae, family)

    for name in forms:
        path = FORMS[name](vae, tmp_path / name)
        assert (pixels(ModelSpec(model, vae=path)) == expected).all(), name

    assert (pixels(ModelSpec(model)) != expected).any()


def test_a_checkpoint_needs_a_vae_only_where_none_is_named(tmp_path: Path) -> None:
    state = save_tiny(Family.SD15, tmp_path / "tiny")
    without = {name: tensor for name, tensor in state.items() if "first_stage" not in name}
    checkpoint = save_single_file(tmp_path / "m.safetensors", without)
    vae = save_single_file(tmp_path / "v.safetensors", state)  # that of a whole checkpoint

    check_model(ModelSpec(checkpoint, vae=vae))
    open_source(checkpoint, Family.SD15, own_vae=False)
    with pytest.raises(UnsupportedModelError, match="has no VAE"):
        open_source(checkpoint, Family.SD15)


def test_the_same_file_with_another_vae_is_another_model(tmp_path: Path) -> None:
    keys = {ModelSpec(tmp_path, vae=vae).key for vae in (None, tmp_path / "a", tmp_path / "b")}

    assert len(keys) == 3


@pytest.mark.parametrize("form", FORMS)
def test_headers_tell_layout_and_channels(
    folders: Callable[[Family], Path], tmp_path: Path, form: str
) -> None:
    vae = other_vae(folders(Family.SDXL))

    found = detect_vae(FORMS[form](vae, tmp_path))

    assert found.layout == ("original" if form in ("original", "bare") else "diffusers")
    assert found.latent_channels == 4
    assert found.scaling_factor == (0.13025 if form == "folder" else None)


def refusal(model: Path, vae: Path, kind: type[ModelError]) -> str:
    """Returns what is said of a VAE before anything is loaded."""
    with pytest.raises(kind) as caught:
        check_model(ModelSpec(model, vae=vae))
    assert caught.value.path == vae
    return str(caught.value)


@pytest.fixture
def model(folders: Callable[[Family], Path]) -> Path:
    return folders(Family.SD15)


def test_what_is_no_vae_is_refused_with_what_it_is(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "v.safetensors"
    told = {
        "a LoRA": write_lora,
        "a UNet alone": lambda path, _: write_tensors(path, {"input_blocks.0.0.weight": (1,)}),
        "an empty file": lambda path, _: write_tensors(path, {}),
    }
    for kind, write in told.items():
        write(path, 768)
        assert f"no VAE (no decoder.conv_in.weight): it looks like {kind}" in refusal(
            model, path, UnsupportedModelError
        )


def test_weights_that_need_a_scale_are_refused(model: Path, tmp_path: Path) -> None:
    weights = load_file(model / "vae" / WEIGHTS)
    weights["decoder.conv_in.scale_weight"] = torch.ones(1)
    save_file(weights, tmp_path / "v.safetensors")

    assert "scaled 8-bit" in refusal(model, tmp_path / "v.safetensors", UnsupportedModelError)


@pytest.mark.parametrize("suffix", [".ckpt", ".pt"])
def test_pickles_are_refused_with_how_to_convert_them(
    model: Path, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"v{suffix}"
    path.write_bytes(b"\x80\x02cos\nsystem\n")

    assert "Convert it once" in refusal(model, path, UnsupportedModelError)


def test_a_missing_vae_is_named(model: Path, tmp_path: Path) -> None:
    refusal(model, tmp_path / "v.safetensors", ModelNotFoundError)


@pytest.mark.parametrize("content", [b"", b"<html>" * 99, b"\x00" * 99])
def test_a_broken_vae_is_named(model: Path, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "v.safetensors"
    path.write_bytes(content)

    refusal(model, path, ModelFormatError)


def test_a_truncated_vae_is_named(model: Path, tmp_path: Path) -> None:
    path = FORMS["bare"](other_vae(model), tmp_path)
    path.write_bytes(path.read_bytes()[:-9])

    assert "the download is not complete" in refusal(model, path, ModelFormatError)


def test_latents_of_other_channels_are_refused_with_both_numbers(
    model: Path, tmp_path: Path
) -> None:
    names = {"encoder.conv_in.weight": (8, 3, 3, 3), "decoder.conv_in.weight": (8, 16, 3, 3)}
    path = write_tensors(tmp_path / "flux.safetensors", names)

    told = refusal(model, path, UnsupportedModelError)

    assert "latents of 16 channels; tiny, which is SD1.5, draws 4" in told


@pytest.mark.parametrize("form", ["folder", "single_file"])
def test_latents_of_another_scale_are_refused_with_both_numbers(
    folders: Callable[[Family], Path], model: Path, tmp_path: Path, form: str
) -> None:
    if form == "single_file":
        model = write_checkpoint(tmp_path / "m.safetensors", 768)

    told = refusal(model, folders(Family.SDXL) / "vae", UnsupportedModelError)

    assert "scaling_factor 0.13025" in told
    assert "SD1.5, have 0.18215" in told


@pytest.mark.parametrize(
    "name", ["encoder.conv_in.weight", "first_stage_model.encoder.conv_in.weight"]
)
def test_half_a_vae_is_refused(model: Path, tmp_path: Path, name: str) -> None:
    decoder = name.replace("encoder", "decoder")
    path = write_tensors(tmp_path / "taesd.safetensors", {decoder: (8, 4, 3, 3)})

    assert f"is no whole VAE: {name} is missing" in refusal(model, path, ModelFormatError)


def test_a_weight_that_is_missing_is_named(model: Path, tmp_path: Path) -> None:
    path = FORMS["diffusers"](other_vae(model), tmp_path)
    tensors = load_file(path)
    del tensors["decoder.conv_out.bias"]
    save_file(tensors, path)

    with pytest.raises(ModelFormatError, match=r"has no decoder\.conv_out\.bias") as caught:
        WorkerFactory("cpu").create(ModelSpec(model, vae=path))
    assert caught.value.path == path


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"_class_name": "AutoencoderTiny"}, "is a 'AutoencoderTiny'"),
        ({"_class_name": ["x"]}, "supported is 'AutoencoderKL'"),
        ({"latents_mean": [1, 2]}, "has a latents_mean"),
        ({"shift_factor": 0.1}, "has a shift_factor"),
        ({"scaling_factor": "large"}, "no plain number"),
        ({"scaling_factor": -1}, "no plain number"),
        ({"scaling_factor": 1e999}, "is no JSON number"),
    ],
)
def test_configurations_of_another_kind_are_refused(
    model: Path, tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    folder = FORMS["folder"](other_vae(model), tmp_path)
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", config | change)

    with pytest.raises(ModelError, match=told):
        check_model(ModelSpec(model, vae=folder))


def test_a_whole_models_folder_is_refused_with_a_hint(model: Path) -> None:
    assert "name the vae folder in it" in refusal(model, model, ModelFormatError)


def test_a_folder_without_weights_is_refused(model: Path, tmp_path: Path) -> None:
    folder = FORMS["folder"](other_vae(model), tmp_path)
    (folder / WEIGHTS).unlink()

    refusal(model, folder, UnsupportedModelError)
    (folder / "diffusion_pytorch_model.bin").write_bytes(b"\x80\x02")
    with pytest.raises(UnsupportedModelError, match="pickles"):
        check_model(ModelSpec(model, vae=folder))
