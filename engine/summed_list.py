"""A sorted list whose entries have widths, and so a place each if they are laid end to end.

Entries lie in blocks, several times as many as a block has entries. Running sums, over the blocks
and within each, are made anew where they are asked for after a change: some microseconds among a
hundred thousand entries. Widths are whole numbers, so that sums are exact in whatever order they
are made.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import accumulate
from math import isqrt
from typing import Any, Generic, TypeVar

Key = TypeVar("Key", bound=tuple[Any, ...])


class _Block(Generic[Key]):
    """Neighbours in the order."""

    __slots__ = ("_ends", "keys", "widths")

    def __init__(self, keys: list[Key], widths: list[int]) -> None:
        self.keys = keys
        self.widths = widths
        self._ends: list[int] | None = None

    @property
    def ends(self) -> list[int]:
        """Where each entry ends, counted from the block's beginning."""
        if self._ends is None:
            self._ends = list(accumulate(self.widths))
        return self._ends

    def add(self, key: Key, width: int) -> None:
        at = bisect_left(self.keys, key)
        self.keys.insert(at, key)
        self.widths.insert(at, width)
        self._ends = None

    def remove_at(self, at: int) -> int:
        """Takes an entry out and returns its width."""
        del self.keys[at]
        self._ends = None
        return self.widths.pop(at)

    def split(self) -> "_Block[Key]":
        """Keeps its first half and returns the second."""
        middle = len(self.keys) // 2
        rest = _Block(self.keys[middle:], self.widths[middle:])
        del self.keys[middle:], self.widths[middle:]
        self._ends = None
        return rest


class SummedList(Generic[Key]):
    """Distinct entries in order, each with a width of at least 1. See the module.

    Args:
        block: least entries of a block. They grow with the square root of all, a third of which
            they have; one of twice as many is split.
    """

    def __init__(self, block: int = 16) -> None:
        self._block = block
        self._blocks: list[_Block[Key]] = []
        # Of each block: its last entry, how many it has, the sum of their widths.
        self._lasts: list[Key] = []
        self._counts: list[int] = []
        self._totals: list[int] = []
        self._ends: list[int] | None = None  # the running sums of the last
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Key]:
        """Yields the entries in order."""
        for block in self._blocks:
            yield from block.keys

    def spans(self) -> Iterator[tuple[Key, int]]:
        """Yields each entry and where it begins, in order."""
        begin = 0
        for block in self._blocks:
            for key, width in zip(block.keys, block.widths, strict=True):
                yield key, begin
                begin += width

    def first(self) -> Key:
        """Returns the first entry.

        Raises:
            IndexError: there is none.
        """
        return self._blocks[0].keys[0]

    def add(self, key: Key, width: int = 1) -> None:
        """Puts an entry into its place; the later ones begin so much later."""
        if not self._blocks:
            self._insert_block(0, _Block([], []), key)
        number = min(bisect_left(self._lasts, key), len(self._blocks) - 1)
        block = self._blocks[number]
        block.add(key, width)
        self._counts[number] += 1
        self._totals[number] += width
        self._lasts[number] = block.keys[-1]
        if len(block.keys) >= 2 * max(self._block, isqrt(self._length) // 3):
            rest = block.split()
            self._insert_block(number + 1, rest, self._lasts[number])
            self._lasts[number] = block.keys[-1]
            self._counts[number] -= self._counts[number + 1]
            self._totals[number] -= self._totals[number + 1]
        self._length += 1
        self._ends = None

    def remove(self, key: Key) -> None:
        """Takes an entry out; the later ones move up.

        Raises:
            KeyError: it is not here.
        """
        number, at = self._find(key)
        block = self._blocks[number]
        self._totals[number] -= block.remove_at(at)
        self._counts[number] -= 1
        if block.keys:
            self._lasts[number] = block.keys[-1]
        else:
            for parts in (self._blocks, self._lasts, self._counts, self._totals):
                del parts[number]
        self._length -= 1
        self._ends = None

    def locate(self, key: Key) -> tuple[int, int]:
        """Returns how many entries lie before one, and where it begins.

        Raises:
            KeyError: it is not here.
        """
        number, at = self._find(key)
        # For one place, adding up what lies before costs less than the running sums of all.
        begin = sum(self._totals[:number]) + sum(self._blocks[number].widths[:at])
        return sum(self._counts[:number]) + at, begin

    def begun(self, position: int) -> tuple[int, Key | None]:
        """Returns what begins up to a position, 0 or more.

        Returns:
            How many entries begin before the position; the one that begins just there, or None.
        """
        ends = self._ends
        if ends is None:
            ends = self._ends = list(accumulate(self._totals))
        number = bisect_right(ends, position)
        if number == len(ends):
            return self._length, None
        begin = ends[number - 1] if number else 0
        block = self._blocks[number]
        inner = block.ends
        at = bisect_right(inner, position - begin)
        if at:
            begin += inner[at - 1]
        rank = sum(self._counts[:number]) + at
        return (rank, block.keys[at]) if begin == position else (rank + 1, None)

    def _find(self, key: Key) -> tuple[int, int]:
        number = bisect_left(self._lasts, key)
        if number < len(self._blocks):
            keys = self._blocks[number].keys
            at = bisect_left(keys, key)
            if keys[at] == key:
                return number, at
        raise KeyError(key)

    def _insert_block(self, number: int, block: _Block[Key], last: Key) -> None:
        self._blocks.insert(number, block)
        self._lasts.insert(number, last)
        self._counts.insert(number, len(block.keys))
        self._totals.insert(number, sum(block.widths))
