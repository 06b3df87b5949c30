"""SQLite: every statement of the project, rows in and out as frozen objects.

Two connections, each with a thread. One writes, and shares its fsyncs (`GroupCommit`): what was
committed survives a power cut. The other reads, and so is answered whatever keeps the first one
busy: a full disk, another program's lock.
"""

import asyncio
import json
import logging
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Self, TypeVar

from pydantic import TypeAdapter

from bot.database import open_database, open_for_reading, unavailable
from bot.group_commit import GroupCommit
from bot.records import Delivery, Figures, FinishedJob, ImageRecord, JobRecord, Origin, Owner
from bot.rules import AuditEntry, Block, Rules, Standing, Usage, changes, day_of
from engine.jobs import GenerationRequest, JobStatus

log = logging.getLogger(__name__)

T = TypeVar("T")
_REQUEST = TypeAdapter(GenerationRequest)
_RULES = TypeAdapter(Rules)

# Finished, delivered or given up, and nothing unfinished was made from it.
_DISPOSABLE = (
    "finished_at IS NOT NULL"
    " AND id NOT IN (SELECT job_id FROM outbox WHERE due_at IS NOT NULL)"
    " AND id NOT IN (SELECT parent_id FROM jobs WHERE finished_at IS NULL"
    "  AND parent_id IS NOT NULL)"
)


class Store:
    """The rows of one data folder.

    Every method raises `StoreUnavailableError` where the database is kept from its work (a full
    disk, a lock); nothing was changed then, and it works again when the reason is gone.
    """

    def __init__(self, writer: GroupCommit, reader: sqlite3.Connection) -> None:
        self._writer = writer
        self._reader = reader
        self._reading = ThreadPoolExecutor(1, "store-reader")
        self._trouble: str | None = None

    @classmethod
    async def open(cls, path: Path) -> Self:
        """Opens the database, makes it where there is none, and migrates it.

        Raises:
            StoreError: it can't be opened, is damaged, or is newer than this version.
        """
        writer = await asyncio.to_thread(open_database, path)
        return cls(GroupCommit(writer), await asyncio.to_thread(open_for_reading, path))

    async def close(self) -> None:
        """Closes the connections; what was committed is safe without it, too."""
        await asyncio.to_thread(self._reading.shutdown)
        self._reader.close()
        await self._writer.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # Jobs

    async def add(self, job: JobRecord, admit: Callable[[Usage], None] = lambda _: None) -> None:
        """Stores a new job; it is committed when this returns.

        Args:
            job: waiting.
            admit: raises to refuse it, by what its owner has asked for in its place before.
                Nothing comes between the look and the job.
        """
        values = (
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
        )

        def work(db: sqlite3.Connection) -> None:
            today = day_of(job.created_at).timestamp()
            db.execute("DELETE FROM spent WHERE day < ?", (today,))
            admit(_usage(db, job.origin.place, job.owner.id, job.created_at))
            db.execute(
                "INSERT INTO jobs (id, owner_id, owner_name, front_end, place, address, request,"
                " status, created_at, parent_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                values,
            )
            if source := job.request.source:
                db.execute(
                    "INSERT INTO sources (job_id, path) VALUES (?, ?)", (job.id, source.as_posix())
                )

        await self._write(work)

    async def begin(self, job_id: str) -> bool:
        """Notes that a waiting job runs; False where it doesn't wait."""
        return await self._write(partial(_begin, job_id=job_id))

    async def give_back(self, job_id: str) -> bool:
        """Puts a running job back in line as if it had not begun; False where it doesn't run."""

        def work(db: sqlite3.Connection) -> bool:
            return _move(db, job_id, JobStatus.QUEUED, {"attempts": "attempts - 1"})

        return await self._write(work)

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
        finished_at = job.finished_at.timestamp()
        rows = [
            (image.id, job.id, number, image.path, image.seed, image.width, image.height)
            for number, image in enumerate(images)
        ]

        def work(db: sqlite3.Connection) -> bool:
            if job.status is JobStatus.DONE:
                _begin(db, job.id)  # where it was drawn before that could be noted
            ended = {"finished_at": "?", "seconds": "?", "error": "?"}
            if not _move(db, job.id, job.status, ended, finished_at, job.seconds, job.error):
                return False
            db.executemany(
                "INSERT INTO images (id, job_id, number, path, seed, width, height)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                rows,
            )
            if carried:
                db.execute(
                    "INSERT INTO outbox (job_id, due_at) VALUES (?, ?)", (job.id, finished_at)
                )
            return True

        return await self._write(work)

    async def running(self, front_ends: Sequence[str]) -> list[JobRecord]:
        """Returns the jobs that run; at the start, those during which the program was killed."""
        return await self._jobs(
            f"WHERE status = 'running' AND {_of(front_ends)} ORDER BY sequence", *front_ends
        )

    async def requeue(self, front_ends: Sequence[str]) -> list[JobRecord]:
        """Puts what ran when the process ended back in line; returns all that waits, in order."""
        before = _marks(JobStatus.QUEUED.predecessors)

        def work(db: sqlite3.Connection) -> None:
            db.execute(
                f"UPDATE jobs SET status = ? WHERE status IN ({before}) AND {_of(front_ends)}",  # noqa: S608 # marks are question marks
                (JobStatus.QUEUED, *JobStatus.QUEUED.predecessors, *front_ends),
            )

        await self._write(work)
        return await self._jobs(
            f"WHERE finished_at IS NULL AND {_of(front_ends)} ORDER BY sequence", *front_ends
        )

    async def get(self, job_id: str) -> JobRecord | None:
        """Returns a job, or None where there is none of this id."""
        found = await self._jobs("WHERE id = ?", job_id)
        return found[0] if found else None

    async def history(self, owner_id: str, limit: int) -> list[JobRecord]:
        """Returns an owner's newest jobs, newest first."""
        return await self._jobs(
            "WHERE owner_id = ? ORDER BY sequence DESC LIMIT ?", owner_id, limit
        )

    async def keyed(self, owner_id: str, key: str, since: datetime) -> JobRecord | None:
        """Returns an owner's newest job whose address has this ``key``; None for none since."""
        found = await self._jobs(
            "WHERE owner_id = ? AND json_extract(address, '$.key') = ? AND created_at >= ?"
            " ORDER BY sequence DESC LIMIT 1",
            owner_id,
            key,
            since.timestamp(),
        )
        return found[0] if found else None

    # What is a member's

    async def pictured(
        self, owner_id: str, limit: int, *, before: str | None = None, after: str | None = None
    ) -> list[JobRecord]:
        """Returns an owner's jobs that have pictures, newest first.

        Args:
            owner_id: whose.
            limit: most that are returned.
            before: only those older than this job of theirs; the nearest to it.
            after: likewise newer. An id that is none of theirs finds nothing.
        """
        anchor = "(SELECT sequence FROM jobs WHERE id = ? AND owner_id = ?)"
        having = "WHERE owner_id = ? AND id IN (SELECT job_id FROM images)"
        if after is not None:
            found = await self._jobs(
                f"{having} AND sequence > {anchor} ORDER BY sequence LIMIT ?",
                owner_id,
                after,
                owner_id,
                limit,
            )
            return found[::-1]
        if before is not None:
            return await self._jobs(
                f"{having} AND sequence < {anchor} ORDER BY sequence DESC LIMIT ?",
                owner_id,
                before,
                owner_id,
                limit,
            )
        return await self._jobs(f"{having} ORDER BY sequence DESC LIMIT ?", owner_id, limit)

    async def unfinished_of(self, owner_id: str) -> list[JobRecord]:
        """Returns an owner's jobs that wait or run, oldest first."""
        return await self._jobs(
            "WHERE finished_at IS NULL AND owner_id = ? ORDER BY sequence", owner_id
        )

    async def unfinished_at(self, place: str) -> list[JobRecord]:
        """Returns a place's jobs that wait or run, oldest first."""
        return await self._jobs("WHERE finished_at IS NULL AND place = ? ORDER BY sequence", place)

    async def undelivered(self, owner_id: str) -> list[JobRecord]:
        """Returns an owner's jobs whose result was given up on by the courier, oldest first."""
        return await self._jobs(
            "WHERE owner_id = ? AND id IN"
            " (SELECT job_id FROM outbox WHERE due_at IS NULL AND delivered_at IS NULL)"
            " ORDER BY sequence",
            owner_id,
        )

    async def all_of(self, owner_id: str) -> list[JobRecord]:
        """Returns all of an owner's jobs, oldest first."""
        return await self._jobs("WHERE owner_id = ? ORDER BY sequence", owner_id)

    async def forget_owner(self, owner_id: str, now: datetime) -> tuple[int, list[str], list[str]]:
        """Removes all of an owner's jobs that have ended.

        What they have used up of a place's limits today is kept as two numbers.

        Returns:
            How many jobs; the paths of their pictures, and of those that they alone started from.
        """
        own = "SELECT id FROM jobs WHERE owner_id = ? AND finished_at IS NOT NULL"

        def work(db: sqlite3.Connection) -> tuple[int, list[str], list[str]]:
            ids = [row["id"] for row in db.execute(own, (owner_id,))]
            for row in db.execute(
                "SELECT DISTINCT place FROM jobs WHERE owner_id = ? AND place IN"
                " (SELECT place FROM rules)",
                (owner_id,),
            ).fetchall():
                _keep_spent(db, row["place"], owner_id, now)
            paths = db.execute(f"SELECT path FROM images WHERE job_id IN ({own})", (owner_id,))  # noqa: S608 # ours
            drawn = [str(row["path"]) for row in paths]
            sources = _release(db, ids)
            db.execute(f"DELETE FROM jobs WHERE id IN ({own})", (owner_id,))  # noqa: S608 # ours
            return len(ids), drawn, sources

        return await self._write(work)

    async def received(self, job_ids: Sequence[str], now: datetime) -> None:
        """Notes that results arrived after all that had been given up on."""
        await self._execute(
            "UPDATE outbox SET delivered_at = ? WHERE due_at IS NULL AND delivered_at IS NULL"
            " AND job_id IN (SELECT value FROM json_each(?))",
            now.timestamp(),
            json.dumps(list(job_ids)),
        )

    async def figures(self, owner_id: str) -> Figures:
        """Returns what an owner has asked for so far, as far as it is not forgotten."""
        (row,) = await self._rows(
            "SELECT count(*) AS requests, min(created_at) AS since, total(seconds) AS seconds,"
            " coalesce(sum(CASE WHEN status = 'done' THEN"
            "  coalesce(json_extract(request, '$.count'), 1) END), 0) AS pictures"
            " FROM jobs WHERE owner_id = ?",
            owner_id,
        )
        since = _time(row["since"]) if row["since"] is not None else None
        return Figures(row["requests"], row["pictures"], row["seconds"], since)

    # Pictures

    async def image(self, image_id: str) -> ImageRecord | None:
        """Returns a picture's row, or None where there is none of this id."""
        row = await self._row("SELECT * FROM images WHERE id = ?", image_id)
        return _image(row) if row else None

    async def forget_images(self, job_id: str) -> list[str]:
        """Removes the rows of a job's pictures.

        Returns:
            The path of the picture that it started from, where no other job does.
        """

        def work(db: sqlite3.Connection) -> list[str]:
            db.execute("DELETE FROM images WHERE job_id = ?", (job_id,))
            return _release(db, [job_id])

        return await self._write(work)

    # Deliveries

    async def claim_due(
        self, now: datetime, until: datetime, front_ends: Sequence[str], limit: int
    ) -> list[Delivery]:
        """Returns what is to be delivered now by one of these front ends, oldest first.

        Each counts as tried and is due again at ``until``, should nothing be heard of it.
        """
        rows = await self._execute(
            "UPDATE outbox SET due_at = ?, attempts = attempts + 1 WHERE job_id IN ("  # noqa: S608 # marks are question marks
            " SELECT job_id FROM outbox JOIN jobs ON jobs.id = job_id"
            f" WHERE due_at <= ? AND {_of(front_ends)} ORDER BY due_at LIMIT ?)"
            " RETURNING job_id, attempts",
            until.timestamp(),
            now.timestamp(),
            *front_ends,
            limit,
        )
        return [Delivery(row["job_id"], row["attempts"]) for row in rows]

    async def claim_anew(self, now: datetime) -> None:
        """Makes due at once what an earlier process had claimed or put off."""
        await self._execute(
            "UPDATE outbox SET due_at = ?1 WHERE due_at > ?1",
            now.timestamp(),
        )

    async def next_due(self, front_ends: Sequence[str]) -> datetime | None:
        """Returns when the next delivery is due; None where nothing waits."""
        row = await self._row(
            "SELECT min(due_at) AS due_at FROM outbox JOIN jobs ON jobs.id = job_id"  # noqa: S608 # marks are question marks
            f" WHERE due_at IS NOT NULL AND {_of(front_ends)}",
            *front_ends,
        )
        return _time(row["due_at"]) if row and row["due_at"] is not None else None

    async def delivered(self, job_id: str, now: datetime) -> None:
        """Notes that a result arrived; it is never sent again."""
        await self._execute(
            "UPDATE outbox SET due_at = NULL, delivered_at = ? WHERE job_id = ?",
            now.timestamp(),
            job_id,
        )

    async def postpone(self, job_id: str, due_at: datetime | None, error: str) -> None:
        """Notes that a delivery failed and when it is tried again; None gives it up."""
        await self._execute(
            "UPDATE outbox SET due_at = ?, last_error = ? WHERE job_id = ?",
            due_at.timestamp() if due_at else None,
            error,
            job_id,
        )

    # Places

    async def mode_of(self, place: str) -> str | None:
        """Returns the mode that a place has chosen, or None."""
        row = await self._row("SELECT mode FROM places WHERE place = ?", place)
        return str(row["mode"]) if row else None

    async def choose_mode(
        self, place: str, mode: str, by: Owner | None = None, now: datetime | None = None
    ) -> None:
        """Keeps a place's choice, and who made it."""

        def work(db: sqlite3.Connection) -> None:
            db.execute(
                "INSERT INTO places (place, mode) VALUES (?, ?)"
                " ON CONFLICT (place) DO UPDATE SET mode = excluded.mode",
                (place, mode),
            )
            if by and now:
                _audit_row(db, place, by, f"Mode: {mode}", now)

        await self._write(work)

    async def standing(self, place: str, member_id: str) -> Standing:
        """Returns a place's rules and a member's block there."""

        def work(db: sqlite3.Connection) -> Standing:
            row = db.execute(
                "SELECT * FROM blocks WHERE place = ? AND member_id = ?", (place, member_id)
            ).fetchone()
            block = Block(row["reason"], row["by_name"], _time(row["created_at"])) if row else None
            return Standing(_rules(db, place), block)

        return await self._read(work)

    async def usage(self, place: str, member_id: str, now: datetime) -> Usage:
        """Returns what a member has asked for in a place."""
        return await self._read(partial(_usage, place=place, member_id=member_id, now=now))

    async def change_rules(
        self, place: str, change: Callable[[Rules], Rules], by: Owner, now: datetime
    ) -> Rules:
        """Changes a place's rules, notes what has changed, and returns them."""

        def work(db: sqlite3.Connection) -> Rules:
            before = _rules(db, place)
            after = change(before)
            db.execute(
                "INSERT INTO rules (place, rules) VALUES (?, ?)"
                " ON CONFLICT (place) DO UPDATE SET rules = excluded.rules",
                (place, _RULES.dump_json(after).decode()),
            )
            for what in changes(before, after):
                _audit_row(db, place, by, what, now)
            return after

        return await self._write(work)

    async def block(self, place: str, member: Owner, reason: str, by: Owner, now: datetime) -> None:
        """Keeps a member's block; a new reason takes the place of an old one."""

        def work(db: sqlite3.Connection) -> None:
            db.execute(
                "INSERT OR REPLACE INTO blocks (place, member_id, reason, by_name, created_at)"
                " VALUES (?, ?, ?, ?, ?)",
                (place, member.id, reason, by.name, now.timestamp()),
            )
            _audit_row(db, place, by, f"Blocked: {member.name}, {reason or 'no reason given'}", now)

        await self._write(work)

    async def unblock(self, place: str, member: Owner, by: Owner, now: datetime) -> bool:
        """Removes a member's block; False where there is none."""

        def work(db: sqlite3.Connection) -> bool:
            cursor = db.execute(
                "DELETE FROM blocks WHERE place = ? AND member_id = ?", (place, member.id)
            )
            if cursor.rowcount:
                _audit_row(db, place, by, f"Unblocked: {member.name}", now)
            return cursor.rowcount > 0

        return await self._write(work)

    async def audit(self, place: str, limit: int) -> list[AuditEntry]:
        """Returns a place's newest changes, newest first."""
        rows = await self._rows(
            "SELECT * FROM audit WHERE place = ? ORDER BY sequence DESC LIMIT ?", place, limit
        )
        return [
            AuditEntry(Owner(row["by_id"], row["by_name"]), row["what"], _time(row["created_at"]))
            for row in rows
        ]

    # Housekeeping

    async def disposable(self, limit: int) -> list[FinishedJob]:
        """Returns what may be forgotten, oldest first: nothing unfinished, undelivered or in use.

        In use is what an unfinished job repeats or varies.
        """
        rows = await self._rows(
            "SELECT id, finished_at, (SELECT json_group_array(path) FROM images"  # noqa: S608 # ours
            f" WHERE job_id = jobs.id) AS paths FROM jobs WHERE {_DISPOSABLE}"
            " ORDER BY finished_at, sequence LIMIT ?",
            limit,
        )
        return [
            FinishedJob(row["id"], _time(row["finished_at"]), tuple(json.loads(row["paths"])))
            for row in rows
        ]

    async def forget(self, job_ids: Sequence[str]) -> list[str]:
        """Removes jobs that may still be forgotten.

        Returns:
            The paths of their pictures, and of those that they alone started from.
        """
        some = "SELECT value FROM json_each(?)"

        def work(db: sqlite3.Connection) -> list[str]:
            ids = [
                row["id"]
                for row in db.execute(
                    f"SELECT id FROM jobs WHERE id IN ({some}) AND {_DISPOSABLE}",  # noqa: S608 # ours
                    (json.dumps(job_ids),),
                )
            ]
            chosen = (json.dumps(ids),)
            paths = db.execute(f"SELECT path FROM images WHERE job_id IN ({some})", chosen)  # noqa: S608 # ours
            found = [str(row["path"]) for row in paths] + _release(db, ids)
            db.execute(f"DELETE FROM jobs WHERE id IN ({some})", chosen)  # noqa: S608 # ours
            return found

        return await self._write(work)

    async def shrink(self, pages: int = 1000) -> bool:
        """Gives some of the file's free pages back to the disk; False where there are none."""

        def work(db: sqlite3.Connection) -> bool:
            # Each row that is fetched frees a page.
            db.execute(f"PRAGMA incremental_vacuum({pages:d})").fetchall()
            return bool(db.execute("PRAGMA freelist_count").fetchone()[0])

        return await self._write(work)

    async def unknown(self, paths: Sequence[str]) -> list[str]:
        """Returns those paths that no picture has, drawn or to draw from."""
        rows = await self._rows(
            "SELECT value FROM json_each(?) WHERE value NOT IN"
            " (SELECT path FROM images UNION SELECT path FROM sources)",
            json.dumps(paths),
        )
        return [str(row["value"]) for row in rows]

    async def oldest(self) -> datetime | None:
        """Returns when the oldest job that is known was asked for; None where there is none."""
        row = await self._row("SELECT created_at FROM jobs ORDER BY sequence LIMIT 1")
        return _time(row["created_at"]) if row else None

    # Access

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
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._reading, work, self._reader)
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
                    pictures[row["job_id"]].append(_image(row))
            finally:
                db.execute("COMMIT")
            return [_job(row, pictures[row["id"]]) for row in rows]

        return await self._read(work)


def _begin(db: sqlite3.Connection, job_id: str) -> bool:
    return _move(db, job_id, JobStatus.RUNNING, {"attempts": "attempts + 1"})


def _move(
    db: sqlite3.Connection,
    job_id: str,
    status: JobStatus,
    changes: Mapping[str, str],
    *values: object,
) -> bool:
    """Gives a job a status, where its old one allows that; says whether it did.

    Args:
        db: in a transaction.
        job_id: whose.
        status: the new one.
        changes: further columns, each with an expression.
        values: of the expressions' question marks.
    """
    columns = "".join(f", {column} = {expression}" for column, expression in changes.items())
    cursor = db.execute(
        f"UPDATE jobs SET status = ?{columns}"  # noqa: S608 # ours
        f" WHERE id = ? AND status IN ({_marks(status.predecessors)})",
        (status, *values, job_id, *status.predecessors),
    )
    return cursor.rowcount == 1


def _rules(db: sqlite3.Connection, place: str) -> Rules:
    row = db.execute("SELECT rules FROM rules WHERE place = ?", (place,)).fetchone()
    return _RULES.validate_json(row["rules"]) if row else Rules()


def _usage(db: sqlite3.Connection, place: str | None, member_id: str, now: datetime) -> Usage:
    row = db.execute(
        "SELECT coalesce(sum(finished_at IS NULL), 0) AS unfinished, max(created_at) AS last_at,"
        " coalesce(sum(CASE WHEN created_at >= ? AND status NOT IN ('failed', 'cancelled')"
        "  THEN coalesce(json_extract(request, '$.count'), 1) END), 0) AS pictures"
        " FROM jobs WHERE owner_id = ? AND place = ? AND (created_at >= ? OR finished_at IS NULL)",
        (
            day_of(now).timestamp(),
            member_id,
            place,
            (now - timedelta(days=1)).timestamp(),
        ),
    ).fetchone()
    spent = db.execute(
        "SELECT * FROM spent WHERE place = ? AND member_id = ? AND day = ?",
        (place, member_id, day_of(now).timestamp()),
    ).fetchone()
    times = [row["last_at"], spent["last_at"] if spent else None]
    last_at = max((_time(at) for at in times if at is not None), default=None)
    before = spent["pictures"] if spent else 0
    return Usage(row["unfinished"], row["pictures"] + before, last_at)


def _keep_spent(db: sqlite3.Connection, place: str, member_id: str, now: datetime) -> None:
    """Keeps what a member has used up of a place's limits, apart from the jobs."""
    usage = _usage(db, place, member_id, now)
    if usage.pictures or usage.last_at:
        db.execute(
            "INSERT OR REPLACE INTO spent (place, member_id, day, pictures, last_at)"
            " VALUES (?, ?, ?, ?, ?)",
            (
                place,
                member_id,
                day_of(now).timestamp(),
                usage.pictures,
                usage.last_at.timestamp() if usage.last_at else None,
            ),
        )


def _audit_row(db: sqlite3.Connection, place: str, by: Owner, what: str, now: datetime) -> None:
    db.execute(
        "INSERT INTO audit (place, by_id, by_name, what, created_at) VALUES (?, ?, ?, ?, ?)",
        (place, by.id, by.name, what, now.timestamp()),
    )


def _release(db: sqlite3.Connection, job_ids: Sequence[str]) -> list[str]:
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


def _of(front_ends: Sequence[str]) -> str:
    return f"front_end IN ({_marks(front_ends)})"


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))


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
