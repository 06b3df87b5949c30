"""Tells what a VAE of its own file or folder is, from its header and configuration alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine.errors import ModelFormatError, UnsupportedModelError
from engine.model_detector import looks_like, refuse_scaled
from engine.model_files import (
    Tensor,
    is_folder,
    read_config,
    read_header,
    shown,
    weight_files,
)

DEFAULT_SCALING = 0.18215
"""What a configuration means that has no scaling_factor: the first VAE's."""

# A checkpoint's VAE counts as well. In diffusers' layout both names are the same, without prefix.
_PREFIXES = ("first_stage_model.", "")
_FIRST = ("encoder.conv_in.weight", "decoder.conv_in.weight")


@dataclass(frozen=True, slots=True)
class DetectedVae:
    """What is known of a VAE before it is loaded.

    Attributes:
        path: the ``.safetensors`` file or diffusers folder.
        layout: whose names its tensors have.
        prefix: how these begin.
        latent_channels: of the pictures that it decodes.
        scaling_factor: what latents are multiplied by for the UNet; None where nothing says it.
    """

    path: Path
    layout: Literal["original", "diffusers"]
    prefix: str
    latent_channels: int
    scaling_factor: float | None


def detect_vae(path: Path) -> DetectedVae:
    """Tells what a VAE is; takes milliseconds.

    Raises:
        ModelNotFoundError: there is nothing.
        ModelFormatError: it is truncated, unreadable, or contradicts itself.
        UnsupportedModelError: it is no VAE, or of a kind that no worker decodes with.
    """
    if not is_folder(path):
        return _detected(path, read_header(path), None)
    scaling = _scaling(path)
    tensors: dict[str, Tensor] = {}
    for file in weight_files(path):
        tensors |= read_header(file)
    return _detected(path, tensors, scaling)


def _detected(path: Path, tensors: Mapping[str, Tensor], scaling: float | None) -> DetectedVae:
    for prefix in _PREFIXES:
        encoder, decoder = (tensors.get(prefix + name) for name in _FIRST)
        if decoder is None:
            continue
        if encoder is None or len(encoder.shape) != 4 or len(decoder.shape) != 4:
            raise ModelFormatError(path, f"is no whole VAE: {prefix + _FIRST[0]} is missing")
        names = [name.removeprefix(prefix) for name in tensors if name.startswith(prefix)]
        refuse_scaled(path, names)
        original = any(name.startswith("decoder.up.") for name in names)
        layout: Literal["original", "diffusers"] = "original" if original else "diffusers"
        return DetectedVae(path, layout, prefix, decoder.shape[1], scaling)
    raise UnsupportedModelError(
        path, f"no VAE (no {_FIRST[1]}): it looks like {looks_like(tensors)}"
    )


def _scaling(folder: Path) -> float:
    if not (folder / "config.json").is_file():
        hint = "; name the vae folder in it" if (folder / "vae").is_dir() else ""
        raise ModelFormatError(folder, f"is no VAE's folder: config.json is missing{hint}")
    config = read_config(folder / "config.json")
    kind = config.get("_class_name", "AutoencoderKL")
    if kind != "AutoencoderKL":
        raise UnsupportedModelError(folder, f"is a {shown(kind)}; supported is 'AutoencoderKL'")
    for key in ("latents_mean", "latents_std", "shift_factor"):
        if config.get(key) is not None:
            raise UnsupportedModelError(folder, f"has a {key}, with which no worker decodes")
    scaling = config.get("scaling_factor", DEFAULT_SCALING)
    if not isinstance(scaling, (int, float)) or not 0 < scaling < 100:
        raise ModelFormatError(folder, f"its scaling_factor is {shown(scaling)}, no plain number")
    return float(scaling)
