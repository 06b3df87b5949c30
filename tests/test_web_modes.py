"""Modes over HTTP: every edit is checked, whole, and in force; nothing else of the disk is told."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bot.web.guard import MAX_MODES_FILE
from bot.web.mode_edits import is_below
from modes.modes_file import load_modes
from tests.web_kit import MODES, Page, open_page

YAML = {"Content-Type": "application/yaml"}
THIRD = {"model": "small.safetensors", "title": "Third", "default_size": "64x96", "min_size": 64}


@pytest.fixture
async def page(tmp_path: Path) -> AsyncIterator[Page]:
    async with open_page(tmp_path) as opened:
        yield opened


def text_of(page: Page) -> str:
    return page.catalog.path.read_text(encoding="utf-8")


def whole(page: Page, **more: Any) -> dict[str, Any]:
    """Returns a whole file as JSON has it."""
    modes = {"small": {"model": "small.safetensors", "default_size": "64x64", "min_size": 64}}
    root = str(page.catalog.model_root)
    return {"model_root": root, "default_mode": "small", "modes": modes, **more}


async def names(page: Page) -> list[str]:
    return [mode["name"] for mode in (await page.client.get("/api/modes")).json()["modes"]]


async def test_a_new_mode_is_in_the_file_and_drawn_with_at_once(page: Page) -> None:
    before = text_of(page)

    answer = await page.client.post("/api/modes/third", json=THIRD)

    assert (answer.status_code, answer.json()["title"]) == (201, "Third")
    assert text_of(page).startswith(before.rstrip("\n"))
    assert await names(page) == ["small", "other", "third"]
    job = await page.finished(mode="third")
    assert (job["status"], job["request"]["height"]) == ("done", 96)


async def test_a_mode_that_is_there_is_replaced_and_its_neighbours_keep_every_letter(
    page: Page,
) -> None:
    page.catalog.path.write_text(text_of(page) + "# The owner's note.\n", encoding="utf-8")

    answer = await page.client.post(
        "/api/modes/other", json={"model": "other.safetensors", "max_count": 2}
    )

    assert (answer.status_code, answer.json()["max_count"]) == (200, 2)
    assert "# The owner's note." in text_of(page)
    assert load_modes(page.catalog.path).modes["small"] == page.catalog.get("small")


async def test_a_removed_mode_is_gone_and_the_default_one_stays(page: Page) -> None:
    removed = await page.client.delete("/api/modes/other")
    again = await page.client.delete("/api/modes/other")
    default = await page.client.delete("/api/modes/small")

    assert (removed.status_code, removed.content) == (204, b"")
    assert (again.status_code, again.json()["title"]) == (404, "Not Found")
    assert default.status_code == 409
    assert default.json()["detail"].startswith("small is the default mode and can't be removed")
    assert await names(page) == ["small"]


async def test_a_whole_file_as_yaml_is_kept_to_the_letter(page: Page) -> None:
    text = MODES.format(root=page.catalog.model_root).replace("title: Small", "title: Tiny # ours")

    answer = await page.client.put("/api/modes", content=text.encode(), headers=YAML)

    assert answer.status_code == 200
    assert answer.json()["modes"][0]["title"] == "Tiny"
    assert text_of(page) == text


@pytest.mark.parametrize("kind", ["Application/YAML", "APPLICATION/YAML; charset=utf-8"])
async def test_yaml_is_known_in_capitals_too(page: Page, kind: str) -> None:
    text = MODES.format(root=page.catalog.model_root).replace("title: Small", "title: Tiny # ours")

    headers = {"Content-Type": kind}
    answer = await page.client.put("/api/modes", content=text.encode(), headers=headers)

    assert answer.status_code == 200, answer.text
    assert text_of(page) == text


async def test_a_whole_file_as_json_can_be_edited_afterwards(page: Page) -> None:
    answer = await page.client.put("/api/modes", json=whole(page))
    added = await page.client.post("/api/modes/third", json=THIRD)

    assert (answer.status_code, added.status_code) == (200, 201)
    assert await names(page) == ["small", "third"]
    assert not page.catalog.problems


async def test_where_there_is_no_file_yet_one_is_made(page: Page) -> None:
    page.catalog.path.unlink()

    answer = await page.client.put("/api/modes", json=whole(page))

    assert answer.status_code == 200
    assert load_modes(page.catalog.path).default_mode == "small"


BROKEN = [
    (b"", "empty"),
    (b"modes: [", "not YAML"),
    (b"\tmodes: 1", "not YAML"),
    (b"\xff\xfe\x00", "UTF-8"),
    (b"- a\n- b\n", "keys with values"),
    (b"modes: {a: {model: x, stepz: 3}}\nmodel_root: ROOT\n", "unknown key"),
    (b"model_root: ROOT\nmodes: {}\n", "1 to 200 modes"),
    (b"model_root: ROOT\nmodes: &a {b: *a}\n", "aliases"),
    (b"model_root: !!python/object:os.system x\n", "tags"),
    (b"model_root: ROOT\nmodes: {'../a': {model: x}}\n", "not allowed as a name"),
    (b"modes: {a: {model: x}}\nmodel_root: /etc\n", "change it in the file itself"),
    (b"modes: {a: {model: x}}\nmodel_root: ROOT\nlora_root: /etc\n", "in the file itself"),
    (b"modes: {a: {model: x, loras: [../../b]}}\nmodel_root: ROOT\n", "a path below model_root"),
    (b"[" * 20_000, "nested"),
]


@pytest.mark.parametrize(("content", "words"), BROKEN)
async def test_a_bad_file_is_refused_and_the_last_good_one_stays(
    page: Page, content: bytes, words: str
) -> None:
    before = text_of(page)
    root = str(page.catalog.model_root).encode()

    answer = await page.client.put(
        "/api/modes", content=content.replace(b"ROOT", root), headers=YAML
    )

    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert any(words in problem["detail"] for problem in answer.json()["errors"]), answer.text
    assert text_of(page) == before
    assert await names(page) == ["small", "other"]


async def test_all_that_is_wrong_is_told_with_its_line(page: Page) -> None:
    text = MODES.format(root=page.catalog.model_root)
    text = text.replace("default_steps: 4", "default_steps: 0").replace("max_size: 128", "max: 1")

    answer = await page.client.put("/api/modes", content=text.encode(), headers=YAML)

    first, second = answer.json()["errors"]
    assert (first["key"], first["line"]) == ("modes.small.default_steps", 9)
    assert first["detail"].startswith("modes.yaml, line 9: modes.small.default_steps: '0' is not")
    assert second["line"] == 11
    assert answer.json()["detail"] == f"{first['detail']} (and 1 more)"


@pytest.mark.parametrize(
    "body",
    [
        {**THIRD, "stepz": 3},
        {**THIRD, "default_steps": "many"},
        {**THIRD, "model": None},
        {**THIRD, "model": "/etc/passwd"},
        {**THIRD, "model": "../../secret.safetensors"},
        {**THIRD, "model": "a/../../secret.safetensors"},
        {**THIRD, "model": "~/secret.safetensors"},
        {**THIRD, "model": "C:\\secret.safetensors"},
        {**THIRD, "model": "..\\secret.safetensors"},
        {**THIRD, "model": " /etc/passwd"},
        {**THIRD, "loras": [{"path": "/etc/passwd"}]},
        {**THIRD, "vae": "/etc/passwd"},
        {**THIRD, "refiner": {"model": "../x"}},
        {**THIRD, "title": "two\nlines"},
        {**THIRD, "title": "half \ud800"},
        {**THIRD, "metadata": json.loads("[" * 40 + "]" * 40)},
        {},
    ],
)
async def test_a_mode_that_is_not_allowed_changes_nothing(page: Page, body: dict[str, Any]) -> None:
    before = text_of(page)

    answer = await page.client.post(
        "/api/modes/third",
        content=json.dumps(body),
        headers={"Content-Type": "application/json"},
    )

    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert str(page.catalog.path.parent) not in answer.text
    assert text_of(page) == before
    assert await names(page) == ["small", "other"]


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("..", 405),  # the client makes /api of it before it asks
        ("..%2f..%2fetc", 404),
        ("%2e%2e%2fmodes", 404),
        ("a%00b", 422),
        ("a b", 422),
        ("-a", 422),
        ("a" * 41, 422),
        ("%ff", 422),
        ("%0a", 422),
        ("x: {}", 422),
    ],
)
async def test_a_name_that_climbs_or_breaks_the_file_changes_nothing(
    page: Page, name: str, status: int
) -> None:
    before = text_of(page)

    answer = await page.client.post(f"/api/modes/{name}", json=THIRD)

    assert answer.status_code in (status, 404), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert text_of(page) == before
    assert set(page.catalog.path.parent.glob("*.yaml")) == {page.catalog.path}


async def test_a_path_that_the_owner_wrote_may_stay(page: Page, tmp_path: Path) -> None:
    elsewhere = str(tmp_path / "elsewhere" / "x.safetensors")
    text = text_of(page).replace("other.safetensors", elsewhere)
    page.catalog.path.write_text(text, encoding="utf-8")

    kept = await page.client.post("/api/modes/other", json={"model": elsewhere, "max_count": 2})
    another = await page.client.post("/api/modes/other", json={"model": elsewhere + "x"})

    assert (kept.status_code, another.status_code) == (200, 422)
    assert elsewhere not in kept.text


async def test_edits_at_the_same_time_all_arrive(page: Page) -> None:
    wanted = [f"m{number}" for number in range(12)]

    answers = await asyncio.gather(
        *(page.client.post(f"/api/modes/{name}", json=THIRD) for name in wanted),
        page.client.delete("/api/modes/other"),
    )

    assert {answer.status_code for answer in answers} == {201, 204}
    assert set(await names(page)) == {"small", *wanted}
    assert set(load_modes(page.catalog.path).modes) == {"small", *wanted}


async def test_a_file_that_another_hand_broke_is_told_and_can_be_replaced(page: Page) -> None:
    page.catalog.path.write_text("modes: [", encoding="utf-8")

    reloaded = await page.client.post("/api/modes/reload", json={})
    edited = await page.client.post("/api/modes/third", json=THIRD)
    listed = (await page.client.get("/api/modes")).json()

    assert (reloaded.status_code, edited.status_code) == (422, 422)
    assert listed["problems"][0].startswith("modes.yaml, line 2: not YAML")
    assert [mode["name"] for mode in listed["modes"]] == ["small", "other"]
    mended = await page.client.put("/api/modes", json=whole(page))
    assert (mended.status_code, mended.json()["problems"]) == (200, [])


async def test_reload_takes_what_the_file_says_now(page: Page) -> None:
    page.catalog.path.write_text(text_of(page).replace("title: Small", "title: Tiny"))

    answer = await page.client.post("/api/modes/reload", json={})

    assert answer.json()["modes"][0]["title"] == "Tiny"


async def test_a_body_beyond_any_modes_file_is_refused_announced_or_not(page: Page) -> None:
    before = text_of(page)

    async def in_parts() -> AsyncIterator[bytes]:
        for _ in range(160):
            yield b"#" * 65_535 + b"\n"

    for content in (b"#" * 10 * 2**20, in_parts()):
        answer = await page.client.put("/api/modes", content=content, headers=YAML)
        assert answer.status_code == 413
        assert f"{MAX_MODES_FILE // 1024} KiB" in answer.json()["detail"]
    small = await page.client.post("/api/modes/third", json={**THIRD, "title": "x" * 70_000})
    assert small.status_code == 413
    assert text_of(page) == before


@pytest.mark.parametrize("media", ["text/plain", "text/yaml", "multipart/form-data", ""])
async def test_a_form_of_another_site_edits_nothing(page: Page, media: str) -> None:
    for method, path in (("PUT", "/api/modes"), ("POST", "/api/modes/third")):
        answer = await page.client.request(
            method, path, content=b"{}", headers={"Content-Type": media}
        )
        assert answer.status_code == 415


async def test_yaml_is_taken_for_a_whole_file_alone(page: Page) -> None:
    answer = await page.client.post("/api/modes/third", content=b"model: x", headers=YAML)

    assert answer.status_code == 415


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"null", b"[" * 60_000, b"\xff"])
async def test_json_that_is_no_object_is_refused(page: Page, content: bytes) -> None:
    for method, path in (("PUT", "/api/modes"), ("POST", "/api/modes/third")):
        answer = await page.client.request(
            method, path, content=content, headers={"Content-Type": "application/json"}
        )
        assert answer.status_code in (400, 422), answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        assert len(answer.content) < 1000


@pytest.mark.parametrize(
    ("path", "can"),
    [
        ("/api/modes", "GET, PUT"),
        ("/api/jobs", "GET, POST"),
        ("/api/jobs/x", "DELETE, GET"),
        ("/api/modes/x", "DELETE, POST"),
        ("/generate", "POST"),
    ],
)
async def test_a_method_that_an_address_lacks_is_told_with_those_it_has(
    page: Page, path: str, can: str
) -> None:
    answer = await page.client.request("PATCH", path, json={})

    assert (answer.status_code, answer.headers["allow"]) == (405, can)


CLIMBS = ["..", "a/../..", "/a", "~", "~root/a", "\\\\host\\a", "C:a", "C:/a", "a\\..\\b"]


def test_paths_stay_below_their_root_on_every_system() -> None:
    for text in CLIMBS:
        assert not is_below(text), text
    for text in ("a", "a/b.safetensors", "a..b/c", "...", "checkpoints/ü 1.safetensors", "./a"):
        assert is_below(text), text
    assert all(is_below(f"{one}{two}") for one, two in itertools.product("a-é", ("", ".", "~")))
