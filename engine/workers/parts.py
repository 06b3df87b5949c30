"""The parts of a Stable Diffusion model, loaded from where they lie and checked."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

# Only the worker process imports this module; the deep paths spare it the pipelines.
import torch  # noqa: TID253
from diffusers.models.attention_processor import AttnProcessor2_0  # noqa: TID253
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL  # noqa: TID253
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel  # noqa: TID253
from transformers.initialization import no_init_weights  # noqa: TID253
from transformers.models.clip.modeling_clip import (  # noqa: TID253
    CLIPTextModel,
    CLIPTextModelWithProjection,
)
from transformers.models.clip.tokenization_clip import CLIPTokenizer  # noqa: TID253

from engine.errors import ModelFormatError, ModelNotFoundError, UnsupportedModelError
from engine.jobs import Family
from engine.model_files import read_config, shown
from engine.samplers import NoiseSchedule
from engine.vae_detector import detect_vae
from engine.workers.alignment import align
from engine.workers.lora import Adapters
from engine.workers.prompts import PromptReader
from engine.workers.single_file import SingleFile, load_vae_file

if TYPE_CHECKING:
    from engine.jobs import ModelSpec

# Diffusers asks for it at each call of each attention layer, and Python would work it out anew each
# time, for as long as a small matrix product takes.
AttnProcessor2_0.__call__.__signature__ = inspect.signature(AttnProcessor2_0.__call__)

_KINDS: dict[str, Any] = {
    "text_encoder": CLIPTextModel,
    "text_encoder_2": CLIPTextModelWithProjection,
    "unet": UNet2DConditionModel,
    "vae": AutoencoderKL,
}


_MOST_TEXT_LAYERS = 100
_MOST_BLOCK_LAYERS = 16
"""Real models have at most 32 and 3. Layers take time and memory to build before any weights show
that the number is wrong."""


class PartSource(Protocol):
    """Where a model's parts are read from; a diffusers folder or a single file.

    Parts have the names of their folders in diffusers' layout, such as ``unet``.
    """

    @property
    def folder(self) -> Path:
        """The folder with the parts' configurations."""

    def schedule(self, prediction_type: str | None = None) -> NoiseSchedule:
        """Returns how the model was trained to see noise; a mode's prediction type wins."""

    def tokenizer(self, part: str = "tokenizer") -> Any:
        """Returns a tokenizer."""

    def load(self, part: str, dtype: torch.dtype, device: torch.device) -> Any:
        """Returns a module with all its weights in a number format on a device."""


@dataclass(frozen=True, slots=True)
class DiffusersFolder:
    """A diffusers folder. Never goes online.

    Attributes:
        folder: the one that holds ``model_index.json``.
    """

    folder: Path

    def schedule(self, prediction_type: str | None = None) -> NoiseSchedule:
        """Returns how the model was trained to see noise.

        Args:
            prediction_type: as the mode has it; None takes what the folder says.

        Raises:
            ModelError: as `NoiseSchedule.read`.
        """
        return NoiseSchedule.read(
            self.folder / "scheduler" / "scheduler_config.json", prediction_type
        )

    def tokenizer(self, part: str = "tokenizer") -> Any:
        """Returns a tokenizer.

        Raises:
            ModelFormatError: it is missing or broken.
        """
        folder = self.folder / part
        if not folder.is_dir():
            raise ModelFormatError(folder, "the folder is missing")
        return _reading(
            folder, lambda: CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        )

    def load(self, part: str, dtype: torch.dtype, device: torch.device) -> Any:
        """Loads one part strictly: the stock loaders fill what a file lacks with random numbers.

        Raises:
            ModelFormatError: it is missing or broken; the path is its file's.
            UnsupportedModelError: its weights are pickled.
        """
        return _load_folder(self.folder / part, _KINDS[part], dtype, device)


def _load_folder(folder: Path, kind: Any, dtype: torch.dtype, device: torch.device) -> Any:
    file, variant = _weights(folder)
    # All of them are read: chance would be asked in vain, with 0.4 s of imports at its first time.
    with no_init_weights():
        module, info = _reading(
            file,
            lambda: kind.from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                variant=variant,
                output_loading_info=True,
                dtype=dtype,
            ),
        )
    for problem in ("mismatched_keys", "missing_keys"):
        keys = sorted(str(key) for key in info.get(problem, ()))
        if keys:
            told = f"{keys[0]} and {len(keys) - 1} more" if len(keys) > 1 else keys[0]
            raise ModelFormatError(file, f"{problem.replace('_', ' ')}: {told}")
    module.requires_grad_(requires_grad=False)
    if device.type != "cpu":  # where it is already, ready to draw
        module.to(device)
    align(module)
    return module


def _load_vae(path: Path, own: Path, dtype: torch.dtype, device: torch.device) -> Any:
    """Returns a VAE that is named beside a model, whose own has its configuration in a folder."""
    detected = detect_vae(path)
    if path.is_dir():
        return _load_folder(path, AutoencoderKL, dtype, device)
    return load_vae_file(detected, read_config(own / "config.json"), dtype, device)


def open_source(path: Path, family: Family, *, own_vae: bool = True) -> PartSource:
    """Returns where the parts of a model are read from.

    Args:
        path: a diffusers folder or a single-file checkpoint.
        family: what the detector found it to be.
        own_vae: whether its own VAE is wanted, and so must be there.

    Raises:
        ModelNotFoundError: there is no such file or folder.
        UnsupportedModelError: the file is no ``.safetensors`` or lacks a part of its family.
        ModelFormatError: the file can't be read.
    """
    if not path.exists():
        raise ModelNotFoundError(path)
    if path.is_dir():
        return DiffusersFolder(path)
    file = SingleFile(path, family)
    file.check(own_vae=own_vae)
    return file


@dataclass(frozen=True, slots=True)
class Parts:
    """A model's parts on their device.

    Attributes:
        schedule: how the model was trained to see noise.
        readers: its text encoders.
        unet: what predicts the noise.
        vae: what turns latents into pixels.
        index: what ``model_index.json`` says of the whole.
        loras: what can be laid over UNet and text encoders.
    """

    schedule: NoiseSchedule
    readers: tuple[PromptReader, ...]
    unet: Any
    vae: Any
    index: Mapping[str, Any]
    loras: Adapters

    @classmethod
    def load(
        cls,
        source: PartSource,
        model: "ModelSpec",
        device: torch.device,
        readers: Sequence[tuple[str, str]],
        check: Callable[[Path], None],
        vae_dtype: torch.dtype | None = None,
    ) -> "Parts":
        """Loads a model, LoRAs left out: float32 on the CPU, float16 on a GPU.

        Args:
            source: where its parts are.
            model: what the mode says of it.
            device: where they go.
            readers: the parts that are a tokenizer and its text encoder.
            check: raises a `ModelError` where the configurations in a folder are not what the
                worker draws with; called before any weights are read.
            vae_dtype: the VAE's number format; None takes that of all.

        Raises:
            ModelError: a part is missing or broken, or doesn't fit the others.
        """
        dtype = torch.float16 if device.type == "cuda" else torch.float32
        index = read_config(source.folder / "model_index.json")
        schedule = source.schedule(model.prediction_type)
        tokenizers = [source.tokenizer(tokenizer) for tokenizer, _ in readers]
        check(source.folder)
        encoders = [source.load(encoder, dtype, device) for _, encoder in readers]
        for (part, _), tokenizer, encoder in zip(readers, tokenizers, encoders, strict=True):
            _check_vocabulary(source.folder / part, tokenizer, encoder)
        unet = source.load("unet", dtype, device)
        vae_format = vae_dtype or dtype
        vae = (
            source.load("vae", vae_format, device)
            if model.vae is None
            else _load_vae(model.vae, source.folder / "vae", vae_format, device)
        )
        if device.type == "cuda":
            for convolved in (unet, vae):  # as tensor cores read pictures; spares a copy per layer
                convolved.to(memory_format=torch.channels_last)
        names = [encoder for _, encoder in readers]
        return cls(
            schedule=schedule,
            readers=tuple(map(PromptReader, tokenizers, encoders)),
            unet=unet,
            vae=vae,
            index=index,
            loras=Adapters({"unet": unet, **dict(zip(names, encoders, strict=True))}),
        )

    @property
    def tensors(self) -> dict[str, tuple[torch.Tensor, ...]]:
        """All tensors of each part; those of LoRAs are among them, as long as there are any."""
        modules = {f"reader {i}": reader.encoder for i, reader in enumerate(self.readers)}
        return {
            name: (*module.parameters(), *module.buffers())
            for name, module in {**modules, "unet": self.unet, "vae": self.vae}.items()
        }

    @property
    def weight_bytes(self) -> int:
        """Memory that the weights hold, those of LoRAs included."""
        return sum(tensor.nbytes for tensors in self.tensors.values() for tensor in tensors)


def check_fit(folder: Path, encoders: Sequence[str]) -> None:
    """Checks, by their configurations alone, that a model's parts fit each other and our loop.

    Args:
        folder: of the configurations.
        encoders: names of its text encoders; the UNet reads what they write side by side.

    Raises:
        ModelFormatError: a configuration is broken, or two don't fit.
        UnsupportedModelError: a part is of a kind that no worker draws with.
    """
    texts = [read_config(folder / encoder / "config.json") for encoder in encoders]
    unet = read_config(folder / "unet" / "config.json")
    vae = read_config(folder / "vae" / "config.json")
    for encoder, text in zip(encoders, texts, strict=True):
        kind = text.get("model_type")
        if kind != "clip_text_model":
            raise UnsupportedModelError(
                folder / encoder, f"is a {kind}; this family is drawn with a clip_text_model"
            )
        if "num_hidden_layers" in text:
            _check_layers(folder / encoder, text, "num_hidden_layers", _MOST_TEXT_LAYERS)
    for part, config in (("unet", unet), ("vae", vae)):
        if "layers_per_block" in config:
            _check_layers(folder / part, config, "layers_per_block", _MOST_BLOCK_LAYERS)
    for key in ("time_cond_proj_dim", "class_embed_type", "encoder_hid_dim_type"):
        if unet.get(key) is not None:
            raise UnsupportedModelError(folder / "unet", f"{key} {unet[key]} has no worker yet")
    widths: list[Any] = [text.get("hidden_size") for text in texts]
    read = unet.get("cross_attention_dim")
    if not all(isinstance(width, int) for width in widths) or sum(widths) != read:
        written = " + ".join(map(str, widths))
        raise ModelFormatError(
            folder / "unet", f"reads prompts {read} wide, the text encoders write {written}"
        )
    channels = vae.get("latent_channels", 4)
    if unet.get("in_channels", 4) != channels:
        raise UnsupportedModelError(
            folder / "unet",
            f"takes {unet.get('in_channels')} channels, the VAE has {channels}: only models that "
            "draw from text alone have a worker yet",
        )


def _check_layers(part: Path, config: Mapping[str, Any], key: str, most: int) -> None:
    written = config[key]
    # A UNet may have a number for each of its blocks.
    numbers = written if isinstance(written, list) else [written]
    if not numbers or not all(type(n) is int and 1 <= n <= most for n in numbers):
        raise ModelFormatError(
            part, f"its {key} is {shown(written)}; allowed are whole numbers from 1 to {most}"
        )


def _check_vocabulary(path: Path, tokenizer: Any, encoder: Any) -> None:
    if len(tokenizer) != encoder.config.vocab_size:
        # Missing vocabulary files load without a word, as a tokenizer of two.
        raise ModelFormatError(
            path, f"knows {len(tokenizer)} tokens, the text encoder {encoder.config.vocab_size}"
        )


def _weights(folder: Path) -> tuple[Path, str | None]:
    """Returns a part's weight file, or the index of its shards, and its variant."""
    if not folder.is_dir():
        raise ModelFormatError(folder, "the folder is missing")
    stem = "model" if folder.name.startswith("text_encoder") else "diffusion_pytorch_model"
    for variant in (None, "fp16"):
        middle = f".{variant}" if variant else ""
        for name in (f"{stem}{middle}.safetensors", f"{stem}.safetensors.index{middle}.json"):
            if (folder / name).is_file():
                return folder / name, variant
    if any(folder.glob("*.bin")):
        raise UnsupportedModelError(
            folder, "holds pickled weights, which could run code; save it as .safetensors"
        )
    raise ModelFormatError(folder / f"{stem}.safetensors", "the file is missing")


def _reading(path: Path, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        # Whatever a broken file makes the loaders raise: they promise nothing.
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ModelFormatError(path, f"can't be read ({reason})") from error
