"""The store: every statement of the project, rows in and out as frozen objects.

Jobs and pictures are here; each other noun has a file of its own (``store_*.py``).
"""

import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial

from bot.records import ImageRecord, JobRecord
from bot.rules import Usage, day_of
from bot.store_access import REQUEST, from_any, image_of, marks, release
from bot.store_history import HistoryRows
from bot.store_housekeeping import HousekeepingRows
from bot.store_lineage import LineageRows, refuse_second
from bot.store_members import MemberRows
from bot.store_outbox import OutboxRows
from bot.store_places import PlaceRows, usage_of
from bot.store_preferences import PreferenceRows
from bot.store_reports import ReportRows
from bot.store_samples import SampleRows
from bot.store_sessions import SessionRows
from engine.jobs import JobStatus


class Store(
    LineageRows,
    MemberRows,
    OutboxRows,
    PlaceRows,
    PreferenceRows,
    ReportRows,
    SampleRows,
    SessionRows,
    HistoryRows,
    HousekeepingRows,
):
    """The rows of one data folder; see `StoreAccess` for what any method may raise."""

    # Jobs

    async def add(self, job: JobRecord, admit: Callable[[Usage], None] = lambda _: None) -> None:
        """Stores a new job; see `add_all`."""
        await self.add_all([job], admit)

    async def add_all(
        self, jobs: Sequence[JobRecord], admit: Callable[[Usage], None] = lambda _: None
    ) -> None:
        """Stores new jobs, all or nothing; they are committed when this returns.

        Args:
            jobs: waiting; of one owner in one place.
            admit: raises to refuse them, by what their owner has asked for in the place before.
                Nothing comes between the look and the jobs.

        Raises:
            OnlyChildError: a parent has the one child of this kind already.
        """
        first = jobs[0]

        def work(db: sqlite3.Connection) -> None:
            today = day_of(first.created_at).timestamp()
            db.execute("DELETE FROM spent WHERE day < ?", (today,))
            for job in jobs:
                refuse_second(db, job.parent)
            admit(usage_of(db, first.origin.place, first.owner.id, first.created_at))
            for job in jobs:
                _insert(db, job)

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
            job: with a final status, ``finished_at``, ``seconds``, ``error`` and ``note`` as they
                came.
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
            ended = {"finished_at": "?", "seconds": "?", "error": "?", "note": "?"}
            told = (finished_at, job.seconds, job.error, job.note)
            if not _move(db, job.id, job.status, ended, *told):
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
            f"WHERE status = 'running' AND {from_any(front_ends)} ORDER BY sequence",
            *front_ends,
        )

    async def requeue(self, front_ends: Sequence[str]) -> list[JobRecord]:
        """Puts what ran when the process ended back in line; returns all that waits, in order."""
        before = marks(JobStatus.QUEUED.predecessors)

        def work(db: sqlite3.Connection) -> None:
            db.execute(
                f"UPDATE jobs SET status = ? WHERE status IN ({before}) AND {from_any(front_ends)}",  # noqa: S608 # marks are question marks
                (JobStatus.QUEUED, *JobStatus.QUEUED.predecessors, *front_ends),
            )

        await self._write(work)
        return await self._jobs(
            f"WHERE finished_at IS NULL AND {from_any(front_ends)} ORDER BY sequence",
            *front_ends,
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

    # Pictures

    async def image(self, image_id: str) -> ImageRecord | None:
        """Returns a picture's row, or None where there is none of this id."""
        row = await self._row("SELECT * FROM images WHERE id = ?", image_id)
        return image_of(row) if row else None

    async def forget_images(self, job_id: str) -> list[str]:
        """Removes the rows of a job's pictures; it is nobody's child any more.

        Returns:
            The path of the picture that it started from, where no other job does.
        """

        def work(db: sqlite3.Connection) -> list[str]:
            db.execute("DELETE FROM images WHERE job_id = ?", (job_id,))
            db.execute(
                "UPDATE jobs SET parent_id = NULL, parent_number = NULL, kinship = NULL"
                " WHERE id = ?",
                (job_id,),
            )
            return release(db, [job_id])

        return await self._write(work)


def _insert(db: sqlite3.Connection, job: JobRecord) -> None:
    parent = job.parent
    values = (
        job.id,
        job.owner.id,
        job.owner.name,
        job.origin.front_end,
        job.origin.place,
        json.dumps(dict(job.origin.address)),
        REQUEST.dump_json(job.request).decode(),
        job.status,
        job.created_at.timestamp(),
        job.parent_id,
        parent and parent.number,
        parent and parent.kinship,
        job.note,
        job.weight,
    )
    db.execute(
        "INSERT INTO jobs (id, owner_id, owner_name, front_end, place, address, request,"
        " status, created_at, parent_id, parent_number, kinship, note, weight)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        values,
    )
    if source := job.request.source:
        db.execute("INSERT INTO sources (job_id, path) VALUES (?, ?)", (job.id, source.as_posix()))


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
        f" WHERE id = ? AND status IN ({marks(status.predecessors)})",
        (status, *values, job_id, *status.predecessors),
    )
    return cursor.rowcount == 1
