"""Edits of the modes file over HTTP: one at a time, checked, in force when they return.

Whoever may open the page may edit the modes, but not wander over the owner's disk with them: paths
stay below the file's own roots, and the roots are changed in the file itself.
"""

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from bot.web.problems import ConflictError
from modes.catalog import ModeCatalog
from modes.modes_editor import modes_text, plain_modes, remove_mode, replace_modes, set_mode
from modes.modes_file import ModesFileError
from modes.yaml_reader import Problem

_PATH_KEYS = ("model", "vae", "refiner", "loras", "loras_allowed")
"""Keys of a mode that hold a path, some, or groups with one."""

_INNER_PATH_KEYS = ("path", "model")


class ModeEdits:
    """The modes file, as routes change it."""

    def __init__(self, catalog: ModeCatalog) -> None:
        """Takes the modes in force, which follow each edit."""
        self._catalog = catalog
        self._turn = asyncio.Lock()

    async def reload(self) -> None:
        """Has what the file says now come into force.

        Raises:
            ModesFileError: it can't be used; the last good modes stay.
        """
        await self._edit(lambda: None)

    async def replace(self, content: bytes) -> None:
        """Makes the whole file say something else.

        Raises:
            ModesFileError: it is no good modes file, or leads out of the roots; nothing changed.
        """
        await self._edit(lambda: self._replace(content))

    async def replace_with(self, values: Mapping[str, Any]) -> None:
        """The same from plain values."""
        await self.replace(modes_text(values).encode("utf-8", "surrogatepass"))

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
            if not self._catalog.reload():
                raise ModesFileError(self._catalog.problems)
            return done

    def _replace(self, content: bytes) -> None:
        path = self._catalog.path
        wanted, current = plain_modes(content, path), self._current()
        problems = [*self._foreign_roots(wanted, current)]
        modes = wanted.get("modes")
        if isinstance(modes, dict):
            problems += _foreign_paths(modes, current)
        if problems:
            raise ModesFileError(problems)
        replace_modes(path, content)

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
