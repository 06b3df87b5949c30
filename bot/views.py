"""What stands under a job's message: which buttons, in which rows."""

from collections.abc import Sequence, Set
from typing import TYPE_CHECKING, Any

import discord

from bot import replies
from bot.buttons import JOB, Interaction, JobButton, mark
from bot.cogs import answer, details, report
from bot.cogs.answer import AgainButton, DeleteButton, EditButton, UpscaleButton, VaryButton
from bot.cogs.details import DetailsButton
from bot.cogs.report import ReportButton
from bot.cogs.share import ShareButton
from bot.records import JobRecord, Kinship
from bot.speech import tr
from engine.jobs import JobStatus

if TYPE_CHECKING:
    from bot.client import DreamClient

_ROW = 5  # buttons
_MOST = 10  # pictures of a message


class CancelButton(JobButton, template=f"dream:cancel:{JOB}"):
    """Takes a waiting or running job back."""

    verb = "cancel"
    label = "Cancel"

    async def press(self, interaction: Interaction, client: "DreamClient") -> None:
        """Cancels for the asker or a moderator."""
        await interaction.response.defer()
        cancelled = await client.studio.cancel(
            self.job_id,
            client.owner(interaction),
            moderator=await self.is_looked_after(interaction, client),
        )
        if not cancelled:
            await interaction.followup.send(tr("This had ended already."), ephemeral=True)
            return
        # The courier does the same, but only while the request's own token lives.
        job = (await client.studio.view(self.job_id)).record
        await interaction.edit_original_response(
            content=replies.outcome(job), attachments=[], view=ended_view(job)
        )


BUTTONS: tuple[type[discord.ui.DynamicItem[Any]], ...] = (
    CancelButton,
    *answer.BUTTONS,
    *details.BUTTONS,
    *report.BUTTONS,
    ShareButton,
)
"""To be registered before the client connects."""


def waiting_view(job_id: str) -> discord.ui.View:
    """Returns what stands under a job that waits or runs."""
    return _view([CancelButton(job_id)])


def ended_view(
    job: JobRecord, used: Set[tuple[Kinship, int]] = frozenset(), *, is_shared: bool = False
) -> discord.ui.View:
    """Returns what stands under a job that has ended.

    Args:
        job: with a final status.
        used: which of its pictures have their one child of which kind.
        is_shared: whether all see it, though it was asked for in private.
    """
    again, edit = AgainButton(job.id), EditButton(job.id)
    if job.status is not JobStatus.DONE or not job.images:
        return _view([again, edit])
    info: list[JobButton] = [DetailsButton(job.id), ReportButton(job.id), DeleteButton(job.id)]
    if job.origin.address.get("private") and not is_shared:
        # Nobody is there to be told of what nobody else sees.
        info[1] = ShareButton(job.id)
        info[1].item.disabled = bool(job.origin.address.get("shared_id"))
    numbers = [image.number for image in job.images][:_MOST]
    is_single = len(numbers) == 1
    upscale = [UpscaleButton(job.id, number, is_single=is_single) for number in numbers]
    vary = [VaryButton(job.id, number, is_single=is_single) for number in numbers]
    for button in (*upscale, *vary):
        mark(button.item, used, job.id)
    if is_single:
        return _view([*upscale, *vary, again, edit], info)
    return _view(upscale, vary, [again, edit, *info])


def is_result(message: discord.Message, job_id: str) -> bool:
    """Whether a message shows the end of a job: it has the button that only an end has."""
    wanted = f"dream:{AgainButton.verb}:{job_id}"
    return any(
        isinstance(child, discord.Button) and child.custom_id == wanted
        for row in message.components
        if isinstance(row, discord.ActionRow)
        for child in row.children
    )


def _view(*groups: Sequence[JobButton]) -> discord.ui.View:
    """Returns groups of buttons, each in rows of its own."""
    view = discord.ui.View(timeout=None)
    rows = [row for group in groups for row in _rows(group)]
    for number, row in enumerate(rows):
        for button in row:
            button.row = number
            view.add_item(button)
    return view


def _rows(group: Sequence[JobButton]) -> list[Sequence[JobButton]]:
    return [group[start : start + _ROW] for start in range(0, len(group), _ROW)]
