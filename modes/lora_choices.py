"""The LoRAs that a request asks for, in the ecosystem's notation: ``<lora:name:0.8>``.

Pure: what a mode offers comes in by name, and a name is looked up, never made into a path.
"""

import itertools
import re
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from engine.errors import RequestError
from engine.jobs import LoraChoice, LoraSpec

NAME = re.compile(r"[^<>:\s](?:[^<>:]{0,98}[^<>:\s])?")
"""What may be asked for by a tag: 1 to 100 characters, none that ends the name."""

_TAG = re.compile(r"<lora:([^<>]*)>", re.IGNORECASE)
_STRENGTH = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_LISTED = 20  # names in a refusal; a folder may hold thousands


def read_tags(prompt: str) -> tuple[str, tuple[LoraChoice, ...]]:
    """Returns a prompt's words without its tags, and what the tags ask for, in their order.

    A tag without a strength asks for 1. The commas around a tag become one.

    Raises:
        RequestError: a tag is none; it says how one is written.
    """
    words, *rest = _TAG.split(prompt)
    choices = []
    for body, after in zip(rest[::2], rest[1::2], strict=True):
        choices.append(_choice(body))
        words = _joined(words, after)
    return words, tuple(choices)


def has_tags(prompt: object) -> bool:
    """Says whether there is something in a prompt that `read_tags` takes for a tag."""
    return isinstance(prompt, str) and _TAG.search(prompt) is not None


def read_list(text: str) -> tuple[LoraChoice, ...]:
    """Returns what a list such as ``name:0.8, other`` asks for, in its order.

    Raises:
        RequestError: an entry is none; it says how one is written.
    """
    return tuple(_entry(part) for part in text.split(",") if part.strip())


def add_tags(prompt: str, choices: Iterable[LoraChoice]) -> str:
    """Returns a prompt that asks for these, too; `read_tags` reads them back."""
    asked = {choice.name: choice for choice in read_tags(prompt)[1]}
    last = {choice.name: choice for choice in choices}
    tags = (_tag(choice) for choice in last.values() if asked.get(choice.name) != choice)
    return " ".join((prompt, *tags))


def laid_over(
    own: Sequence[LoraSpec],
    choices: Iterable[LoraChoice],
    offered: Mapping[str, Path],
    most: int,
    strongest: float,
) -> tuple[LoraSpec, ...]:
    """Returns a mode's own LoRAs with those that are asked for laid over them.

    What is asked for twice is laid once, as it was asked last; what the mode has already, likewise.
    What is asked for at strength 0 is left out.

    Args:
        own: the mode's.
        choices: what is asked for, by name, in capitals or not.
        offered: what may be, by name.
        most: how many.
        strongest: the highest strength, and below zero the lowest.

    Raises:
        RequestError: a name is not offered, there are too many, or one is too strong.
    """
    folded = {name.casefold(): path for name, path in offered.items()}
    strengths: dict[Path, float] = {}
    for choice in choices:
        name = _name(choice)
        path = offered.get(name) or folded.get(name.casefold())
        if path is None:
            shown = name.encode("utf-8", "replace").decode()
            raise RequestError("lora", shown, _listing(offered))
        strengths[path] = _strength(choice, strongest)
    if len(strengths) > most:
        raise RequestError("lora", f"{len(strengths)} LoRAs", f"{most} in one request")
    laid = [
        LoraSpec(lora.path, strengths.pop(lora.path, lora.strength), lora.adapter_name)
        for lora in own
    ]
    for path, strength in strengths.items():
        laid.append(
            LoraSpec(path, strength, adapter_name(path, {lora.adapter_name for lora in laid}))
        )
    return tuple(lora for lora in laid if lora.strength or lora in own)


def adapter_name(path: Path | str, taken: Collection[str]) -> str:
    """Returns a name for a LoRA after its file, unlike those taken; peft allows no dots in it."""
    base = re.sub(r"[^A-Za-z0-9_-]+", "_", Path(path).stem)[:48] or "lora"
    numbered = (f"{base}_{number}" for number in itertools.count(2))
    return next(name for name in itertools.chain((base,), numbered) if name not in taken)


def _choice(body: str) -> LoraChoice:
    choice = _read(body)
    if choice is None:
        raise RequestError("lora", f"<lora:{body}>", "<lora:name> or <lora:name:0.8>")
    return choice


def _entry(text: str) -> LoraChoice:
    choice = _read(text)
    if choice is None:
        shown = text.strip().encode("utf-8", "replace").decode()
        raise RequestError("lora", shown, "name or name:0.8, several with commas between them")
    return choice


def _read(text: str) -> LoraChoice | None:
    name, _, strength = (part.strip() for part in text.partition(":"))
    if not NAME.fullmatch(name) or (":" in text and not _STRENGTH.fullmatch(strength)):
        return None
    return LoraChoice(name, float(strength) if strength else 1.0)


def _tag(choice: LoraChoice) -> str:
    return f"<lora:{choice.name}:{repr(float(choice.strength)).removesuffix('.0')}>"


def _joined(before: str, after: str) -> str:
    before, after = before.rstrip(), after.lstrip()
    if after.startswith(",") and (not before or before.endswith(",")):
        after = after[1:].lstrip()
    tight = not before or not after or after[0] in ",.;:!?)"
    return f"{before}{'' if tight else ' '}{after}"


def _name(choice: LoraChoice) -> str:
    if not isinstance(choice.name, str):
        raise RequestError("lora", choice.name, "the name of a LoRA")
    return choice.name


def _strength(choice: LoraChoice, strongest: float) -> float:
    strength: object = choice.strength
    # Not a number compares as false and so doesn't fit either.
    if isinstance(strength, int | float) and not isinstance(strength, bool):
        if -strongest <= strength <= strongest:
            return float(strength)
        if abs(strength) > sys.float_info.max:
            strength = "so long a number"  # Python refuses to write out the longest
    shown = f"{choice.name}:{strength}"
    raise RequestError("lora", shown, f"a strength from {-strongest:g} to {strongest:g}")


def _listing(offered: Collection[str]) -> str:
    if not offered:
        return "none in this mode"
    names = sorted(offered, key=str.casefold)
    rest = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + rest
