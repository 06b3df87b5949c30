"""Makes the README's picture of the page: ``python -m tests.page_screenshot docs/images/page.png``.

The pictures on it come from the bundled model, through the whole program.
"""

import argparse
import asyncio
import tempfile
from pathlib import Path

from playwright.async_api import expect

from tests.page_kit import draw, open_browser, open_real_page

PROMPTS = (
    "/imagine a yellow star on a blue background",
    "/imagine a green heart on a pink background",
    "/imagine a purple ring on a white background",
    "/imagine a red circle on a white background",
)


async def make(target: Path) -> None:
    """Draws the prompts, the last one on top, and saves what the page looks like."""
    with tempfile.TemporaryDirectory() as folder:
        async with open_real_page(Path(folder)) as url, open_browser() as browser:
            page = await browser.new_page(viewport={"width": 1200, "height": 900})
            await page.goto(url)
            for prompt in PROMPTS:
                await draw(page, prompt)
            await expect(page.get_by_role("status").first).to_have_text("Ready")
            target.parent.mkdir(parents=True, exist_ok=True)
            await page.screenshot(path=target, full_page=True, animations="disabled")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", type=Path, help="the PNG file to write")
    asyncio.run(make(parser.parse_args().target))
