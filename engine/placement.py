"""(pure) Which of many places a job goes to: where its model is, unless that takes longer.

A job goes to a place that has its model in memory. Two things weigh against it:

- **That place is busy.** Then it goes where its picture is expected sooner, a load included; where
  nothing is known yet, to the less busy one, or a second device would never be used.
- **All places that have the model are full**, and others are free. Then it waits for one of them as
  long as what waits for this model is done sooner than a load takes. Once the queue for the model
  is longer than a switch, another place loads a copy.

Places are anything that answers a few questions: lanes in the pool, numbers in the simulator.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar


class Spot(Protocol):
    """Where a job may go."""

    @property
    def failures(self) -> int:
        """How often in a row it failed; 0 is sound."""

    @property
    def load(self) -> float:
        """Share of its room that is taken, 0 to 1."""

    @property
    def held(self) -> int:
        """How many models it has in memory."""

    def has(self, key: str) -> bool:
        """Returns whether a model is in its memory, or on its way there."""


SpotT = TypeVar("SpotT", bound=Spot)


def choose(
    free: Sequence[SpotT],
    key: str | None,
    *,
    prefer_loaded: bool = False,
    finish: Callable[[SpotT], float | None] = lambda _: None,
) -> SpotT | None:
    """Returns where a job had better go; None where no place is free.

    Args:
        free: places with room for it.
        key: the model that it needs; None for none.
        prefer_loaded: whether it must go where its model is, however busy that is.
        finish: returns in how many seconds it would be done at a place, a load included; None where
            that isn't known. Asked of two at most.
    """
    having = [] if key is None else [spot for spot in free if spot.has(key)]
    near = min(having, key=_less_busy, default=None)
    if near is not None and (prefer_loaded or not near.load):
        sound = min(free, key=lambda spot: spot.failures).failures
        if near.failures <= sound:
            return near
    if len(having) == len(free):
        return near
    taken = {id(spot) for spot in having}
    far = min((spot for spot in free if id(spot) not in taken), key=_less_busy)
    if near is None or near.failures > far.failures:
        return far
    if prefer_loaded or far.failures > near.failures:
        return near
    there, elsewhere = finish(near), finish(far)
    if there is None or elsewhere is None:
        return near if near.load <= far.load else far
    return near if there <= elsewhere else far


def had_better_wait(
    waiting: int, holders: int, job_seconds: float | None, switch_seconds: float | None
) -> bool:
    """Returns whether a job waits for a place that has its model though another one is free.

    Args:
        waiting: jobs that wait for the model, this one included.
        holders: places that have it, all of them full.
        job_seconds: of a device, that one of them takes.
        switch_seconds: that another place takes to load the model.
    """
    if not holders or job_seconds is None or switch_seconds is None:
        return False
    return waiting * job_seconds / holders < switch_seconds


def holders(spots: Iterable[Spot], key: str) -> int:
    """Returns how many places have a model."""
    return sum(spot.has(key) for spot in spots)


def _less_busy(spot: Spot) -> tuple[int, float, int]:
    # Among equals the one that has fewer models: something need not go for another there.
    return spot.failures, spot.load, spot.held
