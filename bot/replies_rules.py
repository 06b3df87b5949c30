"""What a server's rules, blocks and changes read like. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import fields
from datetime import datetime

from bot.phrasebook import retold
from bot.policy import MILLION
from bot.replies import cut, plain, refusal
from bot.replies_members import pictures, requests
from bot.rules import TITLES, AuditEntry, Rules, Usage, told
from bot.speech import tr

_VALUE = 700
_CHANGE = 180


def rules(current: Rules) -> str:
    """Returns all settings of a server."""
    lines = [
        tr(
            "**{title}:** {value}",
            title=retold(TITLES[field.name]),
            value=_links(retold(told(field.name, getattr(current, field.name)))),
        )
        for field in fields(Rules)
    ]
    return cut("\n".join(lines))


def changed(lines: Sequence[str], current: Rules) -> str:
    """Returns what an admin reads who has changed something, or nothing."""
    return rules(current) if lines else f"{tr('Nothing has changed.')}\n{rules(current)}"


def blocked(mention: str, reason: str) -> str:
    """Returns what a moderator reads who has blocked somebody."""
    why = f": {plain(reason)}" if reason else ""
    return tr(
        "{member} can't draw in this server any more{why}. /unblock takes it back.",
        member=mention,
        why=why,
    )


def unblocked(mention: str, *, was_blocked: bool) -> str:
    """Returns what a moderator reads who has taken a block back."""
    if was_blocked:
        return tr("{member} may draw in this server again.", member=mention)
    return tr("{member} was not blocked.", member=mention)


def audit(entries: Iterable[AuditEntry]) -> str:
    """Returns the newest changes, newest first."""
    lines = [
        f"- <t:{entry.created_at.timestamp():.0f}:R> {plain(entry.by.name, 40)}: "
        f"{_links(retold(entry.what), _CHANGE)}"
        for entry in entries
    ]
    return cut("\n".join(lines)) or tr("Nothing was changed yet.")


def why(mention: str, reasons: Sequence[str], mode: str) -> str:
    """Returns why somebody can't draw here and now.

    Args:
        mention: who.
        reasons: each as they would read it themselves; none where they may draw.
        mode: the title of what is drawn with here.
    """
    if not reasons:
        return tr(
            "{member} may draw here, with {mode} at least.", member=mention, mode=plain(mode, 80)
        )
    said = [f"- {refusal(reason)}" for reason in reasons]
    head = tr("{member} can't draw here now. They are told:", member=mention)
    return cut("\n".join([head, *said]))


def limits(current: Rules, usage: Usage, now: datetime) -> str:
    """Returns what somebody has left in a server; empty where nothing is counted there."""
    left = []
    if current.waiting:
        free = max(current.waiting - usage.unfinished, 0)
        most = current.waiting
        left.append(tr("{requests} of {most} at once", requests=requests(free), most=most))
    if current.pictures:
        free = max(current.pictures - usage.pictures, 0)
        left.append(
            tr(
                "{pictures} of {most} today (until 00:00 UTC)",
                pictures=pictures(free),
                most=current.pictures,
            )
        )
    if current.work:
        free_work = max(current.work - usage.pixel_steps / MILLION, 0)
        left.append(
            tr(
                "{left} million pixel-steps of {most} today",
                left=f"{free_work:.3g}",
                most=current.work,
            )
        )
    if current.cooldown:
        passed = (now - usage.last_at).total_seconds() if usage.last_at else current.cooldown
        wait = max(current.cooldown - passed, 0)
        next_one = tr("the next request in {seconds} s", seconds=f"{wait:.0f}")
        left.append(next_one if wait else tr("a request now"))
    return tr("**Left here:** {what}", what=", ".join(left)) if left else ""


def _links(text: str, limit: int = _VALUE) -> str:
    return refusal(text if len(text) <= limit else f"{text[:limit]}…")
