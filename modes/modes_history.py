"""The last versions of the modes file that were in force, each a file in a folder of their own."""

import os
import re
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from engine.errors import RequestError

MOST = 20
"""Versions that are kept; the oldest go."""

_NAME = re.compile(r"\d{8}T\d{6}\.\d{6}Z", re.ASCII)
_FORMAT = "%Y%m%dT%H%M%S.%fZ"


@dataclass(frozen=True, slots=True)
class Version:
    """What the modes file said before.

    Attributes:
        id: names it.
        ended_at: until when it was in force, in UTC.
        content: its bytes.
    """

    id: str
    ended_at: datetime
    content: bytes


class UnknownVersionError(RequestError):
    """There is no such version, or no longer."""

    def __init__(self, version: str) -> None:
        super().__init__("version", version, "the id of a version that is kept")


class ModesHistory:
    """Keeps versions; each stands there once, by when it was in force last. Its methods block."""

    def __init__(self, folder: Path) -> None:
        """Takes the folder, which need not exist."""
        self._folder = folder

    def keep(self, content: bytes, ended_at: datetime) -> None:
        """Keeps what the file said until now.

        Raises:
            OSError: it can't be written; all others are still there.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        name = ended_at.astimezone(UTC).strftime(_FORMAT)
        equal = [version.id for version in self.versions() if version.content == content]
        handle, temporary = tempfile.mkstemp(dir=self._folder, prefix=".")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(temporary).replace(self._path(name))
        left = [version.id for version in self.versions() if version.id not in equal]
        for old in {*equal, *left[MOST:]} - {name}:
            self._path(old).unlink(missing_ok=True)

    def versions(self) -> list[Version]:
        """Returns what is kept, the newest first."""
        if not self._folder.is_dir():
            return []
        names = sorted(
            (file.stem for file in self._folder.glob("*.yaml") if _NAME.fullmatch(file.stem)),
            reverse=True,
        )
        found = []
        for name in names:
            ended_at = datetime.strptime(name, _FORMAT).replace(tzinfo=UTC)
            found.append(Version(name, ended_at, self._path(name).read_bytes()))
        return found

    def get(self, version_id: str) -> Version:
        """Returns a version.

        Raises:
            UnknownVersionError: there is none of this id.
        """
        for version in self.versions():
            if version.id == version_id:
                return version
        raise UnknownVersionError(version_id)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.yaml"
