"""Stable Diffusion 1.x and 2.x: stock diffusers parts, a step loop of our own.

A picture drawn alone is bit-equal to diffusers' ``StableDiffusionPipeline`` with the same
scheduler on the same machine. In company its rows share matrix products with others', which may
round differently in the last bit.
"""

import gc
import logging
from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

# Only the worker process imports this module; the deep paths spare it the pipelines.
import torch  # noqa: TID253
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL  # noqa: TID253
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel  # noqa: TID253
from diffusers.utils.torch_utils import randn_tensor  # noqa: TID253
from transformers.models.clip.modeling_clip import CLIPTextModel  # noqa: TID253
from transformers.models.clip.tokenization_clip import CLIPTokenizer  # noqa: TID253

from engine.errors import (
    DrawingError,
    ModelFormatError,
    ModelNotFoundError,
    NotEnoughMemoryError,
    RequestError,
    UnsupportedModelError,
)
from engine.jobs import Family, GenerationRequest, ModelSpec
from engine.model_files import read_config
from engine.previews import Projection, fit_projection, preview_jpeg
from engine.samplers import NoiseSchedule, create_scheduler, predicted_original, step_arguments
from engine.workers.base import Drawing, Worker

if TYPE_CHECKING:
    from engine.model_detector import DetectedModel

_PROMPTS_KEPT = 64
_CONVERSION = (
    'python -c "from diffusers import StableDiffusionPipeline as P; '
    "P.from_single_file('{path}').save_pretrained('{folder}')\""
)

log = logging.getLogger(__name__)


class StableDiffusionWorker(Worker):
    """Draws with one Stable Diffusion 1.x or 2.x model. See `Worker`."""

    def __init__(self, model: ModelSpec, family: Family, device: str, parts: "_Parts") -> None:
        self.model = model
        self.family = family
        self.device = device
        self.weight_bytes = parts.weight_bytes
        self._parts = parts
        self._scale = 2 ** (len(parts.vae.config.block_out_channels) - 1)
        self._projection: Projection = fit_projection(parts.vae)
        # Neighbouring requests repeat their prompts, and everybody's negative prompt is the same.
        self._embed = lru_cache(maxsize=_PROMPTS_KEPT)(self._encode)

    @classmethod
    def load(cls, model: ModelSpec, detected: "DetectedModel", device: str) -> Self:
        """Loads a diffusers folder: float32 on the CPU, float16 on a GPU. Never goes online.

        Args:
            model: what to load.
            detected: what the detector made of it.
            device: such as ``cpu`` or ``cuda:0``.

        Raises:
            ModelNotFoundError: there is no such folder.
            ModelFormatError: a part of it is missing or broken; the path is that part's.
            UnsupportedModelError: it is no diffusers folder, or holds what this worker can't use.
            NotEnoughMemoryError: the device has no room for it.
        """
        _check_supported(model)
        try:
            parts = _Parts(model, torch.device(device))
        except torch.OutOfMemoryError as error:
            needed = sum(file.stat().st_size for file in model.path.rglob("*.safetensors"))
            free = torch.cuda.mem_get_info(device)[0] if torch.cuda.is_available() else 0
            raise NotEnoughMemoryError(model.path, needed, free) from error
        return cls(model, Family(detected.family), device, parts)

    @torch.inference_mode()
    def begin(self, request: GenerationRequest) -> list[Drawing]:
        """See `Worker.begin`."""
        for name, pixels in (("width", request.width), ("height", request.height)):
            if pixels < self._scale or pixels % self._scale:
                raise RequestError(name, pixels, f"a multiple of {self._scale}")
        most = self._parts.schedule.most_steps
        if not 1 <= request.steps <= most:
            raise RequestError("steps", request.steps, f"1 to {most}")
        # The stock pipeline, too, runs without guidance from 1 down.
        guided = request.guidance_scale > 1
        prompts = (request.negative_prompt, request.prompt) if guided else (request.prompt,)
        embeddings = torch.cat([self._embed(prompt) for prompt in prompts])
        return [self._drawing(request, seed, embeddings) for seed in request.seeds]

    def _drawing(self, request: GenerationRequest, seed: int, embeddings: torch.Tensor) -> Drawing:
        scheduler = create_scheduler(request.sampler, self._parts.schedule, request.steps)
        generator = torch.Generator().manual_seed(seed)
        shape = (
            1,
            self._parts.unet.config.in_channels,
            request.height // self._scale,
            request.width // self._scale,
        )
        where = {"device": embeddings.device, "dtype": embeddings.dtype}
        noise = randn_tensor(shape, generator=generator, **where)
        variation_seed = request.variation_seed_of(seed)
        if variation_seed is not None:
            other = torch.Generator().manual_seed(variation_seed)
            noise = mix_noise(
                noise, randn_tensor(shape, generator=other, **where), request.variation_strength
            )
        return Drawing(
            request=request,
            seed=seed,
            scheduler=scheduler,
            generator=generator,
            latents=noise * scheduler.init_noise_sigma,
            embeddings=embeddings,
            steps=len(scheduler.timesteps),
        )

    def _encode(self, prompt: str) -> torch.Tensor:
        """Returns a prompt's embedding, ``[1, tokens, width]``; what is too long is cut off."""
        parts = self._parts
        tokens = parts.tokenizer(
            prompt,
            padding="max_length",
            max_length=parts.max_tokens,
            truncation=True,
            return_tensors="pt",
        )
        mask = None
        if getattr(parts.text_encoder.config, "use_attention_mask", False):
            mask = tokens.attention_mask.to(self.device)
        ids = tokens.input_ids.to(self.device)
        embedding: torch.Tensor = parts.text_encoder(ids, attention_mask=mask)[0]
        return embedding

    def batch_key(self, drawing: Drawing) -> Hashable:
        """See `Worker.batch_key`: the shapes of latents and prompts."""
        return tuple(drawing.latents.shape[1:]), drawing.embeddings.shape[1]

    @torch.inference_mode()
    def step(self, drawings: Sequence[Drawing]) -> None:
        """See `Worker.step`."""
        samples, timesteps = [], []
        for drawing in drawings:
            timestep = drawing.scheduler.timesteps[drawing.step]
            sample = drawing.scheduler.scale_model_input(drawing.latents, timestep)
            samples += [sample] * drawing.rows
            timesteps += [float(timestep)] * drawing.rows
        outputs = self._parts.unet(
            torch.cat(samples),
            # One float per row: the steps of the pictures differ. Whole numbers are exact in it.
            torch.tensor(timesteps, dtype=torch.float32).to(self.device),
            encoder_hidden_states=torch.cat([drawing.embeddings for drawing in drawings]),
            return_dict=False,
        )[0]
        rows = outputs.split([drawing.rows for drawing in drawings])
        for drawing, output in zip(drawings, rows, strict=True):
            try:
                _advance(drawing, output)
            except Exception as error:
                drawing.error = error

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
        pixels = self._decoded(drawing.latents)
        if vae.dtype == torch.float16 and not pixels.isfinite().all():
            # Some VAEs overflow in half precision. It stays in float32 from here on.
            log.warning("%s: the VAE overflows in float16; using float32.", self.model.path)
            vae.float()
            pixels = self._decoded(drawing.latents)
        if not pixels.isfinite().all():
            raise DrawingError(f"The VAE of {self.model.path.name} returned no numbers.")
        levels = ((pixels[0] * 0.5 + 0.5).clamp(0, 1).float() * 255).round()
        return levels.to(torch.uint8).movedim(0, -1).cpu().numpy()

    def _decoded(self, latents: torch.Tensor) -> torch.Tensor:
        vae = self._parts.vae
        pixels: torch.Tensor = vae.decode(
            latents.to(vae.dtype) / vae.config.scaling_factor, return_dict=False
        )[0]
        return pixels

    def close(self) -> None:
        """See `Worker.close`."""
        self._embed.cache_clear()
        # Whoever still holds the worker must not hold its weights.
        self.__dict__.pop("_parts", None)
        gc.collect()
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()


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
        scheduler.timesteps[drawing.step],
        drawing.latents,
        **step_arguments(drawing.request.sampler, drawing.generator),
    )
    drawing.latents = taken.prev_sample
    drawing.predicted = predicted_original(scheduler, taken)
    drawing.step += 1


def _check_supported(model: ModelSpec) -> None:
    path = model.path
    if not path.exists():
        raise ModelNotFoundError(path)
    if not path.is_dir():
        command = _CONVERSION.format(path=path, folder=path.with_suffix(""))
        raise UnsupportedModelError(
            path,
            f"single-file checkpoints can't be drawn with yet, only diffusers folders. "
            f"To convert it: {command}",
        )
    if model.loras:
        raise UnsupportedModelError(
            model.loras[0].path, "LoRAs can't be used yet; take it out of the mode"
        )


class _Parts:
    """The loaded parts of a diffusers folder, checked against each other."""

    def __init__(self, model: ModelSpec, device: torch.device) -> None:
        folder = model.path
        dtype = torch.float16 if device.type == "cuda" else torch.float32
        self.schedule = NoiseSchedule.read(
            folder / "scheduler" / "scheduler_config.json", model.prediction_type
        )
        self.tokenizer = _load_tokenizer(folder / "tokenizer")
        _check_configs(folder)
        self.text_encoder = _load_part(CLIPTextModel, folder / "text_encoder", dtype, device)
        self.unet = _load_part(UNet2DConditionModel, folder / "unet", dtype, device)
        self.vae = _load_part(AutoencoderKL, folder / "vae", dtype, device)
        vocabulary = self.text_encoder.config.vocab_size
        if len(self.tokenizer) != vocabulary:
            # Missing vocabulary files load without a word, as a tokenizer of two.
            raise ModelFormatError(
                folder / "tokenizer",
                f"knows {len(self.tokenizer)} tokens, the text encoder {vocabulary}",
            )
        self.max_tokens = min(
            self.tokenizer.model_max_length, self.text_encoder.config.max_position_embeddings
        )

    @property
    def weight_bytes(self) -> int:
        """Memory that the weights hold."""
        modules: tuple[torch.nn.Module, ...] = (self.text_encoder, self.unet, self.vae)
        return sum(
            tensor.nbytes
            for module in modules
            for tensor in (*module.parameters(), *module.buffers())
        )


def _check_configs(folder: Path) -> None:
    """Checks, before any weights are read, that the parts fit each other and this worker."""
    text_encoder = read_config(folder / "text_encoder" / "config.json")
    unet = read_config(folder / "unet" / "config.json")
    vae = read_config(folder / "vae" / "config.json")
    kind = text_encoder.get("model_type")
    if kind != "clip_text_model":
        raise UnsupportedModelError(
            folder / "text_encoder", f"is a {kind}; this family is drawn with a clip_text_model"
        )
    for key in ("time_cond_proj_dim", "class_embed_type", "encoder_hid_dim_type"):
        if unet.get(key) is not None:
            raise UnsupportedModelError(folder / "unet", f"{key} {unet[key]} has no worker yet")
    if unet.get("addition_embed_type") not in (None, "text"):
        raise UnsupportedModelError(
            folder / "unet", f"addition_embed_type {unet['addition_embed_type']} has no worker yet"
        )
    wide, read = text_encoder.get("hidden_size"), unet.get("cross_attention_dim")
    if wide != read:
        raise ModelFormatError(
            folder / "unet", f"reads prompts {read} wide, the text encoder writes {wide}"
        )
    channels = vae.get("latent_channels", 4)
    if unet.get("in_channels", 4) != channels:
        raise UnsupportedModelError(
            folder / "unet",
            f"takes {unet.get('in_channels')} channels, the VAE has {channels}: only models that "
            "draw from text alone have a worker yet",
        )


def _load_tokenizer(folder: Path) -> Any:
    if not folder.is_dir():
        raise ModelFormatError(folder, "the folder is missing")
    return _reading(folder, lambda: CLIPTokenizer.from_pretrained(folder, local_files_only=True))


def _load_part(
    kind: Any,
    folder: Path,
    dtype: torch.dtype,
    device: torch.device,
) -> Any:
    """Loads one part strictly: the stock loaders fill what a file lacks with random numbers."""
    file, variant = _weights(folder)
    part, info = _reading(
        file,
        lambda: kind.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            variant=variant,
            output_loading_info=True,
            dtype=dtype,
        ),
    )
    for problem in ("mismatched_keys", "missing_keys"):
        keys = sorted(str(key) for key in info.get(problem, ()))
        if keys:
            told = f"{keys[0]} and {len(keys) - 1} more" if len(keys) > 1 else keys[0]
            raise ModelFormatError(file, f"{problem.replace('_', ' ')}: {told}")
    part.requires_grad_(requires_grad=False)
    return part.to(device).eval()


def _weights(folder: Path) -> tuple[Path, str | None]:
    """Returns a part's weight file, or the index of its shards, and its variant."""
    if not folder.is_dir():
        raise ModelFormatError(folder, "the folder is missing")
    stem = "model" if folder.name == "text_encoder" else "diffusion_pytorch_model"
    for variant in (None, "fp16"):
        middle = f".{variant}" if variant else ""
        for name in (f"{stem}{middle}.safetensors", f"{stem}.safetensors.index{middle}.json"):
            if (folder / name).is_file():
                return folder / name, variant
    if any(folder.glob("*.bin")):
        raise UnsupportedModelError(
            folder, "holds pickled weights, which could run code; save it as .safetensors"
        )
    raise ModelFormatError(folder / f"{stem}.safetensors", "the file is missing")


def _reading(path: Path, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        # Whatever a broken file makes the loaders raise: they promise nothing.
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ModelFormatError(path, f"can't be read ({reason})") from error
