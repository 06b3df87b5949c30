import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ModelFormatError, ModelNotFoundError
from engine.jobs import Family, ModelSpec
from engine.ledger import MOST_KEPT, Ledger
from engine.model_registry import ModelRegistry
from engine.worker_factory import WorkerFactory
from tests.single_file_kit import save_tiny
from tests.tiny_models import unet_shapes, write_checkpoint, write_folder, write_lora, write_tensors

CPU, CUDA = "cpu", "cuda:0"
NUMBERS = 2 * 4 * 9 + 2 * 768  # of the folder below
VAE_NUMBERS = 3 * 5 + 4 * 7  # of the VAE below


def vae_shapes(prefix: str) -> dict[str, tuple[int, ...]]:
    return {
        f"{prefix}encoder.conv_in.weight": (5, 3, 1, 1),
        f"{prefix}decoder.conv_in.weight": (7, 4, 1, 1),
    }


@pytest.fixture
def model(tmp_path: Path) -> ModelSpec:
    return ModelSpec(write_folder(tmp_path / "m", {}, unet_shapes(768)))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "data" / "measured.json"


@pytest.mark.parametrize(("device", "width"), [(CPU, 4), (CUDA, 2), ("cuda:7", 2)])
@pytest.mark.parametrize("dtype", ["F16", "F32", "BF16"])
def test_weights_count_in_the_format_that_they_will_have(
    tmp_path: Path, device: str, width: int, dtype: str
) -> None:
    folder = write_folder(tmp_path / "m", {})
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    write_tensors(weights, unet_shapes(768), dtype)

    assert Ledger(device).needed(ModelSpec(folder)) == NUMBERS * width


@pytest.mark.parametrize("family", Family)
def test_the_estimate_is_what_a_real_model_takes(tmp_path: Path, family: Family) -> None:
    save_tiny(family, tmp_path / "m", shallow=True)
    worker = WorkerFactory("cpu").create(ModelSpec(tmp_path / "m"))

    estimated = Ledger("cpu").needed(worker.model)

    # Buffers are computed rather than loaded: numbers of positions alone.
    assert 0 <= worker.weight_bytes - estimated < 1000
    worker.close()


def test_averages_of_the_training_do_not_count(tmp_path: Path) -> None:
    plain = write_checkpoint(tmp_path / "plain.safetensors", 768)
    averaged = write_checkpoint(
        tmp_path / "averaged.safetensors", 768, extra={"model_ema.diffusion": (1000,)}
    )

    ledger = Ledger("cpu")

    assert ledger.needed(ModelSpec(plain)) == ledger.needed(ModelSpec(averaged)) > 0


def test_a_vae_counts_in_place_of_the_models_own(tmp_path: Path) -> None:
    single = write_checkpoint(tmp_path / "m.safetensors", 768)
    folder = write_folder(tmp_path / "m", {}, unet_shapes(768))
    write_tensors(folder / "vae" / "diffusion_pytorch_model.safetensors", {"decoder": (77,)})
    vae = write_tensors(tmp_path / "v.safetensors", vae_shapes("") | {"decoder": (1000,)})
    ledger = Ledger("cpu")

    for path, own in ((single, 2 * 4 * 9), (folder, 77)):
        more = ledger.needed(ModelSpec(path, vae=vae)) - ledger.needed(ModelSpec(path))
        assert more == (VAE_NUMBERS + 1000 - own) * 4


def test_a_checkpoint_that_is_named_as_vae_counts_by_its_vae(tmp_path: Path) -> None:
    model = ModelSpec(write_checkpoint(tmp_path / "m.safetensors", 768))
    shapes = vae_shapes("first_stage_model.") | {"model.diffusion_model.a": (10_000,)}
    whole = write_tensors(tmp_path / "whole.safetensors", shapes)
    alone = write_tensors(tmp_path / "alone.safetensors", vae_shapes(""))
    ledger = Ledger("cpu")

    estimates = [ledger.estimate(replace(model, vae=vae)) for vae in (whole, alone)]

    assert estimates == [ledger.estimate(model) + (VAE_NUMBERS - 2 * 4 * 9) * 4] * 2


def test_a_lora_counts_by_its_numbers(tmp_path: Path) -> None:
    lora = write_lora(tmp_path / "ink.safetensors", 768, rank=3)

    assert Ledger("cpu").estimate_lora(lora) == (3 * 768 + 4 * 3) * 4


def test_what_is_missing_or_broken_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "m.safetensors"
    broken.write_bytes(b"<html>")

    with pytest.raises(ModelNotFoundError):
        Ledger("cpu").needed(ModelSpec(tmp_path / "gone.safetensors"))
    with pytest.raises(ModelFormatError):
        Ledger("cpu").needed(ModelSpec(broken))


def test_the_contract_of_the_registrys_estimate_stays(model: ModelSpec, tmp_path: Path) -> None:
    size = sum(path.stat().st_size for path in model.path.rglob("*.safetensors"))
    registry = ModelRegistry("cpu")

    assert registry.estimate_model_vram(model.path) == int(size * 1.2)
    assert registry.estimate_model_vram(tmp_path / "gone") == 0


def test_what_was_measured_counts_after_a_restart(model: ModelSpec, file: Path) -> None:
    Ledger("cpu", file).note(model, 7000)

    again = Ledger("cpu", file)

    assert again.needed(model) == 7000
    assert again.estimate(model) == NUMBERS * 4
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_without_a_file_it_counts_until_the_end(model: ModelSpec) -> None:
    ledger = Ledger("cpu")
    ledger.note(model, 7000)

    assert ledger.needed(model) == 7000
    assert Ledger("cpu").needed(model) == NUMBERS * 4


def test_another_file_in_the_same_place_is_measured_anew(model: ModelSpec, file: Path) -> None:
    ledger = Ledger("cpu", file)
    ledger.note(model, 7000)
    weights = model.path / "unet" / "diffusion_pytorch_model.safetensors"
    os.utime(weights, ns=(0, weights.stat().st_mtime_ns + 1))

    assert ledger.needed(model) == NUMBERS * 4


def test_devices_of_two_kinds_share_the_file_and_not_the_numbers(
    model: ModelSpec, file: Path
) -> None:
    cpu, cuda = Ledger(CPU, file), Ledger(CUDA, file)
    cpu.note(model, 7000)
    cuda.note(model, 3500)

    assert Ledger(CPU, file).needed(model) == 7000
    assert Ledger("cuda:1", file).needed(model) == 3500


def test_a_vae_makes_it_another_model(model: ModelSpec, tmp_path: Path) -> None:
    vae = write_tensors(tmp_path / "v.safetensors", vae_shapes(""))
    ledger = Ledger("cpu")
    ledger.note(model, 7000)

    assert ledger.needed(ModelSpec(model.path, vae=vae)) == (NUMBERS + VAE_NUMBERS) * 4


@pytest.mark.parametrize("measured", [1, NUMBERS, NUMBERS * 40, 2**60])
def test_a_number_far_from_the_headers_is_not_believed(
    model: ModelSpec, measured: int, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = Ledger("cpu")
    ledger.note(model, measured)

    assert ledger.needed(model) == NUMBERS * 4
    assert "headers tell of" in caplog.text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[1]",
        b"\xff\xfe",
        b"null",
        b'{"bytes": []}',
        b'{"bytes": {"a": "b", "c": -1, "d": 1.5, "e": true, "f": null, "g": 0}}',
        b'{"bytes": {"a": 1, "a": 2}}',
        b"[" * 100_000,
        b'{"bytes": {"a": ' + b"9" * 5000 + b"}}",
        b" " * 2_000_000,
    ],
)
def test_a_broken_or_hostile_file_is_passed_over_and_written_anew(
    model: ModelSpec, file: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    file.parent.mkdir()
    file.write_bytes(content)

    ledger = Ledger("cpu", file)
    assert ledger.needed(model) == NUMBERS * 4
    assert "measured anew" in caplog.text
    ledger.note(model, 7000)

    assert Ledger("cpu", file).needed(model) == 7000


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_no_json_stops_it(tmp_path_factory: pytest.TempPathFactory, content: object) -> None:
    path = tmp_path_factory.getbasetemp() / "hostile.json"
    for whole in (content, {"bytes": content}):
        path.write_text(json.dumps(whole))
        assert all(size > 0 for size in Ledger("cpu", path)._measured.values())


def test_a_folder_that_cannot_be_written_is_no_error(
    model: ModelSpec, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "data").write_text("a file")
    ledger = Ledger("cpu", tmp_path / "data" / "measured.json")

    ledger.note(model, 7000)

    assert ledger.needed(model) == 7000
    assert "can't be written" in caplog.text


def test_a_model_that_is_gone_meanwhile_is_not_remembered(
    tmp_path: Path, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Ledger("cpu", file).note(ModelSpec(tmp_path / "gone"), 7000)

    assert not file.exists()
    assert "is not remembered" in caplog.text


def test_the_oldest_go_where_there_are_too_many(model: ModelSpec, file: Path) -> None:
    file.parent.mkdir()
    file.write_text(json.dumps({"bytes": {f"old {n}": n + 1 for n in range(MOST_KEPT)}}))

    Ledger("cpu", file).note(model, 7000)

    kept = json.loads(file.read_text())["bytes"]
    assert len(kept) == MOST_KEPT
    assert "old 0" not in kept
    assert list(kept.values())[-1] == 7000
