"""Parameters behind a prompt, as people know them: ``a cat --ar 16:9 --seed 7 --no text``. Pure.

A phone makes a dash of two hyphens; behind such a dash a known name is a parameter, and any other
word is the prompt's.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from engine.errors import RequestError

FIELDS: Mapping[str, tuple[str, ...]] = {
    "size": ("ar", "aspect", "size"),
    "seed": ("seed",),
    "steps": ("steps",),
    "count": ("count", "repeat", "r"),
    "guidance": ("guidance", "cfg", "scale"),
    "strength": ("strength",),
    "negative": ("no", "negative"),
    "mode": ("mode", "model"),
    "sampler": ("sampler",),
    "lora": ("lora",),
}
"""What may be asked for, and the names that it goes by."""

SHOWN = ("ar", "size", "seed", "steps", "count", "guidance", "no", "mode", "sampler", "lora")
"""The names that people are told; ``strength`` is of use beside a picture alone."""

_FIELD_OF = {name: field for field, names in FIELDS.items() for name in names}

# All words up to the next parameter are theirs; of the others it is one word.
_OF_MANY_WORDS = frozenset({"negative", "mode", "sampler", "lora"})

# Midjourney's, by how many words they take. They are dropped with a word rather than refused, since
# people bring whole prompts along.
_MEANINGLESS_ALONE = frozenset(
    re.findall(
        r"\w+",
        "creative draft fast hd loop public raw relax stealth test testp tile turbo upanime upbeta "
        "uplight video",
    )
)
_MEANINGLESS_WITH_WORD = frozenset(
    re.findall(
        r"\w+",
        "bs c chaos cw end exp iw motion niji ow p personalize profile q quality s sameseed stop "
        "style stylize sv sw v version w weird",
    )
)
_MEANINGLESS_WITH_WORDS = frozenset({"cref", "oref", "sref"})
_MEANINGLESS = _MEANINGLESS_ALONE | _MEANINGLESS_WITH_WORD | _MEANINGLESS_WITH_WORDS

_SMART_DASHES = "\u2012\u2013\u2014\u2015\u2212"
_MARK = re.compile(
    rf"(?<!\S)(?P<escape>\\?)(?P<dash>--|[{_SMART_DASHES}]{{1,2}})"
    r"(?P<name>[A-Za-z]+(?:[-_][A-Za-z]+)*)(?P<end>=|(?=[\s\d.])|$)"
)
_UNKNOWN = re.compile(r"(?<!\S)--[^\s=]+")
_SIZE_WORDS = re.compile(r"\d+\s*[x*\u00d7:/]\s*\d+(?:\.\d+)?", re.IGNORECASE)
_WORD = re.compile(r"\S+")
_ESCAPED = re.compile(rf"(?<!\S)\\(?=--|[{_SMART_DASHES}])")


@dataclass(frozen=True, slots=True)
class Typed:
    """A prompt and what was asked for behind it.

    Attributes:
        prompt: without the parameters.
        values: what was typed, by the names of `FIELDS`.
        notes: a sentence for each that has no meaning here.
    """

    prompt: str
    values: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_parameters(text: str) -> Typed:
    """Reads a prompt's parameters; what stands around them is the prompt.

    A backslash before the dashes keeps a word in the prompt.

    Raises:
        RequestError: a parameter is unknown, or there is nothing behind it.
    """
    marks = list(_marks(text))
    words = [text[: marks[0].start()] if marks else text]
    values: dict[str, str] = {}
    dropped: list[str] = []
    for mark, end in zip(marks, _ends(marks, len(text)), strict=True):
        name, behind = mark["name"].lower(), text[mark.end() : end]
        taken = _taken(name, behind)
        words.append(behind[len(taken) :])
        if name in _MEANINGLESS:
            dropped.append(f"--{name}")
        else:
            _keep(values, name, taken.strip())
    prompt = " ".join(part for part in map(str.strip, words) if part)
    _refuse_unknown(prompt)
    return Typed(_ESCAPED.sub("", prompt), values, _notes(dropped))


def _marks(text: str) -> Iterator[re.Match[str]]:
    for mark in _MARK.finditer(text):
        name = mark["name"].lower()
        if mark["escape"]:
            continue
        if name in _FIELD_OF or name in _MEANINGLESS:
            yield mark
        elif mark["dash"] == "--":
            raise _unknown(f"--{mark['name']}")


def _ends(marks: Sequence[re.Match[str]], length: int) -> list[int]:
    """Returns where the text behind each parameter ends."""
    return [mark.start() for mark in marks[1:]] + [length] if marks else []


def _taken(name: str, behind: str) -> str:
    """Returns what of the text behind a parameter is the parameter's own."""
    known = _FIELD_OF.get(name)
    if name in _MEANINGLESS_ALONE:
        return ""
    if known in _OF_MANY_WORDS or name in _MEANINGLESS_WITH_WORDS:
        return behind
    blank = len(behind) - len(behind.lstrip())
    word = (known == "size" and _SIZE_WORDS.match(behind, blank)) or _WORD.match(behind, blank)
    return behind[: word.end()] if word else behind


def _keep(values: dict[str, str], name: str, value: str) -> None:
    known = _FIELD_OF[name]
    if not value:
        raise RequestError(f"--{name}", "", _EXAMPLES[known])
    if known == "negative" and known in values:
        value = f"{values[known]}, {value}"
    values[known] = value  # of what is said twice the last counts, as it does elsewhere


_EXAMPLES = {
    "size": "a size such as 16:9, portrait or 512x768",
    "seed": "a number such as 7",
    "steps": "a number such as 30",
    "count": "a number such as 4",
    "guidance": "a number such as 7.5",
    "strength": "a number such as 0.6",
    "negative": "words such as text, blur",
    "mode": "the name of a mode",
    "sampler": "the name of a sampler",
    "lora": "a LoRA such as soft-light:0.8",
}


def _refuse_unknown(prompt: str) -> None:
    """Refuses what looks like a parameter and is none: ``--`` and a word that is no name."""
    for word in _UNKNOWN.finditer(prompt):
        if any(character.isalnum() for character in word[0]):
            raise _unknown(word[0])


def _unknown(name: str) -> RequestError:
    return RequestError("parameter", name, " ".join(f"--{known}" for known in SHOWN))


def _notes(dropped: Sequence[str]) -> tuple[str, ...]:
    names = list(dict.fromkeys(dropped))
    if not names:
        return ()
    if len(names) == 1:
        return (f"{names[0]} has no meaning here and was left out",)
    return (f"{', '.join(names[:-1])} and {names[-1]} have no meaning here and were left out",)
