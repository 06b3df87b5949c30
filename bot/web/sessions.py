"""Browsers that are signed in: each has a secret, in exchange for a token.

They are asked for at every request and so are held in memory; the store has them, too, so that a
restart ends none. It knows hashes alone, and a session whose token is none any more opens nothing.
"""

import asyncio
import hashlib
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from bot.database import StoreUnavailableError
from bot.records import Session
from bot.sessions import KeptSessions
from bot.web.roles import Visitor

log = logging.getLogger(__name__)

LIFE = 7 * 24 * 3600
"""Seconds that a browser stays signed in."""

MOST = 1000
"""Browsers signed in at once; one more ends the oldest."""

MOST_OF_ONE = 100
"""Likewise with one token, so that nobody signs out who has another."""


class Sessions:
    """Turns a session's secret into a visitor."""

    def __init__(
        self,
        kept: KeptSessions,
        by_fingerprint: Callable[[str], Visitor | None],
        clock: Callable[[], float] = time.monotonic,
        most: int = MOST,
        most_of_one: int = MOST_OF_ONE,
    ) -> None:
        """Takes where they are kept.

        Args:
            kept: over restarts.
            by_fingerprint: returns who has a token now, by `Visitor.token`.
            clock: seconds since some moment, never set back.
            most: of them at once.
            most_of_one: likewise, with one token.
        """
        self._kept = kept
        self._by_fingerprint = by_fingerprint
        self._clock = clock
        self._most = most
        self._most_of_one = most_of_one
        self._visitors: OrderedDict[str, Visitor] = OrderedDict()  # by the hash of the secret
        self._recalling = asyncio.Lock()
        self._beginning = asyncio.Lock()
        self._is_recalled = False

    async def recall(self) -> None:
        """Learns, once, what is kept; where the store refuses, the next call tries again."""
        if not self._is_recalled:
            async with self._recalling:
                await self._recall_all()

    def find(self, secret: str) -> Visitor | None:
        """Returns whose session it is; None where there is none, or no longer."""
        visitor = self._visitors.get(_key(secret))
        if visitor is None or visitor.expires is None or visitor.expires <= self._clock():
            return None
        return visitor

    async def begin(self, visitor: Visitor) -> str:
        """Returns the secret of a new session.

        Args:
            visitor: who came with a token.

        Raises:
            StoreUnavailableError: it can't be kept; there is none.
        """
        assert visitor.token is not None  # noqa: S101 - a token came
        secret = secrets.token_urlsafe(32)
        key = _key(secret)
        expires_at = datetime.now(UTC) + timedelta(seconds=LIFE)
        async with self._beginning:
            await self._make_room(visitor.token)
            await self._kept.add(Session(key, visitor.token, expires_at), self._most)
            now = self._clock()
            for old, known in tuple(self._visitors.items()):
                if known.expires is not None and known.expires <= now:
                    del self._visitors[old]
            self._visitors[key] = replace(visitor, session=key, expires=now + LIFE)
            while len(self._visitors) > self._most:
                self._visitors.popitem(last=False)
        return secret

    async def end(self, visitor: Visitor) -> None:
        """Ends the session that a visitor came with, if one.

        Raises:
            StoreUnavailableError: it would be back after a restart, and so has not ended.
        """
        if visitor.session is not None:
            await self._kept.remove(visitor.session)
            self._visitors.pop(visitor.session, None)

    async def _make_room(self, token: str) -> None:
        same = [known for known in self._visitors.values() if known.token == token]
        for oldest in same[: max(0, len(same) + 1 - self._most_of_one)]:
            await self.end(oldest)

    async def _recall_all(self) -> None:
        if self._is_recalled:
            return
        try:
            kept = await self._kept.all()
        except StoreUnavailableError:
            log.warning("Who is signed in to the page can't be looked up just now.")
            return
        self._is_recalled = True
        for session in kept:
            self._recall(session)

    def _recall(self, session: Session) -> None:
        visitor = self._by_fingerprint(session.token)
        left = (session.expires_at - datetime.now(UTC)).total_seconds()
        if visitor is None or left <= 0 or session.key in self._visitors:
            return
        # However the clock was set meanwhile, it lives no longer than a new one.
        expires = self._clock() + min(left, LIFE)
        self._visitors[session.key] = replace(visitor, session=session.key, expires=expires)


def _key(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()
