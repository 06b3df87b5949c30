"""What Discord shows, as text: a waiting job, a result, an error, the modes. Pure."""

import math
import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence

from bot.records import JobRecord, JobView, Kinship, Setback
from bot.speech import later, tr, trn
from engine.jobs import GenerationRequest, JobStatus, Progress, Sampler, Stage
from modes.mode_config import ModeConfig
from modes.request_fields import size_text

CONTENT_LIMIT = 2000
"""Characters that a message may have."""

ALT_TEXT_LIMIT = 1024
"""Characters that a picture's description may have."""

_PROMPT_LIMIT = 900
_NEGATIVE_LIMIT = 300
_ERROR_LIMIT = 900
_SENTENCE_LIMIT = 1500
_PROBLEM_LIMIT = 300
_PROBLEMS = 3
_LORAS = 15
_ROLES = 5
_BAR_CELLS = 10
_NOTE_LIMIT = 400
_ELLIPSIS = "…"

# Whatever begins a style, a link, a mention, an emoji or a timestamp in Discord's markdown; the
# slash keeps addresses, invitations included, from becoming links.
_SPECIAL = re.compile(r"[\\`*_~|\[\]<>/]")
# What Discord shows by its name: a channel, a role, a moment.
_LINK = re.compile(r"\\<(#\d+|@&\d+|t:\d+:R)\\>")
# "#" begins a heading, "-", "+" and "1." a list.
_LINE_START = re.compile(r"\d*[.#+\-]")
# Characters that would turn the rest of the message around.
_BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")

_STAGES = {
    Stage.LOADING: later("Loading the model"),
    Stage.ENCODING: later("Reading the prompt"),
    Stage.DENOISING: later("Drawing"),
    Stage.DECODING: later("Finishing"),
}

_SETBACKS = {
    Setback.RESTART: later("Back after a restart"),
    Setback.WORKER_DIED: later("This was interrupted and is drawn again"),
}


def plain(text: str, limit: int = _SENTENCE_LIMIT) -> str:
    """Returns text that Discord shows as it was typed, on one line.

    Args:
        text: anything, however hostile.
        limit: most characters of what is returned, the escapes included.
    """
    line = " ".join("".join(_visible(character) for character in text).split())
    escaped = [_SPECIAL.sub(r"\\\g<0>", character) for character in line]
    if start := _LINE_START.match(line):
        escaped[start.end() - 1] = "\\" + line[start.end() - 1]
    if sum(map(len, escaped)) <= limit:
        return "".join(escaped)
    room, kept = limit - len(_ELLIPSIS), []
    for piece in escaped:
        room -= len(piece)
        if room < 0:
            break
        kept.append(piece)
    return "".join(kept) + _ELLIPSIS


def refusal(text: str) -> str:
    """Returns why something is not allowed; channels, roles and times in it are links."""
    return _LINK.sub(r"<\1>", plain(text))


def status(view: JobView) -> str:
    """Returns what the asker sees while a job waits or runs."""
    told = [f"-# {note}" for note in asking_notes(view.record)]
    return "\n".join([headline(view.record), stand(view), *told])


def asking_notes(record: JobRecord) -> list[str]:
    """Returns a line on what was changed of a request or left out; none where nothing was."""
    notes = record.origin.address.get("notes") or ()
    return [plain("; ".join(notes), _NOTE_LIMIT)] if notes else []


def farewell(view: JobView) -> str:
    """Returns the last words of an answer that Discord lets nobody edit any longer."""
    if view.record.origin.address.get("private"):
        where = tr("Nobody else sees this, so type /results in a while to get it.")
    else:
        where = tr("The picture comes as a new message in this channel.")
    late = tr("This takes longer than Discord lets me update this message.")
    return f"{headline(view.record)}\n{late} {where}"


def kept(record: JobRecord) -> str:
    """Returns what stands in an answer that may have no pictures."""
    told = tr("I may not attach pictures here. Type /results to get yours.")
    return f"{headline(record)}\n{told}"


def ping(record: JobRecord) -> str:
    """Returns what stands below an answer for who wants to be told that it has come."""
    if record.status is JobStatus.FAILED:
        return tr("{member} what you asked for could not be drawn.", member=mention(record))
    return tr("{member} what you asked for is there.", member=mention(record))


def outcome(record: JobRecord, notes: Iterable[str] = ()) -> str:
    """Returns what the asker sees of a job that has ended.

    Args:
        record: with a final status.
        notes: further small lines, such as that a picture had to be made smaller.
    """
    if record.status is JobStatus.FAILED:
        return f"{headline(record)}\n{plain(record.error or tr('It failed.'), _ERROR_LIMIT)}"
    if record.status is JobStatus.CANCELLED:
        return f"{headline(record)}\n-# {tr('Cancelled.')}"
    if not record.images:
        return f"{headline(record)}\n-# {tr('The pictures were deleted.')}"
    small = [_parameters(record)]
    if negative := record.request.shown_negative:
        small.append(tr("without {words}", words=plain(negative, _NEGATIVE_LIMIT)))
    small += asking_notes(record)
    if record.note:
        small.append(plain(record.note, _NOTE_LIMIT))
    return cut("\n".join([headline(record), *(f"-# {line}" for line in (*small, *notes))]))


def alt_text(request: GenerationRequest, number: int = 0) -> str:
    """Returns a picture's description for those who can't see it; nothing in it is markup.

    Args:
        request: what it was drawn from.
        number: which of its pictures, 0 is the first.
    """
    which = f"Picture {number + 1} of {request.count}" if request.count > 1 else "A picture"
    start = f"{which}, drawn with {request.mode}"
    start += " from another picture and the words: " if request.source else " from the words: "
    words = " ".join("".join(_visible(character) for character in request.shown_prompt).split())
    if len(start) + len(words) > ALT_TEXT_LIMIT:
        words = words[: ALT_TEXT_LIMIT - len(start) - 1] + _ELLIPSIS
    return start + words


def mode_list(
    modes: Iterable[ModeConfig],
    current: ModeConfig,
    *,
    loaded: Collection[str] = (),
    problems: Sequence[str] = (),
    memory: Sequence[str] = (),
) -> str:
    """Returns all modes, the current one marked; what doesn't fit is counted.

    Args:
        modes: in the order to be shown.
        current: what is drawn with here when nobody names one.
        loaded: keys of the models that are in memory.
        problems: why the newest edit of the modes file is not in force.
        memory: lines that follow all.
    """
    lines = [_mode_line(mode, current.name, loaded) for mode in modes]
    shown: list[str] = []
    if problems:
        shown.append("**The last edit of the modes was refused; what was before stays:**")
        shown += [f"- {plain(problem, _PROBLEM_LIMIT)}" for problem in problems[:_PROBLEMS]]
        if rest := len(problems) - _PROBLEMS:
            shown += [f"-# and {rest} more in the log"] * (rest > 0)
    room = CONTENT_LIMIT - 60 - sum(len(line) + 1 for line in (*shown, *memory))
    described = len(shown)
    for line in lines:
        room -= len(line) + 1
        if room < 0:
            break
        shown.append(line)
    if rest := len(lines) + described - len(shown):
        shown.append(f"-# and {rest} more: type /modes to find them")
    return "\n".join([*shown, *memory])


def mode_info(mode: ModeConfig, current: ModeConfig) -> str:
    """Returns all that a member wants to know of one mode."""
    width, height = mode.default_size
    lines = [_mode_line(mode, current.name)]
    lines.append(
        f"{width}x{height}, {mode.default_steps} steps, guidance {mode.default_guidance:g}, "
        f"{mode.default_sampler.value}"
    )
    sides = f"Sides from {mode.min_size} to {mode.max_size}"
    lines.append(
        f"-# {f'Sizes {_sizes(mode)}' if mode.sizes else sides}, up to {mode.max_steps} steps, "
        f"guidance 1 to {mode.max_guidance:g}, up to {mode.max_count} pictures at once"
    )
    if len(mode.samplers) < len(Sampler):
        lines.append(f"-# samplers {', '.join(mode.samplers)}")
    if mode.prompt_prefix or mode.prompt_suffix:
        around = f"{mode.prompt_prefix} … {mode.prompt_suffix}"
        lines.append(f"-# puts your words into: {plain(around, _NEGATIVE_LIMIT)}")
    if mode.default_negative:
        lines.append(f"-# without {plain(mode.default_negative, _NEGATIVE_LIMIT)}")
    if mode.negative_always:
        lines.append(f"-# always without {plain(mode.negative_always, _NEGATIVE_LIMIT)}")
    if not mode.negative_allowed:
        lines.append("-# takes no negative prompt of yours")
    lines += [f"-# {line}" for line in _model_lines(mode)]
    return cut("\n".join(lines))


def unexpected(note: str) -> str:
    """Returns what somebody reads who met a bug; the note is in the log, too."""
    return tr(
        "Something went wrong inside Dream Lab. Please try again; if it happens again, tell the "
        "bot's owner this note: `{note}`.",
        note=note,
    )


def mention(record: JobRecord) -> str:
    """Returns the asker as Discord links people, or the plain name."""
    kind, _, number = record.owner.id.partition(":")
    if kind == "discord" and number.isdigit():
        return f"<@{number}>"
    return plain(record.owner.name, 80)


def _visible(character: str) -> str:
    """Returns the character, or nothing and a space for what would break the line."""
    if character in _BIDI:
        return ""
    return " " if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") else character


def headline(record: JobRecord) -> str:
    """Returns what was asked for, and by whom."""
    return tr(
        "**{prompt}** for {member}",
        prompt=plain(record.request.shown_prompt, _PROMPT_LIMIT),
        member=mention(record),
    )


def stand(view: JobView) -> str:
    """Returns how far a job is that waits or runs."""
    if view.record.status is JobStatus.QUEUED:
        if view.setback:
            return f"{tr(_SETBACKS[view.setback])}: {_place(view.position)}{_end(view)}"
        if view.position is None:
            return f"{tr('In the queue')}{_end(view)}"
        if view.position == 1:
            return f"{tr('Next in the queue')}{_end(view)}"
        place = tr("In the queue: number {position}", position=view.position)
        return f"{place}{_before(view)}{_end(view)}"
    return f"{_advance(view.progress)}{_end(view)}"


def _before(view: JobView) -> str:
    """Returns who goes before it."""
    if not view.before:
        return ""
    count, _, whom = view.before.partition(" ")
    if count.isdecimal() and whom.startswith("member"):
        before = trn("{count} member before you", "{count} members before you", count=int(count))
        return f", {before}"
    return ", " + tr("{whom} before you", whom=view.before)


def _end(view: JobView) -> str:
    """Returns when it will be done, as a moment that Discord counts down to."""
    if view.paused is not None:
        why = f" ({plain(view.paused, 200)})" if view.paused else ""
        return " · " + tr("drawing is paused{why}, your place is kept", why=why)
    if not view.expected_at:
        return ""
    return " · " + tr("done {moment}", moment=f"<t:{math.ceil(view.expected_at.timestamp())}:R>")


def _place(position: int | None) -> str:
    if position is None:
        return tr("in the queue")
    if position == 1:
        return tr("you are next")
    return tr("you are number {position}", position=position)


def _advance(progress: Progress | None) -> str:
    if progress is None:
        return tr("Starting")
    words = tr(_STAGES[progress.stage])
    if progress.stage is not Stage.DENOISING or not progress.steps:
        return words
    full = int(progress.fraction * _BAR_CELLS)
    bar = "▰" * full + "▱" * (_BAR_CELLS - full)
    step = tr("step {step} of {steps}", step=progress.step, steps=progress.steps)
    return f"{bar} {words}, {step}"


def _parameters(record: JobRecord) -> str:
    request = record.request
    seeds = tr("seed {seed}", seed=request.seed)
    if request.count > 1:
        seeds = tr("seeds {first} to {last}", first=request.seeds[0], last=request.seeds[-1])
    parts = [
        plain(request.mode, 80),
        f"{request.width}x{request.height}",
        trn("{count} step", "{count} steps", count=request.steps),
        tr("guidance {scale}", scale=f"{request.guidance_scale:g}"),
        request.sampler.value,
        seeds,
    ]
    if request.variation_seed is not None:
        parts.append(tr("variation {seed}", seed=request.variation_seed))
    if record.parent and record.parent.kinship is Kinship.UPSCALE:
        parts.append("enlarged")
    elif request.source is not None:
        strength = f"{request.strength:g}"
        parts.append(tr("from a picture, strength {strength}", strength=strength))
    if record.seconds is not None:
        parts.append(f"{record.seconds:.1f} s")
    return " · ".join(parts)


def _sizes(mode: ModeConfig) -> str:
    return ", ".join(map(size_text, mode.sizes))


def _model_lines(mode: ModeConfig) -> Iterable[str]:
    """Yields what belongs to the model, and what may be laid over it."""
    own = [f"{plain(lora.path.stem, 80)} at {lora.strength:g}" for lora in mode.model.loras]
    if own:
        yield f"with {', '.join(own)}"
    if mode.refiner:
        share = round(100 * (1 - mode.refiner_from))
        yield f"the last {share}% of the steps by {plain(mode.refiner.path.name, 80)}"
    if mode.model.vae:
        yield f"decoded by {plain(mode.model.vae.name, 80)}"
    if mode.clip_skip:
        yield f"clip skip {mode.clip_skip}"
    if mode.lora_folder or mode.loras_allowed:
        names = [f"`{plain(lora.name, 80)}`" for lora in mode.loras_allowed[:_LORAS]]
        which = "any" if mode.lora_folder else ", ".join(names)
        more = len(mode.loras_allowed) - _LORAS
        which += f" and {more} more" if more > 0 and not mode.lora_folder else ""
        yield (
            f"LoRAs that you may add, {mode.max_loras} at most, to strength "
            f"{mode.max_lora_strength:g}: {which}"
        )


def _roles(mode: ModeConfig) -> str:
    """Returns for whom a mode is; Discord shows an id as the role's name."""
    names = [
        f"<@&{role}>" if role.isdecimal() else plain(role, 60)
        for role in mode.allowed_roles[:_ROLES]
    ]
    if more := len(mode.allowed_roles[_ROLES:]):
        names.append(f"{more} more roles")
    return f", for {' or '.join(names)}" if names else ""


def cut(text: str) -> str:
    """Returns whole lines that a message has room for."""
    lines = text.split("\n")
    while sum(map(len, lines)) + len(lines) > CONTENT_LIMIT:
        lines.pop()
    return "\n".join(lines)


def _mode_line(mode: ModeConfig, current: str, loaded: Collection[str] = ()) -> str:
    width, height = mode.default_size
    mark = " (in use here)" if mode.name == current else ""
    about = f": {plain(mode.description, 200)}" if mode.description else ""
    name = "" if mode.title == mode.name else f" `{mode.name}`"
    facts = f"{width}x{height}, {mode.default_steps} steps{', NSFW' if mode.nsfw else ''}"
    facts += f"{', loaded' if mode.model.key in loaded else ''}{_roles(mode)}"
    return f"**{plain(mode.title, 200)}**{name}{mark}{about} · {facts}"
