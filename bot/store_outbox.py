"""The store's rows of deliveries: results on their way."""

from collections.abc import Sequence
from datetime import datetime

from bot.records import Delivery
from bot.store_access import StoreAccess, from_any, time_of


class OutboxRows(StoreAccess):
    """What is to be delivered, and when."""

    async def claim_due(
        self, now: datetime, until: datetime, front_ends: Sequence[str], limit: int
    ) -> list[Delivery]:
        """Returns what is to be delivered now by one of these front ends, oldest first.

        Each counts as tried and is due again at ``until``, should nothing be heard of it.
        """
        rows = await self._execute(
            "UPDATE outbox SET due_at = ?, attempts = attempts + 1 WHERE job_id IN ("  # noqa: S608 # marks are question marks
            " SELECT job_id FROM outbox JOIN jobs ON jobs.id = job_id"
            f" WHERE due_at <= ? AND {from_any(front_ends)} ORDER BY due_at LIMIT ?)"
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
            f" WHERE due_at IS NOT NULL AND {from_any(front_ends)}",
            *front_ends,
        )
        return time_of(row["due_at"]) if row and row["due_at"] is not None else None

    async def is_due_to(self, owner_id: str) -> bool:
        """Says whether something is still to be delivered to an owner, now or later."""
        row = await self._row(
            "SELECT 1 FROM outbox JOIN jobs ON jobs.id = job_id"
            " WHERE due_at IS NOT NULL AND owner_id = ? LIMIT 1",
            owner_id,
        )
        return row is not None

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
