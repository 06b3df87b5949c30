"""(pure) How many workers there should be, where machines come and go as they are needed."""

import math
from dataclasses import dataclass, field

IDLE_SECONDS = 300.0
"""How long less must have been wanted before a worker is given back: a machine takes minutes to
come, and its models to be loaded."""


@dataclass(slots=True)
class FleetSize:
    """As many workers as there are devices, or between two numbers as many as requests need.

    Attributes:
        least: workers, whoever waits or not.
        most: workers, however many wait; None takes what there is and asks for nothing.
        jobs_each: requests that make one more worker worth while.
        idle_seconds: how long less must have been wanted before one is given back.
    """

    least: int = 0
    most: int | None = None
    jobs_each: int = 4
    idle_seconds: float = IDLE_SECONDS
    _needs: list[tuple[float, int]] = field(default_factory=list)

    @property
    def is_elastic(self) -> bool:
        """Whether machines are asked for and given back."""
        return self.most is not None

    def wanted(self, jobs: int, present: int, now: float) -> int:
        """Returns how many workers there should be.

        More are wanted at once, fewer when fewer have been enough for `idle_seconds`.

        Args:
            jobs: that run or wait.
            present: workers.
            now: seconds, by any clock that goes forward.
        """
        if self.most is None:
            return present
        need = min(self.most, max(self.least, math.ceil(jobs / self.jobs_each)))
        # Of those who needed less and came before somebody who needs more nobody hears any more.
        while self._needs and self._needs[-1][1] <= need:
            self._needs.pop()
        self._needs.append((now, need))
        while len(self._needs) > 1 and self._needs[0][0] < now - self.idle_seconds:
            self._needs.pop(0)
        return self._needs[0][1]
