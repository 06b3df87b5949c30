"""OpenAI's own client, unmodified, draws with the page."""

import asyncio
import base64
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from PIL import Image

from engine.errors import DreamLabError
from engine.testing import FakeExecutor
from tests.page_kit import is_red, open_real_page
from tests.web_kit import PATIENCE, Page, open_page

ADMIN, ADA, VIEWER = "admin-0123456789abcdef", "artist-ada-0123456789", "viewer-0123456789abcd"


@pytest.fixture
async def page(tmp_path: Path) -> AsyncIterator[Page]:
    tokens: dict[str, Any] = {
        "web_token": ADMIN,
        "web_artist_token": (ADA,),
        "web_viewer_token": (VIEWER,),
    }
    async with open_page(tmp_path, **tokens) as opened:
        yield opened


@asynccontextmanager
async def client_of(page: Page, token: str = ADA) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        api_key=token, base_url=f"{page.url}/v1", max_retries=0, timeout=PATIENCE
    ) as client:
        yield client


def size_of(encoded: str | None) -> tuple[int, int]:
    assert encoded is not None
    with Image.open(io.BytesIO(base64.b64decode(encoded))) as picture:
        return picture.size


async def test_it_draws_and_gets_the_pictures_themselves(page: Page) -> None:
    async with client_of(page) as client:
        answer = await client.images.generate(
            prompt="a red circle", model="small", n=2, size="64x128", response_format="b64_json"
        )
    assert [size_of(picture.b64_json) for picture in answer.data or []] == [(64, 128)] * 2
    assert all(picture.url is None for picture in answer.data or [])
    assert answer.created > 1_700_000_000


async def test_it_gets_what_the_model_draws(tmp_path: Path) -> None:
    async with (
        open_real_page(tmp_path, web_token=ADMIN) as url,
        openai.AsyncOpenAI(api_key=ADMIN, base_url=f"{url}/v1", max_retries=0) as client,
    ):
        answer = await client.images.generate(
            prompt="a red circle on a white background",
            model="demo",
            response_format="b64_json",
            extra_body={"seed": 7, "steps": 8},
        )
    (drawn,) = answer.data or []
    with Image.open(io.BytesIO(base64.b64decode(drawn.b64_json or ""))) as picture:
        assert is_red(picture.getpixel((64, 64)))
        assert not is_red(picture.getpixel((4, 4)))
        assert "Model: dream-demo" in picture.info["parameters"]


async def test_it_gets_addresses_that_open_with_its_token_alone(page: Page) -> None:
    async with client_of(page) as client:
        answer = await client.images.generate(prompt="x", response_format="url")
    assert answer.data
    url = answer.data[0].url or ""
    assert url.startswith(f"{page.url}/api/images/")
    assert answer.data[0].b64_json is None
    for token, status in ((ADA, 200), (ADMIN, 404), ("wrong", 401)):
        got = await page.client.get(url, headers={"Authorization": f"Bearer {token}"})
        assert got.status_code == status


async def test_what_it_leaves_out_is_the_modes_and_hints_are_taken(page: Page) -> None:
    async with client_of(page) as client:
        answer = await client.images.generate(
            prompt="x", size="auto", quality="hd", style="vivid", user="ada", extra_body={"seed": 7}
        )
    assert answer.data
    assert answer.data[0].url
    assert size_of(answer.data[0].b64_json) == (64, 64)
    assert page.executor.requests[-1].seed == 7


async def test_it_lists_the_modes(page: Page) -> None:
    async with client_of(page, VIEWER) as client:
        assert [model.id async for model in client.models.list()] == ["small", "other"]


async def test_a_refusal_is_its_own_kind_of_error_with_our_sentence(page: Page) -> None:
    bad: list[tuple[dict[str, Any], str]] = [
        ({"model": "dall-e-3"}, "model"),
        ({"size": "63x64"}, "size"),
        ({"n": 99}, "n"),
        ({"extra_body": {"steps": 0}}, "steps"),
        ({"extra_body": {"steps": [1]}}, "steps"),
        ({"response_format": "jpeg"}, "response_format"),
        ({"extra_body": {"stream": True}}, "stream"),
    ]
    async with client_of(page) as client:
        for fields, param in bad:
            with pytest.raises(openai.UnprocessableEntityError) as caught:
                await client.images.generate(prompt="x", **fields)
            assert caught.value.param == param
            assert caught.value.type == "invalid_request_error"
            assert "Allowed: " in caught.value.message


async def test_a_wrong_token_and_a_wrong_role_are_told_as_such(page: Page) -> None:
    async with client_of(page, "wrong") as client:
        with pytest.raises(openai.AuthenticationError, match="none of this page's"):
            await client.images.generate(prompt="x")
    async with client_of(page, VIEWER) as client:
        with pytest.raises(openai.PermissionDeniedError, match="this is for artists"):
            await client.images.generate(prompt="x")


async def test_a_drawing_that_fails_says_why(tmp_path: Path) -> None:
    executor = FakeExecutor(hold=True)
    async with open_page(tmp_path, executor) as page, client_of(page) as client:
        drawing = asyncio.create_task(client.images.generate(prompt="x"))
        await executor.until(lambda: bool(executor.running))
        executor.fail(executor.running[0], DreamLabError("The paint is dry."))
        with pytest.raises(openai.InternalServerError, match=r"The paint is dry\.") as caught:
            await drawing
    assert caught.value.type == "server_error"
