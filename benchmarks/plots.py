"""Charts of what `benchmarks.serving` measured, as PNG files; needs matplotlib (extra 'dev')."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_ORDER = ("stock", "window", "ours, one by one", "ours")


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
        figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
        _lines(left, figures, size, "users", "users", "per_second")
        left.set(xlabel="users, each asking again at once", ylabel="pictures per second")
        _lines(right, figures, size, "poisson", "load", "p95")
        right.set(xlabel="load, as a share of what stock can serve", ylabel="s, 95th percentile")
        right.set_yscale("log")
        for axes in (left, right):
            axes.grid(visible=True, alpha=0.3)
            axes.legend(frameon=False)
        figure.suptitle(f"{size} x {size} pixels")
        files.append(folder / f"{name}-{size}.png")
        figure.savefig(files[-1], dpi=110)
        pyplot.close(figure)
    return files


def _lines(
    axes: Any, figures: Sequence[dict[str, Any]], size: int, section: str, across: str, up: str
) -> None:
    for server in _ORDER:
        points: dict[float, list[float]] = {}
        for each in figures:
            if (each["section"], each["size"], each["server"]) == (section, size, server):
                points.setdefault(each[across], []).append(each[up])
        if points:
            middle = [statistics.median(values) for _, values in sorted(points.items())]
            axes.plot(sorted(points), middle, marker="o", label=server)
