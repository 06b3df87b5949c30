"""Buttons that survive restarts: their ids name a job, and everything else is looked up."""

import re
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import discord

from bot import policy, replies
from bot.records import JobRecord
from engine.jobs import JobStatus

if TYPE_CHECKING:
    from bot.client import DreamClient

Interaction: TypeAlias = "discord.Interaction[DreamClient]"

_JOB = r"(?P<job>[\w-]{1,64})"


class JobButton(discord.ui.DynamicItem[discord.ui.Button[Any]], template="dream:never"):
    """A button under a job's message."""

    verb: str
    label: str
    style: discord.ButtonStyle = discord.ButtonStyle.secondary

    def __init__(self, job_id: str) -> None:
        """Makes the button of a job."""
        button: discord.ui.Button[Any] = discord.ui.Button(
            label=self.label, style=self.style, custom_id=f"dream:{self.verb}:{job_id}"
        )
        super().__init__(button)
        self.job_id = job_id

    @classmethod
    async def from_custom_id(  # type: ignore[override] # discord.py leaves the client open, we don't
        cls, interaction: Interaction, item: discord.ui.Item[Any], match: re.Match[str], /
    ) -> Self:
        """Makes the button that was pressed."""
        return cls(match["job"])

    async def callback(self, interaction: Interaction) -> Any:  # type: ignore[override] # as above
        """Does what the button says; what goes wrong is told to whoever pressed it."""
        client = interaction.client
        async with client.explaining(interaction):
            await self.press(interaction, client)

    async def is_looked_after(self, interaction: Interaction, client: "DreamClient") -> bool:
        """Says whether whoever pressed it moderates the place where the job was asked for."""
        job = (await client.studio.view(self.job_id)).record
        moderates = interaction.permissions.manage_messages
        return policy.looks_after(job, client.place(interaction), moderator=moderates)

    @abstractmethod
    async def press(self, interaction: Interaction, client: "DreamClient") -> None:
        """Does what the button says."""


class AgainButton(JobButton, template=f"dream:again:{_JOB}"):
    """The same once more, with another seed."""

    verb = "again"
    label = "Again"
    style = discord.ButtonStyle.primary

    async def press(self, interaction: Interaction, client: "DreamClient") -> None:
        """Makes it whoever pressed it's own request."""
        await client.take(
            interaction, lambda owner, origin: client.studio.again(self.job_id, owner, origin)
        )


class VaryButton(JobButton, template=f"dream:vary:{_JOB}"):
    """A picture that resembles this one."""

    verb = "vary"
    label = "Vary"

    async def press(self, interaction: Interaction, client: "DreamClient") -> None:
        """Makes it whoever pressed it's own request."""
        await client.take(
            interaction,
            lambda owner, origin: client.studio.again(self.job_id, owner, origin, vary=True),
        )


class CancelButton(JobButton, template=f"dream:cancel:{_JOB}"):
    """Takes a waiting or running job back."""

    verb = "cancel"
    label = "Cancel"

    async def press(self, interaction: Interaction, client: "DreamClient") -> None:
        """Cancels for the asker or a moderator."""
        await interaction.response.defer()
        cancelled = await client.studio.cancel(
            self.job_id,
            client.owner(interaction),
            moderator=await self.is_looked_after(interaction, client),
        )
        if not cancelled:
            await interaction.followup.send("This had ended already.", ephemeral=True)
            return
        # The courier does the same, but only while the request's own token lives.
        job = (await client.studio.view(self.job_id)).record
        await interaction.edit_original_response(
            content=replies.outcome(job), attachments=[], view=ended_view(job)
        )


class DeleteButton(JobButton, template=f"dream:delete:{_JOB}"):
    """Removes the pictures, here and from the bot's disk."""

    verb = "delete"
    label = "Delete"
    style = discord.ButtonStyle.danger

    async def press(self, interaction: Interaction, client: "DreamClient") -> None:
        """Deletes for the asker or a moderator, first the files, then the message."""
        await interaction.response.defer()
        await client.studio.delete(
            self.job_id,
            client.owner(interaction),
            moderator=await self.is_looked_after(interaction, client),
        )
        await interaction.delete_original_response()


BUTTONS: tuple[type[JobButton], ...] = (AgainButton, VaryButton, CancelButton, DeleteButton)
"""To be registered before the client connects."""


def waiting_view(job_id: str) -> discord.ui.View:
    """Returns what stands under a job that waits or runs."""
    return _view(CancelButton(job_id))


def ended_view(job: JobRecord) -> discord.ui.View:
    """Returns what stands under a job that has ended."""
    if job.status is JobStatus.DONE and job.images:
        return _view(AgainButton(job.id), VaryButton(job.id), DeleteButton(job.id))
    return _view(AgainButton(job.id))


def is_result(message: discord.Message, job_id: str) -> bool:
    """Whether a message shows the end of a job: it has the button that only an end has."""
    wanted = f"dream:{AgainButton.verb}:{job_id}"
    return any(
        isinstance(child, discord.Button) and child.custom_id == wanted
        for row in message.components
        if isinstance(row, discord.ActionRow)
        for child in row.children
    )


def _view(*buttons: JobButton) -> discord.ui.View:
    view = discord.ui.View(timeout=None)
    for button in buttons:
        view.add_item(button)
    return view
