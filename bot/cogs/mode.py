"""``/modes`` for everybody, ``/mode`` for those who look after a server or after the bot."""

from typing import TYPE_CHECKING, TypeAlias

import discord
from discord import app_commands

from bot import replies, replies_modes
from bot.cogs.autocomplete import suggest_modes
from bot.cogs.drain import refuse_others
from bot.cogs.moderation import permission_refusal
from bot.errors import NotAllowedError
from bot.rules import read_mentions
from bot.speech import tr

if TYPE_CHECKING:
    from bot.client import DreamClient

Interaction: TypeAlias = "discord.Interaction[DreamClient]"
Channel: TypeAlias = app_commands.AppCommandChannel | app_commands.AppCommandThread

mode_group = app_commands.Group(
    name="mode",
    description="What this server draws with",
    # Discord knows no permission of a subcommand: /modes is what members have of this.
    default_permissions=discord.Permissions(manage_guild=True),
    allowed_installs=app_commands.AppInstallationType(guild=True, user=False),
    allowed_contexts=app_commands.AppCommandContext(
        guild=True, dm_channel=True, private_channel=False
    ),
)


@app_commands.command(name="modes")
@app_commands.describe(mode="All that there is to know of this one; a list of all unless given")
@app_commands.autocomplete(mode=suggest_modes)
async def show_modes(interaction: Interaction, mode: str | None = None) -> None:
    """Tells what you can draw with here."""
    async with interaction.client.explaining(interaction):
        await (_info(interaction, mode) if mode else _list(interaction))


@mode_group.command(name="list")
async def list_modes(interaction: Interaction) -> None:
    """Lists everything that can be drawn with, and what is loaded."""
    async with interaction.client.explaining(interaction):
        await _list(interaction)


@mode_group.command(name="info")
@app_commands.describe(mode="Which one; the one in use here unless given")
@app_commands.autocomplete(mode=suggest_modes)
async def mode_info(interaction: Interaction, mode: str | None = None) -> None:
    """Tells a mode's defaults and what may be asked of it."""
    async with interaction.client.explaining(interaction):
        await _info(interaction, mode)


@mode_group.command(name="switch")
@app_commands.describe(
    mode="What to draw with from now on", channel="For this channel alone; all unless given"
)
@app_commands.autocomplete(mode=suggest_modes)
async def switch_mode(interaction: Interaction, mode: str, channel: Channel | None = None) -> None:
    """Makes a mode this server's own, or one channel's."""
    client = interaction.client
    async with client.explaining(interaction):
        place = _place(interaction)
        where = str(channel.id) if channel else None
        chosen = await client.studio.choices.switch_mode(
            mode, place, client.owner(interaction), channel=where
        )
        await interaction.response.send_message(replies_modes.switched(chosen, where))


@mode_group.command(name="reset")
@app_commands.describe(channel="This channel's own choice; the server's unless given")
async def reset_mode(interaction: Interaction, channel: Channel | None = None) -> None:
    """Forgets which mode was chosen for this server, or for one channel."""
    client = interaction.client
    async with client.explaining(interaction):
        place = _place(interaction)
        where = str(channel.id) if channel else None
        was_chosen = await client.studio.choices.reset_mode(place, client.owner(interaction), where)
        current = await client.studio.choices.mode_of(place, [where] if where else [])
        text = replies_modes.reset(current, where, was_chosen=was_chosen)
        await interaction.response.send_message(text, ephemeral=not was_chosen)


@mode_group.command(name="roles")
@app_commands.describe(mode="Which one", roles="Who may draw with it, such as @artists; or all")
@app_commands.autocomplete(mode=suggest_modes)
async def mode_roles(interaction: Interaction, mode: str, roles: str) -> None:
    """Says which roles may draw with a mode in this server."""
    client = interaction.client
    async with client.explaining(interaction):
        place, guild = _place(interaction), interaction.guild
        held = [(str(role.id), role.name) for role in guild.roles] if guild else []
        chosen = client.catalog.get(mode)
        allowed = read_mentions("roles", roles, "@&", held)
        await client.studio.house.allow(place, client.owner(interaction), chosen.name, allowed)
        text = replies_modes.allowed(chosen, allowed)
        await interaction.response.send_message(text, ephemeral=True)


@mode_group.command(name="reload")
async def reload_modes(interaction: Interaction) -> None:
    """Reads the modes file again."""
    client = interaction.client
    async with client.explaining(interaction):
        refuse_others(interaction)
        await interaction.response.defer(ephemeral=True, thinking=True)
        steward = client.studio.steward
        await steward.reload(client.owner(interaction), client.place(interaction))
        problems = [problem.brief for problem in client.catalog.problems]
        text = replies_modes.reloaded(list(client.catalog.modes), problems)
        await interaction.edit_original_response(content=text)


@mode_group.command(name="load")
@app_commands.describe(mode="Whose model")
@app_commands.autocomplete(mode=suggest_modes)
async def load_mode(interaction: Interaction, mode: str) -> None:
    """Has a mode's model loaded, making room first."""
    client = interaction.client
    async with client.explaining(interaction):
        refuse_others(interaction)
        await interaction.response.defer(ephemeral=True, thinking=True)
        steward = client.studio.steward
        report = await steward.load(mode, client.owner(interaction), client.place(interaction))
        text = replies_modes.loaded(
            client.catalog.get(mode), report.seconds, await steward.devices()
        )
        await interaction.edit_original_response(content=text)


@mode_group.command(name="unload")
@app_commands.describe(mode="Whose model")
@app_commands.autocomplete(mode=suggest_modes)
async def unload_mode(interaction: Interaction, mode: str) -> None:
    """Gives the memory of a mode's model back once nobody draws with it."""
    client = interaction.client
    async with client.explaining(interaction):
        refuse_others(interaction)
        await interaction.response.defer(ephemeral=True, thinking=True)
        steward = client.studio.steward
        unloaded = await steward.unload(mode, client.owner(interaction), client.place(interaction))
        text = replies_modes.unloaded(unloaded, await steward.devices())
        await interaction.edit_original_response(content=text)


async def _list(interaction: Interaction) -> None:
    client = interaction.client
    origin = client.origin(interaction)
    current = await client.studio.choices.mode_of(origin.place, origin.channels)
    devices = await client.studio.steward.devices()
    manages = interaction.permissions.manage_guild
    # What the owner wrote wrong is of use to those alone who look after the modes.
    problems = client.catalog.problems if manages else ()
    text = replies.mode_list(
        client.catalog.modes.values(),
        current,
        loaded=client.studio.choices.loaded_models().union(*(device.loaded for device in devices)),
        problems=[problem.brief for problem in problems],
        memory=replies_modes.memory(devices) if manages else (),
    )
    await interaction.response.send_message(text, ephemeral=True)


async def _info(interaction: Interaction, mode: str | None) -> None:
    client = interaction.client
    origin = client.origin(interaction)
    current = await client.studio.choices.mode_of(origin.place, origin.channels)
    shown = client.catalog.get(mode) if mode else current
    lines = [replies.mode_info(shown, current)]
    standing = await client.studio.house.standing(origin.place, client.owner(interaction).id)
    if roles := standing.rules.roles_of(shown.name):
        lines.append(replies_modes.allowed(shown, roles))
    if interaction.permissions.manage_guild:
        lines += replies_modes.where(shown, await client.studio.steward.devices())
    await interaction.response.send_message(replies.cut("\n".join(lines)), ephemeral=True)


def _place(interaction: Interaction) -> str:
    """Returns the server's place, for somebody who may change its modes.

    Raises:
        NotAllowedError: they may not, or this is no server.
    """
    place = interaction.client.place(interaction)
    if place is None:
        raise NotAllowedError(tr("A mode can be switched in a server alone: /mode switch there."))
    # Discord hides the command by default only: a server's admins can open it to anybody.
    if not interaction.permissions.manage_guild:
        raise NotAllowedError(permission_refusal("manage_guild"))
    return place
