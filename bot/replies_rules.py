"""What a server's rules, blocks and changes read like. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import fields
from datetime import datetime

from bot.policy import MILLION
from bot.replies import cut, plain, refusal
from bot.replies_members import counted
from bot.rules import TITLES, AuditEntry, Rules, Usage, told

_VALUE = 700
_CHANGE = 180


def rules(current: Rules) -> str:
    """Returns all settings of a server."""
    lines = [
        f"**{TITLES[field.name]}:** {_links(told(field.name, getattr(current, field.name)))}"
        for field in fields(Rules)
    ]
    return cut("\n".join(lines))


def changed(lines: Sequence[str], current: Rules) -> str:
    """Returns what an admin reads who has changed something, or nothing."""
    return rules(current) if lines else f"Nothing has changed.\n{rules(current)}"


def blocked(mention: str, reason: str) -> str:
    """Returns what a moderator reads who has blocked somebody."""
    why = f": {plain(reason)}" if reason else ""
    return f"{mention} can't draw in this server any more{why}. /unblock takes it back."


def unblocked(mention: str, *, was_blocked: bool) -> str:
    """Returns what a moderator reads who has taken a block back."""
    if was_blocked:
        return f"{mention} may draw in this server again."
    return f"{mention} was not blocked."


def audit(entries: Iterable[AuditEntry]) -> str:
    """Returns the newest changes, newest first."""
    lines = [
        f"- <t:{entry.created_at.timestamp():.0f}:R> {plain(entry.by.name, 40)}: "
        f"{_links(entry.what, _CHANGE)}"
        for entry in entries
    ]
    return cut("\n".join(lines)) or "Nothing was changed yet."


def why(mention: str, reasons: Sequence[str], mode: str) -> str:
    """Returns why somebody can't draw here and now.

    Args:
        mention: who.
        reasons: each as they would read it themselves; none where they may draw.
        mode: the title of what is drawn with here.
    """
    if not reasons:
        return f"{mention} may draw here, with {plain(mode, 80)} at least."
    said = [f"- {refusal(reason)}" for reason in reasons]
    return cut("\n".join([f"{mention} can't draw here now. They are told:", *said]))


def limits(current: Rules, usage: Usage, now: datetime) -> str:
    """Returns what somebody has left in a server; empty where nothing is counted there."""
    left = []
    if current.waiting:
        free = max(current.waiting - usage.unfinished, 0)
        left.append(f"{counted(free, 'request')} of {current.waiting} at once")
    if current.pictures:
        free = max(current.pictures - usage.pictures, 0)
        left.append(f"{counted(free, 'picture')} of {current.pictures} today (until 00:00 UTC)")
    if current.work:
        free_work = max(current.work - usage.pixel_steps / MILLION, 0)
        left.append(f"{free_work:.3g} million pixel-steps of {current.work} today")
    if current.cooldown:
        passed = (now - usage.last_at).total_seconds() if usage.last_at else current.cooldown
        wait = max(current.cooldown - passed, 0)
        left.append(f"the next request in {wait:.0f} s" if wait else "a request now")
    return f"**Left here:** {', '.join(left)}" if left else ""


def _links(text: str, limit: int = _VALUE) -> str:
    return refusal(text if len(text) <= limit else f"{text[:limit]}…")
