"""The gallery over HTTP: what is found, page by page, small, and as a family; nobody else's."""

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from bot.members import Members
from bot.records import JobRecord, Search
from bot.store import Store
from bot.web.thumbnails import SIDE, Thumbnails
from tests.web_kit import Page, open_page

ADMIN, ADA, VIEWER = "a" * 16, "ada-" + "0" * 16, "v" * 16


@pytest.fixture
async def page(tmp_path: Path) -> AsyncIterator[Page]:
    async with open_page(tmp_path) as opened:
        yield opened


async def found(page: Page, **query: Any) -> dict[str, Any]:
    answer = await page.client.get("/api/gallery", params=query)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def prompts(page: Page, **query: Any) -> list[str]:
    return [job["request"]["prompt"] for job in (await found(page, **query))["jobs"]]


async def test_words_are_found_in_any_order_and_in_capitals_or_not(page: Page) -> None:
    for prompt in ("a red FOX", "ein großer Fuchs", "красная ЛИСА", "a fox, 100% red_ish"):
        await page.finished(prompt)
    assert await prompts(page, q="fox red") == ["a fox, 100% red_ish", "a red FOX"]
    assert await prompts(page, q="GROSSER") == ["ein großer Fuchs"]
    assert await prompts(page, q="лиса") == ["красная ЛИСА"]
    assert await prompts(page, q="wolf") == []
    # What means something to a database is a letter like any other.
    assert await prompts(page, q="0%") == ["a fox, 100% red_ish"]
    assert await prompts(page, q="d_i") == ["a fox, 100% red_ish"]
    assert await prompts(page, q="' OR 1=1 --") == []
    assert len(await prompts(page, q="  ")) == 4


async def test_what_was_typed_is_searched_rather_than_what_a_mode_adds(
    page: Page, tmp_path: Path
) -> None:
    text = page.catalog.path.read_text()
    page.catalog.path.write_text(
        text.replace("title: Small", "title: Small\n    prompt_suffix: ink")
    )
    assert await page.catalog.reload()
    await page.finished("a fox")
    assert await prompts(page, q="fox") == ["a fox"]
    assert await prompts(page, q="ink") == []


async def test_a_mode_is_found_also_after_it_has_left_the_file(page: Page) -> None:
    await page.finished("small one")
    await page.finished("other one", mode="other")
    assert await prompts(page, mode="other") == ["other one"]
    assert await prompts(page, mode="other", q="small") == []
    assert (await page.client.delete("/api/modes/other")).status_code == 204
    assert (await found(page))["modes"] == ["other", "small"]
    assert await prompts(page, mode="other") == ["other one"]


async def test_pages_lead_there_and_back(page: Page) -> None:
    names = [f"fox {number}" for number in range(5)]
    for name in names:
        await page.finished(name)
    await page.finished("wolf")
    first = await found(page, q="fox", limit=2)
    assert [job["request"]["prompt"] for job in first["jobs"]] == ["fox 4", "fox 3"]
    assert (first["has_newer"], first["has_older"]) == (False, True)
    second = await found(page, q="fox", limit=2, before=first["jobs"][-1]["id"])
    assert [job["request"]["prompt"] for job in second["jobs"]] == ["fox 2", "fox 1"]
    assert (second["has_newer"], second["has_older"]) == (True, True)
    last = await found(page, q="fox", limit=2, before=second["jobs"][-1]["id"])
    assert [job["request"]["prompt"] for job in last["jobs"]] == ["fox 0"]
    assert last["has_older"] is False
    back = await found(page, q="fox", limit=2, after=last["jobs"][0]["id"])
    assert back["jobs"] == second["jobs"]
    gone = await found(page, q="fox", limit=2, before="no such job")
    assert gone["jobs"] == first["jobs"]  # the newest page


async def test_a_word_that_is_said_again_is_looked_for_once(page: Page) -> None:
    await page.finished("a red fox")
    assert await prompts(page, q="fox Fox FOX " * 9) == ["a red fox"]
    assert await prompts(page, q="a b c d e f g h") == []


@pytest.mark.parametrize(
    "query",
    [{"limit": 0}, {"limit": 101}, {"limit": "many"}, {"q": "x" * 201}, {"q": "a b c d e f g h i"}],
)
async def test_what_can_not_be_looked_for_is_refused(page: Page, query: dict[str, Any]) -> None:
    assert (await page.client.get("/api/gallery", params=query)).status_code == 422


async def test_somebody_who_searches_again_and_again_takes_turns_with_everybody(
    tmp_path: Path,
) -> None:
    searching: list[str] = []
    together: set[tuple[str, ...]] = set()

    class Watched(Store):
        async def pictured(self, owner_id: str, *args: Any, **named: Any) -> list[JobRecord]:
            searching.append(owner_id)
            together.add(tuple(sorted(searching)))
            try:
                return await super().pictured(owner_id, *args, **named)
            finally:
                searching.remove(owner_id)

    async with await Watched.open(tmp_path / "dreamlab.db") as store:
        members, search = Members(store), Search(("fox",))
        asked = [members.page(who, search=search) for who in ("ada", "ada", "ada", "bob")]
        await asyncio.gather(*asked)

    assert ("ada", "bob") in together
    assert not any(who.count("ada") > 1 for who in together)


async def test_failed_and_deleted_requests_are_no_pictures(page: Page) -> None:
    job = await page.finished("a fox")
    await page.client.delete(f"/api/jobs/{job['id']}")
    page.executor.hold = True
    await page.submit("waiting")
    answer = await found(page)
    assert (answer["jobs"], answer["modes"]) == ([], [])


async def test_a_picture_comes_small_and_may_be_kept(page: Page) -> None:
    job = await page.finished("a fox", mode="other")  # 512x512
    answer = await page.client.get(f"{job['images'][0]['url']}/small")
    assert answer.headers["content-type"] == "image/webp"
    assert "immutable" in answer.headers["cache-control"]
    with Image.open(io.BytesIO(answer.content)) as picture:
        assert picture.size == (SIDE, SIDE)
    assert (await page.client.get("/api/images/nope/small")).status_code == 404


async def test_a_picture_whose_file_is_gone_is_not_found(page: Page, tmp_path: Path) -> None:
    job = await page.finished("a fox")
    for file in (tmp_path / "images").rglob("*.png"):
        file.unlink()
    assert (await page.client.get(f"{job['images'][0]['url']}/small")).status_code == 404


async def test_small_pictures_keep_their_aspect(tmp_path: Path) -> None:
    Image.new("RGBA", (1600, 400)).save(tmp_path / "wide.png")
    content = await Thumbnails().of(tmp_path / "wide.png")
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.size == (SIDE, SIDE // 4)


async def test_a_family_is_told_from_the_eldest_down_whoever_is_asked(page: Page) -> None:
    eldest = await page.finished("a fox")
    child = (await page.client.post(f"{eldest['images'][0]['url']}/vary", json={})).json()
    await ended(page, child["id"])
    child = (await page.client.get(f"/api/jobs/{child['id']}")).json()
    answer = await page.client.post(f"{child['images'][0]['url']}/upscale", json={})
    await ended(page, answer.json()["id"])
    changed = await page.finished("a red fox", made_of=eldest["id"])
    for job in (eldest, child, changed):
        tree = (await page.client.get(f"/api/jobs/{job['id']}/family")).json()["family"]
        told = {member["id"]: (member["parent_id"], member["kinship"]) for member in tree}
        assert told == {
            eldest["id"]: (None, None),
            child["id"]: (eldest["id"], "vary"),
            answer.json()["id"]: (child["id"], "upscale"),
            changed["id"]: (eldest["id"], "edit"),
        }
        assert tree[0]["id"] == eldest["id"]


async def ended(page: Page, job_id: str) -> None:
    async with page.events(f"/api/jobs/{job_id}/events") as events:
        async for _ in events:
            pass


async def test_a_request_is_made_of_ones_own_alone(page: Page) -> None:
    answer = await page.client.post("/api/jobs", json={"prompt": "x", "made_of": "nope"})
    assert answer.status_code == 404


async def test_each_sees_their_own_alone(tmp_path: Path) -> None:
    tokens = {"web_token": ADMIN, "web_artist_token": (ADA,), "web_viewer_token": (VIEWER,)}
    async with open_page(tmp_path, **tokens) as page:
        page.client.headers["Authorization"] = f"Bearer {ADA}"
        job = await page.finished("ada's fox")
        image = job["images"][0]["url"]
        assert len((await found(page))["jobs"]) == 1
        page.client.headers["Authorization"] = f"Bearer {ADMIN}"
        assert await found(page) == {
            "jobs": [],
            "has_newer": False,
            "has_older": False,
            "modes": [],
        }
        foreign = [f"{image}/small", f"/api/jobs/{job['id']}/family"]
        assert [await status(page, path) for path in foreign] == [404, 404]
        answer = await page.client.post("/api/jobs", json={"prompt": "x", "made_of": job["id"]})
        assert answer.status_code == 404
        page.client.headers["Authorization"] = f"Bearer {VIEWER}"
        assert [await status(page, path) for path in (*foreign, "/api/gallery")] == [403] * 3


async def status(page: Page, path: str) -> int:
    return (await page.client.get(path)).status_code


async def test_many_small_pictures_at_once_all_come(page: Page) -> None:
    job = await page.finished("a fox", count=4)

    async def small(image: dict[str, Any]) -> httpx.Response:
        return await page.client.get(f"{image['url']}/small")

    answers = await asyncio.gather(*(small(image) for image in job["images"] * 6))
    assert {answer.status_code for answer in answers} == {200}
