"""When a job is expected to be done, as people are told. Pure."""

from datetime import datetime, timedelta

STEADY_SECONDS = 3.0
"""What a moment may be off before another one is told."""

STEADY_SHARE = 0.2
"""Likewise, as a share of the time until then, where that is more."""


def expected_at(told: datetime | None, seconds: float | None, now: datetime) -> datetime | None:
    """Returns the moment to tell: the one told before, unless it is notably off or has passed.

    Args:
        told: the moment told before.
        seconds: those left, as it is expected now; None where nobody knows.
        now: the time.
    """
    if seconds is None:
        return None
    moment = now + timedelta(seconds=seconds)
    if told is not None and told > now:
        bound = max(STEADY_SECONDS, STEADY_SHARE * seconds)
        if abs((moment - told).total_seconds()) <= bound:
            return told
    return moment


def seconds_text(moment: datetime, now: datetime) -> str:
    """Returns how long it is until a moment, such as ``about 12 s`` or ``about 3 min``."""
    seconds = max(1, round((moment - now).total_seconds()))
    if seconds < 100:
        return f"about {seconds} s"
    if seconds < 5400:
        return f"about {round(seconds / 60)} min"
    return f"about {round(seconds / 3600)} h"
