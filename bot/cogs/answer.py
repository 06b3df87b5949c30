"""The buttons of an answer: vary, upscale, again, edit, delete."""

import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Self

import aiohttp
import discord

from bot import policy, replies, settings_line
from bot.address import Address
from bot.attachments import attachments
from bot.buttons import JOB, NUMBER, Interaction, JobButton, is_private, marked
from bot.errors import NotAllowedError
from bot.forms import Form
from bot.records import Child, JobRecord, Origin, Owner
from bot.speech import tr
from engine.errors import DreamLabError, RequestError
from engine.jobs import MAX_SEED, GenerationRequest, RequestDraft
from modes.request_fields import MAX_TEXT, read_size, size_text

if TYPE_CHECKING:
    from bot.client import DreamClient

_WHOLE = re.compile(r"\s*\d{1,18}\s*", re.ASCII)


class ExistingChildError(DreamLabError):
    """What a button makes is there already, or on its way.

    Attributes:
        job: what it is.
    """

    def __init__(self, job: JobRecord) -> None:
        super().__init__("This was asked for already.")
        self.job = job


class PictureButton(JobButton, template="dream:never:picture"):
    """A button of one picture, which makes one child of it, whoever presses it how often."""

    short: str

    def __init__(self, job_id: str, number: int, *, is_single: bool = False) -> None:
        """Makes the button of a job's picture; one that is alone has a longer label."""
        super().__init__(job_id, str(number))
        self.item.label = tr(self.label) if is_single else f"{self.short}{number + 1}"
        self.number = number

    @classmethod
    def from_match(cls, match: re.Match[str]) -> Self:
        """Makes the button of an id."""
        return cls(match["job"], int(match["number"]))

    async def press(self, interaction: Interaction, client: "DreamClient") -> None:
        """Makes it whoever pressed it first's own request, and shows it to all others."""
        job = (await client.studio.view(self.job_id)).record
        image = next((image for image in job.images if image.number == self.number), None)
        if image is None:
            raise DreamLabError(tr("This picture is not there any more: it was deleted."))

        async def submit(owner: Owner, origin: Origin) -> JobRecord:
            child = await self.make(client)(image.id, owner, origin)
            if not child.is_new:
                raise ExistingChildError(child.job)
            return child.job

        try:
            await client.take(interaction, submit, private=is_private(interaction))
        except ExistingChildError as error:
            await _show_existing(interaction, client, error.job)
        await _show_used(interaction, client, job)

    def make(self, client: "DreamClient") -> Callable[[str, Owner, Origin], Awaitable[Child]]:
        """Returns what makes the child."""
        raise NotImplementedError


class UpscaleButton(PictureButton, template=f"dream:upscale:{JOB}:{NUMBER}"):
    """The same picture, larger."""

    verb = "upscale"
    label = "Upscale"
    short = "U"

    def make(self, client: "DreamClient") -> Callable[[str, Owner, Origin], Awaitable[Child]]:
        """Returns what makes the child."""
        return client.studio.remaker.upscale


class VaryButton(PictureButton, template=f"dream:vary:{JOB}:{NUMBER}"):
    """A picture that resembles this one."""

    verb = "vary"
    label = "Vary"
    short = "V"

    def make(self, client: "DreamClient") -> Callable[[str, Owner, Origin], Awaitable[Child]]:
        """Returns what makes the child."""
        return client.studio.remaker.vary


class VaryAllButton(JobButton, template=f"dream:vary:{JOB}"):
    """All pictures of a job varied; it stands under messages of earlier versions."""

    verb = "vary"
    label = "Vary"

    async def press(self, interaction: Interaction, client: "DreamClient") -> None:
        """Makes it whoever pressed it's own request."""
        await client.take(
            interaction,
            lambda owner, origin: client.studio.remaker.again(
                self.job_id, owner, origin, vary=True
            ),
            private=is_private(interaction),
        )


class AgainButton(JobButton, template=f"dream:again:{JOB}"):
    """The same once more, with another seed."""

    verb = "again"
    label = "Again"
    style = discord.ButtonStyle.primary

    async def press(self, interaction: Interaction, client: "DreamClient") -> None:
        """Makes it whoever pressed it's own request."""
        await client.take(
            interaction,
            lambda owner, origin: client.studio.remaker.again(self.job_id, owner, origin),
            private=is_private(interaction),
        )


class EditForm(Form):
    """A request's words and settings, to be changed."""

    template = re.compile(f"dream:edit:{JOB}")

    def __init__(self, job_id: str, request: GenerationRequest | None = None) -> None:
        """Makes the form of a job, filled with what was asked for."""
        super().__init__(tr("Edit and rerun"), f"dream:edit:{job_id}")
        self.job_id = job_id
        if request is None:
            return
        self.ask(
            "prompt",
            tr("What to draw"),
            held=request.shown_prompt,
            most=MAX_TEXT,
            needed=True,
            is_long=True,
        )
        self.ask(
            "negative",
            tr("What to keep away from"),
            held=request.shown_negative,
            most=MAX_TEXT,
            is_long=True,
        )
        empty = tr("empty for a new one")
        self.ask("seed", tr("Seed"), held=str(request.seed), hint=empty, most=20)
        size = size_text((request.width, request.height))
        self.ask("size", tr("Width x height"), held=size, most=20)
        self.ask("settings", tr("Settings"), held=settings_line.written(request), most=400)

    @classmethod
    def from_match(cls, match: re.Match[str]) -> Self:
        """Makes the form that came back."""
        return cls(match["job"])

    async def filled(
        self, interaction: Interaction, client: "DreamClient", values: Mapping[str, str]
    ) -> None:
        """Makes it whoever filled it in's own request."""
        draft = edited(values)
        await client.take(
            interaction,
            lambda owner, origin: client.studio.remaker.edit(self.job_id, draft, owner, origin),
            private=is_private(interaction),
        )


class EditButton(JobButton, template=f"dream:edit:{JOB}"):
    """The same with other words or settings."""

    verb = "edit"
    label = "Edit"

    async def press(self, interaction: Interaction, client: "DreamClient") -> None:
        """Shows the form."""
        job = (await client.studio.view(self.job_id)).record
        earlier = (await client.studio.lineage.unenlarged(job)).request
        await interaction.response.send_modal(EditForm(self.job_id, earlier))


class DeleteButton(JobButton, template=f"dream:delete:{JOB}"):
    """Removes the pictures, here and from the bot's disk."""

    verb = "delete"
    label = "Delete"
    style = discord.ButtonStyle.danger

    async def press(self, interaction: Interaction, client: "DreamClient") -> None:
        """Deletes for the asker or a moderator, first the files, then the message."""
        await interaction.response.defer()
        await client.studio.delete(
            self.job_id,
            client.owner(interaction),
            moderator=await self.is_looked_after(interaction, client),
        )
        with suppress(discord.NotFound):  # somebody else has removed the message
            await interaction.delete_original_response()


def edited(values: Mapping[str, str]) -> RequestDraft:
    """Returns what somebody asks for who has filled in an `EditForm`.

    Raises:
        RequestError: something in it can't be read.
    """
    seed, size = values.get("seed", "").strip(), values.get("size", "").strip()
    if seed and not _WHOLE.fullmatch(seed):
        raise RequestError("seed", seed, f"a whole number from 0 to {MAX_SEED}, or nothing")
    width, height = read_size(size) if size else (None, None)
    draft = RequestDraft(
        prompt=values.get("prompt", ""),
        negative_prompt=values.get("negative", ""),
        seed=int(seed) if seed else None,
        width=width,
        height=height,
    )
    return settings_line.read(values.get("settings", ""), draft)


async def _show_existing(interaction: Interaction, client: "DreamClient", job: JobRecord) -> None:
    """Shows what a button has made before to the one who pressed it once more."""
    asker, origin = client.owner(interaction), client.origin(interaction)
    if policy.is_hidden(job, asker):
        raise NotAllowedError(tr("This was asked for already, in private."))
    if not policy.is_met(job, asker, origin):
        raise NotAllowedError(tr("This was asked for already, elsewhere."))
    if interaction.response.is_done():
        # A follow-up would fill the public "thinking" instead.
        await interaction.delete_original_response()
    else:  # files that must be made to fit take their time
        await interaction.response.defer(ephemeral=True, thinking=True)
    view = await client.studio.view(job.id)
    job = view.record
    files: list[discord.File] = []
    notes: list[str] = []
    if job.images:
        files, notes = await attachments(
            job.images,
            client.studio.image_path,
            job.request,
            interaction.filesize_limit,
            spoiler=client.studio.admission.is_covered(job, origin),
        )
    text = replies.outcome(job, notes) if job.status.is_final else replies.status(view)
    asked = tr("This was asked for already ({job}):", job=f"`{job.id}`")
    text = replies.cut(f"{asked}\n{text}")
    await interaction.followup.send(text, files=files, ephemeral=True)


async def _show_used(interaction: Interaction, client: "DreamClient", job: JobRecord) -> None:
    """Shows which buttons of a job's message were used; not worth an error where that fails."""
    message = interaction.message
    if message is None:
        return
    view = marked(message, await client.studio.lineage.used(job.id), job.id)
    with suppress(discord.HTTPException, aiohttp.ClientError, OSError):
        if not message.flags.ephemeral:
            await message.edit(view=view)
            return
        # The bot sees what is private by the token alone that it was asked with.
        address = Address.from_plain(job.origin.address)
        webhook = discord.Webhook.partial(address.application_id, address.token, client=client)
        await webhook.edit_message(message.id, view=view)


BUTTONS: tuple[type[JobButton], ...] = (
    UpscaleButton,
    VaryButton,
    VaryAllButton,
    AgainButton,
    EditButton,
    DeleteButton,
)
