"""Delivery of results: tried until it succeeds, in any number of processes' lives.

A result and its outbox row are one transaction, so nothing is lost; a courier's `carry` can be
repeated without a second message, so nothing is posted twice.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Protocol

from bot.errors import UnknownJobError
from bot.records import Delivery, JobView
from bot.store import Store
from engine.errors import DreamLabError

log = logging.getLogger(__name__)

CARRY_SECONDS = 60.0
"""Longest that one attempt may take."""

AT_ONCE = 8
"""Deliveries under way at the same time."""


class Undeliverable(DreamLabError):  # noqa: N818 # what a courier says, not what went wrong here
    """There is nobody to bring it to any more; trying again is of no use."""


class Courier(Protocol):
    """Brings results to where they were asked for."""

    async def carry(self, view: JobView) -> None:
        """Shows a job's end to the asker; repeating it changes nothing.

        Raises:
            Undeliverable: never try again.
            Exception: try again later.
        """


STORE_PAUSE = 5.0
"""Seconds until the outbox goes on after the store failed it (locked, or the disk is full)."""


def retry_delay(attempts: int) -> timedelta:
    """Returns how long to wait after a number of failed attempts: 2 s, 4 s, 8 s, … up to 10 min.

    There is no last attempt: how long Discord, or the way there, will be away is not known, and
    only a courier can say that nobody is left to receive a result (`Undeliverable`).
    """
    return timedelta(seconds=min(2.0 ** min(attempts, 20), 600.0))


class Outbox:
    """Finds what is due and has the couriers bring it."""

    def __init__(
        self,
        store: Store,
        view: Callable[[str], Awaitable[JobView]],
        delay: Callable[[int], timedelta] = retry_delay,
        store_pause: float = STORE_PAUSE,
    ) -> None:
        """Takes the store, `Studio.view`, and how long to wait after failures of either sort."""
        self._store = store
        self._view = view
        self._delay = delay
        self._store_pause = store_pause
        self._couriers: dict[str, Courier] = {}
        self._wake = asyncio.Event()
        self._under_way = 0
        self._rests = asyncio.Event()
        self._arrival = asyncio.Event()

    def employ(self, couriers: Mapping[str, Courier]) -> None:
        """Takes couriers by front end; results of front ends without one wait in the store."""
        self._couriers.update(couriers)
        self.wake()

    def wake(self) -> None:
        """Has the outbox look now: a result was stored."""
        self._rests.clear()
        self._wake.set()

    async def rest(self) -> None:
        """Waits until no delivery is under way and none is due, while `run` runs."""
        self.wake()
        await self._rests.wait()

    async def brought_to(self, owner_id: str) -> None:
        """Waits until nothing is on its way to somebody any more, while `run` runs."""
        while True:
            arrival = self._arrival  # taken before the look, so that none is missed
            if not await self._store.is_due_to(owner_id):
                return
            await arrival.wait()

    async def run(self) -> None:
        """Delivers until it is cancelled; a store that fails for a while is waited for."""
        free = asyncio.Semaphore(AT_ONCE)
        claimed_anew = False
        async with asyncio.TaskGroup() as deliveries:
            while True:
                try:
                    if not claimed_anew:
                        await self._store.claim_anew(datetime.now(UTC))
                        claimed_anew = True
                    self._wake.clear()
                    for delivery in await self._claim():
                        await free.acquire()
                        self._under_way += 1
                        task = deliveries.create_task(
                            self._deliver(delivery), name=f"delivery of {delivery.job_id}"
                        )
                        task.add_done_callback(lambda _: self._arrived(free))
                    if not self._wake.is_set():
                        await self._sleep()
                except Exception:
                    log.exception("The outbox can't be read; it is tried again")
                    await asyncio.sleep(self._store_pause)

    def _arrived(self, free: asyncio.Semaphore) -> None:
        self._under_way -= 1
        free.release()
        arrival, self._arrival = self._arrival, asyncio.Event()
        arrival.set()
        self.wake()

    async def _claim(self) -> list[Delivery]:
        now = datetime.now(UTC)
        until = now + timedelta(seconds=2 * CARRY_SECONDS)
        claimed = await self._store.claim_due(now, until, tuple(self._couriers), AT_ONCE)
        if len(claimed) == AT_ONCE:
            self.wake()  # there may be more
        return claimed

    async def _sleep(self) -> None:
        """Waits for a result or until the next delivery is due."""
        next_due = await self._store.next_due(tuple(self._couriers))
        if self._under_way == 0 and not self._wake.is_set() and _seconds_until(next_due) != 0:
            self._rests.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(_seconds_until(next_due)):
                await self._wake.wait()

    async def _deliver(self, delivery: Delivery) -> None:
        try:
            await self._attempt(delivery)
        except UnknownJobError:
            log.info("Job %s was forgotten before its result was brought", delivery.job_id)
        except Exception:
            # It is claimed for a while and then due again; a courier's repetition does no harm.
            log.exception("What became of the delivery of job %s is not stored", delivery.job_id)

    async def _attempt(self, delivery: Delivery) -> None:
        job_id = delivery.job_id
        view = await self._view(job_id)
        courier = self._couriers[view.record.origin.front_end]
        try:
            async with asyncio.timeout(CARRY_SECONDS):
                await courier.carry(view)
        except Undeliverable as error:
            log.warning("The result of job %s can't be delivered: %s", job_id, error)
            await self._store.postpone(job_id, None, str(error))
        except UnknownJobError:
            raise  # forgotten meanwhile: there is nothing to note
        except Exception as error:  # the network, Discord, a bug: the result is not to be lost
            log.warning(
                "The result of job %s is not delivered yet (attempt %d): %r",
                job_id,
                delivery.attempts,
                error,
            )
            delay = self._delay(delivery.attempts)
            await self._store.postpone(job_id, datetime.now(UTC) + delay, repr(error))
            self.wake()  # it may be due before what the outbox sleeps for
        else:
            await self._store.delivered(job_id, datetime.now(UTC))


def _seconds_until(moment: datetime | None) -> float | None:
    if moment is None:
        return None
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
