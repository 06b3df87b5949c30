"""The bot by somebody else's reading of Discord's rules: simcord's, in this process.

simcord stands in for discord.py's HTTP and gateway, so that it sees no sockets; the double has
these. It is strict on its own account: an interaction that is answered late or twice, components
that Discord refuses, a command that the member is not offered, each ends a test. Time passes only
where a test moves it.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import discord
import pytest
import simcord
from pydantic import SecretStr

from bot.app import App, open_app
from bot.client import DiscordFrontEnd, DreamClient
from bot.settings import Settings
from engine.testing import FakeExecutor
from tests.discord_kit import write_modes


@dataclass
class Bot:
    """A bot on simcord's server, with a member and an admin."""

    app: App
    front_end: DiscordFrontEnd
    env: simcord.Env
    executor: FakeExecutor
    room: simcord.ChannelHandle
    member: simcord.MemberActor
    admin: simcord.MemberActor
    outbox: asyncio.Task[None] | None = None

    async def drawn(self, **options: Any) -> discord.Message:
        """Has the member ask for pictures and returns the answer that shows them."""
        asked = await self.member.slash(
            self.room, "imagine", **{"prompt": "a red circle"} | options
        )
        return await self.brought(asked)

    async def brought(self, asked: simcord.InteractionResult) -> discord.Message:
        """Returns the answer to a request once it shows the pictures."""
        await self.delivered()
        assert asked.response
        assert asked.response.attachments, asked.response.content
        return asked.response.message

    async def delivered(self) -> None:
        """Waits until all that was asked for is drawn and brought; before, nothing is brought."""
        if self.outbox is None:
            with self.env.time_context():  # what it brings goes through simcord, too
                self.outbox = asyncio.create_task(self.app.outbox.run())
        for job in self.app.studio.live.under_way():
            async for _ in self.app.studio.watch(job.record.id):
                pass
        await self.app.outbox.rest()


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Bot]:
    """Runs the bot on a server with one channel."""
    executor = FakeExecutor()
    settings = Settings(
        data=folder,
        modes_file=write_modes(folder),
        discord_token=SecretStr("simulated"),
        discord_api_url="http://127.0.0.1:9",  # progress goes around simcord, to nobody here
    )
    async with open_app(settings, [executor]) as app:
        # What sleeps for longer than simcord waits for it, it takes for what it is.
        front_end = DiscordFrontEnd(
            app.studio, app.catalog, settings, now=lambda: env.now(), edit_seconds=60
        )
        app.outbox.employ({"discord": front_end.courier})
        async with simcord.run(DreamClient(front_end)) as env:
            guild = env.create_guild()
            room = guild.create_text_channel("pictures")
            admins = guild.create_role("admins", permissions=discord.Permissions(manage_guild=True))
            member = guild.add_member(env.create_user("ada"))
            admin = guild.add_member(env.create_user("bob"), roles=[admins])
            bot = Bot(app, front_end, env, executor, room, member, admin)
            try:
                yield bot
            finally:
                if bot.outbox:
                    bot.outbox.cancel()
                await front_end.followers.close()


@pytest.fixture(autouse=True)
def paths_are_read_as_discord_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has simcord take ``%40original``, as discord.py writes it, for ``@original``."""
    path_of = simcord.http.client._path_of
    monkeypatch.setattr(simcord.http.client, "_path_of", lambda url: unquote(path_of(url)))


def labels(message: discord.Message) -> list[str]:
    """Returns what stands on a message's buttons."""
    rows = [row for row in message.components if isinstance(row, discord.ActionRow)]
    return [child.label or "" for row in rows for child in row.children if hasattr(child, "label")]


async def test_a_request_is_answered_in_place_with_pictures_and_buttons(tmp_path: Path) -> None:
    async with running(tmp_path) as bot:
        message = await bot.drawn(count=4)

        assert len(message.attachments) == 4
        assert message.content.startswith("**a red circle** for ")
        assert [label for label in labels(message) if label[1:].isdigit()] == [
            *(f"U{number}" for number in range(1, 5)),
            *(f"V{number}" for number in range(1, 5)),
        ]


async def test_each_button_is_answered_once(tmp_path: Path) -> None:
    async with running(tmp_path) as bot:
        message = await bot.drawn(count=2)

        again = await bot.member.click(message, label="Again")
        varied = await bot.member.click(message, label="V1")
        enlarged = await bot.member.click(message, label="U2")
        details = await bot.member.click(message, label="Details")
        for made in (again, varied, enlarged):
            assert (await bot.brought(made)).id != message.id
        repeated = await bot.member.click(message, custom_id=_id_of(message, "vary"))

        assert details.ephemeral
        assert repeated.response
        assert repeated.ephemeral
        assert "asked for already" in repeated.response.content
        deleted = await bot.member.click(message, label="Delete")
        assert deleted.response is None


async def test_a_form_comes_back_as_a_request(tmp_path: Path) -> None:
    async with running(tmp_path) as bot:
        message = await bot.drawn(seed=7)

        form = await bot.member.click(message, label="Edit")
        assert form.modal is not None
        asked = await bot.member.submit_modal(form, {"prompt": "a blue square"})

        assert "**a blue square**" in (await bot.brought(asked)).content


async def test_a_restart_between_two_presses_changes_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as bot:
        message = await bot.drawn()
        form = await bot.member.click(message, label="Edit")

        await bot.env.restart_bot(DreamClient(bot.front_end))
        again = await bot.member.click(message, label="Again")
        filled = await bot.member.submit_modal(form, {"prompt": "a star"})

        assert (await bot.brought(again)).attachments
        assert "**a star**" in (await bot.brought(filled)).content


async def test_a_picture_later_than_its_token_comes_as_a_message(tmp_path: Path) -> None:
    async with running(tmp_path) as bot:
        asked = await bot.member.slash(bot.room, "imagine", prompt="a red circle")
        assert asked.response

        await bot.env.advance_time(15 * 60)
        await bot.delivered()

        last = bot.room.last_message
        assert last
        assert last.attachments
        assert last.id != asked.response.id
        assert not asked.response.attachments


async def test_what_is_to_be_confirmed_is_asked_in_private(tmp_path: Path) -> None:
    async with running(tmp_path) as bot:
        asked = await bot.member.slash(bot.room, "imagine", prompt="a {red, blue} cat")
        assert asked.response
        assert asked.ephemeral

        confirmed = await bot.member.click(asked.response, label="Draw 2 pictures")

        assert len(confirmed.followups) == 2
        await bot.delivered()
        assert len(bot.executor.requests) == 2


async def test_a_messages_menu_draws_from_its_picture_and_tells_of_it(tmp_path: Path) -> None:
    async with running(tmp_path) as bot:
        message = await bot.drawn()

        told = await bot.member.context_menu(bot.room, "Picture details", message)
        form = await bot.member.context_menu(bot.room, "Remix this picture", message)
        asked = await bot.member.submit_modal(form, {"prompt": "the same in blue"})

        assert told.ephemeral
        assert "**the same in blue**" in (await bot.brought(asked)).content


async def test_what_is_typed_is_completed(tmp_path: Path) -> None:
    async with running(tmp_path) as bot:
        modes = await bot.member.autocomplete(bot.room, "imagine", "mode", "oth", prompt="x")
        sizes = await bot.member.autocomplete(bot.room, "imagine", "size", "", prompt="x")

        assert [choice["value"] for choice in modes][:1] == ["other"]
        assert 0 < len(sizes) <= 25


async def test_every_command_without_words_is_answered(tmp_path: Path) -> None:
    async with running(tmp_path) as bot:
        await bot.drawn()
        bare = ("help", "history", "me", "modes", "queue", "results", "settings")
        owners = ("server show", "server audit", "mode list")

        answers = [await bot.member.slash(bot.room, name) for name in bare]
        answers += [await bot.admin.slash(bot.room, name) for name in owners]

        assert all(answer.acknowledged and answer.ephemeral for answer in answers)


async def test_what_is_for_admins_is_offered_to_nobody_else(tmp_path: Path) -> None:
    async with running(tmp_path) as bot:
        offered = set(bot.admin.available_commands(bot.room))
        for_all = set(bot.member.available_commands(bot.room))

        assert {"imagine", "cancel", "show", "mydata forget"} <= for_all
        assert {"mode switch", "server set"} <= offered - for_all


def _id_of(message: discord.Message, verb: str) -> str:
    """Returns the id of a message's first button of a kind."""
    rows = [row for row in message.components if isinstance(row, discord.ActionRow)]
    ids = [str(child.custom_id) for row in rows for child in row.children]
    return next(each for each in ids if each.startswith(f"dream:{verb}:"))
