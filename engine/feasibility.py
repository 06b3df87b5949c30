"""(pure) What no device can draw, as far as that is known before it is tried."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

from engine.errors import TooLargeError, TooLongError
from engine.estimates import seconds_alone
from engine.executor import Executor
from engine.jobs import GenerationRequest
from engine.need import Need

Smaller: TypeAlias = Callable[[int, int, int], tuple[int, int] | None]
"""Returns the largest size to propose in place of one, given its sides and how many pixels fit."""


def refuse_impossible(
    request: GenerationRequest,
    executors: Sequence[Executor],
    job_timeout: float | None,
    smaller: Smaller,
) -> None:
    """Refuses what none of some devices can draw; what nobody knows is let through.

    Args:
        request: what is asked for.
        executors: those that work, or will soon; without any nothing is known.
        job_timeout: seconds that a job may run at a time; None for any.
        smaller: proposes the size that is asked for instead.

    Raises:
        TooLargeError: there is no memory for the size on any of them.
        TooLongError: it takes longer than ``job_timeout``, alone on the fastest of them.
    """
    if not executors or not request.is_drawn:
        return
    need = Need.of(request)
    limits = [executor.pace.space.most_pixels(need) for executor in executors]
    known = [limit for limit in limits if limit is not None]
    if len(known) == len(limits):
        fits = smaller(request.width, request.height, max(known))
        raise TooLargeError(request.width, request.height, fits)
    if job_timeout is None:
        return
    took = [seconds_alone(request, each.pace, each.most_rows) for each in executors]
    seconds = min((each if each is not None else 0.0 for each in took), default=0.0)
    if seconds > job_timeout:
        raise TooLongError(seconds, job_timeout)
