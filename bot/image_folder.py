"""The picture files of the data folder."""

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from bot.disk import sync_folder
from bot.records import ImageRecord
from bot.source_images import SourceImage
from engine.jobs import GenerationResult, new_job_id

_SOURCES = "sources"
_OURS = re.compile(r"(\d{4}-\d\d-\d\d|sources)/[\w-]+\.(png|part)", re.ASCII)


@dataclass(frozen=True, slots=True)
class PictureFile:
    """A file that is there.

    Attributes:
        size: bytes.
        written_at: when it was written.
    """

    size: int
    written_at: datetime


class ImageFolder:
    """Files by day, named so that nobody can guess one. All methods block: call in a thread."""

    def __init__(self, root: Path) -> None:
        """Takes the folder; it is made when the first picture is kept."""
        self._root = root

    def path(self, image: ImageRecord) -> Path:
        """Returns where a picture's file is."""
        return self._root / image.path

    def keep(self, result: GenerationResult, day: date) -> list[ImageRecord]:
        """Writes a result's pictures; each file is whole and on the disk, or not there.

        Raises:
            OSError: the disk is full or can't be written.
        """
        folder = self._root / day.isoformat()
        folder.mkdir(parents=True, exist_ok=True)
        self._sync_above()
        records: list[ImageRecord] = []
        try:
            for number, image in enumerate(result.images):
                image_id = new_job_id()
                path = folder / f"{image_id}.png"
                _write(path, image.png)
                records.append(
                    ImageRecord(
                        id=image_id,
                        job_id=result.job_id,
                        path=path.relative_to(self._root).as_posix(),
                        seed=image.seed,
                        width=image.width,
                        height=image.height,
                        number=number,
                    )
                )
            sync_folder(folder)
        except OSError:
            self.remove(records)  # a full disk is no place for half a result
            raise
        return records

    def source_of(self, source: SourceImage) -> Path:
        """Returns the path of a picture to draw from, relative as in `ImageRecord`."""
        return Path(_SOURCES, f"{source.digest}.png")

    def source_path(self, path: Path) -> Path:
        """Returns where a picture to draw from is."""
        return self._root.absolute() / path

    def keep_source(self, source: SourceImage) -> None:
        """Writes a picture to draw from; its file is whole and on the disk, or not there.

        Raises:
            OSError: the disk is full or can't be written.
        """
        path = self.source_path(self.source_of(source))
        if path.is_file():
            return  # named after its content, and whole
        path.parent.mkdir(parents=True, exist_ok=True)
        self._sync_above()
        _write(path, source.png)
        sync_folder(path.parent)

    def remove_sources(self, paths: Iterable[Path]) -> None:
        """Deletes pictures to draw from; those that are gone are no error."""
        for path in paths:
            self.source_path(path).unlink(missing_ok=True)

    def is_source(self, path: str) -> bool:
        """Says whether a relative path is that of a picture to draw from."""
        return path.startswith(f"{_SOURCES}/")

    def survey(self) -> dict[str, PictureFile]:
        """Returns every file that was written here, by its path as in `ImageRecord`.

        What an owner has put there beside them is none of it.
        """
        found = {}
        for file in self._root.glob("*/*"):
            path = file.relative_to(self._root).as_posix()
            if _OURS.fullmatch(path):
                with suppress(FileNotFoundError):
                    facts = file.stat()
                    written_at = datetime.fromtimestamp(facts.st_mtime, UTC)
                    found[path] = PictureFile(facts.st_size, written_at)
        return found

    def discard(self, paths: Iterable[str]) -> None:
        """Deletes files by their paths as in `ImageRecord`; those that are gone are no error."""
        for path in paths:
            (self._root / path).unlink(missing_ok=True)

    def remove(self, images: Iterable[ImageRecord]) -> None:
        """Deletes files; those that are gone are no error."""
        self.discard(image.path for image in images)

    def _sync_above(self) -> None:
        """Makes a folder that was just made survive a power cut."""
        sync_folder(self._root)
        sync_folder(self._root.parent)


def _write(path: Path, content: bytes) -> None:
    part = path.with_suffix(".part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
