"""What can be drawn with now: a snapshot of the modes, swapped whole when the file changes.

A file that can't be used changes nothing: the last good snapshot stays in force and `error` says
why. Jobs keep the request they were born with, so that a swap disturbs none of them.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

from engine.errors import UnknownModeError
from modes.mode_config import ModeConfig
from modes.modes_file import ModesFile, ModesFileError, load_fallback, load_modes
from modes.named_files import Whereabouts
from modes.yaml_reader import Problem

_log = logging.getLogger(__name__)

Listener: TypeAlias = Callable[["ModeCatalog"], None]
"""Called with the catalog after its modes have changed, in the event loop."""


class ModeCatalog:
    """The modes in force. Looking them up is safe from any thread; `reload` is the loop's."""

    def __init__(
        self, path: Path, model_root: Path | None = None, model: str | None = None
    ) -> None:
        """Reads the modes; without a file, the one model stands in for it.

        Args:
            path: the modes file.
            model_root: the folder of the model for where there is no file.
            model: its path in there.

        Raises:
            ModesFileError: there is nothing to draw with, and why.
        """
        self._path = path
        self._model_root = model_root
        self._model = model
        self._listeners: list[Listener] = []
        self._problems: tuple[Problem, ...] = ()
        self._turn = asyncio.Lock()
        self._file = self._first()
        self._warn()

    @property
    def path(self) -> Path:
        """The modes file, whether it exists or not."""
        return self._path

    @property
    def default_mode(self) -> str:
        """Name of the mode that is drawn with when nobody names one."""
        return self._file.default_mode

    @property
    def modes(self) -> Mapping[str, ModeConfig]:
        """The modes by name, in the file's order; this mapping never changes."""
        return self._file.modes

    @property
    def model_root(self) -> Path:
        """The folder that models are in."""
        return self._file.model_root

    @property
    def lora_root(self) -> Path:
        """The folder that LoRAs are in."""
        return self._file.lora_root

    @property
    def whereabouts(self) -> Whereabouts:
        """What was found of the files that the modes in force name, when they were read."""
        return self._file.whereabouts

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """What the owner should know about the modes in force."""
        return self._file.warnings

    @property
    def error(self) -> str | None:
        """Why the file as it is now is not in force; None where it is."""
        return "\n".join(map(str, self._problems)) or None

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The same, one by one; none where the file is in force."""
        return self._problems

    def names(self) -> tuple[str, ...]:
        """Returns the modes' names in the file's order."""
        return tuple(self.modes)

    def get(self, name: str) -> ModeConfig:
        """Returns a mode.

        Raises:
            UnknownModeError: there is none of this name.
        """
        modes = self.modes
        if name not in modes:
            raise UnknownModeError(name, modes)
        return modes[name]

    def add_listener(self, listener: Listener) -> None:
        """Has something called after each change."""
        self._listeners.append(listener)

    async def reload(self) -> bool:
        """Reads the file again; returns whether what it says is in force now.

        Where it can't be used, nothing changes but `error`. Listeners are called only where the
        modes differ from before.
        """
        # In turn: whoever has read the file last has read the newest, and puts that in force.
        async with self._turn:
            try:
                # In a thread: a large file takes seconds, as do models' headers on a slow disk.
                fresh, differs = await asyncio.to_thread(self._read_again)
            except ModesFileError as error:
                self._problems = error.problems
                _log.error("The modes file is not in force, the last good one stays:\n%s", error)
                return False
            self._problems = ()
            self._file = fresh
            if not differs:
                return True
            _log.info("Modes: %s; default %s.", ", ".join(fresh.modes), fresh.default_mode)
            for listener in self._listeners:
                self._tell(listener)
            await asyncio.to_thread(self._warn)
            return True

    def _first(self) -> ModesFile:
        if _is_there(self._path):
            return load_modes(self._path)
        try:
            return load_fallback(self._model_root, self._model)
        except ModesFileError as error:
            nothing = Problem("no such file", path=self._path)
            raise ModesFileError([nothing, *error.problems]) from error

    def _read_again(self) -> tuple[ModesFile, bool]:
        """Returns what the file says now, and whether that is anything new."""
        # Editors take a file away for a moment: once there was one, its absence is no wish.
        fresh = load_modes(self._path) if self._file.path else self._first()
        return fresh, fresh != self._file

    def _warn(self) -> None:
        for warning in self.warnings:
            _log.warning("%s", warning)

    def _tell(self, listener: Listener) -> None:
        try:
            listener(self)
        except Exception:
            _log.exception("A listener failed on the changed modes.")


def _is_there(path: Path) -> bool:
    """Whether there is something, be it what can't be looked at: reading that says why."""
    try:
        return path.exists()
    except OSError:
        return True
