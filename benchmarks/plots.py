"""Charts of what `benchmarks.serving` measured, as PNG files; needs matplotlib (extra 'dev')."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_ORDER = ("stock", "window", "ours, one by one", "ours")

_PANELS = (
    (
        "users",
        "users",
        "per_second",
        "users, each asking again at once",
        "pictures per second",
        "linear",
    ),
    (
        "poisson",
        "load",
        "mean",
        "load, as a share of what stock can serve",
        "seconds until a picture is there, mean",
        "log",
    ),
)
"""Section, what goes across and up, what both are called, and the scale of what goes up."""


def draw(figures: Sequence[dict[str, Any]], folder: Path, name: str) -> list[Path]:
    """Draws pictures per second over users and waiting times over load, one file for each size.

    Returns:
        The files; none where matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
    except ImportError:
        return []
    mpl.use("agg")
    from matplotlib import pyplot

    files = []
    for size in sorted({each["size"] for each in figures if each["section"] == "users"}):
        here = [each for each in figures if each["size"] == size]
        panels = [panel for panel in _PANELS if any(each["section"] == panel[0] for each in here)]
        figure, row = pyplot.subplots(
            1, len(panels), figsize=(5 * len(panels), 4), layout="constrained", squeeze=False
        )
        for axes, (section, across, up, below, beside, scale) in zip(row[0], panels, strict=True):
            _lines(axes, here, section, across, up)
            axes.set(xlabel=below, ylabel=beside, yscale=scale)
            axes.grid(visible=True, alpha=0.3)
            axes.legend(frameon=False)
        figure.suptitle(f"{size} x {size} pixels")
        files.append(folder / f"{name}-{size}.png")
        figure.savefig(files[-1], dpi=110)
        pyplot.close(figure)
    return files


def _lines(
    axes: Any, figures: Sequence[dict[str, Any]], section: str, across: str, up: str
) -> None:
    for server in _ORDER:
        points: dict[float, list[float]] = {}
        for each in figures:
            if (each["section"], each["server"]) == (section, server):
                points.setdefault(each[across], []).append(each[up])
        if points:
            middle = [statistics.median(values) for _, values in sorted(points.items())]
            axes.plot(sorted(points), middle, marker="o", label=server)
