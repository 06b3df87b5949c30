"""What Discord suggests while somebody types: what they may ask for, at most 25, never an error."""

import asyncio
import functools
import logging
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeAlias

import discord
from discord import app_commands

from bot import policy
from bot.speech import speak
from bot.suggestions import Option, best, lora_options
from modes.aspect import ASPECTS
from modes.mode_config import ModeConfig
from modes.request_fields import size_text

if TYPE_CHECKING:
    from bot.client import DreamClient

log = logging.getLogger(__name__)

Interaction: TypeAlias = "discord.Interaction[DreamClient]"
Choices: TypeAlias = list[app_commands.Choice[str]]

_NAMED = (*ASPECTS.items(), ("16:9", (16, 9)), ("9:16", (9, 16)))

PATIENCE = 2.0
"""Seconds after which nothing is suggested: Discord waits for 3."""


def quietly(
    options: Callable[[Interaction, str], Coroutine[Any, Any, list[Option]]],
) -> Callable[[Interaction, str], Coroutine[Any, Any, Choices]]:
    """Makes choices of options. What goes wrong is logged and suggests nothing."""

    @functools.wraps(options)
    async def suggest(interaction: Interaction, typed: str) -> Choices:
        speak(interaction.locale.value)
        try:
            async with asyncio.timeout(PATIENCE):
                found = await options(interaction, typed)
        except Exception:
            log.warning("Nothing could be suggested", exc_info=True)
            return []
        return [app_commands.Choice(name=shown, value=value) for shown, value in found]

    return suggest


@quietly
async def suggest_modes(interaction: Interaction, typed: str) -> list[Option]:
    """Suggests the modes that the member may use, by name, title or description."""
    client = interaction.client
    usable = policy.usable(client.catalog.modes.values(), client.owner(interaction))
    return best(typed, [(_label(mode), mode.name) for mode in usable])


@quietly
async def suggest_sizes(interaction: Interaction, typed: str) -> list[Option]:
    """Suggests aspects, and the sizes of the mode that will be drawn with."""
    mode = await _mode(interaction)
    width, height = mode.default_size
    sizes = dict.fromkeys(map(size_text, mode.sizes or ((width, height), (height, width))))
    named = [(f"{name} ({size_text(mode.size_like(*aspect))})", name) for name, aspect in _NAMED]
    return best(typed, [*named, *((size, size) for size in sizes)])


@quietly
async def suggest_samplers(interaction: Interaction, typed: str) -> list[Option]:
    """Suggests the samplers that the mode allows."""
    mode = await _mode(interaction)
    return best(typed, [(sampler.value, sampler.value) for sampler in mode.samplers])


@quietly
async def suggest_loras(interaction: Interaction, typed: str) -> list[Option]:
    """Suggests the LoRAs that the mode allows, for the last entry of a list."""
    mode = await _mode(interaction)
    return lora_options(typed, await interaction.client.studio.loras.of(mode))


async def _mode(interaction: Interaction) -> ModeConfig:
    """Returns the mode that will be drawn with."""
    client = interaction.client
    named = client.catalog.modes.get(interaction.namespace.mode or "")
    origin = client.origin(interaction)
    return named or await client.studio.choices.mode_of(origin.place, origin.channels)


def _label(mode: ModeConfig) -> str:
    name = mode.name if mode.title == mode.name else f"{mode.title} ({mode.name})"
    return f"{name}: {mode.description}" if mode.description else name
