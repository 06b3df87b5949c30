"""Requests that may come twice: a client's own key has the second one find the first one's job.

The key's hash stands in the job's row, so that both are committed at once: a client that got no
answer, whoever died in between, asks again and gets the job that it has.
"""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Annotated
from weakref import WeakValueDictionary

from fastapi import Depends, Header, Request

from bot.records import JobRecord, Origin, Owner
from bot.studio import Studio
from bot.web.problems import ConflictError
from bot.web.services import HERE, TheVisitor
from engine.errors import RequestError

LIFETIME = timedelta(days=1)
"""How long a key is remembered, unless its job is forgotten before."""

MOST = 200
"""Characters that a key may have."""


class Keys:
    """Looks keys up, one request of each at a time."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def use(
        self, key: str | None, what: object, owner: Owner
    ) -> AsyncIterator[tuple[JobRecord | None, Origin]]:
        """Gives the job that a key already has, or None and the origin to submit a new one with.

        Args:
            key: as the client sent it; None where it sent none, and then every request is new.
            what: is asked for, as plain JSON. What was left out is left out, so that a field
                that is new some day changes nothing.
            owner: whose key it is; those of others are others.

        Raises:
            RequestError: no key looks like this one.
            ConflictError: something else was asked for with it.
        """
        if key is None:
            yield None, HERE
            return
        if not 1 <= len(key) <= MOST or not all("!" <= character <= "~" for character in key):
            allowed = f"1 to {MOST} printable ASCII characters without spaces"
            raise RequestError("Idempotency-Key", "what was sent", allowed)
        name, content = _hash(key), _hash(json.dumps(what))
        lock = self._locks.setdefault(f"{owner.id} {name}", asyncio.Lock())
        async with lock:
            known = await self._studio.keyed(owner.id, name, datetime.now(UTC) - LIFETIME)
            if known and known.origin.address.get("body") != content:
                raise ConflictError(
                    "Idempotency-Key: something else was asked for with this key. "
                    "Allowed: a key of its own for each request."
                )
            yield known, replace(HERE, address={"key": name, "body": content})


_MEANING = (
    "A text of your own, such as a UUID. The same request with the same key within a day gets the "
    "same job; another request with it is refused (409)."
)


class Once:
    """The keys, as a route is given them: with what came along with its request.

    Attributes:
        has_key: whether one came.
    """

    def __init__(self, keys: Keys, key: str | None, owner: Owner) -> None:
        self.has_key = key is not None
        self._keys = keys
        self._key = key
        self._owner = owner

    def use(self, what: object) -> AbstractAsyncContextManager[tuple[JobRecord | None, Origin]]:
        """Gives the job that there is already, or None and an origin; see `Keys.use`."""
        return self._keys.use(self._key, what, self._owner)


def _once(
    request: Request,
    visitor: TheVisitor,
    key: Annotated[str | None, Header(alias="Idempotency-Key", description=_MEANING)] = None,
) -> Once:
    return Once(request.app.state.keys, key, visitor.owner)


TheOnce = Annotated[Once, Depends(_once)]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
