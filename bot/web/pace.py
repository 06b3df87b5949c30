"""(pure) How fast one may come: so many at once, and so many a second in the long run."""

from collections.abc import Callable


class Pace:
    """Counts who comes. There are as many to count as there are tokens."""

    def __init__(self, per_second: float, burst: int, clock: Callable[[], float]) -> None:
        """Takes the bounds.

        Args:
            per_second: how many of one are fine for ever.
            burst: how many of one are fine at once, after a pause.
            clock: seconds since some moment, never set back.
        """
        self._per_second = per_second
        self._burst = burst
        self._clock = clock
        self._left: dict[str, tuple[float, float]] = {}  # how many are fine now, as of when

    def wait(self, who: str) -> float:
        """Counts somebody in; returns the seconds until that is fine, and then they don't count."""
        now = self._clock()
        left, since = self._left.get(who, (float(self._burst), now))
        left = min(self._burst, left + (now - since) * self._per_second)
        is_fine = left >= 1
        self._left[who] = (left - is_fine, now)
        return 0.0 if is_fine else (1 - left) / self._per_second
