"""What Discord refuses in a message or a command, by its documentation."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tests.discord_double import errors

MIB = 2**20
REQUEST_BYTES = 25 * MIB

_SUB_COMMAND, _SUB_COMMAND_GROUP = 1, 2
_ACTION_ROW, _BUTTON = 1, 2
_COMMAND_NAME = re.compile(r"[-_\w]{1,32}")
_MENTION_KINDS = {"roles", "users", "everyone"}


def check_message(data: Mapping[str, Any], *, files: int = 0, editing: bool = False) -> None:
    """Refuses what no message may hold.

    Raises:
        ApiError: as Discord answers.
    """
    content = data.get("content") or ""
    _length(content, "content", 0, 2000)
    _embeds(data.get("embeds") or [])
    _components(data.get("components") or [])
    _attachments(data.get("attachments") or [], files)
    _allowed_mentions(data.get("allowed_mentions") or {})
    if len(str(data.get("nonce") or "")) > 25:
        raise errors.invalid_form("nonce", "Must be 25 or fewer in length.")
    if not editing and not (content or data.get("embeds") or files):
        raise errors.empty_message()


def check_files(sizes: Sequence[int], limit: int) -> None:
    """Refuses files over the limit in bytes each, or over the request's together."""
    if any(size > limit for size in sizes) or sum(sizes) > REQUEST_BYTES:
        raise errors.too_large()


def check_commands(commands: Sequence[Mapping[str, Any]]) -> None:
    """Refuses what no application may register."""
    if len(commands) > 100:
        raise errors.invalid_form("commands", "Must be 100 or fewer in length.")
    names = [command["name"] for command in commands]
    if len(set(names)) != len(names):
        raise errors.invalid_form("commands", "Names must be unique.")
    for command in commands:
        _command(command)


def check_choices(choices: Sequence[Mapping[str, Any]]) -> None:
    """Refuses an answer to autocompletion that Discord would."""
    if len(choices) > 25:
        raise errors.invalid_form("choices", "Must be 25 or fewer in length.")
    for choice in choices:
        _length(choice["name"], "choices.name", 1, 100)
        if isinstance(choice["value"], str):
            _length(choice["value"], "choices.value", 1, 100)


def _command(command: Mapping[str, Any], depth: int = 0) -> None:
    name = command["name"]
    if not _COMMAND_NAME.fullmatch(name) or name != name.lower():
        raise errors.invalid_form("name", f"{name!r} is invalid")
    _length(command.get("description", ""), f"{name}.description", 1, 100)
    options = command.get("options") or []
    if len(options) > 25:
        raise errors.invalid_form(f"{name}.options", "Must be 25 or fewer in length.")
    optional_seen = False
    for option in options:
        if option["type"] in (_SUB_COMMAND, _SUB_COMMAND_GROUP) and depth == 2:
            raise errors.invalid_form(f"{name}.options", "Nested too deep.")
        _command(option, depth + 1)
        if option.get("choices"):
            check_choices(option["choices"])
        if option.get("required"):
            if optional_seen:
                raise errors.invalid_form(f"{name}.options", "Required options come first.")
        else:
            optional_seen = True


def _embeds(embeds: Sequence[Mapping[str, Any]]) -> None:
    if len(embeds) > 10:
        raise errors.invalid_form("embeds", "Must be 10 or fewer in length.")
    total = 0
    for embed in embeds:
        fields = embed.get("fields") or []
        if len(fields) > 25:
            raise errors.invalid_form("embeds.fields", "Must be 25 or fewer in length.")
        texts = [
            ("title", embed.get("title") or "", 256),
            ("description", embed.get("description") or "", 4096),
            ("footer.text", (embed.get("footer") or {}).get("text") or "", 2048),
            ("author.name", (embed.get("author") or {}).get("name") or "", 256),
            *(("fields.name", field["name"], 256) for field in fields),
            *(("fields.value", field["value"], 1024) for field in fields),
        ]
        for where, text, limit in texts:
            _length(text, f"embeds.{where}", 0, limit)
            total += len(text)
    if total > 6000:
        raise errors.invalid_form("embeds", "Must be 6000 or fewer in length.")


def _components(rows: Sequence[Mapping[str, Any]]) -> None:
    if len(rows) > 5:
        raise errors.invalid_form("components", "Must be 5 or fewer in length.")
    ids: list[str] = []
    for row in rows:
        if row["type"] != _ACTION_ROW:
            raise errors.invalid_form("components", "Only action rows at the top.")
        children = row["components"]
        if not 1 <= len(children) <= 5:
            raise errors.invalid_form("components", "Must be between 1 and 5 in length.")
        for child in children:
            _length(child["custom_id"], "components.custom_id", 1, 100)
            ids.append(child["custom_id"])
            if child["type"] == _BUTTON:
                _length(child.get("label") or "", "components.label", 0, 80)
                if not (child.get("label") or child.get("emoji")):
                    raise errors.invalid_form("components", "A button needs a label or emoji.")
                if child["style"] not in range(1, 5):
                    raise errors.invalid_form("components.style", "Not a style with an id.")
    if len(set(ids)) != len(ids):
        raise errors.invalid_form("components", "Component custom id cannot be duplicated")


def _attachments(attachments: Sequence[Mapping[str, Any]], files: int) -> None:
    if max(len(attachments), files) > 10:
        raise errors.invalid_form("attachments", "Must be 10 or fewer in length.")
    for attachment in attachments:
        _length(attachment.get("description") or "", "attachments.description", 0, 1024)


def _allowed_mentions(allowed: Mapping[str, Any]) -> None:
    parse = set(allowed.get("parse") or [])
    if not parse <= _MENTION_KINDS:
        raise errors.invalid_form("allowed_mentions.parse", "Unknown kind.")
    if "users" in parse and allowed.get("users"):
        raise errors.invalid_form("allowed_mentions", "parse and users are mutually exclusive.")


def _length(text: str, where: str, least: int, most: int) -> None:
    # Discord counts UTF-16 units nowhere here: code points, like Python.
    if not least <= len(text) <= most:
        raise errors.invalid_form(where, f"Must be between {least} and {most} in length.")
