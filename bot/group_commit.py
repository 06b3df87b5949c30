"""Group commit: what several callers want to write at once shares one transaction and one fsync.

A caller's work is a plain function of the connection. All that waits when the thread is free runs
in one transaction, each in a savepoint of its own, so that one which fails takes nothing of the
others along; everybody hears of theirs after the commit.
"""

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a caller's work ended: with its value and committed, or with an error and without trace.

    Attributes:
        value: what it returned.
        error: what it failed with; None where it didn't.
    """

    value: Any = None
    error: BaseException | None = None


class GroupCommit:
    """A connection that is written to by one thread, for any number of coroutines."""

    def __init__(self, db: sqlite3.Connection) -> None:
        """Takes a connection in autocommit mode; nobody else may use it afterwards."""
        self._db = db
        self._waiting: deque[tuple[Work[Any], asyncio.Future[Any]]] = deque()
        self._is_asked = False
        self._thread = ThreadPoolExecutor(1, "store-writer")

    async def write(self, work: Work[T]) -> T:
        """Runs work in a transaction; what it wrote is on the disk when this returns.

        A caller who is cancelled meanwhile leaves all of it done, or nothing. The work may be run
        a second time, where what shared its transaction made SQLite give it up.

        Raises:
            sqlite3.Error: the database refuses; nothing of it is stored.
            Exception: what the work itself raised; likewise.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._waiting.append((work, future))
        if not self._is_asked:
            self._is_asked = True
            self._thread.submit(self._commit, loop)
        return await future

    async def close(self) -> None:
        """Finishes what was asked for and closes the connection."""
        await asyncio.to_thread(self._thread.shutdown)
        self._db.close()

    def _commit(self, loop: asyncio.AbstractEventLoop) -> None:
        self._is_asked = False  # before the look: who comes after it asks anew
        group = []
        while self._waiting:
            work, future = self._waiting.popleft()
            if not future.cancelled():
                group.append((work, future))
        if group:
            outcomes = commit_together(self._db, [work for work, _ in group])
            futures = [future for _, future in group]
            loop.call_soon_threadsafe(_tell, futures, outcomes)


def _tell(futures: Sequence[asyncio.Future[Any]], outcomes: Sequence[Outcome]) -> None:
    for future, outcome in zip(futures, outcomes, strict=True):
        if future.cancelled():
            continue
        if outcome.error is None:
            future.set_result(outcome.value)
        else:
            future.set_exception(outcome.error)


def commit_together(db: sqlite3.Connection, works: Sequence[Work[Any]]) -> list[Outcome]:
    """Runs each work and commits once; returns how they ended, in their order."""
    try:
        db.execute("BEGIN IMMEDIATE")
    except sqlite3.Error as error:
        return [Outcome(error=error)] * len(works)
    try:
        outcomes = [_attempt(db, work) for work in works]
        db.execute("COMMIT")
    except BaseException as error:
        if db.in_transaction:
            db.execute("ROLLBACK")
        if len(works) == 1:
            return [Outcome(error=error)]
        # The disk has no room for all of them, say: it may have room for some.
        return [outcome for work in works for outcome in commit_together(db, [work])]
    return outcomes


def _attempt(db: sqlite3.Connection, work: Work[Any]) -> Outcome:
    db.execute("SAVEPOINT one")
    try:
        value = work(db)
    except BaseException as error:
        if not db.in_transaction:
            raise  # SQLite itself has rolled back all of the transaction
        db.execute("ROLLBACK TO one")
        db.execute("RELEASE one")
        return Outcome(error=error)
    db.execute("RELEASE one")
    return Outcome(value)
