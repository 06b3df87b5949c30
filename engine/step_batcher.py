"""Chooses who shares the next forward pass. Pure: sees numbers and keys, never a tensor.

A batch is made of rows, not of requests, and all of its pictures have one key. Between keys, turns
go by deficit round robin (Shreedhar and Varghese, 1996), charged by the size of one picture: while
a large one makes a step, a picture of a quarter of the size makes four, and no key is served more
than `MOST_PASSES` times before each other one is served once. So a rare size or model doesn't
starve, however many draw with another, and none gets more than its share.

Within a key it is first come, first served. Up to the cap everybody moves at every pass of the
key. Above it, where more rows would make everybody wait and nobody faster, the later ones wait
until one ahead of them has finished. A request's second picture lets the next request's first go
before it, its third those of the next two, and so on: one with eight pictures doesn't hold up
those that come after it eight times as long, and they don't hold it up for ever.
"""

import itertools
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from engine.summed_list import SummedList

LEAST_CAP = 2
"""Fewest rows a forward pass must have room for: one picture with guidance."""

MOST_PASSES = 4
"""Passes in a row that a key of small pictures gets beside one of large ones."""

Item = TypeVar("Item", bound=Hashable)
Key = TypeVar("Key", bound=Hashable)

# (turn, number of the picture in its request): the turn is the number of the request, and one more
# for each of its pictures before this one.
_Rank = tuple[int, int]


@dataclass(slots=True)
class _Line(Generic[Item]):
    """The pictures of one key; each is as wide in ``order`` as the rows it takes."""

    size: int
    deficit: int = 0
    order: SummedList[_Rank] = field(default_factory=SummedList)
    items: dict[_Rank, Item] = field(default_factory=dict)


@dataclass(slots=True)
class _Owner:
    """A request: when it came, pictures of it that have joined, and that are still here."""

    number: int
    joined: int = 0
    here: int = 0


@dataclass(slots=True)
class _Seat(Generic[Key]):
    """Where a picture is."""

    key: Key
    owner: Hashable
    rank: _Rank
    rows: int


class StepBatcher(Generic[Item, Key]):
    """The pictures that have steps to make; see the module.

    Each call takes some microseconds among a hundred thousand pictures: a choice looks at those
    that it chooses, and at no others.
    """

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._seats: dict[Item, _Seat[Key]] = {}
        self._owners: dict[Hashable, _Owner] = {}
        self._lines: OrderedDict[Key, _Line[Item]] = OrderedDict()  # the first has its turn
        self._sizes: Counter[int] = Counter()  # of the lines
        self._granted = False  # whether the first has got what this turn is worth

    def __len__(self) -> int:
        return len(self._seats)

    def __contains__(self, item: object) -> bool:
        return item in self._seats

    def join(self, item: Item, key: Key, owner: Hashable, rows: int, size: int) -> None:
        """Lets a picture take part from the next pass on.

        Args:
            item: the picture.
            key: equal for the pictures that can share a forward pass.
            owner: the request it belongs to.
            rows: rows of a batch it takes.
            size: work of one of its rows, in whatever unit: the same for all of a key.

        Raises:
            ValueError: it takes part already, or a number is below 1.
        """
        if item in self._seats:
            raise ValueError("this picture takes part already")
        if rows < 1 or size < 1:
            raise ValueError(f"rows {rows}, size {size}; allowed: at least 1")
        request = self._owners.setdefault(owner, _Owner(-1))
        if request.number < 0:
            request.number = next(self._numbers)
        rank = (request.number + request.joined, request.joined)
        request.joined += 1
        request.here += 1
        self._seat(item, _Seat(key, owner, rank, rows), size)

    def move(self, item: Item, key: Key, size: int) -> None:
        """Changes with whom a picture can share a pass; it came when it came.

        Raises:
            KeyError: it takes no part.
        """
        seat = self._seats[item]
        if seat.key != key:
            self._unseat(item)
            self._seat(item, _Seat(key, seat.owner, seat.rank, seat.rows), size)

    def leave(self, item: Item) -> bool:
        """Frees a picture's rows. False: it takes no part."""
        if item not in self._seats:
            return False
        seat = self._unseat(item)
        request = self._owners[seat.owner]
        request.here -= 1
        if not request.here:
            del self._owners[seat.owner]
        return True

    def next_batch(self, cap_of: Callable[[Key], int]) -> list[Item]:
        """Chooses the pictures of the next forward pass, and counts the pass as made.

        Args:
            cap_of: most rows in a pass, by key; at least `LEAST_CAP`.

        Returns:
            Those of one key, first come first; empty where nobody takes part.

        Raises:
            ValueError: a cap has no room for one picture.
        """
        if not self._lines:
            return []
        key, line = self._next_line()
        room = cap_of(key)
        least = max(LEAST_CAP, self._seats[line.items[line.order.first()]].rows)
        if room < least:
            raise ValueError(f"cap is {room} rows; a picture takes {least}")
        batch = []
        for rank, before in line.order.spans():
            item = line.items[rank]
            if before >= room or before + self._seats[item].rows > room:
                break
            batch.append(item)
        return batch

    def _next_line(self) -> tuple[Key, _Line[Item]]:
        """Returns whose turn it is, and charges it."""
        quantum = max(self._sizes)
        while True:
            key, line = next(iter(self._lines.items()))
            # Small passes cost more than their size says: none is charged next to nothing.
            charge = max(line.size, -(-quantum // MOST_PASSES))
            if not self._granted:
                line.deficit = min(line.deficit, charge - 1) + quantum
                self._granted = True
            if line.deficit >= charge:
                line.deficit -= charge
                return key, line
            self._lines.move_to_end(key)
            self._granted = False

    def _seat(self, item: Item, seat: _Seat[Key], size: int) -> None:
        line = self._lines.get(seat.key)
        if line is None:
            line = self._lines[seat.key] = _Line(size)
            self._sizes[size] += 1
        line.order.add(seat.rank, seat.rows)
        line.items[seat.rank] = item
        self._seats[item] = seat

    def _unseat(self, item: Item) -> _Seat[Key]:
        seat = self._seats.pop(item)
        line = self._lines[seat.key]
        line.order.remove(seat.rank)
        del line.items[seat.rank]
        if not line.items:
            if next(iter(self._lines)) == seat.key:
                self._granted = False
            del self._lines[seat.key]
            self._sizes[line.size] -= 1
            if not self._sizes[line.size]:
                del self._sizes[line.size]
        return seat
