"""(pure) What is different between two texts, line by line."""

import difflib
from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import BaseModel, Field

_AROUND = 3  # lines that a difference is shown with on either side


class DiffLineOut(BaseModel):
    """A line of a difference."""

    kind: Literal["same", "added", "removed", "gap"]
    text: str
    line: int | None = Field(description="Its number in the draft; in the file where removed.")


def differences(before: str, after: str) -> Iterator[DiffLineOut]:
    """Yields what is different between two texts, with a few lines around it; nothing for none."""
    old, new = before.splitlines(), after.splitlines()
    matcher = difflib.SequenceMatcher(None, old, new)
    for index, group in enumerate(matcher.get_grouped_opcodes(_AROUND)):
        if index:
            yield DiffLineOut(kind="gap", text="", line=None)
        for kind, old_from, old_to, new_from, new_to in group:
            if kind == "equal":
                yield from _lines("same", new, new_from, new_to)
                continue
            yield from _lines("removed", old, old_from, old_to)
            yield from _lines("added", new, new_from, new_to)


def _lines(
    kind: Literal["same", "added", "removed"], lines: Sequence[str], start: int, end: int
) -> Iterator[DiffLineOut]:
    for number in range(start, end):
        yield DiffLineOut(kind=kind, text=lines[number], line=number + 1)
