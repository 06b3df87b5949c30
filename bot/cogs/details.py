"""Details of a picture, for one's own eyes: all parameters, its family, the original files."""

import asyncio
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import discord

from bot import replies_details, uploads
from bot.attachments import attachments, filename
from bot.buttons import JOB, Interaction, JobButton
from bot.errors import UnknownJobError
from bot.phrasebook import retold
from bot.records import JobRecord
from bot.speech import tr

if TYPE_CHECKING:
    from bot.client import DreamClient

_ROW = 5
_MOST = 15  # children that have a button


class DetailsButton(JobButton, template=f"dream:details:{JOB}"):
    """All that is known of a job."""

    verb = "details"
    label = "Details"

    def __init__(self, job_id: str, label: str | None = None) -> None:
        """Makes the button of a job; ``label`` tells it from others beside it."""
        super().__init__(job_id)
        if label is not None:
            self.item.label = label

    async def press(self, interaction: Interaction, client: "DreamClient") -> None:
        """Tells whoever pressed it alone."""
        await show_details(interaction, client, (await client.studio.view(self.job_id)).record)


class WalkButton(JobButton, template=f"dream:walk:{JOB}"):
    """The details of a parent or a child, in place of those that are shown."""

    verb = "walk"
    label = "Parent"

    def __init__(self, job_id: str, label: str = label) -> None:
        """Makes the button that leads to a job."""
        super().__init__(job_id)
        self.item.label = tr(label)

    async def press(self, interaction: Interaction, client: "DreamClient") -> None:
        """Shows it with its pictures, where whoever pressed it may see them."""
        await interaction.response.defer()
        job = await client.studio.visible(
            self.job_id, client.owner(interaction), client.place(interaction)
        )
        files, _ = await attachments(
            job.images,
            client.studio.image_path,
            job.request,
            interaction.filesize_limit,
            spoiler=client.studio.admission.is_covered(job, client.origin(interaction)),
        )
        text, view = await _told(interaction, client, job)
        await interaction.edit_original_response(content=text, attachments=files, view=view)


class OriginalButton(JobButton, template=f"dream:original:{JOB}"):
    """The pictures' files as they are kept."""

    verb = "original"
    label = "Original files"

    async def press(self, interaction: Interaction, client: "DreamClient") -> None:
        """Sends them one by one, so that each has a message's room for itself."""
        job = (await client.studio.view(self.job_id)).record
        await interaction.response.defer(ephemeral=True, thinking=True)
        origin, limit = client.origin(interaction), interaction.filesize_limit
        told = 0
        for image in job.images:
            path = client.studio.image_path(image)
            try:
                upload = await asyncio.to_thread(uploads.original, path, filename(image), limit)
            except FileNotFoundError:
                continue  # deleted since the row was read
            told += 1
            if upload is None:
                text = replies_details.too_large(job, path.stat().st_size, limit)
                await interaction.followup.send(text, ephemeral=True)
                continue
            file = discord.File(
                io.BytesIO(upload.content),
                upload.filename,
                spoiler=client.studio.admission.is_covered(job, origin),
            )
            await interaction.followup.send(retold(upload.note), file=file, ephemeral=True)
        if not told:
            raise UnknownJobError(job.id)


async def show_details(interaction: Interaction, client: "DreamClient", job: JobRecord) -> None:
    """Tells all that is known of a job to whoever asks, alone."""
    text, view = await _told(interaction, client, job)
    await interaction.response.send_message(text, view=view, ephemeral=True)


async def _told(
    interaction: Interaction, client: "DreamClient", job: JobRecord
) -> tuple[str, discord.ui.View]:
    """Returns a job's details and the ways to its family, as far as somebody may go there."""
    owner, place = client.owner(interaction), client.place(interaction)
    parent = await client.studio.lineage.parent(job)
    family = [parent, *await client.studio.lineage.children(job.id)]
    seen = [one for one in family if one and client.studio.is_visible(one, owner, place)]
    children = [one for one in seen if one is not parent]
    view = discord.ui.View(timeout=None)
    for button in _buttons(job, parent if parent in seen else None, children):
        view.add_item(button)
    return replies_details.details(job, len(children)), view


def _buttons(
    job: JobRecord, parent: JobRecord | None, children: Sequence[JobRecord]
) -> list[JobButton]:
    buttons: list[JobButton] = []
    if parent:
        buttons.append(WalkButton(parent.id, tr("What it was made of")))
    if job.images:
        buttons.append(OriginalButton(job.id))
    for button in buttons:
        button.row = 0
    for index, child in enumerate(children[-_MOST:]):
        walk = WalkButton(child.id, replies_details.kin(child))
        walk.row = 1 + index // _ROW
        buttons.append(walk)
    return buttons


BUTTONS: tuple[type[JobButton], ...] = (DetailsButton, WalkButton, OriginalButton)
