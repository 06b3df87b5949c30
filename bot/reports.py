"""Pictures that members report, once in each place."""

from datetime import UTC, datetime

from bot.records import JobRecord
from bot.store import Store


class Reports:
    """What each place's moderators were told of."""

    def __init__(self, store: Store) -> None:
        """Takes the store, open."""
        self._store = store

    async def is_first(self, job: JobRecord, place: str) -> bool:
        """Notes a report of a job's pictures; False where the place's moderators know of them.

        Args:
            job: may have been asked for elsewhere.
            place: where it was reported.
        """
        return await self._store.report(job.id, place, datetime.now(UTC))

    async def withdraw(self, job: JobRecord, place: str) -> None:
        """Forgets a place's report that could not be brought."""
        await self._store.withdraw_report(job.id, place)
