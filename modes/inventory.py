"""What lies in the roots: models and LoRAs that a mode could name, told by their headers alone."""

import functools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from engine.errors import ModelError
from engine.jobs import Family
from engine.model_detector import DetectedLora, DetectedModel, detect, detect_lora
from engine.model_files import PICKLE_SUFFIXES
from modes.modes_file import LORA_FOLDERS, MODEL_FOLDERS

MOST = 2000
"""Most entries of a list: a folder that somebody linked by mistake must not take forever."""

Look: TypeAlias = Callable[[Path], DetectedModel | DetectedLora]

_SUFFIXES = frozenset({".safetensors", *PICKLE_SUFFIXES})


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file or folder in a root.

    Attributes:
        path: relative to the root, with slashes, as a mode names it.
        family: what kind of model it is, or is for; None where it can't be used.
        bytes: size of its weights.
        problem: why it can't be used; None where it can.
    """

    path: str
    family: Family | None
    bytes: int
    problem: str | None = None

    @property
    def name(self) -> str:
        """The file's name without folder and ending."""
        return Path(self.path).stem


def find_models(root: Path) -> list[FoundFile]:
    """Returns the checkpoints and diffusers folders in a root, by path; reads their headers."""
    found = {path for folder in MODEL_FOLDERS for path in _walk(root / folder)}
    found.update(path for path in _listed(root) if _is_weights(path))
    return [_told(path, root, detect) for path in sorted(found)[:MOST]]


def find_loras(root: Path) -> list[FoundFile]:
    """Returns the LoRAs in a root, by path; reads their headers."""
    folders = [root / folder for folder in LORA_FOLDERS if (root / folder).is_dir()]
    found = {path for folder in folders or [root] for path in _walk(folder)}
    return [_told(path, root, detect_lora) for path in sorted(found)[:MOST]]


def _walk(folder: Path) -> Iterator[Path]:
    """Yields weights and diffusers folders below a folder; links are followed, each place once."""
    seen: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen or len(seen) >= MOST:
            folders.clear()
            continue
        seen.add(real)
        if "model_index.json" in files:
            folders.clear()
            yield Path(place)
        else:
            yield from filter(_is_weights, (Path(place, name) for name in files))


def _listed(folder: Path) -> Iterator[Path]:
    try:
        yield from folder.iterdir()
    except OSError:  # it is not there, or not to be read
        return


def _is_weights(path: Path) -> bool:
    return path.suffix in _SUFFIXES


def _told(path: Path, root: Path, look: Look) -> FoundFile:
    name = path.relative_to(root).as_posix()
    try:
        status = path.stat()
        family, size, problem = _looked_at(look, path, status.st_mtime_ns, status.st_size)
    except OSError as error:
        family, size, problem = None, 0, error.strerror or "can't be read"
    return FoundFile(name, family, size, problem)


@functools.lru_cache(maxsize=2 * MOST)
def _looked_at(
    look: Look, path: Path, _changed: int, size: int
) -> tuple[Family | None, int, str | None]:
    """Returns family, size and problem; a file that has not changed is read once."""
    try:
        found = look(path)
    except ModelError as error:
        return None, size, error.reason
    return found.family, found.weight_bytes, None
