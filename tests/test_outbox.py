import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.errors import UnknownJobError
from bot.outbox import Outbox, Undeliverable, retry_delay
from bot.records import JobRecord, JobView
from bot.store import Store
from tests.records_kit import a_job, done


class ScriptedCourier:
    """Fails as it is told to, then delivers; says what it has carried."""

    def __init__(self, *failures: Exception) -> None:
        self._failures = list(failures)
        self.carried: asyncio.Queue[str] = asyncio.Queue()
        self.tried: asyncio.Queue[str] = asyncio.Queue()

    async def carry(self, view: JobView) -> None:
        self.tried.put_nowait(view.record.id)
        if self._failures:
            raise self._failures.pop(0)
        self.carried.put_nowait(view.record.id)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with await Store.open(tmp_path / "dreamlab.db") as store:
        yield store


async def a_result(store: Store, front_end: str = "discord") -> JobRecord:
    job = a_job(front_end)
    await store.add(job)
    await store.settle(done(job), carried=True)
    return job


@asynccontextmanager
async def running(store: Store, courier: ScriptedCourier) -> AsyncIterator[Outbox]:
    async def view(job_id: str) -> JobView:
        record = await store.get(job_id)
        assert record
        return JobView(record)

    outbox = Outbox(store, view, delay=lambda _: timedelta(0), store_pause=0)
    outbox.employ({"discord": courier})
    task = asyncio.create_task(outbox.run())
    try:
        yield outbox
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def nothing_is_due(store: Store) -> None:
    while await store.next_due(("discord",)) is not None:  # noqa: ASYNC110 # SQLite tells nobody
        await asyncio.sleep(0.01)


async def test_a_waiting_result_is_delivered_once(store: Store) -> None:
    job = await a_result(store)
    courier = ScriptedCourier()

    async with running(store, courier):
        assert await courier.carried.get() == job.id
        await nothing_is_due(store)
    async with running(store, courier) as outbox:
        outbox.wake()
        other = await a_result(store)
        outbox.wake()
        assert await courier.carried.get() == other.id

    assert courier.carried.empty()


async def test_a_new_result_wakes_the_outbox(store: Store) -> None:
    courier = ScriptedCourier()

    async with running(store, courier) as outbox:
        job = await a_result(store)
        outbox.wake()

        assert await courier.carried.get() == job.id


async def test_a_failed_delivery_is_tried_again(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    job = await a_result(store)
    courier = ScriptedCourier(OSError("the network is down"))

    async with running(store, courier):
        assert await courier.carried.get() == job.id

    assert "the network is down" in caplog.text


async def test_a_failed_delivery_is_tried_at_once_by_the_next_process(store: Store) -> None:
    job = await a_result(store)
    first = ScriptedCourier(OSError("down"))
    async with running(store, first):
        await first.tried.get()

    second = ScriptedCourier()
    async with running(store, second):
        assert await second.carried.get() == job.id


async def test_a_result_that_nobody_can_receive_is_given_up(store: Store) -> None:
    await a_result(store)
    courier = ScriptedCourier(Undeliverable("the channel is gone"))

    async with running(store, courier):
        await nothing_is_due(store)

    assert courier.carried.empty()


async def test_one_stuck_delivery_does_not_hold_up_another(store: Store) -> None:
    stuck = await a_result(store)
    arrived = asyncio.Event()

    class Courier(ScriptedCourier):
        async def carry(self, view: JobView) -> None:
            if view.record.id == stuck.id:
                await asyncio.Event().wait()
            arrived.set()

    async with running(store, Courier()) as outbox:
        await a_result(store)
        outbox.wake()
        await arrived.wait()


async def test_a_store_that_fails_for_a_moment_does_not_end_the_outbox(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    job = await a_result(store)
    courier = ScriptedCourier()

    class Full(Store):
        """Full for two claims, as a disk may be."""

        refusals = 2

        async def claim_anew(self, now: datetime) -> None:
            if self.refusals:
                self.refusals -= 1
                raise sqlite3.OperationalError("database or disk is full")
            await super().claim_anew(now)

    async with running(Full(store._writer, store._reader), courier):
        assert await courier.carried.get() == job.id

    assert "disk is full" in caplog.text


async def test_it_rests_when_all_has_arrived(store: Store) -> None:
    jobs = [await a_result(store) for _ in range(12)]
    courier = ScriptedCourier(OSError("once"))

    async with running(store, courier) as outbox:
        await outbox.rest()
        assert courier.carried.qsize() == len(jobs)

        later = await a_result(store)
        await outbox.rest()
        assert courier.carried.qsize() == len(jobs) + 1

    assert later.id in {courier.carried.get_nowait() for _ in range(13)}


async def test_who_waits_for_somebodys_results_waits_for_these_alone(store: Store) -> None:
    job = await a_result(store)
    other = a_job("discord", owner="discord:2")
    await store.add(other)
    await store.settle(done(other), carried=True)

    class Courier(ScriptedCourier):
        async def carry(self, view: JobView) -> None:
            if view.record.id == other.id:
                await asyncio.Event().wait()
            await super().carry(view)

    courier = Courier(OSError("once"))
    async with running(store, courier) as outbox:
        await outbox.brought_to(job.owner.id)

    assert courier.carried.get_nowait() == job.id
    assert not await store.is_due_to(job.owner.id)
    assert await store.is_due_to(other.owner.id)


async def test_a_result_that_is_forgotten_while_it_is_brought_is_no_error(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    job = await a_result(store)

    class Courier(ScriptedCourier):
        async def carry(self, view: JobView) -> None:
            await store.forget_owner(view.record.owner.id, datetime.now(UTC))
            raise UnknownJobError(view.record.id)

    with caplog.at_level(logging.INFO):
        async with running(store, Courier()) as outbox:
            await outbox.rest()

    assert [record.levelname for record in caplog.records if job.id in record.message] == ["INFO"]


async def test_more_results_than_go_at_once_all_arrive(store: Store) -> None:
    jobs = {(await a_result(store)).id for _ in range(30)}
    courier = ScriptedCourier()

    async with running(store, courier):
        arrived = [await courier.carried.get() for _ in range(30)]

    assert sorted(arrived) == sorted(jobs)


async def test_a_front_end_without_a_courier_keeps_its_results(store: Store) -> None:
    await a_result(store, front_end="carrier pigeon")
    discord = await a_result(store)
    courier = ScriptedCourier()

    async with running(store, courier):
        assert await courier.carried.get() == discord.id

    assert courier.carried.empty()
    assert await store.next_due(("carrier pigeon",)) is not None


async def test_no_secret_of_the_address_reaches_the_log(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="bot")
    job = a_job("discord", address={"token": "s3cret"})
    await store.add(job)
    await store.settle(replace(done(job), error=None), carried=True)
    courier = ScriptedCourier(ValueError("odd"))

    async with running(store, courier):
        await courier.carried.get()

    assert "odd" in caplog.text
    assert "s3cret" not in caplog.text


@given(st.integers(0, 10_000))
def test_the_delay_grows_and_is_bounded(attempts: int) -> None:
    delay = retry_delay(attempts)

    assert timedelta(seconds=1) <= delay <= timedelta(minutes=10)
    assert delay >= retry_delay(max(0, attempts - 1))
