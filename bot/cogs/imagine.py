"""``/imagine``: words in, a picture out."""

from typing import TYPE_CHECKING, TypeAlias

import discord
from discord import app_commands

from bot.records import JobRecord, Origin, Owner
from engine.jobs import RequestDraft
from modes.mode_config import ModeConfig
from modes.request_fields import read_size, size_text

if TYPE_CHECKING:
    from bot.client import DreamClient

Interaction: TypeAlias = "discord.Interaction[DreamClient]"

SUGGESTIONS = 25
"""As many as Discord shows."""


@app_commands.command()
@app_commands.describe(
    prompt="What to draw",
    mode="What to draw with; this server's own choice unless given",
    negative="What to keep away from",
    size="Width x height in pixels, such as 512x768",
    steps="Denoising steps: more take longer",
    guidance="How closely to follow the prompt; 1 ignores the negative",
    seed="The same seed and words give the same picture",
    count="How many pictures",
)
@app_commands.allowed_installs(guilds=True, users=False)
@app_commands.allowed_contexts(guilds=True, dms=True, private_channels=False)
async def imagine(  # noqa: PLR0913 # one for each option of the command
    interaction: Interaction,
    prompt: str,
    mode: str | None = None,
    negative: str | None = None,
    size: str | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    seed: int | None = None,
    count: int | None = None,
) -> None:
    """Draws a picture from words."""
    client = interaction.client

    async def submit(owner: Owner, origin: Origin) -> JobRecord:
        width, height = read_size(size) if size is not None else (None, None)
        draft = RequestDraft(
            prompt=prompt,
            mode=mode,
            negative_prompt=negative,
            width=width,
            height=height,
            steps=steps,
            guidance_scale=guidance,
            seed=seed,
            count=count,
        )
        return await client.studio.submit(draft, owner, origin)

    async with client.explaining(interaction):
        await client.take(interaction, submit)


@imagine.autocomplete("mode")
async def suggest_modes(interaction: Interaction, typed: str) -> list[app_commands.Choice[str]]:
    """Suggests modes in whose name, title or description what was typed stands."""
    wanted = typed.casefold()
    found = [
        app_commands.Choice(name=label[:100], value=mode.name)
        for mode in interaction.client.catalog.modes.values()
        if wanted in (label := _label(mode)).casefold()
    ]
    return found[:SUGGESTIONS]


def _label(mode: ModeConfig) -> str:
    name = mode.name if mode.title == mode.name else f"{mode.title} ({mode.name})"
    return f"{name}: {mode.description}" if mode.description else name


@imagine.autocomplete("size")
async def suggest_sizes(interaction: Interaction, typed: str) -> list[app_commands.Choice[str]]:
    """Suggests the sizes of the mode that will be drawn with, or its own upright and lying."""
    client = interaction.client
    named = client.catalog.modes.get(interaction.namespace.mode or "")
    mode = named or await client.studio.mode_of(client.place(interaction))
    width, height = mode.default_size
    sizes = dict.fromkeys(map(size_text, mode.sizes or ((width, height), (height, width))))
    found = [app_commands.Choice(name=s, value=s) for s in sizes if s.startswith(typed)]
    return found[:SUGGESTIONS]
