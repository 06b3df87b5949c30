"""A dialogue with one worker: what it was asked, who hears what it says, and its signs of life.

It knows `engine.messages` and not the way that they travel: a pipe to a process on this machine or
a whole cluster between the two.
"""

import asyncio
import itertools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from engine import messages
from engine.errors import DreamLabError, WorkerDiedError
from engine.estimates import longest_round, work_of
from engine.jobs import Event, GenerationRequest, GenerationResult
from engine.pace import MOST_ROWS, Pace
from engine.patience import Patience

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Run:
    """A job that the worker draws; the number tells it from a later one of the same id."""

    number: int
    request: GenerationRequest
    events: "asyncio.Queue[Event | DreamLabError]"


class Dialogue:
    """What is under way with one worker, from its first word to its death.

    Args:
        device: what people call where it draws.
        kind: what torch calls that, such as ``cpu`` or ``cuda:0``.
        send: has a command travel to it; never waits.
        kill: ends it at once; its death is told already.
        patience: how long its step loop may say nothing.
        pace: takes what it measures.
        most_rows: of a forward pass; None where nobody set a number.

    Attributes:
        device: as given.
        kind: as given.
        death: why it ended, continuing "The worker on cuda:0 …"; None while it lives.
        loaded: keys of the models in its memory.
    """

    def __init__(
        self,
        device: str,
        kind: str,
        *,
        send: Callable[[object], None],
        kill: Callable[[], None],
        patience: Patience,
        pace: Pace,
        most_rows: int | None,
    ) -> None:
        self.device = device
        self.kind = kind
        self.death: str | None = None
        self._kind_of_death = WorkerDiedError
        self.loaded: tuple[str, ...] = ()
        self._send = send
        self._kill = kill
        self._patience = patience
        self._pace = pace
        self._most_rows = most_rows
        self._drawn: set[tuple[Any, ...]] = set()  # kinds of requests
        self._heard = True  # whether the step loop has said something since the last look
        self._loading = False  # whether its last word was that it loads a model
        self._gone = asyncio.Event()
        self._runs: dict[str, _Run] = {}
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._numbers = itertools.count(1)

    def settle_on(self, device: str) -> None:
        """Notes where a local worker really draws: the CPU, where it fell back."""
        self.device = self.kind = device

    # Asking -------------------------------------------------------------------------------------

    def open_run(
        self, job_id: str, request: GenerationRequest
    ) -> "asyncio.Queue[Event | DreamLabError]":
        """Has a request drawn and returns where its events will arrive.

        Raises:
            ValueError: a job of this id is under way.
            WorkerDiedError: it is dead, so that nothing would arrive.
        """
        if self.death is not None:
            raise self.obituary()
        if job_id in self._runs:
            raise ValueError(f"job {job_id} is under way already")
        run = self._runs[job_id] = _Run(next(self._numbers), request, asyncio.Queue())
        self._send(messages.Run(run.number, job_id, request))
        return run.events

    def cancel_run(self, job_id: str) -> None:
        """Ends a job at its next step; its last event says so."""
        run = self._runs.get(job_id)
        if run is not None:
            self._send(messages.Cancel(run.number))

    def close_run(self, job_id: str) -> None:
        """Forgets a job that nobody reads any more, and ends it where it still runs."""
        run = self._runs.pop(job_id, None)
        if run is not None and self.death is None:
            self._send(messages.Cancel(run.number))

    async def call(self, make: Callable[[int], object]) -> Any:
        """Sends a command that has an answer, and returns the answer.

        Args:
            make: returns the command for a call's number.

        Raises:
            WorkerDiedError: it is dead, or dies before it answers.
            DreamLabError: what it answers.
        """
        if self.death is not None:
            raise self.obituary()
        number = next(self._numbers)
        answer = self._calls[number] = asyncio.get_running_loop().create_future()
        try:
            self._send(make(number))
            return await answer
        finally:
            del self._calls[number]

    # Hearing ------------------------------------------------------------------------------------

    def hear(self, message: messages.Reply, *, is_aside: bool = False) -> None:
        """Takes what it says.

        Args:
            message: its word.
            is_aside: whether that comes not from the step loop, so that it is no sign of life.
        """
        if not is_aside:
            self._heard, self._loading = True, isinstance(message, messages.Loading)
        match message:
            case messages.Answer(call_id, value, error):
                answer = self._calls.get(call_id)
                if answer is None or answer.done():
                    return  # whoever called has gone
                if error is None:
                    answer.set_result(value)
                else:
                    answer.set_exception(error)
            case messages.Measured(figures, loaded, waiting, space, measurements):
                self.loaded = loaded
                self._pace.take(figures, waiting, space)
                for measurement in measurements:
                    self._pace.on_measurement(measurement)
            case messages.JobEvent(run_id, event):
                self._hand_on(run_id, event.job_id, event, last=isinstance(event, GenerationResult))
            case messages.JobFailed(run_id, job_id, error):
                self._hand_on(run_id, job_id, error, last=True)

    def _hand_on(
        self, number: int, job_id: str, event: Event | DreamLabError, *, last: bool
    ) -> None:
        run = self._runs.get(job_id)
        if run is None or run.number != number:
            return  # whoever waited has gone
        if last:
            del self._runs[job_id]
        if isinstance(event, GenerationResult):
            self._drawn.add(_kind(run.request))
        run.events.put_nowait(event)

    # Living and dying ---------------------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        """Whether nobody draws with it or waits for an answer."""
        return not self._runs and not self._calls

    def die(self, reason: str, kind: type[WorkerDiedError] = WorkerDiedError) -> None:
        """Tells everybody who waits for something that it is gone; the first reason counts.

        Args:
            reason: continues "The worker on cuda:0 …".
            kind: of the error that they get.
        """
        if self.death is not None:
            return
        self.death, self._kind_of_death = reason, kind
        self._gone.set()
        for run in self._runs.values():
            run.events.put_nowait(self.obituary())
        self._runs.clear()
        for answer in self._calls.values():
            if not answer.done():
                answer.set_exception(self.obituary())

    def obituary(self) -> WorkerDiedError:
        """Returns its death as an error of one's own."""
        return self._kind_of_death(self.device, self.death or "ended")

    async def gone(self) -> WorkerDiedError:
        """Waits for its death and returns it."""
        await self._gone.wait()
        return self.obituary()

    async def watch(self) -> None:
        """Asks for a word at every beat, and kills a worker whose step loop has none for long."""
        silent = 0
        while self.death is None:
            if self._heard:
                silent, self._heard = 0, False
                self._send(messages.Ping(next(self._numbers)))  # that it is answered is enough
            await self._patience.beat()
            silent += 1
            bound = self._patience.ends(
                self.kind, silent, loading=self._loading, longest_round=self.longest_round()
            )
            if bound is not None and not self._heard and self.death is None:
                self.die(f"gave no sign of life for {bound:g} seconds and was ended")
                log.error("The worker on %s %s", self.device, self.death)
                self._kill()

    def longest_round(self) -> float | None:
        """Returns the seconds of a round, if this worker has drawn all that is under way before.

        What an earlier start remembers may come from another machine.
        """
        requests = [(job_id, run.request) for job_id, run in self._runs.items()]
        if any(_kind(request) not in self._drawn for _, request in requests):
            return None
        works = [work_of(job_id, request) for job_id, request in requests]
        return longest_round(self._pace, works, self._most_rows or usual_rows(self.kind))


def usual_rows(kind: str) -> int:
    """Returns the most rows of a forward pass on a kind of device, where nobody set a number."""
    return MOST_ROWS.get(kind.partition(":")[0], 1)


def _kind(request: GenerationRequest) -> tuple[Any, ...]:
    """Returns what is equal for requests whose rounds take alike."""
    refiner = request.refiner and request.refiner.key
    size = (request.width, request.height)
    return request.model.key, refiner, size, request.source is not None
