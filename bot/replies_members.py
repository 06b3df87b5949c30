"""What members read of their own: pictures, the queue, figures, the commands. Pure."""

from collections.abc import Iterable, Sequence

from bot.members import Page
from bot.records import Figures, JobRecord, JobView
from bot.replies import CONTENT_LIMIT, cut, plain, stand
from bot.speech import named, tr
from engine.fair_queue import MOST_OVERTAKINGS, Place
from engine.jobs import GenerationJob, JobStatus

_WORDS = 150
_LABEL = 100
_BUTTON = 40  # characters; four of them stand in a row


def counted(number: int, noun: str) -> str:
    """Returns a number and what it counts, such as ``2 pictures``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def history(page: Page, notes: Iterable[str] = ()) -> str:
    """Returns a page of somebody's history; the first picture of each request is beside it."""
    if not page.jobs:
        return tr("You have no pictures yet. Type /imagine to draw one.")
    lines = [_entry(job) for job in page.jobs]
    small = [*notes, "/show with an id brings all pictures of a request, and its buttons"]
    return cut("\n".join([*lines, *(f"-# {note}" for note in small)]))


def job_label(job: JobRecord, asker_id: str) -> str:
    """Returns a job as a choice among others, at most 100 characters; not for markdown."""
    whose = "" if job.owner.id == asker_id else f"{job.owner.name}: "
    words = " ".join(f"{whose}{job.request.shown_prompt}".split())
    if not job.status.is_final:
        words = f"{'drawing' if job.status is JobStatus.RUNNING else 'waiting'}: {words}"
    return words[:_LABEL] or job.id


def cancelled(job: JobRecord) -> str:
    """Returns what somebody reads who took a job back."""
    return tr("Cancelled: {words}", words=_words(job))


def queue(
    own: Sequence[tuple[JobView, Place | None]],
    running: Sequence[GenerationJob],
    waiting: int,
    owner_id: str,
    here: str | None,
) -> str:
    """Returns what runs and who waits before somebody, and why.

    Args:
        own: the asker's jobs under way, with their places in line.
        running: everybody's jobs that run; of others only how many is told.
        waiting: how many wait in all.
        owner_id: the asker.
        here: the place that they are in; None in a direct message.
    """
    lines = [f"**Drawing: {_whose(running, owner_id, here)}. Waiting: {waiting}.**"]
    if not own:
        lines.append(tr("Nothing of yours is under way."))
    lines += [f"- {_words(view.record)}: {_standing(view, place)}" for view, place in own]
    overtaken = max((place.overtaken for _, place in own if place), default=0)
    if overtaken:
        lines.append(
            f"-# {counted(overtaken, 'picture')} went before yours because the model was loaded; "
            f"that happens to nobody more than {MOST_OVERTAKINGS} times."
        )
    if any(place for _, place in own):
        lines.append(f"-# {tr('Servers take turns, and in each its members do.')}")
    return cut("\n".join(lines))


def figures(own: Figures, unfinished: Sequence[JobRecord], bound: int | None = None) -> str:
    """Returns what somebody has under way and has had drawn so far.

    Args:
        own: so far.
        unfinished: under way.
        bound: how many of theirs may wait; None where nobody counts them.
    """
    running = sum(job.status is JobStatus.RUNNING for job in unfinished)
    most = tr(" of {bound} at most", bound=bound) if bound else ""
    waiting = len(unfinished) - running
    lines = [
        tr(
            "**Under way:** {running} drawing, {waiting} waiting{most}",
            running=running,
            waiting=waiting,
            most=most,
        )
    ]
    if own.since is None:
        lines.append(tr("**So far:** nothing yet; type /imagine"))
    else:
        lines.append(
            f"**So far:** {counted(own.pictures, 'picture')} of "
            f"{counted(own.requests, 'request')} in {_time(own.seconds)} of drawing, "
            f"since <t:{own.since.timestamp():.0f}:D>"
        )
    return "\n".join(lines)


def undelivered(jobs: Sequence[JobRecord], left: int, notes: Iterable[str] = ()) -> str:
    """Returns results that could not be brought before.

    Args:
        jobs: whose pictures, or errors, are shown.
        left: how many more there are.
        notes: further small lines.
    """
    if not jobs:
        return tr("Everything of yours has arrived.")
    lines = [tr("**This could not be brought to where you asked for it:**")]
    lines += [_entry(job) if job.images else f"- {_words(job)}: {_end(job)}" for job in jobs]
    small = [*notes, *([f"{left} more: type /results again"] if left else [])]
    return cut("\n".join([*lines, *(f"-# {note}" for note in small)]))


def exported(number: int, total: int) -> str:
    """Returns what stands beside an archive of somebody's data."""
    parts = f"Part {number} of {total}. " if total > 1 else ""
    return f"{parts}Your pictures, and what you asked for in `requests.json`."


def nothing_kept() -> str:
    """Returns what somebody reads who never asked for anything, or had it deleted."""
    return tr("Nothing of yours is kept.")


def forget_warning(own: Figures) -> str:
    """Returns what somebody reads before all of theirs is deleted."""
    return (
        f"This ends what you have under way and deletes {counted(own.requests, 'request')} and "
        "all pictures of yours from the bot, for good, and with them your /settings. "
        "/mydata export brings all of it to you first.\n"
        "-# What stays: messages on Discord; a server's blocks and its list of changes; what you "
        "have used up of a server's limits today; copies in the bot owner's backups."
    )


def forgotten(requests: int, pictures: int) -> str:
    """Returns what was deleted."""
    return f"Deleted: {counted(requests, 'request')}, {counted(pictures, 'picture')}."


def commands(described: Iterable[tuple[str, str, str]], menus: Iterable[str] = ()) -> list[str]:
    """Returns what can be typed here, in as many messages as it takes.

    Args:
        described: of each command its name, what it does and the permission that Discord asks for
            by default; empty where it asks for none.
        menus: what a message's own menu offers.
    """
    lines = [
        f"**/{named(name)}** {plain(tr(about))}{f' ({permission})' if permission else ''}"
        for name, about, permission in described
    ]
    lines += [f"**{named(name)}** in a message's menu, under Apps" for name in menus]
    pages = [""]
    for line in lines:
        if len(pages[-1]) + len(line) >= CONTENT_LIMIT:
            pages.append("")
        pages[-1] += f"{line}\n"
    return [page.rstrip() for page in pages]


def button_label(job: JobRecord) -> str:
    """Returns what the button is called that leads to a job; markup means nothing there."""
    words = " ".join(
        "".join(char if char.isprintable() else " " for char in job.request.shown_prompt).split()
    )
    return words if 0 < len(words) <= _BUTTON else f"{words[: _BUTTON - 1]}…"


def _entry(job: JobRecord) -> str:
    request = job.request
    count = f", {len(job.images)} pictures" if len(job.images) > 1 else ""
    return (
        f"- {_words(job)}{count} · {request.width}x{request.height} · seed {request.seed} · "
        f"<t:{job.created_at.timestamp():.0f}:R> · `{job.id}`"
    )


def _words(job: JobRecord) -> str:
    return f"**{plain(job.request.shown_prompt, _WORDS)}**"


def _end(job: JobRecord) -> str:
    if job.status is JobStatus.FAILED:
        return plain(job.error or "it failed.", 300)
    return "the pictures were deleted."


def _standing(view: JobView, place: Place | None) -> str:
    waits = view.record.status is JobStatus.QUEUED
    return str(place) if waits and place and not view.setback else stand(view)


def _whose(running: Sequence[GenerationJob], owner_id: str, here: str | None) -> str:
    """Returns how many of what runs are whose, names left out."""
    own = sum(job.owner == owner_id for job in running)
    near = sum(job.owner != owner_id and here is not None and job.place == here for job in running)
    parts = {"yours": own, "of others here": near, "elsewhere": len(running) - own - near}
    return ", ".join(f"{number} {whose}" for whose, number in parts.items() if number) or "nothing"


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
