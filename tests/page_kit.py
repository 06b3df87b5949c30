"""A browser, and the page with the real model behind it: for tests and for the README's picture."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.async_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Locator,
    Page,
    async_playwright,
    expect,
)

from bot.app import open_app
from bot.settings import Settings
from bot.web.app import WebFrontEnd, create_web_app

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
"""Debian's browser; None where none is installed."""

PATIENCE = 120_000
"""Milliseconds that a busy machine gets; nothing is decided by it."""

PROMPTS = (
    "/imagine a yellow star on a blue background",
    "/imagine a green heart on a pink background",
    "/imagine a purple ring on a white background",
    "/imagine a red circle on a white background",
)
"""What the demo model draws well."""

_ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # The suggestions under an address bar that nobody sees: two pages of the browser's own for each
    # profile, which take longer than ours. This stands in for Playwright's list, not beside it.
    "--disable-features=WebUIOmniboxPopup,WebUIOmniboxAimPopup,HttpsUpgrades,PaintHolding",
    # No other name or address can be reached, whatever the page or the browser itself may want.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)

_MODES_FILE = Path(__file__).parents[1] / "modes" / "modes.yaml"
_MODELS = Path(__file__).parents[1] / "models"


@asynccontextmanager
async def open_browser() -> AsyncIterator[Browser]:
    """Opens a headless Chromium."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=_ARGUMENTS)
        try:
            yield browser
        finally:
            await browser.close()


class Witness:
    """Notes what a browser asked for and complained about."""

    def __init__(self, context: BrowserContext) -> None:
        self.addresses: list[str] = []
        self.complaints: list[str] = []
        context.on("request", lambda request: self.addresses.append(request.url))
        context.on("console", self._console)
        context.on("weberror", lambda error: self.complaints.append(str(error.error)))

    def _console(self, message: ConsoleMessage) -> None:
        # Chromium notes each request that was refused; the page shows why, which is tested.
        refused = message.text.startswith("Failed to load resource")
        if message.type in ("error", "warning") and not refused:
            self.complaints.append(message.text)


@asynccontextmanager
async def open_context(browser: Browser, **more: Any) -> AsyncIterator[BrowserContext]:
    """Opens a fresh browser profile, of which nothing may leave this machine, nor fail unseen."""
    opened = await browser.new_context(**more)
    witness = Witness(opened)
    yield opened
    await opened.close()
    hosts = {urlsplit(address).hostname for address in witness.addresses}
    assert hosts <= {"127.0.0.1", None}  # none: what is within the page, such as a preview
    assert witness.complaints == []


@asynccontextmanager
async def open_real_page(folder: Path, **more: Any) -> AsyncIterator[str]:
    """Opens the whole program with the demo model and yields the page's address.

    Its modes file is a copy of the one that comes with it, which may be edited.
    """
    settings = Settings(
        data=folder, modes_file=copied_modes(folder), web_port=0, devices=("cpu",), **more
    )
    async with open_app(settings) as app:
        web = create_web_app(app.studio, app.catalog, app.pool, settings)
        front_end = WebFrontEnd(web, settings)
        tasks = [
            asyncio.create_task(front_end.run(), name="page"),
            asyncio.create_task(app.studio.past.run(), name="history"),
        ]
        try:
            yield await front_end.ready()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


def copied_modes(folder: Path) -> Path:
    """Returns a copy of the modes file that comes with the program, which may be edited."""
    folder.mkdir(parents=True, exist_ok=True)
    text = _MODES_FILE.read_text(encoding="utf-8")
    copy = folder / "modes.yaml"
    copy.write_text(text.replace("../models", _MODELS.as_posix()), encoding="utf-8")
    return copy


def is_red(colour: object) -> bool:
    """Says whether a pixel of an RGB picture is of the red that people call so."""
    assert isinstance(colour, tuple)
    red, green, blue = colour
    return bool(red > 150 and green < 110 and blue < 110)


async def draw(page: Page, text: str) -> Locator:
    """Types a request, sends it, and returns its card once the picture is on it."""
    await page.get_by_label("What do you see?").fill(text)
    async with page.expect_response(
        lambda answer: answer.request.method == "POST" and answer.url.endswith("/api/jobs")
    ) as answering:
        await page.keyboard.press("Enter")
    job = await (await answering.value).json()
    newest = page.locator(f'.job[data-id="{job["id"]}"]')
    await expect(newest).to_have_attribute("data-status", "done", timeout=PATIENCE)
    await newest.locator(".canvas a img").first.evaluate("image => image.decode()")
    return newest
