"""``/me`` and ``/help``: what is yours, and what you may type."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeAlias

import discord
from discord import app_commands

from bot import replies_members, replies_rules
from bot.cogs.moderation import PERMISSIONS
from bot.speech import tr

if TYPE_CHECKING:
    from bot.client import DreamClient

Interaction: TypeAlias = "discord.Interaction[DreamClient]"


@app_commands.command()
@app_commands.allowed_contexts(guilds=True, dms=True, private_channels=False)
async def me(interaction: Interaction) -> None:
    """Tells you alone what you have under way and have had drawn."""
    client = interaction.client
    async with client.explaining(interaction):
        members, owner = client.studio.members, client.owner(interaction)
        text = replies_members.figures(
            await members.figures(owner.id),
            await members.unfinished(owner.id),
            client.studio.live.waiting_bound(),
        )
        house, place = client.studio.house, client.place(interaction)
        standing = await house.standing(place, owner.id)
        usage = await house.usage(place, owner.id)
        if left := replies_rules.limits(standing.rules, usage, datetime.now(UTC)):
            text += f"\n{left}"
        await interaction.response.send_message(text, ephemeral=True)


@app_commands.command(name="help")
@app_commands.allowed_contexts(guilds=True, dms=True, private_channels=False)
async def show_help(interaction: Interaction) -> None:
    """Lists what you can type."""
    client = interaction.client
    async with client.explaining(interaction):
        menus = client.tree.walk_commands(type=discord.AppCommandType.message)
        first, *more = replies_members.commands(
            sorted(_described(client)), sorted(menu.name for menu in menus)
        )
        await interaction.response.send_message(first, ephemeral=True)
        for text in more:
            await interaction.followup.send(text, ephemeral=True)


def _described(client: "DreamClient") -> Iterator[tuple[str, str, str]]:
    """Yields each registered command's name, description and default permission."""
    for command in client.tree.walk_commands():
        if isinstance(command, app_commands.Command):
            needed = (command.root_parent or command).default_permissions
            names = [name for name, is_set in needed or () if is_set]
            permission = ", ".join(tr(PERMISSIONS[name]) for name in names)
            yield command.qualified_name, command.description, permission
