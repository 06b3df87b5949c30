"""Plots over HTTP."""

import asyncio
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.web_kit import open_page, stop


async def test_plots_are_listed_in_words_and_had_as_pictures(tmp_path: Path) -> None:
    async with open_page(tmp_path) as page:
        await page.finished()
        await page.studio.past.look()

        listed = (await page.client.get("/api/plots", params={"hours": 6})).json()["plots"]
        told = {plot["name"]: plot["alt"] for plot in listed}
        pictures = [await page.client.get(f"{plot['url']}&theme=dark") for plot in listed]

        assert told["waiting"].startswith("Requests in the last 6 hours: waiting: 0 at last")
        assert "fake:0, 1 GB: 0 at last" in told["memory"]
        for plot, picture in zip(listed, pictures, strict=True):
            assert picture.headers["content-type"] == "image/svg+xml"
            assert picture.headers["cache-control"] == "private, max-age=30"
            assert ET.fromstring(picture.content).get("aria-label") == plot["alt"]  # noqa: S314 # our own

        for wrong in (
            "/api/plots/nothing.svg",
            "/api/plots/..%2f..%2fbot.svg",
            "/api/plots/wait.svg?hours=2",
            "/api/plots/wait.svg?hours=-1",
            "/api/plots/wait.svg?theme=%3Cscript%3E",
            "/api/plots?hours=all",
        ):
            refused = await page.client.get(wrong)
            assert refused.status_code in (404, 422), wrong
            assert refused.headers["content-type"] == "application/problem+json"


async def test_a_machine_that_cannot_draw_plots_says_so_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_page(tmp_path) as page:
        monkeypatch.setattr(page.studio.plots, "_command", ("/nowhere/python",))

        refused = await page.client.get("/api/plots/wait.svg")

        assert refused.status_code == 503
        assert "log of Dream Lab says why" in refused.json()["detail"]
        assert (await page.finished())["status"] == "done"


async def test_a_page_that_closes_waits_for_no_plot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hangs = (sys.executable, "-c", "import time; time.sleep(600)")
    async with open_page(tmp_path) as page:
        monkeypatch.setattr(page.studio.plots, "_command", hangs)
        asking = asyncio.create_task(page.client.get("/api/plots/wait.svg"))
        while not page.studio.plots._drawn:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)

        await stop(page.serving)

        assert (await asking).status_code == 503
    assert "Traceback" not in caplog.text
