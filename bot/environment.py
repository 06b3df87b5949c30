"""Settings as they are written, in the environment and in ``.env``."""

import difflib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dotenv.parser import parse_stream

_ALIKE = 0.8  # similarity from which a name in .env is taken for a slip of the pen


@dataclass(frozen=True, slots=True)
class Given:
    """A value as it was written, and where.

    Attributes:
        text: without spaces around it; never empty.
        place: such as ``environment`` or ``.env line 7``.
    """

    text: str
    place: str


def read_given(
    env_file: Path, environ: Mapping[str, str], known: tuple[str, ...]
) -> tuple[dict[str, Given], list[str]]:
    """Returns what is written, by its name, and a sentence for each thing that can't be read.

    Args:
        env_file: read where it exists.
        environ: wins over the file.
        known: names of settings; others are other programs'.
    """
    problems: list[str] = []
    given = dict(_read_env_file(env_file, known, problems))
    for name in known:
        if text := environ.get(name, "").strip():
            given[name] = Given(text, "environment")
    return given, problems


def _read_env_file(
    path: Path, known: tuple[str, ...], problems: list[str]
) -> Iterator[tuple[str, Given]]:
    """Yields our settings of the file; what can't be read is added to the problems."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        return
    except OSError as error:
        problems.append(f"{path}: can't be read: {error.strerror}.")
        return
    except UnicodeDecodeError:
        problems.append(f"{path}: not UTF-8 text. Save the file with the encoding UTF-8.")
        return
    for binding in parse_stream(io.StringIO(text)):
        # A binding begins with the blank lines before it.
        written = binding.original.string
        line = binding.original.line + len(written[: -len(written.lstrip())].splitlines())
        place = f"{path.name} line {line}"
        if binding.error:
            problems.append(f"{path}, line {line}: can't be read. Allowed: NAME=value.")
        elif binding.key in known:
            if binding.value and binding.value.strip():
                yield binding.key, Given(binding.value.strip(), place)
        elif binding.key and (meant := _meant(binding.key, known)):
            problems.append(f"{binding.key} ({place}): unknown. Did you mean {meant}?")


def _meant(key: str, known: tuple[str, ...]) -> str | None:
    """Returns the setting that somebody probably meant; None for a name that is not ours."""
    return next(iter(difflib.get_close_matches(key.upper(), known, 1, _ALIKE)), None)
