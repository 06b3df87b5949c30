"""What the switching, loading and allowing of modes read like. Pure."""

from collections.abc import Iterable, Sequence

from bot.phrasebook import retold
from bot.replies import cut, plain, refusal
from bot.replies_stats import duration
from bot.replies_stats import memory as bar
from bot.rules import told
from bot.speech import tr
from bot.steward import Device
from modes.mode_config import ModeConfig

_PROBLEMS = 5
_NAMES = 900
_DEVICES = 8


def switched(mode: ModeConfig, channel: str | None) -> str:
    """Returns what all read after a switch."""
    title = plain(mode.title, 200)
    if channel:
        return tr("{channel} now draws with **{mode}**.", channel=f"<#{channel}>", mode=title)
    return tr("This server now draws with **{mode}**.", mode=title)


def reset(current: ModeConfig, channel: str | None, *, was_chosen: bool) -> str:
    """Returns what all read after a choice was forgotten, or who tried that there was none."""
    title = plain(current.title, 200)
    if channel is None and was_chosen:
        return tr(
            "This server has no mode of its own any more: it draws with **{mode}**.", mode=title
        )
    if channel is None:
        return tr("This server had no mode of its own; it draws with **{mode}**.", mode=title)
    where = f"<#{channel}>"
    if was_chosen:
        return tr(
            "{channel} has no mode of its own any more: it draws with **{mode}**.",
            channel=where,
            mode=title,
        )
    return tr(
        "{channel} had no mode of its own; it draws with **{mode}**.", channel=where, mode=title
    )


def allowed(mode: ModeConfig, roles: tuple[str, ...]) -> str:
    """Returns who may draw with a mode in this server."""
    who = refusal(retold(told("roles", roles)))
    return tr("In this server **{mode}** is for {roles}.", mode=plain(mode.title, 200), roles=who)


def reloaded(names: Sequence[str], problems: Sequence[str]) -> str:
    """Returns what became of the modes file."""
    if not problems:
        return tr("The modes are read again: {names}.", names=plain(", ".join(names), _NAMES))
    lines = [tr("**The modes file can't be used; what was before stays:**")]
    lines += [f"- {plain(retold(problem), 300)}" for problem in problems[:_PROBLEMS]]
    if rest := problems[_PROBLEMS:]:
        lines.append(f"-# {tr('and {rest} more in the log', rest=len(rest))}")
    return cut("\n".join(lines))


def loaded(mode: ModeConfig, seconds: float, devices: Sequence[Device]) -> str:
    """Returns that a mode's model is loaded, and what memory is like now."""
    title = plain(mode.title, 200)
    if seconds < 1:
        return _with_memory(tr("**{mode}** is loaded.", mode=title), devices)
    time = duration(seconds)
    return _with_memory(tr("**{mode}** is loaded, in {time}.", mode=title, time=time), devices)


def unloaded(mode: ModeConfig, devices: Sequence[Device]) -> str:
    """Returns that a mode's memory was given back, and what memory is like now."""
    return _with_memory(
        tr(
            "**{mode}** is not loaded any more; its next picture loads it again.",
            mode=plain(mode.title, 200),
        ),
        devices,
    )


def memory(devices: Sequence[Device]) -> list[str]:
    """Returns each device's memory as a bar; those beyond the eighth are counted."""
    lines = [bar(each.name, each.used, each.total) for each in devices[:_DEVICES]]
    if rest := devices[_DEVICES:]:
        lines.append(f"-# {tr('and {rest} more devices', rest=len(rest))}")
    return lines


def where(mode: ModeConfig, devices: Iterable[Device]) -> list[str]:
    """Returns where a mode's model is loaded."""
    holding = [device for device in devices if mode.model.key in device.loaded]
    if not holding:
        return [f"-# {tr('not loaded')}"]
    return [f"**{tr('Loaded:')}**", *memory(holding)]


def _with_memory(text: str, devices: Sequence[Device]) -> str:
    return cut("\n".join([text, *memory(devices)]))
