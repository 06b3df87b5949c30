"""What is written together: each caller's work whole or not at all, and committed when it says."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.group_commit import GroupCommit, commit_together
from bot.store_thread import StoreThread, each_by_itself


def connect(path: Path | str) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=0)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("CREATE TABLE IF NOT EXISTS numbers (number INTEGER PRIMARY KEY)")
    return db


def insert(*numbers: int) -> Callable[[sqlite3.Connection], int]:
    def work(db: sqlite3.Connection) -> int:
        for number in numbers:
            db.execute("INSERT INTO numbers VALUES (?)", (number,))
        return len(numbers)

    return work


def stored(path: Path) -> list[int]:
    with sqlite3.connect(path) as db:
        return [number for (number,) in db.execute("SELECT number FROM numbers ORDER BY number")]


class Held:
    """Keeps the writing thread until it is let go, so that what is asked for meanwhile gathers."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go = threading.Event()

    def __call__(self, _: sqlite3.Connection) -> None:
        self.begun.set()
        self.go.wait()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.db"


@pytest.fixture
async def commits(path: Path) -> list[str]:
    """What the connection was told, one statement each."""
    return []


@pytest.fixture
async def group(path: Path, commits: list[str]) -> AsyncIterator[GroupCommit]:
    db = connect(path)
    db.set_trace_callback(commits.append)
    group = GroupCommit(db)
    yield group
    await group.close()


async def test_what_waits_together_is_committed_once(
    group: GroupCommit, path: Path, commits: list[str]
) -> None:
    held = Held()
    first = asyncio.create_task(group.write(held))
    await asyncio.to_thread(held.begun.wait)
    others = [asyncio.create_task(group.write(insert(number))) for number in range(100)]
    await asyncio.sleep(0)
    held.go.set()

    assert await asyncio.gather(first, *others) == [None, *[1] * 100]

    assert commits.count("COMMIT") == 2
    assert stored(path) == list(range(100))


async def test_it_is_committed_when_the_caller_hears_of_it(group: GroupCommit, path: Path) -> None:
    async def ask(number: int) -> None:
        await group.write(insert(number))
        assert number in await asyncio.to_thread(stored, path)

    await asyncio.gather(*(ask(number) for number in range(50)))


async def test_one_that_fails_takes_nothing_of_the_others_along(
    group: GroupCommit, path: Path
) -> None:
    ends = await asyncio.gather(
        group.write(insert(1)),
        group.write(insert(2, 1)),
        group.write(insert(3)),
        return_exceptions=True,
    )

    assert isinstance(ends[1], sqlite3.IntegrityError)
    assert [ends[0], ends[2]] == [1, 1]
    assert stored(path) == [1, 3]


async def test_an_error_that_is_not_of_the_database_is_the_callers(group: GroupCommit) -> None:
    def work(db: sqlite3.Connection) -> None:
        insert(1)(db)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await group.write(work)

    assert await group.write(insert(1)) == 1


async def test_all_that_is_asked_for_after_the_end_is_refused(group: GroupCommit) -> None:
    await group.close()

    for _ in range(2):
        with pytest.raises(RuntimeError, match="shutdown"):
            async with asyncio.timeout(10):
                await group.write(insert(1))


async def test_who_is_cancelled_while_waiting_has_written_nothing(
    group: GroupCommit, path: Path
) -> None:
    held = Held()
    first = asyncio.create_task(group.write(held))
    await asyncio.to_thread(held.begun.wait)
    waiting = [asyncio.create_task(group.write(insert(number))) for number in range(10)]
    await asyncio.sleep(0)
    for task in waiting[::2]:
        task.cancel()
    await asyncio.sleep(0)
    held.go.set()
    await asyncio.gather(first, *waiting, return_exceptions=True)

    assert stored(path) == [1, 3, 5, 7, 9]


async def test_who_is_cancelled_during_the_commit_has_written_all(
    group: GroupCommit, path: Path
) -> None:
    held = Held()

    def work(db: sqlite3.Connection) -> None:
        insert(1)(db)
        held(db)
        insert(2)(db)

    task = asyncio.create_task(group.write(work))
    await asyncio.to_thread(held.begun.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    held.go.set()

    assert await group.write(insert(3)) == 1
    assert stored(path) == [1, 2, 3]


async def test_closing_finishes_what_was_asked_for(path: Path) -> None:
    group = GroupCommit(connect(path))
    asked = [asyncio.create_task(group.write(insert(number))) for number in range(20)]
    await asyncio.sleep(0)

    await group.close()

    assert await asyncio.gather(*asked) == [1] * 20
    assert stored(path) == list(range(20))


async def test_the_first_of_a_crowd_need_not_wait_until_the_last_is_served(path: Path) -> None:
    gate = threading.Event()
    reads = StoreThread(connect(path), "reader", each_by_itself, most=2)
    asked = [asyncio.create_task(reads.run(lambda _: True)) for _ in range(4)]
    last = asyncio.create_task(reads.run(lambda _: gate.wait(20)))
    await asked[0]

    assert not last.done()
    gate.set()
    assert all(await asyncio.gather(*asked, last))
    await reads.close()


async def test_a_lock_refuses_all_and_nothing_when_it_is_gone(
    group: GroupCommit, path: Path
) -> None:
    with sqlite3.connect(path, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        ends = await asyncio.gather(
            *(group.write(insert(number)) for number in range(5)), return_exceptions=True
        )
        assert {type(end) for end in ends} == {sqlite3.OperationalError}
        other.execute("ROLLBACK")

    assert await group.write(insert(1)) == 1
    assert stored(path) == [1]


def test_what_makes_sqlite_give_up_the_transaction_fails_alone(path: Path) -> None:
    db = connect(path)

    def conflicting(db: sqlite3.Connection) -> None:
        db.execute("INSERT OR ROLLBACK INTO numbers VALUES (1)")

    outcomes = commit_together(db, [insert(1), conflicting, insert(2)])

    assert [outcome.value for outcome in outcomes] == [1, None, 1]
    assert isinstance(outcomes[1].error, sqlite3.IntegrityError)
    assert stored(path) == [1, 2]
    db.close()


@given(st.lists(st.lists(st.integers(0, 9), max_size=4), max_size=8))
def test_together_comes_to_the_same_as_one_after_another(groups: list[list[int]]) -> None:
    def rows(at_once: bool) -> tuple[list[bool], list[int]]:
        db = connect(":memory:")
        works = [insert(*numbers) for numbers in groups]
        parts = [works] if at_once else [[work] for work in works]
        outcomes = [outcome for part in parts for outcome in commit_together(db, part)]
        numbers = [number for (number,) in db.execute("SELECT number FROM numbers")]
        db.close()
        return [outcome.error is None for outcome in outcomes], numbers

    assert rows(at_once=True) == rows(at_once=False)
