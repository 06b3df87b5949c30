"""Group commit: what several callers want to write at once shares one transaction and one fsync.

A caller's work is a plain function of the connection. All that waits when the thread is free runs
in one transaction, each in a savepoint of its own, so that one which fails takes nothing of the
others along; everybody hears of theirs after the commit.
"""

import sqlite3
from collections.abc import Sequence
from typing import Any

from bot.store_thread import Outcome, StoreThread, T, Work


class GroupCommit(StoreThread):
    """A connection that is written to by one thread, for any number of coroutines."""

    def __init__(self, db: sqlite3.Connection) -> None:
        """Takes a connection in autocommit mode; nobody else may use it afterwards."""
        super().__init__(db, "store-writer", commit_together)

    async def write(self, work: Work[T]) -> T:
        """Runs work in a transaction; what it wrote is on the disk when this returns.

        A caller who is cancelled meanwhile leaves all of it done, or nothing. The work may be run
        a second time, where what shared its transaction made SQLite give it up.

        Raises:
            sqlite3.Error: the database refuses; nothing of it is stored.
            Exception: what the work itself raised; likewise.
        """
        return await self.run(work)


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
