"""Pauses over HTTP, and that every change by an admin leaves a trace."""

from pathlib import Path
from typing import Any

import pytest

from engine.testing import FakeExecutor
from tests.web_kit import Page, open_page


async def audit(page: Page) -> list[str]:
    answer = await page.client.get("/api/audit")
    assert answer.status_code == 200
    return [change["what"] for change in answer.json()["changes"]]


async def test_a_pause_finishes_what_runs_and_keeps_what_waits(tmp_path: Path) -> None:
    executor = FakeExecutor(hold=True)
    async with open_page(tmp_path, executor) as page:
        running = await page.submit("first")
        await executor.until(lambda: running["id"] in executor.running)

        paused = await page.client.post("/api/drain", json={"reason": "a new card"})
        waiting = await page.submit("second")
        refused = await page.client.post("/api/models/load", json={"mode": "other"})
        status = (await page.client.get("/api/status")).json()
        executor.finish(running["id"])
        await page.studio.steward.drained()
        begun = len(executor.requests)
        ready = await page.client.get("/readyz")

        resumed = await page.client.delete("/api/drain")
        await executor.until(lambda: waiting["id"] in executor.running)
        executor.finish(waiting["id"])
        again = await page.client.delete("/api/drain")
        told = await audit(page)

    assert paused.json() == {"reason": "a new card", "running": 1, "waiting": 0}
    assert refused.status_code == 409
    assert "Drawing is paused" in refused.json()["detail"]
    assert status["text"] == "Drawing is paused, 1 waiting"
    assert begun == 1
    assert ready.status_code == 503
    assert resumed.status_code == 204
    assert again.status_code == 409
    assert told == ["Went on drawing", "Paused drawing: a new card"]


@pytest.mark.parametrize(
    "body", [{"reason": "x" * 301}, {"reason": 1}, {"reasons": "x"}, [], "no JSON"]
)
async def test_a_pause_that_makes_no_sense_is_refused(tmp_path: Path, body: Any) -> None:
    async with open_page(tmp_path) as page:
        refused = await page.client.post("/api/drain", json=body)

        assert refused.status_code == 422
        assert (await page.finished())["status"] == "done"
        assert await audit(page) == []


async def test_every_change_of_an_admin_leaves_a_trace(tmp_path: Path) -> None:
    async with open_page(tmp_path) as page:
        client = page.client
        mode = {"model": "small.safetensors", "default_size": "64x64", "min_size": 64}
        file = page.catalog.path.read_text()
        done = [
            await client.post("/api/modes/third", json=mode),
            await client.post("/api/modes/third", json={**mode, "title": "Third"}),
            await client.delete("/api/modes/third"),
            await client.put(
                "/api/modes", content=file, headers={"Content-Type": "application/yaml"}
            ),
            await client.post("/api/modes/reload", json={}),
            await client.post("/api/modes/switch", json={"mode": "other"}),
            await client.post("/api/models/load", json={"mode": "small"}),
            await client.post("/api/models/unload", json={"mode": "small"}),
        ]
        refused = [
            await client.post("/api/modes/third", json={"modell": "x"}),
            await client.delete("/api/modes/small"),
            await client.post("/api/modes/switch", json={"mode": "nope"}),
            await client.post("/api/models/load", json={"mode": "nope"}),
        ]
        told = await audit(page)
        newest = (await client.get("/api/audit?limit=1")).json()["changes"]
        wrong = [await client.get(f"/api/audit?limit={limit}") for limit in ("0", "501", "x")]

    assert [answer.text for answer in done if not answer.is_success] == []
    assert [answer.text for answer in refused if answer.is_success] == []
    assert told == [
        "Unloaded: small",
        "Loaded: small",
        "Mode: other",
        "Read the modes again",
        "Replaced the modes file",
        "Removed a mode: third",
        "Changed a mode: third",
        "Added a mode: third",
    ]
    assert newest[0]["place"] is None
    assert [answer.status_code for answer in wrong] == [422] * 3
