"""Plots of how it goes, for the page and for Discord: what they show, and who draws them.

Drawing takes a second and a library that is heavy to import, so that it happens in a process of its
own (`bot/plot_process.py`), which ends with its work. All of a kind are drawn at once, one process
at a time, and serve whoever asks within the next half minute.
"""

import asyncio
import base64
import json
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from bot.history import Course, History, Hours
from bot.speech import speaking, tr, trn
from engine.errors import DreamLabError

log = logging.getLogger(__name__)

Theme = Literal["light", "dark"]
Name = Literal["waiting", "wait", "pictures", "steps", "memory", "errors"]

FRESH = 30.0
"""Seconds that plots are shown before they are drawn anew."""

TIMEOUT = 60.0
"""Seconds that drawing them may take; a busy machine takes ten times what an idle one does."""

ON_DISCORD: tuple[Name, ...] = ("pictures", "wait", "waiting", "memory")
"""What ``/stats`` shows, from top to bottom."""

_ROOT = Path(__file__).parent.parent
_BOOTSTRAP = (
    "import sys; sys.path.insert(0, sys.argv[1]); from bot.plot_process import main; main()"
)


class PlotError(DreamLabError):
    """The plots can't be drawn now."""

    def __init__(self) -> None:
        super().__init__("The plots can't be drawn just now; the log of Dream Lab says why.")


@dataclass(frozen=True, slots=True)
class Line:
    """One course in a plot.

    Attributes:
        label: what it is.
        values: the oldest first; None where nothing is known.
        kind: how it is shown.
    """

    label: str
    values: tuple[float | None, ...]
    kind: Literal["line", "area", "bars"] = "line"


@dataclass(frozen=True, slots=True)
class Plot:
    """What one picture shows.

    Attributes:
        name: part of its address.
        title: what is plotted, with its unit.
        alt: the same in words, for those who can't see it.
        hours: how far it goes back.
        lines: the courses.
        whole: whether there is nothing between two whole numbers.
        top: where the plot ends; None is a little above the highest value.
    """

    name: Name
    title: str
    alt: str
    hours: int
    lines: tuple[Line, ...]
    whole: bool = False
    top: float | None = None


def plots(course: Course) -> list[Plot]:
    """Returns all plots of a course."""
    h = course.hours
    memory = [
        Line(f"{name}, {course.totals[name]:.0f} GB", _shares(values, course.totals[name]))
        for name, values in course.memory.items()
    ]
    return [
        _plot("pictures", tr("Pictures per minute"), h, [Line("", course.pictures, "bars")]),
        _plot(
            "wait",
            tr("Seconds until drawing begins"),
            h,
            [Line(tr("longest"), course.longest_wait), Line(tr("mean"), course.wait)],
        ),
        _plot(
            "waiting",
            tr("Requests"),
            h,
            [
                Line(tr("waiting"), course.waiting, "area"),
                Line(tr("being drawn"), course.running),
            ],
            whole=True,
        ),
        _plot("steps", tr("Seconds per step"), h, [Line("", course.step)]),
        replace(_plot("memory", tr("Memory in use, %"), h, memory), top=100),
        _plot("errors", tr("Failed requests"), h, [Line("", course.failed, "bars")], whole=True),
    ]


def _plot(
    name: Name, title: str, hours: int, lines: Sequence[Line], *, whole: bool = False
) -> Plot:
    told = "; ".join(_told(line) for line in lines) or tr("nothing is known yet")
    alt = trn(
        "{title} in the last hour: {told}.",
        "{title} in the last {count} hours: {told}.",
        count=hours,
        title=title,
        told=told,
    )
    return Plot(name, title, alt, hours, tuple(lines), whole)


def _shares(values: Sequence[float | None], total: float) -> tuple[float | None, ...]:
    return tuple(None if value is None else 100 * value / total for value in values)


def _told(line: Line) -> str:
    known = [value for value in line.values if value is not None]
    label = f"{line.label}: " if line.label else ""
    if not known:
        return f"{label}{tr('nothing is known yet')}"
    last, most = f"{known[-1]:.3g}", f"{max(known):.3g}"
    return f"{label}{tr('{last} at last, {most} at most', last=last, most=most)}"


class Plotter:
    """Has plots drawn.

    Its errors are `PlotError`: whoever asks within the next half minute gets the same one, so that
    a machine that can't draw plots is not kept busy with trying.
    """

    def __init__(
        self,
        history: History,
        *,
        command: Sequence[str] = (sys.executable, "-P", "-c", _BOOTSTRAP, str(_ROOT)),
        timeout: float = TIMEOUT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Takes what is drawn, the program that draws, its time in seconds, and the time."""
        self._history = history
        self._command = command
        self._timeout = timeout
        self._clock = clock
        self._drawn: dict[tuple[Any, ...], tuple[float, asyncio.Task[Mapping[str, bytes]]]] = {}
        self._one = asyncio.Lock()

    async def all(self, hours: Hours) -> list[Plot]:
        """Returns what the plots show."""
        return plots(await self._history.course(hours))

    async def svg(self, name: Name, hours: Hours, theme: Theme) -> bytes:
        """Returns a plot as SVG, without a background.

        Raises:
            PlotError: it can't be drawn.
        """
        return (await self._fresh("svg", hours, theme))[name]

    async def png(self, hours: Hours, theme: Theme = "dark") -> bytes:
        """Returns `ON_DISCORD` in one PNG.

        Raises:
            PlotError: it can't be drawn.
        """
        return (await self._fresh("png", hours, theme))["all"]

    async def close(self) -> None:
        """Ends what is being drawn; whoever waits for it gets a `PlotError`."""
        tasks = [task for _, task in self._drawn.values()]
        self._drawn.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _fresh(self, kind: str, hours: Hours, theme: Theme) -> Mapping[str, bytes]:
        key = (kind, hours, theme)
        at, task = self._drawn.get(key, (0.0, None))
        if task is None or (task.done() and self._clock() - at >= FRESH):
            task = asyncio.create_task(self._draw(kind, hours, theme), name=f"plots {key}")
            # Nobody may be there any more to hear of its error.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._drawn[key] = (self._clock(), task)
        # A task of its own: others wait for it when whoever asked first has left.
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            asking = asyncio.current_task()
            if task.cancelled() and not (asking and asking.cancelling()):
                raise PlotError from None  # `close` has ended it
            raise

    async def _draw(self, kind: str, hours: Hours, theme: Theme) -> Mapping[str, bytes]:
        async with self._one:
            # All see the same picture, and its font lacks Japanese and Chinese.
            with speaking(None):
                shown = await self.all(hours)
            if kind == "png":
                shown = [plot for name in ON_DISCORD for plot in shown if plot.name == name]
            order = {"kind": kind, "theme": theme, "plots": [asdict(plot) for plot in shown]}
            drawn = json.loads(await self._ask(json.dumps(order).encode()))
        return {name: base64.b64decode(content) for name, content in drawn.items()}

    async def _ask(self, order: bytes) -> bytes:
        """Returns what the process says to an order.

        Raises:
            PlotError: it fails or takes too long.
        """
        pipe = asyncio.subprocess.PIPE
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command, stdin=pipe, stdout=pipe, stderr=pipe
            )
        except OSError as error:
            log.exception("The process that draws plots can't be started")
            raise PlotError from error
        try:
            async with asyncio.timeout(self._timeout):
                answer, said = await process.communicate(order)
        except TimeoutError as error:
            log.warning("Drawing plots took longer than %g s; it was given up", self._timeout)
            raise PlotError from error
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()  # to the end, or its pipes would stay open
        if process.returncode:
            log.warning("Drawing plots failed:\n%s", said.decode(errors="replace").strip())
            raise PlotError
        return answer
