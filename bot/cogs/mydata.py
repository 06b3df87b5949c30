"""``/mydata``: all that is kept of a member, to have or to have deleted."""

import asyncio
import io
import re
from typing import TYPE_CHECKING, Self, TypeAlias

import discord
from discord import app_commands

from bot import replies_members
from bot.buttons import LastingButton
from bot.preferences import Preferences
from bot.speech import tr
from bot.uploads import share_of

if TYPE_CHECKING:
    from bot.client import DreamClient

Interaction: TypeAlias = "discord.Interaction[DreamClient]"

mydata = app_commands.Group(
    name="mydata",
    description="What is kept of you",
    allowed_contexts=app_commands.AppCommandContext(
        guild=True, dm_channel=True, private_channel=False
    ),
)


class PartButton(LastingButton, template=r"dream:export:(?P<number>\d{1,6})"):
    """Brings the next archive."""

    def __init__(self, number: int) -> None:
        """Makes the button of an archive."""
        super().__init__(f"dream:export:{number}", tr("Next part"))
        self._number = number

    @classmethod
    def from_match(cls, match: re.Match[str]) -> Self:
        """Makes the button of an id."""
        return cls(int(match["number"]))

    async def press(self, interaction: Interaction, client: "DreamClient") -> None:
        """Brings whoever pressed it a part of their own."""
        await _bring(interaction, self._number)


class ForgetButton(LastingButton, template=r"dream:forget-me"):
    """Deletes all that is kept of whoever presses it."""

    style = discord.ButtonStyle.danger

    def __init__(self) -> None:
        """Makes the button."""
        super().__init__("dream:forget-me", tr("Delete all of it"))

    @classmethod
    def from_match(cls, match: re.Match[str]) -> Self:
        """Makes the button of an id."""
        return cls()

    async def press(self, interaction: Interaction, client: "DreamClient") -> None:
        """Deletes, and says what was."""
        await interaction.response.defer()
        requests, pictures = await client.studio.forget(client.owner(interaction))
        # No courier comes any more to what could not be brought before.
        await asyncio.gather(*(client.followers.stop(job_id) for job_id in requests))
        await interaction.edit_original_response(
            content=replies_members.forgotten(len(requests), pictures), view=None
        )


@mydata.command(name="export")
async def export_data(interaction: Interaction) -> None:
    """Brings you alone all your requests and pictures, as .zip files."""
    async with interaction.client.explaining(interaction):
        await _bring(interaction, 1)


@mydata.command(name="forget")
async def forget_data(interaction: Interaction) -> None:
    """Deletes all your requests and pictures from the bot, once you have confirmed it."""
    client = interaction.client
    async with client.explaining(interaction):
        members, owner = client.studio.members, client.owner(interaction)
        figures = await members.figures(owner.id)
        own, wishes = await members.preferences(owner.id), await members.kept_wishes(owner.id)
        if not figures.requests and own == Preferences() and not wishes:
            text = replies_members.nothing_kept()
            await interaction.response.send_message(text, ephemeral=True)
            return
        view = discord.ui.View(timeout=None)
        view.add_item(ForgetButton())
        text = replies_members.forget_warning(figures)
        await interaction.response.send_message(text, view=view, ephemeral=True)


async def _bring(interaction: Interaction, number: int) -> None:
    """Sends one of the archives that hold everything of whoever asks."""
    await interaction.response.defer(ephemeral=True, thinking=True)
    studio, owner = interaction.client.studio, interaction.client.owner(interaction)
    jobs = await studio.members.everything(owner.id)
    own = await studio.members.preferences(owner.id)
    wishes = await studio.members.kept_wishes(owner.id)
    if not jobs and own == Preferences() and not wishes:
        await interaction.edit_original_response(content=replies_members.nothing_kept())
        return
    limit = share_of(interaction.filesize_limit, 1)
    part = await asyncio.to_thread(studio.exporter.part, jobs, number, limit, own, wishes)
    view = discord.ui.View(timeout=None)
    if part.number < part.total:
        view.add_item(PartButton(part.number + 1))
    file = discord.File(io.BytesIO(part.content), filename=f"dream-lab-{part.number}.zip")
    await interaction.edit_original_response(
        content=replies_members.exported(part.number, part.total), attachments=[file], view=view
    )
