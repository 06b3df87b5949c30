"""``/mydata``: all that is kept of a member, to have or to have deleted."""

import asyncio
import io
import re
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import discord
from discord import app_commands

from bot import replies_members
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


class PartButton(
    discord.ui.DynamicItem[discord.ui.Button[Any]], template=r"dream:export:(?P<number>\d{1,6})"
):
    """Brings the next archive."""

    def __init__(self, number: int) -> None:
        """Makes the button of an archive."""
        button: discord.ui.Button[Any] = discord.ui.Button(
            label=tr("Next part"), custom_id=f"dream:export:{number}"
        )
        super().__init__(button)
        self._number = number

    @classmethod
    async def from_custom_id(  # type: ignore[override] # discord.py leaves the client open, we don't
        cls, interaction: Interaction, item: discord.ui.Item[Any], match: re.Match[str], /
    ) -> Self:
        """Makes the button that was pressed."""
        return cls(int(match["number"]))

    async def callback(self, interaction: Interaction) -> Any:  # type: ignore[override] # as above
        """Brings whoever pressed it a part of their own."""
        async with interaction.client.explaining(interaction):
            await _bring(interaction, self._number)


class ForgetButton(discord.ui.DynamicItem[discord.ui.Button[Any]], template=r"dream:forget-me"):
    """Deletes all that is kept of whoever presses it."""

    def __init__(self) -> None:
        """Makes the button."""
        button: discord.ui.Button[Any] = discord.ui.Button(
            label=tr("Delete all of it"),
            style=discord.ButtonStyle.danger,
            custom_id="dream:forget-me",
        )
        super().__init__(button)

    @classmethod
    async def from_custom_id(  # type: ignore[override] # discord.py leaves the client open, we don't
        cls, interaction: Interaction, item: discord.ui.Item[Any], match: re.Match[str], /
    ) -> Self:
        """Makes the button that was pressed."""
        return cls()

    async def callback(self, interaction: Interaction) -> Any:  # type: ignore[override] # as above
        """Deletes, and says what was."""
        client = interaction.client
        async with client.explaining(interaction):
            await interaction.response.defer()
            requests, pictures = await client.studio.forget(client.owner(interaction))
            await interaction.edit_original_response(
                content=replies_members.forgotten(requests, pictures), view=None
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
