"""Forms that survive restarts: what comes back names its form by its id, all else is looked up.

discord.py remembers the forms that it has shown in memory alone, so that what somebody fills in
across a restart would be lost. These are never remembered: every form that comes back is read anew.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeAlias

import discord

from bot.speech import tr

if TYPE_CHECKING:
    from bot.client import DreamClient

Interaction: TypeAlias = "discord.Interaction[DreamClient]"


class Form(discord.ui.Modal):
    """A form; a subclass says which ids are its own and what becomes of what is filled in."""

    template: ClassVar[re.Pattern[str]]

    def __init__(self, title: str, custom_id: str) -> None:
        """Makes an empty form; ``custom_id`` matches the template."""
        super().__init__(title=title, custom_id=custom_id)
        self.stop()  # it is not to be remembered

    def ask(
        self,
        name: str,
        label: str,
        *,
        held: str = "",
        hint: str = "",
        most: int = 100,
        needed: bool = False,
        is_long: bool = False,
    ) -> None:
        """Adds a field.

        Args:
            name: what its value is found by.
            label: what stands above it.
            held: what it holds when it is shown.
            hint: what stands in it while it is empty.
            most: characters that it takes.
            needed: whether it may not be left empty.
            is_long: whether it shows several lines.
        """
        style = discord.TextStyle.paragraph if is_long else discord.TextStyle.short
        field: discord.ui.TextInput[Any] = discord.ui.TextInput(
            custom_id=name,
            style=style,
            default=held[:most] or None,
            placeholder=hint or None,
            max_length=most,
            required=needed,
        )
        self.add_item(discord.ui.Label(text=label, component=field))

    @classmethod
    def from_match(cls, match: re.Match[str]) -> Self:
        """Makes the form that came back, its fields left out.

        Args:
            match: of its id with the template.
        """
        raise NotImplementedError

    async def filled(
        self, interaction: Interaction, client: "DreamClient", values: Mapping[str, str]
    ) -> None:
        """Does what the form is for.

        Args:
            interaction: of who has filled it in; not answered yet.
            client: the bot.
            values: what stands in the fields, by name; a field that is missing was left empty.
        """
        raise NotImplementedError


async def take_back(interaction: Interaction, forms: Sequence[type[Form]]) -> None:
    """Finds out which form was filled in, and has it do what it is for."""
    client = interaction.client
    data: Any = interaction.data or {}
    custom_id = str(data.get("custom_id", ""))
    async with client.explaining(interaction):
        for form in forms:
            if match := form.template.fullmatch(custom_id):
                values = dict(_values(data.get("components", ())))
                await form.from_match(match).filled(interaction, client, values)
                return
        await interaction.response.send_message(
            tr("This form has changed since it was opened. Please open it anew."), ephemeral=True
        )


def _values(components: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    for component in components:
        inner = component.get("component")
        yield from _values(component.get("components") or ([inner] if inner else ()))
        if "custom_id" in component:
            chosen = component.get("values") or [""]
            yield str(component["custom_id"]), str(component.get("value") or chosen[0])
