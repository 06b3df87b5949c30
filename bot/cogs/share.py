"""The button that shows a private answer to all."""

from contextlib import suppress
from typing import TYPE_CHECKING, cast

import aiohttp
import discord

from bot import replies, replies_asking
from bot.address import Address
from bot.attachments import attachments
from bot.buttons import JOB, Interaction, JobButton
from bot.errors import NotAllowedError
from bot.records import JobRecord
from bot.speech import tr
from engine.errors import DreamLabError

if TYPE_CHECKING:
    from bot.client import DreamClient


class ShareButton(JobButton, template=f"dream:share:{JOB}"):
    """Posts a private answer under its asker's name, once."""

    verb = "share"
    label = "Share"

    async def press(self, interaction: Interaction, client: "DreamClient") -> None:
        """Posts it, or says where it was posted."""
        job = (await client.studio.view(self.job_id)).record
        owner, origin = client.owner(interaction), client.origin(interaction)
        if job.owner.id != owner.id:
            raise NotAllowedError(tr("Only who asked for this may share it."))
        if client.place(interaction) != job.origin.place:
            # Whoever is there would see it from then on.
            raise NotAllowedError(
                tr("This can be shared where you asked for it, and nowhere else.")
            )
        await client.studio.admission.enter_to_show(job, owner, origin)
        await interaction.response.defer()
        shared = Address.from_plain(job.origin.address).shared_id
        if shared is None:
            if not job.images:
                raise DreamLabError(tr("This picture is not there any more: it was deleted."))
            shared = await _post(interaction, client, job)
            await client.studio.shared(job.id, shared)
        link = _link(interaction, shared)
        await interaction.followup.send(replies_asking.shared(link), ephemeral=True)
        with suppress(discord.HTTPException, aiohttp.ClientError, OSError):
            from bot.views import ended_view

            used = await client.studio.lineage.used(job.id)
            shown = (await client.studio.view(job.id)).record
            await interaction.edit_original_response(view=ended_view(shown, used))


async def _post(interaction: Interaction, client: "DreamClient", job: JobRecord) -> int:
    """Posts a job's pictures here and returns the message's id; twice gives the same."""
    from bot.views import ended_view

    files, notes = await attachments(
        job.images,
        client.studio.image_path,
        job.request,
        interaction.filesize_limit,
        spoiler=client.studio.admission.is_covered(job, client.origin(interaction)),
    )
    view = ended_view(job, is_shared=True)
    text = replies.outcome(job, notes)
    none = discord.AllowedMentions.none()
    assert interaction.channel_id is not None  # noqa: S101 # a message with a button is somewhere
    channel = client.get_partial_messageable(interaction.channel_id, guild_id=interaction.guild_id)
    try:
        sent: discord.Message = await channel.send(
            text, files=files, view=view, nonce=cast(int, f"{job.id}-share"), allowed_mentions=none
        )
    except (discord.Forbidden, discord.NotFound):
        # The bot itself may not write here; who pressed the button may.
        for file in files:
            file.reset()
        sent = await interaction.followup.send(
            text, files=files, view=view, allowed_mentions=none, wait=True
        )
    return sent.id


def _link(interaction: Interaction, message_id: int) -> str:
    place = interaction.guild_id or "@me"
    return f"https://discord.com/channels/{place}/{interaction.channel_id}/{message_id}"
