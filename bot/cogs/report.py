"""Reporting a picture: a button, a form, and what moderators then see and press."""

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

import aiohttp
import discord

from bot import policy, replies_report
from bot.buttons import JOB, Interaction, JobButton
from bot.errors import NotAllowedError
from bot.forms import Form
from bot.records import JobRecord
from bot.speech import speaking, tr

if TYPE_CHECKING:
    from bot.client import DreamClient

_UNREACHABLE = (discord.HTTPException, aiohttp.ClientError, OSError)
_REASON = 300  # characters


class ReportButton(JobButton, template=f"dream:report:{JOB}"):
    """Tells the moderators of a picture."""

    verb = "report"
    label = "Report"

    async def press(self, interaction: Interaction, client: "DreamClient") -> None:
        """Asks for a reason, where there is somebody to tell."""
        await _reported_to(interaction, client)
        await interaction.response.send_modal(ReportForm(self.job_id, interaction.message))


class ReportForm(Form):
    """Why somebody reports a picture."""

    template = re.compile(rf"dream:report:{JOB}:(?P<message>\d{{1,20}})")

    def __init__(self, job_id: str, message: discord.Message | None) -> None:
        """Makes the form for a job's pictures in a message."""
        number = message.id if message else 0
        super().__init__(tr("Report this to the moderators"), f"dream:report:{job_id}:{number}")
        self.job_id = job_id
        self.message_id = number
        hint = tr("What is wrong with it? You may leave this empty.")
        self.ask("reason", tr("Why"), hint=hint, most=_REASON, is_long=True)

    @classmethod
    def from_match(cls, match: re.Match[str]) -> Self:
        """Makes the form that came back."""
        form = cls(match["job"], None)
        form.message_id = int(match["message"])
        return form

    async def filled(
        self, interaction: Interaction, client: "DreamClient", values: Mapping[str, str]
    ) -> None:
        """Posts the report for the moderators, once for each job."""
        place, channel_id = await _reported_to(interaction, client)
        job = (await client.studio.view(self.job_id)).record
        await interaction.response.defer(ephemeral=True, thinking=True)
        if not await client.studio.reports.is_first(job, place):
            await interaction.edit_original_response(content=replies_report.known())
            return
        where = f"{interaction.guild_id}/{interaction.channel_id}/{self.message_id}"
        reason = values.get("reason", "")[:_REASON]
        view = discord.ui.View(timeout=None)
        with speaking(interaction.guild_locale and interaction.guild_locale.value):
            text = replies_report.report(job, interaction.user.id, reason, where)
            view.add_item(RemoveButton(job.id, interaction.channel_id or 0, self.message_id))
            view.add_item(DismissButton(job.id))
        channel = client.get_partial_messageable(channel_id, guild_id=interaction.guild_id)
        try:
            await channel.send(text, view=view, suppress_embeds=True)
        except _UNREACHABLE:
            await client.studio.reports.withdraw(job, place)
            await interaction.edit_original_response(content=replies_report.unreachable())
            return
        await interaction.edit_original_response(content=replies_report.thanks())


class RemoveButton(
    JobButton, template=rf"dream:remove:{JOB}:(?P<channel>\d{{1,20}}):(?P<message>\d{{1,20}})"
):
    """Has a moderator remove what was reported."""

    verb = "remove"
    label = "Remove the pictures"
    style = discord.ButtonStyle.danger

    def __init__(self, job_id: str, channel_id: int, message_id: int) -> None:
        """Makes the button for a job's pictures in a message."""
        super().__init__(job_id, str(channel_id), str(message_id))
        self._channel_id = channel_id
        self._message_id = message_id

    @classmethod
    def from_match(cls, match: re.Match[str]) -> Self:
        """Makes the button of an id."""
        return cls(match["job"], int(match["channel"]), int(match["message"]))

    async def press(self, interaction: Interaction, client: "DreamClient") -> None:
        """Deletes the files, where the job is of this server, and the message."""
        job = await _moderated(self, interaction, client)
        await interaction.response.defer()
        if await self.is_looked_after(interaction, client):
            await client.studio.delete(job.id, client.owner(interaction), moderator=True)
        channel = client.get_partial_messageable(self._channel_id, guild_id=interaction.guild_id)
        with suppress(*_UNREACHABLE):  # it is gone already, or its channel is
            await channel.get_partial_message(self._message_id).delete()
        await _close(interaction, replies_report.removed(interaction.user.id))


class DismissButton(JobButton, template=f"dream:dismiss:{JOB}"):
    """Has a moderator leave what was reported."""

    verb = "dismiss"
    label = "Leave them"

    async def press(self, interaction: Interaction, client: "DreamClient") -> None:
        """Says so below the report."""
        await _moderated(self, interaction, client)
        await interaction.response.defer()
        await _close(interaction, replies_report.dismissed(interaction.user.id))


async def _reported_to(interaction: Interaction, client: "DreamClient") -> tuple[str, int]:
    """Returns the place that somebody reports in, and the channel that its reports go to.

    Raises:
        NotAllowedError: nowhere; it says what to do instead.
    """
    place = client.place(interaction)
    if place is None:
        raise NotAllowedError(tr(replies_report.NOWHERE))
    owner = client.owner(interaction)
    standing = await client.studio.house.standing(place, owner.id)
    if refusal := policy.block_refusal(standing):
        raise NotAllowedError(refusal)
    if not standing.rules.reports:
        raise NotAllowedError(tr(replies_report.NO_CHANNEL))
    return place, int(standing.rules.reports)


async def _moderated(
    button: JobButton, interaction: Interaction, client: "DreamClient"
) -> JobRecord:
    """Returns the job of a button that is for moderators.

    Raises:
        NotAllowedError: who pressed it is none.
    """
    if not interaction.permissions.manage_messages:
        raise NotAllowedError(tr(replies_report.FOR_MODERATORS))
    return (await client.studio.view(button.job_id)).record


async def _close(interaction: Interaction, line: str) -> None:
    """Ends a report: no buttons, and what became of it."""
    told = interaction.message.content if interaction.message else ""
    await interaction.edit_original_response(content=f"{told}\n{line}", view=None)


BUTTONS: tuple[type[discord.ui.DynamicItem[Any]], ...] = (ReportButton, RemoveButton, DismissButton)
