"""Who asks for what and when: the same requests at the same times for every server compared.

Pure but for the clock that the driver reads: a workload says who is due, and hears who is served.
"""

import heapq
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Protocol

from engine.jobs import GenerationRequest, ModelSpec


@dataclass(frozen=True, slots=True)
class Asked:
    """A request on its way to a server.

    Attributes:
        number: unique within a workload.
        user: who asks.
        at: when, in seconds since the workload began.
        request: what for.
    """

    number: int
    user: str
    at: float
    request: GenerationRequest


@dataclass(frozen=True, slots=True)
class Served:
    """A request with its picture, at a time in seconds since the workload began."""

    asked: Asked
    at: float

    @property
    def latency(self) -> float:
        """Seconds from asking to the picture."""
        return self.at - self.asked.at


class Workload(Protocol):
    """Says who is due next."""

    def next_at(self) -> float | None:
        """Returns when the next request comes; None while nobody asks before somebody is served."""

    def due(self, now: float) -> list[Asked]:
        """Returns what has been asked for by now and not been returned before."""

    def served(self, served: Served) -> None:
        """Hears that somebody has a picture."""


RequestOf = Callable[[int], GenerationRequest]


class Arrivals:
    """Requests at fixed times, whoever is served (an open loop)."""

    def __init__(self, arrivals: Iterable[Asked]) -> None:
        self._waiting = sorted(arrivals, key=lambda asked: asked.at, reverse=True)

    def next_at(self) -> float | None:
        """See `Workload`."""
        return self._waiting[-1].at if self._waiting else None

    def due(self, now: float) -> list[Asked]:
        """See `Workload`."""
        due = []
        while self._waiting and self._waiting[-1].at <= now:
            due.append(self._waiting.pop())
        return due

    def served(self, served: Served) -> None:
        """Changes nothing."""


class ClosedLoop:
    """So many users, each of whom asks again as soon as the last picture is there."""

    def __init__(self, users: int, each: int, request_of: RequestOf) -> None:
        self._request_of = request_of
        self._left = dict.fromkeys((f"user {user}" for user in range(users)), each)
        self._number = 0
        self._waiting: list[tuple[float, int, str]] = []
        for user in self._left:
            self._ask(user, 0.0)

    def _ask(self, user: str, at: float) -> None:
        if self._left[user]:
            self._left[user] -= 1
            heapq.heappush(self._waiting, (at, self._number, user))
            self._number += 1

    def next_at(self) -> float | None:
        """See `Workload`."""
        return self._waiting[0][0] if self._waiting else None

    def due(self, now: float) -> list[Asked]:
        """See `Workload`."""
        due = []
        while self._waiting and self._waiting[0][0] <= now:
            at, number, user = heapq.heappop(self._waiting)
            due.append(Asked(number, user, at, self._request_of(number)))
        return due

    def served(self, served: Served) -> None:
        """Has the user ask again."""
        self._ask(served.asked.user, served.at)


def poisson(rate: float, count: int, request_of: RequestOf, seed: int) -> list[Asked]:
    """Returns requests of many users who know nothing of each other.

    Of a Poisson process of which it is known how many came within a time, the times are uniform.
    So the rate is met, whatever the seed; with gaps drawn one by one, 60 come a tenth faster or
    slower, and a line that grows does so by half more or less.

    Args:
        rate: of arrival, per second.
        count: requests.
        request_of: what the n-th asks for.
        seed: the same seed, the same times.
    """
    random = Random(seed)  # noqa: S311 - arrivals, no secrets
    times = sorted(random.uniform(0, count / rate) for _ in range(count))
    return [Asked(n, f"user {n}", at, request_of(n)) for n, at in enumerate(times)]


def one_after_another(asked: Iterable[Asked], seconds: Sequence[float]) -> list[Served]:
    """Returns when each has a picture of who draws them one by one, first come, first served.

    Args:
        asked: in the order of their coming.
        seconds: what each takes to draw.
    """
    served, free = [], 0.0
    for each, took in zip(asked, seconds, strict=True):
        free = max(free, each.at) + took
        served.append(Served(each, free))
    return served


def flood(count: int, gap: float, request_of: RequestOf) -> list[Asked]:
    """Returns a member's many requests, all at once, and after a gap another's single one, last."""
    many = [Asked(number, "flood", 0.0, request_of(number)) for number in range(count)]
    return [*many, Asked(count, "single", gap, request_of(count))]


def zipf(
    models: Sequence[ModelSpec], exponent: float, request_of: RequestOf, seed: int
) -> RequestOf:
    """Returns requests whose models are as popular as 1 / rank ** exponent."""
    random = Random(seed)  # noqa: S311 - as above
    weights = [1 / rank**exponent for rank in range(1, len(models) + 1)]

    chosen: list[ModelSpec] = []

    def with_model(number: int) -> GenerationRequest:
        while len(chosen) <= number:
            chosen.extend(random.choices(models, weights))
        return replace(request_of(number), model=chosen[number])

    return with_model


def figures(served: Sequence[Served]) -> dict[str, float]:
    """Returns what a run comes to: pictures a second, and times to picture in seconds."""
    latencies = sorted(each.latency for each in served)
    seconds = max(each.at for each in served) - min(each.asked.at for each in served)
    return {
        "pictures": len(served),
        "seconds": seconds,
        "per_second": len(served) / seconds,
        "mean": statistics.mean(latencies),
        **{f"p{share}": _quantile(latencies, share / 100) for share in (50, 95, 99)},
    }


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Returns the smallest value that so large a share does not exceed."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
