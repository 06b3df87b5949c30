"""Single-file checkpoints, loaded offline: the file's weights in its family's configuration.

Diffusers' own functions turn the original names and layouts into those of its modules. The
weights are mapped into memory rather than read, and copied tensor by tensor where the device, the
number format or their place in the file asks for it: there is never more than one copy.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

# Only the worker process imports this module; the deep paths spare it the pipelines.
import torch  # noqa: TID253
from accelerate import init_empty_weights
from diffusers.loaders.single_file_utils import (  # noqa: TID253
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL  # noqa: TID253
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel  # noqa: TID253
from safetensors import safe_open
from transformers.initialization import no_init_weights  # noqa: TID253
from transformers.models.clip.configuration_clip import CLIPTextConfig  # noqa: TID253
from transformers.models.clip.modeling_clip import (  # noqa: TID253
    CLIPTextModel,
    CLIPTextModelWithProjection,
)
from transformers.models.clip.tokenization_clip import CLIPTokenizer  # noqa: TID253

from engine.errors import ModelFormatError, UnsupportedModelError
from engine.families import VOCABULARY, config_folder
from engine.jobs import Family
from engine.model_files import Tensor, read_config, read_header
from engine.samplers import NoiseSchedule
from engine.vae_detector import DetectedVae
from engine.workers.alignment import align

Tensors = Mapping[str, torch.Tensor]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a part lies in a checkpoint, and how it becomes a module.

    Attributes:
        title: what people call the part.
        prefix: how the names of its tensors begin.
        build: makes the module from a ``config.json``'s values.
        convert: gives the tensors the names and shapes that the module has.
    """

    title: str
    prefix: str
    build: Callable[[Mapping[str, Any]], torch.nn.Module]
    convert: Callable[[Tensors, Any], dict[str, torch.Tensor]]

    def empty(self, config: Mapping[str, Any]) -> torch.nn.Module:
        """Returns the module on torch's meta device: shapes without memory."""
        with _without_weights():
            return self.build(config)

    def fill(
        self, module: torch.nn.Module, tensors: Tensors, dtype: torch.dtype, device: torch.device
    ) -> torch.nn.Module:
        """Puts a checkpoint's tensors into an `empty` module, ready to draw with.

        Args:
            module: what they belong to.
            tensors: those whose names begin with `prefix`.
            dtype: number format that the weights get.
            device: where they go.

        Raises:
            ValueError: a tensor is missing, has another shape or holds no real numbers, or there
                are too many.
        """
        wanted = module.state_dict()
        if len(tensors) > 2 * len(wanted):
            # The converters look at every name once per block that the names speak of.
            raise ValueError(f"has {len(tensors)} tensors where its family has {len(wanted)}")
        converted = self.convert(tensors, module)
        missing = sorted(name for name in wanted if converted.get(name) is None)
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise ValueError(f"has no {missing[0]}{more}")
        for name, empty in wanted.items():
            tensor = converted[name]
            if tensor.shape != empty.shape:
                shapes = f"{list(tensor.shape)}, not {list(empty.shape)}"
                raise ValueError(f"has {name} in the shape {shapes}")
            if not tensor.is_floating_point():
                raise ValueError(f"has {name} in whole numbers ({tensor.dtype})")
        # What else is there, such as a saved position_ids, is no weight: the stock loaders pass
        # over it as well. The source is a map of the file, so this holds one copy at most.
        state = {name: converted[name].to(device, dtype).contiguous() for name in wanted}
        module.load_state_dict(state, assign=True)
        module.requires_grad_(requires_grad=False)
        module.to(device).eval()
        align(module)
        return module


@contextmanager
def _without_weights() -> Iterator[None]:
    # Buffers are computed rather than loaded, so they are real.
    with init_empty_weights(include_buffers=False), no_init_weights():
        yield


def _unet_names(tensors: Tensors, module: Any) -> dict[str, torch.Tensor]:
    names: dict[str, torch.Tensor] = convert_ldm_unet_checkpoint(dict(tensors), module.config)
    return names


def _vae_names(tensors: Tensors, module: Any) -> dict[str, torch.Tensor]:
    names: dict[str, torch.Tensor] = convert_ldm_vae_checkpoint(dict(tensors), module.config)
    return names


def _clip(prefix: str) -> Layout:
    """Returns the layout of a text encoder from OpenAI, saved by transformers."""

    def convert(tensors: Tensors, module: Any) -> dict[str, torch.Tensor]:
        return _as_in(module, convert_ldm_clip_checkpoint(dict(tensors), prefix))

    return Layout("text encoder", prefix, _text_encoder(CLIPTextModel), convert)


def _open_clip(prefix: str, kind: Any = CLIPTextModelWithProjection) -> Layout:
    """Returns the layout of a text encoder as OpenCLIP saves it."""

    def convert(tensors: Tensors, module: Any) -> dict[str, torch.Tensor]:
        return _as_in(module, convert_open_clip_checkpoint(module, dict(tensors), prefix))

    return Layout("text encoder", prefix, _text_encoder(kind), convert)


def _text_encoder(kind: Any) -> Callable[[Mapping[str, Any]], torch.nn.Module]:
    def build(config: Mapping[str, Any]) -> torch.nn.Module:
        module: torch.nn.Module = kind(CLIPTextConfig.from_dict(dict(config)))
        return module

    return build


def _as_in(module: Any, tensors: Tensors) -> dict[str, torch.Tensor]:
    # Files carry `text_model.` in their names, or not if a recent transformers saved them;
    # CLIPTextModel has dropped it and CLIPTextModelWithProjection has not.
    if hasattr(module, "text_model"):
        return dict(tensors)
    return {name.removeprefix("text_model."): tensor for name, tensor in tensors.items()}


def _vae_names_now(tensors: Tensors, _: Any) -> dict[str, torch.Tensor]:
    """Gives a VAE in diffusers' layout, of any age, the names that it has today."""
    names = {}
    for name, tensor in tensors.items():
        block, found, layer = name.partition(".attentions.0.")
        for old, new in _OLD_ATTENTION.items():
            layer = layer.replace(f"{old}.", f"{new}.", 1) if layer.startswith(old) else layer
        names[block + found + layer] = tensor
    return names


_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}

_UNET = Layout("UNet", "model.diffusion_model.", UNet2DConditionModel.from_config, _unet_names)
_VAE = Layout("VAE", "first_stage_model.", AutoencoderKL.from_config, _vae_names)

LAYOUTS: Mapping[Family, Mapping[str, Layout]] = {
    Family.SD15: {
        "text_encoder": _clip("cond_stage_model.transformer."),
        "unet": _UNET,
        "vae": _VAE,
    },
    Family.SD2: {
        "text_encoder": _open_clip("cond_stage_model.model.", CLIPTextModel),
        "unet": _UNET,
        "vae": _VAE,
    },
    Family.SDXL: {
        "text_encoder": _clip("conditioner.embedders.0.transformer."),
        "text_encoder_2": _open_clip("conditioner.embedders.1.model."),
        "unet": _UNET,
        "vae": _VAE,
    },
    Family.SDXL_REFINER: {
        "text_encoder_2": _open_clip("conditioner.embedders.0.model."),
        "unet": _UNET,
        "vae": _VAE,
    },
}
"""Each family's parts by the names of their folders in diffusers' layout."""


@dataclass(frozen=True)
class SingleFile:
    """A checkpoint of one file, seen as if it were a diffusers folder. Never goes online.

    Its header is read once, at the first need.

    Attributes:
        path: the ``.safetensors`` file.
        family: what the detector found it to be.
        config: folder with the configurations; None takes those shipped for the family.
    """

    path: Path
    family: Family
    config: Path | None = None

    def check(self, *, own_vae: bool = True) -> None:
        """Makes sure that the file has all parts of its family, before any is loaded.

        Args:
            own_vae: whether the VAE has to be there too.

        Raises:
            UnsupportedModelError: there is nothing of one of them.
            ModelError: as `engine.model_files.read_header`.
        """
        for part, layout in LAYOUTS[self.family].items():
            if own_vae or part != "vae":
                _names(self.path, layout, self._header)

    def schedule(self, prediction_type: str | None = None) -> NoiseSchedule:
        """Returns how the model was trained to see noise.

        Args:
            prediction_type: as the mode has it; None takes what the file says.

        Raises:
            ModelError: as `engine.model_files.read_header`.
        """
        if prediction_type is None and "v_pred" in self._header:
            prediction_type = "v_prediction"
        if prediction_type is None and self.family is Family.SD2:
            log.warning(
                "%s does not say what it predicts; taking epsilon. If it draws noise, set "
                "prediction_type: v_prediction in its mode.",
                self.path,
            )
        path = self.folder / "scheduler" / "scheduler_config.json"
        schedule = NoiseSchedule.read(path, prediction_type)
        ends_in_noise = "ztsnr" in self._header
        return replace(schedule, rescale_betas_zero_snr=True) if ends_in_noise else schedule

    def tokenizer(self, part: str = "tokenizer") -> Any:
        """Returns a tokenizer; its settings are the family's, its vocabulary is CLIP's.

        A configuration folder with a vocabulary of its own keeps it.
        """
        folder = self.folder / part
        settings = read_config(folder / "tokenizer_config.json")
        words = folder if (folder / "vocab.json").is_file() else VOCABULARY
        return CLIPTokenizer.from_pretrained(words, local_files_only=True, **settings)

    def load(self, part: str, dtype: torch.dtype, device: torch.device) -> Any:
        """Returns a part with its weights.

        Args:
            part: a key of the family's `LAYOUTS`, such as ``unet``.
            dtype: number format that the weights get, whatever the file has.
            device: where they go.

        Raises:
            ModelFormatError: the file can't be read, or a weight of the part is missing or has
                another shape than the family's.
            UnsupportedModelError: the file is no ``.safetensors``, or has nothing of the part.
        """
        config = read_config(self.folder / part / "config.json")
        layout = LAYOUTS[self.family][part]
        return _filled(self.path, self._header, layout, config, dtype, device)

    @cached_property
    def _header(self) -> Mapping[str, Tensor]:
        return read_header(self.path)

    @property
    def folder(self) -> Path:
        """Where the configurations lie."""
        return self.config or config_folder(self.family)


def load_vae_file(
    vae: DetectedVae, config: Mapping[str, Any], dtype: torch.dtype, device: torch.device
) -> Any:
    """Returns a VAE out of a file of its own, or out of a checkpoint.

    Args:
        vae: what the detector found.
        config: how it is built: as the VAE in whose place it is.
        dtype: number format that the weights get.
        device: where they go.

    Raises:
        ModelFormatError: the file can't be read, or a weight is missing or has another shape.
    """
    convert = _vae_names if vae.layout == "original" else _vae_names_now
    layout = Layout("VAE", vae.prefix, AutoencoderKL.from_config, convert)
    return _filled(vae.path, read_header(vae.path), layout, config, dtype, device)


def _filled(
    path: Path,
    header: Iterable[str],
    layout: Layout,
    config: Mapping[str, Any],
    dtype: torch.dtype,
    device: torch.device,
) -> Any:
    module = layout.empty(config)
    names = _names(path, layout, header)
    try:
        return layout.fill(module, _tensors(path, names), dtype, device)
    except (torch.OutOfMemoryError, MemoryError, ModelFormatError):
        raise
    except ValueError as error:
        raise ModelFormatError(path, f"its {layout.title} {error}") from error
    except Exception as error:
        # The converters promise nothing about what they raise.
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ModelFormatError(path, f"its {layout.title} can't be converted ({reason})") from error


def _tensors(path: Path, names: Iterable[str]) -> dict[str, torch.Tensor]:
    """Returns tensors of a file, mapped rather than read."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in names}
    except MemoryError:
        raise
    except Exception as error:
        raise ModelFormatError(path, f"can't be read ({error})") from error


def _names(path: Path, layout: Layout, names: Iterable[str]) -> list[str]:
    found = [name for name in names if name.startswith(layout.prefix)]
    if not found:
        raise UnsupportedModelError(
            path,
            f"has no {layout.title} (no tensors {layout.prefix}*): only checkpoints that hold "
            "text encoder, UNet and VAE together can be drawn with",
        )
    return found
