"""The modes file: YAML → frozen `ModeConfig`, or everything that is wrong with it at once.

Each problem says file, line, key and what is allowed. The file is treated as hostile: only plain
data is read, no tags, no aliases (a few of them can stand for billions of values), a bounded size
and depth. Whether a model's file exists is no error here: models are copied in while the bot runs,
so that a missing one is a warning, and an error for whoever draws with it.
"""

import itertools
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from engine.errors import DreamLabError, ModelError, ModelNotFoundError
from engine.jobs import (
    LoraSpec,
    ModelSpec,
    Sampler,
)
from modes.lora_choices import NAME, adapter_name
from modes.mode_config import (
    DEFAULT_GUIDANCE,
    DEFAULT_SAMPLER,
    DEFAULT_SIZE,
    DEFAULT_STEPS,
    MAX_COUNT,
    MAX_GUIDANCE,
    MAX_LORA_STRENGTH,
    MAX_LORAS,
    MAX_STEPS,
    REFINER_FROM,
    ModeConfig,
    OfferedLora,
    exists,
)
from modes.named_files import Found, NamedFile, Whereabouts, home
from modes.native_size import Signature, native_side, signature
from modes.request_fields import (
    MAX_TEXT,
    SIDE_STEP,
    size_text,
)
from modes.upscaling import FACTORS, Upscale
from modes.yaml_reader import Node, Problem, YamlReader

# How far a mode's bounds may go.
SIDES = (64, 4096)
STEPS_LIMIT = 500  # half of what models are trained with: past that, solvers leave their range
GUIDANCE_LIMIT = 100.0
COUNT_LIMIT = 10  # a Discord message carries ten files
STRENGTHS = (-10.0, 10.0)
LORAS_LIMIT = 10
MAX_SIZES = 20
MAX_ADDED = 500  # characters that a mode may add before, after, or to what is kept away
CLIP_SKIPS = (1, 12)  # CLIP's smaller text encoder has twelve layers

ANY_LORA = "*"

PREDICTION_TYPES = ("epsilon", "v_prediction")
FALLBACK_MODE = "default"

_MAX_BYTES = 256 * 1024
_MAX_MODES = 200
MODEL_FOLDERS = ("checkpoints", "diffusers", "diffusion_models")
LORA_FOLDERS = ("loras",)
_VAE_FOLDERS = ("vae",)
_MAX_OFFERED = 500
_MAX_ROLES = 50
_MODE_NAME = re.compile(r"[\w][\w.-]{0,39}")
_MODE_NAME_RULE = "1 to 40 letters, digits, dots, hyphens and underscores"
_ADAPTER_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_FILE_KEYS = ("model_root", "lora_root", "default_mode", "modes")
MODE_KEYS = (
    "model",
    "vae",
    "refiner",
    "upscale",
    "loras",
    "title",
    "description",
    "prediction_type",
    "clip_skip",
    "default_size",
    "default_steps",
    "default_guidance",
    "default_sampler",
    "default_negative",
    "prompt_prefix",
    "prompt_suffix",
    "negative_always",
    "negative_allowed",
    "sizes",
    "samplers",
    "min_size",
    "max_size",
    "max_steps",
    "max_guidance",
    "max_count",
    "loras_allowed",
    "max_loras",
    "max_lora_strength",
    "allowed_roles",
    "exact",
    "compile",
    "nsfw",
    "metadata",
)
_LORA_KEYS = ("path", "strength", "adapter_name")
_OFFERED_KEYS = ("path", "name")
_REFINER_KEYS = ("model", "switch_at")
_UPSCALE_KEYS = ("factor", "strength", "max_size")


class ModesFileError(DreamLabError):
    """The modes file can't be used.

    Attributes:
        problems: all that is wrong with it.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


@dataclass(frozen=True, slots=True)
class ModesFile:
    """A modes file that can be used.

    Attributes:
        default_mode: drawn with when nobody names another.
        modes: by name, in the file's order.
        warnings: what the owner should know, such as a model that is not there.
        path: where it was read; None for the single model of the fallback.
        model_root: the folder that models are in.
        lora_root: the folder that LoRAs are in.
        whereabouts: of the files that it names, when it was read.
    """

    default_mode: str
    modes: Mapping[str, ModeConfig]
    warnings: tuple[Problem, ...] = ()
    path: Path | None = None
    model_root: Path = Path()
    lora_root: Path = Path()
    whereabouts: Whereabouts = field(default_factory=Whereabouts, compare=False)


def load_modes(path: Path) -> ModesFile:
    """Reads a modes file.

    Raises:
        ModesFileError: it can't be read or something in it is not allowed.
    """
    return parse_modes(read_modes(path).removeprefix("\ufeff"), path)


def read_modes(path: Path) -> str:
    """Returns the text of a modes file as it is, a byte order mark and carriage returns included.

    Raises:
        ModesFileError: it can't be read.
    """
    try:
        if path.exists() and not path.is_file():
            raise ModesFileError([Problem("not a file", path=path)])
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ModesFileError(
            [Problem(f"can't be read: {error.strerror or error}", path=path)]
        ) from error
    return decode_modes(content, path)


def decode_modes(content: bytes, path: Path) -> str:
    """Returns the text of a modes file's bytes.

    Raises:
        ModesFileError: they are too many, or no UTF-8.
    """
    if len(content) > _MAX_BYTES:
        raise ModesFileError([Problem(f"larger than {_MAX_BYTES // 1024} KiB", path=path)])
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ModesFileError(
            [Problem("not UTF-8 text; save it with the encoding UTF-8", path=path, line=line)]
        ) from error


def parse_modes(text: str, path: Path) -> ModesFile:
    """Reads the text of a modes file.

    Args:
        text: the YAML.
        path: where it stands; relative roots count from its folder.

    Raises:
        ModesFileError: something in it is not allowed.
    """
    return _ModesReader(path).read(text)


def load_fallback(model_root: Path | None, model: str | None) -> ModesFile:
    """Returns a single mode for a single model, for whoever has no modes file.

    Args:
        model_root: the folder that the model is in (``MODEL_ROOT``).
        model: its path in there (``MODEL``).

    Raises:
        ModesFileError: one of them is missing; it names which.
    """
    needed = {"MODEL_ROOT": model_root, "MODEL": model}
    if model_root is None or not model:
        raise ModesFileError(
            Problem("not set; needed where there is no modes file", key)
            for key, value in needed.items()
            if not value
        )
    root = _absolute(model_root)
    named = NamedFile(root, model, MODEL_FOLDERS)
    found = named.find()
    spec = ModelSpec(found[0])
    warnings = [Problem(f"there is no modes file; drawing with MODEL ({model}) alone")]
    before, unsized = signature(spec.path), dict[Path, Signature]()
    try:
        side = native_side(spec)
    except ModelError as error:
        side = DEFAULT_SIZE[0]
        unsized[spec.path] = before
        warnings.append(Problem(_sizeless(error), "MODEL"))
    low, high = _usual_bounds(side)
    mode = ModeConfig(FALLBACK_MODE, spec, default_size=(side, side), min_size=low, max_size=high)
    modes = MappingProxyType({mode.name: mode})
    return ModesFile(
        mode.name,
        modes,
        tuple(warnings),
        model_root=root,
        lora_root=root,
        whereabouts=Whereabouts({named: found}, unsized),
    )


class _ModesReader:
    """What the nodes of a modes file mean."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._yaml = YamlReader(path)
        self._files: dict[NamedFile, Found] = {}
        self._unsized: dict[Path, Signature] = {}

    def read(self, text: str) -> ModesFile:
        """Returns the file's content."""
        root = self._yaml.compose(text)
        keys = self._yaml.mapping(root, "", _FILE_KEYS)
        entries = self._yaml.mapping(keys.get("modes"), "modes")
        default = ""
        modes: dict[str, ModeConfig] = {}
        model_root = self._root(keys, "model_root")
        lora_root = self._root(keys, "lora_root") or model_root
        if root is not None:
            if model_root is None:
                self._yaml.missing(root, keys, "model_root", "the folder that the models are in")
            if not 1 <= len(entries) <= _MAX_MODES:
                self._yaml.missing(root, keys, "modes", f"1 to {_MAX_MODES} modes by name")
            default = self._default(root, keys, tuple(entries))
            for name, node in entries.items():
                modes[name] = self._mode(name, node, (model_root or Path(), lora_root or Path()))
        if self._yaml.problems:
            raise ModesFileError(self._yaml.told())
        warnings = sorted(self._yaml.warnings, key=lambda warning: warning.line or 0)
        return ModesFile(
            default,
            MappingProxyType(modes),
            tuple(warnings),
            self._path,
            model_root or Path(),
            lora_root or Path(),
            Whereabouts(self._files, self._unsized),
        )

    def _root(self, keys: Mapping[str, Node], key: str) -> Path | None:
        """Returns a folder; a relative one counts from the folder of the modes file."""
        text = self._yaml.text(keys.get(key), key)
        if text is None:
            return None
        return _absolute(self._path.parent / home(text))

    def _default(self, root: Node, keys: Mapping[str, Node], names: tuple[str, ...]) -> str:
        if "default_mode" not in keys and len(names) == 1:
            return names[0]
        allowed = f"one of the modes: {', '.join(names)}"
        default = self._yaml.text(keys.get("default_mode"), "default_mode")
        if default is None:
            self._yaml.missing(root, keys, "default_mode", allowed)
        elif default not in names:
            self._yaml.refuse(keys["default_mode"], "default_mode", allowed)
        return default or ""

    def _mode(self, name: str, node: Node, roots: tuple[Path, Path]) -> ModeConfig:
        """Returns a mode; where something in it is wrong, that is noted and a default stands in."""
        yaml, key, model_root = self._yaml, f"modes.{name}", roots[0]
        if not _MODE_NAME.fullmatch(name):
            yaml.problem(node, key, f"not allowed as a name. Allowed: {_MODE_NAME_RULE}.")
        keys = yaml.mapping(node, key, MODE_KEYS)

        def whole(field: str, low: int, high: int, step: int = 1) -> int | None:
            return yaml.whole(keys.get(field), f"{key}.{field}", low, high, step)

        def text(field: str, limit: int) -> str:
            return yaml.text(keys.get(field), f"{key}.{field}", limit) or ""

        least = whole("min_size", *SIDES, SIDE_STEP)
        most = whole("max_size", least or SIDES[0], SIDES[1], SIDE_STEP)
        bounds = (least or SIDES[0], most or SIDES[1], SIDE_STEP)
        sizes = self._sizes(keys.get("sizes"), f"{key}.sizes", bounds)
        model = self._model(key, node, keys, roots)
        said = yaml.size(keys.get("default_size"), f"{key}.default_size", bounds)
        side = self._native_side(model, keys.get("model"), f"{key}.model", sized=said is not None)
        low, high = _usual_bounds(side)
        usual = _near((side, side), *bounds[:2])
        size = said or (sizes[0] if sizes and usual not in sizes else usual)
        if sizes and size not in sizes:
            allowed = f"one of sizes: {', '.join(map(size_text, sizes))}"
            yaml.refuse(keys.get("default_size"), f"{key}.default_size", allowed)
        samplers = self._samplers(keys.get("samplers"), f"{key}.samplers")
        max_steps = whole("max_steps", 1, STEPS_LIMIT)
        steps = whole("default_steps", 1, max_steps or STEPS_LIMIT)
        steps = steps or min(DEFAULT_STEPS, max_steps or DEFAULT_STEPS)
        max_guidance = yaml.number(
            keys.get("max_guidance"), f"{key}.max_guidance", 1, GUIDANCE_LIMIT
        )
        guidance = yaml.number(
            keys.get("default_guidance"),
            f"{key}.default_guidance",
            1,
            max_guidance or GUIDANCE_LIMIT,
        )
        guidance = guidance or min(DEFAULT_GUIDANCE, max_guidance or DEFAULT_GUIDANCE)
        refiner, refiner_from = self._refiner(keys, key, model_root, model.vae)
        exact, compiled = self._passes(keys, key)
        offered, folder = self._offered(keys.get("loras_allowed"), f"{key}.loras_allowed", roots)
        strongest = yaml.number(
            keys.get("max_lora_strength"), f"{key}.max_lora_strength", 0, STRENGTHS[1]
        )
        return ModeConfig(
            name=name,
            model=model,
            title=text("title", 80) or name,
            description=text("description", 200),
            default_size=size,
            default_steps=steps,
            default_guidance=guidance,
            default_sampler=self._default_sampler(keys, key, samplers),
            default_negative=text("default_negative", MAX_TEXT),
            prompt_prefix=text("prompt_prefix", MAX_ADDED),
            prompt_suffix=text("prompt_suffix", MAX_ADDED),
            negative_always=text("negative_always", MAX_ADDED),
            negative_allowed=yaml.truth(keys.get("negative_allowed"), f"{key}.negative_allowed")
            is not False,
            sizes=sizes,
            samplers=samplers,
            # A mode that draws beyond the usual bounds by default may be asked for as much.
            min_size=least or min(low, *size, *itertools.chain(*sizes)),
            max_size=most or max(high, *size, *itertools.chain(*sizes)),
            max_steps=max_steps or max(MAX_STEPS, steps),
            max_guidance=max_guidance or max(MAX_GUIDANCE, guidance),
            max_count=whole("max_count", 1, COUNT_LIMIT) or MAX_COUNT,
            clip_skip=whole("clip_skip", *CLIP_SKIPS),
            refiner=refiner,
            refiner_from=refiner_from,
            upscale=self._upscale(keys.get("upscale"), f"{key}.upscale"),
            loras_allowed=offered,
            lora_folder=folder,
            max_loras=whole("max_loras", 1, LORAS_LIMIT) or MAX_LORAS,
            max_lora_strength=MAX_LORA_STRENGTH if strongest is None else strongest,
            allowed_roles=self._roles(keys.get("allowed_roles"), f"{key}.allowed_roles"),
            exact=exact,
            compile=compiled,
            nsfw=yaml.truth(keys.get("nsfw"), f"{key}.nsfw") or False,
            metadata=MappingProxyType(self._metadata(keys, key)),
        )

    def _sizes(
        self, node: Node, key: str, bounds: tuple[int, int, int]
    ) -> tuple[tuple[int, int], ...]:
        """Returns the sizes that alone may be asked for, each once."""
        items = self._yaml.items(node, key)
        if len(items) > MAX_SIZES:
            self._yaml.problem(node, key, f"{len(items)} are too many. Allowed: {MAX_SIZES}.")
            return ()
        sizes = (self._yaml.size(n, f"{key}[{i}]", bounds) for i, n in enumerate(items))
        return tuple(dict.fromkeys(size for size in sizes if size))

    def _samplers(self, node: Node, key: str) -> tuple[Sampler, ...]:
        """Returns the samplers that may be asked for, each once; all of them where none is said."""
        names = [
            self._yaml.choice(item, f"{key}[{index}]", list(Sampler))
            for index, item in enumerate(self._yaml.items(node, key))
        ]
        return tuple(dict.fromkeys(Sampler(name) for name in names if name)) or tuple(Sampler)

    def _default_sampler(
        self, keys: Mapping[str, Node], key: str, allowed: tuple[Sampler, ...]
    ) -> Sampler:
        chosen = self._yaml.choice(keys.get("default_sampler"), f"{key}.default_sampler", allowed)
        if chosen:
            return Sampler(chosen)
        return DEFAULT_SAMPLER if DEFAULT_SAMPLER in allowed else allowed[0]

    def _metadata(self, keys: Mapping[str, Node], key: str) -> dict[str, Any]:
        key, node = f"{key}.metadata", keys.get("metadata")
        if self._yaml.is_mapping(node):
            plain: dict[str, Any] = self._yaml.plain(node, key)
            return plain
        return dict(self._yaml.mapping(node, key))  # none; anything but keys is refused

    def _model(
        self, key: str, node: Node, keys: Mapping[str, Node], roots: tuple[Path, Path]
    ) -> ModelSpec:
        name = self._yaml.text(keys.get("model"), f"{key}.model")
        if name is None:
            self._yaml.missing(node, keys, "model", "a path relative to model_root", key)
        path = self._found(roots[0], name or "", MODEL_FOLDERS)
        prediction = self._yaml.choice(
            keys.get("prediction_type"), f"{key}.prediction_type", PREDICTION_TYPES
        )
        loras = self._loras(keys.get("loras"), f"{key}.loras", roots[1])
        vae = self._file(keys.get("vae"), f"{key}.vae", roots[0], _VAE_FOLDERS)
        return ModelSpec(path, loras, prediction, vae)

    def _refiner(
        self, keys: Mapping[str, Node], key: str, root: Path, vae: Path | None
    ) -> tuple[ModelSpec | None, float]:
        """Returns what draws the last steps, and from which share of them: a path, or a group."""
        yaml, key, node = self._yaml, f"{key}.refiner", keys.get("refiner")
        keys = yaml.mapping(node, key, _REFINER_KEYS) if yaml.is_mapping(node) else {"model": node}
        share = yaml.number(keys.get("switch_at"), f"{key}.switch_at", 0, 1)
        if yaml.is_mapping(node):
            allowed = "a path relative to model_root"
            yaml.missing(node, keys, "model", allowed, key)
            key = f"{key}.model"
        path = self._file(keys.get("model"), key, root, MODEL_FOLDERS)
        # It ends the picture, and so decodes it.
        refiner = ModelSpec(path, vae=vae) if path else None
        return refiner, REFINER_FROM if share is None else share

    def _upscale(self, node: Node, key: str) -> Upscale:
        """Returns how pictures are enlarged."""
        yaml, usual = self._yaml, Upscale()
        keys = yaml.mapping(node, key, _UPSCALE_KEYS)
        factor = yaml.number(keys.get("factor"), f"{key}.factor", *FACTORS)
        strength = yaml.number(keys.get("strength"), f"{key}.strength", 0, 1)
        return Upscale(
            factor=usual.factor if factor is None else factor,
            strength=usual.strength if strength is None else strength,
            max_size=yaml.whole(keys.get("max_size"), f"{key}.max_size", *SIDES, SIDE_STEP),
        )

    def _passes(self, keys: Mapping[str, Node], key: str) -> tuple[bool, bool]:
        """Returns whether a picture's bits must not depend on others, and whether to compile."""
        yaml, node = self._yaml, keys.get("compile")
        exact = yaml.truth(keys.get("exact"), f"{key}.exact") or False
        compiled = yaml.truth(node, f"{key}.compile") or False
        if exact and compiled:
            # Until the code is there it is drawn without, which rounds otherwise.
            yaml.problem(node, f"{key}.compile", "not together with exact: true. Choose one.")
        return exact, compiled

    def _file(self, node: Node, key: str, root: Path, folders: Iterable[str]) -> Path | None:
        """Returns where something lies that may be copied in later; None where none is named."""
        name = self._yaml.text(node, key)
        if name is None:
            return None
        path = self._found(root, name, folders)
        if not exists(path):
            self._yaml.warn(node, key, _gone(path))
        return path

    def _found(self, root: Path, name: str, folders: Iterable[str]) -> Path:
        named = NamedFile(root, name, tuple(folders))
        self._files[named] = found = named.find()
        return found[0]

    def _offered(
        self, node: Node, key: str, roots: tuple[Path, Path]
    ) -> tuple[tuple[OfferedLora, ...], Path | None]:
        """Returns the LoRAs that may be asked for, or the folder whose files all may be."""
        if self._yaml.is_text(node, ANY_LORA):
            folder = roots[1] / LORA_FOLDERS[0]
            # A folder that is named for LoRAs may hold them itself.
            return (), folder if exists(folder) or roots[0] == roots[1] else roots[1]
        offered: list[OfferedLora] = []
        items = self._yaml.items(node, key, f'"{ANY_LORA}" or a list')
        if len(items) > _MAX_OFFERED:
            self._yaml.problem(node, key, f"{len(items)} are too many. Allowed: {_MAX_OFFERED}.")
            return (), None
        for index, item in enumerate(items):
            lora = self._offer(item, f"{key}[{index}]", roots[1], {lora.name for lora in offered})
            offered += [lora] if lora else []
        return tuple(offered), None

    def _offer(self, node: Node, key: str, root: Path, taken: set[str]) -> OfferedLora | None:
        """Returns an entry: a path, or a group of path and name."""
        yaml = self._yaml
        keys = yaml.mapping(node, key, _OFFERED_KEYS) if yaml.is_mapping(node) else {"path": node}
        path = self._file(keys.get("path"), f"{key}.path", root, LORA_FOLDERS)
        if path is None:
            yaml.missing(node, keys, "path", "a path relative to lora_root", key)
            return None
        name = yaml.text(keys.get("name"), f"{key}.name") or path.stem
        if not NAME.fullmatch(name):
            allowed = "1 to 100 characters without < > :"
            yaml.problem(node, f"{key}.name", f"{name!r} is not allowed. Allowed: {allowed}.")
        elif name in taken:
            yaml.problem(node, f"{key}.name", f"{name!r} is taken; give this one another name")
        return OfferedLora(name, path)

    def _roles(self, node: Node, key: str) -> tuple[str, ...]:
        items = self._yaml.items(node, key)
        if len(items) > _MAX_ROLES:
            self._yaml.problem(node, key, f"{len(items)} are too many. Allowed: {_MAX_ROLES}.")
            return ()
        roles = (self._yaml.text(item, f"{key}[{i}]", 100) for i, item in enumerate(items))
        return tuple(dict.fromkeys(role for role in roles if role))

    def _native_side(self, model: ModelSpec, node: Node, key: str, *, sized: bool) -> int:
        """Returns the side that the model was trained at; the usual one where nobody can tell."""
        before = signature(model.path)  # what changes while it is read is news
        try:
            return native_side(model)
        except ModelError as error:
            if not sized:
                self._unsized[model.path] = before
                self._yaml.warn(node, key, _sizeless(error))
            elif not exists(model.path):
                self._yaml.warn(node, key, _gone(model.path))
        return DEFAULT_SIZE[0]

    def _loras(self, node: Node, key: str, root: Path) -> tuple[LoraSpec, ...]:
        loras: list[LoraSpec] = []
        for index, item in enumerate(self._yaml.items(node, key)):
            here = f"{key}[{index}]"
            lora = self._lora(item, here, root, {lora.adapter_name for lora in loras})
            if lora is not None:
                loras.append(lora)
        return tuple(loras)

    def _lora(self, node: Node, key: str, root: Path, taken: set[str]) -> LoraSpec | None:
        """Returns an entry: a path, or a group of path, strength and adapter_name."""
        yaml = self._yaml
        keys = yaml.mapping(node, key, _LORA_KEYS) if yaml.is_mapping(node) else {"path": node}
        name = yaml.text(keys.get("path"), f"{key}.path")
        if name is None:
            yaml.missing(node, keys, "path", "a path relative to lora_root", key)
            return None
        strength = yaml.number(keys.get("strength"), f"{key}.strength", *STRENGTHS)
        adapter = yaml.text(keys.get("adapter_name"), f"{key}.adapter_name", 64)
        if adapter is None:
            adapter = adapter_name(name, taken)
        elif not _ADAPTER_NAME.fullmatch(adapter):
            yaml.refuse(keys["adapter_name"], f"{key}.adapter_name", "letters, digits, _ and -")
        elif adapter in taken:
            yaml.problem(
                keys["adapter_name"], f"{key}.adapter_name", f"{adapter!r} is taken in this mode"
            )
        path = self._found(root, name, LORA_FOLDERS)
        if not exists(path):
            yaml.warn(keys["path"], f"{key}.path", _gone(path))
        return LoraSpec(path, 1.0 if strength is None else strength, adapter)


def _near(size: tuple[int, int], low: int, high: int) -> tuple[int, int]:
    """Returns a size moved into bounds."""
    width, height = (min(max(side, low), high) for side in size)
    return width, height


def _usual_bounds(side: int) -> tuple[int, int]:
    """Returns the shortest and longest side that may be asked of a model trained at one."""
    return side // 2, side * 2


def _gone(path: Path) -> str:
    return f"{path}: no such file or folder yet"


def _sizeless(error: ModelError) -> str:
    """Returns what is wrong with the model of a mode that leaves its size to it."""
    told = _gone(error.path) if isinstance(error, ModelNotFoundError) else str(error)
    size = size_text(DEFAULT_SIZE)
    return f"{told}; its size is unknown, so {size} is drawn until it can be told"


def _absolute(path: Path) -> Path:
    """Returns a path that means the same from any folder, without dots, links left as they are."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - Path.absolute keeps modes/../models
