"""The database file: opened, examined, migrated; and what SQLite refuses, in words for people."""

import json
import logging
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from importlib.resources import files
from pathlib import Path

from bot.disk import sync_folder
from engine.errors import DreamLabError

log = logging.getLogger(__name__)

BUSY_SECONDS = 10.0
"""How long a statement waits for another process (a command-line request) to commit."""

_MOST_LOG = 64 * 2**20
"""Bytes of write-ahead log that are kept for the next writes; a longer one is cut back."""

_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_REASONS = {
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_BUSY: "another program keeps the database locked",
    sqlite3.SQLITE_LOCKED: "another program keeps the database locked",
    sqlite3.SQLITE_READONLY: "the database may only be read",
    sqlite3.SQLITE_IOERR: "the disk fails to read or write",
    sqlite3.SQLITE_CANTOPEN: "the database's files can't be opened",
    sqlite3.SQLITE_CORRUPT: "the database is damaged",
    sqlite3.SQLITE_NOTADB: "the database is damaged",
}


class StoreError(DreamLabError):
    """The database can't be opened, is damaged, or refuses."""


class StoreUnavailableError(StoreError):
    """The database refuses for now, and will take it when the reason is gone; nothing was changed.

    Attributes:
        reason: why, in words for the asker.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"This can't be stored or looked up just now: {reason}. "
            "What was accepted before is safe; try again later."
        )
        self.reason = reason


def unavailable(error: sqlite3.Error) -> StoreUnavailableError | None:
    """Returns the error for people where SQLite was kept from its work; None for our own faults."""
    # Codes that say more have the general one in their lowest byte; closed connections have none.
    reason = _REASONS.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)
    return StoreUnavailableError(reason) if reason else None


def is_damaged(error: sqlite3.Error) -> bool:
    """Says whether the file is at fault, rather than what keeps it from being used."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED


def open_database(path: Path) -> sqlite3.Connection:
    """Opens the database for writing, makes it where there is none, and migrates it. Blocks.

    A commit survives a power cut: WAL with ``synchronous=FULL``. It is in autocommit mode and may
    be handed to another thread.

    Raises:
        StoreError: it can't be opened, is damaged, or is newer than this version; it is untouched.
    """
    try:
        if not path.parent.exists():
            path.parent.mkdir(parents=True)
            sync_folder(path.parent.parent)
    except OSError as error:
        raise StoreError(f"{path}: can't be opened ({error}).") from error
    if path.exists():
        _examine(path)
    try:
        db = _connect(path)
    except sqlite3.Error as error:
        raise StoreError(f"{path}: can't be opened ({error}).") from error
    try:
        # Before anything is written: it is a property of the file.
        for pragma in ("auto_vacuum=INCREMENTAL", "journal_mode=WAL", "synchronous=FULL"):
            db.execute(f"PRAGMA {pragma}")
        db.execute("PRAGMA foreign_keys=ON")
        db.execute(f"PRAGMA journal_size_limit={_MOST_LOG}")
        _migrate(db)
        _let_it_shrink(db)
    except BaseException as error:
        db.close()
        if isinstance(error, sqlite3.Error):
            raise _refused(path, error) from error
        raise
    return db


def open_for_reading(path: Path) -> sqlite3.Connection:
    """Opens a database that exists, to look only. Readers wait for nobody. Blocks.

    Its SQL has ``holds(text, words)``: whether each of the words, a JSON list of them as
    `str.casefold` leaves them, stands in the text, in capitals or not. SQLite knows ASCII's alone.

    Raises:
        sqlite3.Error: it can't be read.
    """
    db = _connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    db.execute("PRAGMA query_only=ON")
    db.create_function("holds", 2, _holds, deterministic=True)
    return db


def _holds(text: str, words: str) -> bool:
    folded = text.casefold()
    return all(word in folded for word in json.loads(words))


def problem(path: Path) -> str | None:
    """Returns what is wrong with a database file; None where it is sound or not there yet."""
    if not path.exists():
        return None
    try:
        return _fault(path)
    except sqlite3.Error as error:
        return str(error)


def write_problem(path: Path, seconds: float = 2.0) -> str | None:
    """Returns why a database that exists can't be written now; None where it can. Changes nothing.

    Args:
        path: the file.
        seconds: how long another program may keep it.
    """
    try:
        with closing(_connect(f"{path.absolute().as_uri()}?mode=rw", seconds, uri=True)) as db:
            db.execute("BEGIN IMMEDIATE")
            db.execute("ROLLBACK")
    except sqlite3.Error as error:
        refused = unavailable(error)
        return refused.reason if refused else str(error)
    return None


def version_of(db: sqlite3.Connection) -> int:
    """Returns how many migrations a database has seen.

    Raises:
        StoreError: more than this version has.
    """
    version, known = int(db.execute("PRAGMA user_version").fetchone()[0]), len(_migrations())
    if version > known:
        raise StoreError(
            f"The database is of version {version}, this Dream Lab knows {known}:"
            " install the newer Dream Lab again."
        )
    return version


def _connect(
    path: Path | str, seconds: float = BUSY_SECONDS, *, uri: bool = False
) -> sqlite3.Connection:
    db = sqlite3.connect(
        path, isolation_level=None, timeout=seconds, check_same_thread=False, uri=uri
    )
    db.row_factory = sqlite3.Row
    return db


def _examine(path: Path) -> None:
    """Raises where a file is not sound."""
    try:
        fault = _fault(path)
    except sqlite3.Error as error:
        raise _refused(path, error) from error
    if fault:
        raise _damaged(path, fault)


def _fault(path: Path) -> str | None:
    """Returns the first thing that is wrong in a database; reads all of it and writes nothing."""
    with closing(open_for_reading(path)) as db:
        verdict = str(db.execute("PRAGMA quick_check(1)").fetchone()[0])
    return None if verdict == "ok" else verdict.splitlines()[-1]


def _refused(path: Path, error: sqlite3.Error) -> StoreError:
    if is_damaged(error):
        return _damaged(path, error)
    refused = unavailable(error)
    return StoreError(f"{path}: can't be used now ({refused.reason if refused else error}).")


def _damaged(path: Path, reason: object) -> StoreError:
    return StoreError(
        f"{path}: is not a sound database ({reason}). "
        "Put a backup in its place, or move it away to begin anew."
    )


def _migrations() -> list[str]:
    scripts = sorted(
        (entry.name, entry.read_text(encoding="utf-8"))
        for entry in (files("bot") / "migrations").iterdir()
        if entry.name.endswith(".sql")
    )
    return [script for _, script in scripts]


def _migrate(db: sqlite3.Connection) -> None:
    db.execute("BEGIN IMMEDIATE")
    try:
        version = version_of(db)
        for number, script in enumerate(_migrations()[version:], version + 1):
            for statement in _statements(script):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {number}")
        db.execute("COMMIT")
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")


def _let_it_shrink(db: sqlite3.Connection) -> None:
    """Rewrites a database of the time before it could give room back, once."""
    if db.execute("PRAGMA auto_vacuum").fetchone()[0]:
        return
    try:
        db.execute("VACUUM")
    except sqlite3.OperationalError as error:
        log.warning("The database can't be made smaller now, which does no harm: %s", error)


def _statements(script: str) -> Iterable[str]:
    """Splits a script, since ``executescript`` would commit the transaction around it."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
