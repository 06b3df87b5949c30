"""How fast a device draws, as it was measured there: loads, forward passes, decodes. Pure.

Every figure is the median of the latest few, so that one slow pass, or a load from a cold disk,
changes little, and a machine that has become slower or faster is known after a few more. What was
not measured is not known: nothing is worked out from another model or another size.
"""

import enum
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from engine.room import Space
from engine.step_batcher import LEAST_CAP

LATEST = 15
"""Measurements that a figure is the median of."""

ENOUGH = 3
"""Measurements of as many rows from which it is concluded how many are worth while."""

GAIN = 0.1
"""Share by which more rows must draw more a second to be worth while."""

RELOOK = 5000
"""Measured passes after which it is looked at anew whether more rows are worth while."""

MOST_KEPT = 300
"""Figures that are kept; the oldest go."""

MOST_ROWS: Mapping[str, int] = {"cpu": 8, "cuda": 16}
"""Most rows in a forward pass, by kind of device, where nobody says another number."""

_NEWS = 0.1  # share by which a figure must change to be told and remembered anew
_LONGEST = 86_400.0  # seconds; what is said to take longer was not measured


class Act(enum.StrEnum):
    """What takes time."""

    LOAD = "load"
    """A model's way into memory from the disk, its LoRAs left out."""
    SWITCH = "switch"
    """The same from the host's memory, where it waited."""
    BEGIN = "begin"
    """Reading the prompts, and the picture to start from."""
    PASS = "pass"  # noqa: S105 - no password
    """A forward pass of so many rows."""
    DECODE = "decode"
    """One picture's way from latents to pixels."""


@dataclass(frozen=True, slots=True)
class Figure:
    """What something takes.

    Attributes:
        act: what.
        model: `ModelSpec.key`.
        seconds: the median of the latest.
        count: how many there have been, `LATEST` at most.
        pixels: size of a picture; 0 where it doesn't matter.
        rows: of a pass; 0 where it is none.
    """

    act: Act
    model: str
    seconds: float
    count: int = 1
    pixels: int = 0
    rows: int = 0


@dataclass(frozen=True, slots=True)
class Measurement:
    """What something took, once.

    Attributes:
        act: what.
        family: of the model that it was done with, a value of `Family`.
        seconds: from its beginning to its end.
    """

    act: Act
    family: str
    seconds: float


_Key = tuple[Act, str, int, int]


@dataclass(slots=True)
class _Latest:
    """The latest measurements of one thing.

    Attributes:
        seconds: each.
        count: how many there have been, those before the last start included.
        at: passes of the same model and size when the newest was made.
        told: the median that was told last; None before.
        told_count: the count that was.
    """

    seconds: "deque[float]" = field(default_factory=lambda: deque(maxlen=LATEST))
    count: int = 0
    at: int = 0
    told: float | None = None
    told_count: int = 0

    @property
    def median(self) -> float:
        return median(self.seconds)


class Pace:
    """What is known of one device. One thread uses it.

    Attributes:
        on_take: called after `take`.
        on_measurement: called with each measurement that somebody else has made.
        waiting: keys of the models that come from the host's memory rather than from the disk.
        space: the device's memory, as far as it is known.
    """

    def __init__(self, figures: Iterable[Figure] = ()) -> None:
        self.waiting: frozenset[str] = frozenset()
        self.space = Space()
        self._latest: dict[_Key, _Latest] = {}
        self._rows: dict[tuple[str, int], dict[int, _Latest]] = {}
        self._passes: dict[tuple[str, int], int] = {}
        self._noted: dict[_Key, None] = {}  # since `news`
        self.on_take: Callable[[], object] = lambda: None
        self.on_measurement: Callable[[Measurement], object] = lambda _: None
        for figure in figures:
            self._set(figure)

    def note(self, act: Act, model: str, seconds: float, *, pixels: int = 0, rows: int = 0) -> None:
        """Takes a measurement; arguments as in `Figure`."""
        key = (act, model, pixels, rows)
        latest = self._entry(key)
        self._noted[key] = None
        latest.seconds.append(min(max(seconds, 0.0), _LONGEST))
        latest.count = min(latest.count + 1, LATEST)
        if act is Act.PASS:
            passes = self._passes[model, pixels] = self._passes.get((model, pixels), 0) + 1
            latest.at = passes

    def lacks_pass(self, model: str, pixels: int, rows: int) -> bool:
        """Returns whether it takes more passes until something is concluded from them."""
        latest = self._latest.get((Act.PASS, model, pixels, rows))
        return latest is None or latest.count < ENOUGH

    def take(
        self, figures: Iterable[Figure], waiting: Iterable[str] = (), space: Space | None = None
    ) -> None:
        """Replaces what is known by what somebody else has measured; arguments as attributes."""
        for figure in figures:
            self._set(figure)
        self.waiting = frozenset(waiting)
        self.space = space or self.space
        self.on_take()

    def figures(self) -> tuple[Figure, ...]:
        """Returns all that is known, the oldest first."""
        return tuple(_figure(key, latest) for key, latest in self._latest.items())

    def news(self) -> tuple[Figure, ...]:
        """Returns what has changed notably, or is `ENOUGH` now, since it was returned here last."""
        changed = []
        for key in self._noted:
            latest = self._latest[key]
            seconds = latest.median
            told = latest.told
            is_news = told is None or abs(seconds - told) > _NEWS * told
            if is_news or latest.told_count < ENOUGH <= latest.count:
                latest.told, latest.told_count = seconds, latest.count
                changed.append(_figure(key, latest))
        self._noted.clear()
        return tuple(changed)

    def seconds(self, act: Act, model: str, pixels: int = 0) -> float | None:
        """Returns what something other than a pass takes; None where it was never measured."""
        latest = self._latest.get((act, model, pixels, 0))
        return None if latest is None else latest.median

    def load_seconds(self, model: str) -> float | None:
        """Returns what it takes to have a model on the device, from where it is now."""
        switch = self.seconds(Act.SWITCH, model) if model in self.waiting else None
        return self.seconds(Act.LOAD, model) if switch is None else switch

    def pass_seconds(self, model: str, pixels: int, rows: float) -> float | None:
        """Returns what a pass takes; None where none of the model and size was measured.

        Between two measured numbers of rows it is a straight line, above all of them as much more
        as there are more rows, below all of them as long as the smallest.
        """
        known = self._rows.get((model, pixels))
        if not known:
            return None
        below = max((each for each in known if each <= rows), default=None)
        above = min((each for each in known if each >= rows), default=None)
        if below is None or above is None:
            end = min(known) if below is None else max(known)
            return known[end].median * max(1.0, rows / end)
        low, high = known[below].median, known[above].median
        if above == below:
            return low
        return low + (high - low) * (rows - below) / (above - below)

    def knee(self, model: str, pixels: int) -> int | None:
        """Returns the rows above which more draw no more a second; None where that isn't known.

        It is the smallest number that draws, within `GAIN`, as much a second as any that was
        measured, if a larger one was measured as well. Measurements older than `RELOOK` passes say
        nothing of it any more, so that a number that seemed too large gets another chance.
        """
        now = self._passes.get((model, pixels), 0)
        return knee(
            {
                rows: latest.median
                for rows, latest in self._rows.get((model, pixels), {}).items()
                if latest.count >= ENOUGH and now - latest.at < RELOOK
            }
        )

    def most_rows(self, model: str, pixels: int, ceiling: int) -> int:
        """Returns how many rows a pass had better have: the knee, or what fits if that is less."""
        return min(ceiling, max(LEAST_CAP, self.knee(model, pixels) or ceiling))

    def _set(self, figure: Figure) -> None:
        latest = self._entry((figure.act, figure.model, figure.pixels, figure.rows))
        latest.seconds.clear()
        latest.seconds.append(figure.seconds)
        latest.count = figure.count
        latest.told, latest.told_count = figure.seconds, figure.count
        latest.at = self._passes.get((figure.model, figure.pixels), 0)

    def _entry(self, key: _Key) -> _Latest:
        latest = self._latest.pop(key, None) or _Latest()
        self._latest[key] = latest  # the newest last
        act, model, pixels, rows = key
        if act is Act.PASS:
            self._rows.setdefault((model, pixels), {})[rows] = latest
        while len(self._latest) > MOST_KEPT:
            self._forget(next(iter(self._latest)))
        return latest

    def _forget(self, key: _Key) -> None:
        del self._latest[key]
        self._noted.pop(key, None)
        act, model, pixels, rows = key
        if act is Act.PASS:
            del self._rows[model, pixels][rows]


def knee(seconds: Mapping[int, float]) -> int | None:
    """Returns the rows above which more draw no more a second; see `Pace.knee`.

    Args:
        seconds: of a pass, by its rows; 0 was too short for the clock, and tells nothing.
    """
    if len(seconds) < 2 or min(seconds.values()) <= 0:
        return None
    best = min(taken / rows for rows, taken in seconds.items())
    found = min(rows for rows, taken in seconds.items() if taken / rows <= best * (1 + GAIN))
    return None if found == max(seconds) else found


def _figure(key: _Key, latest: _Latest) -> Figure:
    act, model, pixels, rows = key
    return Figure(act, model, latest.median, latest.count, pixels, rows)


def to_entry(figure: Figure) -> tuple[str, list[float]]:
    """Returns a figure's name and value in a JSON object."""
    name = f"{figure.act} {figure.pixels} {figure.rows} {figure.model}"
    return name, [figure.seconds, figure.count]


def from_entry(name: str, value: Any) -> Figure | None:
    """Returns the figure that `to_entry` made an entry of; None for what is none."""
    words = name.split(" ", 3)
    if len(words) < 4 or not all(word.isascii() and word.isdecimal() for word in words[1:3]):
        return None
    if words[0] not in set(Act) or max(map(len, words[1:3])) > 12:
        return None
    if words[0] == Act.PASS and int(words[2]) < 1:
        return None
    if not (isinstance(value, list) and len(value) == 2 and type(value[1]) is int):
        return None
    seconds, count = value
    if type(seconds) not in (int, float) or not 1 <= count <= LATEST:
        return None
    if not 0 <= seconds <= _LONGEST:  # NaN is no more between them than infinity
        return None
    return Figure(Act(words[0]), words[3], float(seconds), count, int(words[1]), int(words[2]))
