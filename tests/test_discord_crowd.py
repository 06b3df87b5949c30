"""Many at once: each is told within Discord's three seconds that their request has arrived."""

import asyncio
from pathlib import Path

from bot.client import AT_ONCE
from tests.discord_kit import Bot, locked_database

pytest_plugins = ["tests.discord_kit"]

THINKING = 5
CROWD = 40


async def test_in_a_burst_each_is_told_before_their_turn_and_answered_once(
    bot: Bot, tmp_path: Path
) -> None:
    members = [bot.discord.world.add_user(f"member {number}") for number in range(CROWD)]

    with locked_database(tmp_path):  # nobody's turn ends
        asked = [await bot.imagine(f"number {n}", user=who) for n, who in enumerate(members)]
        await bot.discord.until(
            lambda: sum(each.acknowledged == THINKING for each in asked) >= CROWD - AT_ONCE
        )
    answers = await asyncio.gather(*(bot.discord.picture(each) for each in asked))

    assert len({answer.id for answer in answers}) == CROWD
    assert len(bot.discord.world.messages) == CROWD
    assert len(bot.discord.calls_to("callback")) == CROWD


async def test_who_is_refused_in_a_burst_alone_sees_why(bot: Bot) -> None:
    asked = [await bot.imagine(values={"mode": "nothing"}) for _ in range(CROWD)]

    words = await asyncio.gather(*(bot.discord.private_word(each) for each in asked))

    assert all("nothing" in word.content and word.ephemeral for word in words)
    left = [m for m in bot.discord.world.messages.values() if not (m.deleted or m.ephemeral)]
    assert not left
