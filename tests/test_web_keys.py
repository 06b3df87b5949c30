"""Idempotency-Key: what is asked for twice with one key is drawn once, whatever died in between."""

import asyncio
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest

from bot.web import keys
from bot.web.access import YOU
from engine.testing import FakeExecutor
from tests.web_kit import PATIENCE, UNUSED, Page, open_page

ADMIN, ADA = "admin-0123456789abcdef", "artist-ada-0123456789"


@pytest.fixture
async def page(tmp_path: Path) -> AsyncIterator[Page]:
    async with open_page(tmp_path) as opened:
        yield opened


async def ask(page: Page, key: str, prompt: str = "a red circle", **more: Any) -> httpx.Response:
    headers = {"Idempotency-Key": key, **more.pop("headers", {})}
    return await page.client.post("/api/jobs", json={"prompt": prompt, **more}, headers=headers)


async def jobs(page: Page) -> list[str]:
    return [job["id"] for job in (await page.client.get("/api/jobs")).json()["jobs"]]


async def test_the_same_request_with_the_same_key_is_one_job(page: Page) -> None:
    first, again = await ask(page, "k-1"), await ask(page, "k-1")
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json()["id"] == again.json()["id"]
    assert first.headers["location"] == again.headers["location"]
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert len(await jobs(page)) == 1


async def test_requests_at_the_same_moment_are_one_job(page: Page) -> None:
    answers = await asyncio.gather(*(ask(page, "k-1") for _ in range(8)))
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len(await jobs(page)) == 1


@pytest.mark.parametrize("path", ["/generate", "/v1/images/generations"])
async def test_who_waits_for_the_picture_gets_the_one_that_there_is(page: Page, path: str) -> None:
    headers = {"Idempotency-Key": "k-1"}
    first, again = [
        await page.client.post(path, json={"prompt": "x"}, headers=headers) for _ in range(2)
    ]
    assert (first.status_code, again.status_code) == (200, 200)
    assert first.content == again.content
    assert len(page.executor.requests) == 1
    other = await page.client.post(path, json={"prompt": "y"}, headers=headers)
    assert other.status_code == 409


@pytest.mark.parametrize("path", ["/api/jobs", "/generate", "/v1/images/generations"])
async def test_a_key_outlives_an_upgrade_that_adds_a_field(page: Page, path: str) -> None:
    headers = {"Idempotency-Key": "k-1"}
    await page.client.post(path, json={"prompt": "x"}, headers=headers)
    (record,) = await page.studio.history(YOU.id)
    # What a client sent, and nothing that it knows nothing of.
    assert record.origin.address["body"] == sha256(b'{"prompt": "x"}').hexdigest()


async def test_who_hangs_up_and_has_a_key_finds_the_picture_later(tmp_path: Path) -> None:
    async with open_page(tmp_path, FakeExecutor(hold=True)) as page:
        how: dict[str, Any] = {"json": {"prompt": "x"}, "headers": {"Idempotency-Key": "k-1"}}
        async with httpx.AsyncClient(
            base_url=page.url, trust_env=False, timeout=PATIENCE, verify=UNUSED
        ) as client:
            asking = asyncio.create_task(client.post("/generate", **how))
            await page.executor.until(lambda: bool(page.executor.running))
            asking.cancel()
        again = asyncio.create_task(page.client.post("/generate", **how))
        page.executor.finish(page.executor.running[0])
        answer = await again
        assert (answer.status_code, answer.headers["x-mode"]) == (200, "small")
        assert len(page.executor.requests) == 1


async def test_a_repetition_is_asked_for_once_with_a_key(page: Page) -> None:
    job = await page.finished()
    path, headers = f"/api/jobs/{job['id']}/again", {"Idempotency-Key": "k-1"}
    first, again = [await page.client.post(path, json={}, headers=headers) for _ in range(2)]
    assert first.json()["id"] == again.json()["id"]
    assert again.headers["idempotent-replayed"] == "true"
    varied = await page.client.post(path, json={"vary": True}, headers=headers)
    assert varied.status_code == 409
    assert len(await jobs(page)) == 2


async def test_another_request_with_the_same_key_is_refused(page: Page) -> None:
    await ask(page, "k-1")
    for answer in (await ask(page, "k-1", "a blue star"), await ask(page, "k-1", seed=5)):
        assert answer.status_code == 409
        assert answer.json()["detail"].startswith("Idempotency-Key: ")
    assert len(await jobs(page)) == 1


async def test_other_keys_and_no_key_are_other_jobs(page: Page) -> None:
    await ask(page, "k-1")
    await ask(page, "k-2")
    await page.submit()
    await page.submit()
    assert len(await jobs(page)) == 4


async def test_what_was_refused_leaves_its_key_free(page: Page) -> None:
    assert (await ask(page, "k-1", steps=0)).status_code == 422
    assert (await ask(page, "k-1")).status_code == 201


async def test_a_text_that_is_no_unicode_is_refused_with_a_key_as_without(page: Page) -> None:
    headers = {"Idempotency-Key": "k-1", "Content-Type": "application/json"}
    body = b'{"prompt": "\\ud800"}'
    answer = await page.client.post("/api/jobs", content=body, headers=headers)
    assert answer.status_code == 422


@pytest.mark.parametrize("key", ["", "x" * 201, "two words", "b\xe4r"])
async def test_a_key_that_is_none_is_refused(page: Page, key: str) -> None:
    headers = [(b"idempotency-key", key.encode("latin-1"))]
    answer = await page.client.post("/api/jobs", json={"prompt": "x"}, headers=headers)
    assert answer.status_code == 422
    assert answer.json()["field"] == "Idempotency-Key"


async def test_a_key_outlives_a_restart(tmp_path: Path) -> None:
    async with open_page(tmp_path, FakeExecutor(hold=True)) as page:
        first = (await ask(page, "k-1")).json()["id"]
    async with open_page(tmp_path) as page:
        assert (await ask(page, "k-1")).json()["id"] == first


async def test_a_key_is_forgotten_after_its_time(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await ask(page, "k-1")
    monkeypatch.setattr(keys, "LIFETIME", -keys.LIFETIME)
    assert (await ask(page, "k-1", "a blue star")).status_code == 201
    assert first.json()["id"] in await jobs(page)


async def test_ones_key_is_none_of_anothers(tmp_path: Path) -> None:
    async with open_page(tmp_path, web_token=ADMIN, web_artist_token=(ADA,)) as page:
        mine, theirs = [
            await ask(page, "k-1", headers={"Authorization": f"Bearer {token}"})
            for token in (ADMIN, ADA)
        ]
        assert mine.json()["id"] != theirs.json()["id"]
