"""The store's rows of places: their modes, rules, blocks, audits, and what members use up there."""

import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from functools import partial

from pydantic import TypeAdapter

from bot.records import Owner
from bot.rules import AuditEntry, Block, Rules, Standing, Usage, changes, day_of
from bot.store_access import StoreAccess, time_of

_RULES = TypeAdapter(Rules)


class PlaceRows(StoreAccess):
    """What a place allows, and who changed it."""

    async def chosen_modes(self, place: str, channels: Iterable[str] = ()) -> list[str]:
        """Returns the modes that the channels have chosen and then the place, as they count."""
        # A thread is younger than its channel, and so its id is larger: it goes first.
        young = sorted(channels, key=lambda ident: (len(ident), ident), reverse=True)
        keys = [*(_channel(place, ident) for ident in young), place]
        rows = await self._rows(
            "SELECT mode FROM places JOIN json_each(?) AS asked ON place = asked.value"
            " ORDER BY asked.key",
            json.dumps(keys),
        )
        return [str(row["mode"]) for row in rows]

    async def forget_mode(
        self, place: str, by: Owner, now: datetime, channel: str | None = None
    ) -> bool:
        """Removes what a place, or a channel in it, has chosen; False where it has not."""

        def work(db: sqlite3.Connection) -> bool:
            cursor = db.execute("DELETE FROM places WHERE place = ?", (_channel(place, channel),))
            if cursor.rowcount:
                note_change(db, place, by, f"Mode{_where(channel)}: none of its own", now)
            return cursor.rowcount > 0

        return await self._write(work)

    async def choose_mode(
        self,
        place: str,
        mode: str,
        by: Owner | None = None,
        now: datetime | None = None,
        channel: str | None = None,
    ) -> None:
        """Keeps the choice of a place, or of a channel in it, and who made it."""

        def work(db: sqlite3.Connection) -> None:
            db.execute(
                "INSERT INTO places (place, mode) VALUES (?, ?)"
                " ON CONFLICT (place) DO UPDATE SET mode = excluded.mode",
                (_channel(place, channel), mode),
            )
            if by and now:
                note_change(db, place, by, f"Mode{_where(channel)}: {mode}", now)

        await self._write(work)

    async def standing(self, place: str, member_id: str) -> Standing:
        """Returns a place's rules and a member's block there."""

        def work(db: sqlite3.Connection) -> Standing:
            row = db.execute(
                "SELECT * FROM blocks WHERE place = ? AND member_id = ?", (place, member_id)
            ).fetchone()
            block = (
                Block(row["reason"], row["by_name"], time_of(row["created_at"])) if row else None
            )
            return Standing(_rules(db, place), block)

        return await self._read(work)

    async def usage(self, place: str, member_id: str, now: datetime) -> Usage:
        """Returns what a member has asked for in a place."""
        return await self._read(partial(usage_of, place=place, member_id=member_id, now=now))

    async def change_rules(
        self, place: str, change: Callable[[Rules], Rules], by: Owner, now: datetime
    ) -> Rules:
        """Changes a place's rules, notes what has changed, and returns them."""

        def work(db: sqlite3.Connection) -> Rules:
            before = _rules(db, place)
            after = change(before)
            db.execute(
                "INSERT INTO rules (place, rules) VALUES (?, ?)"
                " ON CONFLICT (place) DO UPDATE SET rules = excluded.rules",
                (place, _RULES.dump_json(after).decode()),
            )
            for what in changes(before, after):
                note_change(db, place, by, what, now)
            return after

        return await self._write(work)

    async def block(self, place: str, member: Owner, reason: str, by: Owner, now: datetime) -> None:
        """Keeps a member's block; a new reason takes the place of an old one."""

        def work(db: sqlite3.Connection) -> None:
            db.execute(
                "INSERT OR REPLACE INTO blocks (place, member_id, reason, by_name, created_at)"
                " VALUES (?, ?, ?, ?, ?)",
                (place, member.id, reason, by.name, now.timestamp()),
            )
            note_change(
                db, place, by, f"Blocked: {member.name}, {reason or 'no reason given'}", now
            )

        await self._write(work)

    async def unblock(self, place: str, member: Owner, by: Owner, now: datetime) -> bool:
        """Removes a member's block; False where there is none."""

        def work(db: sqlite3.Connection) -> bool:
            cursor = db.execute(
                "DELETE FROM blocks WHERE place = ? AND member_id = ?", (place, member.id)
            )
            if cursor.rowcount:
                note_change(db, place, by, f"Unblocked: {member.name}", now)
            return cursor.rowcount > 0

        return await self._write(work)

    async def note(self, place: str, by: Owner, what: str, now: datetime) -> None:
        """Keeps what somebody did in a place."""
        await self._write(lambda db: note_change(db, place, by, what, now))

    async def audit(self, places: Sequence[str] | None, limit: int) -> list[AuditEntry]:
        """Returns the newest changes of some places, or of all, newest first."""
        rows = await self._rows(
            "SELECT * FROM audit WHERE ?1 IS NULL OR place IN (SELECT value FROM json_each(?1))"
            " ORDER BY sequence DESC LIMIT ?2",
            None if places is None else json.dumps(list(places)),
            limit,
        )
        return [
            AuditEntry(
                Owner(row["by_id"], row["by_name"]),
                row["what"],
                time_of(row["created_at"]),
                row["place"],
            )
            for row in rows
        ]


def _channel(place: str, channel: str | None) -> str:
    return f"{place}#{channel}" if channel else place


def _where(channel: str | None) -> str:
    return f" in <#{channel}>" if channel else ""


def _rules(db: sqlite3.Connection, place: str) -> Rules:
    row = db.execute("SELECT rules FROM rules WHERE place = ?", (place,)).fetchone()
    return _RULES.validate_json(row["rules"]) if row else Rules()


def usage_of(db: sqlite3.Connection, place: str | None, member_id: str, now: datetime) -> Usage:
    """Returns what a member has asked for in a place."""
    row = db.execute(
        "SELECT coalesce(sum(finished_at IS NULL), 0) AS unfinished, max(created_at) AS last_at,"
        " coalesce(sum(CASE WHEN created_at >= ?1 AND status NOT IN ('failed', 'cancelled')"
        "  THEN coalesce(json_extract(request, '$.count'), 1) END), 0) AS pictures,"
        " coalesce(sum(CASE WHEN created_at >= ?1 AND status NOT IN ('failed', 'cancelled')"
        "  THEN coalesce(json_extract(request, '$.count'), 1) * json_extract(request, '$.width')"
        "  * json_extract(request, '$.height') * json_extract(request, '$.steps') END), 0)"
        " AS pixel_steps FROM jobs WHERE owner_id = ?2 AND place = ?3"
        "  AND (created_at >= ?4 OR finished_at IS NULL)",
        (
            day_of(now).timestamp(),
            member_id,
            place,
            (now - timedelta(days=1)).timestamp(),
        ),
    ).fetchone()
    spent = db.execute(
        "SELECT * FROM spent WHERE place = ? AND member_id = ? AND day = ?",
        (place, member_id, day_of(now).timestamp()),
    ).fetchone()
    times = [row["last_at"], spent["last_at"] if spent else None]
    last_at = max((time_of(at) for at in times if at is not None), default=None)
    pictures, pixel_steps = (spent["pictures"], spent["pixel_steps"]) if spent else (0, 0)
    return Usage(
        row["unfinished"], row["pictures"] + pictures, last_at, row["pixel_steps"] + pixel_steps
    )


def keep_spent(db: sqlite3.Connection, place: str, member_id: str, now: datetime) -> None:
    """Keeps what a member has used up of a place's limits, apart from the jobs."""
    usage = usage_of(db, place, member_id, now)
    if usage.pictures or usage.last_at:
        db.execute(
            "INSERT OR REPLACE INTO spent (place, member_id, day, pictures, last_at, pixel_steps)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (
                place,
                member_id,
                day_of(now).timestamp(),
                usage.pictures,
                usage.last_at.timestamp() if usage.last_at else None,
                usage.pixel_steps,
            ),
        )


def note_change(db: sqlite3.Connection, place: str, by: Owner, what: str, now: datetime) -> None:
    """Adds a row to a place's list of changes."""
    db.execute(
        "INSERT INTO audit (place, by_id, by_name, what, created_at) VALUES (?, ?, ?, ?, ?)",
        (place, by.id, by.name, what, now.timestamp()),
    )
