"""(pure) What a job needs of a device, and what a device has been found to be short of."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from engine.errors import ModelElsewhereError, NotEnoughMemoryError, OutOfMemoryError
from engine.jobs import GenerationRequest, ModelSpec


@dataclass(frozen=True, slots=True)
class Need:
    """What a job needs of a device; equal for all jobs that need the same.

    Attributes:
        models: what it is done with; the first is loaded when it begins.
        pixels: of each picture that is drawn; 0 where none is.
        rows: that a picture takes of a forward pass: 2 with guidance, else 1.
    """

    models: tuple[ModelSpec, ...] = ()
    pixels: int = 0
    rows: int = 1

    @classmethod
    def of(cls, request: GenerationRequest) -> Self:
        """Returns what a request needs."""
        models = (request.model, request.refiner) if request.refiner else (request.model,)
        pixels = request.width * request.height if request.is_drawn else 0
        return cls(models, pixels, 2 if request.guidance_scale > 1 else 1)

    @property
    def model(self) -> ModelSpec | None:
        """What is loaded when it begins; None where that is nothing."""
        return self.models[0] if self.models else None

    @property
    def files(self) -> frozenset[Path]:
        """All files and folders of its models."""
        return frozenset(path for model in self.models for path in model.files)


@dataclass(frozen=True, slots=True)
class Shortage:
    """What a device can't do: whatever needs all of some files, and at least so many pixels.

    Attributes:
        files: of models, LoRAs and VAEs.
        pixels: of a picture; 0 for any size, and for what draws nothing.
        is_missing: whether its machine has no such files; else it is memory that lacks.
    """

    files: frozenset[Path]
    pixels: int = 0
    is_missing: bool = False

    def concerns(self, need: Need) -> bool:
        """Returns whether it is in the way of a job."""
        return self.pixels <= need.pixels and self.files <= need.files


def shortage_of(need: Need, error: BaseException) -> Shortage | None:
    """Returns what the error of a job says of the device where it was tried.

    None where it says nothing of the device: another one would do no better.
    """
    if not need.models:
        return None
    match error:
        case ModelElsewhereError():
            return lack_of(error.path)
        case NotEnoughMemoryError():
            return Shortage(need.files)
        case OutOfMemoryError() if need.pixels:
            return Shortage(need.files, need.pixels)
    return None


def lack_of(file: Path) -> Shortage:
    """Returns the shortage of a machine that has no such file."""
    return Shortage(frozenset({file}), is_missing=True)
