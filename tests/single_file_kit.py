"""Pipelines with a family's real structure and tiny layers, as a folder and as one file."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch  # noqa: TID253 - the subject is made of it
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL  # noqa: TID253
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel  # noqa: TID253
from safetensors.torch import save_file
from transformers import (  # noqa: TID253
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
)
from transformers.initialization import no_init_weights  # noqa: TID253

from engine.families import config_folder
from engine.jobs import Family
from tests.ldm_layout import State, part_state
from tests.tiny_models import save_tokenizer, write_json

_KINDS = {
    "unet": UNet2DConditionModel,
    "vae": AutoencoderKL,
    "text_encoder": CLIPTextModel,
    "text_encoder_2": CLIPTextModelWithProjection,
}


def save_tiny(
    family: Family, folder: Path, text_layers: int = 1, *, shallow: bool = False
) -> State:
    """Saves a family's pipeline with tiny layers as a diffusers folder.

    Widths that other parts rely on stay real; everything else is as small as it goes.

    Args:
        family: whose blocks it has.
        folder: where to; made.
        text_layers: of each text encoder, 1 or more.
        shallow: whether there is one block of each kind, with a layer and an attention of one,
            which draws in a quarter of the time. In a single file, layers then have other numbers
            than real ones.

    Returns:
        The same weights under the names of a single-file checkpoint.
    """
    source = config_folder(family)
    torch.manual_seed(20)
    state: State = {}
    for path in sorted(source.iterdir()):
        if path.name.startswith("tokenizer"):
            pad = json.loads((path / "tokenizer_config.json").read_text())["pad_token"]
            words = save_tokenizer(folder / path.name, pad)
        elif path.is_file() or path.name == "scheduler":
            target = folder / path.name
            shutil.copytree(path, target) if path.is_dir() else _copy(path, target)
    for part, kind in _KINDS.items():
        if (source / part).is_dir():
            config = json.loads((source / part / "config.json").read_text())
            module = _tiny(kind, config, words, text_layers, shallow)
            module.save_pretrained(folder / part)
            state |= part_state(family, part, module)
    return state


def save_single_file(path: Path, state: State, dtype: torch.dtype = torch.float32) -> Path:
    """Saves tensors as a checkpoint; integers keep their type."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: (tensor.to(dtype) if tensor.is_floating_point() else tensor).contiguous().clone()
        for name, tensor in state.items()
    }
    save_file(tensors, path)
    return path


def _copy(source: Path, target: Path) -> None:
    write_json(target, json.loads(source.read_text()))


def _tiny(kind: Any, config: dict[str, Any], words: int, text_layers: int, shallow: bool) -> Any:
    if kind in (CLIPTextModel, CLIPTextModelWithProjection):
        small: dict[str, Any] = {
            "vocab_size": words,
            "num_hidden_layers": text_layers,
            "intermediate_size": 16,
            "max_position_embeddings": 16,
        }
        with no_init_weights():
            return _filled(kind(CLIPTextConfig.from_dict(config | small)))
    small = {"norm_num_groups": 4}
    blocks = len(config["block_out_channels"])
    if kind is UNet2DConditionModel:
        depth = config.get("transformer_layers_per_block", 1)
        if shallow:
            down = list(dict.fromkeys(config["down_block_types"]))
            blocks, depth = len(down), 1
            small["down_block_types"] = down
            small["up_block_types"] = [name.replace("Down", "Up") for name in reversed(down)]
        heads = config["attention_head_dim"]
        small["attention_head_dim"] = [2] * blocks if isinstance(heads, list) else 4
        small["transformer_layers_per_block"] = [1, 2, 3] if blocks == 3 else min(depth, 2)
    if shallow:
        small["layers_per_block"] = 1
    # As in the real ones, neighbours differ except for the last of four.
    small["block_out_channels"] = [8, 16, 24, 24][:blocks]
    return kind.from_config(config | small)


@torch.no_grad()
def _filled(encoder: Any) -> Any:
    """Fills a text encoder, which is as wide as a real one, with a few numbers again and again."""
    for name, weight in encoder.named_parameters():
        if weight.ndim == 1:
            weight.normal_(float("norm" in name and name.endswith("weight")), 0.02)
        else:
            some = torch.randn(8191) * weight.shape[-1] ** -0.5  # a prime: no two rows are alike
            weight.view(-1).copy_(some.repeat(weight.numel() // len(some) + 1)[: weight.numel()])
    return encoder
