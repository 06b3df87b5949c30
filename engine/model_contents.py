"""Which files are the same on machines that keep them at other paths: their content says.

The name is the SHA-256 of the whole content, as model sites show it. Header and size would be read
sooner, and don't do: two models that were trained further from the same one have the same header
and the same size. What was read once is remembered until size or time of the file change, and what
is looked for is compared by size first, so that as a rule one file is read, once.
"""

import hashlib
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from engine.errors import ModelNotFoundError
from engine.measured_file import MeasuredFile

SECTION = "sha256"
"""Where it is remembered: path → size, time in nanoseconds, digest."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Content:
    """What is in a file, or in all the files of a folder.

    Attributes:
        digest: SHA-256, in hexadecimal digits.
        size: bytes.
        name: what it is called where it was read, without the folder.
        is_folder: whether it is a folder; hidden files in it don't count.
    """

    digest: str
    size: int
    name: str
    is_folder: bool


class Contents:
    """What files hold, remembered. Any thread may use it.

    Args:
        memory: the file that remembers it; None remembers it no longer than this object lives.
    """

    def __init__(self, memory: Path | None) -> None:
        self._file = MeasuredFile(memory)
        self._known = self._file.read(SECTION, _sound)
        self._lock = threading.Lock()

    def of(self, path: Path) -> Content:
        """Returns what a model's file or folder holds; reads it where it isn't known.

        Raises:
            ModelNotFoundError: it is not there, or can't be read.
        """
        try:
            return _content(path, self._digest)
        except OSError as error:
            raise ModelNotFoundError(path) from error

    def known(self, path: Path) -> Content | None:
        """Returns the same without reading; None where it must be read, or is not there."""
        try:
            return _content(path, self._remembered)
        except (OSError, _UnreadError):
            return None

    def find(self, wanted: Content, named: Path, roots: Sequence[Path]) -> Path | None:
        """Returns where a content lies on this machine; None where it doesn't.

        Args:
            wanted: what is looked for.
            named: where it lies on another machine; looked at first.
            roots: folders that it may lie in, at any depth.
        """
        candidates = [named, *(root / wanted.name for root in roots)]
        for root in roots:
            candidates += _folders(root) if wanted.is_folder else visible_files(root)
        for path in dict.fromkeys(candidates):
            if _size(path, wanted) == wanted.size and self._holds(path, wanted):
                return path
        return None

    def _holds(self, path: Path, wanted: Content) -> bool:
        try:
            return self.of(path).digest == wanted.digest
        except ModelNotFoundError:
            return False

    def _digest(self, path: Path) -> str:
        stamp = _stamp(path)
        with suppress(_UnreadError):
            return self._remembered(path)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        with self._lock:
            self._known[str(path)] = (*stamp, digest)
            self._file.write(SECTION, self._known)
        return digest

    def _remembered(self, path: Path) -> str:
        stamp = _stamp(path)
        with self._lock:
            known = self._known.get(str(path))
        if known is None or known[:2] != stamp:
            raise _UnreadError
        return known[2]


class _UnreadError(Exception):
    """A file must be read."""


def _content(path: Path, digest: Callable[[Path], str]) -> Content:
    if not path.is_dir():
        return Content(digest(path), path.stat().st_size, path.name, is_folder=False)
    files = list(visible_files(path))
    whole = hashlib.sha256()
    for file in files:
        line = f"{digest(file)} {file.relative_to(path).as_posix()}\n"
        whole.update(line.encode(errors="surrogateescape"))
    size = sum(file.stat().st_size for file in files)
    return Content(whole.hexdigest(), size, path.name, is_folder=True)


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def visible_files(folder: Path) -> Iterator[Path]:
    """Yields the files below a folder in a fixed order, without the hidden."""
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(parent, name)
            if not name.startswith(".") and path.is_file():
                yield path


def _folders(root: Path) -> Iterator[Path]:
    """Yields the diffusers folders below a folder."""
    return (path.parent for path in visible_files(root) if path.name == "model_index.json")


def _size(path: Path, wanted: Content) -> int | None:
    try:
        if wanted.is_folder:
            if not path.is_dir():
                return None
            return sum(file.stat().st_size for file in visible_files(path))
        return path.stat().st_size if path.is_file() else None
    except OSError:
        return None


def _sound(entry: object) -> tuple[int, int, str] | None:
    match entry:
        case [int(size), int(time), str(digest)] if len(digest) == 64:
            return size, time, digest
    return None
