"""Stable Diffusion XL, base and refiner: wider prompts, and a UNet that hears of sizes.

The base reads a prompt with two text encoders side by side, the refiner with the larger one alone.
Beside that the UNet gets the larger encoder's summary of the prompt and a few numbers
(https://arxiv.org/abs/2307.01952, section 2.2): the size that a training picture had, where it
was cropped, and the size that it was brought to; for the refiner, how pretty people found it in
place of the last.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

# Only the worker process imports this module.
import torch  # noqa: TID253

from engine.errors import ModelFormatError, UnsupportedModelError
from engine.jobs import Family, GenerationRequest, ModelSpec
from engine.model_files import read_config
from engine.workers.latent import Conditioning, LatentWorker
from engine.workers.parts import Parts, PartSource, check_fit
from engine.workers.prompts import PromptEncoder

_READERS: Mapping[Family, tuple[tuple[str, str], ...]] = {
    Family.SDXL: (("tokenizer", "text_encoder"), ("tokenizer_2", "text_encoder_2")),
    Family.SDXL_REFINER: (("tokenizer_2", "text_encoder_2"),),
}
"""Tokenizers and text encoders; the last one sums up the prompt."""

_NUMBERS: Mapping[Family, int] = {Family.SDXL: 6, Family.SDXL_REFINER: 5}
"""How many numbers beside the prompt the UNet reads."""

# As the stock pipeline has them: what the refiner is asked for and what to keep away from.
_AESTHETIC_SCORE = 6.0
_NEGATIVE_AESTHETIC_SCORE = 2.5


class StableDiffusionXLWorker(LatentWorker):
    """Draws with one SDXL base model or refiner, either alone from noise. See `Worker`."""

    def __init__(self, model: ModelSpec, family: Family, device: str, parts: Parts) -> None:
        super().__init__(model, family, device, parts)
        # Both encoders are read at their last layer but one, without its norm.
        self._prompts = PromptEncoder(parts.readers, layer=2, normed=False)
        # Whether a negative prompt left empty is zeros, as the base has it, or an empty prompt.
        self._zeros = bool(parts.index.get("force_zeros_for_empty_prompt", True))

    @classmethod
    def _load_parts(
        cls, source: PartSource, model: ModelSpec, family: Family, device: torch.device
    ) -> Parts:
        return Parts.load(
            source,
            model,
            device,
            _READERS[family],
            partial(_check_configs, family),
            _vae_format(source.folder, device),
        )

    def _condition(self, request: GenerationRequest, *, guided: bool) -> Conditioning:
        readings = self._prompts.read(request, guided=guided, loras=self._parts.loras.worn)
        embeddings = torch.cat([reading.embedding for reading in readings])
        summary = torch.cat([reading.summary for reading in readings])
        size = (request.height, request.width)
        numbers = [self._numbers(size, _AESTHETIC_SCORE)]
        if guided:
            numbers.insert(0, self._numbers(size, _NEGATIVE_AESTHETIC_SCORE))
            if self._zeros and not request.negative_prompt:
                embeddings[0], summary[0] = 0, 0
        time_ids = torch.tensor(numbers, dtype=embeddings.dtype).to(self.device)
        return Conditioning(embeddings, {"text_embeds": summary, "time_ids": time_ids})

    def _numbers(self, size: tuple[int, int], score: float) -> tuple[float, ...]:
        """Returns what the UNet hears of a picture: its size, uncropped, and size or score."""
        last = size if self.family is Family.SDXL else (score,)
        return (*size, 0, 0, *last)

    def close(self) -> None:
        """See `Worker.close`."""
        self.__dict__.pop("_prompts", None)
        super().close()


def _vae_format(folder: Path, device: torch.device) -> torch.dtype | None:
    """Returns the VAE's number format where it can't have that of the other parts; else None.

    The original VAE overflows in float16, which `force_upcast` says of it. bfloat16 has the range
    of float32 in half of its memory, and enough digits for a picture.
    """
    forced = read_config(folder / "vae" / "config.json").get("force_upcast", True)
    if device.type != "cuda" or not forced:
        return None
    supported = torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if supported else torch.float32


def _check_configs(family: Family, folder: Path) -> None:
    check_fit(folder, [encoder for _, encoder in _READERS[family]])
    unet = read_config(folder / "unet" / "config.json")
    if unet.get("addition_embed_type") != "text_time":
        raise UnsupportedModelError(
            folder / "unet",
            f"addition_embed_type is {unet.get('addition_embed_type')}; this family is drawn with "
            "text_time",
        )
    summary = read_config(folder / "text_encoder_2" / "config.json").get("projection_dim")
    each = unet.get("addition_time_embed_dim")
    read = unet.get("projection_class_embeddings_input_dim")
    if not (isinstance(summary, int) and isinstance(each, int)) or (
        summary + _NUMBERS[family] * each != read
    ):
        raise ModelFormatError(
            folder / "unet",
            f"reads {read} values beside the prompt, not the {summary} of text_encoder_2 and "
            f"{_NUMBERS[family]} numbers in {each} values each",
        )
    vae = read_config(folder / "vae" / "config.json")
    if vae.get("latents_mean") is not None or vae.get("latents_std") is not None:
        raise UnsupportedModelError(folder / "vae", "latents_mean has no worker yet")
