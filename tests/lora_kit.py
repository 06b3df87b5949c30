"""LoRAs with random numbers, in the layouts of the trainers in use."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch  # noqa: TID253 - the subject is made of it
from safetensors.torch import save_file

from engine.jobs import Family
from engine.workers.latent import LatentWorker
from engine.workers.lora import Layer, Pair
from tests.ldm_layout import unet_state

Pairs = dict[str, Pair]
"""By the names of part and layer, such as ``unet.mid_block.….to_k``."""

Parts = Mapping[str, Any]

_LAYERS = re.compile(
    r"unet\.(?:(?:down|up)_blocks\.[13]|mid_block)\.(?:resnets\.0\.conv1|attentions\.0\."
    r"(?:proj_in|transformer_blocks\.0\.(?:attn1\.to_(?:q|out\.0)|attn2\.to_[kv]|ff\.net\.2)))"
    r"|text_encoder.*\.(?:[qkv]_proj|out_proj|fc[12])"
)


def random_pairs(
    parts: Parts,
    seed: int,
    ranks: Iterable[int] = (4,),
    alphas: Iterable[float] = (4.0,),
    strength: float = 0.5,
) -> Pairs:
    """Returns pairs for layers of every kind; ranks and alphas take turns.

    Args:
        parts: UNet and text encoders.
        seed: of the numbers.
        ranks: of the pairs.
        alphas: of the pairs.
        strength: how much a pair adds, about, in parts of what the layer does by itself.
    """
    generator = torch.Generator().manual_seed(seed)
    ranks, alphas = tuple(ranks), tuple(alphas)
    pairs: Pairs = {}
    for name, layer in layers(parts).items():
        if _LAYERS.fullmatch(name):
            rank = ranks[len(pairs) % len(ranks)]
            alpha = alphas[len(pairs) % len(alphas)]
            out, *into = layer.weight.shape
            down = torch.randn(rank, *into, generator=generator)
            up = torch.randn(out, rank, *(1 for _ in into[1:]), generator=generator)
            scale = strength * layer.weight.std() * (rank**0.5) / alpha
            pairs[name] = Pair(down, up * scale, alpha)
    return pairs


def parts_of(worker: LatentWorker) -> dict[str, Any]:
    """Returns what a LoRA can be laid over, by the names of the folders."""
    names = {
        Family.SDXL: ["text_encoder", "text_encoder_2"],
        Family.SDXL_REFINER: ["text_encoder_2"],
    }.get(worker.family, ["text_encoder"])
    encoders = [reader.encoder for reader in worker._parts.readers]
    return {"unet": worker._parts.unet, **dict(zip(names, encoders, strict=True))}


def layers(parts: Parts) -> dict[str, Layer]:
    """Returns all layers that a LoRA can be laid over, by part and name."""
    return {
        f"{part}.{name}": layer
        for part, module in parts.items()
        for name, layer in module.named_modules()
        if isinstance(layer, Layer)
    }


def kohya(pairs: Pairs, family: Family, parts: Parts) -> dict[str, torch.Tensor]:
    """Returns the tensors under the names of kohya's trainer, which for SDXL are the original's."""
    names = {name: name for name in parts["unet"].state_dict()}
    if family in (Family.SDXL, Family.SDXL_REFINER):
        names = dict(zip(names, unet_state(parts["unet"]), strict=True))
    first = "lora_te1" if family is Family.SDXL else "lora_te"
    heads = {"unet": "lora_unet", "text_encoder": first, "text_encoder_2": "lora_te2"}
    tensors = {}
    for place, pair in pairs.items():
        part, _, layer = place.partition(".")
        if part == "unet":
            layer = names[f"{layer}.weight"].removesuffix(".weight")
            layer = layer.removeprefix("model.diffusion_model.")
        else:
            layer = "text_model." + layer.removeprefix("text_model.")
        key = f"{heads[part]}_{layer.replace('.', '_')}"
        tensors[f"{key}.lora_down.weight"] = pair.down
        tensors[f"{key}.lora_up.weight"] = pair.up
        tensors[f"{key}.alpha"] = torch.tensor(pair.alpha)
    return tensors


def peft(pairs: Pairs, family: Family, parts: Parts) -> dict[str, torch.Tensor]:
    """Returns the tensors as diffusers saves them today; alpha is the rank."""
    tensors = {}
    for place, pair in pairs.items():
        tensors[f"{place}.lora_A.weight"] = pair.down
        tensors[f"{place}.lora_B.weight"] = pair.up
    return tensors


def diffusers(pairs: Pairs, family: Family, parts: Parts) -> dict[str, torch.Tensor]:
    """Returns the tensors as diffusers saved them before peft; alpha is the rank."""
    tensors = {}
    for place, pair in pairs.items():
        part, _, layer = place.partition(".")
        if part == "unet":
            key = f"{place}.lora"
        else:
            key = f"{part}.text_model.{layer.removeprefix('text_model.')}.lora_linear_layer"
        tensors[f"{key}.down.weight"] = pair.down
        tensors[f"{key}.up.weight"] = pair.up
    return tensors


LAYOUTS: Mapping[str, Callable[[Pairs, Family, Parts], dict[str, torch.Tensor]]] = {
    "kohya": kohya,
    "peft": peft,
    "diffusers": diffusers,
}


def save_lora(
    path: Path, tensors: Mapping[str, torch.Tensor], scales: Mapping[str, Any] | None = None
) -> Path:
    """Saves a LoRA; ``scales`` go where diffusers' trainers write them."""
    metadata = {"format": "pt"}
    if scales is not None:
        metadata["lora_adapter_metadata"] = json.dumps(scales)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata)
    return path
