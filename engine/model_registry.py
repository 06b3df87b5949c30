"""What is loaded on one device: who holds how much memory, who is in use, who may go.

The registry counts and chooses; it loads and closes nothing. Whoever does (the worker host) asks
`ModelRegistry.make_room` which models to drop, closes their workers, and says so with
`ModelRegistry.unregister_model`.
"""

import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import psutil

from engine.errors import DreamLabError, ModelNotFoundError, NotEnoughMemoryError
from engine.model_files import file_size, weight_files

GIB = 2**30
"""Bytes in what the statistics call a GB."""

OVERHEAD = 1.2
"""Memory that a loaded model takes per byte on disk: the rest are buffers and activations."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that is in memory.

    Attributes:
        name: unique; the worker host uses `ModelSpec.key`.
        model_path: where its weights lie.
        vram_bytes: memory that it holds.
        worker_id: whose it is.
        loras: names of what is laid over it.
    """

    name: str
    model_path: Path
    vram_bytes: int
    worker_id: int = 0
    loras: tuple[str, ...] = ()


class _Memory(Protocol):
    """A device's memory, measured when asked; all numbers are bytes."""

    def total(self) -> int:
        """All there is."""

    def used(self) -> int:
        """What is taken."""

    def free(self) -> int:
        """What an allocation could have now."""


class _CudaMemory:
    """A CUDA device's memory, as torch sees it."""

    def __init__(self, index: int) -> None:
        self.index = index

    def total(self) -> int:
        import torch

        return int(torch.cuda.get_device_properties(self.index).total_memory)

    def used(self) -> int:
        """What this process's tensors take."""
        import torch

        return int(torch.cuda.memory_allocated(self.index))

    def free(self) -> int:
        """What the driver has left, and what torch keeps cached without using it."""
        import torch

        cached = torch.cuda.memory_reserved(self.index) - torch.cuda.memory_allocated(self.index)
        return int(torch.cuda.mem_get_info(self.index)[0] + cached)


class _HostMemory:
    """The machine's memory, which is what a model on the CPU lives in.

    What counts as used is what the whole machine can't give (total - available), not this process
    alone: models share it with everything else, and a promise of memory that others hold would end
    in swapping. Unlike on a GPU, a share of it is always taken.
    """

    def total(self) -> int:
        return int(psutil.virtual_memory().total)

    def used(self) -> int:
        memory = psutil.virtual_memory()
        return int(memory.total - memory.available)

    def free(self) -> int:
        return int(psutil.virtual_memory().available)


def find_device(index: int = 0) -> str:
    """Returns ``cuda:<index>`` where this machine has CUDA, else ``cpu``.

    Raises:
        DreamLabError: there is CUDA, and no device of this number.
    """
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    count = torch.cuda.device_count()
    if not 0 <= index < count:
        raise DreamLabError(
            f"There is no device cuda:{index}; there are cuda:0 to cuda:{count - 1}."
        )
    return f"cuda:{index}"


def cuda_count() -> int:
    """Returns how many CUDA devices this process may use."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def choose_evictions(idle: Sequence[LoadedModel], needed: int, free: int) -> list[str] | None:
    """Chooses which idle models to drop so that ``needed`` bytes fit.

    The least recently used go first; one whose going turns out needless, because a larger one
    had to go after it, stays.

    Args:
        idle: models that nobody uses, the least recently used first.
        needed: bytes that shall fit.
        free: bytes that are free already.

    Returns:
        Names in the order of `idle`; empty where it fits as it is; None where dropping all of them
        is not enough.
    """
    chosen: list[LoadedModel] = []
    for model in idle:
        if free >= needed:
            break
        chosen.append(model)
        free += model.vram_bytes
    if free < needed:
        return None
    for model in reversed(chosen):
        if free - model.vram_bytes >= needed:
            chosen.remove(model)
            free -= model.vram_bytes
    return [model.name for model in chosen]


class ModelRegistry:
    """The loaded models of one device. Any thread may call any method.

    Lock order: there is one lock, and it is the innermost. It guards the bookkeeping alone; nothing
    is measured, opened or called back while it is held, so that a caller may hold locks of its own.
    """

    def __init__(self, device: int | str | None = None) -> None:
        """Finds the device.

        Args:
            device: number of a CUDA device or a name such as ``cuda:1`` or ``cpu``; None is the
                first CUDA device. Without CUDA on the machine it is the CPU, whatever is asked.

        Raises:
            DreamLabError: there is CUDA, and no such device; or the name is of another kind.
        """
        self.device = _device_name(device)
        self._memory: _Memory = (
            _HostMemory() if self.device == "cpu" else _CudaMemory(int(self.device[5:]))
        )
        self._lock = threading.Lock()
        self._models: dict[str, LoadedModel] = {}  # the least recently used first
        self._leases: Counter[str] = Counter()

    def register_model(
        self,
        name: str,
        model_path: Path | str,
        vram_bytes: int,
        worker_id: int = 0,
        loras: Iterable[str | Path] | None = None,
    ) -> None:
        """Notes that a model is in memory; one of the same name is overwritten.

        Raises:
            ValueError: ``vram_bytes`` is negative.
        """
        if vram_bytes < 0:
            raise ValueError(f"vram_bytes is {vram_bytes}; a model can't hold less than 0 bytes")
        model = LoadedModel(
            name, Path(model_path), vram_bytes, worker_id, tuple(str(lora) for lora in loras or ())
        )
        with self._lock:
            self._models.pop(name, None)
            self._models[name] = model

    def set_loras(self, name: str, loras: Iterable[str | Path], vram_bytes: int) -> None:
        """Notes what lies over a model now, and the bytes that it holds with it.

        That is no use of the model; an unknown one is no error.
        """
        with self._lock:
            if name in self._models:
                self._models[name] = replace(
                    self._models[name],
                    loras=tuple(str(lora) for lora in loras),
                    vram_bytes=vram_bytes,
                )

    def unregister_model(self, name: str) -> None:
        """Notes that a model is gone; an unknown one is no error."""
        with self._lock:
            self._models.pop(name, None)

    def clear(self) -> None:
        """Notes that every model is gone."""
        with self._lock:
            self._models.clear()

    def is_loaded(self, name: str) -> bool:
        """Returns whether a model is in memory."""
        with self._lock:
            return name in self._models

    def get_model(self, name: str) -> LoadedModel | None:
        """Returns a loaded model; None for an unknown one."""
        with self._lock:
            return self._models.get(name)

    def get_loaded_models(self) -> dict[str, LoadedModel]:
        """Returns the loaded models by name, the least recently used first; a copy."""
        with self._lock:
            return dict(self._models)

    def get_used_vram(self) -> int:
        """Returns the bytes in use: this process's on a GPU, the whole machine's on a CPU."""
        return self._memory.used()

    def get_total_vram(self) -> int:
        """Returns the bytes that the device has; no part of them is held back."""
        return self._memory.total()

    def get_available_vram(self) -> int:
        """Returns total - used, in bytes."""
        return self.get_total_vram() - self.get_used_vram()

    def can_fit(self, vram_bytes: int) -> bool:
        """Returns whether so many bytes are available; an exact fit fits."""
        return vram_bytes <= self.get_available_vram()

    def get_vram_stats(self) -> dict[str, Any]:
        """Returns what a status page shows, as plain JSON values; a GB has 2**30 bytes."""
        models = self.get_loaded_models().values()
        total, used = self.get_total_vram(), self.get_used_vram()
        return {
            "device": self.device,
            "total_gb": total / GIB,
            "used_gb": used / GIB,
            "available_gb": (total - used) / GIB,
            "usage_percent": 100 * used / total if total else 0.0,
            "models_loaded": len(models),
            "models": [
                {
                    "name": model.name,
                    "model_path": str(model.model_path),
                    "vram_gb": model.vram_bytes / GIB,
                    "loras": list(model.loras),
                }
                for model in models
            ],
        }

    def estimate_model_vram(self, model_path: Path | str) -> int:
        """Returns the bytes that a model will take: 1.2 times the size of its weights.

        Of a folder the files count that loading would read (`weight_files`). Where there is
        nothing, it is 0.

        Raises:
            ModelFormatError: the file or folder can't be read.
        """
        try:
            files = weight_files(Path(model_path))
            return int(sum(file_size(file) for file in files) * OVERHEAD)
        except ModelNotFoundError:
            return 0

    @contextmanager
    def lease(self, name: str) -> Iterator[LoadedModel]:
        """Keeps a model from being chosen by `make_room` meanwhile; any number may hold one.

        Beginning and ending count as use. If the model is unregistered meanwhile, ending the
        lease is no error.

        Raises:
            KeyError: no such model is loaded.
        """
        with self._lock:
            model = self._models[name]
            self._leases[name] += 1
            self._touch(name)
        try:
            yield model
        finally:
            with self._lock:
                self._leases[name] -= 1
                if not self._leases[name]:
                    del self._leases[name]
                self._touch(name)

    def touch(self, name: str) -> None:
        """Makes a model the most recently used one; an unknown one is no error."""
        with self._lock:
            self._touch(name)

    def in_use(self, name: str) -> bool:
        """Returns whether somebody holds a lease on a model."""
        with self._lock:
            return self._leases[name] > 0

    def make_room(self, vram_bytes: int, model_path: Path | str) -> list[str]:
        """Chooses the models to drop so that another one fits; drops none itself.

        What is free is measured here more strictly than `get_available_vram` does: what other
        programs hold on a GPU is not free.

        Args:
            vram_bytes: what the new model takes.
            model_path: the new model, for the error.

        Returns:
            Names of idle models (`choose_evictions`); empty where it fits as it is.

        Raises:
            NotEnoughMemoryError: dropping all idle models is not enough.
        """
        free = self._memory.free()
        with self._lock:
            idle = [model for name, model in self._models.items() if name not in self._leases]
        names = choose_evictions(idle, vram_bytes, free)
        if names is None:
            free += sum(model.vram_bytes for model in idle)
            raise NotEnoughMemoryError(model_path, vram_bytes, free, self._memory.total())
        return names

    def could_fit(self, vram_bytes: int) -> bool:
        """Returns whether so many bytes were free if every model went, those in use too."""
        loaded = sum(model.vram_bytes for model in self.get_loaded_models().values())
        return vram_bytes <= self._memory.free() + loaded

    def _touch(self, name: str) -> None:
        if name in self._models:
            self._models[name] = self._models.pop(name)


def _device_name(device: int | str | None) -> str:
    if device == "cpu":
        return "cpu"  # said outright: torch need not even be imported
    if isinstance(device, str):
        kind, _, number = device.partition(":")
        if kind != "cuda" or not (number or "0").isdecimal():
            raise DreamLabError(f"There is no device {device!r}; allowed are cpu, cuda, cuda:0, …")
        device = int(number or "0")
    return find_device(device or 0)
