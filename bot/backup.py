"""Backups: the database and its pictures in one .zip file, and the way back. All of it blocks."""

import errno
import os
import re
import shutil
import sqlite3
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from filelock import FileLock, Timeout

from bot.database import (
    StoreError,
    is_damaged,
    open_database,
    open_for_reading,
    problem,
    unavailable,
    version_of,
)
from bot.disk import sync_folder
from engine.errors import DreamLabError

DATABASE = "dreamlab.db"
LOCK = "dreamlab.lock"
IMAGES = "images"

Tell = Callable[[int, int], None]
"""Hears how many bytes are done, of how many."""

_PICTURE = re.compile(rf"{IMAGES}/[\w-]+/[\w-]+\.png", re.ASCII)
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
)
"""What reading a .zip file raises that is damaged."""

_CHUNK = 2**20
_PAGES = 1024  # of the database, between two words about progress


class BackupError(DreamLabError):
    """There is nothing to back up, the backup is not sound, or it can't be restored now."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What is in a backup.

    Attributes:
        jobs: how many requests.
        pictures: how many files, those that people sent to draw from included.
        missing: pictures whose files were lost before the backup.
    """

    jobs: int
    pictures: int
    missing: int = 0


def back_up(data: Path, target: Path, tell: Tell = lambda done, total: None) -> Contents:
    """Writes what is stored now to a file; a bot may run meanwhile. An older file is replaced.

    Args:
        data: the data folder.
        target: the file; it is whole, or as it was before.
        tell: hears of the progress.

    Raises:
        BackupError: there is nothing to back up, or the file is one of the program's own.
        StoreError: the database is damaged or can't be read.
        OSError: the file can't be written, or a picture not be read.
    """
    database = data / DATABASE
    if not database.exists():
        raise BackupError(f"{data}: holds no database, so there is nothing to back up.")
    if _is_own(target, data):
        raise BackupError(f"{target}: is one of the program's own files. Name another.")
    with tempfile.TemporaryDirectory(dir=target.absolute().parent, prefix=".backup-") as folder:
        snapshot, archive = Path(folder, DATABASE), Path(folder, "backup.zip")
        _copy_database(database, snapshot)
        contents = _pack(snapshot, data / IMAGES, archive, tell)
        archive.replace(target)
    sync_folder(target.absolute().parent)
    return contents


def restore(
    source: Path, data: Path, *, replace: bool = False, tell: Tell = lambda done, total: None
) -> Contents:
    """Makes a data folder what it was when it was backed up.

    All is read, checked and written beside what is there; a rename of the database then makes it
    the one in force. Whatever ends it before leaves the old state.

    Args:
        source: the backup.
        data: the data folder; it is made where there is none.
        replace: whether a database that is there already may go.
        tell: hears of the progress.

    Raises:
        BackupError: the backup is not sound, the data folder is in use, or it has a database.
        StoreError: the database that is there can't be opened, or the backup is of a newer version.
        OSError: the folder can't be written.
    """
    data.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(data / LOCK, timeout=0):
            return _restore(source, data, replace, tell)
    except Timeout:
        raise _in_use(data) from None


def _restore(source: Path, data: Path, replace: bool, tell: Tell) -> Contents:
    database, fresh = data / DATABASE, data / ".restoring"
    if database.exists():
        if not replace:
            raise BackupError(
                f"{database}: is there already. Back it up, then say --replace to have it replaced."
            )
        _close_log(database)
    shutil.rmtree(fresh, ignore_errors=True)  # of a restoring that was ended half-way
    try:
        contents = _unpack(source, fresh, tell)
        for picture in sorted((fresh / IMAGES).rglob("*.png")):
            _move(picture, data / picture.relative_to(fresh))
        for folder in (data / IMAGES).glob("*/"):
            sync_folder(folder)
        if database.exists():
            _close_log(database, discard_damaged=True)
        (fresh / DATABASE).replace(database)
        sync_folder(data)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return contents


# Backing up


def _is_own(target: Path, data: Path) -> bool:
    """Says whether a file is the database, or one of those beside it that keep it sound."""
    beside = target.absolute().parent.resolve() == data.resolve()
    own = (DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", f"{DATABASE}-journal", LOCK)
    return beside and target.name.casefold() in own


def _copy_database(database: Path, snapshot: Path) -> None:
    """Copies the state of one moment, brought up to date, into a file that stands alone."""
    try:
        with closing(open_for_reading(database)) as db, closing(sqlite3.connect(snapshot)) as copy:
            db.execute("BEGIN")  # what is written from now on is not seen, so it can't begin anew
            version_of(db)
            db.backup(copy, pages=_PAGES)
    except sqlite3.Error as error:
        raise unavailable(error) or error from error
    if reason := problem(snapshot):
        raise StoreError(f"{database}: is not a sound database ({reason}).")
    open_database(snapshot).close()
    _close_log(snapshot)


def _pack(snapshot: Path, images: Path, archive: Path, tell: Tell) -> Contents:
    with closing(sqlite3.connect(snapshot, isolation_level=None)) as db:
        paths = _pictures(db)
        total = snapshot.stat().st_size + sum(_size(images / path) for path in paths)
        done, missing = 0, []
        with zipfile.ZipFile(archive, "w", strict_timestamps=False) as zipped:
            for path in paths:
                try:
                    zipped.write(images / path, f"{IMAGES}/{path}")
                except FileNotFoundError:  # deleted a moment ago, or lost long ago
                    missing.append(path)
                done += _size(images / path)
                tell(done, total)
            # A restored row has its file, and what points at a picture goes with it.
            db.execute("PRAGMA foreign_keys=ON")
            db.executemany("DELETE FROM images WHERE path = ?", [(path,) for path in missing])
            # Who has signed out since shall stay so.
            db.execute("DELETE FROM sessions")
            (jobs,) = db.execute("SELECT count(*) FROM jobs").fetchone()
            zipped.write(snapshot, DATABASE, zipfile.ZIP_DEFLATED)
    with archive.open("rb+") as file:
        os.fsync(file.fileno())
    tell(total, total)
    return Contents(jobs, len(paths) - len(missing), len(missing))


def _pictures(db: sqlite3.Connection) -> list[str]:
    rows = db.execute("SELECT path FROM images UNION SELECT path FROM sources ORDER BY 1")
    return [str(path) for (path,) in rows]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


# Restoring


def _unpack(source: Path, fresh: Path, tell: Tell) -> Contents:
    """Writes a backup's files to a folder of their own, and makes sure that they are sound."""
    try:
        with zipfile.ZipFile(source) as zipped:
            entries = zipped.infolist()
            _refuse_strange(source, entries)
            total = sum(entry.file_size for entry in entries)
            _refuse_without_room(source, total, fresh.parent)
            done = 0
            for entry in entries:
                path = fresh / entry.filename
                path.parent.mkdir(parents=True, exist_ok=True)
                with zipped.open(entry) as packed, path.open("wb") as file:
                    done = _copy(packed, file, done, total, tell)
    except (*_UNREADABLE, OSError) as error:
        # A damaged directory may lead to before the file's beginning, which is no place to seek.
        of_the_disk = isinstance(error, OSError) and error.errno != errno.EINVAL
        if isinstance(error, DreamLabError) or of_the_disk:
            raise
        raise BackupError(f"{source}: is no whole backup ({error}).") from error
    database = fresh / DATABASE
    if reason := problem(database):
        raise BackupError(f"{source}: its database is not sound ({reason}).")
    with closing(open_database(database)) as db:
        # Earlier versions left these in backups beside pictures whose files were lost.
        db.execute("DELETE FROM samples WHERE image_id NOT IN (SELECT id FROM images)")
        paths = _pictures(db)
        (jobs,) = db.execute("SELECT count(*) FROM jobs").fetchone()
        needed = [str(path) for (path,) in db.execute("SELECT path FROM images")]
    absent = [path for path in needed if not (fresh / IMAGES / path).is_file()]
    if absent:
        raise BackupError(f"{source}: is no whole backup ({len(absent)} pictures are missing).")
    return Contents(jobs, len(paths))


def _refuse_strange(source: Path, entries: Iterable[zipfile.ZipInfo]) -> None:
    packings = {entry.filename: entry.compress_type for entry in entries}
    if DATABASE not in packings:
        raise BackupError(f"{source}: is no backup of Dream Lab ({DATABASE} is not in it).")
    for name, packing in packings.items():
        if name != DATABASE and not _PICTURE.fullmatch(name):
            raise BackupError(f"{source}: holds {name!r}, which no backup of Dream Lab does.")
        if packing not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise BackupError(f"{source}: holds {name!r} packed as no backup of Dream Lab has it.")


def _refuse_without_room(source: Path, needed: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise BackupError(
            f"{source}: needs {needed / 2**30:.2f} GB in {folder}, where {free / 2**30:.2f} GB "
            "are free."
        )


def _copy(packed: IO[bytes], file: IO[bytes], done: int, total: int, tell: Tell) -> int:
    while chunk := packed.read(_CHUNK):
        file.write(chunk)
        done += len(chunk)
        tell(done, total)
    file.flush()
    os.fsync(file.fileno())
    return done


def _move(picture: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    picture.replace(place)


def _close_log(database: Path, *, discard_damaged: bool = False) -> None:
    """Makes a database one file alone; refuses while anybody has it open.

    Args:
        database: the file.
        discard_damaged: whether the log of one that is damaged is deleted, rather than left.
    """
    try:
        with closing(sqlite3.connect(database, timeout=0)) as db:
            db.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.Error as error:
        if is_damaged(error):
            # Its log must not be taken for that of the database that comes in its place.
            for suffix in ("-wal", "-shm") if discard_damaged else ():
                database.with_name(database.name + suffix).unlink(missing_ok=True)
        elif getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
            raise _in_use(database.parent) from None
        else:
            raise unavailable(error) or error from error


def _in_use(data: Path) -> BackupError:
    return BackupError(f"A Dream Lab runs on the data folder {data}. Stop it first.")
