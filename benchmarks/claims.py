"""What the project claims of its serving, each beside the figure that was measured. Pure."""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

Figure = Mapping[str, Any]

SMALL, LARGE = 64, 256
"""Widths where calling the demo model's UNet costs more than what it computes, and where it is the
other way."""

SD15, SDXL = 512, 1024
"""Widths of the profile for a GPU."""

_OVERHEAD = {SD15: 1.03, SDXL: 1.01}
_OVERHEAD_AT_MOST = 1.05


def claims(figures: Sequence[Figure]) -> Iterator[str]:
    """Yields a line for each claim that the figures can show; medians of the rounds' ratios."""
    yield from _against_stock(figures)
    for size in dict.fromkeys(each["size"] for each in figures):
        where = f"{size} x {size}"
        # Four large ones are above the knee: ours makes more passes, each of fewer rows.
        for pictures in (1,) if size == LARGE else (1, 4):
            took = _picked(figures, "bare", size, "ours", pictures=pictures)
            if took:
                over = statistics.median(each["overhead"] for each in took)
                what = f"over the bare UNet, {pictures} pictures, {where}"
                yield _line(what, 1 + over, _OVERHEAD.get(size, _OVERHEAD_AT_MOST), at_most=True)
        joins = _picked(figures, "joins", size, "ours")
        if joins:
            yield _line(
                f"steps until a newcomer's first, {where}",
                max(each["steps"] for each in joins),
                1.5,
                at_most=True,
            )
        floods = _picked(figures, "flood", size, "ours, queued")
        if floods:
            more = max(each["batches"] for each in floods)
            yield _line(f"batches more beside 200 requests, {where}", more, 1.5, at_most=True)
        switches = _picked(figures, "switches", size, "ours")
        if switches and str(switches[0]["device"]).startswith("cuda"):
            over = statistics.median(each["times"] for each in switches)
            yield _line(f"a switch over the bare copy, {where}", over, 1.3, at_most=True)


def _against_stock(figures: Sequence[Figure]) -> Iterator[str]:
    asked: tuple[tuple[str, int, str, dict[str, float], str, float, bool], ...] = (
        ("pictures/s of 8 users", SMALL, "users", {"users": 8}, "per_second", 1.8, False),
        ("pictures/s of 8 users", LARGE, "users", {"users": 8}, "per_second", 0.97, False),
        ("pictures/s of 8 users", SD15, "users", {"users": 8}, "per_second", 2.0, False),
        ("mean wait at 1.5 load", SMALL, "poisson", {"load": 1.5}, "mean", 0.25, True),
        ("mean wait of a single user", SMALL, "users", {"users": 1}, "mean", 1.05, True),
        ("mean wait of a single user", LARGE, "users", {"users": 1}, "mean", 1.05, True),
    )
    for what, size, section, at, column, bound, at_most in asked:
        ours = _picked(figures, section, size, "ours", **at)
        stock = _picked(figures, section, size, "stock", **at)
        if ours and stock:
            ratios = [a[column] / b[column] for a, b in zip(ours, stock, strict=True)]
            told = f"{what}, ours : stock, {size} x {size}"
            yield _line(told, statistics.median(ratios), bound, at_most=at_most)


def _picked(
    figures: Sequence[Figure], section: str, size: int, server: str, **at: float
) -> list[Figure]:
    wanted = {"section": section, "size": size, "server": server, **at}
    return [each for each in figures if all(each.get(k) == v for k, v in wanted.items())]


def _line(what: str, figure: float, bound: float, *, at_most: bool) -> str:
    holds: Callable[[float, float], bool] = float.__le__ if at_most else float.__ge__
    verdict = "holds" if holds(float(figure), bound) else "does not hold"
    return f"{what:58}{figure:8.3f}   {'<=' if at_most else '>='} {bound:<6g} {verdict}"
