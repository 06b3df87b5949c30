from pathlib import Path
from typing import Any

import pytest
import torch  # noqa: TID253 - the subject is made of it
from diffusers import DiffusionPipeline  # noqa: TID253 - what is compared with

from engine.errors import ModelFormatError, ModelNotFoundError, UnsupportedModelError
from engine.jobs import Family
from engine.model_detector import detect
from engine.model_files import read_header
from engine.workers.single_file import LAYOUTS, SingleFile
from tests.ldm_layout import State
from tests.single_file_kit import save_single_file, save_tiny

CPU = torch.device("cpu")
PREFIXES = {
    "unet": "model.diffusion_model.",
    "vae": "first_stage_model.",
    "text_encoder": "cond_stage_model.transformer.",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sd15") / "folder"


@pytest.fixture(scope="module")
def state(folder: Path) -> State:
    return save_tiny(Family.SD15, folder)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tiny.safetensors"


def part_of(state: State, part: str) -> State:
    """Returns what one part needs, which is quicker to save than all."""
    return {name: tensor for name, tensor in state.items() if name.startswith(PREFIXES[part])}


def load(path: Path, folder: Path, part: str, dtype: torch.dtype = torch.float32) -> Any:
    return SingleFile(path, Family.SD15, folder).load(part, dtype, CPU)


def assert_equal_weights(module: Any, expected: Any) -> None:
    found, weights = module.state_dict(), expected.state_dict()
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], weights[name]) for name in weights)


@pytest.mark.parametrize("family", Family)
def test_a_file_has_the_weights_that_the_same_model_has_as_a_folder(
    tmp_path: Path, family: Family
) -> None:
    folder, path = tmp_path / "folder", tmp_path / "one.safetensors"
    save_single_file(path, save_tiny(family, folder))
    stock = DiffusionPipeline.from_pretrained(folder, local_files_only=True)

    assert detect(path).family is detect(folder).family is family
    for part in LAYOUTS[family]:
        loaded = SingleFile(path, family, folder).load(part, torch.float32, CPU)
        expected = getattr(stock, part)
        assert type(loaded) is type(expected)
        assert not loaded.training
        assert_equal_weights(loaded, expected)
    if family in (Family.SD15, Family.SD2):
        # The file of this test is a real one: diffusers' own loader takes it.
        theirs = type(stock).from_single_file(str(path), config=str(folder), local_files_only=True)
        for part in LAYOUTS[family]:
            assert_equal_weights(getattr(theirs, part), getattr(stock, part))
    for part in ("tokenizer", "tokenizer_2"):
        if expected := getattr(stock, part, None):
            mine = SingleFile(path, family, folder).tokenizer(part)
            words = {"text": "a cat! ", "padding": "max_length", "max_length": 12}
            assert mine(**words)["input_ids"] == expected(**words)["input_ids"]


@pytest.mark.parametrize("saved", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("wanted", [torch.float32, torch.float16])
def test_whatever_the_file_has_the_weights_get_the_format_that_is_asked_for(
    path: Path, folder: Path, state: State, saved: torch.dtype, wanted: torch.dtype
) -> None:
    save_single_file(path, part_of(state, "vae"), saved)

    vae = load(path, folder, "vae", wanted)

    weight = state["first_stage_model.decoder.conv_in.weight"]
    assert {tensor.dtype for tensor in vae.state_dict().values()} == {wanted}
    assert torch.equal(vae.decoder.conv_in.weight, weight.to(saved).to(wanted))


def test_weights_in_eight_bits_are_widened(path: Path, folder: Path, state: State) -> None:
    save_single_file(path, part_of(state, "vae"), torch.float8_e4m3fn)

    vae = load(path, folder, "vae")

    weight = state["first_stage_model.decoder.conv_in.weight"]
    assert torch.equal(vae.decoder.conv_in.weight, weight.to(torch.float8_e4m3fn).float())


def test_weights_are_mapped_where_they_lie_well_and_copied_where_not(
    path: Path, folder: Path, state: State
) -> None:
    raw = save_single_file(path, part_of(state, "unet")).read_bytes()
    length = int.from_bytes(raw[:8], "little")
    padding = b" " * (-(8 + length) % 64)  # so that the first weight lies well
    start = (length + len(padding)).to_bytes(8, "little")
    path.write_bytes(start + raw[8 : 8 + length] + padding + raw[8 + length :])

    unet = load(path, folder, "unet")

    header = read_header(path)
    well = [name for name, tensor in header.items() if tensor.begin % 64 == 0]
    assert 0 < len(well) < len(header)
    weights = list(unet.parameters())
    assert all(weight.data_ptr() % 64 == 0 for weight in weights)
    # A map can't grow.
    mapped = [weight for weight in weights if not weight.untyped_storage().resizable()]
    assert len(mapped) == len(well)


def test_what_else_a_file_carries_is_passed_over(path: Path, folder: Path, state: State) -> None:
    ema = {
        "model_ema." + name.removeprefix("model.").replace(".", ""): torch.zeros(1)
        for name in state
        if name.startswith("model.diffusion_model.")
    }
    extra = {"alphas_cumprod": torch.ones(1000), "model_ema.num_updates": torch.tensor(9)}
    save_single_file(path, {**state, **ema, **extra})

    unet = load(path, folder, "unet")

    first = state["model.diffusion_model.input_blocks.0.0.weight"]
    assert torch.equal(unet.conv_in.weight, first)


def test_text_encoders_saved_without_the_old_prefix_load_too(
    path: Path, folder: Path, state: State
) -> None:
    text = part_of(state, "text_encoder")
    save_single_file(path, {name.replace(".text_model.", "."): t for name, t in text.items()})

    encoder = load(path, folder, "text_encoder")

    name = "cond_stage_model.transformer.text_model.final_layer_norm.weight"
    assert torch.equal(encoder.final_layer_norm.weight, state[name])


@pytest.mark.parametrize(
    ("part", "title"), [("unet", "UNet"), ("vae", "VAE"), ("text_encoder", "text encoder")]
)
def test_a_file_without_a_part_is_refused_by_name(
    path: Path, folder: Path, state: State, part: str, title: str
) -> None:
    kept = state.keys() - part_of(state, part).keys()
    save_single_file(path, {name: state[name] for name in kept})

    with pytest.raises(UnsupportedModelError, match=f"has no {title} .no tensors") as told:
        load(path, folder, part)

    assert told.value.path == path
    assert PREFIXES[part] in told.value.reason
    with pytest.raises(UnsupportedModelError, match=f"has no {title} "):
        SingleFile(path, Family.SD15).check()


def test_an_sdxl_file_needs_both_text_encoders(path: Path) -> None:
    names = [layout.prefix + "a" for layout in LAYOUTS[Family.SDXL].values()]
    save_single_file(path, dict.fromkeys(names, torch.zeros(1)))
    SingleFile(path, Family.SDXL).check()

    second = LAYOUTS[Family.SDXL]["text_encoder_2"].prefix + "a"
    save_single_file(path, dict.fromkeys(set(names) - {second}, torch.zeros(1)))
    with pytest.raises(UnsupportedModelError, match=r"embedders\.1"):
        SingleFile(path, Family.SDXL).check()


@pytest.mark.parametrize(
    ("part", "lost", "named"),
    [
        ("unet", ["time_embed.0.bias"], "its UNet has no time_embedding.linear_1.bias$"),
        ("unet", ["input_blocks.1."], "its UNet has no down_blocks.0.*and .* more$"),
        ("vae", ["mid.attn_1.q.weight"], "its VAE has no decoder.*and 1 more$"),
        ("text_encoder", ["mlp.fc1.bias"], "its text encoder has no encoder.layers.0.mlp.fc1.bias"),
    ],
)
def test_a_file_that_lacks_weights_is_refused_with_their_names(
    path: Path, folder: Path, state: State, part: str, lost: list[str], named: str
) -> None:
    whole = part_of(state, part)
    kept = [name for name in whole if not any(fragment in name for fragment in lost)]
    save_single_file(path, {name: state[name] for name in kept})

    with pytest.raises(ModelFormatError, match=named):
        load(path, folder, part)


def test_a_weight_of_another_shape_is_refused_with_both(
    path: Path, folder: Path, state: State
) -> None:
    name = "model.diffusion_model.input_blocks.0.0.weight"
    save_single_file(path, {**part_of(state, "unet"), name: torch.zeros(8, 9, 3, 3)})

    with pytest.raises(ModelFormatError, match=r"\[8, 9, 3, 3\], not \[8, 4, 3, 3\]"):
        load(path, folder, "unet")


def test_a_part_of_far_too_many_tensors_is_refused_before_they_are_compared(
    path: Path, folder: Path
) -> None:
    names = (f"model.diffusion_model.input_blocks.{n}.0.in_layers.0.bias" for n in range(5_000))
    save_single_file(path, dict.fromkeys(names, torch.zeros(0)))

    with pytest.raises(ModelFormatError, match=r"its UNet has 5000 tensors where .* has 686"):
        load(path, folder, "unet")


@pytest.mark.parametrize("shape", [(), (16,), (16, 16, 1, 1, 1)])
@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("vae", "first_stage_model.decoder.mid.attn_1.q.weight"),
        ("unet", "model.diffusion_model.middle_block.1.proj_in.weight"),
        ("text_encoder", "cond_stage_model.transformer.text_model.final_layer_norm.weight"),
    ],
)
def test_shapes_that_the_converters_do_not_expect_are_refused(
    path: Path, folder: Path, state: State, part: str, name: str, shape: tuple[int, ...]
) -> None:
    save_single_file(path, {**part_of(state, part), name: torch.zeros(shape)})

    with pytest.raises(ModelFormatError, match=str(path)):
        load(path, folder, part)


def test_weights_in_whole_numbers_are_refused(path: Path, folder: Path, state: State) -> None:
    name = "model.diffusion_model.out.2.bias"
    save_single_file(path, {**part_of(state, "unet"), name: torch.zeros(4, dtype=torch.int8)})

    with pytest.raises(ModelFormatError, match=r"conv_out.bias in whole numbers .torch.int8"):
        load(path, folder, "unet")


def test_sdxl_without_the_embedding_of_sizes_is_refused(tmp_path: Path) -> None:
    folder, path = tmp_path / "folder", tmp_path / "one.safetensors"
    unet = part_of(save_tiny(Family.SDXL_REFINER, folder, shallow=True), "unet")
    save_single_file(path, {name: t for name, t in unet.items() if ".label_emb." not in name})

    with pytest.raises(ModelFormatError, match=r"its UNet .*label_emb"):
        SingleFile(path, Family.SDXL_REFINER, folder).load("unet", torch.float32, CPU)


def test_a_pickle_is_refused_and_the_way_out_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    path.write_bytes(b"\x80\x02}.")

    with pytest.raises(UnsupportedModelError, match="save_file"):
        SingleFile(path, Family.SD15).load("vae", torch.float32, CPU)


def test_a_file_that_went_away_is_named(path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=path.name):
        SingleFile(path, Family.SD15).load("vae", torch.float32, CPU)


def test_a_truncated_file_is_refused(path: Path, folder: Path, state: State) -> None:
    save_single_file(path, state)
    path.write_bytes(path.read_bytes()[:-1])

    with pytest.raises(ModelFormatError, match="not complete"):
        load(path, folder, "vae")


@pytest.mark.parametrize(
    ("extra", "said", "predicts"),
    [
        ((), None, "epsilon"),
        ((), "v_prediction", "v_prediction"),
        (("v_pred",), None, "v_prediction"),
        (("v_pred",), "epsilon", "epsilon"),
    ],
)
def test_the_mode_says_what_a_file_predicts_else_the_file_does(
    path: Path, extra: tuple[str, ...], said: str | None, predicts: str
) -> None:
    save_single_file(path, {"a": torch.zeros(1), **dict.fromkeys(extra, torch.zeros(0))})

    schedule = SingleFile(path, Family.SDXL).schedule(said)

    assert schedule.prediction_type == predicts
    assert not schedule.rescale_betas_zero_snr


def test_a_file_says_that_its_last_timestep_is_pure_noise(path: Path) -> None:
    save_single_file(path, {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)})

    assert SingleFile(path, Family.SDXL).schedule().rescale_betas_zero_snr


@pytest.mark.parametrize(("said", "warnings"), [(None, 1), ("epsilon", 0)])
def test_a_file_of_sd2_that_says_nothing_gets_a_hint_in_the_log(
    path: Path, caplog: pytest.LogCaptureFixture, said: str | None, warnings: int
) -> None:
    save_single_file(path, {"a": torch.zeros(1)})

    SingleFile(path, Family.SD2).schedule(said)

    assert [record.levelname for record in caplog.records] == ["WARNING"] * warnings
    assert all("prediction_type: v_prediction" in message for message in caplog.messages)
