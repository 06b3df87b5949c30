"""A browser, and the page with the real model behind it: for tests and for the README's picture."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from playwright.async_api import Browser, Locator, Page, async_playwright, expect

from bot.app import open_app
from bot.settings import Settings
from bot.web.app import WebFrontEnd, create_web_app

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
"""Debian's browser; None where none is installed."""

PATIENCE = 120_000
"""Milliseconds that a busy machine gets; nothing is decided by it."""

_ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # No other name or address can be reached, whatever the page or the browser itself may want.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)

_MODES_FILE = Path(__file__).parents[1] / "modes" / "modes.yaml"


@asynccontextmanager
async def open_browser() -> AsyncIterator[Browser]:
    """Opens a headless Chromium."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=_ARGUMENTS)
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def open_real_page(folder: Path) -> AsyncIterator[str]:
    """Opens the whole program with the demo model and yields the page's address."""
    settings = Settings(data=folder, modes_file=_MODES_FILE, web_port=0, devices=("cpu",))
    async with open_app(settings) as app:
        web = create_web_app(app.studio, app.catalog, app.pool, settings)
        front_end = WebFrontEnd(web, settings)
        serving = asyncio.create_task(front_end.run(), name="page")
        try:
            yield await front_end.ready()
        finally:
            serving.cancel()
            await asyncio.wait([serving])


async def draw(page: Page, text: str) -> Locator:
    """Types a request, sends it, and returns its card once the picture is on it."""
    cards = page.locator(".job")
    before = await cards.count()
    await page.get_by_label("What do you see?").fill(text)
    await page.keyboard.press("Enter")
    await expect(cards).to_have_count(before + 1)
    newest = cards.first
    await expect(newest).to_have_attribute("data-status", "done", timeout=PATIENCE)
    await newest.locator(".canvas a img").first.evaluate("image => image.decode()")
    return newest
