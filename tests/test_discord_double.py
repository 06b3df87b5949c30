"""The double is as strict as Discord, so that a green test means something."""

import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.discord_double import DiscordDouble, limits
from tests.discord_double.console import Console
from tests.discord_double.errors import ApiError
from tests.discord_double.recording import Recording
from tests.discord_double.rest import DEFAULT_UPLOAD_LIMIT
from tests.discord_kit import running_bot

pytest_plugins = ["tests.discord_kit"]


def button(**changes: Any) -> dict[str, Any]:
    return {"type": 2, "style": 1, "label": "Again", "custom_id": "x", **changes}


def row(*children: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": 1, "components": list(children)}


@pytest.mark.parametrize(
    "message",
    [
        {"content": "x" * 2000},
        {"content": "x", "nonce": "n" * 25},
        {"content": "x", "components": [row(*(button(custom_id=str(n)) for n in range(5)))]},
        {"embeds": [{"description": "d" * 4096}]},
    ],
)
def test_what_discord_takes_is_taken(message: dict[str, Any]) -> None:
    limits.check_message(message)


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"content": ""},
        {"content": "x" * 2001},
        {"content": "x", "nonce": "n" * 26},
        {"content": "x", "components": [row()]},
        {"content": "x", "components": [row(button())] * 6},
        {"content": "x", "components": [row(*(button(custom_id=str(n)) for n in range(6)))]},
        {"content": "x", "components": [row(button(), button())]},
        {"content": "x", "components": [row(button(custom_id=""))]},
        {"content": "x", "components": [row(button(custom_id="i" * 101))]},
        {"content": "x", "components": [row(button(label="l" * 81))]},
        {"content": "x", "components": [row(button(label=""))]},
        {"content": "x", "attachments": [{"id": 0, "description": "d" * 1025}]},
        {"content": "x", "attachments": [{"id": n} for n in range(11)]},
        {"content": "x", "allowed_mentions": {"parse": ["all"]}},
        {"content": "x", "allowed_mentions": {"parse": ["users"], "users": ["1"]}},
        {"embeds": [{"description": "d" * 4097}]},
        {"embeds": [{"description": "d" * 3001}] * 2},
        {"embeds": [{"title": "t"}] * 11},
    ],
)
def test_what_discord_refuses_is_refused(message: dict[str, Any]) -> None:
    with pytest.raises(ApiError):
        limits.check_message(message)


@pytest.mark.parametrize(
    "sizes", [[DEFAULT_UPLOAD_LIMIT + 1], [9 * limits.MIB, 9 * limits.MIB, 9 * limits.MIB]]
)
def test_files_that_are_too_large_are_refused(sizes: list[int]) -> None:
    with pytest.raises(ApiError, match="40005"):
        limits.check_files(sizes, DEFAULT_UPLOAD_LIMIT)


def command(**changes: Any) -> dict[str, Any]:
    return {"name": "imagine", "description": "Draws", "options": [], **changes}


def option(**changes: Any) -> dict[str, Any]:
    return {"name": "prompt", "description": "What", "type": 3, **changes}


@pytest.mark.parametrize(
    "commands",
    [
        [command(name="Imagine")],
        [command(name="a b")],
        [command(description="")],
        [command(description="d" * 101)],
        [command(), command()],
        [command(options=[option(name=f"o{n}") for n in range(26)])],
        [command(options=[option(), option(name="late", required=True)])],
        [command(options=[option(choices=[{"name": "n", "value": "v"}] * 26)])],
    ],
)
def test_commands_that_discord_refuses_are_refused(commands: list[dict[str, Any]]) -> None:
    with pytest.raises(ApiError):
        limits.check_commands(commands)


async def post(discord: DiscordDouble, path: str, **body: Any) -> tuple[int, dict[str, Any]]:
    headers = {"Authorization": f"Bot {discord.token}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"{discord.api_url}{path}", json=body) as answer,
    ):
        assert answer.headers["Content-Type"] == "application/json"
        return answer.status, await answer.json()


async def an_interaction(discord: DiscordDouble) -> tuple[str, str]:
    made = discord.world.open_interaction(
        2, discord.user, discord.guild, discord.guild.channel_id, DEFAULT_UPLOAD_LIMIT
    )
    application = discord.world.application_id
    return f"/interactions/{made.id}/{made.token}/callback", f"/webhooks/{application}/{made.token}"


async def test_an_interaction_is_acknowledged_once_and_within_three_seconds(
    discord: DiscordDouble,
) -> None:
    callback, _ = await an_interaction(discord)
    late, _ = await an_interaction(discord)

    assert (await post(discord, callback, type=5))[0] == 200
    assert (await post(discord, callback, type=5))[1]["code"] == 40060
    discord.clock.advance(seconds=3.1)
    assert (await post(discord, late, type=5))[1]["code"] == 10062


async def test_a_token_lives_from_the_first_answer_for_fifteen_minutes(
    discord: DiscordDouble,
) -> None:
    callback, webhook = await an_interaction(discord)

    assert (await post(discord, webhook, content="early"))[1]["code"] == 10015
    await post(discord, callback, type=4, data={"content": "first"})
    assert (await post(discord, webhook, content="more"))[0] == 200
    discord.clock.advance(minutes=15)
    assert (await post(discord, webhook, content="late"))[1]["code"] == 50027


async def test_right_after_thinking_a_follow_up_is_the_answer(discord: DiscordDouble) -> None:
    callback, webhook = await an_interaction(discord)
    await post(discord, callback, type=5)

    _, message = await post(discord, webhook, content="words", flags=64)

    assert len(discord.world.messages) == 1
    assert not discord.world.message(int(message["id"])).ephemeral


async def test_a_nonce_brings_the_earlier_message_for_a_few_minutes(
    discord: DiscordDouble,
) -> None:
    path = f"/channels/{discord.guild.channel_id}/messages"
    body = {"content": "x", "nonce": "n", "enforce_nonce": True}

    _, first = await post(discord, path, **body)
    _, second = await post(discord, path, **body)
    discord.clock.advance(minutes=6)
    _, third = await post(discord, path, **body)

    assert first["id"] == second["id"] != third["id"]


async def test_a_wrong_token_opens_nothing(discord: DiscordDouble) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{discord.api_url}/users/@me", headers={"Authorization": "Bot x"}) as answer,
    ):
        assert answer.status == 401


async def test_what_somebody_types_reaches_the_bot_and_back(
    tmp_path: Path, discord: DiscordDouble
) -> None:
    told: list[str] = []
    async with running_bot(tmp_path, discord):
        console = Console(discord, tmp_path / "received", told.append)
        watching = asyncio.create_task(console.watch())

        await console.do("/imagine a red circle seed=7 steps=2")
        await discord.until(lambda: any("[Again]" in text for text in told))
        await console.do("press 1 Delete")
        await discord.until(lambda: "[1] deleted" in told)
        await console.do("/mode switch other")
        await discord.until(lambda: any("now draws with" in text for text in told))
        await console.do("press 9 Again")
        await console.do("/nothing")
        watching.cancel()

    assert any("a red circle" in text and "seed 7" in text for text in told)
    assert "[1] (only you see this)" not in "".join(told)
    assert [text for text in told if "type help" in text]
    assert len(list((tmp_path / "received").iterdir())) == 1


async def test_what_is_recorded_says_all_of_a_request_but_its_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "requests.jsonl"
    monkeypatch.setattr(DiscordDouble, "recording", Recording(file))
    DiscordDouble.recording.begin()
    async with DiscordDouble.running() as discord, running_bot(tmp_path, discord) as bot:
        drawn = await bot.imagine()
        message = await discord.picture(drawn)
        await discord.private_word(await discord.click(message, "Details"))
        await discord.say(f"<@{discord.world.bot.id}> a star")
        await bot.app.outbox.rest()

    text = file.read_text(encoding="utf-8")
    secrets = [discord.token, *discord.world.interactions]
    assert not [secret for secret in secrets if secret in text]
    requests = [json.loads(line) for line in text.splitlines()]
    assert len(requests) == len(discord.calls)
    assert isinstance(next(r for r in requests if r["route"].endswith("/commands"))["body"], list)
    result = next(r for r in requests if r["files"])
    assert result["method"] == "PATCH"
    assert result["route"] == "/webhooks/{application}/{token}/messages/@original"
    application = discord.world.application_id
    assert result["path"] == f"/webhooks/{application}/***/messages/@original"
    (uploaded,) = result["files"]
    (attachment,) = message.attachments
    assert uploaded == {
        "field": "files[0]",
        "name": attachment.filename,
        "type": "application/octet-stream",
        "bytes": len(attachment.content),
    }
    assert "a red circle" in result["body"]["content"]
    assert result["headers"]["Content-Type"].startswith("multipart/form-data")
    assert {r["headers"].get("Authorization") for r in requests} == {None, "Bot ***"}


async def test_it_runs_by_hand(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.discord_double", "--record-requests", str(tmp_path / "requests")),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parent.parent,
    )
    output, _ = await process.communicate(b"help\nquit\n")

    assert process.returncode == 0
    assert b"DISCORD_API_URL=http://127.0.0.1:" in output
    assert b"DISCORD_GATEWAY_URL=ws://127.0.0.1:" in output
    assert (tmp_path / "requests").read_text(encoding="utf-8") == ""
