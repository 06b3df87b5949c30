"""What Discord's own program makes of a synced slash command when somebody types it."""

from collections.abc import Mapping, Sequence
from typing import Any

from tests.discord_double.world import Attachment, Guild, Room, User

STRING, INTEGER, BOOLEAN, USER, CHANNEL, NUMBER, ATTACHMENT = 3, 4, 5, 6, 7, 10, 11
_PYTHON_TYPES: dict[int, tuple[type, ...]] = {
    STRING: (str,),
    INTEGER: (int,),
    BOOLEAN: (bool,),
    NUMBER: (int, float),
    USER: (User,),
    CHANNEL: (Room,),
    ATTACHMENT: (Attachment,),
}
MESSAGE_MENU = 3
_WITH_USER = 1
_GUILD_CONTEXT, _BOT_DM_CONTEXT = 0, 1


class NotOffered(AssertionError):  # noqa: N818 # a test that does this is wrong
    """Discord's program would not let a user send this."""


def find(commands: Sequence[Mapping[str, Any]] | None, line: str) -> list[Mapping[str, Any]]:
    """Returns the command of a line such as ``mode switch``, outermost first."""
    level = [entry for entry in commands or [] if entry.get("type", 1) == 1]
    path: list[Mapping[str, Any]] = []
    for word in line.split():
        found = next((entry for entry in level if entry["name"] == word), None)
        if found is None:
            raise NotOffered(f"/{line} is not registered")
        path.append(found)
        level = found.get("options") or []
    return path


def find_menu(commands: Sequence[Mapping[str, Any]] | None, name: str) -> Mapping[str, Any]:
    """Returns the entry of a message's menu."""
    for entry in commands or []:
        if entry.get("type") == MESSAGE_MENU and entry["name"] == name:
            return entry
    raise NotOffered(f"{name!r} is in no message's menu")


def check_offered(
    command: Mapping[str, Any],
    *,
    in_guild: bool,
    permissions: int,
    overridden: bool,
    installed: bool = True,
) -> None:
    """Refuses what Discord's menu hides here from this member.

    Args:
        command: the outermost, as synced.
        in_guild: whether it is typed in a server.
        permissions: the member's.
        overridden: whether the server's admins opened the command to everybody.
        installed: whether the bot is in the server, or else with the user alone.
    """
    if not installed and _WITH_USER not in (command.get("integration_types") or []):
        raise NotOffered(f"/{command['name']} is not offered to who brings the bot along")
    contexts = command.get("contexts")
    context = _GUILD_CONTEXT if in_guild else _BOT_DM_CONTEXT
    if contexts is not None and context not in contexts:
        raise NotOffered(f"/{command['name']} is not offered here")
    needed = command.get("default_member_permissions")
    hidden = in_guild and needed is not None and int(needed) & ~permissions
    if hidden and not overridden:
        raise NotOffered(f"/{command['name']} is hidden from this member")


def data(
    path: Sequence[Mapping[str, Any]],
    values: Mapping[str, Any],
    focused: str | None = None,
    guild: Guild | None = None,
) -> dict[str, Any]:
    """Returns ``data`` of an INTERACTION_CREATE.

    Args:
        path: as `find` returns it.
        values: by option name.
        focused: the option being typed, for autocompletion.
        guild: where it is typed.
    """
    declared = {option["name"]: option for option in path[-1].get("options") or []}
    options = [_option(declared, name, value, focused) for name, value in values.items()]
    missing = [n for n, option in declared.items() if option.get("required") and n not in values]
    if missing and focused is None:
        raise NotOffered(f"without {', '.join(missing)} Discord sends nothing")
    for command in reversed(path[1:]):
        options = [{"name": command["name"], "type": command["type"], "options": options}]
    files = [value for value in values.values() if isinstance(value, Attachment)]
    users = [value for value in values.values() if isinstance(value, User)]
    members = {str(user.id): guild.member(guild.held.get(user.id, [])) for user in users if guild}
    return {
        "id": path[0]["id"],
        "name": path[0]["name"],
        "type": 1,
        "options": options,
        "resolved": {
            "attachments": {str(file.id): file.payload() for file in files},
            "users": {str(user.id): user.payload() for user in users},
            "members": members,
            "channels": {
                str(room.id): {**guild.channel(room), "permissions": "0"}
                for room in values.values()
                if isinstance(room, Room) and guild
            },
        },
    }


def _option(
    declared: Mapping[str, Mapping[str, Any]], name: str, value: object, focused: str | None
) -> dict[str, Any]:
    if name not in declared:
        raise NotOffered(f"there is no option {name}")
    option = declared[name]
    kind = option["type"]
    if name != focused:
        _check_value(option, value)
    sent = str(value.id) if isinstance(value, Attachment | User | Room) else value
    return {"name": name, "type": kind, "value": sent, "focused": name == focused}


def _check_value(option: Mapping[str, Any], value: Any) -> None:
    name, kind = option["name"], option["type"]
    if not isinstance(value, _PYTHON_TYPES[kind]) or isinstance(value, bool) != (kind == BOOLEAN):
        raise NotOffered(f"{name} takes no {type(value).__name__}")
    if isinstance(value, str):
        if not option.get("min_length", 0) <= len(value) <= option.get("max_length", 6000):
            raise NotOffered(f"{name} has the wrong length")
    elif kind in (INTEGER, NUMBER) and not (
        option.get("min_value", value) <= value <= option.get("max_value", value)
    ):
        raise NotOffered(f"{name} is out of range")
    if option.get("choices") and value not in [choice["value"] for choice in option["choices"]]:
        raise NotOffered(f"{name} offers no {value!r}")
