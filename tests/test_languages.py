"""Every text that members read has its words in every language, and they fit Discord's rules."""

import ast
import re
import string
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import discord
import pytest
from discord import app_commands

from bot.cogs.registered import COMMANDS
from bot.cogs.translator import Translator
from bot.speech import FOLDER, LANGUAGES, catalog, speak, tr, trn

ROOT = Path(__file__).parent.parent
FILES = sorted(path.stem for path in FOLDER.glob("*.json"))
NAME = re.compile(r"[-_\w]{1,32}")
_CALLS = {"tr": 1, "later": 1, "trn": 1}


@cache
def texts() -> frozenset[str]:
    """Returns every text in the program that is said in the reader's language."""
    return frozenset(
        text
        for path in (ROOT / "bot").rglob("*.py")
        for text in said(ast.parse(path.read_text(encoding="utf-8")))
    )


def said(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) in _CALLS:
            if isinstance(node.args[0], ast.Constant):
                yield str(node.args[0].value)
        elif isinstance(node, ast.ClassDef) and any(
            "Button" in ast.unparse(base) for base in node.bases
        ):
            for line in node.body:
                is_label = isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "label"
                if is_label and isinstance(line.value, ast.Constant):
                    yield str(line.value.value)


class Collecting(app_commands.Translator):
    """Notes what discord.py asks for."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.texts: set[str] = set()

    async def translate(
        self,
        string: app_commands.locale_str,
        locale: discord.Locale,
        context: app_commands.TranslationContextTypes,
    ) -> None:
        kind = self.names if context.location.name.endswith("name") else self.texts
        kind.add(string.message)


async def payloads(translator: app_commands.Translator) -> list[dict[str, Any]]:
    """Returns the commands as Discord is told of them."""
    client = discord.Client(intents=discord.Intents.none())
    tree = app_commands.CommandTree(client)
    for command in COMMANDS:
        tree.add_command(command)
    return [await command.get_translated_payload(tree, translator) for command in COMMANDS]


def levels(commands: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Yields what stands beside each other: commands, subcommands, options, choices."""
    yield commands
    for command in commands:
        for inner in ("options", "choices"):
            if command.get(inner):
                yield from levels(command[inner])


def fields(text: str) -> list[str]:
    return sorted(name for _, name, _, _ in string.Formatter().parse(text) if name is not None)


# The files ----------------------------------------------------------------------------------------


def test_there_is_a_file_for_each_language() -> None:
    assert sorted(set(LANGUAGES.values())) == FILES
    assert set(LANGUAGES) <= {locale.value for locale in discord.Locale}


@pytest.mark.parametrize("language", FILES)
async def test_nothing_is_untranslated_and_nothing_is_left_over(language: str) -> None:
    collecting = Collecting()
    await payloads(collecting)
    known = catalog(language)

    assert collecting.names == set(known["names"])
    assert collecting.texts | texts() == set(known["texts"])


@pytest.mark.parametrize("language", FILES)
def test_values_have_their_places_in_every_language(language: str) -> None:
    for english in texts():
        for form in catalog(language)["texts"][english].split("|"):
            assert set(fields(form)) == set(fields(english)), english


@pytest.mark.parametrize("language", FILES)
def test_nothing_is_empty_and_markdown_is_kept(language: str) -> None:
    for english, text in catalog(language)["texts"].items():
        assert text.strip(), english
        for sign in ("**", "`"):
            assert text.count(sign) == english.count(sign), english


@pytest.mark.parametrize("language", FILES)
async def test_commands_that_texts_name_are_called_so(language: str) -> None:
    names = catalog(language)["names"]
    for english, text in catalog(language)["texts"].items():
        asked = re.findall(r"(?<![\w/])/([a-z]+)", english)
        assert [names[name] for name in asked] == re.findall(r"(?<![\w/])/(\w+)", text), english


async def test_names_and_descriptions_fit_discords_rules() -> None:
    commands = await payloads(Translator())
    assert all(set(command["name_localizations"]) == set(LANGUAGES) for command in commands), (
        "each command has its name in each language"
    )
    for level in levels(commands):
        for locale in LANGUAGES:
            shown = [each["name_localizations"][locale] for each in level]
            assert len(set(shown)) == len(shown), f"{locale}: {shown}"
            for each, name in zip(level, shown, strict=True):
                is_menu = each.get("type") in (2, 3) and level is commands
                if "value" in each or is_menu:
                    assert 1 <= len(name) <= (32 if is_menu else 100)
                else:
                    assert NAME.fullmatch(name), name
                    assert name == name.lower()
                if each.get("description_localizations"):
                    assert 1 <= len(each["description_localizations"][locale]) <= 100


# What is said -------------------------------------------------------------------------------------


def test_who_reads_another_language_reads_english() -> None:
    for locale in (None, "en-GB", "uk", "", "../de"):
        speak(locale)
        assert tr("Cancelled.") == "Cancelled."


def test_what_a_file_lacks_is_said_in_english() -> None:
    speak("de")
    try:
        assert tr("No such {thing}.", thing="text") == "No such text."  # nobody translated it
    finally:
        speak(None)


@pytest.mark.parametrize(
    ("locale", "shown"),
    [
        (None, ["0 steps", "1 step", "2 steps"]),
        ("de", ["0 Schritte", "1 Schritt", "2 Schritte"]),
        ("fr", ["0 étape", "1 étape", "2 étapes"]),
        ("ja", ["0 ステップ", "1 ステップ", "2 ステップ"]),
    ],
)
def test_numbers_have_the_form_that_their_language_wants(
    locale: str | None, shown: list[str]
) -> None:
    speak(locale)
    try:
        assert [trn("{count} step", "{count} steps", count=n) for n in range(3)] == shown
    finally:
        speak(None)


def test_values_are_never_read_as_places() -> None:
    speak("de")
    try:
        assert "{member}" in tr("**{prompt}** for {member}", prompt="{member}", member="x")
    finally:
        speak(None)
