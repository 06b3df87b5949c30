"""What the step loop asks of a worker: a loaded model that draws several pictures side by side."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from engine.images import encode_png, request_parameters
from engine.jobs import Family, GeneratedImage, GenerationRequest, ModelSpec

if TYPE_CHECKING:
    import torch


@dataclasses.dataclass(slots=True, eq=False, kw_only=True)
class Drawing:
    """One picture of a request on its way, with all that must not be shared.

    Attributes:
        request: what it is drawn for.
        seed: the seed of just this picture.
        scheduler: its own, since schedulers carry state from step to step.
        generator: its own, on the CPU, so that a seed draws the same picture whoever shares the
            batch and whatever the device.
        latents: ``[1, channels, height / 8, width / 8]``, as noisy as its step says.
        embeddings: ``[rows, tokens, width]``: the negative prompt's and the prompt's, or the
            prompt's alone where guidance is off.
        added: what else the UNet reads for these rows, ``[rows, ...]`` each.
        steps: forward passes in all.
        first: index of the scheduler's timestep that the first of them had, or would have had:
            above 0 with a picture to start from.
        handover: forward passes after which the refiner takes over; None where none does any more.
        step: forward passes made.
        predicted: what the finished latents looked like from the latest step; None before it.
        error: what went wrong with this picture alone; it takes no further step then.
    """

    request: GenerationRequest
    seed: int
    scheduler: Any
    generator: "torch.Generator"
    latents: "torch.Tensor"
    embeddings: "torch.Tensor"
    steps: int
    added: Mapping[str, "torch.Tensor"] = dataclasses.field(default_factory=dict)
    first: int = 0
    handover: int | None = None
    step: int = 0
    predicted: "torch.Tensor | None" = None
    error: Exception | None = None

    @property
    def rows(self) -> int:
        """How many rows of a batch it takes: 2 with guidance, 1 without."""
        return int(self.embeddings.shape[0])

    @property
    def timestep(self) -> Any:
        """The scheduler's timestep of the next forward pass."""
        return self.scheduler.timesteps[self.first + self.step]

    @property
    def done(self) -> bool:
        """Whether all its steps are made."""
        return self.step >= self.steps

    @property
    def leaves(self) -> bool:
        """Whether the refiner makes the next step."""
        return self.handover is not None and self.step >= self.handover and not self.done


class Worker(ABC):
    """A model in memory. One thread calls it; nothing here is locked.

    Attributes:
        model: what was loaded.
        family: the kind of model.
        device: where it is, such as ``cpu`` or ``cuda:0``.
        weight_bytes: memory that its weights hold, those of the LoRAs beside them included.
    """

    model: ModelSpec
    family: Family
    device: str
    weight_bytes: int

    @property
    @abstractmethod
    def loras(self) -> tuple[Path, ...]:
        """Files of the LoRAs that are in memory beside it, the least recently used first."""

    @abstractmethod
    def holds_lora(self, path: Path) -> bool:
        """Returns whether a LoRA is in memory beside it, and its file is still the same."""

    @abstractmethod
    def load_lora(self, path: Path) -> None:
        """Puts a LoRA beside it, for the requests that ask with it.

        Raises:
            ModelError: it can't be laid over this model; all is as it was.
        """

    @abstractmethod
    def drop_lora(self, path: Path) -> None:
        """Gives a LoRA's memory back; an unknown one is no error."""

    @abstractmethod
    def begin(self, request: GenerationRequest) -> list[Drawing]:
        """Reads the prompts and returns one drawing per seed, before its first step.

        The LoRAs of the request must be in memory.

        Raises:
            RequestError: this model can't draw what is asked.
            DrawingError: the picture to start from can't be read.
        """

    @abstractmethod
    def take_over(self, drawing: Drawing) -> None:
        """Makes a drawing that `Drawing.leaves` another worker one of this worker's.

        Raises:
            RequestError: this model can't go on with it.
        """

    @abstractmethod
    def batch_key(self, drawing: Drawing) -> Hashable:
        """Returns what is equal for the drawings that can share a forward pass."""

    @abstractmethod
    def step(self, drawings: Sequence[Drawing], rows: int = 0) -> None:
        """Takes one denoising step for each drawing, all in one forward pass.

        The drawings have one batch key between them; all else may differ. The pass is filled up to
        so many rows with copies that nobody looks at. Where the forward pass
        raises, none has changed. What goes wrong with one of them later is its `Drawing.error`.
        """

    @abstractmethod
    def rehearse(self, drawing: Drawing, rows: int) -> None:
        """Makes a forward pass of so many rows like a drawing's, to no effect but the time.

        What it raises is what `step` may raise as a whole.
        """

    def prepare(  # noqa: B027 - who compiles nothing has nothing to prepare
        self, drawing: Drawing, rows: Sequence[int]
    ) -> None:
        """Begins to compile passes like a drawing's, beside the step loop.

        Args:
            drawing: what they are like.
            rows: of the passes, in the order in which they are wanted.
        """

    @abstractmethod
    def preview(self, drawing: Drawing) -> bytes | None:
        """Returns what the picture looks like so far as a small JPEG; None before a step."""

    @abstractmethod
    def decode(self, drawing: Drawing) -> npt.NDArray[np.uint8]:
        """Returns a finished drawing's pixels, ``[height, width, 3]``.

        Raises:
            DrawingError: what was drawn is not a number.
        """

    def parts(self) -> Mapping[str, Sequence["torch.Tensor"]]:
        """Returns all tensors of each part, LoRAs left out.

        While the worker has no step to make, they may lose their memory and get it back, elsewhere
        and with the same values. None: this worker can't be used again once its weights are gone.
        """
        return {}

    def rest(self) -> None:  # noqa: B027 - who has no parts need not rest
        """Lets go of everything on the device but its `parts`: LoRAs, prompts that were read."""

    @abstractmethod
    def close(self) -> None:
        """Gives the memory back; the worker can't be used any more."""

    def finish(self, drawing: Drawing) -> GeneratedImage:
        """Returns a finished drawing as a file.

        Raises:
            DrawingError: as `decode`.
        """
        return to_image(self.decode(drawing), drawing.request, drawing.seed)


def to_image(
    pixels: npt.NDArray[np.uint8], request: GenerationRequest, seed: int
) -> GeneratedImage:
    """Returns pixels as a file that carries its parameters; needs no device, so any thread may."""
    height, width = pixels.shape[:2]
    png = encode_png(pixels, request_parameters(request, seed))
    return GeneratedImage(png=png, seed=seed, width=width, height=height)
