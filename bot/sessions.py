"""Browsers that are signed in to the page, kept so that a restart signs nobody out."""

from datetime import UTC, datetime

from bot.records import Session
from bot.store import Store


class KeptSessions:
    """What the store knows of them."""

    def __init__(self, store: Store) -> None:
        """Takes the store, open."""
        self._store = store

    async def all(self) -> list[Session]:
        """Returns all that are kept, those that end first first; some may have ended."""
        return await self._store.sessions()

    async def add(self, session: Session, most: int) -> None:
        """Keeps one; beyond so many what ends first goes."""
        await self._store.add_session(session, datetime.now(UTC), most)

    async def remove(self, key: str) -> None:
        """Forgets one; an unknown one is no error."""
        await self._store.remove_session(key)
