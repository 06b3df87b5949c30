"""Every text that members read has its words in every language, and they fit Discord's rules."""

import ast
import dataclasses
import re
import string
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import discord
import pytest
from discord import app_commands

from bot.cogs.answer import EditForm
from bot.cogs.context import RemixForm
from bot.cogs.registered import COMMANDS
from bot.cogs.report import ReportForm
from bot.cogs.translator import Translator
from bot.phrasebook import retold
from bot.plots import PlotError
from bot.rules import TITLES, Nsfw, Rules, changes, told
from bot.speech import FOLDER, LANGUAGES, catalog, speak, tr, trn
from bot.steward import PausedError
from engine.errors import (
    DreamLabError,
    JobCancelledError,
    JobTimeoutError,
    ModelElsewhereError,
    ModelError,
    ModelNotFoundError,
    NoDeviceError,
    NotEnoughMemoryError,
    OutOfMemoryError,
    OwnerQueueFullError,
    PoisonousRequestError,
    PoolClosedError,
    QueueFullError,
    RequestError,
    TooLargeError,
    TooLongError,
    UnknownModeError,
    WorkerDiedError,
)
from tests.discord_double import limits
from tests.records_kit import a_request

ROOT = Path(__file__).parent.parent
FILES = sorted(path.stem for path in FOLDER.glob("*.json"))
NAME = re.compile(r"[-_\w]{1,32}")
_CALLS = {"tr", "later", "trn"}
_WORDS = re.compile(r"[^\W\d_]{2,}\W* \W*[^\W\d_]{2,}")
_UNREAD = ("re.compile", "log.", "logging.", "asyncio.create_task", "app_commands.")
"""Calls whose texts no member reads; of commands Discord is told by the translator."""

_SPEAKING = (
    "asking attachments blocked_words buttons client downloads errors forms intake live_jobs "
    "mode_choices parameters permutations plots policy remakes rules settings_line settling "
    "source_files source_images steward studio uploads views wishes"
)
"""Files of ``bot/`` with sentences for members, beside the replies and the commands."""

_ERRORS = frozenset({"DreamLabError", "RequestError", "DrawingError", "DownloadError"})
_NOT_FOR_MEMBERS = {
    "bot/client.py": ("Discord refuses the bot's token",),  # ends the program
    "bot/plots.py": ("import sys;",),
    "bot/parameters.py": ("creative draft", "bs c chaos"),  # names of parameters
    "engine/model_registry.py": ("There is no device",),  # of the device that a test names
}
"""How sentences begin that end elsewhere."""


@cache
def texts() -> Mapping[str, str]:
    """Returns every text in the program that is said in the reader's language.

    Beside each stands its form of several things; the same where it has none.
    """
    return {
        text: several
        for path in (ROOT / "bot").rglob("*.py")
        for text, several in said(ast.parse(path.read_text(encoding="utf-8")))
    }


def said(tree: ast.AST) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) in _CALLS:
            forms = [str(arg.value) for arg in node.args if isinstance(arg, ast.Constant)]
            if forms:
                yield forms[0], forms[-1]
        elif isinstance(node, ast.ClassDef) and any(
            "Button" in ast.unparse(base) for base in node.bases
        ):
            for line in node.body:
                is_label = isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "label"
                if is_label and isinstance(line.value, ast.Constant):
                    yield str(line.value.value), str(line.value.value)


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
    assert collecting.texts | set(texts()) == set(known["texts"])


@pytest.mark.parametrize("language", FILES)
def test_values_have_their_places_in_every_language(language: str) -> None:
    for one, several in texts().items():
        *single, other = catalog(language)["texts"][one].split("|")
        assert set(fields(other)) == set(fields(several)), one
        for form in single:
            assert set(fields(one)) <= set(fields(form)) <= set(fields(several)), one


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


@pytest.mark.parametrize("locale", LANGUAGES)
async def test_forms_fit_discords_rules(locale: str) -> None:
    speak(locale)
    try:
        forms = [
            EditForm("7", a_request()),
            ReportForm("7", None),
            RemixForm("7").fill("a fox", ["https://cdn.invalid/1", "https://cdn.invalid/2"]),
        ]
    finally:
        speak(None)
    for form in forms:
        limits.check_modal(form.to_dict())


# Nothing goes past the files ----------------------------------------------------------------------


def sentences(node: ast.AST) -> Iterator[str]:
    """Yields what has words and is given to nothing that translates it, values as ``7``."""
    if isinstance(node, ast.Call):
        name = ast.unparse(node.func)
        if name.startswith(_UNREAD):
            return
        if name in _CALLS:
            for value in node.keywords:
                yield from sentences(value.value)
            return
    if isinstance(node, ast.Constant | ast.JoinedStr):
        text = written(node)
        if _WORDS.search(text):
            yield text
            return
    is_label = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "label"
    for child in ast.iter_child_nodes(node):
        is_docstring = isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
        is_type = child is getattr(node, "annotation", None) or child is getattr(
            node, "returns", None
        )
        if not (is_docstring or is_type or is_label):
            yield from sentences(child)


def written(node: ast.AST) -> str:
    """Returns a text as it may read; empty where it is none."""
    if isinstance(node, ast.JoinedStr):
        return "".join(written(part) or "7" for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def is_told(text: str) -> bool:
    """Says whether the phrasebook knows a text, in whichever of its lines."""
    speak("de")
    try:
        return all(retold(line) != line or line in texts() for line in text.splitlines())
    finally:
        speak(None)


def passing_by(path: str, texts_there: Iterable[str]) -> list[str]:
    """Returns what members read in English whatever they speak."""
    known = _NOT_FOR_MEMBERS.get(path, ())
    return [text for text in texts_there if not (text.startswith(known) or is_told(text))]


def speaking_files() -> list[str]:
    files = [*ROOT.glob("bot/replies*.py"), *ROOT.glob("bot/cogs/*.py")]
    files += [ROOT / f"bot/{name}.py" for name in _SPEAKING.split()]
    files += [ROOT / f"modes/{name}.py" for name in ("request_fields", "lora_choices")]
    return sorted(str(path.relative_to(ROOT)) for path in files)


@pytest.mark.parametrize("path", speaking_files())
def test_every_sentence_for_members_is_translated(path: str) -> None:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    assert passing_by(path, sentences(tree)) == []


@pytest.mark.parametrize("folder", ["engine", "modes"])
def test_every_error_that_members_are_told_is_in_the_phrasebook(folder: str) -> None:
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in _ERRORS:
                found = [text for arg in node.args for text in sentences(arg)]
                assert passing_by(str(path.relative_to(ROOT)), found) == []


@pytest.mark.parametrize(
    "error",
    [
        RequestError("size", "9x9", "a number from 1 to 7"),
        UnknownModeError("nope", []),
        QueueFullError(7),
        OwnerQueueFullError(1, 7),
        OwnerQueueFullError(7, 7),
        OwnerQueueFullError(3, 4, 2),
        TooLargeError(4096, 4096, None),
        TooLargeError(4096, 4096, (512, 512)),
        TooLongError(80, 60),
        TooLongError(8000, 600),
        NoDeviceError(["cuda:0"]),
        JobTimeoutError(7.5),
        OutOfMemoryError("cuda:0"),
        JobCancelledError("7"),
        PoolClosedError(),
        WorkerDiedError("cuda:0", "was killed by SIGKILL"),
        PoisonousRequestError(WorkerDiedError("cuda:0", "ended with exit code 7")),
        PlotError(),
        PausedError(),
    ],
    ids=lambda error: f"{type(error).__name__}: {error}"[:60],
)
def test_an_error_is_told_in_the_readers_language(error: DreamLabError) -> None:
    assert is_told(str(error))


@pytest.mark.parametrize(
    "error",
    [
        ModelNotFoundError("small.safetensors"),
        NotEnoughMemoryError("small.safetensors", 2**31, 2**30, 2**31),
        ModelElsewhereError("small.safetensors", "cuda:0"),
        ModelElsewhereError.everywhere("small.safetensors", ["cuda:0", "cuda:1"]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_why_a_model_cant_be_used_is_told_in_the_readers_language(error: ModelError) -> None:
    speak("de")
    try:
        told = retold(error.told)
    finally:
        speak(None)

    assert told.startswith("Das Modell small.safetensors kann nicht benutzt werden: ")
    assert error.reason.rstrip(".") not in told


def test_a_servers_settings_and_their_changes_are_told_in_the_readers_language() -> None:
    after = Rules(
        ("5",), ("7",), 1, 2, 3, ("gore",), Nsfw.SPOILER, "9", (("anime", ("7", "8")),), 10
    )
    assert all(is_told(title) for title in TITLES.values())
    assert all(is_told(change) for change in changes(Rules(), after))
    assert all(is_told(told(field.name, field.default)) for field in dataclasses.fields(Rules))
    speak("de")
    try:
        assert retold(changes(Rules(), after)[0]) == "Kanäle zum Malen: alle → <#5>"
    finally:
        speak(None)


def test_what_somebody_typed_stays_as_it_is() -> None:
    speak("fr")
    try:
        assert retold("size: 'so groß' is not allowed. Allowed: at most 7.") == (
            "taille : 'so groß' n'est pas permis. Permis : au plus 7."
        )
        assert retold("a cat is not a phrase") == "a cat is not a phrase"
        nested = "x" + ", without control characters" * 999
        assert retold(nested).endswith(", sans caractères de contrôle")
    finally:
        speak(None)


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
