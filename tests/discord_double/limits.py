"""What Discord refuses in a message or a command, by its documentation."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tests.discord_double import errors

MIB = 2**20
REQUEST_BYTES = 25 * MIB

_SUB_COMMAND, _SUB_COMMAND_GROUP = 1, 2
_ACTION_ROW, _BUTTON, _SELECT, _TEXT_INPUT, _LABEL = 1, 2, 3, 4, 18
_CHAT_INPUT, _USER_MENU, _MESSAGE_MENU = 1, 2, 3
_MOST_COMMANDS = {_CHAT_INPUT: 100, _USER_MENU: 15, _MESSAGE_MENU: 15}
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
    for kind, most in _MOST_COMMANDS.items():
        if sum(command.get("type", _CHAT_INPUT) == kind for command in commands) > most:
            raise errors.invalid_form("commands", f"Must be {most} or fewer in length.")
    names = [(command.get("type", _CHAT_INPUT), command["name"]) for command in commands]
    if len(set(names)) != len(names):
        raise errors.invalid_form("commands", "Names must be unique.")
    for command in commands:
        if command.get("type", _CHAT_INPUT) == _CHAT_INPUT:
            _command(command)
        else:
            _menu(command)


def check_modal(modal: Mapping[str, Any]) -> None:
    """Refuses a form that Discord would not show.

    Raises:
        ApiError: as Discord answers.
    """
    _length(modal["title"], "title", 1, 45)
    _length(modal["custom_id"], "custom_id", 1, 100)
    parts = modal["components"]
    if not 1 <= len(parts) <= 5:
        raise errors.invalid_form("components", "Must be between 1 and 5 in length.")
    ids = [_field(part)["custom_id"] for part in parts]
    if len(set(ids)) != len(ids):
        raise errors.invalid_form("components", "Component custom id cannot be duplicated")


def modal_fields(modal: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Returns what a form asks for, each with its label."""
    return [(_label(part), _field(part)) for part in modal["components"]]


def check_input(field: Mapping[str, Any], text: str) -> None:
    """Refuses text that Discord's program would not let a user send.

    Raises:
        ApiError: it is too short or too long.
    """
    least = field.get("min_length") or (1 if field.get("required", True) else 0)
    _length(text, field["custom_id"], least, field.get("max_length") or 4000)


def _label(part: Mapping[str, Any]) -> str:
    label = part["label"] if part["type"] == _LABEL else _field(part)["label"]
    return str(label)


def _field(part: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns what a part of a form asks for."""
    if part["type"] == _LABEL:
        _length(part["label"], "label", 1, 45)
        _length(part.get("description") or "", "description", 0, 100)
        field: Mapping[str, Any] = part["component"]
        if field.get("label"):
            raise errors.invalid_form("components.label", "The label around it has one.")
    elif part["type"] == _ACTION_ROW and len(part["components"]) == 1:
        field = part["components"][0]
        _length(field.get("label") or "", "label", 1, 45)
    else:
        raise errors.invalid_form("components", "No such part of a form.")
    _length(field["custom_id"], "custom_id", 1, 100)
    if field["type"] == _SELECT:
        if not 1 <= len(field["options"]) <= 25:
            raise errors.invalid_form("options", "Must be between 1 and 25 in length.")
        for option in field["options"]:
            _length(option["label"], "options.label", 1, 100)
            _length(option["value"], "options.value", 1, 100)
    elif field["type"] == _TEXT_INPUT:
        value = field.get("value") or ""
        _length(value, "value", 0, field.get("max_length") or 4000)
        _length(field.get("placeholder") or "", "placeholder", 0, 100)
    else:
        raise errors.invalid_form("components", "No such field of a form.")
    return field


def _menu(command: Mapping[str, Any]) -> None:
    _length(command["name"], "name", 1, 32)
    if command.get("description") or command.get("options"):
        raise errors.invalid_form("commands", "A menu's entry has a name alone.")


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
