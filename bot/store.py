"""SQLite: every statement of the project, rows in and out as frozen objects.

One connection, whose statements run one after another in aiosqlite's thread. Statements that
belong together run in `Store._transaction`, which holds a lock, so that coroutines don't mix
theirs in. WAL with ``synchronous=FULL``: what was committed survives a power cut.
"""

import asyncio
import json
import logging
import sqlite3
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Self

import aiosqlite
from pydantic import TypeAdapter

from bot.records import Delivery, ImageRecord, JobRecord, Origin, Owner
from engine.errors import DreamLabError
from engine.jobs import GenerationRequest, JobStatus

_REQUEST = TypeAdapter(GenerationRequest)
_BUSY_SECONDS = 10.0
"""How long a statement waits for another process (a command-line request) to commit."""


class StoreError(DreamLabError):
    """The database can't be opened or is damaged."""


class Store:
    """The rows of one data folder."""

    def __init__(self, db: aiosqlite.Connection) -> None:
        self._db = db
        self._lock = asyncio.Lock()

    @classmethod
    async def open(cls, path: Path) -> Self:
        """Opens the database, makes it where there is none, and migrates it.

        Raises:
            StoreError: it can't be opened, is damaged, or is newer than this version.
        """
        # At DEBUG it writes out every value, tokens included.
        level = max(logging.getLogger().getEffectiveLevel(), logging.INFO)
        logging.getLogger("aiosqlite").setLevel(level)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            db = await aiosqlite.connect(path, isolation_level=None, timeout=_BUSY_SECONDS)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"{path}: can't be opened ({error}).") from error
        try:
            db.row_factory = sqlite3.Row
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
                await db.execute(f"PRAGMA {pragma}")
            store = cls(db)
            await store._migrate()
        except BaseException as error:
            await db.close()
            if isinstance(error, sqlite3.OperationalError):
                raise StoreError(f"{path}: can't be used now ({error}).") from error
            if isinstance(error, sqlite3.Error):
                raise StoreError(
                    f"{path}: is not a sound database ({error}). "
                    "Put a backup in its place, or move it away to begin anew."
                ) from error
            raise
        return store

    async def close(self) -> None:
        """Closes the connection; what was committed is safe without it, too."""
        await self._db.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # Jobs

    async def add(self, job: JobRecord) -> None:
        """Stores a new job; it is committed when this returns."""
        async with self._transaction() as db:
            await db.execute(
                "INSERT INTO jobs (id, owner_id, owner_name, front_end, place, address, request,"
                " status, created_at, parent_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    job.id,
                    job.owner.id,
                    job.owner.name,
                    job.origin.front_end,
                    job.origin.place,
                    json.dumps(dict(job.origin.address)),
                    _REQUEST.dump_json(job.request).decode(),
                    job.status,
                    job.created_at.timestamp(),
                    job.parent_id,
                ),
            )

    async def begin(self, job_id: str) -> bool:
        """Notes that a waiting job runs; False where it doesn't wait."""
        async with self._transaction() as db:
            cursor = await db.execute(
                "UPDATE jobs SET status = 'running', attempts = attempts + 1"
                " WHERE id = ? AND status = 'queued'",
                (job_id,),
            )
            return cursor.rowcount == 1

    async def settle(
        self, job: JobRecord, images: Iterable[ImageRecord] = (), *, carried: bool
    ) -> bool:
        """Stores how a job ended, its pictures and its outbox row, all or nothing.

        Args:
            job: with a final status, ``finished_at``, ``seconds`` and ``error`` as they came.
            images: what was drawn; the files are there already.
            carried: whether a courier is to bring the result.

        Returns:
            False where it had ended before; nothing was changed then.
        """
        assert job.finished_at is not None  # noqa: S101 # a final record has its time
        async with self._transaction() as db:
            cursor = await db.execute(
                "UPDATE jobs SET status = ?, finished_at = ?, seconds = ?, error = ?"
                " WHERE id = ? AND finished_at IS NULL",
                (job.status, job.finished_at.timestamp(), job.seconds, job.error, job.id),
            )
            if cursor.rowcount == 0:
                return False
            await db.executemany(
                "INSERT INTO images (id, job_id, number, path, seed, width, height)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                [
                    (image.id, job.id, number, image.path, image.seed, image.width, image.height)
                    for number, image in enumerate(images)
                ],
            )
            if carried:
                await db.execute(
                    "INSERT INTO outbox (job_id, due_at) VALUES (?, ?)",
                    (job.id, job.finished_at.timestamp()),
                )
            return True

    async def requeue(self, front_ends: Sequence[str]) -> list[JobRecord]:
        """Puts what ran when the process ended back in line; returns all that waits, in order."""
        marks = ", ".join("?" * len(front_ends))
        condition = f"WHERE finished_at IS NULL AND front_end IN ({marks})"
        async with self._transaction() as db:
            await db.execute(f"UPDATE jobs SET status = 'queued' {condition}", front_ends)  # noqa: S608 # marks are question marks
        return await self._jobs(f"{condition} ORDER BY sequence", *front_ends)

    async def get(self, job_id: str) -> JobRecord | None:
        """Returns a job, or None where there is none of this id."""
        found = await self._jobs("WHERE id = ?", job_id)
        return found[0] if found else None

    async def history(self, owner_id: str, limit: int) -> list[JobRecord]:
        """Returns an owner's newest jobs, newest first."""
        return await self._jobs(
            "WHERE owner_id = ? ORDER BY sequence DESC LIMIT ?", owner_id, limit
        )

    # Pictures

    async def image(self, image_id: str) -> ImageRecord | None:
        """Returns a picture's row, or None where there is none of this id."""
        row = await self._row("SELECT * FROM images WHERE id = ?", image_id)
        return _image(row) if row else None

    async def forget_images(self, job_id: str) -> None:
        """Removes the rows of a job's pictures."""
        async with self._transaction() as db:
            await db.execute("DELETE FROM images WHERE job_id = ?", (job_id,))

    # Deliveries

    async def claim_due(
        self, now: datetime, until: datetime, front_ends: Sequence[str], limit: int
    ) -> list[Delivery]:
        """Returns what is to be delivered now by one of these front ends, oldest first.

        Each counts as tried and is due again at ``until``, should nothing be heard of it.
        """
        marks = ", ".join("?" * len(front_ends))
        async with self._transaction():
            rows = await self._rows(
                "UPDATE outbox SET due_at = ?, attempts = attempts + 1 WHERE job_id IN ("  # noqa: S608 # marks are question marks
                " SELECT job_id FROM outbox JOIN jobs ON jobs.id = job_id"
                f" WHERE due_at <= ? AND front_end IN ({marks}) ORDER BY due_at LIMIT ?)"
                " RETURNING job_id, attempts",
                until.timestamp(),
                now.timestamp(),
                *front_ends,
                limit,
            )
        return [Delivery(row["job_id"], row["attempts"]) for row in rows]

    async def claim_anew(self, now: datetime) -> None:
        """Makes due at once what an earlier process had claimed or put off."""
        async with self._transaction() as db:
            await db.execute(
                "UPDATE outbox SET due_at = ? WHERE due_at > ?", (now.timestamp(),) * 2
            )

    async def next_due(self, front_ends: Sequence[str]) -> datetime | None:
        """Returns when the next delivery is due; None where nothing waits."""
        marks = ", ".join("?" * len(front_ends))
        row = await self._row(
            "SELECT min(due_at) AS due_at FROM outbox JOIN jobs ON jobs.id = job_id"  # noqa: S608 # marks are question marks
            f" WHERE due_at IS NOT NULL AND front_end IN ({marks})",
            *front_ends,
        )
        return _time(row["due_at"]) if row and row["due_at"] is not None else None

    async def delivered(self, job_id: str, now: datetime) -> None:
        """Notes that a result arrived; it is never sent again."""
        async with self._transaction() as db:
            await db.execute(
                "UPDATE outbox SET due_at = NULL, delivered_at = ? WHERE job_id = ?",
                (now.timestamp(), job_id),
            )

    async def postpone(self, job_id: str, due_at: datetime | None, error: str) -> None:
        """Notes that a delivery failed and when it is tried again; None gives it up."""
        async with self._transaction() as db:
            await db.execute(
                "UPDATE outbox SET due_at = ?, last_error = ? WHERE job_id = ?",
                (due_at.timestamp() if due_at else None, error, job_id),
            )

    # Places

    async def mode_of(self, place: str) -> str | None:
        """Returns the mode that a place has chosen, or None."""
        row = await self._row("SELECT mode FROM places WHERE place = ?", place)
        return str(row["mode"]) if row else None

    async def choose_mode(self, place: str, mode: str) -> None:
        """Keeps a place's choice."""
        async with self._transaction() as db:
            await db.execute(
                "INSERT INTO places (place, mode) VALUES (?, ?)"
                " ON CONFLICT (place) DO UPDATE SET mode = excluded.mode",
                (place, mode),
            )

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[aiosqlite.Connection]:
        async with self._lock:
            try:
                await self._db.execute("BEGIN IMMEDIATE")
                yield self._db
                await self._db.execute("COMMIT")
            except BaseException:
                # Also where the caller was cancelled: the lock may not go with work half done.
                with suppress(sqlite3.Error):
                    await asyncio.shield(self._db.execute("ROLLBACK"))
                raise

    async def _migrate(self) -> None:
        migrations = sorted(
            (entry.name, entry.read_text(encoding="utf-8"))
            for entry in (files("bot") / "migrations").iterdir()
            if entry.name.endswith(".sql")
        )
        async with self._transaction() as db:
            row = await self._row("PRAGMA user_version")
            version = int(row[0]) if row else 0
            if version > len(migrations):
                raise StoreError(
                    f"The database is of version {version}, this Dream Lab knows {len(migrations)}:"
                    " install the newer Dream Lab again."
                )
            for number, (_, script) in enumerate(migrations[version:], version + 1):
                for statement in _statements(script):
                    await db.execute(statement)
                await db.execute(f"PRAGMA user_version = {number}")

    async def _rows(self, statement: str, *values: object) -> list[sqlite3.Row]:
        return list(await self._db.execute_fetchall(statement, values))

    async def _row(self, statement: str, *values: object) -> sqlite3.Row | None:
        rows = await self._rows(statement, *values)
        return rows[0] if rows else None

    async def _jobs(self, condition: str, *values: object) -> list[JobRecord]:
        rows = await self._rows(f"SELECT * FROM jobs {condition}", *values)  # noqa: S608 # the conditions above
        ids = [row["id"] for row in rows]
        pictures: dict[str, list[ImageRecord]] = {job_id: [] for job_id in ids}
        for row in await self._rows(
            "SELECT * FROM images WHERE job_id IN (SELECT value FROM json_each(?)) ORDER BY number",
            json.dumps(ids),
        ):
            pictures[row["job_id"]].append(_image(row))
        return [_job(row, pictures[row["id"]]) for row in rows]


def check(path: Path) -> str | None:
    """Returns what is wrong with a database file; None where it is sound or not there yet."""
    if not path.exists():
        return None
    try:
        db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_BUSY_SECONDS)
        try:
            (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
        finally:
            db.close()
    except sqlite3.Error as error:
        return str(error)
    return None if verdict == "ok" else str(verdict)


def _statements(script: str) -> Iterable[str]:
    """Splits a script, since ``executescript`` would commit the transaction around it."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _image(row: sqlite3.Row) -> ImageRecord:
    return ImageRecord(
        id=row["id"],
        job_id=row["job_id"],
        path=row["path"],
        seed=row["seed"],
        width=row["width"],
        height=row["height"],
    )


def _job(row: sqlite3.Row, images: Sequence[ImageRecord]) -> JobRecord:
    return JobRecord(
        id=row["id"],
        owner=Owner(row["owner_id"], row["owner_name"]),
        origin=Origin(row["front_end"], row["place"], json.loads(row["address"])),
        request=_REQUEST.validate_json(row["request"]),
        status=JobStatus(row["status"]),
        created_at=_time(row["created_at"]),
        finished_at=_time(row["finished_at"]) if row["finished_at"] is not None else None,
        seconds=row["seconds"],
        error=row["error"],
        attempts=row["attempts"],
        parent_id=row["parent_id"],
        images=tuple(images),
    )
