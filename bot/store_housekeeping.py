"""The store's rows that may be forgotten, and the file's own upkeep."""

import json
import sqlite3
from collections.abc import Sequence
from datetime import datetime

from bot.records import FinishedJob
from bot.store_access import StoreAccess, release, time_of

# Finished, delivered or given up, and nothing unfinished was made from it.
_DISPOSABLE = (
    "finished_at IS NOT NULL"
    " AND id NOT IN (SELECT job_id FROM outbox WHERE due_at IS NOT NULL)"
    " AND id NOT IN (SELECT parent_id FROM jobs WHERE finished_at IS NULL"
    "  AND parent_id IS NOT NULL)"
)

# A job's pictures, and the one that it starts from where it is the last to go of all that hold it.
_FREED = (
    "SELECT path FROM images WHERE job_id = old.id UNION ALL"  # noqa: S608 # ours
    " SELECT path FROM sources AS own WHERE job_id = old.id AND NOT EXISTS"
    "  (SELECT 1 FROM sources AS other JOIN jobs ON jobs.id = other.job_id"
    "   WHERE other.path = own.path"
    f"   AND (NOT ({_DISPOSABLE}) OR (finished_at, sequence) > (old.finished_at, old.sequence)))"
)


class HousekeepingRows(StoreAccess):
    """What may go, and what is left then."""

    async def disposable(self, limit: int) -> list[FinishedJob]:
        """Returns what may be forgotten, oldest first: nothing unfinished, undelivered or in use.

        In use is what an unfinished job repeats or varies.
        """
        rows = await self._rows(
            "SELECT id, finished_at,"  # noqa: S608 # ours
            f" (SELECT json_group_array(path) FROM ({_FREED})) AS paths FROM"
            f" (SELECT id, finished_at, sequence FROM jobs WHERE {_DISPOSABLE}"
            "  ORDER BY finished_at, sequence LIMIT ?) AS old ORDER BY finished_at, sequence",
            limit,
        )
        return [
            FinishedJob(row["id"], time_of(row["finished_at"]), tuple(json.loads(row["paths"])))
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
            found = [str(row["path"]) for row in paths] + release(db, ids)
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
        return time_of(row["created_at"]) if row else None
