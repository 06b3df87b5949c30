"""A member's own defaults. Pure."""

from dataclasses import dataclass
from enum import StrEnum


class Ping(StrEnum):
    """How somebody is told that their picture is there, beside the answer itself."""

    QUIET = "quiet"
    """Not at all."""
    PING = "ping"
    """By a message in the channel that names them."""
    DIRECT = "direct message"
    """By a direct message with the picture."""


@dataclass(frozen=True, slots=True)
class Preferences:
    """What counts for a member who says nothing else.

    Attributes:
        mode: drawn with where it may be used; None is the server's own.
        size: see `wishes.SIZES`; None is the mode's own.
        ping: how they are told.
    """

    mode: str | None = None
    size: str | None = None
    ping: Ping = Ping.QUIET
