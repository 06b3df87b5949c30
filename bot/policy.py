"""Who may do what: pure, and each refusal is a sentence for the one who is refused."""

import math
from collections.abc import Iterable
from datetime import datetime, timedelta

from bot.blocked_words import found
from bot.records import JobRecord, Origin, Owner
from bot.rules import Nsfw, Rules, Standing, Usage, day_of, told
from bot.speech import tr
from engine.jobs import GenerationRequest
from modes.mode_config import ModeConfig

MILLION = 1_000_000


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
    if not named:
        return tr("The mode {mode} is for members with certain roles.", mode=mode.title)
    return tr(
        "The mode {mode} is for members with the role {roles}.",
        mode=mode.title,
        roles=tr(" or ").join(named),
    )


def place_mode_refusal(rules: Rules, mode: ModeConfig, asker: Owner) -> str | None:
    """Returns why a place lets somebody without its roles for a mode not draw with it."""
    roles = rules.roles_of(mode.name)
    if not roles or not asker.roles.isdisjoint(roles):
        return None
    return tr(
        "In this server the mode {mode} is for members with a role: {roles}.",
        mode=mode.title,
        roles=told("roles", roles),
    )


def usable(modes: Iterable[ModeConfig], asker: Owner) -> list[ModeConfig]:
    """Returns the modes that somebody may draw with, in the same order."""
    return [mode for mode in modes if mode_refusal(mode, asker) is None]


def draw_refusal(standing: Standing, mode: ModeConfig, asker: Owner, origin: Origin) -> str | None:
    """Returns why somebody may not draw here with a mode; None where they may, as far as it goes.

    In the order block, role, channel; then come `words_refusal` and `usage_refusal`.
    """
    return (
        block_refusal(standing)
        or role_refusal(standing.rules, asker)
        or mode_refusal(mode, asker)
        or place_mode_refusal(standing.rules, mode, asker)
        or channel_refusal(standing.rules, origin)
        or nsfw_refusal(standing.rules, mode, origin)
    )


def show_refusal(
    standing: Standing, job: JobRecord, mode: ModeConfig | None, asker: Owner, origin: Origin
) -> str | None:
    """Returns why somebody may not post a picture here that was drawn before."""
    return (
        block_refusal(standing)
        or role_refusal(standing.rules, asker)
        or channel_refusal(standing.rules, origin)
        or picture_refusal(standing.rules, job.request, mode, origin)
        or words_refusal(standing.rules, job.request)
    )


def block_refusal(standing: Standing) -> str | None:
    """Returns why a moderator keeps somebody from drawing here."""
    if standing.block is None:
        return None
    by, reason = standing.block.by, standing.block.reason
    if not reason:
        return tr("{by} has blocked you from drawing in this server; no reason was given.", by=by)
    return tr("{by} has blocked you from drawing in this server: {reason}.", by=by, reason=reason)


def role_refusal(rules: Rules, asker: Owner) -> str | None:
    """Returns why somebody without any of a place's roles may not draw there."""
    if not rules.roles or not asker.roles.isdisjoint(rules.roles):
        return None
    return tr(
        "Drawing in this server is for members with a role: {roles}.",
        roles=told("roles", rules.roles),
    )


def channel_refusal(rules: Rules, origin: Origin) -> str | None:
    """Returns why nobody draws in this channel."""
    if not rules.channels or not origin.channels.isdisjoint(rules.channels):
        return None
    return tr(
        "Nobody draws in this channel. Channels for that: {channels}.",
        channels=told("channels", rules.channels),
    )


def nsfw_refusal(rules: Rules, mode: ModeConfig, origin: Origin) -> str | None:
    """Returns why an NSFW mode is of no use in this channel."""
    if not mode.nsfw or not _keeps_out(rules, origin):
        return None
    return tr(
        "The mode {mode} is NSFW, which is for age-restricted channels alone.", mode=mode.title
    )


def picture_refusal(
    rules: Rules, request: GenerationRequest, mode: ModeConfig | None, origin: Origin
) -> str | None:
    """Returns why an NSFW picture is not shown in this channel.

    Args:
        rules: the place's.
        request: what drew it.
        mode: the request's, as it is now; None where it is gone.
        origin: where it would be shown.
    """
    if mode and (refusal := nsfw_refusal(rules, mode, origin)):
        return refusal
    if not is_nsfw(request, mode) or not _keeps_out(rules, origin):
        return None
    return tr("This picture counts as NSFW, which is for age-restricted channels alone.")


def _keeps_out(rules: Rules, origin: Origin) -> bool:
    """Says whether a channel is not for NSFW pictures, not even covered ones."""
    if origin.is_restricted is not False:
        return False
    return origin.place is None or rules.nsfw is not Nsfw.SPOILER


def is_nsfw(request: GenerationRequest, mode: ModeConfig | None) -> bool:
    """Says whether pictures are NSFW: by their mode as it was when they were asked for, or is now.

    Of what was asked for before that was noted nobody knows once its mode is gone: it counts as
    NSFW.
    """
    if mode is not None and mode.nsfw:
        return True
    return mode is None if request.nsfw is None else request.nsfw


def is_covered(request: GenerationRequest, mode: ModeConfig | None, origin: Origin) -> bool:
    """Says whether NSFW pictures are shown as spoilers here; see `is_nsfw`."""
    return origin.is_restricted is False and is_nsfw(request, mode)


def words_refusal(rules: Rules, request: GenerationRequest) -> str | None:
    """Returns why a request's words are not wanted; all that is shown counts."""
    typed = f"{request.shown_prompt}\n{request.shown_negative}"
    if word := found(rules.words, typed):
        return tr("This server doesn't want the word {word} in requests.", word=word)
    return None


def usage_refusal(
    rules: Rules,
    usage: Usage,
    pictures: int,
    now: datetime,
    *,
    requests: int = 1,
    pixel_steps: int = 0,
) -> str | None:
    """Returns why somebody must wait before they ask for more.

    Args:
        rules: the place's.
        usage: what they have asked for there.
        pictures: how many they ask for now.
        now: the time.
        requests: in how many requests.
        pixel_steps: pixels times steps of all these pictures.
    """
    if rules.cooldown and usage.last_at is not None:
        again_at = usage.last_at + timedelta(seconds=rules.cooldown)
        if now < again_at:
            return tr(
                "This server allows a request every {seconds} s: you may ask again {moment}.",
                seconds=rules.cooldown,
                moment=f"<t:{math.ceil(again_at.timestamp())}:R>",
            )
    if rules.cooldown and requests > 1:
        return tr(
            "This server allows a request every {seconds} s, and this would be {count} at once. "
            "Ask for one of them, without braces.",
            seconds=rules.cooldown,
            count=requests,
        )
    if rules.waiting and usage.unfinished + requests > rules.waiting:
        asked = tr(" and asked for {count} more", count=requests) if requests > 1 else ""
        return tr(
            "You have {count} under way{asked}; this server allows {most} of one member at once. "
            "Ask again when one is done.",
            count=usage.unfinished,
            asked=asked,
            most=rules.waiting,
        )
    midnight = day_of(now) + timedelta(days=1)
    if rules.pictures and usage.pictures + pictures > rules.pictures:
        return tr(
            "This server allows {most} pictures of one member a day; you have {left} left and "
            "asked for {asked}. The next day begins {moment}.",
            most=rules.pictures,
            left=max(rules.pictures - usage.pictures, 0),
            asked=pictures,
            moment=f"<t:{midnight.timestamp():.0f}:R>",
        )
    if rules.work and usage.pixel_steps + pixel_steps > rules.work * MILLION:
        left = max(rules.work - usage.pixel_steps / MILLION, 0)
        return tr(
            "This server allows {most} million pixel-steps of one member a day; you have {left} "
            "left and asked for {asked}. Smaller pictures or fewer steps take less. The next day "
            "begins {moment}.",
            most=rules.work,
            left=f"{left:.3g}",
            asked=f"{pixel_steps / MILLION:.3g}",
            moment=f"<t:{midnight.timestamp():.0f}:R>",
        )
    return None


def is_visible(record: JobRecord, asker: Owner, place: str | None) -> bool:
    """Says whether somebody may look at a job here: their own, or another one of this place.

    What only its asker was shown is theirs until they share it.

    Args:
        record: the job.
        asker: who looks.
        place: where they are; None in a direct message.
    """
    if record.owner.id == asker.id:
        return True
    if is_hidden(record, asker):
        return False
    return place is not None and record.origin.place == place


def is_met(record: JobRecord, asker: Owner, origin: Origin) -> bool:
    """Says whether somebody may look at a job where they are, a chat that is no place included.

    What was asked for in a group's chat was seen by all who read there.
    """
    if is_visible(record, asker, origin.place):
        return True
    channel = record.origin.address.get("channel_id")
    return channel is not None and str(channel) in origin.channels and not is_hidden(record, asker)


def is_hidden(record: JobRecord, asker: Owner) -> bool:
    """Says whether a job is somebody else's who alone was shown it and has not shared it."""
    address = record.origin.address
    hidden = bool(address.get("private")) and not address.get("shared_id")
    return hidden and record.owner.id != asker.id


def looks_after(record: JobRecord, place: str | None, *, moderator: bool) -> bool:
    """Says whether who moderates a place may end a job: one that was asked for there."""
    return moderator and place is not None and record.origin.place == place


def is_endable(record: JobRecord, asker: Owner, place: str | None, *, moderator: bool) -> bool:
    """Says whether somebody may know of a job that they may end: of private ones, too."""
    return is_visible(record, asker, place) or looks_after(record, place, moderator=moderator)


def job_refusal(record: JobRecord, asker: Owner, verb: str, *, moderator: bool) -> str | None:
    """Returns why somebody may not end or remove a job; None where they may.

    Args:
        record: the job.
        asker: who tries.
        verb: what they try, ``cancel`` or ``delete``.
        moderator: whether they look after the place where it was asked.
    """
    if moderator or record.owner.id == asker.id:
        return None
    if verb == "cancel":
        return tr("Only {name} or a moderator may cancel this.", name=record.owner.name)
    return tr("Only {name} or a moderator may delete this.", name=record.owner.name)
