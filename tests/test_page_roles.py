"""The pages in a browser, their worker played by the test: roles, news, lost connections."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, expect
from playwright.async_api import Page as Tab

from bot.settings import Settings
from bot.web.app import WebFrontEnd, create_web_app
from engine.errors import DreamLabError
from engine.testing import FakeExecutor
from tests.page_kit import CHROMIUM, PATIENCE, open_browser, open_context
from tests.web_kit import Page, open_page, stop

expect.set_options(timeout=PATIENCE / 2)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed"),
    pytest.mark.asyncio(loop_scope="module"),
]

ADMIN, ADA, VIEWER = "a" * 16, "ada-" + "0" * 16, "v" * 16
TOKENS: dict[str, Any] = {
    "web_token": ADMIN,
    "web_artist_token": (ADA,),
    "web_viewer_token": (VIEWER,),
}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with open_browser() as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="module")
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    async with open_context(browser) as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="module")
async def held(tmp_path: Path) -> AsyncIterator[Page]:
    async with open_page(tmp_path, FakeExecutor(hold=True)) as opened:
        yield opened


async def ready(tab: Tab, url: str) -> None:
    await tab.goto(url)
    await expect(tab.get_by_role("status").first).to_have_text(re.compile("Ready|Drawing"))


async def finish(page: Page, prompt: str, **fields: Any) -> dict[str, Any]:
    job = await page.submit(prompt, **fields)
    await page.executor.until(lambda: job["id"] in page.executor.running)
    page.executor.finish(job["id"])
    async with page.events(f"/api/jobs/{job['id']}/events") as events:
        return [data async for name, data in events if name == "job"][-1]


async def test_each_role_is_offered_what_it_may_do(browser: Browser, tmp_path: Path) -> None:
    async with open_page(tmp_path, FakeExecutor(), **TOKENS) as page:
        for token, pages, verbs in (
            (VIEWER, ["Queue", "Modes", "Status"], []),
            (ADA, ["Create", "Gallery", "Queue", "Modes", "Status"], ["Draw"]),
            (
                ADMIN,
                ["Create", "Gallery", "Queue", "Modes", "Status"],
                ["Draw", "Make current", "Load", "Edit"],
            ),
        ):
            async with open_context(browser) as context:
                tab = await context.new_page()
                await tab.goto(f"{page.url}/modes")  # the login leads back
                await tab.get_by_label("Your token?").fill(token)
                await tab.keyboard.press("Enter")
                await expect(tab).to_have_url(f"{page.url}/modes")
                nav = tab.get_by_role("navigation", name="Pages", exact=True)
                await expect(nav.get_by_role("link")).to_have_text(pages)
                row = tab.locator("#modes .row").last
                await expect(row.locator(".actions > *")).to_have_text(verbs)
                editor = tab.get_by_label("Title")
                await expect(editor).to_be_visible(visible=token == ADMIN)
                await tab.goto(f"{page.url}/gallery")
                place = "status" if token == VIEWER else "gallery"
                await expect(tab).to_have_url(f"{page.url}/{place}")


async def test_the_gallery_hears_of_what_happens_elsewhere(
    context: BrowserContext, held: Page
) -> None:
    tab = await context.new_page()
    await ready(tab, f"{held.url}/gallery")
    await expect(tab.get_by_text("No picture yet")).to_be_visible()
    job = await finish(held, "a fox", count=2)
    await expect(tab.locator(".tiles a")).to_have_count(2)
    await tab.locator(".tiles a").last.click()
    await expect(tab.get_by_role("button", name="Picture 2")).to_have_attribute(
        "aria-pressed", "true"
    )
    await tab.keyboard.press("Escape")
    # The page hears of it a moment after it is hidden.
    await expect(tab).not_to_have_url(re.compile("job="))
    await tab.go_back()  # to the picture
    await expect(tab.get_by_role("dialog", name="a fox")).to_be_visible()
    await held.client.delete(f"/api/jobs/{job['id']}")
    await expect(tab.get_by_role("dialog")).to_be_hidden()
    await expect(tab.get_by_text("No picture yet")).to_be_visible()


async def test_the_gallery_turns_its_pages(context: BrowserContext, held: Page) -> None:
    held.executor.hold = False
    for number in range(26):
        await held.finished(f"fox {number}")
    tab = await context.new_page()
    await ready(tab, f"{held.url}/gallery")
    await expect(tab.locator(".tiles a")).to_have_count(24)
    await tab.get_by_role("link", name="Older").click()
    await expect(tab.locator(".tiles a")).to_have_count(2)
    await tab.reload()
    await expect(tab.locator(".tiles a")).to_have_count(2)
    await tab.get_by_role("link", name="Newer").click()
    await expect(tab.locator(".tiles a")).to_have_count(24)
    await tab.get_by_label("Words in the prompt").fill("wolf")
    await expect(tab.get_by_text("Nothing of yours fits that.")).to_be_visible()


async def test_a_lost_connection_loses_nothing(context: BrowserContext, held: Page) -> None:
    tab = await context.new_page()
    await ready(tab, f"{held.url}/queue")
    await held.submit("a fox")
    await expect(tab.get_by_role("heading", name="a fox")).to_be_visible()
    port = held.port
    await stop(held.serving)
    status = tab.get_by_role("status").first
    await expect(status).to_have_text("Offline, trying again")
    await tab.get_by_role("button", name="Cancel a fox").click()
    await expect(tab.get_by_role("alert")).to_contain_text("does not answer")
    settings = Settings(web_port=port, data=held.catalog.path.parent)
    web = create_web_app(held.studio, held.catalog, held.pool, settings)
    serving = asyncio.create_task(WebFrontEnd(web, settings).run())
    await expect(status).to_have_text("Drawing")
    held.executor.finish(held.executor.running[0])
    await expect(tab.get_by_text("Nothing is being drawn")).to_be_visible()
    await stop(serving)


async def test_what_was_typed_outlives_a_reload_and_other_pages(
    context: BrowserContext, held: Page
) -> None:
    tab = await context.new_page()
    await ready(tab, held.url)
    await tab.get_by_label("What do you see?").fill("half a thought")
    await tab.get_by_text("More", exact=True).click()
    await tab.get_by_label("Steps", exact=True).fill("9")
    await tab.get_by_role("radio", name="other").check()
    await tab.get_by_role("link", name="Queue").click()
    await tab.get_by_role("link", name="Create").click()
    await expect(tab.get_by_label("What do you see?")).to_have_value("half a thought")
    await tab.reload()
    await tab.get_by_text("More", exact=True).click()
    await expect(tab.get_by_label("Steps", exact=True)).to_have_value("9")
    await expect(tab.get_by_role("radio", name="other")).to_be_checked()


async def test_a_draft_of_the_modes_outlives_a_reload_and_meets_others_edits(
    context: BrowserContext, held: Page
) -> None:
    tab = await context.new_page()
    await ready(tab, f"{held.url}/modes")
    await tab.get_by_label("YAML").check()
    text = tab.get_by_label("The whole file")
    await expect(text).to_have_value(re.compile("title: Small"))
    await text.fill((await text.input_value()).replace("title: Small", "title: Mine"))
    await expect(tab.locator("#verdict")).to_have_text("The draft is fine.")
    await tab.reload()
    await expect(tab.locator("#diff .added")).to_have_text(re.compile("title: Mine"))

    # Somebody edits the file by hand: the draft stays, its difference is to what is there now.
    path = held.catalog.path
    path.write_text(path.read_text().replace("default_steps: 4", "default_steps: 5"))
    assert await held.catalog.reload()
    await expect(tab.locator("#diff .removed")).to_have_count(2)
    await tab.get_by_role("button", name="Discard the draft").click()
    await expect(tab.locator("#verdict")).to_have_text("Nothing is changed.")
    await expect(tab.get_by_label("Steps", exact=True)).to_have_value("5")


async def test_a_new_mode_is_added_and_taken_out_in_the_form(
    context: BrowserContext, held: Page
) -> None:
    tab = await context.new_page()
    await ready(tab, f"{held.url}/modes")
    await expect(tab.get_by_label("Title")).to_have_value("Small")
    await tab.get_by_role("button", name="New mode").click()
    await tab.get_by_label("Name", exact=True).fill("third")
    await tab.locator("#new-model").fill("small.safetensors")
    await tab.get_by_role("button", name="Add to the draft").click()
    await expect(tab.locator("#which")).to_have_value("third")
    await tab.get_by_role("button", name="Apply").click()
    await expect(tab.locator("#modes .row")).to_have_count(3)
    await expect(tab.locator("#which")).to_have_value("third")
    await tab.get_by_role("button", name="Take it out").click()
    await expect(tab.locator("#diff .removed")).to_have_count(2)


async def test_errors_and_troubles_are_told(context: BrowserContext, held: Page) -> None:
    tab = await context.new_page()
    await ready(tab, f"{held.url}/status")
    await held.submit("a fox")
    await held.executor.until(lambda: bool(held.executor.running))
    held.executor.fail(held.executor.running[0], DreamLabError("The paint is dry."))
    await expect(tab.locator("#failures .row")).to_contain_text("The paint is dry.")
    await expect(tab.locator("#failures .row")).to_contain_text("small · yours")


async def test_words_of_a_restart_are_shown(context: BrowserContext, held: Page) -> None:
    tab = await context.new_page()
    await ready(tab, held.url)
    await held.submit("a fox")
    await held.executor.until(lambda: bool(held.executor.running))
    await held.submit("a wolf")
    held.executor.start_gate.clear()
    held.executor.die()
    card = tab.locator(".job").last
    await expect(card).to_contain_text("This was interrupted and is drawn again: you are next")
    held.executor.start_gate.set()


@pytest.mark.parametrize("path", ["/gallery", "/queue", "/modes", "/status"])
async def test_a_page_fits_a_phone_and_can_be_touched(
    browser: Browser, held: Page, path: str
) -> None:
    held.executor.hold = False
    await held.finished("x" * 300)
    held.executor.hold = True
    await held.submit("y" * 300)
    await held.submit("z" * 300)
    size = {"width": 360, "height": 740}
    async with open_context(browser, viewport=size, has_touch=True) as context:
        tab = await context.new_page()
        await ready(tab, held.url + path)
        shown = {"/gallery": ".tiles img", "/queue": "#waiting .row", "/modes": "#modes .row"}
        await expect(tab.locator(shown.get(path, ".box-card")).first).to_be_visible()
        assert not await tab.evaluate("document.documentElement.scrollWidth > innerWidth")
        targets = await tab.locator("main button:visible, main .button:visible").evaluate_all(
            "all => all.map(e => e.getBoundingClientRect().height)"
        )
        assert min(targets, default=40) >= 40  # a finger's width
