"""The store's rows of reports: which pictures moderators were told of."""

from datetime import datetime

from bot.store_access import StoreAccess


class ReportRows(StoreAccess):
    """What was reported; by whom is not kept."""

    async def report(self, job_id: str, now: datetime) -> bool:
        """Notes that a job's pictures were reported; False where they were before."""
        rows = await self._execute(
            "INSERT INTO reports (job_id, created_at) VALUES (?, ?)"
            " ON CONFLICT (job_id) DO NOTHING RETURNING job_id",
            job_id,
            now.timestamp(),
        )
        return bool(rows)

    async def withdraw_report(self, job_id: str) -> None:
        """Forgets a report that reached nobody."""
        await self._execute("DELETE FROM reports WHERE job_id = ?", job_id)
