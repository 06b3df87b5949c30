"""What all buttons are made of: their ids name a job or the like, everything else is looked up."""

import re
from abc import abstractmethod
from collections.abc import Set
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import discord

from bot import policy
from bot.records import Kinship
from bot.speech import tr

if TYPE_CHECKING:
    from bot.client import DreamClient

Interaction: TypeAlias = "discord.Interaction[DreamClient]"

JOB = r"(?P<job>[\w-]{1,64})"
"""How ids of buttons and forms name a job."""

NUMBER = r"(?P<number>\d{1,2})"
"""Likewise one of its pictures, 0 is the first."""

USED = " ✓"
"""What a button's label ends with once there is what it makes."""

_CHILD = re.compile(rf"dream:(?P<kinship>vary|upscale):{JOB}:{NUMBER}")


class LastingButton(discord.ui.DynamicItem[discord.ui.Button[Any]], template="dream:nothing"):
    """A button that survives restarts: it is made anew of its id when it is pressed."""

    style: discord.ButtonStyle = discord.ButtonStyle.secondary

    def __init__(self, custom_id: str, label: str) -> None:
        """Makes a button; its id matches the template."""
        button: discord.ui.Button[Any] = discord.ui.Button(
            label=label or None, style=self.style, custom_id=custom_id
        )
        super().__init__(button)

    @classmethod
    async def from_custom_id(  # type: ignore[override] # discord.py leaves the client open, we don't
        cls, interaction: Interaction, item: discord.ui.Item[Any], match: re.Match[str], /
    ) -> Self:
        """Makes the button that was pressed."""
        return cls.from_match(match)

    @classmethod
    @abstractmethod
    def from_match(cls, match: re.Match[str]) -> Self:
        """Makes the button of an id."""

    async def callback(self, interaction: Interaction) -> Any:  # type: ignore[override] # as above
        """Does what the button says; what goes wrong is told to whoever pressed it."""
        client = interaction.client
        async with client.explaining(interaction):
            await self.press(interaction, client)

    @abstractmethod
    async def press(self, interaction: Interaction, client: "DreamClient") -> None:
        """Does what the button says."""


class JobButton(LastingButton, template="dream:never"):
    """A button under a job's message."""

    verb: str
    label: str

    def __init__(self, job_id: str, *rest: str) -> None:
        """Makes the button of a job; ``rest`` is what its id says beside."""
        super().__init__(":".join(("dream", self.verb, job_id, *rest)), tr(self.label))
        self.job_id = job_id

    @classmethod
    def from_match(cls, match: re.Match[str]) -> Self:
        """Makes the button of an id."""
        return cls(match["job"])

    async def is_looked_after(self, interaction: Interaction, client: "DreamClient") -> bool:
        """Says whether whoever pressed it moderates the place where the job was asked for."""
        job = (await client.studio.view(self.job_id)).record
        moderates = interaction.permissions.manage_messages
        return policy.looks_after(job, client.place(interaction), moderator=moderates)


def is_private(interaction: Interaction) -> bool:
    """Says whether a button or a form belongs to a message that nobody else sees.

    What it makes is nobody else's to see either.
    """
    return interaction.message is not None and interaction.message.flags.ephemeral


def mark(button: discord.ui.Button[Any], used: Set[tuple[Kinship, int]], job_id: str) -> None:
    """Shows of a button whether there is what it makes.

    Args:
        button: any.
        used: which pictures of a job have their one child of which kind.
        job_id: the job; buttons of others, and those that make nothing, stay as they are.
    """
    match = _CHILD.fullmatch(button.custom_id or "")
    if match is None or match["job"] != job_id:
        return
    plain = (button.label or "").removesuffix(USED)
    is_used = (Kinship(match["kinship"]), int(match["number"])) in used
    button.label = plain + USED if is_used else plain
    button.style = discord.ButtonStyle.success if is_used else discord.ButtonStyle.secondary


def marked(
    message: discord.Message, used: Set[tuple[Kinship, int]], job_id: str
) -> discord.ui.View:
    """Returns a message's buttons with those of a job marked that were used."""
    view = discord.ui.View.from_message(message, timeout=None)
    for item in view.children:
        if isinstance(item, discord.ui.Button):
            mark(item, used, job_id)
    view.stop()  # its buttons are found by their ids; it is not to be remembered
    return view
