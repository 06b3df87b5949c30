"""Tells the family of a checkpoint, a diffusers folder or a LoRA from its header alone.

The family follows from the width of the text that the UNet attends to (``cross_attention_dim``),
which is the last dimension of every ``attn2.to_k`` weight. Nothing is guessed: diffusers' default
of 1280 for a missing key is also the refiner's number, so a value counts only where it is written
down or the weights show it.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from engine.errors import ModelFormatError, ModelNotFoundError, UnsupportedModelError
from engine.jobs import Family
from engine.model_files import (
    Tensor,
    check_shards,
    file_size,
    is_folder,
    read_config,
    read_header,
    shown,
    weight_files,
)

FAMILIES: Mapping[int, Family] = {
    768: Family.SD15,
    1024: Family.SD2,
    1280: Family.SDXL_REFINER,
    2048: Family.SDXL,
}
"""The family by cross_attention_dim."""

FAMILY_NAMES: Mapping[Family, str] = {
    Family.SD15: "SD1.5",
    Family.SD2: "SD2.x",
    Family.SDXL: "SDXL base",
    Family.SDXL_REFINER: "SDXL refiner",
}
"""What people call the families."""

Variant = Literal["text2image", "inpainting", "instruct_pix2pix"]

VARIANTS: Mapping[int, Variant] = {4: "text2image", 9: "inpainting", 8: "instruct_pix2pix"}
"""What a UNet is for by its in_channels: latents alone, or with a mask, or with a picture."""

PIPELINES = frozenset(
    {
        "StableDiffusionPipeline",
        "StableDiffusionImg2ImgPipeline",
        "StableDiffusionInpaintPipeline",
        "StableDiffusionInstructPix2PixPipeline",
        "StableDiffusionXLPipeline",
        "StableDiffusionXLImg2ImgPipeline",
        "StableDiffusionXLInpaintPipeline",
        "StableDiffusionXLInstructPix2PixPipeline",
    }
)
"""Pipelines of a model_index.json that hold these families; others share their numbers (a latent
upscaler has 768 and 8 channels, the first latent-diffusion model 1280) and are something else."""

_LDM_ATTENTION = re.compile(r"model\.diffusion_model\..+\.attn2\.to_k\.weight")
_LDM_FIRST_CONVOLUTION = "model.diffusion_model.input_blocks.0.0.weight"
_UNET_ATTENTION = re.compile(r"(?:.+\.)?attn2\.to_k\.weight")
_UNET_FIRST_CONVOLUTION = "conv_in.weight"
_LDM_CLASS_EMBEDDING = "model.diffusion_model.label_emb."
_EDM_KEY = "edm_mean"
_EDM_MODEL = "Playground v2.5: it was trained with EDM's noise, which no sampler here draws with"
_TEMPORAL = re.compile(r"\.(?:time_stack|motion_modules|temporal_transformer)\.")
# Such as ComfyUI writes; the loaders here would take the weights without the scales beside them.
_SCALES = ("scale_weight", "weight_scale", "scaled_fp8")

# kohya: lora_unet_…_attn2_to_k.lora_down.weight; diffusers and peft: ….attn2.to_k.lora_A.weight,
# ….attn2.to_k.lora.down.weight, ….attn2.processor.to_k_lora.down.weight.
_KOHYA_LORA = re.compile(r"lora_unet_.+_attn2_to_k\.lora_down\.weight")
_DIFFUSERS_LORA = re.compile(
    r".+\.attn2\.(?:processor\.)?to_k(?:\.lora_A(?:\.\w+)?|[._]lora\.down)\.weight"
)
# What is trained over text encoders alone; the group is the encoder.
_TEXT_LORAS: tuple[tuple[Literal["kohya", "diffusers"], re.Pattern[str]], ...] = (
    (
        "kohya",
        re.compile(
            r"lora_(te|te1|te2)_text_model_encoder_layers_\d+_(?:self_attn_[qkv]_proj|mlp_fc1)"
            r"\.lora_down\.weight"
        ),
    ),
    (
        "diffusers",
        re.compile(
            r"(text_encoder(?:_2)?)\..*layers\.\d+\.(?:self_attn\.[qkv]_proj|mlp\.fc1)"
            r"\.(?:lora_A(?:\.\w+)?|lora_linear_layer\.down)\.weight"
        ),
    ),
)
_ENCODER_WIDTHS = {"te1": 768, "te2": 1280, "text_encoder_2": 1280}
_ANY_LORA = re.compile(r"\b(?:lora_down|lora_A|lora\.down|to_k_lora|hada_w1_a|lokr_w1)\b")

# What a file without SD's cross-attention is, by the beginning of a key.
_OTHER_KINDS = (
    (("model.diffusion_model.double_blocks.", "double_blocks."), "a Flux-like transformer"),
    (("model.diffusion_model.joint_blocks.", "joint_blocks."), "Stable Diffusion 3"),
    (("control_model.", "controlnet_", "input_hint_block."), "a ControlNet"),
    (("down_blocks.", "mid_block."), "a UNet alone in diffusers' layout, without its pipeline"),
    (("input_blocks.", "middle_block."), "a UNet alone, without text encoder and VAE"),
    (("first_stage_model.", "encoder.", "decoder."), "a VAE"),
    (("text_model.", "cond_stage_model.", "conditioner."), "a text encoder"),
    (("emb_params", "string_to_param", "clip_l", "clip_g"), "a textual inversion"),
)


@dataclass(frozen=True, slots=True)
class DetectedModel:
    """What a model's header says.

    Attributes:
        path: the ``.safetensors`` file or diffusers folder.
        family: what kind of model it is.
        cross_attention_dim: width of the text that the UNet attends to.
        format: how it lies on disk.
        in_channels: channels that the UNet takes in; None where neither weights nor configuration
            say it, and then the model is not complete.
        variant: what the UNet is for, by its `in_channels`.
        prediction_type_hint: what the UNet was trained to predict where that is written down.
        weight_bytes: size of the files that loading reads.
    """

    path: Path
    family: Family
    cross_attention_dim: int
    format: Literal["single_file", "diffusers"]
    in_channels: int | None
    variant: Variant | None
    prediction_type_hint: Literal["epsilon", "v_prediction"] | None
    weight_bytes: int

    @property
    def family_name(self) -> str:
        """What people call the family, such as ``SDXL base``."""
        return FAMILY_NAMES[self.family]

    def as_dict(self) -> dict[str, Any]:
        """Returns it as plain JSON values."""
        return {
            "path": str(self.path),
            "family": self.family.value,
            "family_name": self.family_name,
            "cross_attention_dim": self.cross_attention_dim,
            "format": self.format,
            "in_channels": self.in_channels,
            "variant": self.variant,
            "prediction_type_hint": self.prediction_type_hint,
            "weight_bytes": self.weight_bytes,
        }


@dataclass(frozen=True, slots=True)
class DetectedLora:
    """What a LoRA's header says.

    Attributes:
        path: the ``.safetensors`` file.
        family: what kind of model it was trained for.
        cross_attention_dim: width of the text that its UNet attends to.
        layout: whose names its tensors have.
        rank: the largest rank among its cross-attention keys, or else its text encoders'.
        weight_bytes: size of the file.
    """

    path: Path
    family: Family
    cross_attention_dim: int
    layout: Literal["kohya", "diffusers"]
    rank: int
    weight_bytes: int

    @property
    def family_name(self) -> str:
        """What people call the family, such as ``SDXL base``."""
        return FAMILY_NAMES[self.family]

    def as_dict(self) -> dict[str, Any]:
        """Returns it as plain JSON values."""
        return {
            "path": str(self.path),
            "family": self.family.value,
            "family_name": self.family_name,
            "cross_attention_dim": self.cross_attention_dim,
            "layout": self.layout,
            "rank": self.rank,
            "weight_bytes": self.weight_bytes,
        }


def detect(path: Path | str) -> DetectedModel:
    """Tells what a model is; takes milliseconds, also for a file of many gigabytes.

    Raises:
        ModelNotFoundError: there is nothing.
        ModelFormatError: it is truncated, unreadable, or contradicts itself.
        UnsupportedModelError: it is sound and of a kind that is not supported.
    """
    path = Path(path)
    return _detect_folder(path) if is_folder(path) else _detect_file(path)


def detect_lora(path: Path | str) -> DetectedLora:
    """Tells for which family a LoRA was trained.

    Raises:
        ModelNotFoundError: there is no such file.
        ModelFormatError: it is truncated, unreadable, or contradicts itself.
        UnsupportedModelError: it is no LoRA, or one whose family its header does not show.
    """
    path = Path(path)
    tensors = read_header(path)
    layouts: tuple[tuple[Literal["kohya", "diffusers"], re.Pattern[str]], ...] = (
        ("kohya", _KOHYA_LORA),
        ("diffusers", _DIFFUSERS_LORA),
    )
    for layout, pattern in layouts:
        found = _matching(tensors, pattern)
        if found:
            dim = _agreed_dim(path, found)
            rank = max(tensor.shape[0] for tensor in found.values())
            return DetectedLora(path, _family(path, dim), dim, layout, rank, file_size(path))
    for layout, pattern in _TEXT_LORAS:
        found = _matching(tensors, pattern)
        if found:
            return _detected_text_lora(path, layout, pattern, found)
    if any(_ANY_LORA.search(name) for name in tensors):
        raise UnsupportedModelError(
            path,
            "a LoRA without keys of UNet cross-attention (attn2.to_k) or CLIP text encoders, so of "
            "no known family",
        )
    raise UnsupportedModelError(path, f"no LoRA: it looks like {looks_like(tensors)}")


def _detected_text_lora(
    path: Path,
    layout: Literal["kohya", "diffusers"],
    pattern: re.Pattern[str],
    found: Mapping[str, Tensor],
) -> DetectedLora:
    """Tells the family by the text encoders' names and widths.

    SDXL's second encoder has a name of its own, and its trainers write both: what has the first one
    alone under diffusers' name is for the family of its width.
    """
    widths: dict[str, int] = {}
    for name, tensor in found.items():
        encoder = pattern.fullmatch(name)
        assert encoder is not None  # noqa: S101 - that is how it was found
        width = _agreed_dim(path, {name: tensor})
        if widths.setdefault(encoder[1], width) != width:
            raise ModelFormatError(path, f"its {encoder[1]} keys disagree on their width")
    own = {encoder: width for encoder, width in _ENCODER_WIDTHS.items() if encoder in widths}
    alone = {768: Family.SD15, 1024: Family.SD2}.get(next(iter(widths.values())))
    family = Family.SDXL if own else alone
    if family is None or any(widths[encoder] != width for encoder, width in own.items()):
        raise UnsupportedModelError(
            path, f"a LoRA for text encoders of no known family, by their widths: {widths}"
        )
    [dim] = [dim for dim, known in FAMILIES.items() if known is family]
    rank = max(tensor.shape[0] for tensor in found.values())
    return DetectedLora(path, family, dim, layout, rank, file_size(path))


def _detect_file(path: Path) -> DetectedModel:
    tensors = read_header(path)
    found = _matching(tensors, _LDM_ATTENTION)
    if not found:
        raise UnsupportedModelError(
            path,
            "no Stable Diffusion checkpoint (no model.diffusion_model.*.attn2.to_k.weight): it "
            f"looks like {looks_like(tensors)}",
        )
    dim = _agreed_dim(path, found)
    family = _family(path, dim)
    _refuse_relatives(path, tensors, family)
    in_channels = _first_convolution(path, tensors, _LDM_FIRST_CONVOLUTION)
    return DetectedModel(
        path=path,
        family=family,
        cross_attention_dim=dim,
        format="single_file",
        in_channels=in_channels,
        variant=_variant(path, in_channels),
        prediction_type_hint="v_prediction" if "v_pred" in tensors else None,
        weight_bytes=file_size(path),
    )


def _detect_folder(path: Path) -> DetectedModel:
    _check_pipeline(path)
    config = _unet_config(path)
    check_shards(path)
    weights = weight_files(path)
    unet: dict[str, Tensor] = {}
    for file in weights:
        tensors = read_header(file)  # all of them: a truncated VAE is found here as well
        refuse_scaled(file, tensors)
        if file.parent == path / "unet":
            unet.update(tensors)
    dim = _folder_dim(path, config, unet)
    in_channels = _folder_in_channels(path, config, unet)
    return DetectedModel(
        path=path,
        family=_family(path, dim),
        cross_attention_dim=dim,
        format="diffusers",
        in_channels=in_channels,
        variant=_variant(path, in_channels),
        prediction_type_hint=_scheduler_hint(path),
        weight_bytes=sum(file_size(file) for file in weights),
    )


def _check_pipeline(path: Path) -> None:
    index = _config_if_any(path / "model_index.json")
    if index is None:
        return  # a UNet in a folder still has a family; what loads it asks for the rest
    name = index.get("_class_name")
    if not isinstance(name, str) or name not in PIPELINES:
        raise UnsupportedModelError(
            path,
            f"its model_index.json names the pipeline {shown(name)}; supported are "
            + ", ".join(sorted(PIPELINES)),
        )


def _unet_config(path: Path) -> dict[str, Any]:
    config = _config_if_any(path / "unet" / "config.json")
    if config is None:
        raise ModelFormatError(
            path, "is a folder without unet/config.json, so no diffusers model of these families"
        )
    name = config.get("_class_name", "UNet2DConditionModel")
    if name != "UNet2DConditionModel":
        raise UnsupportedModelError(
            path, f"its UNet is a {shown(name)}; supported is 'UNet2DConditionModel'"
        )
    if config.get("class_embed_type") is not None:
        raise UnsupportedModelError(
            path, f"its UNet has class embeddings ({shown(config['class_embed_type'])}), as unCLIP"
        )
    return config


def _config_if_any(path: Path) -> dict[str, Any] | None:
    try:
        return read_config(path)
    except ModelNotFoundError:
        return None


def _folder_dim(path: Path, config: Mapping[str, Any], unet: Mapping[str, Tensor]) -> int:
    written = config.get("cross_attention_dim")
    found = _matching(unet, _UNET_ATTENTION)
    if type(written) is not int:
        if found:
            return _agreed_dim(path, found)
        raise ModelFormatError(
            path,
            f"its unet/config.json has no whole number as cross_attention_dim ({shown(written)}), "
            f"and no weights show it; supported are {_supported()}",
        )
    if unet and (not found or _agreed_dim(path, found) != written):
        shapes = f"have {_agreed_dim(path, found)}" if found else "have no cross-attention"
        raise ModelFormatError(
            path,
            f"its unet/config.json says cross_attention_dim {shown(written)}, its weights {shapes}",
        )
    return written


def _folder_in_channels(
    path: Path, config: Mapping[str, Any], unet: Mapping[str, Tensor]
) -> int | None:
    measured = _first_convolution(path, unet, _UNET_FIRST_CONVOLUTION)
    written = config.get("in_channels")
    if written is None:
        return measured
    if type(written) is not int or (measured is not None and measured != written):
        raise ModelFormatError(
            path,
            f"its unet/config.json says in_channels {shown(written)}, its weights have {measured}",
        )
    return written


def _scheduler_hint(path: Path) -> Literal["epsilon", "v_prediction"] | None:
    config = _config_if_any(path / "scheduler" / "scheduler_config.json") or {}
    if str(config.get("_class_name")).startswith("EDM"):
        raise UnsupportedModelError(path, _EDM_MODEL)
    hint = config.get("prediction_type")
    if hint not in (None, "epsilon", "v_prediction"):
        raise UnsupportedModelError(
            path,
            f"its scheduler's prediction_type is {shown(hint)}; "
            "supported are 'epsilon' and 'v_prediction'",
        )
    return hint


def _matching(tensors: Mapping[str, Tensor], pattern: re.Pattern[str]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if pattern.fullmatch(name)}


def _agreed_dim(path: Path, weights: Mapping[str, Tensor]) -> int:
    """Returns the one last dimension that all these matrices have."""
    for name, tensor in weights.items():
        if len(tensor.shape) != 2:
            raise ModelFormatError(path, f"its tensor {shown(name)} is no matrix: {tensor.shape}")
    dims = sorted({tensor.shape[1] for tensor in weights.values()})
    if len(dims) > 1:
        numbers = ", ".join(map(str, dims[:4]))
        raise ModelFormatError(path, f"its cross-attention keys disagree on their width: {numbers}")
    return dims[0]


def _first_convolution(path: Path, tensors: Mapping[str, Tensor], name: str) -> int | None:
    tensor = tensors.get(name)
    if tensor is None:
        return None
    if len(tensor.shape) != 4:
        raise ModelFormatError(path, f"its tensor {name} is no convolution: {tensor.shape}")
    return tensor.shape[1]


def _family(path: Path, dim: int) -> Family:
    try:
        return FAMILIES[dim]
    except KeyError:
        raise UnsupportedModelError(
            path,
            f"cross_attention_dim {shown(dim)} is of no known family; known are {_supported()}",
        ) from None


def _supported() -> str:
    return ", ".join(f"{dim} ({FAMILY_NAMES[family]})" for dim, family in FAMILIES.items())


def _variant(path: Path, in_channels: int | None) -> Variant | None:
    if in_channels is None:
        return None
    try:
        return VARIANTS[in_channels]
    except KeyError:
        known = ", ".join(f"{number} ({name})" for number, name in VARIANTS.items())
        raise UnsupportedModelError(
            path, f"its UNet takes {shown(in_channels)} channels in; supported are {known}"
        ) from None


def _refuse_relatives(path: Path, names: Iterable[str], family: Family) -> None:
    """Refuses models that share a family's numbers and are something else."""
    names = tuple(names)
    refuse_scaled(path, names)
    if any(_TEMPORAL.search(name) for name in names):
        raise UnsupportedModelError(path, "a video model (it has layers over time)")
    if _EDM_KEY in names:
        raise UnsupportedModelError(path, _EDM_MODEL)
    if family in (Family.SD15, Family.SD2) and any(
        name.startswith(_LDM_CLASS_EMBEDDING) for name in names
    ):
        raise UnsupportedModelError(
            path, f"an unCLIP model: {FAMILY_NAMES[family]} has no class embeddings"
        )


def refuse_scaled(path: Path, names: Iterable[str]) -> None:
    """Refuses weights that are right only with the scales beside them.

    Raises:
        UnsupportedModelError: there is such a scale among the names.
    """
    scale = next((name for name in names if name.rpartition(".")[2] in _SCALES), None)
    if scale is not None:
        raise UnsupportedModelError(
            path,
            f"its weights are scaled 8-bit numbers (it has {shown(scale, 200)}), with which no "
            "worker computes; allowed are plain ones, such as float16, bfloat16, float32 or "
            "unscaled float8",
        )


def looks_like(names: Iterable[str]) -> str:
    """Returns what people call a file with tensors of these names, for a message."""
    names = tuple(names)
    if not names:
        return "an empty file"
    if any(_ANY_LORA.search(name) for name in names):
        return "a LoRA, which belongs into loras/"
    if any(_LDM_ATTENTION.fullmatch(name) for name in names):
        return "a checkpoint"
    for starts, kind in _OTHER_KINDS:
        if any(name.startswith(starts) for name in names):
            return kind
    return "something else, its first tensor is " + shown(names[0])
