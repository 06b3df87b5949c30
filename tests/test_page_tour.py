"""Each page's main path in a real browser, on the real bot with the demo model; and axe on all."""

import re
from collections.abc import AsyncIterator
from typing import Literal

import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe
from PIL import Image
from playwright.async_api import Browser, BrowserContext, Response, expect
from playwright.async_api import Page as Tab

from bot.web.page_routes import PAGES, PageSpec
from tests.page_kit import (
    CHROMIUM,
    PATIENCE,
    draw,
    open_browser,
    open_context,
    open_real_page,
)

expect.set_options(timeout=PATIENCE / 2)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed"),
    pytest.mark.asyncio(loop_scope="module"),
]

MOST_BYTES = 200_000
"""That a page's own files may weigh, pictures and figures left out."""


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with open_browser() as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """One bot for all of these: its worker process takes seconds to start."""
    async with open_real_page(tmp_path_factory.mktemp("bot") / "data") as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="module")
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    async with open_context(browser) as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="module")
async def tab(context: BrowserContext) -> Tab:
    return await context.new_page()


async def drawn(tab: Tab, url: str, prompt: str) -> str:
    """Draws a picture on the page and returns its job's id."""
    await tab.goto(url)
    card = await draw(tab, prompt)
    return str(await card.get_attribute("data-id"))


async def test_a_picture_is_found_made_more_of_and_deleted(tab: Tab, url: str) -> None:
    prompt = "a purple ring on a white background"
    job_id = await drawn(tab, url, prompt)
    await tab.get_by_role("link", name="Gallery").click()
    tiles = tab.locator(".tiles a")
    await expect(tiles.first).to_be_visible()
    await tab.get_by_label("Words in the prompt").fill("RING purple")
    await expect(tiles).to_have_count(1)
    await expect(tab).to_have_url(re.compile("q=RING"))
    await tab.get_by_label("Mode").select_option("demo")
    await expect(tiles).to_have_count(1)
    small = tiles.first.get_by_role("img")
    assert await small.evaluate("i => i.decode().then(() => i.naturalWidth)") == 128

    await tiles.first.click()
    detail = tab.get_by_role("dialog", name=prompt)
    for fact in ("Size", "Seed", "Steps", "Guidance", "Sampler", "Mode", "Time", "Asked for"):
        await expect(detail.get_by_text(fact, exact=True)).to_be_visible()
    news = detail.get_by_role("status")
    for verb in ("Again", "Vary", "Upscale"):
        await detail.get_by_role("button", name=verb, exact=True).click()
        await expect(news).to_contain_text("Done.", timeout=PATIENCE)
    family = detail.locator(".kin")
    await expect(family).to_have_count(4)
    await expect(detail.locator(".family .family .kin b")).to_have_text(
        ["Again", "Varied", "Larger"]
    )
    await detail.get_by_role("button", name="Show beside its mode").click()
    await expect(news).to_contain_text("All who draw here see it beside the mode demo.")
    await family.last.click()
    await expect(detail.get_by_text("256 \N{MULTIPLICATION SIGN} 256")).to_be_visible()
    await tab.reload()  # what is looked at stands in the address
    await expect(detail.get_by_text("256 \N{MULTIPLICATION SIGN} 256")).to_be_visible()
    async with tab.expect_download() as download:
        await detail.get_by_role("link", name="Download").click()
    with Image.open(await (await download.value).path()) as saved:
        assert saved.size == (256, 256)
        assert prompt in saved.info["parameters"]
    tab.on("dialog", lambda dialog: dialog.accept())
    await detail.get_by_role("button", name="Delete").click()
    await expect(detail).to_be_hidden()
    await expect(tiles).to_have_count(3)

    await tab.goto(f"{url}/gallery?job={job_id}")
    await detail.get_by_role("link", name="Edit").click()
    await expect(tab.get_by_label("What do you see?")).to_have_value(prompt)
    await expect(tab.get_by_label("Size", exact=True)).to_have_value("128x128")
    await tab.get_by_label("Steps", exact=True).fill("9")
    card = await draw(tab, prompt.replace("purple", "green"))
    changed = await card.get_attribute("data-id")
    await tab.goto(f"{url}/gallery?job={changed}")
    await expect(tab.locator(".kin[aria-current] b")).to_have_text("Changed")


async def test_what_waits_is_told_why_and_taken_back(tab: Tab, url: str) -> None:
    await tab.goto(f"{url}/queue")
    slow = {"steps": 100, "count": 4, "size": "256x256"}
    for number in range(6):
        await tab.request.post(f"{url}/api/jobs", data={"prompt": f"ring {number}", **slow})
    running, waiting = tab.locator("#running .row"), tab.locator("#waiting .row")
    await expect(waiting).to_have_count(2)
    await expect(running).to_have_count(4)
    await expect(running.first).to_contain_text("Drawing: step")
    await expect(waiting.first).to_contain_text("Next, as soon as cpu has room.")
    await expect(waiting.last).to_contain_text("of your own")
    await tab.get_by_role("button", name="Cancel ring 5").click()
    await expect(tab.get_by_text("ring 5", exact=True)).to_have_count(0)
    for number in range(4, -1, -1):
        await tab.get_by_role("button", name=f"Cancel ring {number}").click()
    await expect(tab.get_by_text("Nothing is being drawn")).to_be_visible()


async def test_a_mode_is_edited_tried_applied_and_taken_back(tab: Tab, url: str) -> None:
    await tab.goto(f"{url}/modes")
    row = tab.locator("#modes .row")
    await expect(row).to_contain_text("Demo")
    await row.get_by_role("button", name="Edit: Demo").click()
    verdict, title = tab.locator("#verdict"), tab.get_by_label("Title")
    await expect(title).to_have_value("Demo")
    await tab.get_by_label("Steps", exact=True).fill("0")
    await expect(verdict).to_have_text("One thing is wrong with the draft:")
    await expect(tab.get_by_role("button", name="Apply")).to_be_disabled()
    await expect(tab.get_by_label("Steps", exact=True)).to_have_attribute("aria-invalid", "true")
    await tab.get_by_label("Steps", exact=True).fill("7")
    await title.fill("Shapes")
    await expect(verdict).to_have_text("The draft is fine.")
    difference = tab.get_by_role("region", name="What changes")
    await expect(difference.locator(".removed")).to_have_text(
        [re.compile("title: Demo"), re.compile("steps: 20")]
    )
    await expect(difference.locator(".added")).to_have_text(
        [re.compile("title: Shapes"), re.compile("steps: 7")]
    )
    await tab.get_by_label("A trial picture with the draft of this mode").fill("a red circle")
    await tab.get_by_role("button", name="Try it").click()
    trial = tab.get_by_role("img", name="Trial: a red circle")
    await expect(tab.locator("#trial-result")).to_contain_text("Done", timeout=PATIENCE)
    assert await trial.evaluate("i => i.decode().then(() => i.naturalWidth)") == 128
    await expect(row).to_contain_text("Demo")  # it was a draft so far

    await tab.get_by_role("button", name="Apply").click()
    await expect(row).to_contain_text("Shapes")
    await tab.get_by_role("button", name="Take it back").click()
    await expect(row).to_contain_text("Demo")
    await expect(tab.locator("#versions .row")).to_have_count(1)


async def test_the_status_shows_memory_plots_and_errors(tab: Tab, url: str) -> None:
    await tab.goto(f"{url}/status")
    memory = tab.get_by_role("meter", name="Memory of cpu")
    await expect(memory).to_be_visible()
    await expect(tab.locator(".box-card .memory").first).to_contain_text("GB in use")
    plots = tab.locator(".plots img")
    await expect(plots).to_have_count(6)
    for plot in await plots.all():
        assert await plot.evaluate("i => i.decode().then(() => i.naturalWidth)") > 100
        assert await plot.get_attribute("alt")
    await tab.get_by_label("6 hours").check()
    await expect(plots.first).to_have_attribute("src", re.compile("hours=6"))
    await expect(tab.get_by_text("No request has failed.")).to_be_visible()


async def test_axe_finds_nothing_serious_on_any_page(tab: Tab, url: str) -> None:
    job_id = await drawn(tab, url, "a red circle on a white background")
    await tab.get_by_text("More", exact=True).click()
    sample = tab.get_by_role("group", name="Mode").locator("img").first
    await expect(sample).to_be_visible()
    assert await sample.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    await examine(tab, "create")
    await tab.goto(f"{url}/gallery")
    await expect(tab.locator(".tiles img").first).to_be_visible()
    await examine(tab, "gallery")
    await tab.goto(f"{url}/gallery?job={job_id}")
    await expect(tab.locator("#actions button").first).to_be_visible()
    await examine(tab, "picture")
    await tab.goto(f"{url}/modes")
    await tab.get_by_label("YAML").check()
    await tab.get_by_label("The whole file").fill("modes: [")
    await expect(tab.locator("#problems li")).to_have_count(1)
    await examine(tab, "modes as YAML")
    await tab.get_by_role("button", name="Discard the draft").click()
    await tab.get_by_label("Form").check()
    await tab.get_by_label("Title").fill("Another")
    await expect(tab.locator("#diff .added")).to_have_count(1)
    await examine(tab, "modes as a form")
    await tab.get_by_role("button", name="Discard the draft").click()
    await tab.goto(f"{url}/status")
    await expect(tab.get_by_role("meter").first).to_be_visible()
    await examine(tab, "status")
    await tab.goto(f"{url}/queue")
    slow = {"prompt": "a ring", "steps": 100, "count": 4, "size": "256x256"}
    asked = [await tab.request.post(f"{url}/api/jobs", data=slow) for _ in range(5)]
    await expect(tab.locator("#waiting .row").first).to_be_visible()
    await examine(tab, "queue")
    for answer in asked:
        job = await answer.json()
        await tab.request.post(f"{url}/api/queue/{job['id']}/cancel", data={})


async def examine(tab: Tab, what: str) -> None:
    """Has axe look at what is shown, in light and in dark."""
    schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
    for scheme in schemes:
        await tab.emulate_media(color_scheme=scheme)
        results = await Axe().run(tab)
        serious = [
            f"{what}, {scheme}: {found['id']}: {[node['html'] for node in found['nodes']][:3]}"
            for found in results.response["violations"]
            if found["impact"] in ("serious", "critical")
        ]
        assert serious == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
async def test_a_page_is_light(context: BrowserContext, url: str, page: PageSpec) -> None:
    sizes: dict[str, int] = {}
    tab = await context.new_page()
    answers: list[Response] = []
    tab.on("response", lambda answer: answers.append(answer))
    await tab.goto(url + page.path)
    await expect(tab.get_by_role("status").first).to_have_text("Ready")
    for response in answers:
        kind = response.request.resource_type
        if kind in ("document", "script", "stylesheet") or "/static/" in response.url:
            sizes[response.url] = len(await response.body())
    assert len(sizes) > 4
    assert sum(sizes.values()) < MOST_BYTES
    await tab.close()
