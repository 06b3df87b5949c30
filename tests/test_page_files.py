"""The page's files as they lie there, without a browser."""

import re

import pytest

from bot.web.page_routes import PAGES, PageSpec, render
from bot.web.roles import Role
from bot.web.services import STATIC

LOGIN = (STATIC / "login.html").read_text(encoding="utf-8")
HTML = {page.name: render(page, Role.ADMIN, can_sign_out=True) for page in PAGES} | {"": LOGIN}


def imported(script: str) -> set[str]:
    """Returns a module and all that it imports, by name."""
    found, left = set(), [script]
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            text = (STATIC / name).read_text(encoding="utf-8")
            left += re.findall(r'^(?:import|export)[^;]*? from "\./([\w.]+)";', text, re.MULTILINE)
            left += re.findall(r'^import "\./([\w.]+)";', text, re.MULTILINE)
    return found


def test_the_pages_name_no_other_host_and_nothing_inline() -> None:
    for file in STATIC.iterdir():
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "://" not in text, file.name
    for html in HTML.values():
        assert "://" not in html
        assert "style=" not in html
        assert "<style" not in html
        assert not re.search(r"\son\w+=", html)
        assert html.count("<script") == html.count('<script type="module" src="/static/') == 1


def test_no_id_stands_twice_on_a_page() -> None:
    for name, html in HTML.items():
        ids = re.findall(r'\sid="([\w-]+)"', html)
        assert len(ids) == len(set(ids)), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_scripts_of_a_page_ask_for_elements_that_it_has(page: PageSpec) -> None:
    ids = set(re.findall(r'\sid="([\w-]+)"', HTML[page.name]))
    for script in imported(page.script):
        text = (STATIC / script).read_text(encoding="utf-8")
        asked = set(re.findall(r'(?:\$|getElementById)\("([\w-]+)"\)', text))
        assert asked <= ids, script


def test_every_script_is_of_some_page() -> None:
    used = set().union(*(imported(page.script) for page in PAGES)) | imported("login.js")
    assert used == {file.name for file in STATIC.glob("*.js")}


def test_a_page_is_offered_what_its_reader_may_do() -> None:
    for page in PAGES:
        for role in Role:
            html = render(page, role, can_sign_out=False)
            nav = html[html.index("<nav") : html.index("</nav>")]
            offered = re.findall(r'<a href="(/\w*)"', nav)
            assert offered == [other.path for other in PAGES if role >= other.least]
            assert f'data-role="{role.name.lower()}"' in html
            assert html.count('aria-current="page"') == (role >= page.least)


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
