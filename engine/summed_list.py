"""A sorted list whose entries have widths, and so a place each if they are laid end to end.

A B+ tree: entries lie in leaves, and each node knows where what lies below it ends. A change and a
question both touch one node of each level, three among a hundred thousand entries, and of a node
but a few numbers; what is not touched need not come from the computer's memory, which takes longer
than all the sums. Widths are whole numbers, so that sums are exact in whatever order they are made.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import accumulate
from typing import Any, Generic, TypeVar

Key = TypeVar("Key", bound=int | tuple[Any, ...])

_COUNT_BITS = 32
_COUNT = 2**_COUNT_BITS - 1


class _Node(Generic[Key]):
    """Neighbours in the order. A sum is a width and, in the lowest bits, of how many entries.

    Attributes:
        keys: the entries of a leaf; elsewhere the last one below each child.
        ends: where each of them ends, counted from the node's beginning, as a sum. Above the leaves
            it is empty after a change until somebody asks: far more is asked there than changed.
        below: the children; None in a leaf.
        totals: the sum of each child; empty in a leaf.
    """

    __slots__ = ("below", "ends", "keys", "totals")

    def __init__(
        self,
        keys: list[Key],
        ends: list[int],
        below: "list[_Node[Key]] | None" = None,
        totals: list[int] | None = None,
    ) -> None:
        self.keys = keys
        self.ends = ends
        self.below = below
        self.totals = totals or []

    @property
    def total(self) -> int:
        """The sum of all."""
        return self.ends[-1] if self.below is None else sum(self.totals)

    def begin(self, at: int) -> int:
        """Returns where an entry or a child begins."""
        if not at:
            return 0
        return self.ends[at - 1] if self.below is None else sum(self.totals[:at])

    def add_up(self) -> list[int]:
        """Makes `ends` anew and returns it."""
        self.ends = list(accumulate(self.totals))
        return self.ends

    def split(self) -> "_Node[Key]":
        """Keeps its first half and returns the second."""
        middle = len(self.keys) // 2
        rest: _Node[Key] = _Node(self.keys[middle:], [])
        if self.below is None:
            begin = self.ends[middle - 1]
            rest.ends = [end - begin for end in self.ends[middle:]]
            del self.ends[middle:]
        else:
            rest.below, rest.totals = self.below[middle:], self.totals[middle:]
            del self.below[middle:], self.totals[middle:]
            self.ends = []
        del self.keys[middle:]
        return rest


class SummedList(Generic[Key]):
    """Distinct entries in order, each with a width of at least 1. See the module.

    Args:
        most: entries or children of a node, at least 2; one that has more is split.
    """

    def __init__(self, most: int = 48) -> None:
        self._most = most
        self._root: _Node[Key] = _Node([], [])
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Key]:
        """Yields the entries in order."""
        for leaf in self._leaves():
            yield from leaf.keys

    def spans(self) -> Iterator[tuple[Key, int]]:
        """Yields each entry and where it begins, in order."""
        begin = 0
        for leaf in self._leaves():
            before = begin
            for key, end in zip(leaf.keys, leaf.ends, strict=True):
                yield key, begin
                begin = before + (end >> _COUNT_BITS)

    def first(self) -> Key:
        """Returns the first entry.

        Raises:
            IndexError: there is none.
        """
        node = self._root
        while node.below is not None:
            node = node.below[0]
        return node.keys[0]

    def add(self, key: Key, width: int = 1) -> None:
        """Puts an entry into its place; the later ones begin so much later."""
        more = (width << _COUNT_BITS) + 1
        node, way = self._root, []
        while node.below is not None:
            at = bisect_left(node.keys, key)
            if at == len(node.keys):
                at -= 1
                node.keys[at] = key
            node.totals[at] += more
            node.ends = []
            way.append((node, at))
            node = node.below[at]
        keys, ends = node.keys, node.ends
        at = bisect_left(keys, key)
        keys.insert(at, key)
        ends[at:] = [(ends[at - 1] if at else 0) + more, *[end + more for end in ends[at:]]]
        self._length += 1
        while len(node.keys) > self._most:
            node = self._split(node, way)

    def remove(self, key: Key) -> int:
        """Takes an entry out and returns its width; the later ones move up.

        Raises:
            KeyError: it is not here.
        """
        node, at, way = self._find(key)
        keys, ends = node.keys, node.ends
        less = ends[at] - (ends[at - 1] if at else 0)
        del keys[at]
        ends[at:] = [end - less for end in ends[at + 1 :]]
        self._length -= 1
        for parent, number in reversed(way):
            assert parent.below is not None  # noqa: S101 - it is on the way
            if keys:
                parent.totals[number] -= less
                parent.keys[number] = keys[-1]
            else:
                del parent.keys[number], parent.totals[number], parent.below[number]
            parent.ends = []
            keys = parent.keys
        while self._root.below is not None and len(self._root.below) == 1:
            self._root = self._root.below[0]
        return less >> _COUNT_BITS

    def locate(self, key: Key) -> tuple[int, int]:
        """Returns how many entries lie before one, and where it begins.

        Raises:
            KeyError: it is not here.
        """
        node, at, way = self._find(key)
        begin = node.begin(at) + sum(parent.begin(number) for parent, number in way)
        return begin & _COUNT, begin >> _COUNT_BITS

    def begun(self, position: int) -> tuple[int, Key | None]:
        """Returns what begins up to a position, 0 or more.

        Returns:
            How many entries begin before the position; the one that begins just there, or None.
        """
        node = self._root
        # However many entries end just there, they end up to there.
        left = (position << _COUNT_BITS) + _COUNT
        while True:
            ends = node.ends or node.add_up()
            at = bisect_right(ends, left)
            if at == len(ends):
                return self._length, None
            if at:
                left -= ends[at - 1]
            if node.below is None:
                break
            node = node.below[at]
        rank = _COUNT - (left & _COUNT)
        return (rank + 1, None) if left >> _COUNT_BITS else (rank, node.keys[at])

    def _leaves(self) -> Iterator[_Node[Key]]:
        nodes = [self._root]
        while nodes:
            node = nodes.pop()
            if node.below is None:
                yield node
            else:
                nodes += reversed(node.below)

    def _find(self, key: Key) -> tuple[_Node[Key], int, list[tuple[_Node[Key], int]]]:
        """Returns an entry's leaf, its number there, and the nodes above with those of the way."""
        node, way = self._root, []
        while True:
            keys = node.keys
            at = bisect_left(keys, key)
            if at == len(keys):
                raise KeyError(key)
            if node.below is None:
                break
            way.append((node, at))
            node = node.below[at]
        if keys[at] != key:
            raise KeyError(key)
        return node, at, way

    def _split(self, node: _Node[Key], way: list[tuple[_Node[Key], int]]) -> _Node[Key]:
        """Makes two of a node and returns the one above; ``way`` leads to it and gets shorter."""
        if not way:
            self._root = _Node([node.keys[-1]], [], [node], [node.total])
            way.append((self._root, 0))
        parent, at = way.pop()
        assert parent.below is not None  # noqa: S101 - it has this child
        rest = node.split()
        parent.below.insert(at + 1, rest)
        parent.keys.insert(at, node.keys[-1])
        parent.totals.insert(at + 1, rest.total)
        parent.totals[at] -= rest.total
        return parent
