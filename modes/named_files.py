"""Where the files lie that a modes file names: as written below their root, or in a usual folder.

Models come, go and are moved while the bot runs. What was found where is kept with the modes, so
that a later look tells whether reading them again would find anything else.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from modes.mode_config import exists
from modes.native_size import Signature, signature

Found: TypeAlias = tuple[Path, bool]
"""Where a file is, and whether it is there."""


@dataclass(frozen=True, slots=True)
class NamedFile:
    """A model's file or folder, as the owner names it.

    Attributes:
        root: what the name counts from.
        name: the path, relative or absolute.
        folders: names of the root's usual folders for its kind, in which it may lie as well.
    """

    root: Path
    name: str
    folders: tuple[str, ...]

    def find(self) -> Found:
        """Returns where it is and true; as written and false where there is none."""
        plain = self.root / home(self.name)
        places = (plain, *(self.root / folder / self.name for folder in self.folders))
        return next(((place, True) for place in places if exists(place)), (plain, False))


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """What was found of the files that a modes file names.

    Attributes:
        places: where each was, and whether it was there.
        unsized: models that did not tell their size, each as it was.
    """

    places: Mapping[NamedFile, Found] = field(default_factory=dict)
    unsized: Mapping[Path, Signature] = field(default_factory=dict)

    def look_again(self) -> "Whereabouts":
        """Returns the same of the same files now; anything else is news. Blocks."""
        return Whereabouts(
            {named: named.find() for named in self.places},
            {path: signature(path) for path in self.unsized},
        )


def home(path: str) -> Path:
    """Returns a path whose ~ stands for a folder."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # there is no such user
        return Path(path)
