"""The names and shapes that single-file checkpoints have, made from diffusers' modules.

The inverse of what diffusers' loaders do, written from the layout of the original programs, so
that tests can save a pipeline as one file.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch  # noqa: TID253 - the subject is made of it

from engine.jobs import Family

State = dict[str, torch.Tensor]

_RESNET = (
    ("norm1", "in_layers.0"),
    ("conv1", "in_layers.2"),
    ("time_emb_proj", "emb_layers.1"),
    ("norm2", "out_layers.0"),
    ("conv2", "out_layers.3"),
    ("conv_shortcut", "skip_connection"),
)
_UNET_ENDS = (
    (r"time_embedding\.linear_1", "time_embed.0"),
    (r"time_embedding\.linear_2", "time_embed.2"),
    (r"add_embedding\.linear_1", "label_emb.0.0"),
    (r"add_embedding\.linear_2", "label_emb.0.2"),
    (r"conv_in", "input_blocks.0.0"),
    (r"conv_norm_out", "out.0"),
    (r"conv_out", "out.2"),
)
_VAE_NAMES = (
    ("conv_norm_out", "norm_out"),
    ("conv_shortcut", "nin_shortcut"),
    ("mid_block.resnets.0", "mid.block_1"),
    ("mid_block.resnets.1", "mid.block_2"),
    ("mid_block.attentions.0", "mid.attn_1"),
    ("group_norm", "norm"),
    ("to_out.0", "proj_out"),
    ("to_q", "q"),
    ("to_k", "k"),
    ("to_v", "v"),
)
_OPEN_CLIP = (
    ("encoder.layers.", "transformer.resblocks."),
    ("layer_norm1", "ln_1"),
    ("layer_norm2", "ln_2"),
    ("mlp.fc1", "mlp.c_fc"),
    ("mlp.fc2", "mlp.c_proj"),
    ("self_attn.", "attn."),
    ("final_layer_norm", "ln_final"),
    ("embeddings.token_embedding.weight", "token_embedding.weight"),
    ("embeddings.position_embedding.weight", "positional_embedding"),
)


def unet_state(unet: Any) -> State:
    """Returns a UNet's tensors under their original names."""
    return {
        "model.diffusion_model." + _unet_name(name, unet.config): tensor
        for name, tensor in unet.state_dict().items()
    }


def vae_state(vae: Any) -> State:
    """Returns a VAE's tensors under their original names, its attention as convolutions."""
    state = {}
    last = len(vae.config.block_out_channels) - 1
    for name, tensor in vae.state_dict().items():
        ldm = name
        for new, old in _VAE_NAMES:
            ldm = ldm.replace(new, old)
        ldm = re.sub(r"down_blocks\.(\d+)\.resnets", r"down.\1.block", ldm)
        ldm = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", ldm)
        ldm = re.sub(r"up_blocks\.(\d+)", lambda m: f"up.{last - int(m[1])}", ldm)
        ldm = ldm.replace(".resnets.", ".block.").replace("upsamplers.0", "upsample")
        is_matrix = "attn_1" in ldm and tensor.ndim == 2
        state["first_stage_model." + ldm] = tensor[:, :, None, None] if is_matrix else tensor
    return state


def clip_state(text_encoder: Any, prefix: str) -> State:
    """Returns OpenAI's text encoder as the original programs save it."""
    tensors = text_encoder.state_dict().items()
    state = {f"{prefix}text_model.{name.removeprefix('text_model.')}": v for name, v in tensors}
    length = text_encoder.config.max_position_embeddings
    state[prefix + "text_model.embeddings.position_ids"] = torch.arange(length)[None]
    return state


def open_clip_state(text_encoder: Any, prefix: str) -> State:
    """Returns an OpenCLIP text encoder: attention in one matrix, the projection transposed."""
    state: State = {}
    parts: dict[str, list[torch.Tensor]] = {}
    for full, tensor in text_encoder.state_dict().items():
        name = full.removeprefix("text_model.")
        if name == "text_projection.weight":
            state[prefix + "text_projection"] = tensor.T.contiguous()
            continue
        for new, old in _OPEN_CLIP:
            name = name.replace(new, old)
        joined = re.sub(r"[qkv]_proj\.", "in_proj_", name)
        if joined == name:
            state[prefix + name] = tensor
        else:
            order = "qkv".index(name.split("attn.")[1][0])
            parts.setdefault(prefix + joined, [tensor] * 3)[order] = tensor
    state |= {name: torch.cat(three) for name, three in parts.items()}
    state[prefix + "logit_scale"] = torch.tensor(4.6)
    return state


def sd2_text_state(text_encoder: Any, prefix: str) -> State:
    """Returns SD 2.x's text encoder; its file also has the last layer, which nothing reads."""
    state = open_clip_state(text_encoder, prefix)
    wide = text_encoder.config.hidden_size
    unread = prefix + "transformer.resblocks.23."
    like = state[prefix + "positional_embedding"]
    state[unread + "attn.in_proj_weight"] = like.new_ones(3 * wide, wide)
    state[unread + "ln_1.weight"] = like.new_ones(wide)
    state[prefix + "text_projection"] = like.new_ones(wide, wide)
    return state


_TEXT: Mapping[Family, Mapping[str, tuple[Callable[[Any, str], State], str]]] = {
    Family.SD15: {"text_encoder": (clip_state, "cond_stage_model.transformer.")},
    Family.SD2: {"text_encoder": (sd2_text_state, "cond_stage_model.model.")},
    Family.SDXL: {
        "text_encoder": (clip_state, "conditioner.embedders.0.transformer."),
        "text_encoder_2": (open_clip_state, "conditioner.embedders.1.model."),
    },
    Family.SDXL_REFINER: {"text_encoder_2": (open_clip_state, "conditioner.embedders.0.model.")},
}


def part_state(family: Family, part: str, module: Any) -> State:
    """Returns a part of a family's pipeline as it lies in a single file."""
    if part == "unet":
        return unet_state(module)
    if part == "vae":
        return vae_state(module)
    convert, prefix = _TEXT[family][part]
    return convert(module, prefix)


def _unet_name(name: str, config: Any) -> str:
    layers = config.layers_per_block + 1

    def block(match: re.Match[str]) -> str:
        side, index, kind, number, rest = match.groups()
        first = int(index) * layers
        if kind == "downsamplers":
            return f"input_blocks.{first + layers}.0.op{rest.removeprefix('.conv')}"
        if kind == "upsamplers":
            place = 2 if "CrossAttn" in config.up_block_types[int(index)] else 1
            return f"output_blocks.{first + layers - 1}.{place}{rest}"
        place = first + int(number) + (side == "down")
        kind_place = 1 if kind == "attentions" else 0
        return f"{'input' if side == 'down' else 'output'}_blocks.{place}.{kind_place}{rest}"

    name = re.sub(r"^(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)(.*)", block, name)
    name = re.sub(r"^mid_block\.attentions\.0", "middle_block.1", name)
    name = re.sub(r"^mid_block\.resnets\.(\d)", lambda m: f"middle_block.{2 * int(m[1])}", name)
    for new, old in _UNET_ENDS:
        name = re.sub(rf"^{new}\.", old + ".", name)
    if re.match(r"(input|output)_blocks\.\d+\.0\.|middle_block\.[02]\.", name):
        for new, old in _RESNET:
            name = re.sub(rf"\.{new}\.", f".{old}.", name)
    return name
