"""What came of requests lately, in figures."""

from bot.records import Ended
from bot.store_access import StoreAccess


class HistoryRows(StoreAccess):
    """How it went, as far as the rows tell."""

    async def ended(self, since: float, width: float) -> list[Ended]:
        """Returns what came of the requests that have ended, in slots of time.

        Args:
            since: when slot 0 begins, in seconds since 1970.
            width: seconds of a slot.
        """
        rows = await self._rows(
            "SELECT CAST((finished_at - ?1) / ?2 AS INTEGER) AS slot, count(*) AS requests,"
            " coalesce(sum(CASE WHEN status = 'done' THEN count END), 0) AS pictures,"
            " sum(status = 'failed') AS failed,"
            " avg(wait) AS wait, max(wait) AS longest_wait,"
            " avg(seconds / nullif(count * steps, 0)) AS step"
            " FROM (SELECT finished_at, status, seconds,"
            "  max(finished_at - created_at - seconds, 0.0) AS wait,"
            "  coalesce(json_extract(request, '$.count'), 1) AS count,"
            "  json_extract(request, '$.steps') AS steps"
            "  FROM jobs WHERE finished_at >= ?1)"
            " GROUP BY slot",
            since,
            width,
        )
        return [Ended(**dict(row)) for row in rows]
