"""The small file of what was measured, in sections: memory (`engine.ledger`), time (`engine.pace`).

Several worker processes share it: a section is read again before it is written, the others stay as
they are, and the file is replaced whole. What two write in the same moment, one of them measures
anew.
"""

import contextlib
import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from engine.errors import ModelError, ModelNotFoundError
from engine.model_files import read_config

log = logging.getLogger(__name__)

Value = TypeVar("Value")


class MeasuredFile:
    """The file, or none: then nothing is kept and nothing found."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def read(self, section: str, sound: Callable[[Any], Value | None]) -> dict[str, Value]:
        """Returns a section, without what is not sound; what is wrong is in the log.

        Args:
            section: its name.
            sound: returns an entry's value, or None for what is none.
        """
        try:
            found = self._sections().get(section, {})
        except ModelError as error:
            log.warning("What was measured is measured anew: %s", error)
            return {}
        entries = found.items() if isinstance(found, dict) else ()
        values = {key: value for key, entry in entries if (value := sound(entry)) is not None}
        if not isinstance(found, dict) or len(values) < len(found):
            log.warning("%s: what makes no sense in %r is measured anew", self._path, section)
        return values

    def write(self, section: str, entries: Mapping[str, Any]) -> None:
        """Replaces a section. Where that can't be done, the log says so."""
        if self._path is None:
            return
        try:
            sections = self._sections()
        except ModelError:
            sections = {}
        part = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            content = json.dumps({**sections, section: entries}, indent=1)
            part.write_text(content, encoding="utf-8")
            part.replace(self._path)
        except OSError as error:
            log.warning("%s can't be written: %s", self._path, error.strerror or error)
            with contextlib.suppress(OSError):
                part.unlink()

    def _sections(self) -> Mapping[str, Any]:
        if self._path is None:
            return {}
        try:
            return read_config(self._path)
        except ModelNotFoundError:
            return {}
