"""Sentences in the language of whom they are for.

Each language has a file, ``bot/languages/LANGUAGE.json``: English texts as keys, with the places of
values named in braces. What it lacks is said in English. Whose language counts is a context
variable (`speak`), so that what words are made of need not be handed it.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "languages"

LANGUAGES: Mapping[str, str] = {
    "de": "de",
    "fr": "fr",
    "es-ES": "es",
    "es-419": "es",
    "pt-BR": "pt-BR",
    "ja": "ja",
    "zh-CN": "zh-CN",
}
"""Files by Discord's locales; who has another one reads English."""

_SINGULAR_BELOW_TWO = frozenset({"fr", "pt-BR"})  # 0 is singular there

_language: ContextVar[str | None] = ContextVar("language", default=None)


def speak(locale: str | None) -> None:
    """Has what follows in this task said in a locale's language; None and unknown ones: English."""
    _language.set(LANGUAGES.get(locale or ""))


@contextmanager
def speaking(locale: str | None) -> Iterator[None]:
    """Has what is within said in a locale's language: it is for somebody else."""
    before = _language.set(LANGUAGES.get(locale or ""))
    try:
        yield
    finally:
        _language.reset(before)


def is_english() -> bool:
    """Says whether texts are said as they are written."""
    return _language.get() is None


@cache
def catalog(language: str) -> Mapping[str, Mapping[str, str]]:
    """Returns a language's file.

    Its parts are ``names`` (of commands and their options, and what menus and choices are called)
    and ``texts``.
    """
    content = (FOLDER / f"{language}.json").read_text(encoding="utf-8")
    read: dict[str, dict[str, str]] = json.loads(content)
    return read


def tr(text: str, /, **values: Any) -> str:
    """Returns a text in the language that is spoken, with values in their places.

    Args:
        text: English; a literal, so that tests can find it.
        values: by name.
    """
    return _translated(text).format(**values) if values else _translated(text)


def later(text: str, /) -> str:
    """Returns a text as it is; so marked, tests find what is said with `tr` elsewhere."""
    return text


def trn(one: str, many: str, /, count: int, **values: Any) -> str:
    """Returns the form of a text that goes with a number, which it may hold as ``{count}``.

    Args:
        one: English, of one thing; what files have as the key.
        many: English, of any other number.
        count: how many.
        values: as `tr` takes them.
    """
    language = _language.get()
    forms = catalog(language)["texts"].get(one) if language else None
    single, _, other = (forms or f"{one}|{many}").partition("|")
    is_one = count == 1 or (count == 0 and language in _SINGULAR_BELOW_TWO)
    return (single if is_one or not other else other).format(count=count, **values)


def named(name: str, /) -> str:
    """Returns what a command or a menu is called in the language that is spoken.

    Args:
        name: English, of a subcommand the whole line such as ``mode switch``.
    """
    language = _language.get()
    if language is None:
        return name
    names = catalog(language)["names"]
    return names.get(name) or " ".join(names.get(word, word) for word in name.split())


def _translated(text: str) -> str:
    language = _language.get()
    return catalog(language)["texts"].get(text, text) if language else text
