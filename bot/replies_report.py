"""What members and moderators read of reports. Pure."""

from bot.records import JobRecord
from bot.replies import headline, plain
from bot.speech import later, tr

NOWHERE = later("Reports go to a server's moderators; nobody else sees what is drawn here.")
NO_CHANNEL = later(
    "This server has named no channel for reports. Please tell a moderator yourself; "
    "an admin names one with /server set reports."
)
FOR_MODERATORS = later("This is for moderators: members who may manage messages in this channel.")

_REASON = 600


def report(job: JobRecord, reporter_id: int, reason: str, where: str) -> str:
    """Returns what moderators read.

    Args:
        job: whose pictures were reported.
        reporter_id: by whom, as Discord has it.
        reason: in their words; may be empty.
        where: server, channel and message, as in Discord's addresses.
    """
    member = f"<@{reporter_id}>"
    if reason.strip():
        why = plain(reason, _REASON)
        said = tr("{member} reports a picture: {reason}", member=member, reason=why)
    else:
        said = tr("{member} reports a picture, without a reason", member=member)
    return f"{said}\n{headline(job)}\nhttps://discord.com/channels/{where} · `{job.id}`"


def thanks() -> str:
    """Returns what somebody reads whose report was brought."""
    return tr("Thank you. The moderators have it.")


def known() -> str:
    """Returns what somebody reads who reports what was reported before."""
    return tr("The moderators know of this already. Thank you.")


def unreachable() -> str:
    """Returns what somebody reads whose report can't be brought."""
    return tr(
        "I can't write to the channel that reports go to. Please tell a moderator yourself, "
        "and that an admin should look at /server set reports."
    )


def removed(moderator_id: int) -> str:
    """Returns what stands below a report whose pictures were removed."""
    return f"-# {tr('Removed by {member}.', member=f'<@{moderator_id}>')}"


def dismissed(moderator_id: int) -> str:
    """Returns what stands below a report whose pictures were left."""
    return f"-# {tr('Left as it is by {member}.', member=f'<@{moderator_id}>')}"
