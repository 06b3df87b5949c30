"""Words that a place does not want to read, however they are disguised. Pure.

Texts are compared folded: compatibility forms made plain (NFKC: fullwidth letters, ligatures),
capitals made small (casefold), characters that nobody sees removed. Whole words are found, never
parts of others, unless a ``*`` says so.
"""

import re
import unicodedata
from collections.abc import Iterable

from engine.errors import RequestError

MOST = 200
"""Words that a place may block."""

ANY = "*"
"""Stands at the beginning or end of a word for any letters."""

LEAST = 2
"""Characters beside that, or half of all words would be blocked."""

LONGEST = 50
"""Characters that such a word may have."""

# What has no width without being a format character (Cf): joiners, fillers, variation selectors.
_UNSEEN = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u3164\uffa0\ufe00-\ufe0f]")
# Weights such as "(word:1.2)" and backslashes are not read by the model as parts of a word.
_BRACKETS = re.compile(r"[()\[\]{}\\]")


def fold(text: str) -> str:
    """Returns text as it is compared; folding it once more changes nothing."""
    before = ""
    while text != before:  # one step may uncover another: a fullwidth form, a capital
        before = text
        seen = "".join(c for c in text if unicodedata.category(c) != "Cf")
        text = unicodedata.normalize("NFKC", _UNSEEN.sub("", seen)).casefold()
    return " ".join(text.split())


def found(words: Iterable[str], text: str) -> str | None:
    """Returns the first of the words that a text holds as a whole word; None where none is.

    Args:
        words: folded.
        text: as typed; brackets may stand within a word.
    """
    shapes = (fold(text), fold(_BRACKETS.sub("", text)))
    for word in words:
        whole = re.compile(rf"(?<!\w){_pattern(word)}(?!\w)")
        if any(whole.search(shape) for shape in shapes):
            return word
    return None


def _pattern(word: str) -> str:
    begin = r"\w*" if word.startswith(ANY) else ""
    end = r"\w*" if word.endswith(ANY) else ""
    return f"{begin}{re.escape(word.strip(ANY))}{end}"


def read_words(text: str) -> tuple[str, ...]:
    """Reads a list such as ``one, two words``; folds each and drops repetitions.

    Raises:
        RequestError: there are too many, or one is too long.
    """
    words = tuple(dict.fromkeys(word for part in text.split(",") if (word := fold(part))))
    if len(words) > MOST:
        raise RequestError("words", f"{len(words)} words", f"at most {MOST}, commas between them")
    for word in words:
        if len(word) > LONGEST:
            raise RequestError("words", word, f"words of at most {LONGEST} characters")
        inner = word.strip(ANY)
        if ANY in inner or (inner != word and len(inner) < LEAST):
            allowed = f"words; a * at their beginning or end beside {LEAST} letters at least"
            raise RequestError("words", word, allowed)
    return words
