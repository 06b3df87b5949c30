"""``/settings``: a member's own defaults."""

from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

import discord
from discord import app_commands

from bot import policy, replies_asking
from bot.cogs.autocomplete import suggest_modes, suggest_sizes
from bot.errors import NotAllowedError
from bot.preferences import Ping
from bot.records import Owner
from bot.wishes import check_size

if TYPE_CHECKING:
    from bot.client import DreamClient

Interaction: TypeAlias = "discord.Interaction[DreamClient]"

_DEFAULT = "default"
"""What gives a setting back."""

_PINGS = [app_commands.Choice(name=ping.value, value=ping.value) for ping in Ping]


@app_commands.command(name="settings")
@app_commands.describe(
    mode="What you draw with unless you say otherwise; default for the server's own",
    size="portrait, 16:9, 512x768, ...; default for the mode's own",
    ping="How you are told that a picture is there",
)
@app_commands.choices(ping=_PINGS)
@app_commands.autocomplete(mode=suggest_modes, size=suggest_sizes)
async def own_settings(
    interaction: Interaction,
    mode: str | None = None,
    size: str | None = None,
    ping: str | None = None,
) -> None:
    """Shows your own defaults, and changes those that you give."""
    client = interaction.client
    async with client.explaining(interaction):
        owner = client.owner(interaction)
        before = await client.studio.members.preferences(owner.id)
        after = before
        if mode is not None:
            after = replace(after, mode=_mode(client, mode, owner))
        if size is not None:
            after = replace(after, size=None if _is_default(size) else check_size(size))
        if ping is not None:
            after = replace(after, ping=Ping(ping))
        if after != before:
            await client.studio.members.prefer(owner.id, after)
        text = replies_asking.settings(after, is_new=after != before)
        await interaction.response.send_message(text, ephemeral=True)


def _mode(client: "DreamClient", typed: str, owner: Owner) -> str | None:
    """Returns the mode that somebody chooses for themselves.

    Raises:
        UnknownModeError: there is none of this name.
        NotAllowedError: it is for others.
    """
    if _is_default(typed):
        return None
    mode = client.asking.named(typed)
    if refusal := policy.mode_refusal(mode, owner):
        raise NotAllowedError(refusal)
    return mode.name


def _is_default(typed: str) -> bool:
    return typed.strip().casefold() == _DEFAULT
