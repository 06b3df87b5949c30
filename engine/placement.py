"""(pure) Which of many places a job goes to: where its model is, unless that takes longer.

A job goes to a place that has its model in memory. Two things weigh against it:

- **That place is busy.** Then it goes where its picture is expected sooner, a load included; where
  nothing is known yet, to the less busy one, or a second device would never be used.
- **All places that have the model are full**, and others are free. Then it waits for one of them as
  long as what waits for this model is done sooner than a load takes. Once the queue for the model
  is longer than a switch, another place loads a copy.

Places are anything that answers a few questions: lanes in the pool, numbers in the simulator.
`choose` looks at all of them; `Places` keeps them in order and finds the same one among a thousand.
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


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


def anywhere(_: object) -> bool:
    """Says of every place that a job may go there."""
    return True


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
    return _nearer(near, far, prefer_loaded=prefer_loaded, finish=finish)


def _nearer(
    near: SpotT | None,
    far: SpotT,
    *,
    prefer_loaded: bool,
    finish: Callable[[SpotT], float | None],
) -> SpotT:
    """Returns the better of the best that has the model and the best that has not."""
    if near is None or near.failures > far.failures:
        return far
    if prefer_loaded or far.failures > near.failures:
        return near
    there, elsewhere = finish(near), finish(far)
    if there is None or elsewhere is None:
        return near if near.load <= far.load else far
    return near if there <= elsewhere else far


# How busy a place is, and its number: in order of being put first.
_Rank = tuple[int, float, int, int]


@dataclass(slots=True)
class _Known(Generic[SpotT]):
    """A place as it was put last; ``rank`` is None where it has no room."""

    number: int
    spot: SpotT
    keys: frozenset[str]
    rank: _Rank | None


class Places(Generic[SpotT]):
    """Many places, of which some have room; each is put again when something of it has changed.

    A decision among a thousand costs some microseconds: the least busy one stands first, among all
    and among those that have a model.
    """

    def __init__(self) -> None:
        self._known: dict[SpotT, _Known[SpotT]] = {}
        self._spots: dict[int, _Known[SpotT]] = {}
        self._last = 0
        self._free: list[_Rank] = []
        self._free_with: dict[str, list[_Rank]] = {}
        self._all_with: dict[str, list[int]] = {}  # their numbers, with room or without

    def __len__(self) -> int:
        """Returns how many have room."""
        return len(self._free)

    def put(self, spot: SpotT, keys: Collection[str], *, has_room: bool) -> None:
        """Notes what a place is like now.

        Args:
            spot: new, or one that was put before, which keeps its rank among equals.
            keys: the models that it has.
            has_room: whether it takes one more.
        """
        old = self._known.get(spot)
        number = self._last if old is None else old.number
        rank = (*_less_busy(spot), number) if has_room else None
        held = frozenset(keys)
        if old is not None and (old.rank, old.keys) == (rank, held):
            return
        self._forget(old)
        self._last = max(self._last, number + 1)
        self._known[spot] = self._spots[number] = _Known(number, spot, held, rank)
        for key in held:
            insort(self._all_with.setdefault(key, []), number)
        if rank is not None:
            insort(self._free, rank)
            for key in held:
                insort(self._free_with.setdefault(key, []), rank)

    def remove(self, spot: SpotT) -> None:
        """Forgets a place, if it is known; put again it is a new one."""
        self._forget(self._known.pop(spot, None))

    def holders(
        self, key: str, fits: Callable[[SpotT], bool] = anywhere
    ) -> tuple[int, SpotT | None]:
        """Returns how many places have a model, with room or without, and the first that fits."""
        numbers = self._all_with.get(key, ())
        spots = (self._spots[number].spot for number in numbers)
        return len(numbers), next(filter(fits, spots), None)

    def has_room_with(self, key: str, fits: Callable[[SpotT], bool] = anywhere) -> bool:
        """Returns whether a place that has a model, and fits, has room."""
        return self._first(self._free_with.get(key, ()), fits) is not None

    def choose(
        self,
        key: str | None,
        *,
        fits: Callable[[SpotT], bool] = anywhere,
        prefer_loaded: bool = False,
        finish: Callable[[SpotT], float | None] = lambda _: None,
    ) -> SpotT | None:
        """Returns what `choose` would of those that have room, in the order of being put first.

        Args:
            key: as there.
            fits: returns whether the job may go to a place at all; asked of few, mostly.
            prefer_loaded: as there.
            finish: as there.
        """
        having = () if key is None else self._free_with.get(key, ())
        near = self._first(having, fits)
        if near is not None and (prefer_loaded or not near.load):
            best = self._first(self._free, fits)
            if best is None or near.failures <= best.failures:
                return near
        if len(having) == len(self._free):
            return near
        others = (rank for rank in self._free if key not in self._spots[rank[-1]].keys)
        far = self._first(others, fits)
        if far is None:
            return near
        return _nearer(near, far, prefer_loaded=prefer_loaded, finish=finish)

    def _first(self, ranks: Iterable[_Rank], fits: Callable[[SpotT], bool]) -> SpotT | None:
        return next(filter(fits, (self._spots[rank[-1]].spot for rank in ranks)), None)

    def _forget(self, known: _Known[SpotT] | None) -> None:
        if known is None:
            return
        del self._spots[known.number]
        for key in known.keys:
            _take_out(self._all_with, key, known.number)
        if known.rank is not None:
            del self._free[bisect_left(self._free, known.rank)]
            for key in known.keys:
                _take_out(self._free_with, key, known.rank)


ItemT = TypeVar("ItemT", int, _Rank)


def _take_out(lists: dict[str, list[ItemT]], key: str, item: ItemT) -> None:
    """Takes an item out of one of several sorted lists, and the list with the last of them."""
    found = lists[key]
    del found[bisect_left(found, item)]
    if not found:
        del lists[key]


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


def _less_busy(spot: Spot) -> tuple[int, float, int]:
    # Among equals the one that has fewer models: something need not go for another there.
    return spot.failures, spot.load, spot.held
