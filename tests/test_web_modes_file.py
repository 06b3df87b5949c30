"""Editing the modes file in a browser: drafts are read and tried, applied once, and taken back."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bot.web.difference import differences
from bot.web.mode_edits import version_of
from engine.errors import RequestError
from engine.testing import FakeExecutor
from tests.web_kit import Page, open_page

YAML = {"Content-Type": "application/yaml"}


@pytest.fixture
async def page(tmp_path: Path) -> AsyncIterator[Page]:
    async with open_page(tmp_path) as opened:
        yield opened


async def text_of(page: Page) -> str:
    return str((await page.client.get("/api/modes-file")).json()["text"])


async def check(page: Page, text: str, **change: Any) -> dict[str, Any]:
    body = {"text": text, "change": change or None}
    answer = await page.client.post("/api/modes-file/check", json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def apply(page: Page, text: str, version: str | None = None) -> int:
    headers = YAML | ({"If-Match": version} if version else {})
    answer = await page.client.put("/api/modes", content=text.encode(), headers=headers)
    return answer.status_code


async def versions(page: Page) -> list[dict[str, Any]]:
    return list((await page.client.get("/api/modes-file")).json()["versions"])


async def test_a_draft_is_read_and_changes_nothing(page: Page) -> None:
    before = page.catalog.path.read_bytes()
    text = await text_of(page)
    told = await check(page, text)
    assert (told["problems"], told["diff"]) == ([], [])
    assert told["modes"]["small"]["default_steps"] == 4
    told = await check(page, text.replace("default_steps: 4", "default_steps: many"))
    (problem,) = told["problems"]
    assert problem["key"] == "modes.small.default_steps"
    assert text.splitlines()[problem["line"] - 1].strip() == "default_steps: 4"
    assert "Allowed: a whole number from 1 to 50" in problem["detail"]
    assert [line["kind"] for line in told["diff"]].count("removed") == 1
    assert page.catalog.path.read_bytes() == before
    assert await versions(page) == []


async def test_a_field_of_the_form_changes_its_own_line_alone(page: Page) -> None:
    text = (await text_of(page)).replace("default_steps: 4", "default_steps: 4  # quick")
    text += "    default_guidance: 7.0\n"
    told = await check(page, text, name="small", values={"default_steps": 9, "title": None})
    assert "default_steps: 9  # quick" in told["text"]
    assert "title: Small" not in told["text"]
    assert "default_guidance: 7.0" in told["text"]
    told = await check(page, text, name="other", values={"default_guidance": 7})
    assert told["problems"] == []


async def test_a_mode_comes_and_goes_in_a_draft(page: Page) -> None:
    text = await text_of(page)
    told = await check(page, text, name="third", values={"model": "small.safetensors"})
    assert list(told["modes"]) == ["small", "other", "third"]
    told = await check(page, told["text"], name="third", values=None)
    assert list(told["modes"]) == ["small", "other"]


async def test_what_a_form_can_not_write_leaves_the_draft_as_it_was(page: Page) -> None:
    text = await text_of(page)
    told = await check(page, text, name="small", values={"default_size": "huge"})
    assert told["text"] == text
    assert told["problems"][0]["key"] == "modes.small.default_size"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "modes: [",
        "modes: *anchor",
        "!!python/object:os.system {}",
        "[" * 200,
        "modes: {a: {model: ../../etc/passwd}}",
        "\x00",
        "\ud800",
        "modes:\n\tsmall: 1",
        "- a\n- b",
        "modes: 3",
        "a" * 200_000,
    ],
)
async def test_hostile_drafts_are_told_what_is_wrong(page: Page, text: str) -> None:
    content = f'{{"text": {ascii_json(text)}, "change": null}}'
    headers = {"Content-Type": "application/json"}
    answer = await page.client.post("/api/modes-file/check", content=content, headers=headers)
    assert answer.status_code in (200, 422), answer.text
    if answer.status_code == 200:
        assert answer.json()["problems"]
    tried = content.replace('"change": null', '"mode": "small", "prompt": "x"')
    answer = await page.client.post("/api/modes-file/try", content=tried, headers=headers)
    assert answer.status_code == 422
    assert page.executor.requests == []


def ascii_json(text: str) -> str:
    escaped = "".join(f"\\u{ord(c):04x}" if not " " <= c <= "~" or c in '"\\' else c for c in text)
    return f'"{escaped}"'


@pytest.mark.parametrize("name", ["no such mode", "", "../x"])
async def test_a_mode_that_there_is_not_can_not_be_taken_out(page: Page, name: str) -> None:
    body = {"text": await text_of(page), "change": {"name": name, "values": None}}
    answer = await page.client.post("/api/modes-file/check", json=body)
    assert answer.status_code == 422
    assert "Allowed: small, other" in answer.json()["detail"]


async def test_a_trial_draws_with_the_draft_and_leaves_the_modes_alone(page: Page) -> None:
    text = (await text_of(page)).replace("default_steps: 4", "default_steps: 7")
    body = {"text": text, "mode": "small", "prompt": "a fox", "seed": 3}
    answer = await page.client.post("/api/modes-file/try", json=body)
    assert answer.status_code == 201
    await page.executor.until(lambda: len(page.executor.requests) == 1)
    (request,) = page.executor.requests
    assert (request.steps, request.seed, request.prompt) == (7, 3, "a fox")
    assert page.catalog.get("small").default_steps == 4
    refused = await page.client.post("/api/modes-file/try", json=body | {"mode": "nope"})
    assert refused.json()["detail"] == (
        "mode: 'nope' is not allowed. Allowed: one of the draft: small, other."
    )


async def test_what_was_applied_is_taken_back(page: Page) -> None:
    first = await text_of(page)
    second = first.replace("title: Small", "title: Second")
    assert await apply(page, second, version_of(first.encode())) == 200
    (kept,) = await versions(page)
    assert [line["text"].strip() for line in kept["diff"] if line["kind"] == "added"] == [
        "title: Small"
    ]
    answer = await page.client.post("/api/modes-file/restore", json={"version": kept["id"]})
    assert answer.status_code == 200
    assert await text_of(page) == first
    assert page.catalog.get("small").title == "Small"
    # And once more: what was taken back is kept, too.
    (kept,) = await versions(page)
    await page.client.post("/api/modes-file/restore", json={"version": kept["id"]})
    assert await text_of(page) == second


async def test_edits_by_hand_are_kept_as_well(page: Page) -> None:
    before = page.catalog.path.read_text()
    page.catalog.path.write_text(before.replace("title: Small", "title: By hand"))
    assert await page.catalog.reload()
    (kept,) = await versions(page)
    await page.client.post("/api/modes-file/restore", json={"version": kept["id"]})
    assert page.catalog.path.read_text() == before


async def test_who_edits_an_old_version_is_told_and_changes_nothing(page: Page) -> None:
    first = await text_of(page)
    version = version_of(first.encode())
    mine = first.replace("title: Small", "title: Mine")
    theirs = first.replace("title: Small", "title: Theirs")
    answers = await asyncio.gather(apply(page, mine, version), apply(page, theirs, version))
    assert sorted(answers) == [200, 409]
    assert page.catalog.get("small").title in ("Mine", "Theirs")
    assert await apply(page, first) == 200  # without a version, as programs do


@pytest.mark.parametrize("version", ["", "nope", "../../modes.yaml", "20260701T120000.000000Z"])
async def test_no_other_version_comes_back(page: Page, version: str) -> None:
    answer = await page.client.post("/api/modes-file/restore", json={"version": version})
    assert answer.status_code == 422


async def test_the_stream_tells_of_edits_and_of_loads(tmp_path: Path) -> None:
    async with open_page(tmp_path, FakeExecutor()) as page:
        async with page.events("/api/modes/events") as events:
            told = (data async for name, data in events if name == "modes")
            first = await anext(told)
            assert (first["current"], first["default"]) == ("small", "small")
            await page.client.post("/api/models/load", json={"mode": "other"})
            async for state in told:
                if {m["name"]: m["loaded_on"] for m in state["modes"]}["other"] == ["fake:0"]:
                    break
            (tmp_path / "other.safetensors").unlink()
            async for state in told:
                if state["modes"][1]["missing"] == "other.safetensors":
                    break
        assert str(tmp_path) not in str(state)


async def test_what_failed_is_told_to_its_owner_and_to_admins(tmp_path: Path) -> None:
    admin, ada, bob = "a" * 16, "ada-" + "0" * 16, "bob-" + "0" * 16
    tokens = {"web_token": admin, "web_artist_token": (ada, bob)}
    async with open_page(tmp_path, FakeExecutor(hold=True), **tokens) as page:
        page.client.headers["Authorization"] = f"Bearer {ada}"
        job = await page.submit("ada's secret")
        await page.executor.until(lambda: bool(page.executor.running))
        page.executor.fail(job["id"], ValueError("a bug"))
        async with page.events(f"/api/jobs/{job['id']}/events") as events:
            assert [data["status"] async for _, data in events][-1] == "failed"
        for token, expected in ((ada, [True]), (bob, []), (admin, [False])):
            page.client.headers["Authorization"] = f"Bearer {token}"
            answer = await page.client.get("/api/failures")
            assert [failure["is_yours"] for failure in answer.json()["failures"]] == expected
            assert "secret" not in answer.text


@pytest.mark.parametrize("field", ["prompt", "negative"])
async def test_an_error_that_quotes_a_prompt_is_told_whole_to_its_owner_alone(
    tmp_path: Path, field: str
) -> None:
    admin, ada = "a" * 16, "ada-" + "0" * 16
    typed = "my secret is not allowed. Allowed: nobody else's " + "x" * 99
    tokens = {"web_token": admin, "web_artist_token": (ada,)}
    async with open_page(tmp_path, FakeExecutor(hold=True), **tokens) as page:
        page.client.headers["Authorization"] = f"Bearer {ada}"
        job = await page.submit("a fox")
        await page.executor.until(lambda: bool(page.executor.running))
        page.executor.fail(job["id"], RequestError(field, typed, "about 8 tokens"))
        async with page.events(f"/api/jobs/{job['id']}/events") as events:
            assert [data["status"] async for _, data in events][-1] == "failed"

        told = {}
        for token in (ada, admin):
            page.client.headers["Authorization"] = f"Bearer {token}"
            [failure] = (await page.client.get("/api/failures")).json()["failures"]
            told[token] = failure["error"]
    assert told[ada] == str(RequestError(field, typed, "about 8 tokens"))
    assert told[admin] == f"{field}: what was typed is not allowed. Allowed: about 8 tokens."


def test_a_difference_shows_lines_around_what_changed_and_nothing_else() -> None:
    before = "\n".join(map(str, range(30)))
    after = before.replace("\n5\n", "\nfive\n").replace("\n25\n", "\n")
    shown = [(line.kind, line.text, line.line) for line in differences(before, after)]
    assert shown == [
        ("same", "2", 3),
        ("same", "3", 4),
        ("same", "4", 5),
        ("removed", "5", 6),
        ("added", "five", 6),
        ("same", "6", 7),
        ("same", "7", 8),
        ("same", "8", 9),
        ("gap", "", None),
        ("same", "22", 23),
        ("same", "23", 24),
        ("same", "24", 25),
        ("removed", "25", 26),
        ("same", "26", 26),
        ("same", "27", 27),
        ("same", "28", 28),
    ]
    assert list(differences(before, before)) == []
