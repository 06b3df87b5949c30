"""How the database is reached: what every part of the store is built on.

Two connections, each with a thread. One writes, and shares its fsyncs (`GroupCommit`): what was
committed survives a power cut. The other reads, and so is answered whatever keeps the first one
busy: a full disk, another program's lock.
"""

import asyncio
import json
import logging
import sqlite3
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Self, TypeVar

from pydantic import TypeAdapter

from bot.database import open_database, open_for_reading, unavailable
from bot.group_commit import GroupCommit
from bot.records import ImageRecord, JobRecord, Kinship, Origin, Owner, Parent
from bot.store_thread import StoreThread, each_by_itself
from engine.jobs import GenerationRequest, JobStatus

log = logging.getLogger(__name__)

_READ_TOGETHER = 16  # a few milliseconds' work, which is as long as one waits for the others

T = TypeVar("T")
REQUEST = TypeAdapter(GenerationRequest)


class StoreAccess:
    """Connections to one data folder's database, and rows as objects.

    Every method raises `StoreUnavailableError` where the database is kept from its work (a full
    disk, a lock); nothing was changed then, and it works again when the reason is gone.
    """

    def __init__(self, writer: GroupCommit, reader: StoreThread) -> None:
        self._writer = writer
        self._reader = reader
        self._trouble: str | None = None

    @classmethod
    async def open(cls, path: Path) -> Self:
        """Opens the database, makes it where there is none, and migrates it.

        Raises:
            StoreError: it can't be opened, is damaged, or is newer than this version.
        """
        writer = await asyncio.to_thread(open_database, path)
        reader = await asyncio.to_thread(open_for_reading, path)
        reads = StoreThread(reader, "store-reader", each_by_itself, _READ_TOGETHER)
        return cls(GroupCommit(writer), reads)

    async def close(self) -> None:
        """Closes the connections; what was committed is safe without it, too."""
        await self._reader.close()
        await self._writer.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            value = await self._writer.write(work)
        except sqlite3.Error as error:
            refused = unavailable(error)
            if refused is None:
                raise
            self._note(refused.reason)
            raise refused from error
        self._note(None)
        return value

    def _note(self, trouble: str | None) -> None:
        """Has the log say once when nothing can be stored, and once when it is over."""
        if trouble and trouble != self._trouble:
            log.error("Nothing can be stored: %s. New requests are refused until then.", trouble)
        elif self._trouble and not trouble:
            log.warning("Requests can be stored again.")
        self._trouble = trouble

    async def _execute(self, statement: str, *values: object) -> list[sqlite3.Row]:
        """Runs one statement in a transaction; returns what it returns."""
        return await self._write(lambda db: db.execute(statement, values).fetchall())

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return await self._reader.run(work)
        except sqlite3.Error as error:
            raise unavailable(error) or error from error

    async def _rows(self, statement: str, *values: object) -> list[sqlite3.Row]:
        return await self._read(lambda db: db.execute(statement, values).fetchall())

    async def _row(self, statement: str, *values: object) -> sqlite3.Row | None:
        rows = await self._rows(statement, *values)
        return rows[0] if rows else None

    async def _jobs(self, condition: str, *values: object) -> list[JobRecord]:
        def work(db: sqlite3.Connection) -> list[JobRecord]:
            db.execute("BEGIN")  # a job and its pictures as they were at one moment
            try:
                rows = db.execute(f"SELECT * FROM jobs {condition}", values).fetchall()  # noqa: S608 # the conditions above
                pictures: dict[str, list[ImageRecord]] = {row["id"]: [] for row in rows}
                for row in db.execute(
                    "SELECT * FROM images WHERE job_id IN (SELECT value FROM json_each(?))"
                    " ORDER BY number",
                    (json.dumps(list(pictures)),),
                ):
                    pictures[row["job_id"]].append(image_of(row))
            finally:
                db.execute("COMMIT")
            return [job_of(row, pictures[row["id"]]) for row in rows]

        return await self._read(work)


def release(db: sqlite3.Connection, job_ids: Sequence[str]) -> list[str]:
    """Lets go of what jobs start from; returns the paths that no other job holds."""
    rows = db.execute(
        "DELETE FROM sources WHERE job_id IN (SELECT value FROM json_each(?)) RETURNING path",
        (json.dumps(job_ids),),
    ).fetchall()
    free = db.execute(
        "SELECT DISTINCT value FROM json_each(?) WHERE value NOT IN (SELECT path FROM sources)",
        (json.dumps([row["path"] for row in rows]),),
    )
    return [str(row["value"]) for row in free]


def from_any(front_ends: Sequence[str]) -> str:
    """Returns the condition that a job was asked for in one of these; they are its values."""
    return f"front_end IN ({marks(front_ends)})"


def marks(values: Sequence[object]) -> str:
    """Returns a question mark for each value."""
    return ", ".join("?" * len(values))


def time_of(seconds: float) -> datetime:
    """Returns the moment of a column."""
    return datetime.fromtimestamp(seconds, UTC)


def image_of(row: sqlite3.Row) -> ImageRecord:
    """Returns the picture of a row."""
    return ImageRecord(
        id=row["id"],
        job_id=row["job_id"],
        path=row["path"],
        seed=row["seed"],
        width=row["width"],
        height=row["height"],
        number=row["number"],
    )


def job_of(row: sqlite3.Row, images: Sequence[ImageRecord]) -> JobRecord:
    """Returns the job of a row and of its pictures."""
    return JobRecord(
        id=row["id"],
        owner=Owner(row["owner_id"], row["owner_name"]),
        origin=Origin(row["front_end"], row["place"], json.loads(row["address"])),
        request=REQUEST.validate_json(row["request"]),
        status=JobStatus(row["status"]),
        created_at=time_of(row["created_at"]),
        finished_at=time_of(row["finished_at"]) if row["finished_at"] is not None else None,
        seconds=row["seconds"],
        error=row["error"],
        attempts=row["attempts"],
        parent=_parent(row),
        note=row["note"],
        weight=row["weight"],
        images=tuple(images),
    )


def _parent(row: sqlite3.Row) -> Parent | None:
    if row["parent_id"] is None:
        return None
    return Parent(row["parent_id"], row["parent_number"], Kinship(row["kinship"]))
