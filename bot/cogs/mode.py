"""``/mode``: what this server draws with."""

from typing import TYPE_CHECKING, TypeAlias

import discord
from discord import app_commands

from bot import replies
from bot.cogs.autocomplete import suggest_modes
from bot.studio import NotAllowedError

if TYPE_CHECKING:
    from bot.client import DreamClient

Interaction: TypeAlias = "discord.Interaction[DreamClient]"

modes = app_commands.Group(
    name="mode",
    description="What this server draws with",
    # Discord knows no permission of a subcommand, so that this hides list and info from members,
    # too, until an admin opens /mode. Members find the modes where they type /imagine.
    default_permissions=discord.Permissions(manage_guild=True),
    allowed_installs=app_commands.AppInstallationType(guild=True, user=False),
    allowed_contexts=app_commands.AppCommandContext(
        guild=True, dm_channel=True, private_channel=False
    ),
)


@modes.command(name="list")
async def list_modes(interaction: Interaction) -> None:
    """Lists everything that can be drawn with."""
    client = interaction.client
    async with client.explaining(interaction):
        current = await client.studio.mode_of(client.place(interaction))
        # What the owner wrote wrong is of use to those alone who look after the modes.
        problems = client.catalog.problems if interaction.permissions.manage_guild else ()
        text = replies.mode_list(
            client.catalog.modes.values(),
            current,
            loaded=client.studio.loaded_models(),
            problems=[problem.brief for problem in problems],
        )
        await interaction.response.send_message(text, ephemeral=True)


@modes.command(name="info")
@app_commands.describe(mode="Which one; this server's own unless given")
@app_commands.autocomplete(mode=suggest_modes)
async def mode_info(interaction: Interaction, mode: str | None = None) -> None:
    """Tells a mode's defaults and what may be asked of it."""
    client = interaction.client
    async with client.explaining(interaction):
        current = await client.studio.mode_of(client.place(interaction))
        shown = client.catalog.get(mode) if mode else current
        await interaction.response.send_message(replies.mode_info(shown, current), ephemeral=True)


@modes.command(name="switch")
@app_commands.describe(mode="What to draw with from now on")
@app_commands.autocomplete(mode=suggest_modes)
async def switch_mode(interaction: Interaction, mode: str) -> None:
    """Makes a mode this server's own."""
    client = interaction.client
    async with client.explaining(interaction):
        place = client.place(interaction)
        if place is None:
            raise NotAllowedError("A mode can be switched in a server alone: /mode switch there.")
        # Discord hides the command by default only: a server's admins can open it to anybody.
        if not interaction.permissions.manage_guild:
            raise NotAllowedError(
                "Only members with the permission Manage Server may switch modes."
            )
        chosen = await client.studio.switch_mode(mode, place, client.owner(interaction))
        await interaction.response.send_message(replies.mode_switched(chosen))
