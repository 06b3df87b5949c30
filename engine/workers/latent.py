"""The step loop of the latent diffusion families: stock diffusers parts, a loop of our own.

A picture drawn alone is bit-equal to the stock diffusers pipeline with the same scheduler on the
same machine, its weights aligned and without gradients as ours are. In company its rows share
matrix products with others', which may round differently in the last bit.
"""

import gc
import logging
import math
from abc import abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

# Only the worker process imports this module; the deep paths spare it the pipelines.
import torch  # noqa: TID253
from diffusers.image_processor import VaeImageProcessor  # noqa: TID253
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution  # noqa: TID253
from diffusers.utils.torch_utils import randn_tensor  # noqa: TID253

from engine.errors import DrawingError, NotEnoughMemoryError, RequestError
from engine.images import read_source
from engine.jobs import Family, GenerationRequest, LoraSpec, ModelSpec
from engine.previews import Projection, fit_projection, preview_jpeg
from engine.samplers import create_scheduler, predicted_original, step_arguments
from engine.workers.base import Drawing, Worker
from engine.workers.compiled import Arguments, CompiledPasses
from engine.workers.parts import Parts, PartSource, open_source
from engine.workers.prompts import PromptEncoder

if TYPE_CHECKING:
    from engine.model_detector import DetectedModel

UNTILED_PIXELS = 1536 * 1536
"""Largest picture that the VAE makes in one piece as long as memory lasts."""

_TILE = 512  # pixels; what SD1.x was trained at, so that every VAE knows such pictures

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Conditioning:
    """What the prompts of a request tell the UNet: a row for each, the negative prompt's first.

    Attributes:
        embeddings: ``[rows, tokens, width]``.
        added: what else it reads, ``[rows, ...]`` each, by its name in diffusers'
            ``added_cond_kwargs``.
    """

    embeddings: torch.Tensor
    added: Mapping[str, torch.Tensor] = field(default_factory=dict)


class LatentWorker(Worker):
    """Draws with one model of a UNet and a VAE. See `Worker`."""

    backend: ClassVar[str] = "inductor"
    """What compiles, where a mode asks for it: a backend of ``torch.compile``."""

    _prompts: PromptEncoder

    def __init__(self, model: ModelSpec, family: Family, device: str, parts: Parts) -> None:
        self.model = model
        self.family = family
        self.device = device
        self.weight_bytes = parts.weight_bytes
        self._parts = parts
        self._scale = 2 ** (len(parts.vae.config.block_out_channels) - 1)
        self._projection: Projection = fit_projection(parts.vae)
        self._processor = VaeImageProcessor(vae_scale_factor=self._scale)
        parts.vae.tile_sample_min_size = _TILE
        parts.vae.tile_latent_min_size = _TILE // self._scale

    @classmethod
    def load(cls, model: ModelSpec, detected: "DetectedModel", device: str) -> Self:
        """Loads a model without LoRAs: float32 on the CPU, float16 on a GPU. Never goes online.

        Args:
            model: what to load.
            detected: what the detector made of it.
            device: such as ``cpu`` or ``cuda:0``.

        Raises:
            ModelNotFoundError: there is no such model.
            ModelFormatError: a part of it is missing or broken; the path is that one's.
            UnsupportedModelError: it holds what this worker can't use.
            NotEnoughMemoryError: the device has no room for it.
        """
        family = Family(detected.family)
        source = open_source(model.path, family, own_vae=model.vae is None)
        try:
            parts = cls._load_parts(source, model, family, torch.device(device))
        except torch.OutOfMemoryError as error:
            files = [model.path] if model.path.is_file() else model.path.rglob("*.safetensors")
            needed = sum(file.stat().st_size for file in files)
            free, total = torch.cuda.mem_get_info(device)
            raise NotEnoughMemoryError(model.path, needed, free, total) from error
        return cls(model, family, device, parts)

    @classmethod
    @abstractmethod
    def _load_parts(
        cls, source: PartSource, model: ModelSpec, family: Family, device: torch.device
    ) -> Parts:
        """Returns the model's parts, checked; raises as `load`."""

    @abstractmethod
    def _condition(self, request: GenerationRequest, *, guided: bool) -> Conditioning:
        """Reads the prompts: the negative one and the prompt, or the prompt alone.

        What counts with them is `Adapters.worn`.
        """

    @property
    def loras(self) -> tuple[Path, ...]:
        """See `Worker.loras`."""
        return self._parts.loras.files

    def holds_lora(self, path: Path) -> bool:
        """See `Worker.holds_lora`."""
        return self._parts.loras.holds(path)

    def load_lora(self, path: Path) -> None:
        """See `Worker.load_lora`."""
        self._parts.loras.load(path)
        self.weight_bytes = self._parts.weight_bytes

    def drop_lora(self, path: Path) -> None:
        """See `Worker.drop_lora`."""
        self._parts.loras.drop(path)
        self.weight_bytes = self._parts.weight_bytes

    def _loras(self, request: GenerationRequest) -> tuple[LoraSpec, ...]:
        """Returns what a request wants laid over this model, be it drawn or refined with it."""
        refines = request.refiner is not None and request.model.key != self.model.key
        model = request.refiner if refines else request.model
        return model.loras if model is not None else ()

    @torch.inference_mode()
    def begin(self, request: GenerationRequest) -> list[Drawing]:
        """See `Worker.begin`."""
        for name, pixels in (("width", request.width), ("height", request.height)):
            if pixels < self._scale or pixels % self._scale:
                raise RequestError(name, pixels, f"a multiple of {self._scale}")
        most = self._parts.schedule.most_steps
        if not 1 <= request.steps <= most:
            raise RequestError("steps", request.steps, f"1 to {most}")
        _check_strength(request)
        self._parts.loras.wear(self._loras(request))
        conditioning = self._condition(request, guided=_guided(request))
        source = None if request.source is None else self._encoded(request.source, request)
        return [self._drawing(request, seed, conditioning, source) for seed in request.seeds]

    def _drawing(
        self,
        request: GenerationRequest,
        seed: int,
        conditioning: Conditioning,
        source: DiagonalGaussianDistribution | None,
    ) -> Drawing:
        scheduler = create_scheduler(request.sampler, self._parts.schedule, request.steps)
        first = _begin_at(scheduler, _first_pass(scheduler, request))
        generator = torch.Generator().manual_seed(seed)
        shape = (
            1,
            self._parts.unet.config.in_channels,
            request.height // self._scale,
            request.width // self._scale,
        )
        embeddings = conditioning.embeddings
        where = {"device": embeddings.device, "dtype": embeddings.dtype}
        # The stock pipelines draw from the generator in this order.
        start = None if source is None else source.sample(generator).to(embeddings.dtype)
        noise = randn_tensor(shape, generator=generator, **where)
        variation_seed = request.variation_seed_of(seed)
        if variation_seed is not None:
            other = torch.Generator().manual_seed(variation_seed)
            noise = mix_noise(
                noise, randn_tensor(shape, generator=other, **where), request.variation_strength
            )
        if start is None:
            latents = noise * scheduler.init_noise_sigma
        else:
            latents = scheduler.add_noise(
                self._parts.vae.config.scaling_factor * start,
                noise,
                scheduler.timesteps[first : first + 1],
            )
        steps = len(scheduler.timesteps) - first
        handover = None
        if request.refiner is not None:
            handover = max(0, _first_refined(scheduler, request) - first)
        return Drawing(
            request=request,
            seed=seed,
            scheduler=scheduler,
            generator=generator,
            latents=latents,
            embeddings=embeddings,
            added=conditioning.added,
            steps=steps,
            first=first,
            handover=handover,
        )

    def _encoded(self, path: Path, request: GenerationRequest) -> DiagonalGaussianDistribution:
        """Returns what the VAE makes of a request's source: where its latents may lie."""
        image = read_source(path, request.width, request.height)
        pixels = self._processor.preprocess(image).to(self.device)
        vae = self._parts.vae
        own = [(weight, weight.data) for weight in vae.parameters()]
        try:
            # float16 may overflow here too, and bfloat16 has too few digits to start from.
            vae.float()
            source: DiagonalGaussianDistribution = self._with_vae(
                request, lambda: vae.encode(pixels).latent_dist
            )
        finally:
            for weight, data in own:  # other models may share that memory
                weight.data = data
        return source

    @torch.inference_mode()
    def take_over(self, drawing: Drawing) -> None:
        """See `Worker.take_over`: as the stock way with ``denoising_end`` and ``denoising_start``.

        The picture keeps its generator; its new scheduler knows nothing of the steps before.
        """
        request = drawing.request
        scheduler = create_scheduler(request.sampler, self._parts.schedule, request.steps)
        first = max(_first_pass(scheduler, request), _first_refined(scheduler, request))
        self._parts.loras.wear(self._loras(request))
        conditioning = self._condition(request, guided=_guided(request))
        drawing.scheduler = scheduler
        drawing.first = _begin_at(scheduler, first) - drawing.step
        drawing.steps = len(scheduler.timesteps) - drawing.first
        drawing.handover = None
        drawing.embeddings = conditioning.embeddings
        drawing.added = conditioning.added

    def batch_key(self, drawing: Drawing) -> Hashable:
        """See `Worker.batch_key`: the shapes of latents and prompts, and the LoRAs."""
        loras = self._parts.loras.choice(self._loras(drawing.request))
        return tuple(drawing.latents.shape[1:]), drawing.embeddings.shape[1], loras

    @torch.inference_mode()
    def step(self, drawings: Sequence[Drawing], rows: int = 0) -> None:
        """See `Worker.step`."""
        self._parts.loras.wear(self._loras(drawings[0].request))
        samples, timesteps = [], []
        for drawing in drawings:
            sample = drawing.scheduler.scale_model_input(drawing.latents, drawing.timestep)
            samples += [sample] * drawing.rows
            timesteps += [float(drawing.timestep)] * drawing.rows
        lacking = max(0, rows - len(timesteps))
        timesteps += timesteps[-1:] * lacking
        arguments = self._arguments(
            _filled_up(samples, lacking),
            timesteps,
            _filled_up([drawing.embeddings for drawing in drawings], lacking),
            {
                name: _filled_up([drawing.added[name] for drawing in drawings], lacking)
                for name in drawings[0].added
            },
        )
        outputs = self._forward(arguments, compiled=drawings[0].request.compiled)
        each = torch.split(outputs, [*(drawing.rows for drawing in drawings), lacking])
        for drawing, output in zip(drawings, each[:-1], strict=True):
            try:
                _advance(drawing, output)
            except Exception as error:
                drawing.error = error

    @torch.inference_mode()
    def rehearse(self, drawing: Drawing, rows: int) -> None:
        """See `Worker.rehearse`."""
        self._parts.loras.wear(self._loras(drawing.request))
        self._forward(self._repeated(drawing, rows), compiled=drawing.request.compiled)

    @torch.inference_mode()
    def prepare(self, drawing: Drawing, rows: Sequence[int]) -> None:
        """See `Worker.prepare`."""
        if not self.loras:
            for number in rows:
                self.compiled.ask(self._repeated(drawing, number))

    def _repeated(self, drawing: Drawing, rows: int) -> Arguments:
        """Returns the arguments of a pass of so many rows like a drawing's."""
        index = [number % drawing.rows for number in range(rows)]
        return self._arguments(
            torch.cat([drawing.latents] * rows),
            [float(drawing.scheduler.timesteps[drawing.first])] * rows,
            drawing.embeddings[index],
            {name: value[index] for name, value in drawing.added.items()},
        )

    def _arguments(
        self,
        samples: torch.Tensor,
        timesteps: Sequence[float],
        embeddings: torch.Tensor,
        added: Mapping[str, torch.Tensor],
    ) -> Arguments:
        return {
            "sample": samples,
            # One float per row: the steps of the pictures differ. Whole numbers are exact in it.
            "timestep": torch.tensor(timesteps, dtype=torch.float32).to(self.device),
            "encoder_hidden_states": embeddings,
            "added_cond_kwargs": added,
            "return_dict": False,
        }

    def _forward(self, arguments: Arguments, *, compiled: bool) -> torch.Tensor:
        # LoRAs beside the layers are no part of what was compiled.
        passed = self.compiled.passes(arguments) if compiled and not self.loras else None
        outputs: torch.Tensor = (passed or self._parts.unet(**arguments))[0]
        return outputs

    @cached_property
    def compiled(self) -> CompiledPasses:
        """The UNet's compiled code."""
        return CompiledPasses(self._parts.unet, self.model.path.name, self.backend)

    def preview(self, drawing: Drawing) -> bytes | None:
        """See `Worker.preview`."""
        if drawing.predicted is None:
            return None
        request = drawing.request
        return preview_jpeg(drawing.predicted, self._projection, request.width, request.height)

    @torch.inference_mode()
    def decode(self, drawing: Drawing) -> npt.NDArray[np.uint8]:
        """See `Worker.decode`."""
        if not drawing.latents.isfinite().all():
            raise DrawingError(
                f"{self.model.path.name} drew values that are no numbers. Its weights may be "
                "damaged, or its prediction type is not the one that the mode says."
            )
        vae = self._parts.vae
        pixels = self._decoded(drawing)
        if pixels.dtype == torch.float16 and not pixels.isfinite().all():
            # Some VAEs overflow in half precision. It stays in float32 from here on.
            log.warning("%s: the VAE overflows in float16; using float32.", self.model.path)
            try:
                vae.float()
            except torch.OutOfMemoryError:
                vae.half()  # some of it is float32 already
                raise
            pixels = self._decoded(drawing)
        if not pixels.isfinite().all():
            raise DrawingError(f"The VAE of {self.model.path.name} returned no numbers.")
        levels = ((pixels[0] * 0.5 + 0.5).clamp(0, 1).float() * 255).round()
        return levels.to(torch.uint8).movedim(0, -1).cpu().numpy()

    def _decoded(self, drawing: Drawing) -> torch.Tensor:
        vae = self._parts.vae
        latents = drawing.latents.to(vae.dtype) / vae.config.scaling_factor
        pixels: torch.Tensor = self._with_vae(
            drawing.request, lambda: vae.decode(latents, return_dict=False)[0]
        )
        # bfloat16 has too few digits for what comes next.
        return pixels.float() if pixels.dtype == torch.bfloat16 else pixels

    def _with_vae(self, request: GenerationRequest, run: Callable[[], Any]) -> Any:
        """Runs the VAE over a whole picture, or over tiles where that is too much for the memory.

        Tiles overlap and are blended. Each is a picture of its own to the VAE, so that shades may
        differ from tile to tile: pictures of usual sizes are done in one piece.
        """
        vae = self._parts.vae
        vae.use_tiling = request.width * request.height > UNTILED_PIXELS
        if vae.use_tiling:
            return run()
        try:
            return run()
        except torch.OutOfMemoryError:
            log.warning("%s: no memory for the VAE in one piece; using tiles.", self.model.path)
        # Out of the handler, the first try's tensors are gone.
        torch.cuda.empty_cache()
        vae.use_tiling = True
        return run()

    def parts(self) -> Mapping[str, Sequence[torch.Tensor]]:
        """See `Worker.parts`."""
        return self._parts.tensors

    def rest(self) -> None:
        """See `Worker.rest`."""
        for path in self.loras:
            self.drop_lora(path)
        self._prompts.forget()
        if "compiled" in self.__dict__:
            self.compiled.rest()

    def close(self) -> None:
        """See `Worker.close`."""
        # Whoever still holds the worker must not hold its weights.
        self.__dict__.pop("_parts", None)
        self.__dict__.pop("compiled", None)
        gc.collect()
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()


def _filled_up(tensors: Sequence[torch.Tensor], lacking: int) -> torch.Tensor:
    """Returns tensors one below the other, the last row so many times more."""
    return torch.cat([*tensors, *[tensors[-1][-1:]] * lacking])


def _guided(request: GenerationRequest) -> bool:
    # The stock pipelines, too, run without guidance from 1 down.
    return request.guidance_scale > 1


def _check_strength(request: GenerationRequest) -> None:
    if request.source is None or (0 < request.strength <= 1 and request.steps_taken >= 1):
        return
    least = math.ceil(1000 / request.steps) / 1000
    raise RequestError("strength", request.strength, f"{least:g} to 1 with {request.steps} steps")


def _first_pass(scheduler: Any, request: GenerationRequest) -> int:
    """Returns the index of the timestep that a request begins at: 0 without a source."""
    skipped: int = (request.steps - request.steps_taken) * scheduler.order
    return skipped


def _first_refined(scheduler: Any, request: GenerationRequest) -> int:
    """Returns the index of the timestep that the refiner begins at.

    The share is one of the training's timesteps, as ``denoising_start`` counts them. Where a step
    takes two passes, both are on one side.
    """
    known = scheduler.config.num_train_timesteps
    passes = int((scheduler.timesteps >= round(known - request.refiner_from * known)).sum())
    first: int = passes - passes % scheduler.order
    return first


def _begin_at(scheduler: Any, index: int) -> int:
    """Tells a scheduler which of its timesteps comes first, and returns the index."""
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(index)
    return index


def mix_noise(noise: torch.Tensor, other: torch.Tensor, share: float) -> torch.Tensor:
    """Returns noise between two, as strong as either; ``share`` of the way from the first.

    Spherical interpolation (Shoemake 1985) over the whole picture: a plain average of two noises
    would be weaker than noise, and a model draws mush from that.

    Args:
        noise: any shape.
        other: the same shape.
        share: 0 returns the first, 1 the other.
    """
    first, second = noise.double().flatten(), other.double().flatten()
    cosine = torch.dot(first, second) / (first.norm() * second.norm())
    angle = torch.acos(cosine.clamp(-1, 1))
    if angle.sin() < 1e-6:  # the same direction: nothing to turn through
        return noise
    mixed = (
        torch.sin((1 - share) * angle) * first + torch.sin(share * angle) * second
    ) / angle.sin()
    return mixed.reshape(noise.shape).to(noise.dtype)


def _advance(drawing: Drawing, output: torch.Tensor) -> None:
    """Lets a drawing's own scheduler take its step.

    Args:
        drawing: whose.
        output: the UNet's ``[rows, channels, height, width]``.
    """
    if drawing.rows > 1:
        unconditional, conditional = output.chunk(2)
        guidance = drawing.request.guidance_scale
        output = unconditional + guidance * (conditional - unconditional)
    scheduler = drawing.scheduler
    taken = scheduler.step(
        output,
        drawing.timestep,
        drawing.latents,
        **step_arguments(drawing.request.sampler, drawing.generator),
    )
    drawing.latents = taken.prev_sample
    drawing.predicted = predicted_original(scheduler, taken)
    drawing.step += 1
