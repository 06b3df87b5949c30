"""Makes forward passes, measures them, and finds out how many rows they had better have.

The effects around `engine.pace`, which is pure: the device's clock, the memory, the file that
remembers. One thread, the step loop's, calls everything here.
"""

import logging
import time
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

from engine.failures import is_out_of_memory, let_go
from engine.jobs import GenerationRequest
from engine.measured_file import MeasuredFile
from engine.memory_watch import MemoryWatch
from engine.messages import Measured
from engine.model_registry import ModelRegistry
from engine.pace import ENOUGH, MOST_ROWS, Act, Measurement, Pace, from_entry, to_entry
from engine.row_buckets import buckets, exact_rows, filled_up
from engine.step_batcher import LEAST_CAP
from engine.workers.base import Drawing, Worker

REHEARSAL_SECONDS = 1.0
"""Longest that others wait, once for a model and size, while it is measured how many rows share a
pass at no cost. Where that takes longer it is learned while drawing."""

TELL_SECONDS = 0.25
"""Least time between two messages that hold nothing but single measurements."""

_TIMED_EVERY = 17  # passes; prime, so that keys that take turns are all met

_TOLD_ONE_BY_ONE = frozenset({Act.PASS, Act.LOAD, Act.SWITCH})

log = logging.getLogger(__name__)


class PassKey(NamedTuple):
    """What is equal for all that share a forward pass.

    Attributes:
        model: `ModelSpec.key`.
        pixels: size of a picture.
        exact: see `GenerationRequest.exact`.
        compiled: see `GenerationRequest.compiled`.
        batch: see `Worker.batch_key`.
        company: tells who shares no pass from all others; None for who does.
    """

    model: str
    pixels: int
    exact: bool
    compiled: bool
    batch: Hashable
    company: int | None = None

    @classmethod
    def of(cls, worker: Worker, drawing: Drawing, company: int | None = None) -> "PassKey":
        """Returns the key of a drawing's next pass."""
        request = drawing.request
        return cls(
            worker.model.key,
            size_of(request),
            request.exact,
            request.compiled,
            worker.batch_key(drawing),
            company,
        )


class Timekeeper:
    """What passes, loads and decodes take on one device.

    Args:
        device: such as ``cpu`` or ``cuda:0``.
        registry: the device's memory.
        measured: remembers what was measured.
        max_rows: most rows in a forward pass; None takes the device's usual number.
        clock: seconds.

    Attributes:
        pace: all that is known.
    """

    def __init__(
        self,
        device: str,
        registry: ModelRegistry,
        measured: MeasuredFile,
        max_rows: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._device = device
        self._clock = clock
        self._measured = measured
        self._section = f"seconds on {device}"
        self._max_rows = max(LEAST_CAP, max_rows or MOST_ROWS[device.partition(":")[0]])
        self._ceilings: dict[PassKey, int] = {}  # rows that fit where more ran out of memory
        self._memory = MemoryWatch(device, registry, measured)
        self._passes = 0
        self._rehearsed: set[tuple[str, int]] = set()  # models and sizes
        self._here: tuple[object, ...] = ((), (), None)  # what is loaded, waits, is held, as told
        self._measurements: list[Measurement] = []  # since they were told
        self._told_at = 0.0
        entries = measured.read(self._section, lambda entry: entry)
        figures = (from_entry(name, entry) for name, entry in entries.items())
        self.pace = Pace(figure for figure in figures if figure is not None)

    @property
    def ceilings(self) -> dict[PassKey, int]:
        """Most rows that there is memory for, where more ran out of it."""
        return dict(self._ceilings)

    def cap(self, key: PassKey) -> int:
        """Returns the most rows of a pass of a key: those that fit, and are worth while."""
        if key.exact:
            return exact_rows(self._device, self._max_rows)
        ceiling = self._ceilings.get(key, self._max_rows)
        return self.pace.most_rows(key.model, key.pixels, ceiling)

    def lower_ceiling(self, key: PassKey, rows: int) -> None:
        """Halves the rows of a key's passes, since so many ran out of memory."""
        ceiling = self._ceilings[key] = max(LEAST_CAP, rows // 2)
        log.warning("%d rows ran out of memory on %s; at most %d now", rows, self._device, ceiling)

    def note(
        self,
        act: Act,
        worker: Worker,
        began: float,
        pixels: int = 0,
        rows: int = 0,
        *,
        rehearsed: bool = False,
    ) -> None:
        """Takes what has just ended as measured.

        Args:
            act: what it was.
            worker: whose model.
            began: when, by the clock.
            pixels: as `Figure.pixels`.
            rows: as `Figure.rows`.
            rehearsed: whether it was done to be measured.
        """
        seconds = self._clock() - began
        self.pace.note(act, worker.model.key, seconds, pixels=pixels, rows=rows)
        if act in _TOLD_ONE_BY_ONE and not rehearsed:
            self._measurements.append(Measurement(act, worker.family.value, seconds))

    def step(self, worker: Worker, drawings: Sequence[Drawing]) -> None:
        """Steps a batch, and now and then measures what that takes; raises as `Worker.step`.

        Kernels on a GPU are only begun when a call returns: to measure it, all of them must have
        ended before and after, which would cost a little speed each time.
        """
        request = drawings[0].request
        size, rows = size_of(request), sum(drawing.rows for drawing in drawings)
        rows = filled_up(
            rows, self._device, self._max_rows, exact=request.exact, compiled=request.compiled
        )
        self._passes += 1
        if not (
            self._device == "cpu"
            or self._passes % _TIMED_EVERY == 0
            or self.pace.lacks_pass(worker.model.key, size, rows)
        ):
            worker.step(drawings, rows)
            return
        self._synchronize()
        began = self._clock()
        alone = len(drawings) == 1 and not request.compiled  # code may be made in another thread
        with self._memory.watched(worker.model.key, size, rows, alone=alone):
            worker.step(drawings, rows)
        self._synchronize()
        self.note(Act.PASS, worker, began, size, rows)

    def warm(self, worker: Worker, drawing: Drawing) -> None:
        """Has ready what the first to draw the like would wait for.

        Where its mode asks for compiled code, that is begun beside the step loop. On a GPU it is
        measured how many rows share a pass; on a CPU, where a single pass may take minutes, that
        is learned while drawing.
        """
        request = drawing.request
        if request.compiled:
            worker.prepare(drawing, buckets(self._max_rows))
        if self._device == "cpu":
            return
        key = PassKey.of(worker, drawing)
        lacking = self.pace.lacks_pass(key.model, key.pixels, drawing.rows)
        if not lacking or self._measure(worker, drawing, key, drawing.rows):
            self.rehearse(worker, drawing, key, drawing.rows)

    def rehearse(self, worker: Worker, drawing: Drawing, key: PassKey, passed: int) -> None:
        """Measures, once for a model and size, how many rows share a pass at no cost.

        It begins where real passes have shown what they take, and ends before it takes long.

        Args:
            worker: whose passes.
            drawing: what they are like.
            key: the drawing's.
            passed: rows of the pass that was just made.
        """
        model, size = key.model, key.pixels
        if (model, size) in self._rehearsed or key.exact:
            return
        if self.pace.lacks_pass(model, size, passed):
            return
        self._rehearsed.add((model, size))
        until = self._clock() + REHEARSAL_SECONDS
        rows = drawing.rows
        while rows <= self.cap(key):
            if self.pace.lacks_pass(model, size, rows):
                taken = self.pace.pass_seconds(model, size, rows)
                if taken is None or self._clock() + ENOUGH * taken > until:
                    return
                if not self._measure(worker, drawing, key, rows):
                    return
            rows *= 2

    def _measure(self, worker: Worker, drawing: Drawing, key: PassKey, rows: int) -> bool:
        """Measures passes of so many rows; returns whether that went well."""
        try:
            for _ in range(ENOUGH):
                self._synchronize()
                began = self._clock()
                worker.rehearse(drawing, rows)
                self._synchronize()
                self.note(Act.PASS, worker, began, key.pixels, rows, rehearsed=True)
        except Exception as error:
            if is_out_of_memory(error):
                let_go(error)
                self.lower_ceiling(key, rows)
            else:
                log.exception("%d rows can't be tried on %s", rows, self._device)
            return False
        return True

    def tell(
        self, loaded: tuple[str, ...], waiting: tuple[str, ...], *, idle: bool
    ) -> Measured | None:
        """Remembers what things take, and returns what there is to say of it; None is nothing.

        Args:
            loaded: as in `Measured`.
            waiting: as in `Measured`.
            idle: whether nothing is drawn any more, so that nothing is left unsaid.
        """
        news = self.pace.news()
        here = (loaded, waiting, self._memory.space())
        if news:
            self._measured.write(self._section, dict(map(to_entry, self.pace.figures())))
        now = self._clock()
        # No message for each step.
        due = self._measurements and (idle or now - self._told_at >= TELL_SECONDS)
        if not (news or due or here != self._here):
            return None
        self._here, self._told_at = here, now
        said = Measured(news, *here, tuple(self._measurements))
        self._measurements.clear()
        return said

    def _synchronize(self) -> None:
        """Waits until the device has done all that it was told."""
        if self._device != "cpu":
            import torch

            torch.cuda.synchronize(self._device)


def size_of(request: GenerationRequest) -> int:
    """Returns the pixels of a request's pictures."""
    return request.width * request.height
