"""What somebody probably means who has typed a few letters. Pure."""

import difflib
import re
from collections.abc import Iterable, Sequence

Option = tuple[str, str]
"""What is shown, and what is filled in."""

LIMIT = 25
"""As many suggestions as Discord shows."""

LENGTH = 100
"""Characters that Discord allows in what is shown and in what is filled in."""

_CLOSE = 0.6


def best(typed: str, options: Sequence[Option], limit: int = LIMIT) -> list[Option]:
    """Returns the options that fit what was typed, the best first, else in the order given.

    What contains it fits; where nothing does, what has its letters in this order; where nothing
    has, what is spelled much like it. Capitals don't count.

    Args:
        typed: anything.
        options: to choose from; those too long for Discord are left out.
        limit: most that are returned.
    """
    wanted = " ".join(typed.casefold().split())
    fitting = [(shown[:LENGTH], value) for shown, value in options if 0 < len(value) <= LENGTH]
    for tier in (_containing, _scattered, _spelled_alike):
        if found := tier(wanted, fitting):
            return found[:limit]
    return []


def lora_options(typed: str, names: Iterable[str]) -> list[Option]:
    """Returns options for a list such as ``soft:0.8, pixel``: its last entry is being typed.

    What stands before stays; what is listed already is not offered again. A strength that was
    typed stays, too.
    """
    *before, last = typed.split(",")
    name, colon, strength = last.strip().partition(":")
    listed = {entry.partition(":")[0].strip().casefold() for entry in before}
    kept = "".join(f"{entry.strip()}, " for entry in before if entry.strip())
    free = [(other, other) for other in names if other.casefold() not in listed]
    # A strength behind a name says that the name is whole.
    found = [option for option in free if option[0] == name] if colon else best(name, free)
    texts = [f"{kept}{other}{colon}{strength}" for other, _ in found]
    return [(text, text) for text in texts if len(text) <= LENGTH]


def _containing(wanted: str, options: Sequence[Option]) -> list[Option]:
    ranked = [(_rank(wanted, option), option) for option in options]
    fitting = [(rank, option) for rank, option in ranked if rank is not None]
    return [option for _, option in sorted(fitting, key=lambda pair: pair[0])]


def _rank(wanted: str, option: Option) -> int | None:
    """Returns how well an option contains what was typed, 0 is best; None where it doesn't."""
    shown, value = (text.casefold() for text in option)
    if wanted == value:
        return 0
    if shown.startswith(wanted) or value.startswith(wanted):
        return 1
    if wanted not in shown and wanted not in value:
        return None
    return 2 if any(word.startswith(wanted) for word in re.split(r"\W+", shown)) else 3


def _scattered(wanted: str, options: Sequence[Option]) -> list[Option]:
    letters = wanted.replace(" ", "")
    return [option for option in options if _in_order(letters, option[0].casefold())]


def _in_order(letters: str, text: str) -> bool:
    """Whether a text has these letters in this order, whatever stands between them."""
    rest = iter(text)  # an expression would try all ways to place them, of which there are billions
    return all(letter in rest for letter in letters)


def _spelled_alike(wanted: str, options: Sequence[Option]) -> list[Option]:
    matcher = difflib.SequenceMatcher(b=wanted)
    ranked = []
    for option in options:
        matcher.set_seq1(option[1].casefold())
        if matcher.quick_ratio() >= _CLOSE and (ratio := matcher.ratio()) >= _CLOSE:
            ranked.append((-ratio, option))
    return [option for _, option in sorted(ranked, key=lambda pair: pair[0])]
