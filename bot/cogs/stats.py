"""``/stats``: how it went lately, in a picture and a few lines."""

import io
from typing import TYPE_CHECKING, TypeAlias, cast

import discord
from discord import app_commands

from bot import replies_stats
from bot.cogs.moderation import place_of
from bot.history import Hours
from bot.phrasebook import retold
from bot.plots import ON_DISCORD, PlotError
from bot.replies import ALT_TEXT_LIMIT

if TYPE_CHECKING:
    from bot.client import DreamClient

Interaction: TypeAlias = "discord.Interaction[DreamClient]"

_HOURS = [
    app_commands.Choice(name="hour", value=1),
    app_commands.Choice(name="six hours", value=6),
    app_commands.Choice(name="day", value=24),
]


@app_commands.command()
@app_commands.describe(last="How far to look back; an hour unless given")
@app_commands.choices(last=_HOURS)
@app_commands.default_permissions(manage_messages=True)
@app_commands.allowed_installs(guilds=True, users=False)
@app_commands.allowed_contexts(guilds=True, dms=False, private_channels=False)
async def stats(interaction: Interaction, last: int = 1) -> None:
    """Shows how many pictures were drawn lately, who waited how long, and how full memory is."""
    client = interaction.client
    async with client.explaining(interaction):
        place_of(interaction, "manage_messages", "stats")
        await interaction.response.defer(ephemeral=True, thinking=True)
        studio, hours = client.studio, cast("Hours", last)
        await studio.past.look()
        course = await studio.past.course(hours)
        text = replies_stats.stats(course, studio.live.waiting(), len(studio.live.drawn_now()))
        try:
            picture = await studio.plots.png(hours)
        except PlotError as error:
            await interaction.edit_original_response(content=f"{text}\n-# {retold(str(error))}")
            return
        shown = {plot.name: plot.alt for plot in await studio.plots.all(hours)}
        alt = " ".join(shown[name] for name in ON_DISCORD)[:ALT_TEXT_LIMIT]
        file = discord.File(io.BytesIO(picture), "stats.png", description=alt)
        await interaction.edit_original_response(content=text, attachments=[file])
