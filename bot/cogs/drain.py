"""``/drain``: a pause for all servers, without losing anybody's place."""

from typing import TYPE_CHECKING, TypeAlias

import discord
from discord import app_commands

from bot import replies_stats
from bot.errors import NotAllowedError
from bot.speech import tr

if TYPE_CHECKING:
    from bot.client import DreamClient

Interaction: TypeAlias = "discord.Interaction[DreamClient]"


def refuse_others(interaction: Interaction) -> None:
    """Refuses everybody who doesn't run this bot: what follows concerns all servers.

    Raises:
        NotAllowedError: they don't.
    """
    if not interaction.client.operates(interaction.user):
        raise NotAllowedError(
            tr(
                "This concerns all servers, so that only those may do it who run this bot: the "
                "owner of its application, and who is named in DISCORD_OPERATORS."
            )
        )


@app_commands.command()
@app_commands.describe(
    turn="on pauses, off goes on; on unless given",
    reason="What those are told who wait, in 300 characters",
)
@app_commands.choices(
    turn=[app_commands.Choice(name="on", value="on"), app_commands.Choice(name="off", value="off")]
)
@app_commands.default_permissions(manage_guild=True)
@app_commands.allowed_installs(guilds=True, users=False)
@app_commands.allowed_contexts(guilds=True, dms=True, private_channels=False)
async def drain(interaction: Interaction, turn: str = "on", reason: str = "") -> None:
    """Finishes what is being drawn and begins nothing new; the queue is kept."""
    client = interaction.client
    async with client.explaining(interaction):
        refuse_others(interaction)
        by, place = client.owner(interaction), client.place(interaction)
        steward = client.studio.steward
        if turn == "off":
            if not await steward.resume(by, place):
                raise NotAllowedError(tr("Drawing is not paused."))
            waiting = client.studio.live.waiting()
            await interaction.response.send_message(replies_stats.resumed(waiting))
            return
        pause = await steward.drain(by, place, reason)
        text = replies_stats.paused(pause)
        await interaction.response.send_message(text)
        if not pause.running:
            return
        await steward.drained()
        if steward.pause == pause:
            text = f"{text}\n{replies_stats.drained(client.studio.live.waiting())}"
            await _edit(interaction, text)


async def _edit(interaction: Interaction, text: str) -> None:
    """Adds the news, where that took no longer than Discord lets anybody edit an answer."""
    if not interaction.is_expired():
        await interaction.edit_original_response(content=text)
