"""What members read of their own: pictures, the queue, figures, the commands. Pure."""

from collections.abc import Iterable, Sequence

from bot.members import Page
from bot.phrasebook import retold
from bot.policy import is_hidden
from bot.records import Figures, JobRecord, JobView, Owner
from bot.replies import CONTENT_LIMIT, cut, failure, plain, stand, whom_before
from bot.speech import later, named, tr, trn
from engine.fair_queue import MOST_OVERTAKINGS, Place
from engine.jobs import GenerationJob, JobStatus

_WORDS = 150
_LABEL = 100
_BUTTON = 40  # characters; four of them stand in a row
_UNDER_WAY = {JobStatus.RUNNING: later("drawing"), JobStatus.QUEUED: later("waiting")}


def pictures(number: int) -> str:
    """Returns how many pictures, such as ``2 pictures``."""
    return trn("{count} picture", "{count} pictures", count=number)


def requests(number: int) -> str:
    """Returns how many requests, such as ``1 request``."""
    return trn("{count} request", "{count} requests", count=number)


def history(page: Page, notes: Iterable[str] = ()) -> str:
    """Returns a page of somebody's history; the first picture of each request is beside it."""
    if not page.jobs:
        return tr("You have no pictures yet. Type /imagine to draw one.")
    lines = [_entry(job) for job in page.jobs]
    show = tr("/show with an id brings all pictures of a request, and its buttons")
    small = [*map(retold, notes), show]
    return cut("\n".join([*lines, *(f"-# {note}" for note in small)]))


def job_label(job: JobRecord, asker: Owner) -> str:
    """Returns a job as a choice among others, at most 100 characters; not for markdown."""
    whose = "" if job.owner.id == asker.id else f"{job.owner.name}: "
    shown = tr("a private request") if is_hidden(job, asker) else job.request.shown_prompt
    words = " ".join(f"{whose}{shown}".split())
    if not job.status.is_final:
        words = f"{tr(_UNDER_WAY[job.status])}: {words}"
    return words[:_LABEL] or job.id


def cancelled(job: JobRecord, asker: Owner) -> str:
    """Returns what somebody reads who took a job back."""
    words = tr("a private request") if is_hidden(job, asker) else _words(job)
    return tr("Cancelled: {words}", words=words)


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
    drawing = _whose(running, owner_id, here)
    lines = [tr("**Drawing: {drawing}. Waiting: {waiting}.**", drawing=drawing, waiting=waiting)]
    if not own:
        lines.append(tr("Nothing of yours is under way."))
    lines += [f"- {_words(view.record)}: {_standing(view, place)}" for view, place in own]
    overtaken = max((place.overtaken for _, place in own if place), default=0)
    if overtaken:
        why = trn(
            "{count} picture went before yours because the model was loaded; that happens to "
            "nobody more than {most} times.",
            "{count} pictures went before yours because the model was loaded; that happens to "
            "nobody more than {most} times.",
            count=overtaken,
            most=MOST_OVERTAKINGS,
        )
        lines.append(f"-# {why}")
    for weight in sorted({view.record.weight for view, place in own if place} - {1.0}):
        why = tr("By your role, your turns count {weight} times as much.", weight=f"{weight:g}")
        lines.append(f"-# {why}")
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
            tr(
                "**So far:** {pictures} of {requests} in {time} of drawing, since {moment}",
                pictures=pictures(own.pictures),
                requests=requests(own.requests),
                time=_time(own.seconds),
                moment=f"<t:{own.since.timestamp():.0f}:D>",
            )
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
    more = [tr("{count} more: type /results again", count=left)] if left else []
    small = [*map(retold, notes), *more]
    return cut("\n".join([*lines, *(f"-# {note}" for note in small)]))


def exported(number: int, total: int) -> str:
    """Returns what stands beside an archive of somebody's data."""
    what = tr("Your pictures, and what you asked for in `requests.json`.")
    if total == 1:
        return what
    return f"{tr('Part {number} of {total}.', number=number, total=total)} {what}"


def nothing_kept() -> str:
    """Returns what somebody reads who never asked for anything, or had it deleted."""
    return tr("Nothing of yours is kept.")


def forget_warning(own: Figures) -> str:
    """Returns what somebody reads before all of theirs is deleted."""
    ends = tr(
        "This ends what you have under way and deletes {requests} and all pictures of yours from "
        "the bot, for good, and with them your /settings. /mydata export brings all of it to you "
        "first.",
        requests=requests(own.requests),
    )
    stays = tr(
        "What stays: messages on Discord; a server's blocks and its list of changes; what you "
        "have used up of a server's limits today; copies in the bot owner's backups."
    )
    return f"{ends}\n-# {stays}"


def forgotten(jobs: int, images: int) -> str:
    """Returns what was deleted."""
    return tr(
        "Deleted: {requests}, {pictures}.", requests=requests(jobs), pictures=pictures(images)
    )


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
    lines += [tr("**{name}** in a message's menu, under Apps", name=named(name)) for name in menus]
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
    count = f", {pictures(len(job.images))}" if len(job.images) > 1 else ""
    seed = tr("seed {seed}", seed=request.seed)
    return (
        f"- {_words(job)}{count} · {request.width}x{request.height} · {seed} · "
        f"<t:{job.created_at.timestamp():.0f}:R> · `{job.id}`"
    )


def _words(job: JobRecord) -> str:
    return f"**{plain(job.request.shown_prompt, _WORDS)}**"


def _end(job: JobRecord) -> str:
    if job.status is JobStatus.FAILED:
        return plain(failure(job), 300)
    return tr("The pictures were deleted.")


def _standing(view: JobView, place: Place | None) -> str:
    if view.record.status is not JobStatus.QUEUED or place is None or view.setback:
        return stand(view)
    if place.position == 1:
        return tr("next")
    number = tr("number {position}", position=place.position)
    return f"{number}: {whom_before(place.before)}" if place.before else number


def _whose(running: Sequence[GenerationJob], owner_id: str, here: str | None) -> str:
    """Returns how many of what runs are whose, names left out."""
    own = sum(job.owner == owner_id for job in running)
    near = sum(job.owner != owner_id and here is not None and job.place == here for job in running)
    elsewhere = len(running) - own - near
    parts = [
        tr("{count} yours", count=own) if own else "",
        tr("{count} of others here", count=near) if near else "",
        tr("{count} elsewhere", count=elsewhere) if elsewhere else "",
    ]
    return ", ".join(filter(None, parts)) or tr("nothing")


def _time(seconds: float) -> str:
    if seconds < 120:
        return tr("{number} s", number=f"{seconds:.0f}")
    if seconds < 7200:
        return tr("{number} min", number=f"{seconds / 60:.0f}")
    return tr("{number} h", number=f"{seconds / 3600:.1f}")
