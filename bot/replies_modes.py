"""What the switching, loading and allowing of modes read like. Pure."""

from collections.abc import Iterable, Sequence

from bot.replies import cut, plain, refusal
from bot.replies_stats import duration
from bot.replies_stats import memory as bar
from bot.rules import told
from bot.steward import Device
from modes.mode_config import ModeConfig

_PROBLEMS = 5
_NAMES = 900
_DEVICES = 8


def switched(mode: ModeConfig, channel: str | None) -> str:
    """Returns what all read after a switch."""
    who = f"<#{channel}>" if channel else "This server"
    return f"{who} now draws with **{plain(mode.title, 200)}**."


def reset(current: ModeConfig, channel: str | None, *, was_chosen: bool) -> str:
    """Returns what all read after a choice was forgotten, or who tried that there was none."""
    who = f"<#{channel}>" if channel else "This server"
    title = plain(current.title, 200)
    if not was_chosen:
        return f"{who} had no mode of its own; it draws with **{title}**."
    return f"{who} has no mode of its own any more: it draws with **{title}**."


def allowed(mode: ModeConfig, roles: tuple[str, ...]) -> str:
    """Returns who may draw with a mode in this server."""
    who = refusal(told("roles", roles))
    return f"In this server **{plain(mode.title, 200)}** is for {who}."


def reloaded(names: Sequence[str], problems: Sequence[str]) -> str:
    """Returns what became of the modes file."""
    if not problems:
        listed = plain(", ".join(names), _NAMES)
        return f"The modes are read again: {listed}."
    lines = ["**The modes file can't be used; what was before stays:**"]
    lines += [f"- {plain(problem, 300)}" for problem in problems[:_PROBLEMS]]
    if rest := problems[_PROBLEMS:]:
        lines.append(f"-# and {len(rest)} more in the log")
    return cut("\n".join(lines))


def loaded(mode: ModeConfig, seconds: float, devices: Sequence[Device]) -> str:
    """Returns that a mode's model is loaded, and what memory is like now."""
    took = f" in {duration(seconds)}" if seconds >= 1 else ""
    return _with_memory(f"**{plain(mode.title, 200)}** is loaded{took}.", devices)


def unloaded(mode: ModeConfig, devices: Sequence[Device]) -> str:
    """Returns that a mode's memory was given back, and what memory is like now."""
    return _with_memory(
        f"**{plain(mode.title, 200)}** is not loaded any more; its next picture loads it again.",
        devices,
    )


def memory(devices: Sequence[Device]) -> list[str]:
    """Returns each device's memory as a bar; those beyond the eighth are counted."""
    lines = [bar(each.name, each.used, each.total) for each in devices[:_DEVICES]]
    if rest := devices[_DEVICES:]:
        lines.append(f"-# and {len(rest)} more devices")
    return lines


def where(mode: ModeConfig, devices: Iterable[Device]) -> list[str]:
    """Returns where a mode's model is loaded."""
    holding = [device for device in devices if mode.model.key in device.loaded]
    return ["**Loaded:**", *memory(holding)] if holding else ["-# not loaded"]


def _with_memory(text: str, devices: Sequence[Device]) -> str:
    return cut("\n".join([text, *memory(devices)]))
