"""What is said of requests before they are any, and of a member's own defaults. Pure."""

from collections.abc import Sequence

from bot.asking import Asked
from bot.phrasebook import retold
from bot.preferences import Ping, Preferences
from bot.replies import cut, plain
from bot.speech import later, tr
from engine.images import Parameters

_PROMPT = 120
_SHOWN = 10

_PINGS = {
    Ping.QUIET: later("quiet: the answer changes and nothing rings"),
    Ping.PING: later("ping: a word below the answer names you"),
    Ping.DIRECT: later("direct message: the picture comes to you, too"),
}


def confirmation(asked: Sequence[Asked]) -> str:
    """Returns what is to be confirmed: how many pictures, and of what."""
    pictures = sum(one.pictures for one in asked)
    head = tr(
        "This draws {pictures} pictures, in {requests} requests:",
        pictures=pictures,
        requests=len(asked),
    )
    lines = [f"**{head}**"]
    lines += [f"- {plain(one.draft.prompt, _PROMPT)}" for one in asked[:_SHOWN]]
    if rest := len(asked[_SHOWN:]):
        lines.append(f"-# {tr('and {rest} more', rest=rest)}")
    notes = dict.fromkeys(note for one in asked for note in one.notes)
    if notes:
        lines.append(f"-# {plain('; '.join(map(retold, notes)), 400)}")
    return "\n".join(lines)


def confirmed(number: int) -> str:
    """Returns what stands in place of the question once it was answered with yes."""
    return tr("Drawing: {requests} requests.", requests=number)


def taken_back() -> str:
    """Returns what stands there once it was answered with no."""
    return tr("Nothing is drawn.")


def shared(link: str) -> str:
    """Returns what somebody reads who has shared a private answer, however often."""
    return tr("Shared: {link}", link=link)


def parameters(found: Sequence[Parameters | None]) -> str:
    """Returns what pictures' files say of how they were made."""
    parts = []
    for number, one in enumerate(found, 1):
        told = _parameters(one) if one else tr("Its file doesn't say how it was made.")
        head = f"**{tr('Picture {number}', number=number)}:** " if len(found) > 1 else ""
        parts.append(head + told)
    return cut("\n".join(parts))


def _parameters(one: Parameters) -> str:
    lines = [f"**{plain(one.prompt, 800)}**" if one.prompt.strip() else tr("No words")]
    if one.negative_prompt:
        lines.append(f"-# {tr('without {words}', words=plain(one.negative_prompt, 300))}")
    if one.settings:
        pairs = (f"{key} {value}" for key, value in one.settings.items())
        lines.append(f"-# {plain(' · '.join(pairs), 500)}")
    return "\n".join(lines)


def how_to_ask(bot_id: int) -> str:
    """Returns what somebody reads who names the bot without a word."""
    name = f"<@{bot_id}>"
    example = tr("Write what to draw beside my name, such as: {bot} a red circle", bot=name)
    from_picture = tr(
        "A picture that you send along, or one of mine that you reply to, is what I start from."
    )
    return f"{example} \\--ar 16:9\n-# {from_picture}"


def may_not_write(channel_id: int) -> str:
    """Returns what somebody reads in private who asked where the bot may not answer."""
    return tr(
        "I may not write in {channel}. Ask me here, or in another channel.",
        channel=f"<#{channel_id}>",
    )


def settings(own: Preferences, *, is_new: bool = False) -> str:
    """Returns a member's own defaults."""
    mode = plain(own.mode, 100) if own.mode else tr("the one of where you ask")
    size = plain(own.size, 50) if own.size else tr("the one of the mode")
    kept = tr("Kept. Yours unless you say otherwise:")
    lines = [
        f"**{kept if is_new else tr('Yours unless you say otherwise:')}**",
        f"- {tr('mode: {mode}', mode=mode)}",
        f"- {tr('size: {size}', size=size)}",
        f"- {tr(_PINGS[own.ping])}",
        f"-# {tr('/settings with an option changes it; the word default gives it back.')}",
    ]
    return "\n".join(lines)
