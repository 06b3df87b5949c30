import subprocess
import sys
from pathlib import Path

import pytest

from engine.errors import (
    DreamLabError,
    ModelError,
    ModelFormatError,
    ModelNotFoundError,
    UnsupportedModelError,
)
from engine.jobs import Family, GenerationRequest, LoraSpec, ModelSpec, Sampler
from engine.worker_factory import (
    WORKERS,
    ModelNotNamedError,
    WorkerFactory,
    create_cuda_worker,
    detect_worker_type,
    worker_device,
)
from tests.tiny_models import (
    SD15_KEY,
    save_pipeline,
    unet_shapes,
    write_checkpoint,
    write_folder,
    write_lora,
    write_tensors,
)

DEMO = Path("models/diffusers/dream-demo")
SD15 = {"cross_attention_dim": 768, "in_channels": 4}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MODEL_ROOT", raising=False)
    monkeypatch.delenv("MODEL", raising=False)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pipeline(tmp_path_factory.mktemp("models") / "tiny", prediction_type="epsilon")


@pytest.fixture
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hides a GPU, where the machine has one."""
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def request_for(path: Path) -> GenerationRequest:
    return GenerationRequest(
        mode="test",
        model=ModelSpec(path),
        prompt="a red boat",
        negative_prompt="",
        width=32,
        height=32,
        steps=2,
        guidance_scale=4.0,
        sampler=Sampler.EULER,
        seed=7,
    )


class TestDetection:
    def test_of_a_single_file(self, file: Path) -> None:
        assert detect_worker_type(write_checkpoint(file, 768)) is Family.SD15

    def test_of_a_folder(self) -> None:
        assert detect_worker_type(DEMO) is Family.SD15

    def test_takes_a_string(self, file: Path) -> None:
        assert detect_worker_type(str(write_checkpoint(file, 2048))) is Family.SDXL

    def test_names_a_family_by_its_word(self, file: Path) -> None:
        assert detect_worker_type(write_checkpoint(file, 1280)) == "sdxl_refiner"

    def test_of_a_missing_file(self, file: Path) -> None:
        with pytest.raises(ModelNotFoundError, match=r"model\.safetensors: no such file"):
            detect_worker_type(file)

    def test_of_an_unreadable_file(self, file: Path) -> None:
        file.write_bytes(b"no model at all")
        with pytest.raises(ModelFormatError):
            detect_worker_type(file)

    def test_of_a_pickle(self, tmp_path: Path) -> None:
        path = tmp_path / "model.ckpt"
        path.touch()
        with pytest.raises(UnsupportedModelError, match="Convert"):
            detect_worker_type(path)

    def test_every_refusal_is_a_runtime_error(self) -> None:
        assert issubclass(ModelError, RuntimeError)
        assert issubclass(ModelNotNamedError, RuntimeError)

    def test_imports_no_torch(self) -> None:
        program = (
            "import sys; from engine.worker_factory import detect_worker_type\n"
            "detect_worker_type(sys.argv[1]); assert 'torch' not in sys.modules"
        )
        subprocess.run([sys.executable, "-c", program, str(DEMO)], check=True)


class TestDimensionValues:
    @pytest.mark.parametrize(
        ("dim", "family"),
        [
            (768, Family.SD15),
            (1024, Family.SD2),
            (1280, Family.SDXL_REFINER),
            (2048, Family.SDXL),
        ],
    )
    @pytest.mark.parametrize("form", ["file", "folder"])
    def test_known(self, tmp_path: Path, dim: int, family: Family, form: str) -> None:
        path = (
            write_checkpoint(tmp_path / "m.safetensors", dim)
            if form == "file"
            else write_folder(tmp_path / "m", {"cross_attention_dim": dim})
        )
        assert detect_worker_type(path) is family

    @pytest.mark.parametrize("dim", [0, 320, 512, 4096])
    def test_unknown_ones_are_named_with_what_is_supported(self, file: Path, dim: int) -> None:
        with pytest.raises(RuntimeError, match=rf"\b{dim}\b") as caught:
            detect_worker_type(write_tensors(file, {SD15_KEY: (0, dim)}))
        for supported in ("768 (SD1.5)", "1024 (SD2.x)", "1280 (SDXL refiner)", "2048 (SDXL base)"):
            assert supported in str(caught.value)


@pytest.mark.usefixtures("no_cuda")
class TestCreation:
    @pytest.mark.parametrize("number", [0, 1, 5])
    def test_without_cuda_every_worker_is_on_the_cpu(self, tiny: Path, number: int) -> None:
        worker = create_cuda_worker(number, tiny)
        try:
            assert (worker.device, worker.family) == ("cpu", Family.SD15)
            assert worker.model == ModelSpec(tiny)
        finally:
            worker.close()

    # diffusers' Euler scheduler still calls numpy the way of numpy 1.
    @pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
    def test_a_created_worker_draws(self) -> None:
        worker = create_cuda_worker(0, DEMO)
        try:
            (drawing,) = worker.begin(request_for(DEMO))
            while not drawing.done:
                worker.step([drawing])
            assert worker.decode(drawing).shape == (32, 32, 3)
        finally:
            worker.close()

    def test_the_specification_travels_along(self, tiny: Path) -> None:
        spec = ModelSpec(tiny, prediction_type="v_prediction")
        worker = WorkerFactory("cpu").create(spec)
        try:
            assert worker.model is spec
        finally:
            worker.close()

    def test_numbers_begin_at_zero(self, tiny: Path) -> None:
        with pytest.raises(ValueError, match="worker_id is -1"):
            create_cuda_worker(-1, tiny)

    def test_an_incomplete_pipeline_is_refused(self, tmp_path: Path) -> None:
        write_folder(tmp_path, SD15, unet_shapes(768))
        with pytest.raises(ModelError):
            create_cuda_worker(0, tmp_path)


class TestDevices:
    @pytest.mark.parametrize(
        ("count", "expected"),
        [
            (0, ["cpu", "cpu", "cpu"]),
            (1, ["cuda:0", "cuda:0", "cuda:0"]),
            (2, ["cuda:0", "cuda:1", "cuda:0"]),
        ],
    )
    def test_are_dealt_out_in_turn(
        self, monkeypatch: pytest.MonkeyPatch, count: int, expected: list[str]
    ) -> None:
        import torch

        # Only a machine with GPUs has these numbers.
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        assert [worker_device(number) for number in range(3)] == expected


class TestRefusals:
    """What the headers show is refused before torch is even imported."""

    def refusal(self, path: Path, *loras: Path) -> str:
        spec = ModelSpec(path, tuple(LoraSpec(lora) for lora in loras))
        with pytest.raises(ModelError) as caught:
            WorkerFactory("cpu").create(spec)
        return str(caught.value)

    @pytest.mark.parametrize("dim", [768, 2048])
    @pytest.mark.parametrize(("channels", "name"), [(9, "inpainting"), (8, "instruct_pix2pix")])
    def test_variants_without_a_worker(
        self, file: Path, dim: int, channels: int, name: str
    ) -> None:
        told = self.refusal(write_checkpoint(file, dim, channels))
        assert f"the {name} variant (in_channels {channels})" in told

    def test_a_folder_without_an_index(self, tmp_path: Path) -> None:
        write_folder(tmp_path, SD15, unet_shapes(768), pipeline=None)
        assert "model_index.json is missing" in self.refusal(tmp_path)

    def test_a_folder_without_weights(self, tmp_path: Path) -> None:
        assert "there are no weights" in self.refusal(write_folder(tmp_path, SD15))

    def test_a_file_without_a_first_convolution(self, file: Path) -> None:
        told = self.refusal(write_tensors(file, {SD15_KEY: (2, 768)}))
        assert "first convolution is missing" in told

    def test_a_lora_of_another_family(self, tmp_path: Path) -> None:
        lora = write_lora(tmp_path / "ink.safetensors", 2048)
        told = self.refusal(DEMO, lora)
        assert told == (
            f"{lora}: a LoRA for SDXL base (cross_attention_dim 2048) can't be laid over "
            "dream-demo, which is SD1.5 (cross_attention_dim 768)"
        )

    def test_a_missing_lora(self, tmp_path: Path) -> None:
        assert "ink.safetensors: no such file" in self.refusal(DEMO, tmp_path / "ink.safetensors")

    def test_come_before_torch(self, file: Path) -> None:
        program = (
            "import sys; from pathlib import Path\n"
            "from engine.errors import UnsupportedModelError\n"
            "from engine.jobs import ModelSpec\n"
            "from engine.worker_factory import WorkerFactory\n"
            "try: WorkerFactory('cpu').create(ModelSpec(Path(sys.argv[1])))\n"
            "except UnsupportedModelError: sys.exit(7 if 'torch' not in sys.modules else 1)\n"
        )
        path = write_checkpoint(file, 2048, in_channels=9)
        done = subprocess.run([sys.executable, "-c", program, str(path)], check=False)
        assert done.returncode == 7

    def test_the_table_names_workers_that_exist(self) -> None:
        import importlib

        from engine.workers.base import Worker

        for module, name in WORKERS.values():
            kind = getattr(importlib.import_module(module), name)
            assert issubclass(kind, Worker)
            assert callable(kind.load)


class TestEnvironment:
    def test_names_the_model(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        write_checkpoint(tmp_path / "checkpoints" / "m.safetensors", 1024)
        monkeypatch.setenv("MODEL_ROOT", str(tmp_path))
        monkeypatch.setenv("MODEL", "checkpoints/m.safetensors")
        assert detect_worker_type() is Family.SD2

    @pytest.mark.usefixtures("no_cuda")
    def test_a_worker_is_made_from_it(self, monkeypatch: pytest.MonkeyPatch, tiny: Path) -> None:
        monkeypatch.setenv("MODEL_ROOT", str(tiny.parent))
        monkeypatch.setenv("MODEL", tiny.name)
        worker = create_cuda_worker(0)
        try:
            assert worker.model.path == tiny
        finally:
            worker.close()

    @pytest.mark.parametrize("value", [None, "", "  "])
    @pytest.mark.parametrize("missing", ["MODEL_ROOT", "MODEL"])
    def test_a_missing_variable_is_named(
        self, monkeypatch: pytest.MonkeyPatch, missing: str, value: str | None
    ) -> None:
        (other,) = {"MODEL_ROOT", "MODEL"} - {missing}
        monkeypatch.setenv(other, "something")
        if value is not None:
            monkeypatch.setenv(missing, value)
        with pytest.raises(ModelNotNamedError, match=rf"set {missing} in") as caught:
            detect_worker_type()
        assert caught.value.variable == missing
        with pytest.raises(DreamLabError, match=missing):
            create_cuda_worker(0)

    def test_a_path_counts_more(self, monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
        monkeypatch.setenv("MODEL_ROOT", "/nowhere")
        monkeypatch.setenv("MODEL", "nothing")
        assert detect_worker_type(write_checkpoint(file, 768)) is Family.SD15

    def test_a_model_that_is_not_there_is_named(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("MODEL_ROOT", str(tmp_path))
        monkeypatch.setenv("MODEL", "gone.safetensors")
        with pytest.raises(ModelNotFoundError, match=r"gone\.safetensors"):
            detect_worker_type()
