"""Edits of the modes file over HTTP: one at a time, checked, in force when they return.

Whoever may open the page may edit the modes, but not wander over the owner's disk with them: paths
stay below the file's own roots, and the roots are changed in the file itself.
"""

import asyncio
import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from bot.web.problems import ConflictError
from modes.catalog import ModeCatalog
from modes.modes_editor import modes_text, plain_modes, remove_mode, replace_modes, set_mode
from modes.modes_file import ModesFile, ModesFileError, decode_modes, parse_modes
from modes.modes_history import ModesHistory, Version
from modes.yaml_reader import Problem

log = logging.getLogger(__name__)

_PATH_KEYS = ("model", "vae", "refiner", "loras", "loras_allowed")
"""Keys of a mode that hold a path, some, or groups with one."""

_INNER_PATH_KEYS = ("path", "model")


class ModeEdits:
    """The modes file, as routes change it. What it said before is kept, whoever changed it."""

    def __init__(self, catalog: ModeCatalog, history: ModesHistory) -> None:
        """Takes the modes in force, which follow each edit, and where earlier versions are kept."""
        self._catalog = catalog
        self._history = history
        self._turn = asyncio.Lock()
        self._in_force = self.content()
        catalog.add_listener(lambda _: self._note())

    def content(self) -> bytes:
        """Returns what the file says now; nothing where there is none. Blocks."""
        try:
            return self._catalog.path.read_bytes()
        except OSError:
            return b""

    def checked(self, content: bytes) -> ModesFile:
        """Returns what a file would mean, by the rules of `replace`. Blocks; writes nothing.

        Raises:
            ModesFileError: it is no good modes file, or leads out of the roots.
        """
        path = self._catalog.path
        wanted, current = plain_modes(content, path), self._current()
        problems = [*self._foreign_roots(wanted, current)]
        modes = wanted.get("modes")
        if isinstance(modes, dict):
            problems += _foreign_paths(modes, current)
        if problems:
            raise ModesFileError(problems)
        return parse_modes(decode_modes(content, path).removeprefix("\ufeff"), path)

    def versions(self) -> list[Version]:
        """Returns what the file said before and doesn't now, the newest first. Blocks."""
        now = self.content()
        return [version for version in self._history.versions() if version.content != now]

    async def restore(self, version_id: str) -> None:
        """Makes the file say what it said before.

        Raises:
            UnknownVersionError: no such version is kept.
            ModesFileError: it is no good any more; nothing changed.
        """
        # It was in force: where its paths lead was the owner's to say.
        await self._edit(
            lambda: replace_modes(self._catalog.path, self._history.get(version_id).content)
        )

    async def reload(self) -> None:
        """Has what the file says now come into force.

        Raises:
            ModesFileError: it can't be used; the last good modes stay.
        """
        await self._edit(lambda: None)

    async def replace(self, content: bytes, version: str | None = None) -> None:
        """Makes the whole file say something else.

        Args:
            content: its bytes.
            version: of the file that they were made from, see `version_of`; None for any.

        Raises:
            ConflictError: the file is another by now; nothing changed.
            ModesFileError: it is no good modes file, or leads out of the roots; nothing changed.
        """
        await self._edit(lambda: self._replace(content, version))

    async def replace_with(self, values: Mapping[str, Any], version: str | None = None) -> None:
        """The same from plain values."""
        await self.replace(modes_text(values).encode("utf-8", "surrogatepass"), version)

    async def set(self, name: str, values: Mapping[str, Any]) -> bool:
        """Makes a mode say this and nothing else; returns whether it is new.

        Raises:
            ModesFileError: it can't, or leads out of the roots; nothing has changed.
        """
        is_new: bool = await self._edit(lambda: self._set(name, values))
        return is_new

    async def remove(self, name: str) -> None:
        """Takes a mode out.

        Raises:
            ConflictError: it is the default one.
            UnknownModeError: there is none of this name.
            ModesFileError: it can't be taken out; nothing has changed.
        """
        await self._edit(lambda: self._remove(name))

    async def _edit(self, work: Callable[[], Any]) -> Any:
        async with self._turn:
            done = await asyncio.to_thread(work)
            if not await self._catalog.reload():
                raise ModesFileError(self._catalog.problems)
            self._note()
            return done

    def _note(self) -> None:
        """Keeps what the file said until now, where it says something else."""
        content = self.content()
        before, self._in_force = self._in_force, content
        if not before or before == content:
            return
        try:
            self._history.keep(before, datetime.now(UTC))
        except OSError as error:
            log.warning("What the modes file said before can't be kept: %s", error)

    def _replace(self, content: bytes, version: str | None) -> None:
        if version is not None and version != version_of(self.content()):
            raise ConflictError(
                "The modes file was changed meanwhile; look at it again before you change it."
            )
        self.checked(content)
        replace_modes(self._catalog.path, content)

    def _set(self, name: str, values: Mapping[str, Any]) -> bool:
        if problems := [*_foreign_paths({name: values}, self._current())]:
            raise ModesFileError(problems)
        is_new = name not in self._catalog.modes
        set_mode(self._catalog.path, name, values)
        return is_new

    def _remove(self, name: str) -> None:
        self._catalog.get(name)
        if name == self._catalog.default_mode:
            raise ConflictError(
                f"{name} is the default mode and can't be removed; make another the default first."
            )
        remove_mode(self._catalog.path, name)

    def _current(self) -> Mapping[str, Any]:
        """Returns what the file says now; nothing where it says nothing."""
        path = self._catalog.path
        try:
            return plain_modes(path.read_bytes(), path)
        except (OSError, ModesFileError):
            return {}

    def _foreign_roots(
        self, wanted: Mapping[str, Any], current: Mapping[str, Any]
    ) -> Iterator[Problem]:
        roots = {"model_root": self._catalog.model_root, "lora_root": self._catalog.lora_root}
        for key, root in roots.items():
            text = wanted.get(key)
            if not isinstance(text, str) or text == current.get(key):
                continue
            if os.path.abspath(self._catalog.path.parent / text) != str(root):  # noqa: PTH100
                told = "stays as it is: change it in the file itself"
                yield Problem(told, key, self._catalog.path)


def version_of(content: bytes) -> str:
    """Returns what tells a file's bytes from others."""
    return hashlib.sha256(content).hexdigest()[:32]


def is_below(text: str) -> bool:
    """Whether a path stays below the folder that it is relative to, on any system."""
    posix, windows = PurePosixPath(text), PureWindowsPath(text)
    climbs = ".." in (*posix.parts, *windows.parts)
    return not (climbs or posix.is_absolute() or windows.anchor or text.startswith("~"))


def _foreign_paths(modes: Mapping[str, Any], current: Mapping[str, Any]) -> Iterator[Problem]:
    """Yields a problem for each path that leads out of the roots and is not in the file yet."""
    known = {path for _, path in _paths(current.get("modes"))}
    for key, path in _paths(modes):
        if not is_below(path.strip()) and path not in known:
            told = f"{path[:80]!r} is not allowed. Allowed: a path below model_root or lora_root."
            yield Problem(told, key)


def _paths(modes: object) -> Iterator[tuple[str, str]]:
    """Yields the paths in modes, each with the key that it stands at."""
    for name, entry in modes.items() if isinstance(modes, Mapping) else ():
        for key in _PATH_KEYS if isinstance(entry, Mapping) else ():
            value = entry.get(key)
            for item in value if isinstance(value, list) else [value]:
                for path in _said(item):
                    yield f"modes.{name}.{key}", path


def _said(item: object) -> Iterator[str]:
    inner = map(item.get, _INNER_PATH_KEYS) if isinstance(item, Mapping) else (item,)
    return (path for path in inner if isinstance(path, str))
