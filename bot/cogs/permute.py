"""Several requests of one wish: ``{red, blue}`` is drawn once whoever asked has confirmed it."""

import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Self, TypeAlias

import aiohttp
import discord

from bot import replies, replies_asking, views
from bot.asking import Asked
from bot.buttons import LastingButton
from bot.errors import NotAllowedError
from bot.records import JobRecord
from bot.speech import tr

if TYPE_CHECKING:
    from bot.client import DreamClient

log = logging.getLogger(__name__)

Interaction: TypeAlias = "discord.Interaction[DreamClient]"


class WishButton(LastingButton, template=r"dream:wish:(?P<verb>draw|drop):(?P<wish>[\w-]{1,64})"):
    """Confirms a wish that waits, or takes it back; its id names the wish."""

    def __init__(self, verb: str, wish_id: str, label: str = "") -> None:
        """Makes the button that draws, or drops."""
        super().__init__(f"dream:wish:{verb}:{wish_id}", label)
        if verb == "draw":
            self.item.style = discord.ButtonStyle.primary
        self._verb = verb
        self._wish_id = wish_id

    @classmethod
    def from_match(cls, match: re.Match[str]) -> Self:
        """Makes the button of an id."""
        return cls(match["verb"], match["wish"])

    async def press(self, interaction: Interaction, client: "DreamClient") -> None:
        """Does what the button says, for whoever asked."""
        owner_id, _ = await client.asking.kept(self._wish_id)
        if owner_id != client.owner(interaction).id:
            raise NotAllowedError(tr("Only who asked for this may confirm it."))
        await interaction.response.defer()
        if self._verb == "draw":
            await self._draw(interaction)
        else:
            await client.asking.take(self._wish_id)
            await interaction.edit_original_response(content=replies_asking.taken_back(), view=None)

    async def _draw(self, interaction: Interaction) -> None:
        """Submits all of it and answers each request with a message of its own."""
        client = interaction.client
        client.welcome(interaction.guild_id)
        _, wish = await client.asking.kept(self._wish_id)
        address = replace(client.address(interaction), private=wish.private, answer_id=0)
        owner = client.owner(interaction)
        origin = replace(client.origin(interaction), address=address.to_plain())
        with client.acknowledgements.opening(interaction.id):
            jobs = await client.asking.draw(self._wish_id, owner, origin)
            await interaction.edit_original_response(
                content=replies_asking.confirmed(len(jobs)), view=None
            )
            for job in jobs:
                await _answer(interaction, job, private=wish.private)


async def ask_to_confirm(interaction: Interaction, wish_id: str, asked: Sequence[Asked]) -> None:
    """Asks in private whether all of it is to be drawn."""
    await interaction.response.send_message(
        replies_asking.confirmation(asked), view=confirmation_view(wish_id, asked), ephemeral=True
    )


def confirmation_view(wish_id: str, asked: Sequence[Asked]) -> discord.ui.View:
    """Returns the buttons of what is to be confirmed."""
    pictures = sum(one.pictures for one in asked)
    view = discord.ui.View(timeout=None)
    view.add_item(WishButton("draw", wish_id, tr("Draw {pictures} pictures", pictures=pictures)))
    view.add_item(WishButton("drop", wish_id, tr("Don't")))
    return view


async def _answer(interaction: Interaction, job: JobRecord, *, private: bool) -> None:
    """Says where a request stands; where that fails, its result comes as a message all the same."""
    client = interaction.client
    text = replies.status(await client.studio.view(job.id))
    try:
        sent = await interaction.followup.send(
            text, view=views.waiting_view(job.id), ephemeral=private, wait=True
        )
    except (discord.HTTPException, aiohttp.ClientError, OSError) as error:
        log.warning("Job %s could not be answered (%s)", job.id, type(error).__name__)
        return
    await client.studio.answered(job.id, sent.id)
    address = {**job.origin.address, "answer_id": sent.id}
    client.followers.follow(replace(job, origin=replace(job.origin, address=address)), text)
