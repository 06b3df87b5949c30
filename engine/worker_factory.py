"""Makes the worker that draws with a model: detected family -> class -> loaded worker."""

import importlib
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import DreamLabError, ModelFormatError, UnsupportedModelError
from engine.families import config_folder
from engine.jobs import Family, ModelSpec
from engine.model_detector import FAMILY_NAMES, DetectedModel, detect, detect_lora
from engine.model_files import read_config
from engine.model_registry import cuda_count, find_device
from engine.vae_detector import DEFAULT_SCALING, detect_vae

if TYPE_CHECKING:
    from engine.workers.base import Worker

WORKERS: Mapping[Family, tuple[str, str]] = {
    Family.SD15: ("engine.workers.sd", "StableDiffusionWorker"),
    Family.SD2: ("engine.workers.sd", "StableDiffusionWorker"),
    Family.SDXL: ("engine.workers.sdxl", "StableDiffusionXLWorker"),
    Family.SDXL_REFINER: ("engine.workers.sdxl", "StableDiffusionXLWorker"),
}
"""Module and class that draw with a family; imported when the first model of it is loaded. The
class has ``load(model: ModelSpec, detected: DetectedModel, device: str)``, which returns a worker
with its weights on the device."""


class ModelNotNamedError(DreamLabError):
    """Neither the call nor the environment says which model to load.

    Attributes:
        variable: the environment variable that is missing.
    """

    def __init__(self, variable: str) -> None:
        super().__init__(
            f"No model is named: set {variable} in the environment (MODEL_ROOT is the folder of the"
            " models, MODEL the path of one in it), or give a path."
        )
        self.variable = variable


def detect_worker_type(model_path: Path | str | None = None) -> Family:
    """Returns the family of a model, whether or not a worker exists for it.

    Args:
        model_path: a ``.safetensors`` file or diffusers folder; None takes ``MODEL`` in
            ``MODEL_ROOT``, both from the environment.

    Raises:
        ModelNotNamedError: no path, and one of the variables is missing or empty.
        ModelError: there is no such model, it can't be read, or it is of no supported family.
    """
    return detect(_model_path(model_path)).family


def create_cuda_worker(worker_id: int, model_path: Path | str | None = None) -> "Worker":
    """Loads a model onto a CUDA device, or onto the CPU of a machine that has none.

    Args:
        worker_id: the worker's number, from 0; workers are dealt out to the devices in turn.
        model_path: as in `detect_worker_type`.

    Raises:
        ValueError: ``worker_id`` is negative.
        ModelNotNamedError: as in `detect_worker_type`.
        ModelError: the model can't be loaded, or no worker draws with it.
    """
    path = _model_path(model_path)  # before torch is imported: a missing name shows at once
    return WorkerFactory(worker_device(worker_id)).create(ModelSpec(path))


def worker_device(worker_id: int) -> str:
    """Returns the device of a worker by its number: CUDA devices in turn, else ``cpu``.

    Raises:
        ValueError: ``worker_id`` is negative.
    """
    if worker_id < 0:
        raise ValueError(f"worker_id is {worker_id}; workers are numbered from 0")
    return find_device(worker_id % max(1, cuda_count()))


class WorkerFactory:
    """Makes workers for one device."""

    def __init__(self, device: str) -> None:
        """Takes the device's name, such as ``cpu`` or ``cuda:0``."""
        self.device = device

    def create(self, model: ModelSpec) -> "Worker":
        """Loads a model and its LoRAs; everything that their headers show is checked before.

        Raises:
            ModelError: as `check_model`, or what only loading shows.
        """
        detected = check_model(model)
        module, name = WORKERS[detected.family]
        worker: Worker = getattr(importlib.import_module(module), name).load(
            model, detected, self.device
        )
        for lora in model.loras:
            worker.load_lora(lora.path)
        return worker


def check_model(model: ModelSpec) -> DetectedModel:
    """Checks all of a model that headers show, its VAE and LoRAs too; takes milliseconds.

    Returns:
        What the model is.

    Raises:
        ModelNotFoundError: the model, its VAE or a LoRA is not there.
        ModelFormatError: one of them can't be read, or the model is not complete.
        UnsupportedModelError: no worker draws with such a model, or its VAE or a LoRA is made for
            another family.
    """
    detected = detect(model.path)
    _refuse_undrawn(detected)
    _refuse_incomplete(detected)
    if model.vae is not None:
        _refuse_other_latents(model.vae, detected)
    for lora in model.loras:
        _refuse_stranger(lora.path, detected)
    return detected


def _refuse_undrawn(detected: DetectedModel) -> None:
    drawn = ", ".join(FAMILY_NAMES[family] for family in WORKERS)
    found = f"detected {detected.family_name} (cross_attention_dim {detected.cross_attention_dim})"
    if detected.family not in WORKERS:
        raise UnsupportedModelError(detected.path, f"{found}; this version draws with {drawn}")
    if detected.variant not in (None, "text2image"):
        raise UnsupportedModelError(
            detected.path,
            f"{found}, the {detected.variant} variant (in_channels {detected.in_channels}); this "
            f"version draws with {drawn} from text alone (in_channels 4)",
        )


def _refuse_incomplete(detected: DetectedModel) -> None:
    # Such a model has a family, and loading it would fail minutes later with a less clear message.
    if detected.format == "diffusers" and not (detected.path / "model_index.json").is_file():
        raise ModelFormatError(
            detected.path, "is not a complete diffusers folder: model_index.json is missing"
        )
    if detected.weight_bytes == 0:
        raise ModelFormatError(detected.path, "is not a complete model: there are no weights")
    if detected.in_channels is None:
        raise ModelFormatError(
            detected.path, "is not a complete model: its UNet's first convolution is missing"
        )


def _refuse_stranger(lora: Path, model: DetectedModel) -> None:
    detected = detect_lora(lora)
    if detected.family is not model.family:
        raise UnsupportedModelError(
            lora,
            f"a LoRA for {detected.family_name} (cross_attention_dim "
            f"{detected.cross_attention_dim}) can't be laid over {model.path.name}, which is "
            f"{model.family_name} (cross_attention_dim {model.cross_attention_dim})",
        )


def _refuse_other_latents(vae: Path, model: DetectedModel) -> None:
    detected = detect_vae(vae)
    if detected.latent_channels != model.in_channels:
        raise UnsupportedModelError(
            vae,
            f"decodes latents of {detected.latent_channels} channels; {model.path.name}, which is "
            f"{model.family_name}, draws {model.in_channels}",
        )
    folder = model.path if model.format == "diffusers" else config_folder(model.family)
    config = read_config(folder / "vae" / "config.json")
    own = config.get("scaling_factor", DEFAULT_SCALING)
    if detected.scaling_factor is not None and not math.isclose(
        detected.scaling_factor, own, rel_tol=1e-3
    ):
        raise UnsupportedModelError(
            vae,
            f"is made for latents of another kind (scaling_factor {detected.scaling_factor:g}); "
            f"those of {model.path.name}, which is {model.family_name}, have {own:g}",
        )


def _model_path(given: Path | str | None) -> Path:
    if given is not None:
        return Path(given)
    root, model = (_variable(name) for name in ("MODEL_ROOT", "MODEL"))
    return Path(root).expanduser() / model


def _variable(name: str) -> str:
    value = os.environ.get(name, "").strip()
    if not value:
        raise ModelNotNamedError(name)
    return value
