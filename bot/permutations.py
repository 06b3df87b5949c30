"""Permutations: ``a {red, blue} {cat, dog}`` asks for each combination. Pure.

Braces may stand within braces. A backslash keeps ``{``, ``}`` and, in braces, ``,`` as they are.
Braces without a partner, or without a comma between them, are the prompt's own.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

from engine.errors import RequestError

MAX_DEPTH = 10
"""Braces within braces."""

_ESCAPABLE = frozenset("{},")


def expand(text: str, most: int) -> list[str]:
    """Returns every combination, the last braces turning fastest; the text alone without any.

    What comes out twice is there once.

    Args:
        text: as it was typed.
        most: how many there may be; they are counted before any is made.

    Raises:
        RequestError: there are more, or braces are too deep.
    """
    partners = _partners(text)
    number = _count(text, 0, len(text), partners)
    if number > most:
        shown = f"{number} combinations" if number < 10**6 else "millions of combinations"
        raise RequestError("prompt", shown, f"at most {most} at once; fewer words between {{ }}")
    made = dict.fromkeys(_expanded(text, 0, len(text), partners, depth=0))
    if number == 1:
        return list(made)
    # An empty option leaves two blanks behind.
    return list(dict.fromkeys(" ".join(one.split()) for one in made))


def _partners(text: str) -> Mapping[int, int]:
    """Returns where the closing brace of each opening one is."""
    found: dict[int, int] = {}
    waiting: list[int] = []
    for position in _plain(text, 0, len(text)):
        if text[position] == "{":
            waiting.append(position)
        elif text[position] == "}" and waiting:
            found[waiting.pop()] = position
    return _bounded(found)


def _bounded(partners: Mapping[int, int]) -> Mapping[int, int]:
    """Returns the same partners.

    Raises:
        RequestError: there are too many of them within one another.
    """
    ends: list[int] = []
    for start in sorted(partners):
        while ends and ends[-1] < start:
            ends.pop()
        ends.append(partners[start])
        if len(ends) > MAX_DEPTH:
            raise RequestError("prompt", f"{{ }} {len(ends)} deep", f"at most {MAX_DEPTH} deep")
    return partners


def _plain(text: str, start: int, end: int) -> Iterator[int]:
    """Yields the positions of characters that no backslash stands before."""
    position = start
    while position < end:
        if text[position] == "\\" and text[position + 1 : position + 2] in _ESCAPABLE:
            position += 2
            continue
        yield position
        position += 1


def _options(text: str, start: int, end: int, partners: Mapping[int, int]) -> list[tuple[int, int]]:
    """Returns the parts between the commas of a pair of braces; one where there are none."""
    cuts, inside = [], -1
    for position in _plain(text, start, end):
        if position <= inside:
            continue
        if text[position] == "{":
            inside = partners.get(position, inside)
        elif text[position] == ",":
            cuts.append(position)
    return list(zip([start, *(cut + 1 for cut in cuts)], [*cuts, end], strict=True))


def _pairs(text: str, start: int, end: int, partners: Mapping[int, int]) -> list[tuple[int, int]]:
    """Returns the outermost braces of a part."""
    found, inside = [], -1
    for position in _plain(text, start, end):
        if position > inside and text[position] == "{" and position in partners:
            inside = partners[position]
            found.append((position, inside))
    return found


def _count(text: str, start: int, end: int, partners: Mapping[int, int]) -> int:
    return math.prod(
        _choices(_options(text, left + 1, right, partners), text, partners)
        for left, right in _pairs(text, start, end, partners)
    )


def _choices(options: Sequence[tuple[int, int]], text: str, partners: Mapping[int, int]) -> int:
    return sum(_count(text, start, end, partners) for start, end in options)


def _expanded(
    text: str, start: int, end: int, partners: Mapping[int, int], depth: int
) -> Iterator[str]:
    """Yields every combination of a part."""
    pieces: list[Iterable[str]] = []
    at = start
    for left, right in _pairs(text, start, end, partners):
        pieces.append([_unescaped(text[at:left], depth)])
        pieces.append(list(_chosen(text, left, right, partners, depth)))
        at = right + 1
    pieces.append([_unescaped(text[at:end], depth)])
    yield from map("".join, itertools.product(*pieces))


def _chosen(
    text: str, left: int, right: int, partners: Mapping[int, int], depth: int
) -> Iterator[str]:
    """Yields what may stand in place of a pair of braces."""
    options = _options(text, left + 1, right, partners)
    if len(options) == 1:
        for inner in _expanded(text, left + 1, right, partners, depth):
            yield f"{{{inner}}}"
        return
    for start, end in options:
        for inner in _expanded(text, start, end, partners, depth + 1):
            yield inner.strip()


def _unescaped(text: str, depth: int) -> str:
    """Returns a part as it is meant; a comma needs a backslash within braces alone."""
    plain = text.replace("\\{", "{").replace("\\}", "}")
    return plain.replace("\\,", ",") if depth else plain
