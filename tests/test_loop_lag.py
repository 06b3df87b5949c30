"""How late the event loop is."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from hypothesis import given
from hypothesis import strategies as st

from bot.loop_lag import LoopLag


@contextmanager
def measuring(lag: LoopLag) -> Iterator[None]:
    task = asyncio.create_task(lag.run())
    try:
        yield
    finally:
        task.cancel()


async def test_what_blocks_the_loop_is_seen() -> None:
    lag = LoopLag(period=0.001)
    with measuring(lag):
        await asyncio.sleep(0.01)
        time.sleep(0.3)  # noqa: ASYNC251 - just what must not happen
        await asyncio.sleep(0.01)
        assert lag.worst > 0.25


async def test_nothing_is_said_before_anything_was_measured() -> None:
    assert LoopLag().worst == 0


@given(st.lists(st.floats(0, 5), min_size=1, max_size=60), st.floats(1, 30))
def test_the_worst_is_that_of_the_time_it_remembers(lags: list[float], memory: float) -> None:
    lag = LoopLag(memory=memory)
    for second, late in enumerate(lags):
        lag._note(float(second), late)
    last = len(lags) - 1
    remembered = [late for second, late in enumerate(lags) if second >= last - memory]
    assert lag.worst == max(remembered)
