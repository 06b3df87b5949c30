"""What figures, pauses and models' loads read like. Pure."""

from bot.history import Course
from bot.replies import cut, plain
from bot.replies_members import counted
from bot.speech import tr
from bot.steward import Pause

_CELLS = 10
_REASON = 300


def stats(course: Course, waiting: int, running: int) -> str:
    """Returns how it goes in a few lines.

    Args:
        course: how it went lately.
        waiting: requests that wait now.
        running: drawings that run now.
    """
    period = "the last hour" if course.hours == 1 else f"the last {course.hours} hours"
    lines = [
        f"**Now:** {counted(waiting, 'request')} waiting, {running} being drawn",
        f"**In {period}:** {counted(course.drawn, 'picture')} for "
        f"{counted(course.requests, 'request')}{_failed(course)}",
    ]
    waits = [seconds for seconds in course.longest_wait if seconds is not None]
    steps = [seconds for seconds in course.step if seconds is not None]
    if waits:
        lines.append(f"**Longest wait:** {duration(max(waits))}")
    if steps:
        lines.append(f"**A step now takes:** {steps[-1]:.2g} s")
    for device, used in course.memory.items():
        known = [value for value in used if value is not None]
        if known:
            lines.append(memory(device, known[-1], course.totals[device]))
    return cut("\n".join(lines))


def memory(device: str, used: float, total: float) -> str:
    """Returns a device's memory as a bar; in GB of 2**30 bytes."""
    share = min(max(used / total, 0.0), 1.0) if total else 0.0
    full = round(share * _CELLS)
    bar = "▰" * full + "▱" * (_CELLS - full)
    return f"`{plain(device, 40)}` {bar} {used:.1f} of {total:.0f} GB"


def duration(seconds: float) -> str:
    """Returns seconds as people say them."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes / 60:.0f} h"


def paused(pause: Pause) -> str:
    """Returns what all read when drawing is paused."""
    why = f": {plain(pause.reason, _REASON)}" if pause.reason else ""
    ending = f"{counted(pause.running, 'drawing')} under way will be finished; "
    return (
        f"**Drawing is paused**{why}\n{ending if pause.running else ''}"
        f"{_waiting(pause.waiting)}. What you ask for now waits in line, too."
    )


def pause_line(pause: Pause) -> str:
    """Returns what is read above the queue while drawing is paused."""
    why = f": {plain(pause.reason, _REASON)}" if pause.reason else "."
    return f"**{tr('Drawing is paused')}**{why}"


def drained(waiting: int) -> str:
    """Returns the line that follows when all is finished."""
    return f"-# Nothing is being drawn any more; {_waiting(waiting)}."


def resumed(waiting: int) -> str:
    """Returns what all read when drawing goes on."""
    return (
        f"**Drawing goes on.** {counted(waiting, 'request')} in line."
        if waiting
        else ("**Drawing goes on.**")
    )


def _waiting(count: int) -> str:
    if not count:
        return "nobody waits"
    return f"{counted(count, 'request')} {'keeps its' if count == 1 else 'keep their'} place"


def _failed(course: Course) -> str:
    failed = int(sum(each or 0 for each in course.failed))
    return f", {failed} failed" if failed else ""
