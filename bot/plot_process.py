"""The process that draws plots: an order on standard input, pictures on standard output.

The one owner of matplotlib, which takes half a second to import: never import this file elsewhere.
An order is a JSON object of ``kind`` (``svg`` or ``png``), ``theme`` (``light`` or ``dark``) and
``plots`` (`bot.plots.Plot`); the answer one of pictures in base64, by name: each plot by itself as
SVG, or ``all`` of them below each other as PNG.
"""

import base64
import contextlib
import io
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

import matplotlib as mpl
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

_WIDTH = 5.0
_HEIGHT = 2.5
"""Inches of a plot; an SVG has 72 units to one, so that a phone shows words as they are."""

_DPI = 180  # of a PNG

_LABELS = 3  # beside each other

# Those of the page's style sheet; the courses' are told apart by people who don't see all colours.
_THEMES: Mapping[str, Mapping[str, str]] = {
    "light": {"ground": "#ffffff", "ink": "#1f1d28", "muted": "#5c5968", "line": "#dcd8ce"},
    "dark": {"ground": "#1d1b25", "ink": "#eeecf6", "muted": "#aaa6ba", "line": "#363343"},
}
_COURSES: Mapping[str, Sequence[str]] = {
    "light": ("#5443c4", "#c2570c", "#0f7d8c", "#a3246f", "#5b6b00"),
    "dark": ("#ab9fff", "#ffb061", "#5fd0de", "#ff9ad0", "#c5d65a"),
}

_TICKS = {
    1: ((60, "1 h ago"), (45, "45 min"), (30, "30 min"), (15, "15 min"), (0, "now")),
    6: ((360, "6 h ago"), (240, "4 h"), (120, "2 h"), (0, "now")),
    24: ((1440, "24 h ago"), (1080, "18 h"), (720, "12 h"), (360, "6 h"), (0, "now")),
}
"""By hours: minutes before now, and what stands there. No time zone is everybody's."""


def main() -> None:
    """Draws what is ordered."""
    if hasattr(os, "nice"):
        os.nice(10)  # pictures go before pictures of figures
    answer = draw(json.load(sys.stdin))
    json.dump(answer, sys.stdout)


def draw(order: Mapping[str, Any]) -> dict[str, str]:
    """Returns the pictures of an order, in base64."""
    with _style(order["theme"]):
        if order["kind"] == "png":
            pictures = {"all": _png(order["plots"], order["theme"])}
        else:
            pictures = {plot["name"]: _svg(plot, order["theme"]) for plot in order["plots"]}
    return {name: base64.b64encode(content).decode() for name, content in pictures.items()}


@contextlib.contextmanager
def _style(theme: str) -> Iterator[None]:
    colours = _THEMES[theme]
    with mpl.rc_context(
        {
            "font.size": 11,
            "font.family": "sans-serif",
            "svg.fonttype": "none",  # letters stay letters
            "svg.hashsalt": "dream-lab",  # the same plot is the same file
            "text.color": colours["ink"],
            "axes.edgecolor": colours["line"],
            "axes.facecolor": "none",
            "axes.labelcolor": colours["muted"],
            "axes.titlelocation": "left",
            "axes.titlesize": 12.5,
            "axes.titleweight": "bold",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.spines.left": False,
            "axes.prop_cycle": cycler(color=_COURSES[theme]),
            "grid.color": colours["line"],
            "legend.frameon": False,
            "legend.fontsize": 10.5,
            "legend.handlelength": 1.2,
            "legend.borderaxespad": 0,
            "legend.labelcolor": colours["ink"],
            "xtick.color": colours["line"],
            "xtick.labelcolor": colours["muted"],
            "ytick.labelcolor": colours["muted"],
            "ytick.major.size": 0,
            "figure.constrained_layout.use": True,
        }
    ):
        yield


def _svg(plot: Mapping[str, Any], theme: str) -> bytes:
    figure = Figure(figsize=(_WIDTH, _HEIGHT))
    _fill(figure.add_subplot(), plot, theme)
    file = io.BytesIO()
    figure.savefig(
        file, format="svg", transparent=True, metadata={"Date": None, "Title": plot["title"]}
    )
    # Read out as one picture, not letter by letter.
    label = f'<svg role="img" aria-label="{escape(plot["alt"])}" '
    return _unstyled(file.getvalue().decode().replace("<svg ", label, 1)).encode()


def _unstyled(svg: str) -> str:
    """Returns a picture whose styles are attributes: the page's policy takes no styles within."""
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = svg.replace("<svg ", '<svg stroke-linejoin="round" stroke-linecap="butt" ', 1)
    return re.sub(r' style="([^"]*)"', lambda match: "".join(_attributes(match[1])), svg)


def _attributes(style: str) -> Iterator[str]:
    for declaration in style.split(";"):
        name, _, value = (part.strip() for part in declaration.partition(":"))
        font = re.fullmatch(r"(.*?)\s*([\d.]+px)\s+(.+)", value) if name == "font" else None
        if font is None:
            yield f' {name}="{value}"' if value else ""
            continue
        yield f' font-size="{font[2]}" font-family="{font[3]}"'
        yield f' font-weight="{font[1]}"' if font[1] else ""


def _png(plots: Sequence[Mapping[str, Any]], theme: str) -> bytes:
    figure = Figure(
        figsize=(_WIDTH, _HEIGHT * len(plots)),
        facecolor=_THEMES[theme]["ground"],
        layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12),
    )
    for axes, plot in zip(figure.subplots(len(plots), squeeze=False)[:, 0], plots, strict=True):
        _fill(axes, plot, theme)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=_DPI)
    return file.getvalue()


def _fill(axes: Axes, plot: Mapping[str, Any], theme: str) -> None:
    """Puts a plot into its place."""
    labels = [line["label"] for line in plot["lines"] if line["label"]]
    rows = -(-len(labels) // _LABELS)
    axes.set_title(plot["title"], pad=8 + 17 * rows)
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    slots = max((len(line["values"]) for line in plot["lines"]), default=1)
    top = 0.0
    for line in plot["lines"]:
        values = [float("nan") if value is None else value for value in line["values"]]
        known = [(x + 0.5, value) for x, value in enumerate(values) if value == value]
        top = max([top, *(value for _, value in known)])
        _course(axes, line, known)
    if top == 0:
        empty = not any(v is not None for line in plot["lines"] for v in line["values"])
        axes.text(
            0.5,
            0.5,
            "Nothing is known yet" if empty else "None",
            transform=axes.transAxes,
            ha="center",
            va="center",
            color=_THEMES[theme]["muted"],
        )
    axes.set_ylim(0, plot["top"] or top * 1.15 or 1)
    if top > 0:
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=plot["whole"], min_n_ticks=2))
    else:
        axes.set_yticks([0])
    axes.set_xlim(0, slots)
    ticks = _TICKS[plot["hours"]]
    axes.set_xticks(
        [slots * (1 - minutes / (60 * plot["hours"])) for minutes, _ in ticks],
        [text for _, text in ticks],
    )
    axes.get_xticklabels()[0].set_horizontalalignment("left")
    axes.get_xticklabels()[-1].set_horizontalalignment("right")
    if labels:
        legend = axes.legend(
            loc="lower left", bbox_to_anchor=(0, 1.03), ncols=_LABELS, columnspacing=1.2
        )
        legend.set_in_layout(False)  # a long one must not make its plot narrower


def _course(axes: Axes, line: Mapping[str, Any], known: Sequence[tuple[float, float]]) -> None:
    x, y = [x for x, _ in known], [y for _, y in known]
    if line["kind"] == "bars":
        axes.bar(x, y, width=0.8, label=line["label"] or None)
        return
    # A lonely point has no line to show it.
    marker = "o" if len(known) < 3 else None
    (drawn,) = axes.plot(x, y, linewidth=2, marker=marker, label=line["label"] or None)
    if line["kind"] == "area":
        axes.fill_between(x, y, alpha=0.25, color=drawn.get_color(), linewidth=0)
