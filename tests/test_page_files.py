"""The page's files as they lie there, without a browser."""

import re

import pytest

from bot.web.services import STATIC

HTML = (STATIC / "index.html").read_text(encoding="utf-8")


def test_the_page_names_no_other_host_and_nothing_inline() -> None:
    for file in STATIC.iterdir():
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "://" not in text, file.name
    for file in STATIC.glob("*.html"):
        html = file.read_text(encoding="utf-8")
        assert "style=" not in html
        assert "<style" not in html
        assert not re.search(r"\son\w+=", html)
        assert html.count("<script") == html.count('<script type="module" src="/static/')


def test_the_scripts_ask_for_elements_that_exist() -> None:
    login = (STATIC / "login.html").read_text(encoding="utf-8")
    for file in STATIC.glob("*.js"):
        ids = set(re.findall(r'id="([\w-]+)"', login if file.name == "login.js" else HTML))
        text = file.read_text(encoding="utf-8")
        asked = set(re.findall(r'(?:\$|getElementById)\("([\w-]+)"\)', text))
        assert asked <= ids, file.name


def test_the_scripts_never_write_markup() -> None:
    for file in STATIC.glob("*.js"):
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|\beval\b", text), file.name


def tokens(dark: bool) -> dict[str, tuple[float, float, float]]:
    css = (STATIC / "page.css").read_text(encoding="utf-8")
    blocks = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    found = re.findall(r"--([\w-]+): #([0-9a-f]{6});", blocks[1 if dark else 0])
    return {name: tuple(int(code[i : i + 2], 16) / 255 for i in (0, 2, 4)) for name, code in found}


def contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """WCAG 2.2's contrast ratio of two sRGB colours."""

    def luminance(colour: tuple[float, ...]) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    lights = sorted((luminance(one), luminance(other)))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize(
    ("ink", "ground", "least"),
    [
        ("ink", "ground", 7),
        ("ink", "surface", 7),
        ("ink", "accent-soft", 7),
        ("muted", "ground", 4.5),
        ("muted", "surface", 4.5),
        ("accent", "ground", 4.5),
        ("accent-ink", "accent", 4.5),
        ("bad", "bad-soft", 4.5),
    ],
)
def test_colours_can_be_read(dark: bool, ink: str, ground: str, least: float) -> None:
    colours = tokens(dark)
    assert contrast(colours[ink], colours[ground]) >= least
