"""The files a model lies in, read without torch and as the hostile input they may be.

A safetensors file is 8 bytes (little-endian length of the header), the header (a JSON object of
tensor name → dtype, shape, data_offsets) and the tensors' bytes, tiled without gap or overlap. Only
the header is read here; what it says is checked against the file's size, so that a truncated
download is found before anybody tries to load it.
"""

import json
import os
import re
import stat
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from engine.errors import ModelFormatError, ModelNotFoundError, UnsupportedModelError

MAX_HEADER_BYTES = 100_000_000
"""Longest header that is read; the safetensors library has the same bound."""

MAX_CONFIG_BYTES = 1_000_000
"""Longest JSON configuration that is read; real ones have a few kilobytes."""

MAX_JSON_VALUES = 2_000_000
"""Most JSON values in a header. Each costs up to 100 bytes once parsed, so that a header of 100 MB
made of ``[],[],[],`` would take gigabytes; the largest real ones have some 50,000."""

PICKLE_SUFFIXES = frozenset({".ckpt", ".pt", ".pth", ".bin", ".pkl"})
"""Weights that can run code when they are opened."""

# A worker reads weights out of these folders of a model. Whatever lies beside them, such as what
# other programs made of the model or keep for themselves, is neither counted nor refused.
_COMPONENTS = frozenset({"unet", "vae", "text_encoder", "text_encoder_2"})

_LENGTH = struct.Struct("<Q")
_MAX_INT = 2**63 - 1
_MAX_RANK = 32
_MAX_NAME = 1_000
_UNPRINTABLE = re.compile(r"[\x00-\x1f\ud800-\udfff]")
_CLIMBING = re.compile(r"^[/\\]|(?:^|[/\\])\.\.(?:$|[/\\])")

_BITS = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    **dict.fromkeys(("F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
}

_WEB_PAGE = "a web page saved in place of the weights; download it again, signed in if need be"

# What people really have in a file of this name when its first bytes are no header.
_FOREIGN_STARTS = (
    (b"version https://git-lfs", "a Git LFS pointer in place of the weights; run `git lfs pull`"),
    (b"PK\x03\x04", "a pickle (or zip archive) under another name"),
    (b"\x80\x02", "a pickle under another name"),
    (b"GGUF", "a GGUF file under another name"),
    (b"<!", _WEB_PAGE),
    (b"<html", _WEB_PAGE),
)


@dataclass(frozen=True, slots=True)
class Tensor:
    """What a header says of one tensor.

    Attributes:
        dtype: the format's name for it, such as ``F16``.
        shape: its dimensions.
        begin: first byte, counted from the end of the header.
        end: first byte after it.
    """

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def is_folder(path: Path) -> bool:
    """Returns whether there is a folder; false where there is a file.

    Raises:
        ModelNotFoundError: there is neither.
        ModelFormatError: nothing can be learned (a loop of links, no permission).
    """
    return stat.S_ISDIR(_status(path).st_mode)


def read_header(path: Path) -> dict[str, Tensor]:
    """Returns a safetensors file's tensors by name, without the ``__metadata__``.

    Reads the header and nothing else, and keeps no more than some hundred bytes for each value in
    it.

    Raises:
        ModelNotFoundError: there is no such file.
        UnsupportedModelError: its name says that it is of another kind, such as a pickle.
        ModelFormatError: it is none, truncated, or its header contradicts itself or the file.
    """
    refuse_foreign_suffix(path)
    with _opened(path) as (file, size):
        header, room = _header_bytes(path, file, size)
    return _tensors(path, _strict_object(path, header), room)


def read_config(path: Path) -> dict[str, Any]:
    """Returns a JSON configuration, which must be an object.

    Raises:
        ModelNotFoundError: there is no such file.
        ModelFormatError: it is no JSON object, too long, or names a key twice.
    """
    with _opened(path) as (file, size):
        if size > MAX_CONFIG_BYTES:
            raise ModelFormatError(
                path, f"has {size} bytes; a configuration has at most {MAX_CONFIG_BYTES}"
            )
        raw = file.read(MAX_CONFIG_BYTES)
    return _strict_object(path, raw)


def refuse_foreign_suffix(path: Path) -> None:
    """Lets ``.safetensors`` pass.

    Raises:
        UnsupportedModelError: the file is of another kind.
    """
    if path.suffix in PICKLE_SUFFIXES:
        raise UnsupportedModelError(
            path,
            f"{path.suffix} files are pickles, which can run code when they are opened. Convert "
            "it once, where that does no harm: read it with `torch.load(path, weights_only=True)`,"
            " write it with `safetensors.torch.save_file`, or download the .safetensors version",
        )
    if path.suffix != ".safetensors":
        raise UnsupportedModelError(
            path,
            f"{path.suffix or 'a file without a suffix'} is not supported; supported are "
            ".safetensors files (the suffix in lower case) and diffusers folders",
        )


def weight_files(path: Path) -> tuple[Path, ...]:
    """Returns the files whose weights loading a model would read.

    Of a folder these are the ``.safetensors`` and ``.bin`` files in it and in its ``unet``,
    ``vae``, ``text_encoder`` and ``text_encoder_2``. Where a component is there several times, as a
    safetensors file and as a pickle or as the plain version and as a variant
    (``.fp16.safetensors``), the first of both counts, as in diffusers; other folders, such as a
    safety checker's, and single-file checkpoints beside a ``model_index.json`` don't count.

    Raises:
        ModelNotFoundError: there is nothing.
        ModelFormatError: it can't be listed.
    """
    if not is_folder(path):
        return (path,)
    folders, files = _listed(path)
    chosen = [] if path / "model_index.json" in files else _preferred(files)
    for folder in _components(folders):
        chosen += _preferred(_listed(folder)[1])
    return tuple(chosen)


def check_shards(path: Path) -> None:
    """Checks that a folder's components have every shard that their indexes name.

    The components are those of `weight_files`.

    Raises:
        ModelNotFoundError: a shard is not there.
        ModelFormatError: an index can't be read, or names a file outside its folder.
    """
    for folder in _components(_listed(path)[0]):
        files = _listed(folder)[1]
        for index in files:
            if index.match("*.safetensors.index*.json"):
                _check_index(index, present=files)


def file_size(path: Path) -> int:
    """Returns a file's size in bytes.

    Raises:
        ModelNotFoundError: there is no such file.
        ModelFormatError: nothing can be learned.
    """
    return _status(path).st_size


def file_stamp(path: Path) -> tuple[int, int]:
    """Returns a file's size in bytes and when it was changed, in nanoseconds.

    Raises:
        ModelError: as `file_size`.
    """
    status = _status(path)
    return status.st_size, status.st_mtime_ns


def shown(value: object, limit: int = 80) -> str:
    """Returns a name or value out of a file, short and escaped enough for a message."""
    if not isinstance(value, str):
        return _bounded(value)
    return repr(value[:limit]) + "…" if len(value) > limit else repr(value)


def _bounded(value: object) -> str:
    # A JSON list may have millions of values and an integer thousands of digits.
    if isinstance(value, (list, dict)):
        return f"a JSON {'list' if isinstance(value, list) else 'object'} of {len(value)}"
    if isinstance(value, int) and abs(value) > _MAX_INT:
        return "a huge number"
    return "nothing" if value is None else str(value)


def _check_index(index: Path, present: list[Path]) -> None:
    shards = read_config(index).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
        raise ModelFormatError(index, "has no weight_map from tensors to file names")
    names = {file.name for file in present}
    for shard in sorted(set(shards.values())):
        if not re.fullmatch(r"[^/\\\0]+\.safetensors", shard):
            raise ModelFormatError(index, f"names {shown(shard)}, which is no file in its folder")
        if shard not in names:
            raise ModelNotFoundError(index.parent / shard)


def _components(folders: list[Path]) -> list[Path]:
    return [folder for folder in folders if folder.name in _COMPONENTS]


def _preferred(files: list[Path]) -> list[Path]:
    weights = [file for file in files if file.suffix == ".safetensors"]
    weights = weights or [file for file in files if file.suffix == ".bin"]
    return [file for file in weights if "." not in file.stem] or weights


def _listed(folder: Path) -> tuple[list[Path], list[Path]]:
    """Returns a folder's folders and its files, hidden ones left out."""
    with _explained(folder):
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
        return [e for e in entries if e.is_dir()], [e for e in entries if e.is_file()]


def _status(path: Path) -> os.stat_result:
    with _explained(path):
        try:
            return path.stat()
        except ValueError as error:  # a NUL byte in the name
            raise ModelFormatError(path, f"no path can look like this: {error}") from error


@contextmanager
def _opened(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    # Opening a named pipe would wait for a writer for ever, so the kind is asked first.
    if not stat.S_ISREG(_status(path).st_mode):
        kind = "a folder" if is_folder(path) else "a device or pipe"
        raise ModelFormatError(path, f"is {kind}, not a file")
    with _explained(path), path.open("rb") as file:
        yield file, os.fstat(file.fileno()).st_size


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ModelNotFoundError(path) from error
    except OSError as error:
        raise ModelFormatError(path, f"can't be read: {error.strerror or error}") from error


def _header_bytes(path: Path, file: BinaryIO, size: int) -> tuple[bytes, int]:
    """Returns the header and how many bytes the file has behind it."""
    if size == 0:
        raise ModelFormatError(path, "is empty")
    start = file.read(32)
    if len(start) < _LENGTH.size:
        raise ModelFormatError(path, f"has {size} bytes, too few for a safetensors header")
    (length,) = _LENGTH.unpack_from(start)
    room = size - _LENGTH.size - length
    if length > MAX_HEADER_BYTES or room < 0:
        raise ModelFormatError(path, _implausible(start, length, size))
    file.seek(_LENGTH.size)
    header = file.read(length)
    if len(header) < length:
        raise ModelFormatError(path, "became shorter while it was read")
    return header, room


def _implausible(start: bytes, length: int, size: int) -> str:
    for signature, kind in _FOREIGN_STARTS:
        if start.startswith(signature):
            return f"is {kind}"
    if length > MAX_HEADER_BYTES:
        return (
            f"claims a header of {length} bytes, more than the format's {MAX_HEADER_BYTES}: "
            "it is no safetensors file"
        )
    return (
        f"claims a header of {length} bytes and has {size} in all: "
        "the download is not complete, or it is no safetensors file"
    )


def _strict_object(path: Path, raw: bytes) -> dict[str, Any]:
    marks = raw.count(b",") + raw.count(b"[") + raw.count(b"{")
    if marks > MAX_JSON_VALUES:
        raise ModelFormatError(
            path, f"lists {marks} JSON values; a real model has far fewer than {MAX_JSON_VALUES}"
        )
    try:
        value = json.loads(
            raw.decode(), object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant
        )
    except RecursionError as error:
        raise ModelFormatError(path, "its JSON is nested too deeply") from error
    except UnicodeDecodeError as error:
        raise ModelFormatError(path, f"its JSON is no UTF-8 (byte {error.start})") from error
    except ValueError as error:  # no JSON, an endless integer, or one of the two hooks
        raise ModelFormatError(path, f"its JSON can't be read: {error}") from error
    if not isinstance(value, dict):
        raise ModelFormatError(path, "its JSON is not an object")
    return value


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Readers disagree on which of two equal keys counts, so that one could check the harmless one
    # and another load the other.
    found = dict(pairs)
    if len(found) != len(pairs):
        name, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(f"the key {shown(name)} is there more than once")
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _tensors(path: Path, header: Mapping[str, Any], room: int) -> dict[str, Tensor]:
    _check_metadata(path, header.get("__metadata__", {}))
    tensors = {
        name: _tensor(path, name, entry) for name, entry in header.items() if name != "__metadata__"
    }
    expected = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if tensor.begin != expected:
            fault = "overlaps the one before it" if tensor.begin < expected else "leaves a gap"
            raise ModelFormatError(path, f"its tensor {shown(name)} {fault}")
        expected = tensor.end
    if expected != room:
        fault = "the download is not complete" if room < expected else "something was appended"
        raise ModelFormatError(
            path, f"has {room} bytes of weights where its header tells of {expected}: {fault}"
        )
    return tensors


def _check_metadata(path: Path, metadata: object) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ModelFormatError(path, "its __metadata__ is not an object of strings")


def _tensor(path: Path, name: str, entry: object) -> Tensor:
    try:
        _check_name(name)
        return _checked_tensor(entry)
    except ValueError as error:
        raise ModelFormatError(path, f"its tensor {shown(name)} {error}") from error


def _check_name(name: str) -> None:
    # Tools make files or attributes out of tensor names.
    if len(name) > _MAX_NAME:
        raise ValueError(f"has a name of {len(name)} characters; at most {_MAX_NAME} are supported")
    if _UNPRINTABLE.search(name):
        raise ValueError("has control characters or broken Unicode in its name")
    if _CLIMBING.search(name):
        raise ValueError("has a name that climbs out of its folder")


def _checked_tensor(entry: object) -> Tensor:
    if not isinstance(entry, dict):
        raise ValueError("is not described by an object")  # noqa: TRY004 - the file is at fault
    dtype = entry.get("dtype")
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise ValueError(f"has the unknown dtype {shown(dtype)}")
    shape = _integers(entry, "shape")
    offsets = _integers(entry, "data_offsets")
    if len(shape) > _MAX_RANK:
        raise ValueError(f"has {len(shape)} dimensions; at most {_MAX_RANK} are supported")
    if len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError("has data_offsets that are not a begin and an end")
    bits = _BITS[dtype]
    for length in shape:
        bits *= length
    begin, end = offsets
    if bits != (end - begin) * 8:
        raise ValueError(
            f"takes {shown(bits)} bits by dtype and shape, {shown((end - begin) * 8)} by offsets"
        )
    return Tensor(dtype, shape, begin, end)


def _integers(entry: Mapping[str, Any], key: str) -> tuple[int, ...]:
    values = entry.get(key)
    if not isinstance(values, list) or not all(
        # bool is a kind of int to Python, not to the format.
        type(value) is int and 0 <= value <= _MAX_INT
        for value in values
    ):
        raise ValueError(f"has {key} that is no list of whole numbers from 0 to {_MAX_INT}")
    return tuple(values)
