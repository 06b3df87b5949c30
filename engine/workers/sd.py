"""Stable Diffusion 1.x and 2.x: one text encoder, all that the UNet hears of is the prompt."""

from pathlib import Path

# Only the worker process imports this module.
import torch  # noqa: TID253

from engine.errors import UnsupportedModelError
from engine.jobs import Family, GenerationRequest, ModelSpec
from engine.model_files import read_config
from engine.workers.latent import Conditioning, LatentWorker
from engine.workers.parts import Parts, PartSource, check_fit
from engine.workers.prompts import PromptEncoder


class StableDiffusionWorker(LatentWorker):
    """Draws with one Stable Diffusion 1.x or 2.x model. See `Worker`."""

    def __init__(self, model: ModelSpec, family: Family, device: str, parts: Parts) -> None:
        super().__init__(model, family, device, parts)
        self._prompts = PromptEncoder(parts.readers, layer=1, normed=True)

    @classmethod
    def _load_parts(
        cls, source: PartSource, model: ModelSpec, family: Family, device: torch.device
    ) -> Parts:
        readers = [("tokenizer", "text_encoder")]
        return Parts.load(source, model, device, readers, _check_configs)

    def _condition(self, request: GenerationRequest, *, guided: bool) -> Conditioning:
        readings = self._prompts.read(request, guided=guided, loras=self._parts.loras.worn)
        return Conditioning(torch.cat([reading.embedding for reading in readings]))

    def close(self) -> None:
        """See `Worker.close`."""
        self.__dict__.pop("_prompts", None)
        super().close()


def _check_configs(folder: Path) -> None:
    check_fit(folder, ["text_encoder"])
    added = read_config(folder / "unet" / "config.json").get("addition_embed_type")
    if added not in (None, "text"):
        raise UnsupportedModelError(
            folder / "unet", f"addition_embed_type {added} has no worker yet"
        )
