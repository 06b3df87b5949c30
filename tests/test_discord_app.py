"""The whole way with nothing faked but Discord: a worker process draws with the bundled model."""

import asyncio
import io
from pathlib import Path

import pytest
from PIL import Image

from bot.settings import Settings
from engine.images import read_png
from tests.discord_double import DiscordDouble, Message
from tests.discord_double.double import MANAGE_GUILD
from tests.discord_kit import serving, settings_for

pytest_plugins = ["tests.discord_kit"]

pytestmark = pytest.mark.slow  # worker processes import torch

MODELS = Path(__file__).parent.parent / "models"

MODES = f"""
model_root: {MODELS}
default_mode: demo
modes:
  demo:
    model: diffusers/dream-demo
    default_size: 64x64
    min_size: 64
    max_size: 128
    default_steps: 4
    default_guidance: 3
    default_sampler: DDIM
  slow:
    model: diffusers/dream-demo
    default_size: 64x64
    min_size: 64
    default_steps: 60
    max_steps: 500
"""


def settings_with_model(discord: DiscordDouble, folder: Path) -> Settings:
    return settings_for(discord, folder, MODES, devices=("cpu",))


def results(discord: DiscordDouble) -> list[Message]:
    messages = discord.world.messages.values()
    return [m for m in messages if m.attachments and "Again" in m.buttons and not m.deleted]


async def test_from_the_command_to_the_picture_through_every_button_and_a_hard_restart(
    tmp_path: Path, discord: DiscordDouble
) -> None:
    """One story, since each start takes seconds to import torch."""
    settings = settings_with_model(discord, tmp_path)
    async with serving(settings, discord):
        await discord.connected()
        values = {"prompt": "a red circle", "negative": "blue", "seed": 7}

        message = await discord.picture(await discord.slash("imagine", values=values))

        (attachment,) = message.attachments
        with Image.open(io.BytesIO(attachment.content)) as picture:
            assert picture.format == "PNG"
            assert picture.size == (64, 64)
            assert len(picture.convert("RGB").getcolors(64 * 64) or []) > 16
        parameters = read_png(attachment.content)
        assert parameters is not None
        assert (parameters.prompt, parameters.negative_prompt) == ("a red circle", "blue")
        assert (parameters.settings["Seed"], parameters.settings["Steps"]) == ("7", "4")
        assert "demo · 64x64 · 4 steps · guidance 3 · DDIM · seed 7" in message.content

        again = await discord.picture(await discord.click(message, "Again"))
        vary = await discord.picture(await discord.click(message, "Vary"))
        assert again.attachments[0].content != attachment.content
        assert vary.attachments[0].content != attachment.content

        same = await discord.picture(await discord.slash("imagine", values=values))
        assert same.attachments[0].content == attachment.content

        await discord.click(same, "Delete")
        await discord.until(lambda: same.deleted)

        values = {"prompt": "a star", "mode": "slow", "steps": 500}
        running = await discord.slash("imagine", values=values)
        status = await discord.answer(running)
        await discord.click(status, "Cancel")
        await discord.until(lambda: "Cancelled." in status.content)

        switch = await discord.slash(
            "mode switch", values={"mode": "slow"}, permissions=MANAGE_GUILD
        )
        await discord.answer(switch)
        asked = await discord.slash("imagine", values={"prompt": "a blue star", "seed": 3})
        await discord.until(lambda: asked.original and "step" in asked.original.content, "a step")
    # A restart in the middle brings exactly one picture.
    discord.gateway.forget()
    discord.world.commands = None
    before = results(discord)
    assert before == [message, again, vary]

    async with serving(settings, discord) as (app, _):
        brought = await discord.picture(asked)
        while await app.store.next_due(("discord",)) is not None:  # noqa: ASYNC110 # rows tell nobody
            await asyncio.sleep(0.01)

        assert results(discord) == [*before, brought]
        assert len(brought.attachments) == 1
        assert "slow · 64x64 · 60 steps" in brought.content
        assert "seed 3" in brought.content
