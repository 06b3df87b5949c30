"""Who may do what: pure, and each refusal is a sentence for the one who is refused."""

from collections.abc import Iterable

from bot.records import JobRecord, Owner
from modes.mode_config import ModeConfig


def mode_refusal(mode: ModeConfig, asker: Owner) -> str | None:
    """Returns why somebody may not draw with a mode; None where they may.

    A mode without roles is everybody's. Roles are compared by id, or by name, in capitals or not.
    """
    if not mode.allowed_roles or asker.is_trusted:
        return None
    held = {role.casefold() for role in asker.roles}
    if not held.isdisjoint(role.casefold() for role in mode.allowed_roles):
        return None
    # An id says nothing to people.
    named = [role for role in mode.allowed_roles if not role.isdecimal()]
    which = f"the role {' or '.join(named)}" if named else "certain roles"
    return f"The mode {mode.title} is for members with {which}."


def usable(modes: Iterable[ModeConfig], asker: Owner) -> list[ModeConfig]:
    """Returns the modes that somebody may draw with, in the same order."""
    return [mode for mode in modes if mode_refusal(mode, asker) is None]


def is_visible(record: JobRecord, asker: Owner, place: str | None) -> bool:
    """Says whether somebody may look at a job here: their own, or a finished one of this place.

    Args:
        record: the job.
        asker: who looks.
        place: where they are; None in a direct message.
    """
    own = record.owner.id == asker.id
    return own or (place is not None and record.origin.place == place)


def looks_after(record: JobRecord, place: str | None, *, moderator: bool) -> bool:
    """Says whether who moderates a place may end a job: one that was asked for there."""
    return moderator and place is not None and record.origin.place == place


def job_refusal(record: JobRecord, asker: Owner, verb: str, *, moderator: bool) -> str | None:
    """Returns why somebody may not end or remove a job; None where they may.

    Args:
        record: the job.
        asker: who tries.
        verb: what they try, such as ``cancel``.
        moderator: whether they look after the place where it was asked.
    """
    if moderator or record.owner.id == asker.id:
        return None
    return f"Only {record.owner.name} or a moderator may {verb} this."
