"""``/imagine``: words in, a picture out."""

from typing import TYPE_CHECKING, TypeAlias

import discord
from discord import app_commands

from bot.cogs.autocomplete import suggest_loras, suggest_modes, suggest_samplers, suggest_sizes
from bot.cogs.wishing import grant
from bot.wishes import Wish

if TYPE_CHECKING:
    from bot.client import DreamClient

Interaction: TypeAlias = "discord.Interaction[DreamClient]"


@app_commands.command()
@app_commands.describe(
    prompt="What to draw; {red, blue} draws both, --ar 16:9 and the like may follow",
    mode="What to draw with; your own or this server's choice unless given",
    negative="What to keep away from",
    size="square, portrait, landscape, 16:9, or pixels such as 512x768",
    steps="Denoising steps: more take longer",
    guidance="How closely to follow the prompt; 1 ignores the negative",
    sampler="How a step is taken",
    seed="The same seed and words give the same picture",
    count="How many pictures",
    lora="Styles to lay over the mode's model, such as soft-light:0.8, pixel",
    image="A picture to start from",
    strength="How much of that picture is drawn anew, above 0 to 1",
    private="Whether you alone see the answer; a button shares it",
)
@app_commands.autocomplete(
    mode=suggest_modes, size=suggest_sizes, sampler=suggest_samplers, lora=suggest_loras
)
async def imagine(  # noqa: PLR0913 # one for each option of the command
    interaction: Interaction,
    prompt: str,
    mode: str | None = None,
    negative: str | None = None,
    size: str | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    sampler: str | None = None,
    seed: int | None = None,
    count: int | None = None,
    lora: str | None = None,
    image: discord.Attachment | None = None,
    strength: float | None = None,
    private: bool = False,
) -> None:
    """Draws a picture from words, or from words and another picture."""
    wish = Wish(
        prompt=prompt,
        mode=mode,
        negative=negative,
        size=size,
        steps=steps,
        guidance=guidance,
        sampler=sampler,
        seed=seed,
        count=count,
        lora=lora,
        strength=strength,
        image_url=image.url if image else None,
        private=private,
    )
    async with interaction.client.explaining(interaction):
        await grant(interaction, wish)
