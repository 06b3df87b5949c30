"""What a terminal shows of a job on its way: a bar where it is one, plain lines where it is not."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import Protocol, Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

from bot.expectation import seconds_text
from bot.records import JobView
from engine.jobs import JobStatus, Stage

_STAGES = {
    Stage.LOADING: "loading the model",
    Stage.ENCODING: "reading the prompt",
    Stage.DENOISING: "drawing",
    Stage.DECODING: "finishing",
}


class Display(Protocol):
    """Shows a job's views as they come."""

    def __enter__(self) -> Self:
        """Begins to show."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leaves the terminal as it was."""

    def show(self, view: JobView) -> None:
        """Shows a view in place of the one before."""


def describe(view: JobView) -> str:
    """Returns where a job is, in words."""
    if view.record.status.is_final:
        return view.record.status.value
    if view.progress:
        return _STAGES[view.progress.stage]
    if view.record.status is JobStatus.QUEUED and (view.position or 0) > 1:
        return f"waiting, {(view.position or 0) - 1} before it"
    return "starting"


def describe_end(view: JobView, now: datetime) -> str:
    """Returns when a job will be done, in words after others; nothing where nobody knows."""
    if view.record.status.is_final or view.expected_at is None:
        return ""
    return f", done in {seconds_text(view.expected_at, now)}"


def open_display(stream: TextIO) -> Display:
    """Returns a bar for a terminal, and lines for a file or pipe."""
    return BarDisplay(Console(file=stream)) if stream.isatty() else LineDisplay(stream)


@contextmanager
def counted(stream: TextIO, what: str) -> Iterator[Callable[[int, int], None]]:
    """Shows how much of something is done, once it takes a second.

    Args:
        stream: a terminal gets a bar, a file or pipe a line for every tenth.
        what: what is being done.

    Yields:
        What is to be told bytes done, and bytes in all.
    """
    began, tenths = time.monotonic(), 0
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeElapsedColumn(),
        console=Console(file=stream),
        transient=True,
        disable=not stream.isatty(),
    )
    task = bar.add_task(what, total=None)

    def tell(done: int, total: int) -> None:
        nonlocal tenths
        bar.update(task, completed=done, total=total)
        if bar.disable and time.monotonic() - began > 1 and 10 * done // max(total, 1) > tenths:
            tenths = 10 * done // max(total, 1)
            stream.write(f"{what}, {10 * tenths} %\n")
            stream.flush()

    with bar:
        yield tell


class LineDisplay:
    """Writes a line whenever the job does something else; a log has no use for every step."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._said = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    def show(self, view: JobView) -> None:
        """See `Display.show`."""
        words = describe(view)
        if view.progress and view.progress.stage is Stage.DENOISING and view.progress.steps:
            words += f", {view.progress.steps} steps"
        if words != self._said:
            self._said = words
            self._stream.write(f"{words}{describe_end(view, datetime.now(UTC))}\n")
            self._stream.flush()


class BarDisplay:
    """Draws a bar with the stage, the step and the time it has taken; it goes when it is done."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[step]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task("starting", total=None, step="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def show(self, view: JobView) -> None:
        """See `Display.show`."""
        progress = view.progress
        drawing = progress is not None and progress.stage is Stage.DENOISING
        counted = progress if drawing and progress and progress.steps else None
        self._progress.update(
            self._task,
            description=describe(view) + describe_end(view, datetime.now(UTC)),
            total=counted.steps if counted else None,
            completed=counted.step if counted else 0,
            step=f"step {counted.step}/{counted.steps}" if counted else "",
        )
