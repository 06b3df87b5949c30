"""What figures, pauses and models' loads read like. Pure."""

from bot.history import Course
from bot.replies import cut, plain
from bot.replies_members import pictures, requests
from bot.speech import tr, trn
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
    period = trn("In the last hour", "In the last {count} hours", count=course.hours)
    drawn = tr(
        "{pictures} for {requests}",
        pictures=pictures(course.drawn),
        requests=requests(course.requests),
    )
    lines = [
        tr(
            "**Now:** {requests} waiting, {running} being drawn",
            requests=requests(waiting),
            running=running,
        ),
        tr("**{title}:** {value}", title=period, value=f"{drawn}{_failed(course)}"),
    ]
    waits = [seconds for seconds in course.longest_wait if seconds is not None]
    steps = [seconds for seconds in course.step if seconds is not None]
    if waits:
        lines.append(tr("**Longest wait:** {time}", time=duration(max(waits))))
    if steps:
        time = tr("{number} s", number=f"{steps[-1]:.2g}")
        lines.append(tr("**A step now takes:** {time}", time=time))
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
    held = tr("{used} of {total} GB", used=f"{used:.1f}", total=f"{total:.0f}")
    return f"`{plain(device, 40)}` {bar} {held}"


def duration(seconds: float) -> str:
    """Returns seconds as people say them."""
    if seconds < 100:
        return tr("{number} s", number=f"{seconds:.0f}")
    minutes = round(seconds / 60)
    if minutes < 100:
        return tr("{number} min", number=minutes)
    return tr("{number} h", number=f"{minutes / 60:.0f}")


def paused(pause: Pause) -> str:
    """Returns what all read when drawing is paused."""
    why = f": {plain(pause.reason, _REASON)}" if pause.reason else ""
    said = []
    if pause.running:
        ending = trn(
            "{count} drawing under way will be finished.",
            "{count} drawings under way will be finished.",
            count=pause.running,
        )
        said.append(ending)
    said += [_waiting(pause.waiting), tr("What you ask for now waits in line, too.")]
    return f"**{tr('Drawing is paused')}**{why}\n{' '.join(said)}"


def pause_line(pause: Pause) -> str:
    """Returns what is read above the queue while drawing is paused."""
    why = f": {plain(pause.reason, _REASON)}" if pause.reason else "."
    return f"**{tr('Drawing is paused')}**{why}"


def drained(waiting: int) -> str:
    """Returns the line that follows when all is finished."""
    return f"-# {tr('Nothing is being drawn any more.')} {_waiting(waiting)}"


def resumed(waiting: int) -> str:
    """Returns what all read when drawing goes on."""
    goes_on = f"**{tr('Drawing goes on.')}**"
    if not waiting:
        return goes_on
    return f"{goes_on} {tr('{requests} in line.', requests=requests(waiting))}"


def _waiting(count: int) -> str:
    if not count:
        return tr("Nobody waits.")
    return trn(
        "{count} request keeps its place.", "{count} requests keep their place.", count=count
    )


def _failed(course: Course) -> str:
    failed = int(sum(each or 0 for each in course.failed))
    return f", {tr('{count} failed', count=failed)}" if failed else ""
