"""Pictures of the pages: ``python -m tests.page_screenshot docs/images`` makes the README's.

With ``--every`` all pages are taken, on a desktop and a phone, light and dark, to be looked at.
What they show comes from the bundled model, through the whole program.
"""

import argparse
import asyncio
import io
import tempfile
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from playwright.async_api import Browser, ViewportSize, expect
from playwright.async_api import Page as Tab

from tests.page_kit import PATIENCE, PROMPTS, draw, open_browser, open_real_page

DESKTOP: ViewportSize = {"width": 1200, "height": 900}
PHONE: ViewportSize = {"width": 390, "height": 844}


@dataclass(frozen=True)
class Shot:
    """A picture to take.

    Attributes:
        name: of the file.
        page: which page, in which state.
        viewport: how large the window is.
        scheme: light or dark.
        whole: all of the page rather than what a window shows.
    """

    name: str
    page: str
    viewport: ViewportSize
    scheme: str
    whole: bool = True


CHOSEN = (
    Shot("page.png", "create", DESKTOP, "light"),
    Shot("page-gallery.png", "picture", DESKTOP, "dark", whole=False),
    Shot("page-modes.png", "edit", DESKTOP, "light", whole=False),
    Shot("page-status.png", "status", DESKTOP, "dark", whole=False),
    Shot("page-phone.png", "gallery", PHONE, "light", whole=False),
)
EVERY = tuple(
    Shot(f"{page}-{size}-{scheme}.png", page, viewport, scheme, whole=page != "picture")
    for page in ("create", "gallery", "picture", "queue", "modes", "edit", "yaml", "status")
    for size, viewport in (("desktop", DESKTOP), ("phone", PHONE))
    for scheme in ("light", "dark")
)


async def make(folder: Path, shots: tuple[Shot, ...]) -> None:
    """Draws the prompts and what is made of them, and saves what the pages look like then."""
    with tempfile.TemporaryDirectory() as data:
        async with open_real_page(Path(data)) as url, open_browser() as browser:
            tab = await browser.new_page()
            await _draw(tab, url)
            for shot in shots:
                await _take(browser, url, shot, folder)


async def _draw(tab: Tab, url: str) -> None:
    await tab.goto(url)
    for prompt in PROMPTS:
        await draw(tab, prompt)
    # The last one gets a family.
    await tab.goto(f"{url}/gallery")
    await tab.locator(".tiles a").first.click()
    for verb in ("Vary", "Upscale", "Again"):
        await tab.get_by_role("button", name=verb, exact=True).click()
        await expect(tab.locator("#detail-news")).to_contain_text("Done.", timeout=PATIENCE)


async def _take(browser: Browser, url: str, shot: Shot, folder: Path) -> None:
    scheme = "dark" if shot.scheme == "dark" else "light"
    context = await browser.new_context(
        viewport=shot.viewport, color_scheme=scheme, has_touch=shot.viewport is PHONE
    )
    tab = await context.new_page()
    busy = await _open(tab, url, shot.page)
    shown = "[...document.images].filter(image => image.src && image.checkVisibility())"
    await tab.evaluate(f"Promise.all({shown}.map(image => image.decode()))")
    picture = await tab.screenshot(full_page=shot.whole, animations="disabled")
    for job_id in busy:
        await tab.request.post(f"{url}/api/queue/{job_id}/cancel", data={})
    await context.close()
    with Image.open(io.BytesIO(picture)) as image:
        image.convert("RGB").quantize(256).save(folder / shot.name, optimize=True)


async def _open(tab: Tab, url: str, page: str) -> list[str]:
    """Opens a page in the state that its picture shows; returns ids of what is drawn for it."""
    paths = {"create": "/", "picture": "/gallery", "edit": "/modes", "yaml": "/modes"}
    await tab.goto(url + paths.get(page, f"/{page}"))
    await expect(tab.get_by_role("status").first).to_have_text("Ready")
    if page == "create":
        await expect(tab.locator(".job img").first).to_be_visible()
    elif page == "gallery":
        await expect(tab.locator(".tiles img").first).to_be_visible()
        await tab.locator(".tiles img").evaluate_all("all => all.map(i => i.loading = 'eager')")
    elif page == "picture":
        await tab.locator(".tiles a").nth(3).click()
        await expect(tab.locator(".kin")).to_have_count(4)
    elif page == "queue":
        asked = [
            await tab.request.post(
                f"{url}/api/jobs",
                data={"prompt": prompt, "steps": 100, "count": 4, "size": "256x256"},
            )
            for prompt in PROMPTS * 3
        ]
        await expect(tab.locator("#waiting .row").first).to_be_visible()
        return [(await answer.json())["id"] for answer in asked]
    elif page == "edit":
        await tab.get_by_role("button", name="Edit: Demo").click()
        await tab.get_by_label("Steps", exact=True).fill("12")
        await tab.get_by_label("Behind every prompt").fill("flat colours")
        await expect(tab.locator("#verdict")).to_have_text("The draft is fine.")
        await tab.get_by_label("A trial picture with the draft of this mode").fill(
            "a yellow star on a blue background"
        )
        await tab.get_by_role("button", name="Try it").click()
        await expect(tab.locator("#trial-result")).to_contain_text("Done", timeout=PATIENCE)
        await tab.get_by_role("button", name="Apply").scroll_into_view_if_needed()
    elif page == "yaml":
        await tab.get_by_label("YAML").check()
        text = await tab.get_by_label("The whole file").input_value()
        wrong = text.replace("default_steps: 20", "default_steps: many")
        await tab.get_by_label("The whole file").fill(wrong)
        await expect(tab.locator("#problems")).to_contain_text("default_steps")
    elif page == "modes":
        await expect(tab.locator("#verdict")).to_have_text("Nothing is changed.")
    elif page == "status":
        await expect(tab.locator(".box-card .memory").first).to_contain_text("in use")
        await expect(tab.locator(".plots img")).to_have_count(6)
    return []


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the PNG files go")
    parser.add_argument("--every", action="store_true", help="all pages, to be looked at")
    parser.add_argument("--only", help="those whose name begins so")
    options = parser.parse_args()
    wanted = EVERY if options.every else CHOSEN
    if options.only:
        wanted = tuple(shot for shot in wanted if shot.name.startswith(options.only))
    options.folder.mkdir(parents=True, exist_ok=True)
    asyncio.run(make(options.folder, wanted))
