"""The store's rows of one member: what they asked for, what is still theirs to have."""

import json
import sqlite3
from collections.abc import Sequence
from datetime import datetime

from bot.records import Figures, JobRecord, Search
from bot.store_access import StoreAccess, release, time_of
from bot.store_places import keep_spent
from bot.store_preferences import forget_choices

_ALL = Search()

_MODE = "json_extract(request, '$.mode')"
_PROMPT = (  # as it was typed
    "coalesce(json_extract(request, '$.typed_prompt'), json_extract(request, '$.prompt'))"
)


class MemberRows(StoreAccess):
    """What is a member's."""

    async def pictured(
        self,
        owner_id: str,
        limit: int,
        *,
        before: str | None = None,
        after: str | None = None,
        search: Search = _ALL,
    ) -> list[JobRecord]:
        """Returns an owner's jobs that have pictures, newest first.

        Args:
            owner_id: whose.
            limit: most that are returned.
            before: only those older than this job of theirs; the nearest to it.
            after: likewise newer. An id that is none of theirs finds nothing.
            search: only those that it finds.
        """
        conditions = ["owner_id = ? AND id IN (SELECT job_id FROM images)"]
        values: list[object] = [owner_id]
        if search.mode is not None:
            conditions.append(f"{_MODE} = ?")
            values.append(search.mode)
        if search.words:
            conditions.append(f"holds({_PROMPT}, ?)")
            values.append(json.dumps([word.casefold() for word in search.words]))
        is_newer = after is not None
        anchor = after if is_newer else before
        if anchor is not None:
            than = "(SELECT sequence FROM jobs WHERE id = ? AND owner_id = ?)"
            conditions.append(f"sequence {'>' if is_newer else '<'} {than}")
            values += [anchor, owner_id]
        order = "sequence" if is_newer else "sequence DESC"
        found = await self._jobs(
            f"WHERE {' AND '.join(conditions)} ORDER BY {order} LIMIT ?", *values, limit
        )
        return found[::-1] if is_newer else found

    async def modes_of(self, owner_id: str) -> list[str]:
        """Returns the modes that drew an owner's pictures, by name."""
        rows = await self._rows(
            f"SELECT DISTINCT {_MODE} AS mode FROM jobs"  # noqa: S608 # ours
            " WHERE owner_id = ? AND id IN (SELECT job_id FROM images) ORDER BY mode",
            owner_id,
        )
        return [str(row["mode"]) for row in rows]

    async def failed(self, limit: int, owner_id: str | None = None) -> list[JobRecord]:
        """Returns the jobs that failed last, an owner's or everybody's, newest first."""
        whose = "" if owner_id is None else " AND owner_id = ?"
        return await self._jobs(
            f"WHERE finished_at IS NOT NULL AND status = 'failed'{whose}"
            " ORDER BY finished_at DESC, sequence DESC LIMIT ?",
            *(() if owner_id is None else (owner_id,)),
            limit,
        )

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

    async def forget_owner(
        self, owner_id: str, now: datetime
    ) -> tuple[list[str], list[str], list[str]]:
        """Removes all of an owner's jobs that have ended.

        What they have used up of a place's limits today is kept as two numbers.

        Returns:
            The ids of the jobs; the paths of their pictures, and of those that they alone started
            from.
        """
        own = "SELECT id FROM jobs WHERE owner_id = ? AND finished_at IS NOT NULL"

        def work(db: sqlite3.Connection) -> tuple[list[str], list[str], list[str]]:
            ids = [str(row["id"]) for row in db.execute(own, (owner_id,))]
            for row in db.execute(
                "SELECT DISTINCT place FROM jobs WHERE owner_id = ? AND place IN"
                " (SELECT place FROM rules)",
                (owner_id,),
            ).fetchall():
                keep_spent(db, row["place"], owner_id, now)
            paths = db.execute(f"SELECT path FROM images WHERE job_id IN ({own})", (owner_id,))  # noqa: S608 # ours
            drawn = [str(row["path"]) for row in paths]
            sources = release(db, ids)
            db.execute(f"DELETE FROM jobs WHERE id IN ({own})", (owner_id,))  # noqa: S608 # ours
            forget_choices(db, owner_id)
            return ids, drawn, sources

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
        since = time_of(row["since"]) if row["since"] is not None else None
        return Figures(row["requests"], row["pictures"], row["seconds"], since)
