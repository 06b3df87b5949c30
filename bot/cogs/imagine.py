"""``/imagine``: words in, a picture out."""

from typing import TYPE_CHECKING, TypeAlias

import discord
from discord import app_commands

from bot.cogs.autocomplete import suggest_loras, suggest_modes, suggest_samplers, suggest_sizes
from bot.downloads import download
from bot.records import JobRecord, Origin, Owner
from bot.source_images import MAX_BYTES
from engine.jobs import RequestDraft
from modes.lora_choices import read_list
from modes.request_fields import read_size

if TYPE_CHECKING:
    from bot.client import DreamClient

Interaction: TypeAlias = "discord.Interaction[DreamClient]"


@app_commands.command()
@app_commands.describe(
    prompt="What to draw",
    mode="What to draw with; this server's own choice unless given",
    negative="What to keep away from",
    size="Width x height in pixels, such as 512x768",
    steps="Denoising steps: more take longer",
    guidance="How closely to follow the prompt; 1 ignores the negative",
    sampler="How a step is taken",
    seed="The same seed and words give the same picture",
    count="How many pictures",
    lora="Styles to lay over the mode's model, such as soft-light:0.8, pixel",
    image="A picture to start from",
    strength="How much of that picture is drawn anew, above 0 to 1",
)
@app_commands.autocomplete(
    mode=suggest_modes, size=suggest_sizes, sampler=suggest_samplers, lora=suggest_loras
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
    sampler: str | None = None,
    seed: int | None = None,
    count: int | None = None,
    lora: str | None = None,
    image: discord.Attachment | None = None,
    strength: float | None = None,
) -> None:
    """Draws a picture from words, or from words and another picture."""
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
            sampler=sampler,
            seed=seed,
            count=count,
            loras=read_list(lora or ""),
            # A byte more than the studio takes is enough for it to say so.
            image=await download(image.url, MAX_BYTES) if image else None,
            strength=strength,
        )
        return await client.studio.submit(draft, owner, origin)

    async with client.explaining(interaction):
        await client.take(interaction, submit)
