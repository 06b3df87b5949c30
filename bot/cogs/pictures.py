"""``/history``, ``/show`` and ``/results``: pictures that were drawn before."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self, TypeAlias

import discord
from discord import app_commands

from bot import replies, replies_members, views
from bot.attachments import attachments
from bot.buttons import JOB, LastingButton
from bot.cogs.autocomplete import quietly
from bot.cogs.details import DetailsButton
from bot.errors import UnknownJobError
from bot.members import PAGE, Page
from bot.records import JobRecord
from bot.speech import tr
from bot.suggestions import Option, best
from bot.uploads import share_of

if TYPE_CHECKING:
    from bot.client import DreamClient

Interaction: TypeAlias = "discord.Interaction[DreamClient]"

_OFFERED = 100


class PageButton(LastingButton, template=rf"dream:history:(?P<way>older|newer):{JOB}"):
    """Turns to the next page; its id names the job beyond which that begins."""

    def __init__(self, way: str, job_id: str) -> None:
        """Makes the button that leads away from a job, ``older`` or ``newer``."""
        label = tr("Older") if way == "older" else tr("Newer")
        super().__init__(f"dream:history:{way}:{job_id}", label)
        self._way = way
        self._job_id = job_id

    @classmethod
    def from_match(cls, match: re.Match[str]) -> Self:
        """Makes the button of an id."""
        return cls(match["way"], match["job"])

    async def press(self, interaction: Interaction, client: "DreamClient") -> None:
        """Shows the page in place of this one; always of whoever pressed it."""
        await interaction.response.defer()
        owner_id = client.owner(interaction).id
        if self._way == "older":
            page = await client.studio.members.page(owner_id, before=self._job_id)
        else:
            page = await client.studio.members.page(owner_id, after=self._job_id)
        await _show_page(interaction, page)


@app_commands.command()
@app_commands.allowed_contexts(guilds=True, dms=True, private_channels=False)
async def history(interaction: Interaction) -> None:
    """Shows your own pictures to you alone, newest first."""
    client = interaction.client
    async with client.explaining(interaction):
        await interaction.response.defer(ephemeral=True, thinking=True)
        await _show_page(
            interaction, await client.studio.members.page(client.owner(interaction).id)
        )


@quietly
async def suggest_pictures(interaction: Interaction, typed: str) -> list[Option]:
    """Suggests the member's own pictures, newest first, by their words."""
    client = interaction.client
    owner = client.owner(interaction)
    jobs = await client.studio.history(owner.id, _OFFERED)
    drawn = [(replies_members.job_label(job, owner), job.id) for job in jobs if job.images]
    return best(typed, drawn)


@app_commands.command()
@app_commands.rename(job_id="id")
@app_commands.describe(job_id="Of a request of yours or of this server: /history names them")
@app_commands.autocomplete(job_id=suggest_pictures)
@app_commands.allowed_contexts(guilds=True, dms=True, private_channels=False)
async def show(interaction: Interaction, job_id: str) -> None:
    """Posts pictures here that were drawn before, with their parameters and buttons."""
    client = interaction.client
    async with client.explaining(interaction):
        owner, place = client.owner(interaction), client.place(interaction)
        job = await client.studio.visible(job_id.strip(), owner, place)
        if not job.images:
            if job.owner.id != owner.id:  # what others wait for is theirs
                raise UnknownJobError(job_id)
            view = await client.studio.view(job.id)
            text = replies.outcome(job) if job.status.is_final else replies.status(view)
            await interaction.response.send_message(text, ephemeral=True)
            return
        origin = client.origin(interaction)
        await client.studio.admission.enter_to_show(job, owner, origin)
        await interaction.response.defer(thinking=True)
        files, notes = await attachments(
            job.images,
            client.studio.image_path,
            job.request,
            interaction.filesize_limit,
            spoiler=client.studio.admission.is_covered(job, origin),
        )
        await interaction.edit_original_response(
            content=replies.outcome(job, notes),
            attachments=files,
            view=views.ended_view(job, await client.studio.lineage.used(job.id), is_shared=True),
        )


@app_commands.command()
@app_commands.allowed_contexts(guilds=True, dms=True, private_channels=False)
async def results(interaction: Interaction) -> None:
    """Brings what could not be brought to you before: its channel was gone, say."""
    client = interaction.client
    async with client.explaining(interaction):
        await interaction.response.defer(ephemeral=True, thinking=True)
        waiting = await client.studio.members.undelivered(client.owner(interaction).id)
        jobs = waiting[:PAGE]
        files, notes = await _first_pictures(interaction, jobs)
        text = replies_members.undelivered(jobs, len(waiting) - len(jobs), notes)
        await interaction.edit_original_response(
            content=text, attachments=files, view=_ways_to(jobs)
        )
        await client.studio.members.received(jobs)


async def _show_page(interaction: Interaction, page: Page) -> None:
    files, notes = await _first_pictures(interaction, page.jobs)
    view = _ways_to(page.jobs)
    ways = [PageButton("newer", page.jobs[0].id)] if page.has_newer else []
    ways += [PageButton("older", page.jobs[-1].id)] if page.has_older else []
    for way in ways:
        way.row = 1
        view.add_item(way)
    await interaction.edit_original_response(
        content=replies_members.history(page, notes), attachments=files, view=view
    )


def _ways_to(jobs: Sequence[JobRecord]) -> discord.ui.View:
    """Returns a button for each job's details, other pictures and files included."""
    view = discord.ui.View(timeout=None)
    for job in jobs:
        view.add_item(DetailsButton(job.id, replies_members.button_label(job)))
    return view


async def _first_pictures(
    interaction: Interaction, jobs: Sequence[JobRecord]
) -> tuple[list[discord.File], list[str]]:
    """Returns the first picture of each job, and what was done to them."""
    limit = share_of(interaction.filesize_limit, len(jobs))
    studio, origin = interaction.client.studio, interaction.client.origin(interaction)
    files, notes = [], []
    for job in jobs:
        some, said = await attachments(
            job.images[:1],
            studio.image_path,
            job.request,
            limit,
            spoiler=studio.admission.is_covered(job, origin),
        )
        files += some
        notes += [note for note in said if note not in notes]
    return files, notes
