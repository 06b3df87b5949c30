import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import DreamLabError, ModelFormatError, NotEnoughMemoryError
from engine.model_registry import (
    GIB,
    LoadedModel,
    ModelRegistry,
    choose_evictions,
    find_device,
)
from tests.tiny_models import unet_shapes, write_checkpoint, write_folder, write_tensors

DEMO = Path("models/diffusers/dream-demo")
HUGE = 2**60
"""More than any device has."""


@pytest.fixture
def registry() -> ModelRegistry:
    return ModelRegistry("cpu")


class CudaDouble:
    """Stands for torch.cuda where there is no GPU: two devices of 24 GB whose use a test sets.

    It stands in only where a number comes out of the driver; everything around it is real.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, devices: int = 2) -> None:
        import torch

        self.total = 24 * GIB
        self.allocated = 0
        self.cached = 0
        self.others = 0
        self.asked: set[int] = set()
        answers: dict[str, Callable[..., object]] = {
            "is_available": lambda: devices > 0,
            "device_count": lambda: devices,
            "get_device_properties": self._properties,
            "memory_allocated": lambda index: self._of(index, self.allocated),
            "memory_reserved": lambda index: self._of(index, self.allocated + self.cached),
            "mem_get_info": lambda index: self._of(
                index, (self.total - self.allocated - self.cached - self.others, self.total)
            ),
        }
        for name, answer in answers.items():
            monkeypatch.setattr(torch.cuda, name, answer)

    @property
    def total_memory(self) -> int:
        return self.total

    def _properties(self, index: int) -> "CudaDouble":
        return self._of(index, self)

    def _of(self, index: int, answer: Any) -> Any:
        self.asked.add(index)
        return answer


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> CudaDouble:
    return CudaDouble(monkeypatch)


@pytest.fixture
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> CudaDouble:
    return CudaDouble(monkeypatch, devices=0)


class TestInit:
    def test_takes_the_first_cuda_device(self, cuda: CudaDouble) -> None:
        assert ModelRegistry().device == "cuda:0"

    @pytest.mark.parametrize("device", [1, "cuda:1"])
    def test_takes_the_device_it_is_told(self, cuda: CudaDouble, device: int | str) -> None:
        registry = ModelRegistry(device)
        registry.get_vram_stats()
        assert registry.device == "cuda:1"
        assert cuda.asked == {1}

    @pytest.mark.parametrize("device", [None, 0, 3, "cuda", "cuda:0"])
    def test_tracks_the_host_without_cuda(
        self, no_cuda: CudaDouble, device: int | str | None
    ) -> None:
        registry = ModelRegistry(device)
        assert registry.device == "cpu"
        assert registry.get_total_vram() == psutil.virtual_memory().total

    def test_can_be_told_to_track_the_host_beside_cuda(self, cuda: CudaDouble) -> None:
        assert ModelRegistry("cpu").get_total_vram() == psutil.virtual_memory().total

    @pytest.mark.parametrize("device", [2, -1, "cuda:2"])
    def test_names_a_device_that_is_not_there(self, cuda: CudaDouble, device: int | str) -> None:
        with pytest.raises(DreamLabError, match=r"there are cuda:0 to cuda:1\."):
            ModelRegistry(device)

    @pytest.mark.parametrize("device", ["mps", "", "cuda:x", "cuda:-1", "cpu:0"])
    def test_names_a_device_of_another_kind(self, device: str) -> None:
        with pytest.raises(DreamLabError, match="allowed are cpu, cuda"):
            ModelRegistry(device)

    def test_begins_empty(self, registry: ModelRegistry) -> None:
        assert registry.get_loaded_models() == {}

    def test_finds_a_device_without_cuda(self, no_cuda: CudaDouble) -> None:
        assert find_device() == "cpu"

    def test_needs_no_torch_on_the_cpu(self) -> None:
        program = (
            "import sys; from engine.model_registry import ModelRegistry\n"
            "ModelRegistry('cpu').get_vram_stats(); assert 'torch' not in sys.modules"
        )
        subprocess.run([sys.executable, "-c", program], check=True)


class TestRegistration:
    def test_a_registered_model_is_loaded(self, registry: ModelRegistry) -> None:
        registry.register_model("dream", "/models/dream", 5, worker_id=2, loras=["ink", Path("x")])
        assert registry.is_loaded("dream")
        assert registry.get_model("dream") == LoadedModel(
            "dream", Path("/models/dream"), 5, 2, ("ink", "x")
        )

    def test_defaults(self, registry: ModelRegistry) -> None:
        registry.register_model("dream", Path("/models/dream"), 5)
        model = registry.get_model("dream")
        assert model is not None
        assert (model.worker_id, model.loras) == (0, ())

    def test_registering_again_overwrites(self, registry: ModelRegistry) -> None:
        registry.register_model("dream", "/a", 5)
        registry.register_model("dream", "/b", 7)
        assert registry.get_loaded_models() == {"dream": LoadedModel("dream", Path("/b"), 7)}

    def test_unregistering(self, registry: ModelRegistry) -> None:
        registry.register_model("dream", "/a", 5)
        registry.unregister_model("dream")
        assert not registry.is_loaded("dream")

    def test_unregistering_an_unknown_model_is_no_error(self, registry: ModelRegistry) -> None:
        registry.unregister_model("nobody")

    def test_clear(self, registry: ModelRegistry) -> None:
        registry.register_model("a", "/a", 5)
        registry.register_model("b", "/b", 5)
        registry.clear()
        assert registry.get_loaded_models() == {}

    def test_negative_sizes_are_refused(self, registry: ModelRegistry) -> None:
        with pytest.raises(ValueError, match="vram_bytes is -1"):
            registry.register_model("dream", "/a", -1)
        assert not registry.is_loaded("dream")


class TestVramTracking:
    def test_used_is_what_torch_has_allocated(self, cuda: CudaDouble) -> None:
        cuda.allocated = 6 * GIB
        assert ModelRegistry().get_used_vram() == 6 * GIB

    def test_total_is_all_the_device_has(self, cuda: CudaDouble) -> None:
        assert ModelRegistry().get_total_vram() == 24 * GIB

    def test_available_is_the_rest(self, cuda: CudaDouble) -> None:
        cuda.allocated = 6 * GIB
        assert ModelRegistry().get_available_vram() == 18 * GIB

    def test_an_exact_fit_fits(self, cuda: CudaDouble) -> None:
        cuda.allocated = 6 * GIB
        registry = ModelRegistry()
        assert registry.can_fit(18 * GIB)
        assert not registry.can_fit(18 * GIB + 1)

    def test_all_of_the_memory_may_be_used(self, cuda: CudaDouble) -> None:
        assert ModelRegistry().can_fit(24 * GIB)

    def test_on_the_host_used_and_available_make_the_total(self, registry: ModelRegistry) -> None:
        used, total = registry.get_used_vram(), registry.get_total_vram()
        assert 0 < used < total
        assert registry.can_fit(0)
        assert not registry.can_fit(total)

    @pytest.mark.gpu
    def test_on_a_real_gpu(self) -> None:
        torch = pytest.importorskip("torch")
        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")
        registry = ModelRegistry()
        before = registry.get_used_vram()
        tensor = torch.zeros(2**24, dtype=torch.uint8, device=registry.device)
        assert registry.get_used_vram() - before == tensor.nbytes
        assert registry.get_used_vram() < registry.get_total_vram()


class TestStats:
    def test_keys_and_numbers(self, cuda: CudaDouble) -> None:
        cuda.allocated = 6 * GIB
        registry = ModelRegistry()
        registry.register_model("dream", "/models/dream", 3 * GIB, loras=["ink"])
        assert registry.get_vram_stats() == {
            "device": "cuda:0",
            "total_gb": 24.0,
            "used_gb": 6.0,
            "available_gb": 18.0,
            "usage_percent": 25.0,
            "models_loaded": 1,
            "models": [
                {
                    "name": "dream",
                    "model_path": "/models/dream",
                    "vram_gb": 3.0,
                    "loras": ["ink"],
                }
            ],
        }

    def test_without_models(self, registry: ModelRegistry) -> None:
        stats = registry.get_vram_stats()
        assert (stats["device"], stats["models_loaded"], stats["models"]) == ("cpu", 0, [])
        assert 0 < stats["usage_percent"] < 100

    def test_a_device_without_memory_is_not_divided_by(self, cuda: CudaDouble) -> None:
        cuda.total = 0
        assert ModelRegistry().get_vram_stats()["usage_percent"] == 0.0


class TestHelpers:
    def test_an_unknown_model_is_none(self, registry: ModelRegistry) -> None:
        assert registry.get_model("nobody") is None
        assert not registry.is_loaded("nobody")

    def test_loaded_models_are_a_copy(self, registry: ModelRegistry) -> None:
        registry.register_model("a", "/a", 5)
        registry.get_loaded_models().clear()
        assert registry.is_loaded("a")

    def test_a_loaded_model_does_not_change(self, registry: ModelRegistry) -> None:
        registry.register_model("a", "/a", 5)
        with pytest.raises(FrozenInstanceError):
            registry.get_loaded_models()["a"].vram_bytes = 6  # type: ignore[misc] - the point

    def test_the_least_recently_used_comes_first(self, registry: ModelRegistry) -> None:
        for name in "abc":
            registry.register_model(name, "/m", 1)
        registry.touch("a")
        registry.touch("nobody")
        assert list(registry.get_loaded_models()) == ["b", "c", "a"]


class TestEstimate:
    def test_a_file_takes_its_size_and_a_fifth(
        self, registry: ModelRegistry, tmp_path: Path
    ) -> None:
        path = tmp_path / "model.safetensors"
        path.write_bytes(bytes(1000))
        assert registry.estimate_model_vram(path) == 1200
        assert registry.estimate_model_vram(str(path)) == 1200

    def test_a_folder_sums_its_weight_files(self, registry: ModelRegistry, tmp_path: Path) -> None:
        folder = write_folder(tmp_path, {"cross_attention_dim": 768}, unet_shapes(768))
        vae = write_tensors(folder / "vae" / "model.safetensors", {"a": (500,)})
        unet = folder / "unet" / "diffusion_pytorch_model.safetensors"
        size = unet.stat().st_size + vae.stat().st_size
        assert registry.estimate_model_vram(folder) == int(size * 1.2)

    def test_a_real_model_takes_no_more_than_estimated(self, registry: ModelRegistry) -> None:
        weights = sum(file.stat().st_size for file in DEMO.rglob("*.safetensors"))
        assert weights < registry.estimate_model_vram(DEMO) < 1.3 * weights

    @pytest.mark.parametrize("name", ["none", "none.safetensors"])
    def test_nothing_takes_nothing(
        self, registry: ModelRegistry, tmp_path: Path, name: str
    ) -> None:
        assert registry.estimate_model_vram(tmp_path / name) == 0

    def test_an_empty_folder_takes_nothing(self, registry: ModelRegistry, tmp_path: Path) -> None:
        assert registry.estimate_model_vram(tmp_path) == 0

    def test_a_loop_of_links_is_an_error(self, registry: ModelRegistry, tmp_path: Path) -> None:
        loop = tmp_path / "loop"
        loop.symlink_to(loop)
        with pytest.raises(ModelFormatError):
            registry.estimate_model_vram(loop)


class TestLeases:
    def test_a_lease_gives_the_model(self, registry: ModelRegistry) -> None:
        registry.register_model("a", "/a", 5)
        with registry.lease("a") as model:
            assert model == registry.get_model("a")
            assert registry.in_use("a")
        assert not registry.in_use("a")

    def test_an_unknown_model_has_none(self, registry: ModelRegistry) -> None:
        with pytest.raises(KeyError), registry.lease("nobody"):
            pass
        assert not registry.in_use("nobody")

    def test_ends_when_the_last_user_is_gone(self, registry: ModelRegistry) -> None:
        registry.register_model("a", "/a", 5)
        with registry.lease("a"):
            with registry.lease("a"):
                pass
            assert registry.in_use("a")
        assert not registry.in_use("a")

    def test_ends_after_an_error(self, registry: ModelRegistry) -> None:
        registry.register_model("a", "/a", 5)
        with pytest.raises(ZeroDivisionError), registry.lease("a"):
            raise ZeroDivisionError
        assert not registry.in_use("a")

    def test_survives_its_model(self, registry: ModelRegistry) -> None:
        registry.register_model("a", "/a", 5)
        with registry.lease("a"):
            registry.unregister_model("a")
        assert not registry.is_loaded("a")
        assert not registry.in_use("a")

    def test_begin_and_end_count_as_use(self, registry: ModelRegistry) -> None:
        for name in "abc":
            registry.register_model(name, "/m", 1)
        with registry.lease("a"):
            assert list(registry.get_loaded_models()) == ["b", "c", "a"]
            registry.touch("b")
        assert list(registry.get_loaded_models()) == ["c", "b", "a"]


class TestMakeRoom:
    @pytest.fixture
    def full(self, cuda: CudaDouble) -> ModelRegistry:
        """Three models of 6 GB and 6 GB free."""
        registry = ModelRegistry()
        for name in "abc":
            registry.register_model(name, f"/{name}", 6 * GIB)
        cuda.allocated = 18 * GIB
        return registry

    def test_nothing_goes_while_there_is_room(self, full: ModelRegistry) -> None:
        assert full.make_room(6 * GIB, "/new") == []

    def test_the_least_recently_used_goes(self, full: ModelRegistry) -> None:
        full.touch("a")
        assert full.make_room(7 * GIB, "/new") == ["b"]

    def test_as_many_go_as_must(self, full: ModelRegistry) -> None:
        assert full.make_room(18 * GIB, "/new") == ["a", "b"]
        assert full.make_room(18 * GIB + 1, "/new") == ["a", "b", "c"]

    def test_it_drops_none_itself(self, full: ModelRegistry) -> None:
        full.make_room(24 * GIB, "/new")
        assert len(full.get_loaded_models()) == 3

    def test_a_model_in_use_stays(self, full: ModelRegistry) -> None:
        with full.lease("a"), full.lease("c"):
            assert full.make_room(12 * GIB, "/new") == ["b"]
            with pytest.raises(NotEnoughMemoryError):
                full.make_room(12 * GIB + 1, "/new")

    def test_too_large_a_model_is_refused_with_the_numbers(self, full: ModelRegistry) -> None:
        with full.lease("b"), pytest.raises(NotEnoughMemoryError) as caught:
            full.make_room(24 * GIB, "/new")
        assert (caught.value.needed, caught.value.free) == (24 * GIB, 18 * GIB)
        assert caught.value.path == Path("/new")

    def test_what_others_hold_is_not_free(self, full: ModelRegistry, cuda: CudaDouble) -> None:
        cuda.others = 5 * GIB
        assert full.can_fit(6 * GIB)
        assert full.make_room(6 * GIB, "/new") == ["a"]

    def test_what_torch_keeps_cached_is_free(self, full: ModelRegistry, cuda: CudaDouble) -> None:
        cuda.cached = 6 * GIB
        assert full.make_room(6 * GIB, "/new") == []

    def test_on_the_host(self, registry: ModelRegistry) -> None:
        registry.register_model("a", "/a", HUGE)
        assert registry.make_room(1, "/new") == []
        assert registry.make_room(HUGE, "/new") == ["a"]
        with pytest.raises(NotEnoughMemoryError):
            registry.make_room(2 * HUGE, "/new")


def models(*sizes: int) -> list[LoadedModel]:
    return [LoadedModel(str(number), Path("/m"), size) for number, size in enumerate(sizes)]


class TestChooseEvictions:
    def test_small_ones_stay_when_a_large_one_must_go_anyway(self) -> None:
        assert choose_evictions(models(1, 2, 9), needed=9, free=0) == ["2"]

    def test_of_two_that_would_do_the_older_goes(self) -> None:
        assert choose_evictions(models(3, 5), needed=4, free=1) == ["0"]

    def test_of_two_that_can_stay_the_newer_stays(self) -> None:
        assert choose_evictions(models(2, 2, 9), needed=11, free=0) == ["0", "2"]

    def test_models_without_bytes_stay(self) -> None:
        assert choose_evictions(models(0, 5), needed=5, free=0) == ["1"]

    @given(
        sizes=st.lists(st.integers(0, 20), max_size=8),
        needed=st.integers(0, 100),
        free=st.integers(-5, 40),
    )
    @settings(deadline=None)
    def test_what_goes_suffices_and_none_goes_needlessly(
        self, sizes: list[int], needed: int, free: int
    ) -> None:
        chosen = choose_evictions(models(*sizes), needed, free)
        if chosen is None:
            assert free + sum(sizes) < needed
            return
        gone = [sizes[int(name)] for name in chosen]
        assert free + sum(gone) >= needed
        assert all(free + sum(gone) - size < needed for size in gone)
        assert chosen == sorted(chosen, key=int)


class TestThreadSafety:
    THREADS = 8

    def run(self, work: Callable[[int], None]) -> None:
        """Runs it in several threads that begin together; an error in one fails the test."""
        barrier = threading.Barrier(self.THREADS)

        def begin(number: int) -> None:
            barrier.wait(timeout=30)
            work(number)

        with ThreadPoolExecutor(self.THREADS) as pool:
            for done in [pool.submit(begin, number) for number in range(self.THREADS)]:
                done.result(timeout=60)

    def test_nothing_is_lost_when_all_register_at_once(self, registry: ModelRegistry) -> None:
        def work(number: int) -> None:
            for i in range(100):
                registry.register_model(f"{number}-{i}", "/m", 1)

        self.run(work)
        assert len(registry.get_loaded_models()) == 100 * self.THREADS

    def test_reading_while_others_write(self, registry: ModelRegistry) -> None:
        def work(number: int) -> None:
            name = str(number % 2)
            for _ in range(100):
                registry.register_model(name, "/m", number)
                registry.get_vram_stats()
                registry.touch(name)
                registry.unregister_model(name)

        self.run(work)
        assert registry.get_loaded_models() == {}

    def test_leases_are_counted_exactly(self, registry: ModelRegistry) -> None:
        registry.register_model("a", "/m", HUGE)

        def work(number: int) -> None:
            for _ in range(200):
                with registry.lease("a"), pytest.raises(NotEnoughMemoryError):
                    registry.make_room(HUGE, "/new")

        self.run(work)
        assert not registry.in_use("a")
        assert registry.make_room(HUGE, "/new") == ["a"]

    def test_a_caller_may_hold_its_own_lock(self, registry: ModelRegistry) -> None:
        own = threading.Lock()

        def work(number: int) -> None:
            for _ in range(50):
                with own:
                    registry.register_model("a", "/m", 1)
                    with registry.lease("a"):
                        registry.get_vram_stats()

        self.run(work)


def test_a_single_file_is_estimated_as_it_is(registry: ModelRegistry, tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "m.safetensors", 2048)
    assert registry.estimate_model_vram(path) == int(path.stat().st_size * 1.2)
