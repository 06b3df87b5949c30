"""Pictures to start from, and LoRAs, over HTTP."""

import base64
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bot.source_images import MAX_BYTES
from bot.web.access import YOU
from tests.web_kit import MODES, Page, open_page

STYLED = MODES.replace(
    "  other:\n", '    loras_allowed: "*"\n    max_loras: 2\n    max_lora_strength: 1.5\n  other:\n'
)


@pytest.fixture
async def page(tmp_path: Path) -> AsyncIterator[Page]:
    """A page whose first mode takes LoRAs."""
    (tmp_path / "loras").mkdir()
    for name in ("soft light", "ink"):
        (tmp_path / "loras" / f"{name}.safetensors").touch()
    async with open_page(tmp_path, modes=STYLED) as opened:
        yield opened


def picture(size: tuple[int, int] = (40, 80)) -> str:
    file = io.BytesIO()
    Image.new("RGB", size, "orange").save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


async def test_a_picture_comes_back_drawn_over(page: Page) -> None:
    job = await page.finished(image=picture(), strength=0.5)

    assert (job["status"], job["request"]["strength"]) == ("done", 0.5)
    assert (job["request"]["width"], job["request"]["height"]) == (64, 88)
    (request,) = page.executor.requests
    assert request.source is not None
    with Image.open(request.source) as kept:
        assert kept.size == (40, 80)
    again = await page.client.post(f"/api/jobs/{job['id']}/again", json={})
    assert again.json()["request"]["strength"] == 0.5


async def test_the_mode_says_how_much_is_drawn_anew_unless_told(page: Page) -> None:
    mode = (await page.client.get("/api/modes")).json()["modes"][0]
    job = await page.finished(image=picture())
    plain = await page.finished()

    assert job["request"]["strength"] == mode["default_strength"]
    assert plain["request"]["strength"] is None


async def test_one_request_takes_a_picture_and_brings_one(page: Page) -> None:
    answer = await page.client.post("/generate", json={"prompt": "x", "image": picture((64, 64))})

    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    assert page.executor.requests[0].source is not None


async def test_loras_are_offered_and_laid_over_the_model(page: Page) -> None:
    mode = (await page.client.get("/api/modes")).json()["modes"][0]
    job = await page.finished(loras=[{"name": "ink", "strength": 0.5}, {"name": "soft light"}])

    assert mode["loras"] == ["ink", "soft light"]
    assert (mode["max_loras"], mode["max_lora_strength"]) == (2, 1.5)
    (request,) = page.executor.requests
    laid = [(lora.path.stem, lora.strength) for lora in request.model.loras]
    assert laid == [("ink", 0.5), ("soft light", 1.0)]
    assert job["request"]["prompt"] == "a red circle <lora:ink:0.5> <lora:soft light:1>"


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"image": "no base64!"}, "image", "base64 of a PNG"),
        ({"image": "é"}, "image", "base64 of a PNG"),
        ({"image": "data:image/png;base64,AAAA"}, "image", "base64 of a PNG"),
        ({"image": ""}, "image", "a PNG, JPEG, WebP or GIF picture"),
        ({"image": "AAAA"}, "image", "a PNG, JPEG, WebP or GIF picture"),
        ({"image": ["AAAA"]}, "image", "text"),
        ({"image": base64.b64encode(bytes(MAX_BYTES + 1)).decode()}, "image", "at most 20 MB"),
        ({"strength": 0.5}, "strength", "a picture to start from"),
        ({"image": picture(), "strength": 0}, "strength", "to 1 at 4 steps"),
        ({"image": picture(), "strength": "much"}, "strength", "a number from 0 to 1"),
        ({"loras": [{"name": "nope"}]}, "lora", "ink, soft light"),
        ({"loras": [{"name": "../../ink"}]}, "lora", "ink, soft light"),
        ({"loras": [{"name": "ink", "strength": 2}]}, "lora", "-1.5 to 1.5"),
        ({"loras": [{"name": "ink", "strength": "a"}]}, "lora", "-1.5 to 1.5"),
        ({"loras": [{"name": "ink"}], "mode": "other"}, "lora", "none in this mode"),
        ({"loras": ["ink"]}, "loras", "object"),
        ({"loras": "ink"}, "loras", "list"),
        ({"loras": [{"name": "ink", "path": "/etc"}]}, "body", "openapi.json"),
    ],
)
async def test_what_is_not_allowed_is_told_and_leaves_nothing(
    page: Page, tmp_path: Path, fields: dict[str, Any], field: str, words: str
) -> None:
    answer = await page.client.post("/api/jobs", json={"prompt": "x", **fields})

    assert (answer.status_code, answer.json()["field"]) == (422, field), answer.text
    assert words in answer.json()["detail"] + answer.json()["allowed"]
    assert len(answer.content) < 1000
    assert await page.studio.history(YOU.id) == []
    assert not list((tmp_path / "images").rglob("*.png"))
