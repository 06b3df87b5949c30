"""What is in use is not searched again and again, and what is garbage is found all the same."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from bot.garbage import QUIET_LOOKS, search


class Knot:
    """Something that nothing but a search for garbage frees."""

    def __init__(self) -> None:
        self.itself = self


@asynccontextmanager
async def searching(
    is_idle: Callable[[], bool], at_the_latest: float = 10**6
) -> AsyncIterator[None]:
    task = asyncio.create_task(search(is_idle, 0.0, 0.0, at_the_latest))
    await asyncio.sleep(0)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_what_is_in_use_is_left_out_of_the_next_search() -> None:
    async with searching(lambda: False):
        kept = Knot()
        gc.collect()
        seen = weakref.ref(kept)
        del kept
        gc.collect()

        assert seen() is not None
    gc.unfreeze()
    gc.collect()
    assert seen() is None


@pytest.mark.parametrize(("is_idle", "at_the_latest"), [(True, 10**6), (False, 0.01)])
async def test_all_is_searched_when_nobody_waits_or_at_the_latest(
    is_idle: bool, at_the_latest: float
) -> None:
    seen = weakref.ref(Knot())
    gc.freeze()

    async with searching(lambda: is_idle, at_the_latest):
        while seen() is not None:  # noqa: ASYNC110 # the search tells nobody
            await asyncio.sleep(0)

    assert_none_searches()


async def test_a_moment_in_which_nobody_waits_is_not_used() -> None:
    seen, looks = weakref.ref(Knot()), 0
    gc.freeze()

    def idle() -> bool:
        nonlocal looks
        looks += 1
        return looks % QUIET_LOOKS != 0

    async with searching(idle):
        while looks < 10 * QUIET_LOOKS:  # noqa: ASYNC110 # the search tells nobody
            await asyncio.sleep(0)
        assert seen() is not None
    gc.unfreeze()
    gc.collect()


def assert_none_searches() -> None:
    assert not [
        each for each in gc.callbacks if getattr(each, "__module__", "") == search.__module__
    ]
