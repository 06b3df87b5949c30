"""What is drawn with where nobody names a mode: what was chosen for the channel, the place, all."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bot.records import Owner
from tests.test_studio import ADA, MODES, Room, a_room

PLACE, CHANNEL, THREAD = "discord:1", "7", "8"
HOST = Owner("web:local", "you", is_trusted=True)
MORE = f"{MODES}  third: {{model: other, default_size: 64, min_size: 64}}\n"


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[Room]:
    async with a_room(tmp_path, modes=MORE) as room:
        yield room


async def drawn_with(room: Room, *channels: str) -> str:
    return (await room.studio.choices.mode_of(PLACE, channels)).name


async def test_where_a_channels_mode_is_gone_its_servers_counts(room: Room) -> None:
    await room.studio.choices.switch_mode("other", PLACE, ADA)
    await room.store.choose_mode(PLACE, "gone", channel=CHANNEL)

    assert await drawn_with(room, CHANNEL) == "other"


async def test_where_a_threads_mode_is_gone_its_channels_counts(room: Room) -> None:
    await room.studio.choices.switch_mode("other", PLACE, ADA)
    await room.studio.choices.switch_mode("third", PLACE, ADA, channel=CHANNEL)
    await room.store.choose_mode(PLACE, "gone", channel=THREAD)

    assert await drawn_with(room, THREAD, CHANNEL) == "third"
    assert await drawn_with(room, THREAD) == "other"


async def test_where_all_that_was_chosen_is_gone_the_current_mode_counts(room: Room) -> None:
    await room.studio.choices.switch_mode("third", None, HOST, wait=True)
    await room.store.choose_mode(PLACE, "gone", channel=CHANNEL)
    await room.store.choose_mode(PLACE, "gone as well")

    assert await drawn_with(room, CHANNEL) == "third"


async def test_a_mode_that_comes_back_counts_again(room: Room) -> None:
    await room.studio.choices.switch_mode("other", PLACE, ADA)
    await room.studio.choices.switch_mode("third", PLACE, ADA, channel=CHANNEL)
    path = room.catalog.path

    path.write_text(MODES)
    await room.catalog.reload()
    without = await drawn_with(room, CHANNEL)
    path.write_text(MORE)
    await room.catalog.reload()

    assert (without, await drawn_with(room, CHANNEL)) == ("other", "third")
