"""The page in a real browser: first the whole way with the real model, then each habit of it."""

import asyncio
import io
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from PIL import Image
from playwright.async_api import (
    Browser,
    BrowserContext,
    FilePayload,
    Locator,
    Route,
    expect,
)
from playwright.async_api import Page as Tab

from bot.settings import Settings
from bot.source_images import MAX_BYTES
from bot.web.app import WebFrontEnd, create_web_app
from engine.errors import DreamLabError
from engine.jobs import Sampler
from engine.testing import FakeExecutor
from tests.page_kit import (
    CHROMIUM,
    PATIENCE,
    draw,
    open_browser,
    open_context,
    open_real_page,
)
from tests.web_kit import MODES, Page, open_page, stop

expect.set_options(timeout=PATIENCE / 2)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed"),
    pytest.mark.asyncio(loop_scope="module"),
]

PHONE = {"width": 360, "height": 740}
JPEG = io.BytesIO()
Image.new("RGB", (16, 16), "orange").save(JPEG, "JPEG")


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
    """A page whose one worker does what the test says."""
    async with open_page(tmp_path, FakeExecutor(hold=True)) as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="module")
async def tab(context: BrowserContext, held: Page) -> Tab:
    """The page in a window."""
    opened = await context.new_page()
    await opened.goto(held.url)
    await expect(opened.get_by_role("status").first).to_have_text("Ready")
    return opened


async def send(tab: Tab, text: str) -> None:
    await tab.get_by_label("What do you see?").fill(text)
    await tab.keyboard.press("Enter")


async def finish_next(page: Page) -> None:
    await page.executor.until(lambda: bool(page.executor.running))
    page.executor.finish(page.executor.running[0])


def mode_card(tab: Tab, title: str) -> Locator:
    return tab.get_by_role("group", name="Mode").get_by_role("radio", name=title)


async def scrolls_sideways(tab: Tab) -> bool:
    return bool(await tab.evaluate("document.documentElement.scrollWidth > innerWidth"))


async def test_from_the_first_word_to_the_picture(context: BrowserContext, tmp_path: Path) -> None:
    async with open_real_page(tmp_path / "data") as url:
        tab = await context.new_page()
        await tab.goto(url)
        await expect(tab.get_by_text("No picture yet")).to_be_visible()
        card = await draw(tab, "/imagine a red circle on a white background")
        await expect(card.get_by_role("heading")).to_have_text("a red circle on a white background")
        for fact in ("Size", "Seed", "Steps", "Guidance", "Sampler", "Mode", "Time"):
            await expect(card.get_by_text(fact, exact=True)).to_be_visible()

        image = card.get_by_role("img", name="a red circle on a white background")
        with Image.open(io.BytesIO(await image.screenshot())) as shown:
            picture = shown.convert("RGB")
        width, height = picture.size
        red, green, blue = picture.getpixel((width // 2, height // 2))
        assert red > 150
        assert max(green, blue) < 110
        for corner in ((8, 8), (width - 9, 8), (8, height - 9), (width - 9, height - 9)):
            assert min(picture.getpixel(corner)) > 190

        async with tab.expect_download() as download:
            await card.get_by_role("link", name="Download").click()
        file = await download.value
        assert re.fullmatch(r"dream-lab-\d+\.png", file.suggested_filename)
        with Image.open(await file.path()) as saved:
            assert "a red circle on a white background" in saved.info["parameters"]

        await tab.screenshot(path=tmp_path / "page.png", full_page=True)
        await tab.reload()
        await expect(tab.locator(".job")).to_have_count(1)
        await tab.get_by_role("button", name="Delete").click()
        await expect(tab.get_by_text("No picture yet")).to_be_visible()
        await tab.reload()
        await expect(tab.get_by_text("No picture yet")).to_be_visible()
        await tab.close()


async def test_the_way_of_a_job_is_shown(tab: Tab, held: Page) -> None:
    await send(tab, "/imagine first")
    await held.executor.until(lambda: bool(held.executor.running))
    await send(tab, "second")
    await send(tab, "third")
    await expect(tab.locator(".job").nth(0)).to_contain_text("Number 2 in the queue")
    await expect(tab.locator(".job").nth(1)).to_contain_text("Next in the queue")
    first = tab.locator(".job").nth(2)
    held.executor.report(held.executor.running[0], 3, JPEG.getvalue())
    await expect(first).to_contain_text("Drawing: step 3 of 4")
    bar = first.get_by_role("progressbar", name="Progress of first")
    assert await bar.evaluate("bar => bar.value") == 0.75
    preview = first.locator("img.preview")
    assert await preview.evaluate("image => image.decode().then(() => image.naturalWidth)") == 16
    await finish_next(held)
    await expect(first.get_by_role("img", name="first")).to_be_visible()
    await expect(bar).to_be_hidden()
    await expect(tab.locator(".job").nth(0)).to_contain_text("Next in the queue")


async def test_quick_hands_lose_nothing_and_ask_nothing_twice(tab: Tab, held: Page) -> None:
    box = tab.get_by_label("What do you see?")
    for prompt in ("one", "two", "three"):
        await box.fill(prompt)
        await box.evaluate(
            """box => { for (let i = 0; i < 2; i++) box.dispatchEvent(
                new KeyboardEvent("keydown", {key: "Enter", bubbles: true, cancelable: true})) }"""
        )
    await expect(tab.locator(".job h3")).to_have_text(["three", "two", "one"])
    history = await held.studio.history("web:local")
    assert [job.request.prompt for job in history] == ["three", "two", "one"]


async def test_a_reload_attaches_to_what_runs(tab: Tab, held: Page) -> None:
    await send(tab, "a blue star")
    await held.executor.until(lambda: bool(held.executor.running))
    held.executor.report(held.executor.running[0], 1)
    await expect(tab.locator(".job")).to_contain_text("step 1 of 4")
    await tab.reload()
    await expect(tab.locator(".job")).to_contain_text("step 1 of 4")
    await finish_next(held)
    await expect(tab.get_by_role("img", name="a blue star")).to_be_visible()


async def test_the_keyboard_is_enough(tab: Tab, held: Page) -> None:
    await expect(tab.get_by_label("What do you see?")).to_be_focused()
    await tab.keyboard.type("a red")
    await tab.keyboard.press("Shift+Enter")
    await tab.keyboard.type("circle")
    await expect(tab.get_by_label("What do you see?")).to_have_value("a red\ncircle")
    await tab.keyboard.press("Enter")
    await expect(tab.get_by_role("heading", name="a red circle")).to_be_visible()
    names = []
    for _ in range(3):
        await tab.keyboard.press("Tab")
        names.append(await tab.evaluate("document.activeElement.textContent.trim()"))
        outline = await tab.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid"  # where the focus is can be seen
    assert names == ["Imagine", "More", "Cancel"]
    await tab.keyboard.press("Enter")
    card = tab.locator(".job")
    await expect(card).to_contain_text("Cancelled")
    await expect(card).to_be_focused()  # and not back at the top of the page
    await tab.keyboard.press("Tab")
    await tab.keyboard.press("Enter")
    await expect(tab.locator(".job")).to_have_count(2)


async def test_a_screen_reader_hears_the_milestones(tab: Tab, held: Page) -> None:
    heard = tab.locator("#announcer")
    await send(tab, "a red circle")
    await expect(heard).to_have_text("Drawing begins: a red circle")
    await finish_next(held)
    await expect(heard).to_have_text("The picture is ready: a red circle")


async def test_every_field_has_a_name_and_says_what_is_allowed(tab: Tab) -> None:
    await tab.get_by_text("More", exact=True).click()
    fields = {
        "Keep away from": "negative prompt",
        "Size": "64 to 128, by 8",
        "Pictures": "1 to 4",
        "Seed": "draws the same",
        "Steps": "1 to 50",
        "Guidance": "1 to 30",
        "Sampler": "How a step is taken",
        "Start from a picture": "drop one",
    }
    for name, help_text in fields.items():
        await expect(tab.get_by_label(name, exact=True)).to_have_accessible_description(
            re.compile(help_text)
        )
    await expect(tab.get_by_label("Size", exact=True)).to_have_attribute("placeholder", "64x64")
    await mode_card(tab, "other").check()
    await expect(tab.get_by_label("Size", exact=True)).to_have_attribute("placeholder", "512x512")


async def test_a_modes_own_rules_shape_the_fields(tab: Tab, held: Page, tmp_path: Path) -> None:
    rules = ("negative_allowed: false", "sizes: [64, 64x128]", "samplers: [DDIM]")
    added = "".join(f"    {rule}\n" for rule in rules)
    held.catalog.path.write_text(MODES.format(root=tmp_path) + added)
    assert await held.catalog.reload()
    await tab.reload()
    await tab.get_by_text("More", exact=True).click()
    negative = tab.get_by_label("Keep away from", exact=True)
    await negative.fill("trees")
    await mode_card(tab, "other").check()
    await expect(negative).to_be_disabled()
    await expect(tab.get_by_label("Size", exact=True)).to_have_accessible_description(
        "64x64, 64x128."
    )
    samplers = tab.get_by_label("Sampler", exact=True).locator("option")
    await expect(samplers).to_have_text(["DDIM (default)", "DDIM"])
    await send(tab, "a red circle")
    await held.executor.until(lambda: bool(held.executor.running))
    assert held.executor.requests[0].negative_prompt == ""


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("Steps", "900", "steps: '900' is not allowed. Allowed: a whole number from 1 to 50."),
        ("Steps", "many", "steps: 'many' is not allowed. Allowed: a whole number from 1 to 50."),
        (
            "Size",
            "huge",
            "size: 'huge' is not allowed. Allowed: width x height in pixels, such as 512x768.",
        ),
        (
            "Size",
            "65x64",
            "width: '65' is not allowed. Allowed: a whole number from 64 to 128, a multiple of 8.",
        ),
        ("Guidance", "0,5", "guidance: '0.5' is not allowed. Allowed: a number from 1 to 30."),
    ],
)
async def test_a_refusal_stands_beside_the_box_and_leads_to_the_field(
    tab: Tab, field: str, value: str, sentence: str
) -> None:
    await tab.get_by_text("More", exact=True).click()
    await tab.get_by_label(field, exact=True).fill(value)
    await tab.get_by_text("More", exact=True).click()
    await send(tab, "a red circle")
    await expect(tab.get_by_role("alert")).to_have_text(sentence)
    wrong = tab.get_by_label(field, exact=True)
    await expect(wrong).to_be_focused()
    await expect(wrong).to_have_attribute("aria-invalid", "true")
    await expect(wrong).to_have_accessible_error_message(sentence)
    await wrong.fill("")
    await expect(tab.get_by_role("alert")).to_be_hidden()
    await expect(tab.locator(".job")).to_have_count(0)


async def test_typed_commands(tab: Tab, held: Page) -> None:
    await send(tab, "/mode list")
    lines = [
        "Small (small), current, 64x64",
        "other, 512x512",
        "Switch with /mode switch NAME.",
    ]
    await expect(tab.locator("#notice")).to_have_text("\n".join(lines))
    await send(tab, "/mode switch other")
    await expect(tab.locator("#notice")).to_contain_text("Switching to other")
    await send(tab, "/mode switch nope")
    await expect(tab.get_by_role("alert")).to_contain_text("Allowed: small, other")
    await send(tab, "/dance")
    await expect(tab.get_by_role("alert")).to_contain_text("/imagine, /mode list, /mode switch")
    await send(tab, "")
    await expect(tab.get_by_role("alert")).to_contain_text("prompt: nothing is not allowed")


async def test_again_vary_and_several_pictures(tab: Tab, held: Page) -> None:
    await tab.get_by_text("More", exact=True).click()
    await tab.get_by_label("Pictures", exact=True).fill("2")
    await tab.get_by_label("Seed", exact=True).fill("5")
    await send(tab, "a red circle")
    await finish_next(held)
    first = tab.locator(".job").last
    await expect(first.get_by_role("img")).to_have_count(2)
    await expect(first.get_by_role("link", name="Download picture 2")).to_be_visible()
    await expect(first).to_contain_text("5 to 6")
    await first.get_by_role("button", name="Vary").click()
    await expect(tab.locator(".job")).to_have_count(2)
    await expect(tab.locator(".job").first).to_be_focused()
    await expect(tab.locator(".job").first).to_contain_text("5, varied with")
    await first.get_by_role("button", name="Again").click()
    await expect(tab.locator(".job")).to_have_count(3)


async def test_a_failure_is_told_and_can_be_put_away(tab: Tab, held: Page) -> None:
    await send(tab, "a red circle")
    await held.executor.until(lambda: bool(held.executor.running))
    held.executor.fail(held.executor.running[0], DreamLabError("The paint is dry."))
    card = tab.locator(".job")
    await expect(card).to_contain_text("The paint is dry.")
    await tab.reload()
    await expect(card).to_contain_text("The paint is dry.")
    await card.get_by_role("button", name="Dismiss").click()
    await expect(card).to_have_count(0)
    await tab.reload()
    await expect(tab.get_by_text("No picture yet")).to_be_visible()


async def test_an_example_is_one_click(tab: Tab, held: Page) -> None:
    await tab.get_by_role("button", name="a blue star").click()
    await expect(tab.get_by_label("What do you see?")).to_have_value("/imagine a blue star")
    await finish_next(held)
    await expect(tab.get_by_role("img", name="a blue star")).to_be_visible()


async def test_markup_in_a_prompt_is_just_text(tab: Tab, held: Page) -> None:
    prompt = "<img src=x onerror=alert(1)><b>bold</b>"
    await send(tab, prompt)
    await finish_next(held)
    await expect(tab.get_by_role("heading", name=prompt)).to_be_visible()
    await expect(tab.locator(".job b")).to_have_count(0)


async def test_tabs_agree(tab: Tab, context: BrowserContext, held: Page) -> None:
    other = await context.new_page()
    await other.goto(held.url)
    await send(tab, "a red circle")
    await finish_next(held)
    await expect(other.get_by_role("img", name="a red circle")).to_be_visible()
    await other.get_by_role("button", name="Delete").click()
    await expect(tab.get_by_text("No picture yet")).to_be_visible()


async def test_the_page_says_when_the_server_is_away_and_goes_on_when_it_is_back(
    tab: Tab, held: Page
) -> None:
    await send(tab, "a red circle")
    await held.executor.until(lambda: bool(held.executor.running))
    port = held.port
    await stop(held.serving)
    await expect(tab.get_by_role("status").first).to_have_text("Offline, trying again")
    await send(tab, "a blue star")
    await expect(tab.get_by_role("alert")).to_contain_text("does not answer")
    await finish_next(held)
    settings = Settings(web_port=port)
    web = create_web_app(held.studio, held.catalog, held.pool, settings)
    serving = asyncio.create_task(WebFrontEnd(web, settings).run())
    await expect(tab.get_by_role("img", name="a red circle")).to_be_visible()
    await expect(tab.get_by_role("status").first).to_have_text("Ready")
    await stop(serving)


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_it_fits_a_phone(browser: Browser, held: Page, scheme: str) -> None:
    context = await browser.new_context(viewport=PHONE, color_scheme=scheme, has_touch=True)
    tab = await context.new_page()
    await tab.goto(held.url)
    await expect(tab.get_by_text("No picture yet")).to_be_visible()
    assert not await scrolls_sideways(tab)
    await tab.get_by_text("More", exact=True).click()
    assert not await scrolls_sideways(tab)
    await send(tab, "x" * 500)
    await finish_next(held)
    await expect(tab.locator(".job img")).to_be_visible()
    assert not await scrolls_sideways(tab)
    targets = await tab.locator("button:visible, .button:visible").evaluate_all(
        "all => all.map(e => e.getBoundingClientRect().height)"
    )
    assert min(targets) >= 40  # a finger's width
    await context.close()


# A picture to start from, LoRAs, modes ------------------------------------------------------------


def picture(colour: str = "blue", size: tuple[int, int] = (128, 128)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


def upload(name: str = "sea.png", content: bytes | None = None) -> FilePayload:
    return {"name": name, "mimeType": "image/png", "buffer": content or picture()}


async def test_a_picture_goes_in_and_one_like_it_comes_out(
    context: BrowserContext, tmp_path: Path
) -> None:
    async with open_real_page(tmp_path / "data") as url:
        tab = await context.new_page()
        await tab.goto(url)
        await tab.get_by_text("More", exact=True).click()
        await tab.get_by_label("Start from a picture").set_input_files(upload())
        await expect(tab.get_by_role("img", name="The picture to start from")).to_be_visible()
        await tab.get_by_label("Drawn anew").fill("0.2")
        card = await draw(tab, "a yellow star on a blue background")
        await expect(card).to_contain_text("strength 0.2")
        shown = await card.get_by_role("img").first.screenshot()
        with Image.open(io.BytesIO(shown)) as drawn:
            red, green, blue = drawn.convert("RGB").resize((1, 1)).getpixel((0, 0))
        assert blue > 1.5 * max(red, green)
        await tab.close()


async def test_a_picture_is_sent_with_its_strength_until_it_is_removed(
    tab: Tab, held: Page
) -> None:
    await tab.get_by_text("More", exact=True).click()
    await tab.get_by_label("Start from a picture").set_input_files(upload())
    await expect(tab.locator("#source")).to_contain_text("sea.png")
    strength = tab.get_by_label("Drawn anew")
    await expect(strength).to_have_value("0.75")
    await strength.focus()
    await tab.keyboard.press("ArrowLeft")
    await expect(tab.locator("#strength-shown")).to_have_text("0.7")
    await send(tab, "first")
    await finish_next(held)
    await tab.get_by_role("button", name="Remove the picture").click()
    await expect(tab.locator("#source")).to_be_hidden()
    await expect(tab.get_by_label("What do you see?")).to_be_focused()
    await send(tab, "second")
    await finish_next(held)
    first, second = held.executor.requests
    assert first.strength == 0.7
    assert first.source is not None
    assert first.source.is_file()
    assert second.source is None


@pytest.mark.parametrize("event", ["drop", "paste"])
async def test_a_picture_can_be_dropped_and_pasted(tab: Tab, event: str) -> None:
    await tab.evaluate(
        """([event, bytes]) => {
            const data = new DataTransfer();
            data.items.add(new File(["text"], "notes.txt", { type: "text/plain" }));
            data.items.add(new File([new Uint8Array(bytes)], "sea.png", { type: "image/png" }));
            const about = { bubbles: true, cancelable: true };
            const happened = event === "drop"
                ? new DragEvent("drop", { ...about, dataTransfer: data })
                : new ClipboardEvent("paste", { ...about, clipboardData: data });
            document.querySelector("footer").dispatchEvent(happened);
        }""",
        [event, list(picture())],
    )
    await expect(tab.locator("#image-name")).to_have_text("sea.png")
    preview = tab.get_by_role("img", name="The picture to start from")
    assert await preview.evaluate("image => image.decode().then(() => image.naturalWidth)") == 128


async def test_a_file_that_is_no_picture_leads_back_to_the_field(tab: Tab) -> None:
    await tab.get_by_text("More", exact=True).click()
    await tab.get_by_label("Start from a picture").set_input_files(upload(content=b"nonsense"))
    await tab.get_by_text("More", exact=True).click()
    await send(tab, "a red circle")
    await expect(tab.get_by_role("alert")).to_contain_text(
        "image: 'a picture that is damaged or of another kind' is not allowed."
    )
    await expect(tab.get_by_label("Start from a picture")).to_be_focused()
    await expect(tab.locator(".job")).to_have_count(0)


async def test_a_file_that_is_too_large_is_told_before_it_travels(tab: Tab, tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    with large.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    await tab.get_by_text("More", exact=True).click()
    await expect(mode_card(tab, "Small")).to_be_checked()  # the modes say how large one may be
    await tab.get_by_label("Start from a picture").set_input_files(large)
    await expect(tab.get_by_role("alert")).to_have_text(
        "image: large.png is too large. Allowed: 20 MB."
    )
    await expect(tab.locator("#source")).to_be_hidden()


async def test_a_drawn_picture_can_be_started_from(tab: Tab, held: Page) -> None:
    await send(tab, "first")
    await finish_next(held)
    await tab.get_by_role("button", name="Start from it").click()
    await expect(tab.locator("#source")).to_be_visible()
    await send(tab, "second")
    await finish_next(held)
    await expect(tab.locator(".job").first).to_contain_text("Begun with")
    assert held.executor.requests[1].source is not None


async def test_loras_and_a_sampler_reach_the_drawing(tab: Tab, held: Page, tmp_path: Path) -> None:
    (tmp_path / "loras").mkdir()
    for name in ("ink", "soft light", "pixel-art"):
        (tmp_path / "loras" / f"{name}.safetensors").touch()
    rules = '    loras_allowed: "*"\n    max_loras: 2\n    max_lora_strength: 1.5\n  other:\n'
    modes = MODES.replace("  other:\n", rules).format(root=tmp_path)
    held.catalog.path.write_text(modes)
    assert await held.catalog.reload()
    await tab.reload()
    await tab.get_by_text("More", exact=True).click()
    loras = tab.get_by_label("LoRAs", exact=True)
    await expect(loras.locator("option")).to_have_text(
        ["Add one", "ink", "pixel-art", "soft light"]
    )
    await loras.select_option("soft light")
    await loras.select_option("ink")
    await expect(loras).to_be_disabled()  # two are all that may be
    await tab.get_by_role("slider", name="soft light").focus()
    for _ in range(4):
        await tab.keyboard.press("ArrowLeft")
    await expect(tab.locator("#loras output").first).to_have_text("0.8")
    await tab.get_by_role("button", name="Remove ink").click()
    await expect(loras).to_be_focused()
    await loras.select_option("pixel-art")
    await tab.get_by_label("Sampler", exact=True).select_option("DDIM")
    await send(tab, "a fox")
    await finish_next(held)
    (request,) = held.executor.requests
    assert request.sampler is Sampler.DDIM
    laid = [(lora.path.stem, lora.strength) for lora in request.model.loras]
    assert laid == [("soft light", 0.8), ("pixel-art", 1.0)]
    await mode_card(tab, "other").check()
    await expect(loras).to_be_hidden()
    await send(tab, "a fox elsewhere")
    await finish_next(held)
    assert (held.executor.requests[1].mode, held.executor.requests[1].model.loras) == ("other", ())


async def test_a_refiner_takes_over_where_it_is_told_and_only_where_there_is_one(
    tab: Tab, held: Page, tmp_path: Path
) -> None:
    (tmp_path / "refiner.safetensors").touch()
    modes = MODES.format(root=tmp_path) + "    refiner: refiner.safetensors\n"
    held.catalog.path.write_text(modes)
    assert await held.catalog.reload()
    await tab.reload()
    await tab.get_by_text("More", exact=True).click()
    share = tab.get_by_label("Refiner from")
    await expect(share).to_be_hidden()
    await mode_card(tab, "other").check()
    await expect(share).to_have_attribute("placeholder", "0.8")
    await share.fill("most")
    await send(tab, "a fox")
    await expect(tab.get_by_role("alert")).to_contain_text("Allowed: a number from 0 to 1.")
    await expect(share).to_be_focused()
    await share.fill("0,5")
    await send(tab, "a fox")
    await finish_next(held)
    await expect(tab.locator(".job").first).to_contain_text("after 50 % of the steps")
    await mode_card(tab, "Small").check()
    await send(tab, "a fox elsewhere")
    await finish_next(held)
    assert [request.refiner_from for request in held.executor.requests] == [0.5, 1]


async def test_a_mode_is_shown_with_the_first_picture_as_soon_as_it_is_drawn(
    tab: Tab, held: Page
) -> None:
    await tab.get_by_text("More", exact=True).click()
    shown = tab.get_by_role("group", name="Mode").locator("img:visible")
    await expect(mode_card(tab, "Small")).to_be_checked()
    await expect(shown).to_have_count(0)
    await send(tab, "a fox")
    await finish_next(held)
    await expect(shown).to_have_count(1)
    await expect(mode_card(tab, "Small")).to_have_accessible_name(re.compile("^Small"))
    assert await shown.evaluate("image => image.decode().then(() => image.naturalWidth)") == 64


async def test_a_picture_is_enlarged_from_its_card(tab: Tab, held: Page) -> None:
    await send(tab, "a fox")
    await finish_next(held)
    await tab.get_by_role("button", name="Upscale").click()
    await finish_next(held)
    larger = tab.locator(".job").first
    await expect(larger).to_contain_text("128 \N{MULTIPLICATION SIGN} 128")
    await expect(larger).to_be_focused()


async def test_modes_are_chosen_with_the_arrow_keys_and_say_what_they_are(
    tab: Tab, held: Page, tmp_path: Path
) -> None:
    modes = MODES.format(root=tmp_path) + "    description: Soft\n    allowed_roles: [Artists]\n"
    held.catalog.path.write_text(modes)
    assert await held.catalog.reload()
    await tab.reload()
    await tab.get_by_text("More", exact=True).click()
    await expect(mode_card(tab, "Small")).to_be_checked()
    await mode_card(tab, "Small").focus()
    await tab.keyboard.press("ArrowDown")
    chosen = mode_card(tab, "other")
    await expect(chosen).to_be_checked()
    await expect(chosen).to_be_focused()
    await expect(tab.locator(".mode").last).to_contain_text("on Discord for Artists")
    await expect(tab.locator(".mode").last).to_contain_text("Soft")
    await send(tab, "a fox")
    await held.executor.until(lambda: bool(held.executor.requests))
    assert held.executor.requests[0].mode == "other"


async def test_a_refused_edit_of_the_modes_is_told(tab: Tab, held: Page) -> None:
    held.catalog.path.write_text("modes: [")
    assert not await held.catalog.reload()
    await tab.get_by_text("More", exact=True).click()
    await expect(tab.locator("#mode-problem")).to_contain_text("modes.yaml, line 2: not YAML")
    await send(tab, "/mode list")
    await expect(tab.locator("#notice")).to_contain_text("The last edit was refused: modes.yaml")


async def test_the_login_takes_no_token_before_it_can_send_it(
    context: BrowserContext, tmp_path: Path
) -> None:
    async with open_page(tmp_path, web_token="a" * 16) as page:
        tab, may_come = await context.new_page(), asyncio.Event()

        async def late(route: Route) -> None:
            await may_come.wait()
            await route.continue_()

        await tab.route("**/static/login.js", late)
        await tab.goto(f"{page.url}/login", wait_until="commit")
        await expect(tab.get_by_label("Your token?")).to_be_disabled()
        await expect(tab.get_by_role("button", name="Sign in")).to_be_disabled()
        may_come.set()
        await expect(tab.get_by_label("Your token?")).to_be_focused()
        await tab.keyboard.type("a" * 16)
        await tab.keyboard.press("Enter")
        await expect(tab).to_have_url(f"{page.url}/")
        await tab.close()


async def test_whoever_has_a_token_signs_in_draws_and_signs_out(
    context: BrowserContext, tmp_path: Path
) -> None:
    tokens = {"web_token": "a" * 16, "web_viewer_token": ("v" * 16,)}
    async with open_page(tmp_path, **tokens) as page:
        tab = await context.new_page()
        await tab.goto(page.url)
        await expect(tab).to_have_url(f"{page.url}/login")
        await tab.get_by_label("Your token?").fill("no such token")
        await tab.keyboard.press("Enter")
        await expect(tab.get_by_role("alert")).to_have_text("That token is none of this page's.")
        await tab.get_by_label("Your token?").fill("a" * 16)
        await tab.keyboard.press("Enter")
        await expect(tab.get_by_role("status").first).to_have_text("Ready")
        await send(tab, "a red circle")
        await expect(tab.locator(".job")).to_have_attribute("data-status", "done")
        assert "dream-lab" not in await tab.evaluate("document.cookie")
        await tab.goto(f"{page.url}/login")  # as a link on another site leads there
        await expect(tab).to_have_url(f"{page.url}/")
        await expect(tab.get_by_role("status").first).to_have_text("Ready")

        await tab.get_by_role("button", name="Sign out").click()
        await expect(tab).to_have_url(f"{page.url}/login")
        await tab.get_by_label("Your token?").fill("v" * 16)
        await tab.keyboard.press("Enter")
        await expect(tab).to_have_url(f"{page.url}/status")  # of no use to them is where they draw
        await expect(tab.get_by_role("status").first).to_have_text("Ready")

        # A session that ends elsewhere leads back to the login.
        await context.clear_cookies()
        page.front_end.app.state.feeds.close()
        await expect(tab).to_have_url(f"{page.url}/login?to=%2Fstatus")
        await tab.close()
