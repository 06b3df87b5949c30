"""Tiny models with random weights: real ones that diffusers makes, and files of which only the
header matters, made without torch."""

import json
import struct
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

Shape = tuple[int, ...]

LDM = "model.diffusion_model."
"""How the UNet's names begin in a single-file checkpoint."""

SD15_KEY = LDM + "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
"""SD1.x and SD2.x attend to the prompt from their first block on."""

SDXL_KEY = LDM + "input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight"
"""SDXL and its refiner have no attention in their first blocks."""

_NUMBER_BYTES = {"F16": 2, "BF16": 2, "F32": 4, "U8": 1}


def safetensors_bytes(header: bytes | Mapping[str, Any], weights: bytes = b"") -> bytes:
    """Returns a file with this header, whether or not the header tells the truth."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + weights


def header_of(shapes: Mapping[str, Shape], dtype: str = "F16") -> dict[str, Any]:
    """Returns the header of a file with tensors of these shapes, one after another."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + prod(shape) * _NUMBER_BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    return header


def write_tensors(path: Path, shapes: Mapping[str, Shape], dtype: str = "F16") -> Path:
    """Writes a sound safetensors file with tensors of these shapes, all zero."""
    size = sum(prod(shape) for shape in shapes.values()) * _NUMBER_BYTES[dtype]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(safetensors_bytes(header_of(shapes, dtype), bytes(size)))
    return path


def write_checkpoint(
    path: Path,
    cross_attention_dim: int,
    in_channels: int = 4,
    extra: Mapping[str, Shape] | None = None,
) -> Path:
    """Writes a single-file checkpoint in the original layout, with a few tensors of each part."""
    late = cross_attention_dim in (1280, 2048)
    shapes: dict[str, Shape] = {
        LDM + "input_blocks.0.0.weight": (2, in_channels, 3, 3),
        LDM + "input_blocks.0.0.bias": (2,),
        SDXL_KEY if late else SD15_KEY: (2, cross_attention_dim),
        LDM + "middle_block.1.transformer_blocks.0.attn1.to_k.weight": (2, 2),
        LDM + "middle_block.1.transformer_blocks.0.attn2.to_k.weight": (2, cross_attention_dim),
        "first_stage_model.decoder.conv_in.weight": (2, 4, 3, 3),
    }
    if late:
        shapes[LDM + "label_emb.0.0.weight"] = (2, 2816)
        shapes["conditioner.embedders.0.model.ln_final.weight"] = (2,)
    else:
        shapes["cond_stage_model.transformer.text_model.final_layer_norm.weight"] = (2,)
    return write_tensors(path, {**shapes, **(extra or {})})


def write_folder(
    folder: Path,
    config: Mapping[str, Any],
    shapes: Mapping[str, Shape] | None = None,
    pipeline: str | None = "StableDiffusionPipeline",
    prediction_type: str | None = None,
) -> Path:
    """Writes a diffusers folder: an index, the UNet's configuration, weights of these shapes."""
    write_json(folder / "unet" / "config.json", config)
    if pipeline is not None:
        write_json(folder / "model_index.json", {"_class_name": pipeline})
    if shapes is not None:
        write_tensors(folder / "unet" / "diffusion_pytorch_model.safetensors", shapes)
    if prediction_type is not None:
        scheduler = {"_class_name": "DDIMScheduler", "prediction_type": prediction_type}
        write_json(folder / "scheduler" / "scheduler_config.json", scheduler)
    return folder


def unet_shapes(cross_attention_dim: int, in_channels: int = 4) -> dict[str, Shape]:
    """Returns the tensors of a diffusers UNet that tell its family and variant."""
    return {
        "conv_in.weight": (2, in_channels, 3, 3),
        "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight": (2, cross_attention_dim),
    }


def write_lora(path: Path, cross_attention_dim: int, layout: str = "kohya", rank: int = 2) -> Path:
    """Writes a LoRA for a model of this width; the layouts are those of the trainers in use."""
    block = "down_blocks.1.attentions.0.transformer_blocks.0"
    down, up = {
        "kohya": (
            f"lora_unet_{block.replace('.', '_')}_attn2_to_k.lora_down.weight",
            f"lora_unet_{block.replace('.', '_')}_attn2_to_k.lora_up.weight",
        ),
        "kohya-ldm": (
            "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k.lora_down.weight",
            "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k.lora_up.weight",
        ),
        "peft": (
            f"unet.{block}.attn2.to_k.lora_A.weight",
            f"unet.{block}.attn2.to_k.lora_B.weight",
        ),
        "peft-named": (
            f"base_model.model.{block}.attn2.to_k.lora_A.default.weight",
            f"base_model.model.{block}.attn2.to_k.lora_B.default.weight",
        ),
        "diffusers": (
            f"unet.{block}.attn2.to_k.lora.down.weight",
            f"unet.{block}.attn2.to_k.lora.up.weight",
        ),
        "diffusers-processor": (
            f"unet.{block}.attn2.processor.to_k_lora.down.weight",
            f"unet.{block}.attn2.processor.to_k_lora.up.weight",
        ),
    }[layout]
    return write_tensors(path, {down: (rank, cross_attention_dim), up: (4, rank)})


def write_json(path: Path, value: object) -> Path:
    """Writes a JSON file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def save_unet(folder: Path, cross_attention_dim: int, in_channels: int = 4) -> Path:
    """Saves a real UNet with random weights, below a model_index.json.

    It attends to the prompt once and has one size and no middle: every layer is made anew at each
    load, and gone through wherever code is compiled.
    """
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=in_channels,
        block_out_channels=(16,),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",),
        mid_block_type=None,
        up_block_types=("UpBlock2D",),
        cross_attention_dim=cross_attention_dim,
        attention_head_dim=8,
        norm_num_groups=8,
    )
    unet.save_pretrained(folder / "unet")
    family = "StableDiffusionXL" if cross_attention_dim in (1280, 2048) else "StableDiffusion"
    write_json(folder / "model_index.json", {"_class_name": family + "Pipeline"})
    return folder


def save_pipeline(
    folder: Path, cross_attention_dim: int = 768, prediction_type: str = "epsilon"
) -> Path:
    """Saves a real pipeline that draws 16x16 noise: tokenizer, text encoder, UNet, VAE, scheduler.

    Text encoders are as wide as their UNet expects, so that 768 makes an SD1.5 and 1024 an SD2.x.
    """
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from transformers.models.clip.configuration_clip import CLIPTextConfig
    from transformers.models.clip.modeling_clip import CLIPTextModel

    save_unet(folder, cross_attention_dim)
    vocabulary = save_tokenizer(folder / "tokenizer")
    config = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=cross_attention_dim,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=8,
        max_position_embeddings=16,
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
        pad_token_id=vocabulary - 1,
    )
    CLIPTextModel(config).save_pretrained(folder / "text_encoder")
    AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=16,
    ).save_pretrained(folder / "vae")
    scheduler = {
        "_class_name": "DDIMScheduler",
        "num_train_timesteps": 1000,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "prediction_type": prediction_type,
    }
    write_json(folder / "scheduler" / "scheduler_config.json", scheduler)
    index = {
        "_class_name": "StableDiffusionPipeline",
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    write_json(folder / "model_index.json", index)
    return folder


def save_tokenizer(folder: Path, pad_token: str = "<|endoftext|>") -> int:  # noqa: S107
    """Writes a CLIP tokenizer that spells every word, and returns the size of its vocabulary."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789,.!'-"
    tokens = [*letters, *(letter + "</w>" for letter in letters)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    write_json(folder / "vocab.json", {token: number for number, token in enumerate(tokens)})
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": 16,
        "bos_token": tokens[-2],
        "eos_token": tokens[-1],
        "pad_token": pad_token,
        "unk_token": tokens[-1],
    }
    write_json(folder / "tokenizer_config.json", settings)
    return len(tokens)
