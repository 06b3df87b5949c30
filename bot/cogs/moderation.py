"""``/block``, ``/unblock`` and ``/why``: who may not draw in a server."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeAlias

import discord
from discord import app_commands

from bot import policy, replies_rules
from bot.errors import NotAllowedError
from bot.records import Owner
from bot.rules import read_reason
from bot.speech import later, named, tr

if TYPE_CHECKING:
    from bot.client import DreamClient

Interaction: TypeAlias = "discord.Interaction[DreamClient]"

PERMISSIONS = {
    "manage_guild": later("Manage Server"),
    "manage_messages": later("Manage Messages"),
}
"""What Discord calls the permissions that commands ask for, by discord.py's names."""


def place_of(interaction: Interaction, permission: str, command: str) -> str:
    """Returns the server's place, for somebody who holds a permission there.

    Discord hides commands by default only: a server's admins can open them to anybody.

    Raises:
        NotAllowedError: they don't, or this is no server.
    """
    place = interaction.client.place(interaction)
    if place is None:
        raise NotAllowedError(
            tr("Only a server has rules: {command} is of no use here.", command=_called(command))
        )
    if not getattr(interaction.permissions, permission):
        raise NotAllowedError(permission_refusal(permission))
    return place


def permission_refusal(permission: str) -> str:
    """Returns why somebody may not do something who lacks a permission."""
    name = tr(PERMISSIONS[permission])
    return tr("Only members with the permission {name} may do that.", name=name)


def _called(command: str) -> str:
    return f"/{named(command)}"


@app_commands.command()
@app_commands.describe(member="Who", reason="What they are told, in 300 characters")
@app_commands.default_permissions(manage_messages=True)
@app_commands.allowed_installs(guilds=True, users=False)
@app_commands.allowed_contexts(guilds=True, dms=False, private_channels=False)
async def block(interaction: Interaction, member: discord.User, reason: str = "") -> None:
    """Keeps somebody from drawing in this server; what they have under way is drawn."""
    client = interaction.client
    async with client.explaining(interaction):
        place = place_of(interaction, "manage_messages", "block")
        if member.bot:
            raise NotAllowedError(tr("Bots don't draw, so there is nothing to block."))
        by, blocked = client.owner(interaction), client.owner_of(member)
        await client.studio.house.block(place, blocked, reason, by)
        text = replies_rules.blocked(member.mention, read_reason(reason))
        await interaction.response.send_message(text, ephemeral=True)


@app_commands.command()
@app_commands.describe(member="Who")
@app_commands.default_permissions(manage_messages=True)
@app_commands.allowed_installs(guilds=True, users=False)
@app_commands.allowed_contexts(guilds=True, dms=False, private_channels=False)
async def unblock(interaction: Interaction, member: discord.User) -> None:
    """Lets somebody draw in this server again."""
    client = interaction.client
    async with client.explaining(interaction):
        place = place_of(interaction, "manage_messages", "unblock")
        was_blocked = await client.studio.house.unblock(
            place, client.owner_of(member), client.owner(interaction)
        )
        text = replies_rules.unblocked(member.mention, was_blocked=was_blocked)
        await interaction.response.send_message(text, ephemeral=True)


@app_commands.command()
@app_commands.describe(member="Who; yourself unless given. Moderators may ask for anybody")
@app_commands.allowed_installs(guilds=True, users=False)
@app_commands.allowed_contexts(guilds=True, dms=False, private_channels=False)
async def why(interaction: Interaction, member: discord.User | None = None) -> None:
    """Tells why somebody can't draw in this channel just now."""
    client = interaction.client
    async with client.explaining(interaction):
        asked = member or interaction.user
        if asked.id != interaction.user.id:
            place_of(interaction, "manage_messages", "why")
        reasons, mode = await _reasons(interaction, client.owner_of(asked))
        text = replies_rules.why(asked.mention, reasons, mode)
        await interaction.response.send_message(text, ephemeral=True)


async def _reasons(interaction: Interaction, asker: Owner) -> tuple[list[str], str]:
    """Returns what keeps somebody from drawing one picture here, and the mode's title."""
    client, studio = interaction.client, interaction.client.studio
    origin = client.origin(interaction)
    mode = await studio.choices.mode_of(origin.place, origin.channels)
    standing = await studio.house.standing(origin.place, asker.id)
    usage = await studio.house.usage(origin.place, asker.id)
    width, height = mode.default_size
    pixel_steps = width * height * mode.default_steps
    refusals = (
        policy.block_refusal(standing),
        policy.role_refusal(standing.rules, asker),
        policy.mode_refusal(mode, asker),
        policy.place_mode_refusal(standing.rules, mode, asker),
        policy.channel_refusal(standing.rules, origin),
        policy.nsfw_refusal(standing.rules, mode, origin),
        policy.usage_refusal(standing.rules, usage, 1, datetime.now(UTC), pixel_steps=pixel_steps),
    )
    return [reason for reason in refusals if reason], mode.title
