"""The thread that a connection to the database belongs to; what waits for it goes in one visit.

Waking a thread takes as long as most statements do. So what waits when it is free is worked off
together, and all who asked hear of theirs at once.
"""

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]
"""What a caller wants of the database: a plain function of the connection."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a caller's work ended.

    Attributes:
        value: what it returned.
        error: what it failed with; None where it didn't.
    """

    value: Any = None
    error: BaseException | None = None


Together: TypeAlias = Callable[[sqlite3.Connection, Sequence[Work[Any]]], list[Outcome]]
"""Does several callers' work and returns how each ended, in their order."""


class StoreThread:
    """A connection that one thread uses, for any number of coroutines."""

    def __init__(
        self, db: sqlite3.Connection, name: str, together: Together, most: int | None = None
    ) -> None:
        """Takes a connection in autocommit mode; nobody else may use it afterwards.

        Args:
            db: the connection.
            name: of the thread.
            together: does what waits.
            most: of what waits, at a time: the first need not wait for the last. None is all.
        """
        self._db = db
        self._most = most
        self._together = together
        self._waiting: deque[tuple[Work[Any], asyncio.Future[Any]]] = deque()
        self._is_asked = False
        self._thread = ThreadPoolExecutor(1, name)

    async def run(self, work: Work[T]) -> T:
        """Has work done and returns its value; who is cancelled meanwhile leaves all or nothing.

        Raises:
            sqlite3.Error: the database refuses.
            RuntimeError: it is closed.
            Exception: what the work itself raised.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._waiting.append((work, future))
        if not self._is_asked:
            self._is_asked = True  # before the visit, which takes it back
            try:
                self._thread.submit(self._visit, loop)
            except RuntimeError:
                self._is_asked = False
                future.cancel()  # a last visit that is still under way passes it by
                with suppress(ValueError):
                    self._waiting.remove((work, future))
                raise
        return await future

    async def close(self) -> None:
        """Finishes what was asked for and closes the connection."""
        await asyncio.to_thread(self._thread.shutdown)
        self._db.close()

    def _visit(self, loop: asyncio.AbstractEventLoop) -> None:
        self._is_asked = False  # before the look: who comes after it asks anew
        while group := self._next_group():
            outcomes = self._together(self._db, [work for work, _ in group])
            futures = [future for _, future in group]
            loop.call_soon_threadsafe(_tell, futures, outcomes)

    def _next_group(self) -> list[tuple[Work[Any], asyncio.Future[Any]]]:
        group: list[tuple[Work[Any], asyncio.Future[Any]]] = []
        while self._waiting and (self._most is None or len(group) < self._most):
            work, future = self._waiting.popleft()
            if not future.cancelled():
                group.append((work, future))
        return group


def each_by_itself(db: sqlite3.Connection, works: Sequence[Work[Any]]) -> list[Outcome]:
    """Does what only reads: nobody's work has to do with another's."""
    return [_done(db, work) for work in works]


def _done(db: sqlite3.Connection, work: Work[Any]) -> Outcome:
    try:
        return Outcome(work(db))
    except BaseException as error:
        return Outcome(error=error)


def _tell(futures: Sequence[asyncio.Future[Any]], outcomes: Sequence[Outcome]) -> None:
    for future, outcome in zip(futures, outcomes, strict=True):
        if future.cancelled():
            continue
        if outcome.error is None:
            future.set_result(outcome.value)
        else:
            future.set_exception(outcome.error)
