"""The store's rows of reports: which pictures a place's moderators were told of."""

from datetime import datetime

from bot.store_access import StoreAccess


class ReportRows(StoreAccess):
    """What was reported where; by whom is not kept."""

    async def report(self, job_id: str, place: str, now: datetime) -> bool:
        """Notes that a job's pictures were reported in a place; False where they were before."""
        rows = await self._execute(
            "INSERT INTO reports (job_id, place, created_at) VALUES (?, ?, ?)"
            " ON CONFLICT (job_id, place) DO NOTHING RETURNING job_id",
            job_id,
            place,
            now.timestamp(),
        )
        return bool(rows)

    async def withdraw_report(self, job_id: str, place: str) -> None:
        """Forgets a place's report that reached nobody."""
        await self._execute("DELETE FROM reports WHERE job_id = ? AND place = ?", job_id, place)
