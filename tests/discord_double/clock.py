"""The time that Discord believes it is."""

from datetime import UTC, datetime, timedelta


class Clock:
    """Stands still unless moved, so that no test depends on how fast the machine is."""

    def __init__(self, *, running: bool = False) -> None:
        """Begins at the real time; a running one goes on with it."""
        self._running = running
        self._start = datetime.now(UTC)
        self._ahead = timedelta()

    def now(self) -> datetime:
        """Returns the time."""
        return (datetime.now(UTC) if self._running else self._start) + self._ahead

    def advance(self, **step: float) -> None:
        """Moves the time forward, such as ``advance(minutes=15)``."""
        self._ahead += timedelta(**step)
