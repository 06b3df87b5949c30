"""Browsers that are signed in: how long, how many, and what a store that refuses does to it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bot.database import StoreUnavailableError
from bot.records import Owner, Session
from bot.sessions import KeptSessions
from bot.store import Store
from bot.web.access import YOU
from bot.web.roles import Role, Visitor
from bot.web.sessions import LIFE, Sessions

ADMIN = Visitor(Role.ADMIN, YOU, token="fingerprint")


class Kept(KeptSessions):
    """The real ones, over a store that may refuse for a while."""

    refuses = False

    def _refuse(self) -> None:
        if self.refuses:
            raise StoreUnavailableError("the disk is full")

    async def all(self) -> list[Session]:
        self._refuse()
        return await super().all()

    async def add(self, session: Session, most: int) -> None:
        self._refuse()
        await super().add(session, most)

    async def remove(self, key: str) -> None:
        self._refuse()
        await super().remove(key)


class Clock:
    """Seconds that pass when the test says."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[Kept]:
    async with await Store.open(tmp_path / "dreamlab.db") as store:
        yield Kept(store)


def open_sessions(kept: Kept, clock: Clock | None = None) -> Sessions:
    visitors = {"fingerprint": ADMIN}
    return Sessions(kept, visitors.get, clock or Clock(), most=3)


async def test_they_end_by_themselves(kept: Kept) -> None:
    clock = Clock()
    sessions = open_sessions(kept, clock)
    secret = await sessions.begin(ADMIN)
    clock.now += LIFE - 1
    assert sessions.find(secret) is not None
    clock.now += 1
    assert sessions.find(secret) is None


async def test_the_oldest_ends_where_there_are_too_many_here_and_after_a_restart(
    kept: Kept,
) -> None:
    sessions = open_sessions(kept)
    oldest, *others = [await sessions.begin(ADMIN) for _ in range(4)]
    again = open_sessions(kept)
    await again.recall()
    for known in (sessions, again):
        assert known.find(oldest) is None
        assert None not in [known.find(secret) for secret in others]


async def test_who_signs_in_often_signs_out_nobody_with_another_token(kept: Kept) -> None:
    viewer = Visitor(Role.VIEWER, Owner("web:viewer", "viewer"), token="viewer's")
    visitors = {"fingerprint": ADMIN, "viewer's": viewer}
    sessions = Sessions(kept, visitors.get, Clock(), most=3, most_of_one=2)
    admins = await sessions.begin(ADMIN)
    first = await sessions.begin(viewer)
    others = await asyncio.gather(*(sessions.begin(viewer) for _ in range(2)))
    again = Sessions(kept, visitors.get, Clock())
    await again.recall()
    for known in (sessions, again):
        assert known.find(first) is None
        assert None not in [known.find(secret) for secret in (admins, *others)]


async def test_what_comes_back_ends_when_it_would_have(kept: Kept) -> None:
    secret = await open_sessions(kept).begin(ADMIN)
    clock = Clock()
    again = open_sessions(kept, clock)
    await again.recall()
    visitor = again.find(secret)
    assert visitor is not None
    assert (visitor.role, visitor.owner) == (Role.ADMIN, YOU)
    clock.now += LIFE
    assert again.find(secret) is None


async def test_who_can_not_be_signed_out_for_good_is_told_and_stays(kept: Kept) -> None:
    sessions = open_sessions(kept)
    secret = await sessions.begin(ADMIN)
    visitor = sessions.find(secret)
    assert visitor is not None
    kept.refuses = True
    with pytest.raises(StoreUnavailableError):
        await sessions.end(visitor)
    assert sessions.find(secret) == visitor
    with pytest.raises(StoreUnavailableError):
        await sessions.begin(ADMIN)
    kept.refuses = False
    await sessions.end(visitor)
    assert sessions.find(secret) is None
    assert await kept.all() == []


async def test_who_is_signed_in_is_looked_up_once_the_store_answers(kept: Kept) -> None:
    secret = await open_sessions(kept).begin(ADMIN)
    sessions = open_sessions(kept)
    kept.refuses = True
    await sessions.recall()
    assert sessions.find(secret) is None
    kept.refuses = False
    await sessions.recall()
    assert sessions.find(secret) is not None
