"""Stable Diffusion 1.x and 2.x: one text encoder, all that the UNet hears of is the prompt."""

from functools import lru_cache
from pathlib import Path

# Only the worker process imports this module.
import torch  # noqa: TID253

from engine.errors import UnsupportedModelError
from engine.jobs import Family, GenerationRequest, ModelSpec
from engine.model_files import read_config
from engine.workers.latent import Conditioning, LatentWorker
from engine.workers.parts import Parts, PartSource, check_fit

_PROMPTS_KEPT = 64


class StableDiffusionWorker(LatentWorker):
    """Draws with one Stable Diffusion 1.x or 2.x model. See `Worker`."""

    def __init__(self, model: ModelSpec, family: Family, device: str, parts: Parts) -> None:
        super().__init__(model, family, device, parts)
        self._embed = lru_cache(maxsize=_PROMPTS_KEPT)(self._encode)

    @classmethod
    def _load_parts(
        cls, source: PartSource, model: ModelSpec, family: Family, device: torch.device
    ) -> Parts:
        readers = [("tokenizer", "text_encoder")]
        return Parts.load(source, model, device, readers, _check_configs)

    def _condition(self, request: GenerationRequest, *, guided: bool) -> Conditioning:
        prompts = (request.negative_prompt, request.prompt) if guided else (request.prompt,)
        return Conditioning(torch.cat([self._embed(prompt) for prompt in prompts]))

    def _encode(self, prompt: str) -> torch.Tensor:
        """Returns a prompt's embedding, ``[1, tokens, width]``; what is too long is cut off."""
        [reader] = self._parts.readers
        tokens = reader.tokens(prompt, reader.max_tokens)
        mask = None
        if getattr(reader.encoder.config, "use_attention_mask", False):
            mask = tokens.attention_mask.to(self.device)
        ids = tokens.input_ids.to(self.device)
        embedding: torch.Tensor = reader.encoder(ids, attention_mask=mask)[0]
        return embedding

    def close(self) -> None:
        """See `Worker.close`."""
        self._embed.cache_clear()
        super().close()


def _check_configs(folder: Path) -> None:
    check_fit(folder, ["text_encoder"])
    added = read_config(folder / "unet" / "config.json").get("addition_embed_type")
    if added not in (None, "text"):
        raise UnsupportedModelError(
            folder / "unet", f"addition_embed_type {added} has no worker yet"
        )
