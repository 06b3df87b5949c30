"""Sample pictures of modes: each sees their own, or what was chosen for all, and nothing else."""

import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bot.web.sample_routes import SIDE
from tests.web_kit import Page, open_page

ADMIN, ADA, BOB = "admin-0123456789abcdef", "artist-ada-0123456789", "artist-bob-0123456789"
VIEWER = "viewer-0123456789abcd"
TOKENS: dict[str, Any] = {
    "web_token": ADMIN,
    "web_artist_token": (ADA, BOB),
    "web_viewer_token": (VIEWER,),
}


@pytest.fixture
async def page(tmp_path: Path) -> AsyncIterator[Page]:
    async with open_page(tmp_path, **TOKENS) as opened:
        yield opened


def come_as(page: Page, token: str) -> None:
    page.client.headers["Authorization"] = f"Bearer {token}"


async def samples(page: Page) -> dict[str, str | None]:
    """Returns what is shown beside each mode."""
    modes = (await page.client.get("/api/modes")).json()["modes"]
    return {mode["name"]: mode["sample"] for mode in modes}


def address(job: dict[str, Any], number: int = 0) -> str:
    return f"/api/samples/{job['images'][number]['id']}"


async def status(page: Page, path: str) -> int:
    return (await page.client.get(path)).status_code


async def test_nothing_is_shown_and_nothing_drawn_before_somebody_draws(page: Page) -> None:
    come_as(page, ADMIN)
    assert await samples(page) == {"small": None, "other": None}
    assert page.executor.requests == []


async def test_each_sees_their_own_newest_picture_of_a_mode_and_nobody_elses(page: Page) -> None:
    come_as(page, ADA)
    await page.finished("first")
    newest = await page.finished("second", count=2)
    other = await page.finished("third", mode="other")
    shown = {"small": address(newest), "other": address(other)}
    assert await samples(page) == shown
    for token in (BOB, ADMIN):
        come_as(page, token)
        assert await samples(page) == {"small": None, "other": None}
        assert [await status(page, path) for path in shown.values()] == [404, 404]
    come_as(page, VIEWER)
    assert await samples(page) == {"small": None, "other": None}
    assert await status(page, shown["small"]) == 403


async def test_a_sample_is_small_and_kept_by_browsers(page: Page) -> None:
    come_as(page, ADA)
    job = await page.finished("a fox", size="128x64")
    answer = await page.client.get(address(job))
    assert answer.headers["content-type"] == "image/webp"
    assert answer.headers["cache-control"].startswith("private")
    assert "immutable" in answer.headers["cache-control"]
    with Image.open(io.BytesIO(answer.content)) as picture:
        assert max(picture.size) <= SIDE
    assert await status(page, "/api/samples/nope") == 404


async def test_what_the_owner_chooses_is_shown_to_all_who_draw_until_it_is_taken_back(
    page: Page,
) -> None:
    come_as(page, ADA)
    own = await page.finished("ada's")
    come_as(page, ADMIN)
    chosen = await page.finished("the owner's", count=2)
    image = chosen["images"][1]["id"]
    answer = await page.client.put(f"/api/images/{image}/sample", json={})
    assert answer.status_code == 204
    for token in (ADA, BOB, ADMIN):
        come_as(page, token)
        assert await samples(page) == {"small": address(chosen, 1), "other": None}
        assert await status(page, address(chosen, 1)) == 200
    come_as(page, BOB)
    # It alone, and only small: neither the picture beside it nor the file with its parameters.
    assert await status(page, address(chosen, 0)) == 404
    assert await status(page, f"/api/images/{image}") == 404
    come_as(page, VIEWER)
    assert (await samples(page))["small"] is None

    come_as(page, ADMIN)
    assert (await page.client.delete(f"/api/images/{image}/sample")).status_code == 204
    come_as(page, ADA)
    assert (await samples(page))["small"] == address(own)
    assert await status(page, address(chosen, 1)) == 404


async def test_nobody_but_the_owner_chooses_and_they_only_pictures_of_their_own(
    page: Page,
) -> None:
    come_as(page, ADA)
    job = await page.finished("ada's")
    path = f"/api/images/{job['images'][0]['id']}/sample"
    assert (await page.client.put(path, json={})).status_code == 403
    assert (await page.client.delete(path)).status_code == 403
    come_as(page, ADMIN)
    assert (await page.client.put(path, json={})).status_code == 404
    assert (await page.client.delete(path)).status_code == 404
    come_as(page, BOB)
    assert (await samples(page))["small"] is None


async def test_a_deleted_picture_is_nobodys_sample(page: Page) -> None:
    come_as(page, ADMIN)
    for _ in range(2):  # a later choice takes the place of an earlier one
        job = await page.finished("the owner's")
        await page.client.put(f"/api/images/{job['images'][0]['id']}/sample", json={})
    assert (await samples(page))["small"] == address(job)
    await page.client.delete(f"/api/jobs/{job['id']}")
    come_as(page, BOB)
    assert (await samples(page))["small"] is None
    assert await status(page, address(job)) == 404
