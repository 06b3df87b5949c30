"""Plain data out of YAML that may be wrong or hostile: every problem with its line.

The text is read as nodes, which know where they stand, and never made into Python objects by YAML
itself. Tags and aliases are refused (a few aliases can stand for billions of values), and so is
what is nested too deep.
"""

import difflib
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from modes.request_fields import parse_size

Node: TypeAlias = yaml.Node | None
"""A value in the file; None where a key is missing."""

MAX_DEPTH = 16

MAX_PROBLEMS = 100
"""Problems of one file that are told; how many more there are is told as well."""

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where it is built
_WHOLE = re.compile(r"[+-]?(0|[1-9]\d{0,17})", re.ASCII)
_NUMBER = re.compile(r"[+-]?\d{1,18}(\.\d{0,18})?", re.ASCII)
# Of what is invisible, emoji and some scripts need the joiners; these would turn around what stands
# beside them, wherever the text is shown (Unicode's property Bidi_Control).
_BIDI_CONTROLS = frozenset(
    "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)
_PREFIX = "tag:yaml.org,2002:"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with, or noteworthy about, what the owner wrote.

    Attributes:
        text: what it is and what is allowed.
        key: such as ``modes.demo.default_steps``; empty for the file as a whole.
        path: the file; None where there is none.
        line: from 1; None for the file as a whole.
    """

    text: str
    key: str = ""
    path: Path | None = None
    line: int | None = None

    def __str__(self) -> str:
        """One line: file, line, key, what is wrong."""
        return self._told(self.path)

    @property
    def brief(self) -> str:
        """The same, of the file its name alone: its folder is the owner's business."""
        return self._told(self.path and self.path.name)

    def _told(self, file: Path | str | None) -> str:
        place = f"{file}, line {self.line}" if self.line else str(file or "")
        return ": ".join(part for part in (place, self.key, self.text) if part)


class YamlReader:
    """Reads one file's values and collects what is wrong with them.

    Each reading method returns None where the key is missing, left empty, or wrong; what is wrong
    is added to `problems`, so that all of it is told at once, or `MAX_PROBLEMS` of it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[Problem] = []
        self._untold = 0
        self.warnings: list[Problem] = []

    def compose(self, text: str) -> Node:
        """Returns the outermost value of a file's text."""
        try:
            if not self._is_plain(text):
                return None
            node: yaml.Node | None = yaml.compose(text, Loader=_LOADER)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            self._broken(text, error.problem or "unreadable", mark.line if mark else 0)
        except yaml.YAMLError as error:
            # The reader's own errors have a place in the text, and no line.
            position = getattr(error, "position", 0)
            reason = "a character that YAML does not allow"
            self._broken(text, reason, text.count("\n", 0, position))
        else:
            if node is None or _is_null(node):
                self._add(Problem("the file is empty", path=self.path))
            return node
        return None

    def mapping(self, node: Node, key: str, known: Iterable[str] | None = None) -> dict[str, Node]:
        """Returns a value's keys; with ``known``, others are refused."""
        if node is None or _is_null(node):
            return {}
        if not isinstance(node, yaml.MappingNode):
            self.refuse(node, key, "keys with values")
            return {}
        found: dict[str, Node] = {}
        for name_node, value in node.value:
            name = name_node.value if isinstance(name_node, yaml.ScalarNode) else ""
            here = join(key, name)
            if not name or _is_null(name_node):
                self.refuse(name_node, key, "a name before the colon")
            elif name in found:
                self.problem(name_node, here, "stands here a second time")
            elif known is not None and name not in known:
                # Which key was meant takes a while to find, and nobody is told past the bound.
                meant = "" if self._is_full() else _unknown(name, tuple(known))
                self.problem(name_node, here, meant)
            else:
                found[name] = value
        return found

    def items(self, node: Node, key: str, allowed: str = "a list") -> list[yaml.Node]:
        """Returns the entries of a list."""
        if node is None or _is_null(node):
            return []
        if not isinstance(node, yaml.SequenceNode):
            self.refuse(node, key, allowed)
            return []
        return list(node.value)

    def text(self, node: Node, key: str, limit: int = 500) -> str | None:
        """Returns one line of text; a number is taken as it is written."""
        if node is None or _is_null(node):
            return None
        allowed = f"1 to {limit} characters of text on one line"
        if not isinstance(node, yaml.ScalarNode):
            self.refuse(node, key, allowed)
            return None
        text: str = node.value.strip()
        if len(text) > limit or not _is_line(text):
            self.refuse(node, key, allowed)
            return None
        return text

    def choice(self, node: Node, key: str, options: Iterable[str]) -> str | None:
        """Returns one of the options, written in capitals or not."""
        options = tuple(options)
        text = self.text(node, key)
        for option in options:
            if text is not None and text.casefold() == option.casefold():
                return option
        if text is not None and node is not None:
            self.refuse(node, key, ", ".join(options))
        return None

    def whole(self, node: Node, key: str, low: int, high: int, step: int = 1) -> int | None:
        """Returns a whole number within bounds, both included."""
        if node is None or _is_null(node):
            return None
        if _has_tag(node, "int") and _WHOLE.fullmatch(node.value):
            value = int(node.value)
            if low <= value <= high and value % step == 0:
                return value
        multiple = f", a multiple of {step}" if step > 1 else ""
        self.refuse(node, key, f"a whole number from {low} to {high}{multiple}")
        return None

    def number(self, node: Node, key: str, low: float, high: float) -> float | None:
        """Returns a number within bounds, both included."""
        if node is None or _is_null(node):
            return None
        if _has_tag(node, "int", "float") and _NUMBER.fullmatch(node.value):
            value = float(node.value)
            if low <= value <= high:
                return value
        self.refuse(node, key, f"a number from {low:g} to {high:g}")
        return None

    def truth(self, node: Node, key: str) -> bool | None:
        """Returns true or false, in any of YAML's spellings."""
        if node is None or _is_null(node):
            return None
        if not _has_tag(node, "bool"):
            self.refuse(node, key, "true or false")
            return None
        return _is_true(node)

    def size(self, node: Node, key: str, bounds: tuple[int, int, int]) -> tuple[int, int] | None:
        """Returns a width and height, written 512x768, [512, 768] or 512.

        ``bounds`` are the shortest and the longest side and what both are multiples of.
        """
        low, high, step = bounds
        if node is None or _is_null(node):
            return None
        sides: list[int] = []
        if isinstance(node, yaml.SequenceNode):
            plain = all(_has_tag(n, "int") and _WHOLE.fullmatch(n.value) for n in node.value)
            sides = [int(n.value) for n in node.value] if plain else []
        elif isinstance(node, yaml.ScalarNode):
            whole = _has_tag(node, "int") and _WHOLE.fullmatch(node.value)
            sides = [int(node.value)] * 2 if whole else list(parse_size(node.value) or ())
        if len(sides) == 2 and all(low <= side <= high and side % step == 0 for side in sides):
            return sides[0], sides[1]
        allowed = f"512x768, [512, 768] or 512: sides from {low} to {high}, multiples of {step}"
        self.refuse(node, key, allowed)
        return None

    def plain(self, node: Node, key: str) -> Any:
        """Returns any value as plain Python: text, numbers, truth values, lists, dictionaries."""
        if isinstance(node, yaml.MappingNode):
            return {
                name: self.plain(value, join(key, name))
                for name, value in self.mapping(node, key).items()
            }
        if isinstance(node, yaml.SequenceNode):
            return [self.plain(item, key) for item in node.value]
        if node is None or _is_null(node):
            return None
        if _has_tag(node, "bool"):
            return _is_true(node)
        if _has_tag(node, "int") and _WHOLE.fullmatch(node.value):
            return int(node.value)
        if _has_tag(node, "float") and _NUMBER.fullmatch(node.value):
            return float(node.value)
        return node.value

    def is_text(self, node: Node, text: str) -> bool:
        """Whether a value is this text."""
        return isinstance(node, yaml.ScalarNode) and bool(node.value == text)

    def is_mapping(self, node: Node) -> bool:
        """Whether a value is a group of keys."""
        return isinstance(node, yaml.MappingNode)

    def missing(
        self, parent: Node, keys: Mapping[str, Node], name: str, allowed: str, key: str = ""
    ) -> None:
        """Notes that a key is needed, unless what stands there was refused already."""
        node = keys.get(name)
        if node is None or _is_null(node) or not getattr(node, "value", None):
            self.problem(node or parent, join(key, name), f"missing. Allowed: {allowed}.")

    def refuse(self, node: Node, key: str, allowed: str) -> None:
        """Notes that a value is not allowed."""
        self.problem(node, key, f"{_shown(node)} is not allowed. Allowed: {allowed}.")

    def problem(self, node: Node, key: str, text: str) -> None:
        """Notes what is wrong with a value."""
        self._add(Problem(text, key, self.path, _line(node)))

    def told(self) -> list[Problem]:
        """Returns the problems by their lines, and last how many more there are."""
        told = sorted(self.problems, key=lambda problem: problem.line or 0)
        more = f"and {self._untold} more; mend these first"
        return [*told, Problem(more, path=self.path)] if self._untold else told

    def warn(self, node: Node, key: str, text: str) -> None:
        """Notes what the owner should know about a value."""
        self.warnings.append(Problem(text, key, self.path, _line(node)))

    def _is_plain(self, text: str) -> bool:
        """Looks at the text's events, which take no recursion and no memory."""
        depth = 0
        before = len(self.problems)
        for event in yaml.parse(text, Loader=_LOADER):
            line = event.start_mark.line + 1 if event.start_mark else 1
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            if depth > MAX_DEPTH:
                self._not_plain(line, f"nested deeper than {MAX_DEPTH} levels")
                break
            if isinstance(event, yaml.AliasEvent):
                self._not_plain(line, f"aliases (*{event.anchor}) are not allowed; write it out")
            elif tag := getattr(event, "tag", None):
                self._not_plain(line, f"tags ({tag}) are not allowed")
        return len(self.problems) == before

    def _not_plain(self, line: int, text: str) -> None:
        self._add(Problem(text, path=self.path, line=line))

    def _broken(self, text: str, reason: str, line: int) -> None:
        lines = text.splitlines()
        written = lines[line] if line < len(lines) else ""
        blanks = written[: len(written) - len(written.lstrip())]
        hint = "; indent with spaces, not tabs" if "\t" in blanks else ""
        self._add(Problem(f"not YAML: {reason}{hint}", path=self.path, line=line + 1))

    def _add(self, problem: Problem) -> None:
        if self._is_full():
            self._untold += 1
        else:
            self.problems.append(problem)

    def _is_full(self) -> bool:
        return len(self.problems) >= MAX_PROBLEMS


def join(key: str, name: str) -> str:
    """Returns the key of a value inside another."""
    return f"{key}.{name}" if key else name


def _is_line(text: str) -> bool:
    """Says whether text is one line of what can be shown, with something to see in it."""
    return any(c.isprintable() and not c.isspace() for c in text) and all(
        c.isprintable() or (unicodedata.category(c) == "Cf" and c not in _BIDI_CONTROLS)
        for c in text
    )


def _line(node: Node) -> int | None:
    return node.start_mark.line + 1 if node is not None else None


def _has_tag(node: yaml.Node, *kinds: str) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag in [_PREFIX + kind for kind in kinds]


def _is_null(node: yaml.Node) -> bool:
    return _has_tag(node, "null")


def _is_true(node: yaml.Node) -> bool:
    return node.value.lower() in ("yes", "true", "on")


def _unknown(name: str, known: tuple[str, ...]) -> str:
    meant = difflib.get_close_matches(name, known, 1)
    return f"unknown key. {f'Did you mean {meant[0]}?' if meant else 'Known: ' + ', '.join(known)}"


def _shown(node: Node, limit: int = 60) -> str:
    if not isinstance(node, yaml.Node):
        return "nothing"
    if isinstance(node, yaml.MappingNode):
        return "a group of keys"
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in node.value)
    return repr(text) if len(text) <= limit else repr(text[:limit]) + "…"
