"""The store's rows of what members have chosen for themselves, and of what they are still asked."""

import sqlite3
from datetime import datetime, timedelta

from pydantic import TypeAdapter

from bot.preferences import Preferences
from bot.store_access import StoreAccess
from bot.wishes import Wish

_PREFERENCES = TypeAdapter(Preferences)
_WISH = TypeAdapter(Wish)

WISH_LIFE = timedelta(days=1)
"""How long a wish waits to be confirmed; Discord's address of a picture lives no longer."""

MOST_WISHES = 100
"""How many wait for one member; one more ends the oldest one's waiting."""


class PreferenceRows(StoreAccess):
    """Members' own defaults, and wishes that wait for a word of theirs."""

    async def preferences(self, member_id: str) -> Preferences:
        """Returns a member's own defaults."""
        row = await self._row("SELECT * FROM preferences WHERE member_id = ?", member_id)
        return _PREFERENCES.validate_json(row["preferences"]) if row else Preferences()

    async def prefer(self, member_id: str, preferences: Preferences) -> None:
        """Keeps a member's own defaults; nothing where they are everybody's."""

        def work(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM preferences WHERE member_id = ?", (member_id,))
            if preferences != Preferences():
                db.execute(
                    "INSERT INTO preferences (member_id, preferences) VALUES (?, ?)",
                    (member_id, _PREFERENCES.dump_json(preferences).decode()),
                )

        await self._write(work)

    async def keep_wish(self, wish_id: str, member_id: str, wish: Wish, now: datetime) -> None:
        """Keeps what a member is asked to confirm; what nobody has confirmed for long goes."""

        def work(db: sqlite3.Connection) -> None:
            oldest = (now - WISH_LIFE).timestamp()
            db.execute("DELETE FROM wishes WHERE created_at < ?", (oldest,))
            db.execute(
                "DELETE FROM wishes WHERE id IN (SELECT id FROM wishes WHERE member_id = ?"
                " ORDER BY created_at DESC LIMIT -1 OFFSET ?)",
                (member_id, MOST_WISHES - 1),
            )
            db.execute(
                "INSERT INTO wishes (id, member_id, wish, created_at) VALUES (?, ?, ?, ?)",
                (wish_id, member_id, _WISH.dump_json(wish).decode(), now.timestamp()),
            )

        await self._write(work)

    async def wish(self, wish_id: str, now: datetime) -> tuple[str, Wish] | None:
        """Returns what waits to be confirmed, and whose it is; None where nothing does any more."""
        row = await self._row(
            "SELECT * FROM wishes WHERE id = ? AND created_at >= ?",
            wish_id,
            (now - WISH_LIFE).timestamp(),
        )
        return (row["member_id"], _WISH.validate_json(row["wish"])) if row else None

    async def wishes_of(self, member_id: str) -> list[Wish]:
        """Returns all that a member is still asked to confirm, oldest first."""
        rows = await self._rows(
            "SELECT wish FROM wishes WHERE member_id = ? ORDER BY created_at", member_id
        )
        return [_WISH.validate_json(row["wish"]) for row in rows]

    async def drop_wish(self, wish_id: str) -> bool:
        """Removes what waited to be confirmed; False where somebody did so before."""
        gone = await self._execute("DELETE FROM wishes WHERE id = ? RETURNING id", wish_id)
        return bool(gone)

    async def note_address(self, job_id: str, name: str, value: int) -> None:
        """Adds to a job's address what became known after it was stored."""
        await self._execute(
            "UPDATE jobs SET address = json_set(address, '$.' || ?, ?) WHERE id = ?",
            name,
            value,
            job_id,
        )


def forget_choices(db: sqlite3.Connection, member_id: str) -> None:
    """Removes a member's own defaults and what they were still to confirm."""
    db.execute("DELETE FROM preferences WHERE member_id = ?", (member_id,))
    db.execute("DELETE FROM wishes WHERE member_id = ?", (member_id,))
