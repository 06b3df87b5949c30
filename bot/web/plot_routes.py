"""How it went, as plots: what they say, and each as a picture."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, BeforeValidator, Field

from bot.history import Hours
from bot.plots import FRESH, Name, Theme
from bot.web.problems import PROBLEMS
from bot.web.services import TheStudio

plots = APIRouter(prefix="/api", responses=PROBLEMS)

_SVG: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The plot, without a background.",
        "content": {"image/svg+xml": {"schema": {"type": "string"}}},
    }
}


def _whole(text: object) -> object:
    return int(text) if isinstance(text, str) and text in {"1", "6", "24"} else text


TheHours = Annotated[Hours, BeforeValidator(_whole), Query(description="How far it goes back.")]
TheTheme = Annotated[Theme, Query(description="Colours for a light or a dark background.")]


class PlotOut(BaseModel):
    """A plot."""

    name: Name
    title: str
    alt: str = Field(description="What it shows, in words.")
    url: str = Field(description="Where the picture is, in colours for a light background.")


class PlotsOut(BaseModel):
    """All plots."""

    plots: list[PlotOut]


@plots.get("/plots")
async def list_plots(studio: TheStudio, hours: TheHours = 1) -> PlotsOut:
    """The plots that there are, each with what it shows in words."""
    return PlotsOut(
        plots=[
            PlotOut(
                name=plot.name,
                title=plot.title,
                alt=plot.alt,
                url=f"/api/plots/{plot.name}.svg?hours={hours}",
            )
            for plot in await studio.plots.all(hours)
        ]
    )


@plots.get("/plots/{name}.svg", response_class=Response, responses=_SVG)
async def get_plot(
    name: Name, studio: TheStudio, hours: TheHours = 1, theme: TheTheme = "light"
) -> Response:
    """A plot as SVG, up to half a minute old."""
    content = await studio.plots.svg(name, hours, theme)
    headers = {"Cache-Control": f"private, max-age={FRESH:.0f}"}
    return Response(content, media_type="image/svg+xml", headers=headers)
