"""The fleet of a Ray cluster; the process that speaks with Ray is the test."""

import asyncio
import errno
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from engine import messages, ray_executor
from engine.errors import NoDeviceError
from engine.fleet_size import FleetSize
from engine.lane import DOWN_AFTER
from engine.ray_driver import GIVE_BACK_SECONDS
from engine.ray_executor import RayFleet
from engine.ray_messages import (
    Connect,
    Connected,
    End,
    Heard,
    Lost,
    Open,
    Place,
    Places,
    Want,
)
from engine.worker_pool import WorkerPool
from tests.test_worker_pool import FANCY, PLAIN, Pauses, SomeModes, a_job, eventually

pytestmark = pytest.mark.timeout(60)

ATTIC = Place("a:0", "a", "attic gpu 0", "cuda:0")
BARN = Place("b:0", "b", "barn gpu 0", "cuda:0")


class Driver:
    """Stands in for the process that speaks with Ray.

    Attributes:
        heard: what it was told, oldest first.
        is_closed: whether its standard input is.
        patience: seconds that it got to end by itself; None while it runs.
    """

    pid = 1

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.stdin = self
        self.is_closed = False
        self.patience: float | None = None
        self._says: asyncio.Queue[Any] = asyncio.Queue()

    def say(self, *words: object) -> None:
        for word in words:
            self._says.put_nowait(word)

    def die(self) -> None:
        self.say(asyncio.IncompleteReadError(b"", 8))

    def opened(self, place: Place) -> list[int]:
        """Returns the numbers of the workers that it was to start at a place."""
        return [each.life for each in self.told(Open) if each.place == place]

    def told(self, kind: type) -> list[Any]:
        return [each for each in self.heard if isinstance(each, kind)]

    def refuse(self, life: int) -> None:
        reason = "can't start: the cluster gave it no place within 180 seconds"
        self.say(Lost(life, reason, is_machine=False))

    def bring_up(self, life: int) -> None:
        self.say(Heard(life, (messages.frame(messages.Ready("cuda:0")),)))

    # As the fleet has it

    def send(self, message: object) -> None:
        self.heard.append(message)

    async def read(self) -> Any:
        word = await self._says.get()
        if isinstance(word, BaseException):
            raise word
        return word

    def close(self) -> None:
        self.is_closed = True
        self.say(asyncio.IncompleteReadError(b"", 8))

    async def reap(self, seconds: float) -> int:
        assert self.is_closed
        self.patience = seconds
        return 0


@pytest.fixture
def drivers(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What comes of each try to start one, in turn; whoever runs out of them gets silent ones."""
    coming: list[Any] = []

    class Spawn:
        @staticmethod
        async def spawn(module: str, keep: Sequence[str]) -> Driver:
            assert module == "engine.ray_driver"
            found = coming.pop(0) if coming else Driver()
            if isinstance(found, BaseException):
                raise found
            return found

    monkeypatch.setattr(ray_executor, "ChildProcess", Spawn)
    return coming


@pytest.fixture
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """At how many workers are wanted: at each turn of the event loop."""
    monkeypatch.setattr(ray_executor, "SIZE_SECONDS", 0.0)


@asynccontextmanager
async def a_pool(fleet: RayFleet) -> AsyncIterator[WorkerPool]:
    modes = SomeModes(PLAIN, FANCY)
    async with WorkerPool([], modes, fleet=fleet, restart_pause=Pauses(), close_timeout=5) as pool:
        yield pool


def a_fleet(**options: Any) -> RayFleet:
    return RayFleet("10.0.0.2:6379", reconnect_seconds=0.0, **options)


async def test_a_worker_that_says_something_strange_is_replaced_and_no_other(
    drivers: list[Any],
) -> None:
    driver = Driver()
    drivers.append(driver)
    async with a_pool(a_fleet()) as pool:
        driver.say(Connected(), Places((ATTIC, BARN)))
        await eventually(lambda: bool(driver.opened(ATTIC) and driver.opened(BARN)))
        [strange], [sound] = driver.opened(ATTIC), driver.opened(BARN)
        driver.bring_up(strange)
        driver.bring_up(sound)
        await eventually(lambda: [lane.state for lane in pool.status()] == ["ready", "ready"])
        of_another_checkout = messages.frame(messages.Answer(1)).replace(b"Answer", b"Answxx")

        driver.say(Heard(strange, (of_another_checkout,)))

        await eventually(lambda: len(driver.opened(ATTIC)) == 2)
        assert End(strange) in driver.heard
        assert End(sound) not in driver.heard
        [attic, barn] = pool.status()
        assert attic.last_error is not None
        assert "said something that can't be understood" in attic.last_error
        assert barn.state == "ready"
        driver.bring_up(driver.opened(ATTIC)[1])
        await eventually(lambda: [lane.state for lane in pool.status()] == ["ready", "ready"])
        assert not pool.failed.done()


async def test_a_first_word_that_is_strange_is_a_start_that_failed(drivers: list[Any]) -> None:
    driver = Driver()
    drivers.append(driver)
    async with a_pool(a_fleet()) as pool:
        driver.say(Connected(), Places((ATTIC,)))
        await eventually(lambda: len(driver.opened(ATTIC)) == 1)

        driver.say(Heard(driver.opened(ATTIC)[0], (b"12345678not pickled",)))

        await eventually(lambda: len(driver.opened(ATTIC)) == 2)
        assert not pool.failed.done()


async def test_a_driver_that_can_not_be_started_is_tried_again(drivers: list[Any]) -> None:
    first, second = Driver(), Driver()
    too_many = OSError(errno.EMFILE, "Too many open files")
    drivers += [first, too_many, too_many, second]
    fleet = a_fleet()
    async with a_pool(fleet) as pool:
        first.say(Connected(), Places(()))
        await eventually(lambda: not first._says.qsize())
        troubles: list[str | None] = []

        first.die()

        async def brought_back() -> None:
            while Connect not in map(type, second.heard):
                if fleet.trouble not in troubles:
                    troubles.append(fleet.trouble)
                await asyncio.sleep(0)

        await brought_back()
        assert "The process that speaks with Ray can't be started (Too many open files)" in troubles
        second.say(Connected(), Places((ATTIC,)))
        await eventually(lambda: bool(second.opened(ATTIC)))
        assert fleet.trouble is None
        assert not pool.failed.done()


async def test_an_error_of_what_sizes_the_fleet_is_heard_of_at_once(
    drivers: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = Driver()
    drivers.append(driver)
    bug = ZeroDivisionError("a bug")

    def fails(*_: object) -> int:
        raise bug

    pool = WorkerPool([], SomeModes(PLAIN), fleet=a_fleet(), close_timeout=5)
    await pool.start()
    await eventually(lambda: bool(driver.heard))
    monkeypatch.setattr(ray_executor, "RayExecutor", fails)

    driver.say(Connected(), Places((ATTIC,)))

    await asyncio.wait([pool.failed])
    assert pool.failed.exception() is bug
    await pool.shutdown()
    assert driver.patience is not None


@pytest.mark.usefixtures("looks_often")
class TestMachinesComeAndGo:
    @pytest.fixture
    def driver(self, drivers: list[Any]) -> Driver:
        driver = Driver()
        drivers.append(driver)
        return driver

    async def test_a_place_where_no_worker_can_start_is_left_for_a_free_one(
        self, driver: Driver
    ) -> None:
        async with a_pool(a_fleet(size=FleetSize(least=1, most=4))) as pool:
            driver.say(Connected(), Places((ATTIC, BARN)))
            await eventually(lambda: bool(driver.opened(ATTIC)))

            driver.refuse(driver.opened(ATTIC)[0])

            await eventually(lambda: bool(driver.opened(BARN)))
            driver.bring_up(driver.opened(BARN)[0])
            await eventually(
                lambda: (
                    [(each.device, each.state) for each in pool.status()]
                    == [("barn gpu 0", "ready")]
                )
            )
            assert len(driver.opened(ATTIC)) <= 2  # a second try was on its way at most

    async def test_ray_is_asked_for_one_more_machine_than_refuse_and_never_for_too_many(
        self, driver: Driver
    ) -> None:
        async with a_pool(a_fleet(size=FleetSize(least=1, most=2))):
            driver.say(Connected(), Places((ATTIC, BARN)))
            await eventually(lambda: bool(driver.opened(ATTIC)))
            assert driver.told(Want) == [Want(1)]

            driver.refuse(driver.opened(ATTIC)[0])
            await eventually(lambda: bool(driver.opened(BARN)))
            driver.refuse(driver.opened(BARN)[0])
            await eventually(lambda: len(driver.opened(BARN)) > 1)

            assert driver.told(Want) == [Want(1), Want(2)]

    async def test_where_every_place_refuses_the_last_is_tried_until_a_better_one_comes(
        self, driver: Driver
    ) -> None:
        async with a_pool(a_fleet(size=FleetSize(least=1, most=4))) as pool:
            driver.say(Connected(), Places((ATTIC, BARN)))
            await eventually(lambda: bool(driver.opened(ATTIC)))
            driver.refuse(driver.opened(ATTIC)[0])
            for tries in range(DOWN_AFTER):
                await eventually(lambda tries=tries: len(driver.opened(BARN)) > tries)
                driver.refuse(driver.opened(BARN)[-1])
            await eventually(lambda: pool.status()[0].state == "down")
            with pytest.raises(NoDeviceError, match="barn gpu 0"):
                pool.submit_job(a_job())

            shed = Place("c:0", "c", "shed gpu 0", "cuda:0")
            driver.say(Places((ATTIC, BARN, shed)))

            await eventually(lambda: bool(driver.opened(shed)))

    async def test_a_place_that_refused_is_as_good_as_any_after_a_while(
        self, driver: Driver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ray_executor, "REFUSED_SECONDS", 0.0)
        async with a_pool(a_fleet(size=FleetSize(least=1, most=4))):
            driver.say(Connected(), Places((ATTIC, BARN)))
            await eventually(lambda: bool(driver.opened(ATTIC)))
            driver.refuse(driver.opened(ATTIC)[0])
            await eventually(lambda: bool(driver.opened(BARN)))
            tries = len(driver.opened(ATTIC))

            driver.refuse(driver.opened(BARN)[0])

            await eventually(lambda: len(driver.opened(ATTIC)) > tries)

    async def test_each_new_driver_is_told_how_many_machines_are_wanted(
        self, driver: Driver, drivers: list[Any]
    ) -> None:
        second = Driver()
        drivers.append(second)
        async with a_pool(a_fleet(size=FleetSize(least=2, most=4))):
            await eventually(lambda: driver.told(Want) == [Want(2)])

            driver.die()

            await eventually(lambda: second.told(Want) == [Want(2)])
            assert isinstance(second.heard[0], Connect)

    async def test_at_the_end_the_driver_has_time_to_give_machines_back(
        self, driver: Driver
    ) -> None:
        async with a_pool(a_fleet(size=FleetSize(least=2, most=4))):
            await eventually(lambda: bool(driver.told(Want)))

        assert driver.patience is not None
        assert driver.patience > GIVE_BACK_SECONDS
