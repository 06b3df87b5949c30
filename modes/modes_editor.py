"""Changes the modes file: one mode, every other character left as it is, or all of it.

Owners write comments into that file. A library that reads a document and writes it anew moves them
(what stands above an entry belongs, to it, to the entry before), so that here only the lines of
what changes are exchanged. The result is read before anything is written: it must be a good file
in which this mode says what it should and all others what they said.
"""

import contextlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.errors import UnknownModeError
from modes.modes_file import ModesFile, ModesFileError, decode_modes, parse_modes, read_modes
from modes.yaml_reader import MAX_DEPTH, Node, Problem, YamlReader

# Text that means itself to every YAML reader, also between brackets, unless it is such a word.
_PLAIN = re.compile(r"[A-Za-z](?:[\w ./-]*[\w./-])?", re.ASCII)
_WORDS = frozenset({"yes", "no", "on", "off", "y", "n", "true", "false", "null"})
_BOM = "\ufeff"


def set_mode(path: Path, name: str, values: Mapping[str, Any]) -> ModesFile:
    """Makes an entry of the file say this and nothing else; adds it where there is none.

    Keys whose value stays keep their lines, with their comments. Call it from one place at a time.

    Args:
        path: the modes file.
        name: the mode's.
        values: its keys as the file has them, as plain JSON values; None is left out.

    Returns:
        The file as it is now.

    Raises:
        ModesFileError: the file could not be used before, or could not with this; it is unchanged.
    """
    text = with_mode(read_modes(path), path, name, values)
    return _write_text(path, text)


def with_mode(text: str, path: Path, name: str, values: Mapping[str, Any]) -> str:
    """Returns a modes file's text in which an entry says this; see `set_mode`. Writes nothing.

    Args:
        text: what the file says.
        path: where it stands.
        name: the mode's.
        values: its keys.

    Raises:
        ModesFileError: as `set_mode`.
    """
    wanted = {key: _copied(value) for key, value in values.items() if value is not None}
    document = _Document(text, path)
    document.set_mode(name, wanted)
    return document.text(name, wanted)


def remove_mode(path: Path, name: str) -> ModesFile:
    """Takes an entry out of the file; comments around it stay. One at a time, as `set_mode`.

    Returns:
        The file as it is now.

    Raises:
        UnknownModeError: there is no such entry.
        ModesFileError: the file could not be used before, or could not without it (it is the only
            one, or the default); it is unchanged.
    """
    return _write_text(path, without_mode(read_modes(path), path, name))


def without_mode(text: str, path: Path, name: str) -> str:
    """Returns a modes file's text without an entry; see `remove_mode`. Writes nothing.

    Raises:
        UnknownModeError: as `remove_mode`.
        ModesFileError: likewise.
    """
    document = _Document(text, path)
    document.remove_mode(name)
    return document.text(name, None)


def replace_modes(path: Path, content: bytes) -> ModesFile:
    """Puts other bytes in the file's place, which need not exist. One at a time, as `set_mode`.

    Returns:
        The file as it is now.

    Raises:
        ModesFileError: they are no good modes file, or can't be written; nothing has changed.
    """
    after = parse_modes(decode_modes(content, path).removeprefix(_BOM), path)
    _write(path, content)
    return after


def modes_text(values: Mapping[str, Any]) -> str:
    """Returns a whole modes file as YAML, each mode on lines of its own.

    Args:
        values: what the file says, as plain JSON values; None is left out.

    Raises:
        ModesFileError: they are nested too deep.
    """
    lines: list[str] = []
    for key, value in _copied(values).items():
        if key == "modes" and isinstance(value, dict) and all(map(_is_entry, value.values())):
            entries = (_entry("  ", name, entry) for name, entry in value.items())
            lines += ["", "modes:", *(line for entry in entries for line in entry)]
        elif value is not None:
            lines.append(_line("", key, value))
    return "\n".join(lines) + "\n"


def plain_modes(content: bytes, path: Path) -> dict[str, Any]:
    """Returns what the bytes of a modes file say, as plain values, whether allowed or not.

    Raises:
        ModesFileError: they are too many, no UTF-8, no YAML, or no keys with values.
    """
    reader = YamlReader(path)
    root = reader.compose(decode_modes(content, path).removeprefix(_BOM))
    plain = {key: reader.plain(node, key) for key, node in reader.mapping(root, "").items()}
    if reader.problems:
        raise ModesFileError(reader.told())
    return plain


class _Document:
    """The file's lines, and where its modes stand in them."""

    def __init__(self, text: str, path: Path) -> None:
        """Reads the text of the file at a path.

        Raises:
            ModesFileError: it can't be used.
        """
        self._path = path
        self._before = parse_modes(text.removeprefix(_BOM), path)
        self._bom = _BOM if text.startswith(_BOM) else ""
        text = text.removeprefix(_BOM)
        self._newline = "\r\n" if "\r\n" in text else "\n"
        self._lines = text.split(self._newline)
        reader = YamlReader(path)
        self._modes = reader.mapping(reader.compose(text), "")["modes"]
        if _is_flow(self._modes):
            raise self._refusal("modes", "is written between braces; give each mode its own lines")

    def set_mode(self, name: str, values: Mapping[str, Any]) -> None:
        """Changes the lines of an entry, or adds some behind the last one."""
        pairs = _pairs(self._modes)
        found = {key.value: (key, value) for key, value in pairs}
        indent = " " * pairs[0][0].start_mark.column
        if name not in found:
            end = _end(*pairs[-1])
            between = [""] if len(pairs) == 1 or not self._lines[_end(*pairs[-2])].strip() else []
            self._lines[end:end] = [*between, *_entry(indent, name, values)]
            return
        key, entry = found[name]
        if _is_flow(entry):
            self._lines[key.start_mark.line : _end(key, entry)] = _entry(indent, name, values)
        else:
            self._set_keys(entry, values)

    def remove_mode(self, name: str) -> None:
        """Removes the lines of an entry.

        Raises:
            UnknownModeError: there is none.
        """
        for key, value in _pairs(self._modes):
            if key.value == name:
                start, end = key.start_mark.line, _end(key, value)
                alone = not "".join(self._lines[start - 1 : start]).strip()
                if alone and not "".join(self._lines[end : end + 1]).strip():
                    end += 1  # of the two blank lines around it, one stays
                del self._lines[start:end]
                return
        raise UnknownModeError(name, self._before.modes)

    def text(self, name: str, wanted: Mapping[str, Any] | None) -> str:
        """Returns the lines as they are now, in which one entry says what is wanted.

        Raises:
            ModesFileError: they are no good modes file, or more or less has changed than asked.
        """
        text = self._newline.join(self._lines)
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise self._refusal(f"modes.{name}", "half a character is not allowed") from error
        after = parse_modes(text, self._path)
        others, kept = (
            {other: mode for other, mode in file.modes.items() if other != name}
            for file in (self._before, after)
        )
        reader = YamlReader(self._path)
        modes = reader.mapping(reader.mapping(reader.compose(text), "")["modes"], "modes")
        said = reader.plain(modes[name], "") if name in modes else None
        if kept != others or _canonical(said) != _canonical(wanted):
            raise self._refusal(f"modes.{name}", "can't be written like this; edit the file itself")
        return self._bom + text

    def _set_keys(self, entry: Node, values: Mapping[str, Any]) -> None:
        pairs = _pairs(entry)
        reader = YamlReader(self._path)
        indent = " " * pairs[0][0].start_mark.column
        present = {key.value for key, _ in pairs}
        end = _end(*pairs[-1])
        self._lines[end:end] = [
            _line(indent, key, value) for key, value in values.items() if key not in present
        ]
        for key, value in reversed(
            pairs
        ):  # from below, so that the lines above stay where they are
            if key.value not in values:
                del self._lines[key.start_mark.line : _end(key, value)]
            elif _canonical(reader.plain(value, "")) != _canonical(values[key.value]):
                self._exchange(indent, key, value, values[key.value])

    def _exchange(self, indent: str, key: Any, value: Any, wanted: Any) -> None:
        """Writes another value; what stands behind the old one on its line stays."""
        start, end = value.start_mark, value.end_mark
        line = self._lines[start.line]
        on_one_line = _is_flow(value) and start.line == end.line and start.column < end.column
        if on_one_line:
            changed = line[: start.column] + _written(wanted) + line[end.column :]
            self._lines[start.line] = changed
        else:
            lines = [_line(indent, key.value, wanted)]
            self._lines[key.start_mark.line : _end(key, value)] = lines

    def _refusal(self, key: str, text: str) -> ModesFileError:
        return ModesFileError([Problem(text, key, self._path)])


def _pairs(node: Any) -> list[tuple[Any, Any]]:
    pairs: list[tuple[Any, Any]] = node.value
    return pairs


def _is_flow(node: Any) -> bool:
    """Whether a value is no block of lines of its own: a scalar, or between brackets."""
    return not isinstance(node.value, list) or bool(node.flow_style)


def _end(key: Any, value: Any) -> int:
    """Returns the line after an entry's last; comments and blank lines behind it are not its."""
    while not _is_flow(value):
        last = value.value[-1]
        key, value = last if isinstance(last, tuple) else (last, last)
    mark = max(key.end_mark, value.end_mark, key=lambda mark: (mark.line, mark.column))
    # Text below `|` or `>` ends where the next line begins.
    return int(mark.line if mark.column == 0 else mark.line + 1)


def _entry(indent: str, name: str, values: Mapping[str, Any]) -> list[str]:
    lines = [_line(indent + "  ", key, value) for key, value in values.items()]
    return [f"{indent}{_written(name)}:", *lines]


def _line(indent: str, key: str, value: Any) -> str:
    return f"{indent}{_written(key)}: {_written(value)}"


def _written(value: Any) -> str:
    """Returns a value as YAML on one line: as JSON, but for text that needs no quotes."""
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.casefold() not in _WORDS:
        return value
    if isinstance(value, dict):
        inner = (f"{_written(key)}: {_written(item)}" for key, item in value.items())
        return f"{{{', '.join(inner)}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_written, value))}]"
    return json.dumps(value, ensure_ascii=False)


def _copied(value: Any, depth: int = 0) -> Any:
    """Returns plain values of their own: dictionaries with text as keys, lists, text, numbers.

    Raises:
        ModesFileError: they are nested deeper than a modes file may be.
    """
    if depth > MAX_DEPTH:
        raise ModesFileError([Problem(f"nested deeper than {MAX_DEPTH} levels")])
    if isinstance(value, Mapping):
        return {str(key): _copied(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_copied(item, depth + 1) for item in value]
    return str(value) if isinstance(value, str) else value


def _canonical(value: Any) -> str:
    # To Python 1, 1.0 and true are equal.
    return json.dumps(value, sort_keys=True)


def _is_entry(value: object) -> bool:
    return isinstance(value, dict) and bool(value)


def _write_text(path: Path, text: str) -> ModesFile:
    after = parse_modes(text.removeprefix(_BOM), path)
    _write(path, text.encode())
    return after


def _write(path: Path, content: bytes) -> None:
    """Writes the file, whole or not at all.

    Raises:
        ModesFileError: it can't be written.
    """
    try:
        _replace(path.resolve(), content)
    except OSError as error:
        reason = f"can't be written: {error.strerror or error}"
        raise ModesFileError([Problem(reason, path=path)]) from error


def _replace(path: Path, content: bytes) -> None:
    """Puts a synced file in another's place; whoever looks sees the old or the new one."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, name)
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
