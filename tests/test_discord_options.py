"""What ``/imagine`` takes beyond words: samplers, LoRAs, a picture; and what it suggests."""

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bot.asking import FETCHED_AT_ONCE
from bot.records import Owner
from bot.source_images import MAX_BYTES
from engine.jobs import Sampler
from tests.discord_double import DiscordDouble
from tests.discord_kit import MODES, Bot, running_bot, unescaped

pytest_plugins = ["tests.discord_kit"]

STYLED = MODES.replace(
    "  other:\n",
    '    loras_allowed: "*"\n    samplers: [DDIM, Euler a]\n    default_sampler: DDIM\n  other:\n',
)


def picture(size: tuple[int, int] = (40, 80), kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, "orange").save(file, kind)
    return file.getvalue()


@pytest.fixture
async def styled(tmp_path: Path, discord: DiscordDouble) -> AsyncIterator[Bot]:
    """A bot whose first mode has LoRAs and two samplers."""
    (tmp_path / "loras").mkdir()
    for name in ("soft light", "pixel-art", "ink"):
        (tmp_path / "loras" / f"{name}.safetensors").touch()
    async with running_bot(tmp_path, discord, modes=STYLED) as bot:
        yield bot


async def refusal(bot: Bot, **values: Any) -> str:
    """Returns what somebody is told in private of a request that is refused."""
    word = await bot.discord.private_word(await bot.imagine(values=values))
    assert not bot.executor.requests
    return unescaped(word.content)


async def test_a_sampler_and_loras_reach_the_drawing(styled: Bot) -> None:
    values = {"sampler": "ddim", "lora": "soft light:0.8, Ink"}

    message = await styled.discord.picture(await styled.imagine("a fox", values=values))

    (request,) = styled.executor.requests
    assert (request.prompt, request.sampler) == ("a fox", Sampler.DDIM)
    laid = [(lora.path.stem, lora.strength) for lora in request.model.loras]
    assert laid == [("soft light", 0.8), ("ink", 1.0)]
    assert "<lora:soft light:0.8>" in unescaped(message.content)


async def test_again_keeps_sampler_and_loras(styled: Bot) -> None:
    values = {"sampler": "DDIM", "lora": "ink:0.5"}
    message = await styled.discord.picture(await styled.imagine(values=values))

    await styled.discord.picture(await styled.discord.click(message, "Again"))

    first, second = styled.executor.requests
    assert (second.sampler, second.model, second.prompt) == (
        first.sampler,
        first.model,
        first.prompt,
    )


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"sampler": "Heun"}, "sampler: 'Heun' is not allowed. Allowed: DDIM, Euler a."),
        ({"sampler": "*" * 50}, "Allowed: DDIM, Euler a."),
        ({"lora": "nope"}, "lora: 'nope' is not allowed. Allowed: ink, pixel-art, soft light."),
        ({"lora": "../../ink"}, "Allowed: ink, pixel-art, soft light."),
        ({"lora": "ink:strong"}, "Allowed: name or name:0.8, several with commas between them."),
        ({"lora": "ink:99"}, "a strength from -2 to 2"),
        ({"lora": "<lora:ink:1>"}, "Allowed: name or name:0.8"),
        ({"lora": "ink", "mode": "other"}, "none in this mode"),
        ({"strength": 0.5}, "strength: '0.5' is not allowed. Allowed: one beside a picture"),
    ],
)
async def test_what_is_not_allowed_is_told_in_private(
    styled: Bot, values: dict[str, Any], words: str
) -> None:
    assert words in await refusal(styled, **values)


async def test_a_picture_to_start_from_reaches_the_drawing(bot: Bot) -> None:
    image = bot.discord.attach("photo of me.png", picture())
    values = {"image": image, "strength": 0.5}

    message = await bot.discord.picture(await bot.imagine("a fox", values=values))

    (request,) = bot.executor.requests
    assert request.strength == 0.5
    assert (request.width, request.height) == (64, 128)
    assert request.source is not None
    with Image.open(request.source) as kept:
        assert (kept.size, kept.getpixel((0, 0))) == ((40, 80), (255, 165, 0))
    assert "from a picture, strength 0.5" in message.content


async def test_again_starts_from_the_same_picture(bot: Bot) -> None:
    image = bot.discord.attach("a.png", picture())
    message = await bot.discord.picture(await bot.imagine(values={"image": image}))

    await bot.discord.picture(await bot.discord.click(message, "Again"))

    first, second = bot.executor.requests
    assert (second.source, second.strength) == (first.source, first.strength)
    assert len(bot.discord.calls_to("cdn")) == 1


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<svg/>",
        picture()[:50],
        b"\x00" * 1000,
        picture(kind="BMP"),
        b"GIF89a" + b"\xff" * 100,
    ],
)
async def test_a_file_that_is_no_picture_is_refused_in_private(bot: Bot, content: bytes) -> None:
    image = bot.discord.attach("photo.png", content)

    told = await refusal(bot, image=image)

    assert told.startswith("image: ")
    assert "Allowed: a PNG, JPEG, WebP or GIF picture" in told


async def test_a_file_that_is_too_large_is_refused_whatever_discord_says_of_it(bot: Bot) -> None:
    image = bot.discord.attach("photo.png", picture() + bytes(MAX_BYTES))
    image.claimed = 100

    assert "image: 'a file of more than 20 MB' is not allowed" in await refusal(bot, image=image)


@pytest.mark.parametrize("status", [403, 404, 500])
async def test_a_file_that_discord_does_not_give_is_told(bot: Bot, status: int) -> None:
    bot.discord.fail("cdn", status=status)
    image = bot.discord.attach("photo.png", picture())

    assert await refusal(bot, image=image) == (
        "The file could not be fetched. Please send it again."
    )
    await bot.discord.picture(await bot.imagine())  # it lives on


async def test_a_file_that_takes_long_is_acknowledged_first(bot: Bot) -> None:
    gate = asyncio.Event()
    bot.discord.fail("cdn", until=gate)
    asked = await bot.imagine(values={"image": bot.discord.attach("a.png", picture())})

    await bot.discord.until(lambda: asked.acknowledged == 5)
    gate.set()

    await bot.discord.picture(asked)
    assert bot.executor.requests[0].source is not None


async def test_pictures_to_start_from_are_fetched_a_few_at_once(bot: Bot) -> None:
    gate = asyncio.Event()
    fault = bot.discord.fail("cdn", until=gate)
    image = bot.discord.attach("a.png", picture())
    asked = [await bot.imagine(values={"image": image}) for _ in range(FETCHED_AT_ONCE + 2)]

    await bot.discord.until(lambda: all(one.acknowledged == 5 for one in asked))
    await bot.discord.until(lambda: fault.met >= FETCHED_AT_ONCE)
    fetched = fault.met
    gate.set()
    for one in asked:
        await bot.discord.picture(one)

    assert fetched == FETCHED_AT_ONCE


async def test_nothing_is_fetched_for_a_blocked_member(bot: Bot) -> None:
    place = f"discord:{bot.discord.guild.id}"
    member = Owner(f"discord:{bot.discord.user.id}", "ada")
    await bot.app.studio.house.block(place, member, "spam", Owner("discord:9", "mod"))

    told = await refusal(bot, image=bot.discord.attach("a.png", picture()))

    assert "has blocked you from drawing in this server: spam" in told
    assert bot.discord.calls_to("cdn") == []


async def test_samplers_and_loras_are_suggested_as_the_mode_allows(styled: Bot) -> None:
    discord = styled.discord

    samplers = await discord.complete("imagine", "sampler", "")
    typed = await discord.complete("imagine", "sampler", "eul")
    elsewhere = await discord.complete("imagine", "sampler", "", {"mode": "other"})
    loras = await discord.complete("imagine", "lora", "")
    second = await discord.complete("imagine", "lora", "ink:0.5, pix")
    none = await discord.complete("imagine", "lora", "", {"mode": "other"})

    assert [choice["value"] for choice in samplers] == ["DDIM", "Euler a"]
    assert [choice["value"] for choice in typed] == ["Euler a"]
    assert len(elsewhere) == len(Sampler)
    assert [choice["value"] for choice in loras] == ["ink", "pixel-art", "soft light"]
    assert [choice["value"] for choice in second] == ["ink:0.5, pixel-art"]
    assert none == []


@pytest.mark.parametrize("option", ["mode", "size", "sampler", "lora"])
@pytest.mark.parametrize("typed", ["\x00", "*" * 500, "@everyone", "((", "\\", "zzzz"])
async def test_odd_letters_suggest_nothing_and_break_nothing(
    bot: Bot, option: str, typed: str
) -> None:
    assert await bot.discord.complete("imagine", option, typed) == []
    assert await bot.discord.complete("imagine", option, "", {"mode": "\ufeff"}) is not None


async def test_a_store_that_fails_suggests_nothing(
    bot: Bot, caplog: pytest.LogCaptureFixture
) -> None:
    await bot.app.store.close()

    assert await bot.discord.complete("imagine", "size", "") == []
    assert "Nothing could be suggested" in caplog.text
