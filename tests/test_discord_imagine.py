"""``/imagine`` from what somebody types to the picture, over real sockets."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.testing import FakeExecutor
from tests.discord_double import DiscordDouble
from tests.discord_kit import Bot, running_bot


@pytest.fixture
async def discord() -> AsyncIterator[DiscordDouble]:
    async with DiscordDouble.running() as double:
        yield double


@pytest.fixture
async def bot(tmp_path: Path, discord: DiscordDouble) -> AsyncIterator[Bot]:
    async with running_bot(tmp_path, discord) as bot:
        yield bot


async def test_the_picture_arrives_in_the_answer_to_the_command(bot: Bot) -> None:
    asked = await bot.imagine("a red circle")

    message = await bot.discord.picture(asked)

    assert message is asked.original
    assert len(message.attachments) == 1
    assert message.attachments[0].filename.endswith(".png")
