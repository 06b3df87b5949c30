"""What is said where no language is known, in the reader's: errors, notes and what was changed.

The engine and the modes know no languages, and what is kept with a job or in the audit is read by
people of several. All of that is English, made of the phrases below, and is recognised by them when
it is shown. What no phrase fits is shown as it is: names, and what is wrong with a model's file,
which reads as it does in the log, for the bot's owner to mend. Pure.
"""

import re
from functools import cache
from string import Formatter

from bot.speech import is_english, later, named, tr

_ERRORS = (
    later("{field}: {value} is not allowed. Allowed: {allowed}."),
    later(
        "{asked} is too big for the memory that this bot draws with. No smaller size of this mode "
        "fits either."
    ),
    later("{asked} is too big for the memory that this bot draws with. {size} fits."),
    later(
        "Drawing this would take about {time} here; a request may take {longest} at most. A "
        "smaller picture, fewer of them or fewer steps take less."
    ),
    later(
        "You have {count} request waiting; at most {most} may wait at once. Ask again when one of "
        "them is being drawn."
    ),
    later(
        "You have {count} requests waiting; at most {most} may wait at once. Ask again when one of "
        "them is being drawn."
    ),
    later(
        "{number} requests are too many beside the {count} that you have waiting; at most {most} "
        "may wait at once. Ask again when fewer of them wait."
    ),
    later("The model {name} can't be used: {reason}."),
    later("The worker on {device} {fate}."),
    later(
        "The worker on {device} {fate}. It is not the first time with this request: it isn't tried "
        "again."
    ),
    later(
        "Dream Lab crashed each time while this was being drawn, so it is not tried again. "
        "Ask for it once more, perhaps smaller."
    ),
    later(
        "Nothing can be drawn at the moment: {reason}. It is tried once more every few minutes; "
        "ask again later."
    ),
    later(
        "The request was given up after {seconds} seconds, the longest that one may take "
        "(JOB_TIMEOUT). A smaller picture, fewer of them or fewer steps take less."
    ),
    later("{device} ran out of memory. A smaller picture or fewer at once may fit."),
    later("The request was cancelled."),
    later("Dream Lab is shutting down; the request was not drawn."),
    later("There is no picture to enlarge."),
    later("The picture to start from is gone. Please give it again."),
    later("The picture to start from can't be read: its file is damaged. Please give it again."),
    later("The picture to draw from can't be read: {fault}."),
    later("The picture to start from was deleted."),
    later("The picture can't be kept: {fault}."),
    later("The worker on {device} ended without a picture."),
    later(
        "{name} drew values that are no numbers. Its weights may be damaged, or its prediction "
        "type is not the one that the mode says."
    ),
    later("The VAE of {name} returned no numbers."),
    later("Drawing failed: {fault}"),
    later("Something went wrong inside Dream Lab; the log has the details."),
    later("This was asked for already."),
    later("The file took longer than {seconds} seconds. Please send it again."),
    later("The file could not be fetched. Please send it again."),
    later("The plots can't be drawn just now; the log of Dream Lab says why."),
    later("Drawing is paused, so nothing is loaded. End the pause first."),
)
"""Whole sentences, of errors that are raised."""

_REASONS = (
    later("no such file or folder"),
    later("needs {needed} GB of memory; {free} GB of {total} GB can be freed"),
    later(
        "the machine of {device} has no file of this content. Copy it there, below a folder that "
        "DREAMLAB_MODELS names, or let files be sent with RAY_SEND_MODELS"
    ),
    later(
        "no machine that draws has a file of this content ({device}). Copy it to one, below a "
        "folder that DREAMLAB_MODELS names there, or let files be sent with RAY_SEND_MODELS"
    ),
    later("{device} failed again and again, as the log says"),
    later("no reason was given"),
    later("no reason given"),
    later("ended with exit code {code}"),
    later("was killed by {signal}"),
    later("was shut down"),
    later("is not running"),
    later("the mode {mode} is gone."),
    later("so it is with the mode {mode}."),
    later("the mode {mode} draws with another model now."),
    later("{name} is missing."),
    later("{size} is more than the mode {mode} draws; its longest side is {most}."),
    later("{count} seconds"),
    later("{count} minutes"),
    later("{count} hours"),
)
"""Parts of sentences: why something is so."""

_VALUES = (
    later("nothing"),
    later("so long a number"),
    later("a number of many digits"),
    later("millions of combinations"),
    later("{count} combinations"),
    later("{{ }} {count} deep"),
    later("{count} characters"),
    later("{count} words"),
    later("a prompt of {count} tokens"),
    later("{count} LoRAs"),
    later("{count} channels"),
    later("{count} roles"),
    later("{count} waiting"),
    later("a picture of {size}"),
    later("a picture of {size} pixels"),
    later("a picture with too many pixels"),
    later("a picture with too many scans"),
    later("a picture that is damaged or of another kind"),
    later("a file of more than {most} MB"),
    later("an empty file"),
    later("the picture"),
)
"""Parts of sentences: what was asked for, where it isn't what was typed."""

_ALLOWED = (
    later("{least} to {most} characters of text"),
    later("{allowed}, without control characters"),
    later("at most {most}"),
    later("at most {most} characters"),
    later("at most {most} deep"),
    later("at most {most} at once; fewer words between {{ }}"),
    later("at most {most} at once where you alone have brought the bot along"),
    later("at most {most}; try again in a moment"),
    later("at most {most}, commas between them"),
    later("words of at most {most} characters"),
    later("words; a * at their beginning or end beside {least} letters at least"),
    later("a number"),
    later("a number such as {example}"),
    later("a number from {least} to {most}"),
    later("a number from {least} to 1 at {steps} steps"),
    later("a whole number from {least} to {most}"),
    later("a whole number from {least} to {most}, or nothing"),
    later("{allowed}, a multiple of {step}"),
    later("a multiple of {step}"),
    later("{least} to {most}"),
    later("{least} to {most} with {steps} steps"),
    later("{least} to {most} with the sampler {sampler}"),
    later("{least} to {most} for this model"),
    later("about {most} tokens for this model; it is longer"),
    later("a strength from {least} to {most}"),
    later("one beside a picture to start from"),
    later("words alone; pictures are taken by the studio"),
    later("a size such as 16:9, portrait or 512x768"),
    later("width x height in pixels, such as 512x768"),
    later("square, portrait, landscape, an aspect such as 16:9, or width x height such as 512x768"),
    later("words such as text, blur"),
    later("the mode's own alone; leave it out"),
    later("a name"),
    later("the name of a mode"),
    later("a mode that is complete: {name} is missing"),
    later("no mode is configured"),
    later("the name of a sampler"),
    later("the name of a LoRA"),
    later("a LoRA such as {example}"),
    later("<lora:name> or <lora:name:0.8>"),
    later("name or name:0.8, several with commas between them"),
    later("{count} in one request"),
    later("none in this mode"),
    later("none; this mode has no refiner"),
    later("{names} and {count} more"),
    later(
        "steps 30, guidance 7, sampler Euler a, count 1, mode NAME, and strength 0.5 where it "
        "begins with a picture; each once, with commas between them"
    ),
    later("a PNG, JPEG, WebP or GIF picture of at most {most} MB and {pixels} megapixels"),
    later("one whose sides have at most {most} pixels"),
    later("one that was not deleted"),
    later("one of {count}"),
    later("the id of a request"),
    later("the id of a picture that was not deleted"),
    later("channels of this server, or the word all"),
    later("roles of this server, or the word all"),
    later("one channel of this server, or the word none"),
)
"""Parts of sentences: what would have been fine."""

_NOTES = (
    later("{field}: the option's {said} counts, not --{parameter}"),
    later("{field}: {most} instead of {said}, the most in this mode"),
    later("guidance: 1 instead of {said}, the least there is"),
    later("size: {size} instead of {asked}; sides are multiples of 8 from {least} to {most}"),
    later("size: {size}, as near to {asked} as this mode comes"),
    later("size: {size} instead of your {asked}, by this mode"),
    later("{name} has no meaning here and was left out"),
    later("{names} and {name} have no meaning here and were left out"),
    later("mode: {mode} instead of {asked}, which is not to be had here"),
    later("Enlarged without a model: {reason}"),
    later("the PNG of {size} MB is too large for here; Details has the original"),
    later("shown as WebP: {reason}"),
    later("shown as WebP at {share} of its size: {reason}"),
    later("as lossless WebP, pixel for pixel the same: the PNG has {size} MB"),
    later("a picture is too large for Discord; the bot's owner has it"),
)
"""What was changed of a request, or done to its pictures."""

_CHANGES = (
    later("Channels to draw in"),
    later("Roles that may draw"),
    later("Requests under way per member"),
    later("Pictures per member and day"),
    later("Time between two requests of a member"),
    later("Blocked words"),
    later("NSFW modes"),
    later("Channel for reports"),
    later("Modes for some roles"),
    later("Million pixel-steps per member and day"),
    later("all"),
    later("everybody"),
    later("none"),
    later("nowhere"),
    later("no limit"),
    later("{number} s"),
    later("age-restricted channels"),
    later("everywhere, as spoilers"),
    later("{title}: {before} → {after}"),
    later("Mode: {mode}"),
    later("Mode: none of its own"),
    later("Mode in {channel}: {mode}"),
    later("Mode in {channel}: none of its own"),
    later("Paused drawing: {reason}"),
    later("Went on drawing"),
    later("Loaded: {mode}"),
    later("Unloaded: {mode}"),
    later("Read the modes again"),
    later("Read the modes again: refused"),
    later("Blocked: {member}, {reason}"),
    later("Unblocked: {member}"),
    later("Cancelled a request: {whose}"),
    later("Deleted the pictures of a request: {whose}"),
    later("Replaced the modes file"),
    later("Brought an older modes file back"),
    later("Added a mode: {mode}"),
    later("Changed a mode: {mode}"),
    later("Removed a mode: {mode}"),
)
"""A server's settings, and what the audit says of changes."""

PHRASES = (*_ERRORS, *_REASONS, *_VALUES, *_ALLOWED, *_NOTES, *_CHANGES)
"""All of them, with values' places named in braces."""

_SHAPES = dict.fromkeys(
    ("code", "count", "free", "least", "most", "needed", "number", "pixels", "seconds", "total"),
    r"-?\d[\d.]*",
) | dict.fromkeys(("field", "title"), "[^:]+")
"""What stands in some places, numbers and names before a colon; in others may stand anything."""

_PHRASES_WITHIN = frozenset(
    ("after", "allowed", "before", "fate", "longest", "reason", "time", "title", "value")
)
"""Places of what is said by another phrase."""

_DEEPEST = 4
"""Phrases within one another; what somebody typed may look like many."""


def retold(text: str) -> str:
    """Returns an English sentence in the language that is spoken, or as it is.

    Args:
        text: of an error, of a note with a job, or of the audit.
    """
    return text if is_english() else _retold(text, _DEEPEST)


def _retold(text: str, depth: int) -> str:
    for phrase, pattern in _patterns() if depth else ():
        if match := pattern.fullmatch(text):
            said = match.groupdict()
            return tr(phrase, **{name: _value(name, said[name], depth - 1) for name in said})
    return text


def _value(name: str, said: str, depth: int) -> str:
    if name == "field":
        return named(said)
    if name == "value" and len(said) > 2 and said[0] == said[-1] == "'":
        return f"'{_retold(said[1:-1], depth)}'"
    return _retold(said, depth) if name in _PHRASES_WITHIN else said


@cache
def _patterns() -> tuple[tuple[str, re.Pattern[str]], ...]:
    """Returns each phrase with what recognises it; what says more goes first."""
    read = {phrase: list(Formatter().parse(phrase)) for phrase in PHRASES}
    said = {phrase: sum(len(part[0]) for part in parts) for phrase, parts in read.items()}
    longest = sorted(PHRASES, key=said.__getitem__, reverse=True)
    return tuple((phrase, _pattern(read[phrase])) for phrase in longest)


def _pattern(parts: list[tuple[str, str | None, str | None, str | None]]) -> re.Pattern[str]:
    pieces = []
    for literal, name, _, _ in parts:
        pieces.append(re.escape(literal))
        if name is not None:
            pieces.append(f"(?P<{name}>{_SHAPES.get(name, '.+?')})")
    return re.compile("".join(pieces), re.DOTALL)
