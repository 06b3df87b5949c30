"""``/server``: what a server allows, and who changed it."""

from typing import TYPE_CHECKING, TypeAlias

import discord
from discord import app_commands

from bot import replies_rules
from bot.blocked_words import read_words
from bot.cogs.moderation import place_of
from bot.rules import Changes, Nsfw, changes, read_channel, read_mentions
from bot.steward import EVERYWHERE

if TYPE_CHECKING:
    from bot.client import DreamClient

Interaction: TypeAlias = "discord.Interaction[DreamClient]"

_DAY = 86_400
_NSFW = [app_commands.Choice(name=where.value, value=where.value) for where in Nsfw]

server = app_commands.Group(
    name="server",
    description="What this server allows",
    default_permissions=discord.Permissions(manage_guild=True),
    guild_only=True,
    allowed_installs=app_commands.AppInstallationType(guild=True, user=False),
    allowed_contexts=app_commands.AppCommandContext(
        guild=True, dm_channel=False, private_channel=False
    ),
)


@server.command(name="show")
async def show_rules(interaction: Interaction) -> None:
    """Shows all settings of this server."""
    client = interaction.client
    async with client.explaining(interaction):
        place = place_of(interaction, "manage_guild", "server")
        standing = await client.studio.house.standing(place, client.owner(interaction).id)
        await interaction.response.send_message(replies_rules.rules(standing.rules), ephemeral=True)


@server.command(name="set")
@app_commands.describe(
    channels="Where members may draw, such as #pictures #art; all for everywhere",
    roles="Who may draw, such as @artists; all for everybody",
    waiting="Requests that a member may have waiting or running at once; 0 for no limit",
    pictures_per_day="Pictures of one member a day, which begins at 00:00 UTC; 0 for no limit",
    work_per_day="Million pixel-steps of one member a day: 512x512 in 25 steps is 6.6; "
    "0 for no limit",
    cooldown="Seconds between two requests of one member; 0 for no limit",
    blocked_words="Words with commas; gor* is all that begin so; replaces the list, "
    "a comma empties it",
    nsfw="Where modes that are marked NSFW may be drawn with",
    reports="The channel that reports of pictures go to, such as #moderators; none for nowhere",
)
@app_commands.choices(nsfw=_NSFW)
async def set_rules(  # noqa: PLR0913 # one for each option of the command
    interaction: Interaction,
    channels: str | None = None,
    roles: str | None = None,
    waiting: app_commands.Range[int, 0, 1000] | None = None,
    pictures_per_day: app_commands.Range[int, 0, 100_000] | None = None,
    work_per_day: app_commands.Range[int, 0, 1_000_000] | None = None,
    cooldown: app_commands.Range[int, 0, _DAY] | None = None,
    blocked_words: str | None = None,
    nsfw: str | None = None,
    reports: str | None = None,
) -> None:
    """Changes settings of this server; what is not given stays."""
    client = interaction.client
    async with client.explaining(interaction):
        place = place_of(interaction, "manage_guild", "server")
        guild = interaction.guild
        given: Changes = {
            "waiting": waiting,
            "pictures": pictures_per_day,
            "work": work_per_day,
            "cooldown": cooldown,
        }
        known = [(str(c.id), c.name) for c in guild.channels] if guild else []
        if reports is not None:
            given["reports"] = read_channel("reports", reports, known)
        if channels is not None:
            given["channels"] = read_mentions("channels", channels, "#", known)
        if roles is not None:
            held = [(str(role.id), role.name) for role in guild.roles] if guild else []
            given["roles"] = read_mentions("roles", roles, "@&", held)
        if blocked_words is not None:
            given["words"] = read_words(blocked_words)
        if nsfw is not None:
            given["nsfw"] = Nsfw(nsfw)
        wanted = {name: value for name, value in given.items() if value is not None}
        by, house = client.owner(interaction), client.studio.house
        before = (await house.standing(place, by.id)).rules
        after = await house.change(place, by, wanted)
        text = replies_rules.changed(changes(before, after), after)
        await interaction.response.send_message(text, ephemeral=True)


@server.command(name="audit")
async def show_audit(interaction: Interaction) -> None:
    """Shows the last ten changes: settings, blocks, the mode; and who made them."""
    client = interaction.client
    async with client.explaining(interaction):
        place = place_of(interaction, "manage_guild", "server")
        # What was done elsewhere, such as over the page, concerns those alone who run this bot.
        places = (place, EVERYWHERE) if client.operates(interaction.user) else (place,)
        text = replies_rules.audit(await client.studio.house.audit(*places))
        await interaction.response.send_message(text, ephemeral=True)
