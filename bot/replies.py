"""What Discord shows, as text: a waiting job, a result, an error, the modes. Pure."""

import math
import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from bot.phrasebook import retold
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
# Who goes before a job: how many of their own, how many others.
_BEFORE = re.compile(r"(?:(\d+) of your own)?(?: and )?(?:(\d+) members?)?")
# Characters that would turn the rest of the message around.
_BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")

_STAGES = {
    Stage.LOADING: later("Loading {name}"),
    Stage.ENCODING: later("Reading the prompt"),
    Stage.DENOISING: later("Drawing"),
    Stage.DECODING: later("Finishing"),
}

_SETBACKS = {
    Setback.RESTART: later("Back after a restart"),
    Setback.INTERRUPTED: later("This was interrupted and is drawn again"),
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
    return [plain("; ".join(map(retold, notes)), _NOTE_LIMIT)] if notes else []


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
        return f"{headline(record)}\n{plain(failure(record), _ERROR_LIMIT)}"
    if record.status is JobStatus.CANCELLED:
        return f"{headline(record)}\n-# {tr('Cancelled.')}"
    if not record.images:
        return f"{headline(record)}\n-# {tr('The pictures were deleted.')}"
    small = [_parameters(record)]
    if negative := record.request.shown_negative:
        small.append(tr("without {words}", words=plain(negative, _NEGATIVE_LIMIT)))
    small += asking_notes(record)
    if record.note:
        small.append(plain(retold(record.note), _NOTE_LIMIT))
    small += map(retold, notes)
    return cut("\n".join([headline(record), *(f"-# {line}" for line in small)]))


def failure(record: JobRecord) -> str:
    """Returns why a job has failed; not for markdown."""
    return retold(record.error) if record.error else tr("It failed.")


def alt_text(request: GenerationRequest, number: int = 0) -> str:
    """Returns a picture's description for those who can't see it; nothing in it is markup.

    Args:
        request: what it was drawn from.
        number: which of its pictures, 0 is the first.
    """
    which = tr("A picture")
    if request.count > 1:
        which = tr("Picture {number} of {count}", number=number + 1, count=request.count)
    if request.source:
        start = tr(
            "{which}, drawn with {mode} from another picture and the words: ",
            which=which,
            mode=request.mode,
        )
    else:
        start = tr("{which}, drawn with {mode} from the words: ", which=which, mode=request.mode)
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
        shown.append(tr("**The last edit of the modes was refused; what was before stays:**"))
        shown += [f"- {plain(retold(problem), _PROBLEM_LIMIT)}" for problem in problems[:_PROBLEMS]]
        if (rest := len(problems) - _PROBLEMS) > 0:
            shown.append(f"-# {tr('and {rest} more in the log', rest=rest)}")
    room = CONTENT_LIMIT - 60 - sum(len(line) + 1 for line in (*shown, *memory))
    described = len(shown)
    for line in lines:
        room -= len(line) + 1
        if room < 0:
            break
        shown.append(line)
    if rest := len(lines) + described - len(shown):
        shown.append(f"-# {tr('and {rest} more: type /modes to find them', rest=rest)}")
    return "\n".join([*shown, *memory])


def mode_info(mode: ModeConfig, current: ModeConfig) -> str:
    """Returns all that a member wants to know of one mode."""
    width, height = mode.default_size
    usual = [
        f"{width}x{height}",
        trn("{count} step", "{count} steps", count=mode.default_steps),
        tr("guidance {scale}", scale=f"{mode.default_guidance:g}"),
        mode.default_sampler.value,
    ]
    lines = [_mode_line(mode, current.name), ", ".join(usual)]
    lines += [f"-# {line}" for line in (_bounds(mode), *_words_of(mode))]
    lines += [f"-# {line}" for line in _model_lines(mode)]
    return cut("\n".join(lines))


def unexpected(note: str) -> str:
    """Returns what somebody reads who met a bug; the note is in the log, too."""
    return tr(
        "Something went wrong inside Dream Lab. Please try again; if it happens again, tell the "
        "bot's owner this note: `{note}`.",
        note=note,
    )


def file_name(path: Path) -> str:
    """Returns what a model's or a LoRA's file, or folder, is called; it may have dots."""
    return plain(path.name.removesuffix(".safetensors"), 80)


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
    return f"{_advance(view.progress, view.record.request)}{_end(view)}"


def _before(view: JobView) -> str:
    """Returns who goes before it."""
    return f", {whom_before(view.before)}" if view.before else ""


def whom_before(before: str) -> str:
    """Returns who goes before a job, as `engine.fair_queue.Place` says it."""
    match = _BEFORE.fullmatch(before)
    own, others = (int(number or 0) for number in match.groups()) if match else (0, 0)
    if not own:
        return trn("{count} member before you", "{count} members before you", count=others)
    if not others:
        return tr("{count} of your own before you", count=own)
    return trn(
        "{own} of your own and {count} member before you",
        "{own} of your own and {count} members before you",
        count=others,
        own=own,
    )


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


def _advance(progress: Progress | None, request: GenerationRequest) -> str:
    if progress is None:
        return tr("Starting")
    words = tr(_STAGES[progress.stage], name=file_name(request.model.path))
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
        parts.append(tr("enlarged"))
    elif request.source is not None:
        strength = f"{request.strength:g}"
        parts.append(tr("from a picture, strength {strength}", strength=strength))
    if record.seconds is not None:
        parts.append(tr("{number} s", number=f"{record.seconds:.1f}"))
    return " · ".join(parts)


def _bounds(mode: ModeConfig) -> str:
    """Returns what may be asked of a mode."""
    if mode.sizes:
        sizes = tr("Sizes {sizes}", sizes=", ".join(map(size_text, mode.sizes)))
    else:
        sizes = tr("Sides from {least} to {most}", least=mode.min_size, most=mode.max_size)
    bounds = [
        sizes,
        trn("up to {count} step", "up to {count} steps", count=mode.max_steps),
        tr("guidance {least} to {most}", least=1, most=f"{mode.max_guidance:g}"),
        trn("{count} picture at once", "up to {count} pictures at once", count=mode.max_count),
    ]
    return ", ".join(bounds)


def _words_of(mode: ModeConfig) -> Iterable[str]:
    """Yields what a mode does to words, and which samplers it leaves out."""
    if len(mode.samplers) < len(Sampler):
        yield tr("samplers {names}", names=", ".join(mode.samplers))
    if mode.prompt_prefix or mode.prompt_suffix:
        around = f"{mode.prompt_prefix} … {mode.prompt_suffix}"
        yield tr("puts your words into: {words}", words=plain(around, _NEGATIVE_LIMIT))
    if mode.default_negative:
        yield tr("without {words}", words=plain(mode.default_negative, _NEGATIVE_LIMIT))
    if mode.negative_always:
        yield tr("always without {words}", words=plain(mode.negative_always, _NEGATIVE_LIMIT))
    if not mode.negative_allowed:
        yield tr("takes no negative prompt of yours")


def _model_lines(mode: ModeConfig) -> Iterable[str]:
    """Yields what belongs to the model, and what may be laid over it."""
    own = [
        tr("{name} at {strength}", name=file_name(lora.path), strength=f"{lora.strength:g}")
        for lora in mode.model.loras
    ]
    if own:
        yield tr("with {loras}", loras=", ".join(own))
    if mode.refiner:
        yield tr(
            "the last {share}% of the steps by {name}",
            share=round(100 * (1 - mode.refiner_from)),
            name=file_name(mode.refiner.path),
        )
    if mode.model.vae:
        yield tr("decoded by {name}", name=plain(mode.model.vae.name, 80))
    if mode.clip_skip:
        yield tr("clip skip {layer}", layer=mode.clip_skip)
    if mode.lora_folder or mode.loras_allowed:
        names = ", ".join(f"`{plain(lora.name, 80)}`" for lora in mode.loras_allowed[:_LORAS])
        if more := len(mode.loras_allowed[_LORAS:]):
            names = tr("{names} and {count} more", names=names, count=more)
        yield tr(
            "LoRAs that you may add, {most} at most, to strength {strength}: {which}",
            most=mode.max_loras,
            strength=f"{mode.max_lora_strength:g}",
            which=tr("any") if mode.lora_folder else names,
        )


def _roles(mode: ModeConfig) -> str:
    """Returns for whom a mode is; Discord shows an id as the role's name."""
    names = [
        f"<@&{role}>" if role.isdecimal() else plain(role, 60)
        for role in mode.allowed_roles[:_ROLES]
    ]
    if more := len(mode.allowed_roles[_ROLES:]):
        names.append(tr("{count} more roles", count=more))
    return tr("for {roles}", roles=tr(" or ").join(names)) if names else ""


def cut(text: str) -> str:
    """Returns whole lines that a message has room for."""
    lines = text.split("\n")
    while sum(map(len, lines)) + len(lines) > CONTENT_LIMIT:
        lines.pop()
    return "\n".join(lines)


def _mode_line(mode: ModeConfig, current: str, loaded: Collection[str] = ()) -> str:
    width, height = mode.default_size
    mark = f" ({tr('in use here')})" if mode.name == current else ""
    about = f": {plain(mode.description, 200)}" if mode.description else ""
    name = "" if mode.title == mode.name else f" `{mode.name}`"
    facts = [
        f"{width}x{height}",
        trn("{count} step", "{count} steps", count=mode.default_steps),
        "NSFW" if mode.nsfw else "",
        tr("loaded") if mode.model.key in loaded else "",
        _roles(mode),
    ]
    return f"**{plain(mode.title, 200)}**{name}{mark}{about} · {', '.join(filter(None, facts))}"
