"""LoRAs: pairs of small matrices that are laid beside a model's weights, which stay as they are.

Diffusers' own functions turn the names of kohya's trainer into those of its modules, peft computes
with the pairs. What they would pass over with a warning, or not at all, is an error here: a LoRA
that does nothing looks like one that is badly trained.
"""

import itertools
import json
import logging
import math
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Only the worker process imports this module.
import torch  # noqa: TID253
from diffusers.loaders.lora_pipeline import StableDiffusionXLLoraLoaderMixin  # noqa: TID253
from diffusers.utils.state_dict_utils import (  # noqa: TID253
    DIFFUSERS_OLD_TO_PEFT,
    DIFFUSERS_TO_PEFT,
    UNET_TO_DIFFUSERS,
    convert_state_dict,
)
from safetensors import safe_open

from engine.errors import ModelError, ModelFormatError, UnsupportedModelError
from engine.jobs import LoraSpec
from engine.model_files import file_stamp, read_header, shown

log = logging.getLogger(__name__)

_KOHYA_START = "lora_"
_KOHYA = re.compile(r"(lora_(?:unet|te|te1|te2)_[^.]+)\.(lora_down\.weight|lora_up\.weight|alpha)")
# Of an SDXL UNet's layers these alone are known to diffusers by the original's names and not by its
# own, which some trainers write.
_ORIGINAL = {
    "lora_unet_add_embedding_linear_1": "lora_unet_label_emb_0_0",
    "lora_unet_add_embedding_linear_2": "lora_unet_label_emb_0_2",
}
_PEFT = re.compile(r"(.+)\.lora_(A|B)\.weight")
_HALF = re.compile(r"\.lora(?:_linear_layer|_[AB])?\.")
_ALPHA = ".alpha"
_METADATA = "lora_adapter_metadata"
"""Where diffusers' trainers write how the pairs are scaled."""

Layer = torch.nn.Linear | torch.nn.Conv2d
"""What a LoRA can be laid over."""

Layers = Mapping[str, Mapping[str, Layer]]
"""By part and by name."""

Choice = tuple[tuple[str, float], ...]
"""LoRAs that count, in their order, each with its strength. A file that is read anew has another
name here."""


@dataclass(frozen=True, slots=True)
class _Laid:
    """A LoRA in memory: what peft calls it, and what its file was when it was read."""

    name: str
    stamp: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Pair:
    """What a LoRA adds to one module: ``alpha / rank · up · down``.

    Attributes:
        down: ``[rank, in]``, or ``[rank, in, height, width]`` for a convolution.
        up: ``[out, rank]``, or ``[out, rank, 1, 1]``.
        alpha: scale; the rank where the file says nothing.
    """

    down: torch.Tensor
    up: torch.Tensor
    alpha: float

    @property
    def rank(self) -> int:
        """How many numbers are between the two."""
        return int(self.down.shape[0])

    def fits(self, layer: Layer) -> bool:
        """Returns whether it can be laid over a linear layer or convolution."""
        out, *into = layer.weight.shape
        up = (out, self.rank, *(1 for _ in into[1:]))
        return self.rank > 0 and self.down.shape[1:] == (*into,) and self.up.shape == up


@dataclass(frozen=True, slots=True)
class LoraFile:
    """A LoRA's tensors under the names that diffusers has for the modules.

    Attributes:
        path: the ``.safetensors`` file.
        tensors: such as ``unet.….to_k.lora_A.weight``.
        alphas: scales that stand beside the tensors, as diffusers names them.
        metadata: scales that stand in the header, by part and key (``unet.lora_alpha``).
    """

    path: Path
    tensors: Mapping[str, torch.Tensor]
    alphas: Mapping[str, float]
    metadata: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path, unet: Any) -> "LoraFile":
        """Reads a file in kohya's or diffusers' layout.

        Args:
            path: the file.
            unet: of the model; kohya's names for SDXL count its blocks differently.

        Raises:
            ModelNotFoundError: there is no such file.
            ModelFormatError: it can't be read or contradicts itself.
            UnsupportedModelError: it is no ``.safetensors``, or holds more than pairs.
        """
        read_header(path)  # says more clearly than safetensors what is wrong
        try:
            with safe_open(path, framework="pt", device="cpu") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
                metadata = file.metadata() or {}
        except MemoryError:
            raise
        except Exception as error:
            raise ModelFormatError(path, f"can't be read ({error})") from error
        for name, tensor in tensors.items():
            # A whole number is a scale like any other, and diffusers' own converter writes it so.
            scale = name.endswith(_ALPHA) and not tensor.is_complex()
            if not scale and not tensor.is_floating_point():
                raise ModelFormatError(path, f"has {_named(name)} in {tensor.dtype}, no fractions")
        if not any(name.startswith(_KOHYA_START) for name in tensors):
            pairs = {name: one for name, one in tensors.items() if not name.endswith(_ALPHA)}
            alphas = {name: _number(path, name, tensors[name]) for name in tensors.keys() - pairs}
            return cls(path, pairs, alphas, _scales(path, metadata.get(_METADATA)))
        converted: dict[str, torch.Tensor] = {}
        alphas = {}
        for layer, own in _kohya_layers(path, tensors).items():
            try:
                # The mixins of all families share it. Of several layers together it takes
                # input_blocks_10 for a tensor of input_blocks_1.
                names, scales = StableDiffusionXLLoraLoaderMixin.lora_state_dict(
                    own, unet_config=unet.config
                )
            except Exception as error:
                # It promises nothing about what it raises.
                reason = str(error).strip().partition("\n")[0] or type(error).__name__
                raise UnsupportedModelError(
                    path, f"its {_named(layer)} is no layer of such a model ({reason})"
                ) from error
            converted |= names
            alphas |= scales
        return cls(path, converted, alphas, {})

    def pairs(self, layers: Layers) -> dict[str, dict[str, Pair]]:
        """Returns what it lays over which layers, by part and name.

        Raises:
            ModelFormatError: a half of a pair is missing, has another shape than its layer asks
                for, or a scale that is no number.
            UnsupportedModelError: there is something else than pairs, or nothing for this model.
        """
        halves: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
        unknown = []
        for name in self.tensors:
            part, layer, half = self._place(name)
            if layer.startswith("text_model.") and layer not in layers.get(part, {}):
                # Some transformers versions have this level and some don't.
                layer = layer.removeprefix("text_model.")
            if layer in layers.get(part, {}):
                halves[part, layer][half] = name
            else:
                unknown.append(name)
        if not halves:
            raise UnsupportedModelError(
                self.path,
                f"none of its {len(unknown)} tensors belongs to a layer of this model; the first "
                f"is {_named(unknown[0])}",
            )
        if unknown:
            log.warning(
                "%s: %d of %d tensors belong to no layer of this model and have no effect; the "
                "first is %s",
                self.path,
                len(unknown),
                len(self.tensors),
                _named(unknown[0]),
            )
        found: dict[str, dict[str, Pair]] = defaultdict(dict)
        for (part, layer), names in halves.items():
            found[part][layer] = self._pair(part, layer, names, layers[part][layer])
        return found

    def _place(self, name: str) -> tuple[str, str, str]:
        """Returns a tensor's part, its layer's name and which half of the pair it is."""
        part, _, rest = name.partition(".")
        names = UNET_TO_DIFFUSERS if part == "unet" else DIFFUSERS_OLD_TO_PEFT | DIFFUSERS_TO_PEFT
        [peft_name] = convert_state_dict({rest: None}, names)
        match = _PEFT.fullmatch(peft_name)
        if match is None:
            raise _not_plain(self.path, name)
        return part, match[1], match[2]

    def _pair(self, part: str, layer: str, names: Mapping[str, str], module: Layer) -> Pair:
        if len(names) < 2:
            [there] = names.values()
            raise ModelFormatError(self.path, f"has {_named(there)} without its other half")
        down, up = (self.tensors[names[half]] for half in "AB")
        stems = names["A"].split(".lora.")[0], _HALF.split(names["A"])[0]
        alpha = next((self.alphas[s + _ALPHA] for s in stems if s + _ALPHA in self.alphas), None)
        if alpha is None:
            alpha = self._alpha(part, layer, len(down) if down.dim() else 0)
        pair = Pair(down, up, alpha)
        if down.dim() < 2 or not pair.fits(module):
            raise ModelFormatError(
                self.path,
                f"its {part}.{layer} has the shapes {[*down.shape]} and {[*up.shape]}, which don't "
                f"fit a weight of {[*module.weight.shape]}",
            )
        if not math.isfinite(alpha):
            raise ModelFormatError(self.path, f"the alpha of its {part}.{layer} is no number")
        return pair

    def _alpha(self, part: str, layer: str, rank: int) -> float:
        # A pattern is a regular expression to peft, and one might hang the program. Trainers write
        # names, from the first level on or from a later one.
        patterns = self.metadata.get(f"{part}.alpha_pattern", {})
        levels = layer.removeprefix("text_model.").split(".")
        for first in range(len(levels)):
            name = ".".join(levels[first:])
            if name in patterns:
                return float(patterns[name])
        return float(self.metadata.get(f"{part}.lora_alpha", rank))


class Adapters:
    """The LoRAs in memory beside a model: each file once, and which of them count just now.

    The model's own weights stay as they are, bit for bit: a layer computes with them first and
    adds what the LoRAs say. Once the last LoRA of a layer is dropped, it is the layer it was.
    """

    def __init__(self, parts: Mapping[str, Any]) -> None:
        """Takes UNet and text encoders by the names of their folders in diffusers' layout."""
        self._parts = parts
        self._layers: Layers = {
            part: {name: at for name, at in module.named_modules() if isinstance(at, Layer)}
            for part, module in parts.items()
        }
        self._laid: dict[Path, _Laid] = {}  # the least recently used first
        self._tuned: list[Any] = []  # the layers that have a LoRA beside them
        self._worn: Choice | None = ()
        self._numbers = itertools.count()

    @property
    def files(self) -> tuple[Path, ...]:
        """What is in memory, the least recently used first."""
        return tuple(self._laid)

    @property
    def worn(self) -> Choice | None:
        """What counts just now; equal only where all that is computed with it is.

        None where changing it failed, until it is changed again: some layers may have something
        else.
        """
        return self._worn

    def holds(self, path: Path) -> bool:
        """Returns whether a file is in memory as it is on disk."""
        laid = self._laid.get(path)
        try:
            return laid is not None and laid.stamp == file_stamp(path)
        except ModelError:
            return False

    def choice(self, loras: Sequence[LoraSpec]) -> Choice:
        """Returns what `worn` is while these count.

        A strength of 0 leaves a LoRA out, a file that is named twice has both strengths.

        Raises:
            KeyError: one is not in memory.
        """
        strengths: dict[str, float] = defaultdict(float)
        for lora in loras:
            if lora.strength:
                strengths[self._laid[lora.path].name] += lora.strength
        return tuple((name, strength) for name, strength in strengths.items() if strength)

    def load(self, path: Path) -> None:
        """Puts a LoRA beside the model; it has no effect before it is worn.

        What raises leaves all as it was. A file that was in memory already is read anew.

        Raises:
            ModelNotFoundError: there is no such file.
            ModelFormatError: it can't be read, contradicts itself, or has other shapes than the
                model.
            UnsupportedModelError: it is of a kind that isn't supported, or has nothing for this
                model.
        """
        stamp = file_stamp(path)
        file = LoraFile.read(path, self._parts["unet"])
        found = file.pairs(self._layers)
        name = f"file{next(self._numbers)}"
        try:
            for part, pairs in found.items():
                rs = file.metadata.get(f"{part}.use_rslora", False)
                _inject(self._parts[part], name, pairs, root_scaled=rs is True)
        except BaseException:
            self._remove(name)
            raise
        self.drop(path)
        self._laid[path] = _Laid(name, stamp)
        self._rest()

    def drop(self, path: Path) -> None:
        """Gives a LoRA's memory back; an unknown one is no error."""
        laid = self._laid.pop(path, None)
        if laid is not None:
            self._remove(laid.name)

    def wear(self, loras: Sequence[LoraSpec]) -> None:
        """Lets these count from here on and no others, in their order, each with its strength.

        Raises:
            KeyError: one is not in memory.
        """
        choice = self.choice(loras)
        for lora in loras:
            if lora.path in self._laid:
                self._laid[lora.path] = self._laid.pop(lora.path)
        if choice != self._worn:
            self._activate(choice)

    def _activate(self, choice: Choice) -> None:
        self._worn = None
        names = [name for name, _ in choice]
        for layer in self._tuned:
            layer.set_adapter(names, inference_mode=True)
            for name, strength in choice:
                layer.set_scale(name, strength)
        self._worn = choice

    def _remove(self, name: str) -> None:
        for module in self._parts.values():
            for at, layer in list(module.named_modules()):
                if _is_tuned(layer):
                    layer.set_adapter([], inference_mode=True)  # peft would choose an heir
                    layer.delete_adapter(name)
                    if not layer.lora_A:
                        parent, _, child = at.rpartition(".")
                        setattr(module.get_submodule(parent), child, layer.get_base_layer())
            configs = getattr(module, "peft_config", {})
            configs.pop(name, None)
            if not configs and "peft_config" in vars(module):
                del module.peft_config
        self._rest()

    def _rest(self) -> None:
        """Lets nothing count: peft makes active what comes, and chooses a heir for what goes."""
        self._tuned = [
            layer
            for module in self._parts.values()
            for layer in module.modules()
            if _is_tuned(layer)
        ]
        self._activate(())


def _is_tuned(layer: Any) -> bool:
    from peft.tuners.lora import LoraLayer  # late: as `_inject` does

    return isinstance(layer, LoraLayer)


def _inject(module: Any, name: str, pairs: Mapping[str, Pair], *, root_scaled: bool) -> None:
    """Puts pairs beside a module's layers.

    Args:
        module: UNet or text encoder.
        name: of the LoRA.
        pairs: by the names of the layers.
        root_scaled: whether alpha counts in units of the rank's root, not of the rank
            (https://arxiv.org/abs/2312.03732).
    """
    # Late: it takes as long to import as half of the rest, and many never lay a LoRA over a model.
    from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict

    scales = Counter((pair.rank, pair.alpha) for pair in pairs.values())
    [((rank, alpha), _)] = scales.most_common(1)
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules=[*pairs],
        rank_pattern={_exactly(at): p.rank for at, p in pairs.items() if p.rank != rank},
        alpha_pattern={_exactly(at): p.alpha for at, p in pairs.items() if p.alpha != alpha},
        use_rslora=root_scaled,
    )
    # Copies: what is mapped out of a file changes with it, and lies at odd addresses.
    where = {"device": module.device, "dtype": module.dtype, "copy": True}
    tensors = {}
    for layer, pair in pairs.items():
        tensors[f"{layer}.lora_A.weight"] = pair.down.to(**where)
        tensors[f"{layer}.lora_B.weight"] = pair.up.to(**where)
    with warnings.catch_warnings():
        # Several are what is wanted.
        warnings.filterwarnings("ignore", "Already found a `peft_config` attribute")
        # `low_cpu_mem_usage` also spares the random numbers that would be overwritten at once.
        inject_adapter_in_model(
            config, module, adapter_name=name, state_dict=tensors, low_cpu_mem_usage=True
        )
    set_peft_model_state_dict(module, tensors, name, low_cpu_mem_usage=True)


def _exactly(layer: str) -> str:
    """Returns a pattern of peft's that fits one layer alone."""
    return f"^{re.escape(layer)}"


def _kohya_layers(
    path: Path, tensors: Mapping[str, torch.Tensor]
) -> dict[str, dict[str, torch.Tensor]]:
    """Returns the tensors of each layer, complete pairs all of them."""
    layers: dict[str, dict[str, torch.Tensor]] = defaultdict(dict)
    for name, tensor in tensors.items():
        match = _KOHYA.fullmatch(name)
        if match is None:
            raise _not_plain(path, name)
        layer = _ORIGINAL.get(match[1], match[1])
        layers[layer][f"{layer}.{match[2]}"] = tensor
    for layer, own in layers.items():
        if not {f"{layer}.lora_down.weight", f"{layer}.lora_up.weight"} <= own.keys():
            raise ModelFormatError(path, f"has one half of {_named(layer)} without the other")
    return layers


def _number(path: Path, name: str, tensor: torch.Tensor) -> float:
    if tensor.numel() != 1:
        raise ModelFormatError(path, f"its {_named(name)} is no number but {[*tensor.shape]}")
    return float(tensor)


def _not_plain(path: Path, name: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        path,
        f"has {_named(name)}, so it is no plain LoRA for a UNet and CLIP text encoders; LoHa, "
        "LoKr, DoRA and LoCon with lora_mid are not supported",
    )


def _named(name: str) -> str:
    return shown(name, 200)  # many are longer than what is shown elsewhere


def _scales(path: Path, written: str | None) -> dict[str, Any]:
    """Returns what diffusers' trainers say in the header of how the pairs are scaled.

    Nothing else is taken from there: peft would import modules that it names.
    """
    if not written:
        return {}
    try:
        values = json.loads(written)
    except (ValueError, RecursionError) as error:
        raise ModelFormatError(path, f"its {_METADATA} is no JSON") from error
    if not isinstance(values, dict):
        raise ModelFormatError(path, f"its {_METADATA} is no JSON object")
    for key, value in values.items():
        if key.endswith(".alpha_pattern"):
            values[key] = _plain_names(path, key, value or {})
        elif key.endswith(".lora_alpha"):
            _check_alpha(path, key, value)
    return values


def _plain_names(path: Path, key: str, patterns: object) -> dict[str, Any]:
    if not isinstance(patterns, dict):
        raise ModelFormatError(path, f"its {_METADATA} has {shown(key)} that is no JSON object")
    for alpha in patterns.values():
        _check_alpha(path, key, alpha)
    return {
        name.removeprefix("^").removeprefix("text_model."): alpha
        for name, alpha in patterns.items()
    }


def _check_alpha(path: Path, key: str, alpha: Any) -> None:
    number = isinstance(alpha, (int, float)) and not isinstance(alpha, bool)
    if not number or not -1e9 < alpha < 1e9:
        raise ModelFormatError(path, f"its {_METADATA} has no number as {shown(key)}")
