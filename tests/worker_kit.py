"""What tests of the drawing side share: the bundled model, requests for it, broken copies."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.jobs import GenerationRequest, ModelSpec, Sampler
from engine.model_registry import ModelRegistry

DEMO = ModelSpec(Path(__file__).parent.parent / "models" / "diffusers" / "dream-demo")

REQUEST = GenerationRequest(
    mode="dream",
    model=DEMO,
    prompt="a red house by the sea",
    negative_prompt="night",
    width=128,
    height=128,
    steps=4,
    guidance_scale=5.0,
    sampler=Sampler.EULER,
    seed=7,
)
"""A quick one; `ask` changes what matters to a test."""


def ask(**changes: Any) -> GenerationRequest:
    """Returns `REQUEST` with changes."""
    return replace(REQUEST, **changes)


def copy_demo(folder: Path) -> ModelSpec:
    """Copies the bundled model so that a test may break it."""
    path = folder / "model"
    shutil.copytree(DEMO.path, path)
    return ModelSpec(path)


class SmallRegistry(ModelRegistry):
    """The registry of a device that has room for so many bytes and no more."""

    def __init__(self, room: int, device: str = "cpu") -> None:
        super().__init__(device)
        self._memory = _Room(self, room)


class _Room:
    """Memory that is taken by what is loaded: as the registry counts it, or a GPU measures it."""

    def __init__(self, registry: ModelRegistry, total: int) -> None:
        self.registry = registry
        self.bytes = total

    def total(self) -> int:
        return self.bytes

    def used(self) -> int:
        if self.registry.device == "cpu":
            return sum(model.vram_bytes for model in self.registry.get_loaded_models().values())
        import torch

        return torch.cuda.memory_allocated(self.registry.device)

    def free(self) -> int:
        return self.total() - self.used()
