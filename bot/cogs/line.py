"""``/queue`` and ``/cancel``: what is under way, and taking it back."""

from typing import TYPE_CHECKING, TypeAlias

import discord
from discord import app_commands

from bot import policy, replies_members, replies_stats
from bot.cogs.autocomplete import quietly
from bot.records import JobRecord
from bot.replies import cut
from bot.speech import tr
from bot.suggestions import Option, best

if TYPE_CHECKING:
    from bot.client import DreamClient

Interaction: TypeAlias = "discord.Interaction[DreamClient]"


@app_commands.command()
@app_commands.allowed_contexts(guilds=True, dms=True, private_channels=False)
async def queue(interaction: Interaction) -> None:
    """Tells what is being drawn, and who waits before you and why."""
    client = interaction.client
    async with client.explaining(interaction):
        studio, owner = client.studio, client.owner(interaction)
        own = [
            (await studio.view(job.id), studio.live.line_place(job.id))
            for job in await studio.members.unfinished(owner.id)
        ]
        text = replies_members.queue(
            [(view, place) for view, place in own if not view.record.status.is_final],
            studio.live.drawn_now(),
            studio.live.waiting(),
            owner.id,
            client.place(interaction),
        )
        if pause := studio.steward.pause:
            text = cut(f"{replies_stats.pause_line(pause)}\n{text}")
        await interaction.response.send_message(text, ephemeral=True)


@quietly
async def suggest_unfinished(interaction: Interaction, typed: str) -> list[Option]:
    """Suggests what the member may cancel: their own, and for a moderator the server's."""
    client = interaction.client
    owner = client.owner(interaction)
    jobs = await _cancellable(interaction)
    return best(typed, [(replies_members.job_label(job, owner), job.id) for job in jobs])


@app_commands.command()
@app_commands.rename(job_id="id")
@app_commands.describe(job_id="What to take back: something of yours that waits or is drawn")
@app_commands.autocomplete(job_id=suggest_unfinished)
@app_commands.allowed_contexts(guilds=True, dms=True, private_channels=False)
async def cancel(interaction: Interaction, job_id: str) -> None:
    """Takes back what waits or is being drawn; moderators may do so with anybody's here."""
    client = interaction.client
    async with client.explaining(interaction):
        owner, place = client.owner(interaction), client.place(interaction)
        moderates = interaction.permissions.manage_messages
        job = await client.studio.endable(job_id.strip(), owner, place, moderator=moderates)
        # A worker may take a step's time to let go of it.
        await interaction.response.defer(ephemeral=True, thinking=True)
        done = await client.studio.cancel(
            job.id, owner, moderator=policy.looks_after(job, place, moderator=moderates)
        )
        text = replies_members.cancelled(job, owner) if done else tr("This had ended already.")
        await interaction.edit_original_response(content=text)


async def _cancellable(interaction: Interaction) -> list[JobRecord]:
    client = interaction.client
    owner = client.owner(interaction)
    jobs = await client.studio.members.unfinished(owner.id)
    place = client.place(interaction)
    if place is not None and interaction.permissions.manage_messages:
        others = await client.studio.members.unfinished_at(place)
        jobs += [job for job in others if job not in jobs]
    # As they are now: the store learns a moment later that a job runs.
    return [(await client.studio.view(job.id)).record for job in jobs]
