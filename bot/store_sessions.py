"""The store's rows of browsers that are signed in to the page."""

import sqlite3
from datetime import datetime

from bot.records import Session
from bot.store_access import StoreAccess, time_of


class SessionRows(StoreAccess):
    """Who is signed in; nothing here opens the page."""

    async def sessions(self) -> list[Session]:
        """Returns all that are kept, those that end first first."""
        rows = await self._rows("SELECT * FROM sessions ORDER BY expires_at")
        return [Session(row["key"], row["token"], time_of(row["expires_at"])) for row in rows]

    async def add_session(self, session: Session, now: datetime, most: int) -> None:
        """Keeps one; what has ended goes, and beyond so many what ends first."""

        def work(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM sessions WHERE expires_at <= ?", (now.timestamp(),))
            db.execute(
                "INSERT INTO sessions (key, token, expires_at) VALUES (?, ?, ?)",
                (session.key, session.token, session.expires_at.timestamp()),
            )
            db.execute(
                "DELETE FROM sessions WHERE key IN (SELECT key FROM sessions"
                " ORDER BY expires_at DESC, rowid DESC LIMIT -1 OFFSET ?)",
                (most,),
            )

        await self._write(work)

    async def remove_session(self, key: str) -> None:
        """Forgets one; an unknown one is no error."""
        await self._execute("DELETE FROM sessions WHERE key = ?", key)
