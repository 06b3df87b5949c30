"""What becomes of a wish that came by a command or a form: it is drawn, or to be confirmed."""

from typing import TYPE_CHECKING, TypeAlias

import discord

from bot.cogs.permute import ask_to_confirm
from bot.records import JobRecord, Origin, Owner
from bot.wishes import Wish
from engine.errors import RequestError

if TYPE_CHECKING:
    from bot.client import DreamClient

Interaction: TypeAlias = "discord.Interaction[DreamClient]"


MOST_FOLLOWUPS = 5
"""Messages by which Discord lets a bot answer that is not in the server itself."""


async def grant(interaction: Interaction, wish: Wish) -> None:
    """Submits a wish; one that asks for several requests must be confirmed first.

    Raises:
        DreamLabError: it is refused.
    """
    client = interaction.client
    client.welcome(interaction.guild_id)
    if len(client.asking.combinations(wish)) > 1:
        await _confirm(interaction, wish)
        return

    async def submit(owner: Owner, origin: Origin) -> JobRecord:
        asked = await client.asking.read(wish, owner, origin)
        (job,) = await client.asking.submit(wish, asked, owner, origin)
        return job

    await client.take(interaction, submit, private=wish.private)


async def _confirm(interaction: Interaction, wish: Wish) -> None:
    """Asks whether several requests are meant."""
    client = interaction.client
    asker = client.owner(interaction)
    asked = await client.asking.read(wish, asker, client.origin(interaction))
    alone = interaction.is_user_integration() and not interaction.is_guild_integration()
    if alone and len(asked) > MOST_FOLLOWUPS:
        allowed = f"at most {MOST_FOLLOWUPS} at once where you alone have brought the bot along"
        raise RequestError("prompt", f"{len(asked)} combinations", allowed)
    await ask_to_confirm(interaction, await client.asking.keep(wish, asker), asked)
