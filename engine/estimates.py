"""When the pictures will be done: what runs and what waits, played through with measured times.

Pure. Each device is played as its step loop works: those of one model and size share passes up to
the knee, first come first served; models and sizes take equal shares of the time; loads, prompts
and decodes hold up everybody on the device. Who waits gets the next free place in fair order. What
nobody can know is left out: who is still to come, who cancels, what else the machine has to do,
and that a model may have to be loaded again since others went before.
"""

import math
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from engine.jobs import GenerationRequest
from engine.pace import Act, Pace

_ALMOST = 1e-9  # what is left of a pass after so many sums of fractions


@dataclass(frozen=True, slots=True)
class Leg:
    """Passes in a row with one model.

    Attributes:
        model: `ModelSpec.key`.
        passes: how many are left; not whole where the pictures of a request differ.
    """

    model: str
    passes: float


@dataclass(frozen=True, slots=True)
class Work:
    """What a request, or what is left of one, asks of a device.

    Attributes:
        job_id: whose.
        legs: its passes; with a refiner there are two.
        pixels: of each picture.
        rows: of a pass that moves all of its pictures.
        pictures: to decode.
        models: that must be loaded.
        source_pixels: as `pixels` where it starts from a picture, else 0.
        has_begun: whether its prompts are read.
    """

    job_id: str
    legs: tuple[Leg, ...] = ()
    pixels: int = 0
    rows: int = 0
    pictures: int = 0
    models: tuple[str, ...] = ()
    source_pixels: int = 0
    has_begun: bool = False

    def after(self, share: float) -> "Work":
        """Returns what is left once the prompts are read and a share of the passes is made."""
        done = share * sum(leg.passes for leg in self.legs)
        left = []
        for leg in self.legs:
            left.append(replace(leg, passes=max(0.0, leg.passes - done)))
            done = max(0.0, done - leg.passes)
        return replace(self, legs=tuple(left), has_begun=True)


def work_of(job_id: str, request: GenerationRequest) -> Work:
    """Returns what a request asks of a device."""
    passes = request.sampler.passes(request.steps_taken)
    pixels = request.width * request.height
    legs = [Leg(request.model.key, passes)]
    if request.refiner is not None:
        first = min(passes, round(passes * request.refiner_from))
        legs = [Leg(request.model.key, first), Leg(request.refiner.key, passes - first)]
    return Work(
        job_id=job_id,
        legs=tuple(legs),
        pixels=pixels,
        rows=request.count * (2 if request.guidance_scale > 1 else 1),
        pictures=request.count,
        models=tuple(leg.model for leg in legs),
        source_pixels=pixels if request.source is not None else 0,
    )


@dataclass(frozen=True, slots=True)
class Device:
    """What is known of a device.

    Attributes:
        pace: what it takes.
        capacity: requests that are under way at once.
        most_rows: of a pass, whatever is measured.
        loaded: keys of the models that are in its memory.
        running: what is left of what it draws, oldest first.
        loading: seconds that it has spent on a load that is under way.
    """

    pace: Pace
    capacity: int
    most_rows: int
    loaded: Collection[str] = ()
    running: Sequence[Work] = ()
    loading: float = 0.0


def forecast(devices: Iterable[Device], waiting: Iterable[Work]) -> dict[str, float]:
    """Returns in how many seconds each piece of work will be done.

    Left out is everything that can't be told from measurements: from the first piece on that takes
    something that was never measured, since it holds up the others for nobody knows how long.

    Args:
        devices: those that work.
        waiting: in fair order.
    """
    ends: dict[str, float] = {}
    with suppress(_UnmeasuredError):
        ends.update(_play(devices, deque(waiting)))
    return ends


def predict(request: GenerationRequest, device: Device) -> float | None:
    """Returns the seconds that a request takes if it joins now; None where that isn't known."""
    work = work_of("", request)
    crowd = replace(device, capacity=len(device.running) + 1)
    return forecast([crowd], [work]).get("")


def seconds_alone(request: GenerationRequest, pace: Pace, most_rows: int) -> float | None:
    """Returns what a request takes with a device to itself, its models loaded; None: not known."""
    work = work_of("", request)
    alone = Device(pace, capacity=1, most_rows=most_rows, loaded=work.models)
    return forecast([alone], [work]).get("")


def share_of(request: GenerationRequest, pace: Pace, most_rows: int) -> float | None:
    """Returns the seconds of a device that a request takes where others share its passes.

    None where that isn't known. Loads and prompts are left out.
    """
    work = work_of("", request)
    seconds = 0.0
    for leg in work.legs:
        rows = pace.most_rows(leg.model, work.pixels, most_rows)
        taken = pace.pass_seconds(leg.model, work.pixels, rows)
        decode = pace.seconds(Act.DECODE, leg.model, work.pixels)
        if taken is None or (decode is None and leg is work.legs[-1]):
            return None
        seconds += leg.passes * taken * work.rows / rows
        seconds += work.pictures * (decode or 0.0) if leg is work.legs[-1] else 0.0
    return seconds


def longest_round(pace: Pace, works: Iterable[Work], most_rows: int) -> float | None:
    """Returns the seconds that a step loop can need for one round of work; None where not known.

    Everything at its worst: all begin in this round, each has its passes to itself, and two
    pictures of the slowest kind are decoded.

    Args:
        pace: what is known of the device.
        works: all that is under way.
        most_rows: of a pass.
    """
    seconds, decode = 0.0, 0.0
    try:
        for work in works:
            first = work.models[0]
            seconds += _known(pace.seconds(Act.BEGIN, first, work.source_pixels))
            for model in work.models:
                rows = min(work.rows, most_rows)
                seconds += _known(pace.pass_seconds(model, work.pixels, rows))
            last = work.models[-1]
            decode = max(decode, _known(pace.seconds(Act.DECODE, last, work.pixels)))
    except _UnmeasuredError:
        return None
    return seconds + 2 * decode


class _UnmeasuredError(Exception):
    """Something was never measured."""


@dataclass(slots=True, eq=False)
class _Active:
    work: Work
    legs: deque[Leg]

    @property
    def key(self) -> tuple[str, int]:
        return self.legs[0].model, self.work.pixels


@dataclass(slots=True, eq=False)
class _Bench:
    """A device in play.

    Attributes:
        stall: seconds that nobody's passes move: loads, prompts, decodes.
        speed: passes a second of each that is active, as long as nobody comes or goes.
    """

    device: Device
    loaded: set[str]
    stall: float = 0.0
    active: list[_Active] = field(default_factory=list)
    speed: dict[_Active, float] = field(default_factory=dict)

    @property
    def has_room(self) -> bool:
        return len(self.active) < self.device.capacity

    def admit(self, work: Work, spent: float = 0.0) -> None:
        pace = self.device.pace
        for model in work.models:
            if model not in self.loaded:
                self.stall += max(0.0, _known(pace.load_seconds(model)) - spent)
                self.loaded.add(model)
        if work.legs and not work.has_begun:
            model = work.legs[0].model
            self.stall += _known(pace.seconds(Act.BEGIN, model, work.source_pixels))
        self.active.append(_Active(work, deque(work.legs)))

    def settle(self) -> Iterator[str]:
        """Lets those leave who have made their passes; sets the speed of the others."""
        for each in list(self.active):
            while each.legs and each.legs[0].passes <= _ALMOST:
                each.legs.popleft()
            if not each.legs:
                self.active.remove(each)
                self._decode(each.work)
                yield each.work.job_id
        self.speed = self._speeds()

    def _decode(self, work: Work) -> None:
        if work.pictures:
            model = work.legs[-1].model
            seconds = _known(self.device.pace.seconds(Act.DECODE, model, work.pixels))
            self.stall += work.pictures * seconds

    def _speeds(self) -> dict[_Active, float]:
        lines: dict[tuple[str, int], list[_Active]] = {}
        for each in self.active:
            lines.setdefault(each.key, []).append(each)
        speeds = {}
        for (model, pixels), line in lines.items():
            pace = self.device.pace
            room = pace.most_rows(model, pixels, self.device.most_rows)
            rows = min(room, sum(each.work.rows for each in line))
            seconds = _known(pace.pass_seconds(model, pixels, rows)) * len(lines)
            for each in line:
                granted = min(each.work.rows, room)
                room -= granted
                if granted:
                    share = granted / each.work.rows
                    speeds[each] = share / seconds if seconds else math.inf
        return speeds

    def next_change(self) -> float:
        """Returns in how many seconds somebody has made the passes of a leg."""
        if not self.active:
            return math.inf
        return self.stall + min(
            each.legs[0].passes / speed if speed < math.inf else 0.0
            for each, speed in self.speed.items()
        )

    def pass_time(self, seconds: float) -> None:
        moving = max(0.0, seconds - self.stall)
        self.stall = max(0.0, self.stall - seconds)
        for each, speed in self.speed.items():
            leg = each.legs[0]
            left = leg.passes - moving * speed if speed < math.inf else 0.0
            each.legs[0] = replace(leg, passes=0.0 if left <= _ALMOST * leg.passes else left)


def _play(devices: Iterable[Device], queue: deque[Work]) -> Iterator[tuple[str, float]]:
    benches = [_Bench(device, set(device.loaded)) for device in devices]
    for bench in benches:
        for work in bench.device.running:
            bench.admit(work, bench.device.loading)
    clock = 0.0
    while benches:
        has_joined = True
        while has_joined:
            for bench in benches:
                for job_id in bench.settle():
                    yield job_id, clock + bench.stall
            has_joined = False
            while queue and (free := _free(benches, queue[0])):
                free.admit(queue.popleft())
                has_joined = True
        change = min(bench.next_change() for bench in benches)
        if change == math.inf:
            return
        clock += change
        for bench in benches:
            bench.pass_time(change)


def _free(benches: Sequence[_Bench], work: Work) -> _Bench | None:
    """Returns where the pool would begin it now: see `engine.lanes.choose_lane`."""

    def rank(bench: _Bench) -> tuple[float, int]:
        missing = sum(model not in bench.loaded for model in work.models)
        return len(bench.active) / bench.device.capacity, missing

    return min((bench for bench in benches if bench.has_room), key=rank, default=None)


def _known(seconds: float | None) -> float:
    if seconds is None:
        raise _UnmeasuredError
    return seconds
