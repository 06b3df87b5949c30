"""What is whose: a member's pictures, page by page, and what is still theirs to have."""

import asyncio
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from weakref import WeakValueDictionary

from bot.preferences import Preferences
from bot.records import Figures, JobRecord, Search
from bot.store import Store
from bot.wishes import Wish
from engine.jobs import new_job_id

PAGE = 4
"""Requests on a page of somebody's history."""

_ALL = Search()


@dataclass(frozen=True, slots=True)
class Page:
    """A part of somebody's history.

    Attributes:
        jobs: with pictures, newest first.
        has_newer: whether others come before it.
        has_older: whether others follow.
    """

    jobs: tuple[JobRecord, ...]
    has_newer: bool = False
    has_older: bool = False


class Members:
    """What the store knows of one member, for this member."""

    def __init__(self, store: Store) -> None:
        """Takes the store, open."""
        self._store = store
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def page(
        self,
        owner_id: str,
        *,
        before: str | None = None,
        after: str | None = None,
        size: int = PAGE,
        search: Search = _ALL,
    ) -> Page:
        """Returns a page of an owner's pictures; the newest where there is no such page.

        Args:
            owner_id: whose.
            before: the oldest job of the page that is left for an older one.
            after: the newest job of the page that is left for a newer one.
            size: requests on a page, at most.
            search: which of them; all unless told.
        """
        # A search reads all of their prompts: the others' reads go between two of them.
        turn = self._turns.setdefault(owner_id, asyncio.Lock()) if search.words else nullcontext()
        async with turn:
            found = await self._store.pictured(
                owner_id, size + 1, before=before, after=after, search=search
            )
        if not found and (before or after):
            return await self.page(owner_id, size=size, search=search)
        more = len(found) > size
        if after:
            return Page(tuple(found[-size:]), has_newer=more, has_older=True)
        return Page(tuple(found[:size]), has_newer=before is not None, has_older=more)

    async def modes(self, owner_id: str) -> list[str]:
        """Returns the modes that drew an owner's pictures, by name; some may be gone."""
        return await self._store.modes_of(owner_id)

    async def failed(self, limit: int, owner_id: str | None = None) -> list[JobRecord]:
        """Returns what failed last, an owner's or everybody's, newest first."""
        return await self._store.failed(limit, owner_id)

    async def unfinished(self, owner_id: str) -> list[JobRecord]:
        """Returns what an owner has waiting or running, oldest first."""
        return await self._store.unfinished_of(owner_id)

    async def unfinished_at(self, place: str) -> list[JobRecord]:
        """Returns what a place has waiting or running, oldest first."""
        return await self._store.unfinished_at(place)

    async def undelivered(self, owner_id: str) -> list[JobRecord]:
        """Returns what could not be brought to an owner, oldest first."""
        return await self._store.undelivered(owner_id)

    async def everything(self, owner_id: str) -> list[JobRecord]:
        """Returns all that is kept of an owner, oldest first."""
        return await self._store.all_of(owner_id)

    async def received(self, jobs: Sequence[JobRecord]) -> None:
        """Notes that their owner has seen what could not be brought."""
        await self._store.received([job.id for job in jobs], datetime.now(UTC))

    async def figures(self, owner_id: str) -> Figures:
        """Returns what an owner has asked for so far."""
        return await self._store.figures(owner_id)

    # Their own choices

    async def preferences(self, owner_id: str) -> Preferences:
        """Returns an owner's own defaults."""
        return await self._store.preferences(owner_id)

    async def prefer(self, owner_id: str, preferences: Preferences) -> None:
        """Keeps an owner's own defaults."""
        await self._store.prefer(owner_id, preferences)

    async def keep_wish(self, wish: Wish, owner_id: str, wish_id: str | None = None) -> str:
        """Keeps what an owner is to confirm; returns its id, a new one unless given."""
        wish_id = wish_id or new_job_id()
        await self._store.keep_wish(wish_id, owner_id, wish, datetime.now(UTC))
        return wish_id

    async def kept_wish(self, wish_id: str) -> tuple[str, Wish] | None:
        """Returns what is to be confirmed, and by whom; None where nothing is any more."""
        return await self._store.wish(wish_id, datetime.now(UTC))

    async def kept_wishes(self, owner_id: str) -> list[Wish]:
        """Returns all that an owner is still to confirm, oldest first."""
        return await self._store.wishes_of(owner_id)

    async def drop_wish(self, wish_id: str) -> bool:
        """Removes what was to be confirmed; False where somebody did so before."""
        return await self._store.drop_wish(wish_id)
