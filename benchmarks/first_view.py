"""How soon a page is seen, and how heavy it is: ``python -m benchmarks.first_view``.

A browser without a cache opens each page of a server that has drawn a few pictures. What is printed
is the time until the first words are painted and until all scripts have run, and the weight of the
page's own files, pictures and figures left out.
"""

import asyncio
import statistics
import tempfile
from pathlib import Path

from bot.web.page_routes import PAGES
from tests.page_kit import open_browser, open_context
from tests.web_kit import open_page

ROUNDS = 5

_PAINTED = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
_RUN = "performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd"
_WEIGHT = """
[...performance.getEntriesByType('resource'), ...performance.getEntriesByType('navigation')]
    .filter(({ name, entryType }) => entryType === 'navigation' || name.includes('/static/'))
    .reduce((sum, { decodedBodySize }) => sum + decodedBodySize, 0)
"""


async def main() -> None:
    """Measures and prints."""
    with tempfile.TemporaryDirectory() as folder:
        async with open_page(Path(folder)) as page, open_browser() as browser:
            for number in range(8):
                await page.finished(f"a red circle, number {number}")
            print(f"{'page':10}{'painted':>12}{'run':>12}{'weight':>12}   (median of {ROUNDS})")
            for spec in PAGES:
                rounds = []
                for _ in range(ROUNDS):
                    async with open_context(browser) as context:
                        tab = await context.new_page()
                        await tab.goto(page.url + spec.path)
                        await tab.wait_for_function(f"{_PAINTED} > 0")
                        rounds.append(
                            [await tab.evaluate(each) for each in (_PAINTED, _RUN, _WEIGHT)]
                        )
                painted, run, weight = (
                    statistics.median(each) for each in zip(*rounds, strict=True)
                )
                print(f"{spec.name:10}{painted:9.0f} ms{run:9.0f} ms{weight / 1000:9.1f} kB")


if __name__ == "__main__":
    asyncio.run(main())
