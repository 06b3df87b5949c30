"""Pictures that members report, once each."""

from datetime import UTC, datetime

from bot.records import JobRecord
from bot.store import Store


class Reports:
    """What moderators were told of."""

    def __init__(self, store: Store) -> None:
        """Takes the store, open."""
        self._store = store

    async def is_first(self, job: JobRecord) -> bool:
        """Notes a report of a job's pictures; False where moderators know of them already."""
        return await self._store.report(job.id, datetime.now(UTC))

    async def withdraw(self, job: JobRecord) -> None:
        """Forgets a report that could not be brought."""
        await self._store.withdraw_report(job.id)
