"""What a message's own menu offers: to draw from a picture in it, and how that was made."""

import asyncio
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import discord
from discord import app_commands

from bot import replies_asking
from bot.cogs.details import show_details
from bot.cogs.wishing import grant
from bot.downloads import DownloadError, download
from bot.errors import NotAllowedError
from bot.forms import Form
from bot.pointing import job_of, pictures, seed_of
from bot.records import JobRecord
from bot.source_images import MAX_BYTES
from bot.speech import tr
from bot.wishes import Wish
from engine.errors import RequestError
from engine.images import Parameters, first_parameters, read_png
from modes.mode_config import STRENGTH
from modes.request_fields import MAX_TEXT

if TYPE_CHECKING:
    from bot.client import DreamClient

log = logging.getLogger(__name__)

Interaction: TypeAlias = "discord.Interaction[DreamClient]"

_A_LOOK = 65_536
"""Bytes of a picture's file in which its parameters are, if other programs wrote them."""

_A_MOMENT = 1.0
"""Seconds that are spent on finding a picture's words: a form must be shown within 3."""

_MOST = 10  # pictures of a message


class RemixForm(Form):
    """What another picture made of one should show."""

    template = re.compile(r"dream:remix:(?P<wish>[\w-]{1,64})")

    def __init__(self, wish_id: str) -> None:
        """Makes the form of a picture that is kept as a wish."""
        super().__init__(tr("Remix this picture"), f"dream:remix:{wish_id}")
        self._wish_id = wish_id

    def fill(self, words: str, urls: Sequence[str]) -> Self:
        """Adds the fields.

        Args:
            words: what the picture was drawn from; empty where nobody knows.
            urls: all pictures that the message shows.
        """
        self.ask("prompt", tr("What to draw"), held=words, most=MAX_TEXT, needed=True, is_long=True)
        anew = tr("How much to draw anew, above 0 to 1")
        self.ask("strength", anew, held=f"{STRENGTH:g}", most=10)
        if len(urls) > 1:
            names = [tr("Picture {number}", number=number) for number in range(1, len(urls) + 1)]
            options = [
                discord.SelectOption(label=name, value=str(index), default=index == 0)
                for index, name in enumerate(names)
            ]
            which: discord.ui.Select[Any] = discord.ui.Select(custom_id="which", options=options)
            self.add_item(discord.ui.Label(text=tr("Which picture"), component=which))
        return self

    @classmethod
    def from_match(cls, match: re.Match[str]) -> Self:
        """Makes the form that came back."""
        return cls(match["wish"])

    async def filled(
        self, interaction: Interaction, client: "DreamClient", values: Mapping[str, str]
    ) -> None:
        """Makes it whoever filled it in's own request."""
        owner_id, wish = await client.asking.kept(self._wish_id)
        if owner_id != client.owner(interaction).id:
            raise NotAllowedError(tr("Only who asked for this may confirm it."))
        index = int(values.get("which") or 0)
        wish = await _chosen(client, wish, index)
        prompt = values.get("prompt", "")
        strength = values.get("strength", "").strip()
        await grant(
            interaction,
            replace(
                wish,
                prompt=prompt,
                strength=_number(strength) if strength else None,
                is_plain=prompt == wish.prompt,
            ),
        )


@app_commands.context_menu(name="Remix this picture")
async def remix(interaction: Interaction, message: discord.Message) -> None:
    """Asks what another picture made of one in the message should show."""
    client = interaction.client
    async with client.explaining(interaction):
        client.welcome(interaction.guild_id)
        urls = _pictures(message)
        job = await _job(client, message)
        words = job.request.shown_prompt if job else await _words(urls[0])
        wish = Wish(
            prompt=job.request.shown_prompt if job else "",
            image_urls=tuple(urls),
            parent_id=job.id if job else None,
            like_mode=job.request.mode if job else None,
            # What is made of what nobody else sees is nobody else's to see either.
            private=message.flags.ephemeral,
        )
        wish_id = await client.asking.keep(wish, client.owner(interaction))
        await interaction.response.send_modal(RemixForm(wish_id).fill(words, urls))


@app_commands.context_menu(name="Picture details")
async def details(interaction: Interaction, message: discord.Message) -> None:
    """Tells how a picture in the message was made, as far as the bot or its file knows."""
    client = interaction.client
    async with client.explaining(interaction):
        if job := await _job(client, message):
            await show_details(interaction, client, job)
            return
        urls = _pictures(message)
        await interaction.response.defer(ephemeral=True, thinking=True)
        found = [await _parameters(url) for url in urls]
        text = replies_asking.parameters(found)
        await interaction.edit_original_response(content=text)


def _pictures(message: discord.Message) -> list[str]:
    urls = pictures(message)[:_MOST]
    if not urls:
        raise NotAllowedError(tr("There is no picture in this message."))
    return urls


async def _job(client: "DreamClient", message: discord.Message) -> JobRecord | None:
    """Returns the job that one of the bot's own messages shows; None where it shows none."""
    own = client.user and message.author.id == client.user.id
    job_id = job_of(message) if own else None
    return await client.studio.remixable(job_id) if job_id else None


async def _chosen(client: "DreamClient", wish: Wish, index: int) -> Wish:
    """Returns a wish with one of its pictures: the bot's own file where there is one."""
    if index >= len(wish.image_urls):
        raise RequestError("picture", index + 1, f"one of {len(wish.image_urls)}")
    url = wish.image_urls[index]
    job = await client.studio.remixable(wish.parent_id) if wish.parent_id else None
    # By its name: a message need not show all that was drawn.
    seed = seed_of(url)
    image = next((image for image in job.images if image.seed == seed), None) if job else None
    if image:
        return replace(wish, image_id=image.id, parent_number=image.number, image_urls=())
    return replace(wish, image_url=url, image_urls=(), parent_id=None)


async def _words(url: str) -> str:
    """Returns the words that a picture says it was drawn from; empty where that takes too long."""
    try:
        start = await download(url, _A_LOOK, _A_MOMENT)
    except DownloadError:
        return ""
    found = await asyncio.to_thread(first_parameters, start)
    return found.prompt[:MAX_TEXT] if found else ""


async def _parameters(url: str) -> Parameters | None:
    """Returns what a picture's file says of it."""
    content = await download(url, MAX_BYTES)
    try:
        return await asyncio.to_thread(read_png, content)
    except ValueError:
        return None


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
