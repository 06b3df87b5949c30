"""A place's rules, whom it has blocked, and who changed what: every change leaves a trace."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from bot.records import Owner
from bot.rules import AuditEntry, Changes, Rules, Standing, Usage, read_reason
from bot.store import Store

SHOWN = 10
"""Changes that are looked back at."""


class House:
    """What admins and moderators decide. Whether they may is the caller's to check."""

    def __init__(
        self, store: Store, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        """Takes the store, open, and the time."""
        self._store = store
        self._now = now

    async def standing(self, place: str | None, owner_id: str) -> Standing:
        """Returns what counts for somebody in a place; without a place nothing does."""
        return await self._store.standing(place, owner_id) if place else Standing()

    async def usage(self, place: str | None, owner_id: str) -> Usage:
        """Returns what somebody has asked for in a place."""
        return await self._store.usage(place, owner_id, self._now()) if place else Usage()

    async def change(self, place: str, by: Owner, changes: Changes) -> Rules:
        """Changes a place's settings and returns all of them.

        Args:
            place: whose.
            by: who changes them.
            changes: see `Rules`; what is not named stays.
        """

        def changed(rules: Rules) -> Rules:
            return replace(rules, **changes)

        return await self._store.change_rules(place, changed, by, self._now())

    async def allow(self, place: str, by: Owner, mode: str, roles: tuple[str, ...]) -> Rules:
        """Lets members with one of some roles alone draw with a mode; without any, everybody."""

        def changed(rules: Rules) -> Rules:
            return rules.with_roles(mode, roles)

        return await self._store.change_rules(place, changed, by, self._now())

    async def block(self, place: str, member: Owner, reason: str, by: Owner) -> None:
        """Has somebody draw here no more; a block that is there gets the new reason.

        Raises:
            RequestError: the reason is too long.
        """
        await self._store.block(place, member, read_reason(reason), by, self._now())

    async def unblock(self, place: str, member: Owner, by: Owner) -> bool:
        """Takes a block back; False where there was none."""
        return await self._store.unblock(place, member, by, self._now())

    async def audit(self, *places: str) -> list[AuditEntry]:
        """Returns the newest changes of places, newest first."""
        return await self._store.audit(places, SHOWN)

    async def whole_audit(self, limit: int) -> list[AuditEntry]:
        """Returns the newest changes of all places, newest first."""
        return await self._store.audit(None, limit)
