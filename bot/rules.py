"""What a place allows, and how its admins write it. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from bot.records import Owner
from engine.errors import RequestError

MOST_NAMED = 50
"""Channels or roles that one setting may name."""

REASON_LENGTH = 300
"""Characters that a block's reason may have."""


class Nsfw(StrEnum):
    """Where modes that are marked NSFW may be drawn with."""

    RESTRICTED = "age-restricted channels"
    SPOILER = "everywhere, as spoilers"


@dataclass(frozen=True, slots=True)
class Rules:
    """A place's settings; the numbers are per member, and 0 is no limit.

    Attributes:
        channels: ids of the channels to draw in, threads included; empty for all.
        roles: ids of the roles of which a member must hold one; empty for everybody.
        waiting: requests that may wait or run at once.
        pictures: pictures of a day, which begins at 00:00 UTC.
        cooldown: seconds between two requests.
        words: blocked words, folded.
        nsfw: where NSFW modes may be drawn with.
        reports: id of the channel that reports go to; empty for nowhere.
        mode_roles: modes that are for some roles here, each with ids.
        work: million pixel-steps of a day: pixels times steps, of all pictures.
    """

    channels: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    waiting: int = 0
    pictures: int = 0
    cooldown: int = 0
    words: tuple[str, ...] = ()
    nsfw: Nsfw = Nsfw.RESTRICTED
    reports: str = ""
    mode_roles: tuple[tuple[str, tuple[str, ...]], ...] = ()
    work: int = 0

    def roles_of(self, mode: str) -> tuple[str, ...]:
        """Returns ids of the roles of which one is needed for a mode; empty for everybody."""
        return dict(self.mode_roles).get(mode, ())

    def with_roles(self, mode: str, roles: tuple[str, ...]) -> "Rules":
        """Returns the same with other roles for a mode; none lets everybody draw with it."""
        modes = {name: known for name, known in self.mode_roles if name != mode}
        if roles:
            modes[mode] = roles
        return replace(self, mode_roles=tuple(sorted(modes.items())))


@dataclass(frozen=True, slots=True)
class Block:
    """Why somebody may not draw in a place.

    Attributes:
        reason: as the moderator gave it; empty where they gave none.
        by: the moderator's name.
        created_at: when.
    """

    reason: str
    by: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Standing:
    """What counts for somebody in a place: its rules, and a block if there is one."""

    rules: Rules = Rules()
    block: Block | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """What somebody has asked for in a place.

    Attributes:
        unfinished: requests that wait or run.
        pictures: pictures of today's requests, but for those that failed or were cancelled.
        last_at: when they asked last, within a day; None where they didn't.
        pixel_steps: pixels times steps of the same pictures.
    """

    unfinished: int = 0
    pictures: int = 0
    last_at: datetime | None = None
    pixel_steps: int = 0


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Something that an admin or a moderator changed.

    Attributes:
        by: who.
        what: a sentence; people in it are ids as Discord writes them.
        created_at: when.
        place: where, as in `Origin`.
    """

    by: Owner
    what: str
    created_at: datetime
    place: str


def day_of(now: datetime) -> datetime:
    """Returns when the day of a moment began, in UTC."""
    return now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def told(name: str, value: object) -> str:
    """Returns a setting's value as people read it."""
    if name == "channels":
        return ", ".join(f"<#{channel}>" for channel in _of(value)) or "all"
    if name == "roles":
        return ", ".join(f"<@&{role}>" for role in _of(value)) or "everybody"
    if name == "mode_roles":
        pairs = [f"{mode}: {told('roles', roles)}" for mode, roles in _of(value)]
        return "; ".join(pairs) or "none"
    if name == "words":
        return ", ".join(_of(value)) or "none"
    if name == "reports":
        return f"<#{value}>" if value else "nowhere"
    if name == "cooldown" and value:
        return f"{value} s"
    return str(value or "no limit")


TITLES = {
    "channels": "Channels to draw in",
    "roles": "Roles that may draw",
    "waiting": "Requests under way per member",
    "pictures": "Pictures per member and day",
    "cooldown": "Time between two requests of a member",
    "words": "Blocked words",
    "nsfw": "NSFW modes",
    "reports": "Channel for reports",
    "mode_roles": "Modes for some roles",
    "work": "Million pixel-steps per member and day",
}
"""What people call each of the settings."""


def changes(before: Rules, after: Rules) -> list[str]:
    """Returns what differs, a sentence for each setting."""
    pairs = [(f.name, getattr(before, f.name), getattr(after, f.name)) for f in fields(Rules)]
    return [
        f"{TITLES[name]}: {told(name, old)} → {told(name, new)}"
        for name, old, new in pairs
        if old != new
    ]


_ALLOWED = {
    "#": "channels of this server, or the word all",
    "@&": "roles of this server, or the word all",
}


def read_mentions(
    field: str, text: str, sign: str, known: Sequence[tuple[str, str]]
) -> tuple[str, ...]:
    """Reads ids of channels or roles, as Discord writes mentions, as numbers or as names.

    Args:
        field: what people call the setting.
        text: such as ``<#12> 34, pictures``; ``all`` names none, which allows all.
        sign: ``#`` of channels, ``@&`` of roles.
        known: the server's, each with id and name.

    Raises:
        RequestError: something is none of the server's, or there are too many.
    """
    if text.strip().casefold() == "all":
        return ()
    names = {name.casefold(): ident for ident, name in known}
    ids = {ident for ident, _ in known}
    chosen = []
    for part in re.split(r"[,\s]+", text.replace(">", "> ").strip()):
        word = part.removeprefix(f"<{sign}").removesuffix(">")
        ident = word if word in ids else names.get(word.lstrip("#@").casefold())
        if ident is None:
            raise RequestError(field, part, _ALLOWED[sign])
        chosen.append(ident)
    if len(chosen) > MOST_NAMED:
        raise RequestError(field, f"{len(chosen)} {field}", f"at most {MOST_NAMED}")
    return tuple(dict.fromkeys(chosen))


def read_channel(field: str, text: str, known: Sequence[tuple[str, str]]) -> str:
    """Reads the id of one channel as `read_mentions` does; ``none`` is empty.

    Raises:
        RequestError: it is none of the server's, or there are several.
    """
    wrong = RequestError(field, text, "one channel of this server, or the word none")
    if text.strip().casefold() == "none":
        return ""
    if text.strip().casefold() == "all":
        raise wrong
    try:
        (chosen,) = read_mentions(field, text, "#", known)
    except (RequestError, ValueError):
        raise wrong from None
    return chosen


def read_reason(text: str) -> str:
    """Returns a block's reason on one line.

    Raises:
        RequestError: it is too long.
    """
    reason = " ".join(text.split())
    if len(reason) > REASON_LENGTH:
        raise RequestError(
            "reason", f"{len(reason)} characters", f"at most {REASON_LENGTH} characters"
        )
    return reason


def _of(value: object) -> tuple[Any, ...]:
    assert isinstance(value, tuple)  # noqa: S101 # these settings are lists
    return value


Changes = dict[str, Any]
"""Settings by name, each with its new value."""
