"""The pages: one frame around each, made for who asks; what they may not do is not offered."""

import html
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from pathlib import Path
from string import Template

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from bot.web.roles import Role
from bot.web.services import TheVisitor

_FOLDER = Path(__file__).parent / "pages"

_CURRENT = ' aria-current="page"'

pages = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class PageSpec:
    """A page.

    Attributes:
        path: its address.
        name: what it is called in the navigation, and in small letters its file in ``pages/``.
        script: the module in ``static/`` that brings it to life.
        least: the role that it is of any use to.
    """

    path: str
    name: str
    script: str
    least: Role

    @property
    def file(self) -> str:
        """The name of the file with what stands within the frame."""
        return f"{self.name.lower()}.html"

    @property
    def styles(self) -> str:
        """The link to its own styles; empty for the page that has none beside the common ones."""
        return "" if self.path == "/" else '<link rel="stylesheet" href="/static/pages.css">'


PAGES = (
    PageSpec("/", "Create", "main.js", Role.ARTIST),
    PageSpec("/gallery", "Gallery", "gallery.js", Role.ARTIST),
    PageSpec("/queue", "Queue", "queue.js", Role.VIEWER),
    PageSpec("/modes", "Modes", "modes_page.js", Role.VIEWER),
    PageSpec("/status", "Status", "status.js", Role.VIEWER),
)


def render(page: PageSpec, role: Role, *, can_sign_out: bool) -> str:
    """Returns a page's HTML.

    Args:
        page: which.
        role: of who asks.
        can_sign_out: whether they signed in.
    """
    links = [
        f'<a href="{other.path}"{_CURRENT if other is page else ""}>{other.name}</a>'
        for other in PAGES
        if role >= other.least
    ]
    title = "Dream Lab" if page.path == "/" else f"{page.name} · Dream Lab"
    return Template(_text("frame.html")).substitute(
        title=html.escape(title),
        styles=page.styles,
        script=page.script,
        role=role.name.lower(),
        nav="\n      ".join(links),
        content=_text(page.file),
        sign_out="" if can_sign_out else "hidden",
    )


@cache
def _text(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


def _add(page: PageSpec) -> None:
    async def answer(visitor: TheVisitor) -> Response:
        if visitor.role < page.least:
            return RedirectResponse("/status", HTTPStatus.SEE_OTHER)
        text = render(page, visitor.role, can_sign_out=visitor.session is not None)
        return HTMLResponse(text, headers={"Cache-Control": "no-cache"})

    pages.add_api_route(page.path, answer, methods=["GET"], name=page.name)


for _page in PAGES:
    _add(_page)
