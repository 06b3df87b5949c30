"""Chooses who shares the next forward pass. Pure: sees numbers and keys, never a tensor.

Whoever waited longest is always served, and takes along whoever fits: so with n pictures waiting,
each one moves at least every n-th pass, whatever else arrives. Where not all of a group fit, the
requests share the rows evenly: one with eight pictures is no faster per picture than it would be
with eight times the work.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

LEAST_CAP = 2
"""Fewest rows a forward pass must have room for: one picture with guidance."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A picture that waits for its next step.

    Attributes:
        key: equal for the pictures that can share a forward pass.
        owner: the request it belongs to.
        rows: rows of a batch it takes.
        since: number of the pass that it last took part in, or at which it joined.
    """

    key: Hashable
    owner: Hashable
    rows: int
    since: int


def choose_batch(waiting: Sequence[Waiting], cap_of: Callable[[Hashable], int]) -> list[int]:
    """Chooses the pictures of the next forward pass.

    Args:
        waiting: who waits, in the order of arrival.
        cap_of: most rows in a pass, by key; at least `LEAST_CAP`.

    Returns:
        Indices into ``waiting``; the first is the one that waited longest. Empty where nobody
        waits.

    Raises:
        ValueError: a cap has no room for one picture.
    """
    if not waiting:
        return []
    by_age = sorted(range(len(waiting)), key=lambda i: waiting[i].since)
    oldest = waiting[by_age[0]]
    room = cap_of(oldest.key)
    if room < max(LEAST_CAP, oldest.rows):
        raise ValueError(f"cap is {room} rows; a picture takes {max(LEAST_CAP, oldest.rows)}")
    chosen = []
    for i in _in_turns([i for i in by_age if waiting[i].key == oldest.key], waiting):
        if waiting[i].rows <= room:
            chosen.append(i)
            room -= waiting[i].rows
    return chosen


def _in_turns(group: Sequence[int], waiting: Sequence[Waiting]) -> list[int]:
    """Orders a group so that each request's first comes before anybody's second."""
    seen: Counter[Hashable] = Counter()
    turns = {}
    for i in group:
        turns[i] = seen[waiting[i].owner]
        seen[waiting[i].owner] += 1
    return sorted(group, key=lambda i: turns[i])  # sorting is stable: by age within a turn
