"""The store's rows as a family: which jobs were made of which pictures."""

import sqlite3

from bot.records import JobRecord, Kinship, Parent
from bot.store_access import StoreAccess
from engine.errors import DreamLabError

_LIVES = "status NOT IN ('failed', 'cancelled')"
_ONLY = f"parent_id = ? AND parent_number = ? AND kinship = ? AND {_LIVES}"


class OnlyChildError(DreamLabError):
    """A picture has its one child of a kind already.

    Attributes:
        child_id: the job that it is.
    """

    def __init__(self, child_id: str) -> None:
        super().__init__("This was asked for already.")
        self.child_id = child_id


class LineageRows(StoreAccess):
    """Parents and children."""

    async def children(self, job_id: str) -> list[JobRecord]:
        """Returns what was made of a job's pictures, oldest first; what came to nothing left out.

        Nothing came of what failed or was cancelled; what was deleted is nobody's child any more.
        """
        return await self._jobs(f"WHERE parent_id = ? AND {_LIVES} ORDER BY sequence", job_id)

    async def only_child(self, parent: Parent) -> JobRecord | None:
        """Returns the one child of a picture; None where there is none, or may be several."""
        if not parent.is_only:
            return None
        found = await self._jobs(f"WHERE {_ONLY}", *_key(parent))
        return found[0] if found else None

    async def used(self, job_id: str) -> frozenset[tuple[Kinship, int]]:
        """Returns which pictures of a job have their one child of which kind."""
        rows = await self._rows(
            "SELECT kinship, parent_number FROM jobs"  # noqa: S608 # ours
            f" WHERE parent_id = ? AND parent_number IS NOT NULL AND {_LIVES}",
            job_id,
        )
        return frozenset((Kinship(row["kinship"]), row["parent_number"]) for row in rows)


def refuse_second(db: sqlite3.Connection, parent: Parent | None) -> None:
    """Refuses a second child where there may be one.

    Raises:
        OnlyChildError: there is one.
    """
    if parent is None or not parent.is_only:
        return
    row = db.execute(f"SELECT id FROM jobs WHERE {_ONLY}", _key(parent)).fetchone()  # noqa: S608 # ours
    if row:
        raise OnlyChildError(row["id"])


def _key(parent: Parent) -> tuple[object, ...]:
    return parent.job_id, parent.number, parent.kinship
