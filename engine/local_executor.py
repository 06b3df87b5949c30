"""One device's worker process on this machine, reached over pipes.

The process is started as a program of its own, not through `multiprocessing`: the parent's main
module is then not imported a second time in it (with all of the bot), and asyncio reads and writes
the pipes without a thread.
"""

import asyncio
import contextlib
import itertools
import logging
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeAlias

from engine import messages
from engine.errors import DreamLabError, WorkerDiedError
from engine.estimates import longest_round, work_of
from engine.executor import LoadReport
from engine.jobs import Event, GenerationRequest, GenerationResult, ModelSpec
from engine.pace import MOST_ROWS, Pace

START_SECONDS = 180.0
"""How long a process may take until it answers: importing torch from a cold disk takes a minute."""

CLOSE_SECONDS = 10.0
"""How long a process may take to end before it is killed: it looks up between two steps."""

SILENCE_SECONDS = {"cpu": 1800.0, "cuda": 300.0}
"""How long the step loop may say nothing, by kind of device, before its process counts as hanging.

The longest that it works in silence is one round: the prompts of those who join, one forward pass
of all the rows that fit, a few decodes. That takes seconds on a good GPU, a minute or two on the
weakest that hold an SDXL model, and many minutes on a CPU.
"""

LOADING_SECONDS = 1800.0
"""How long it may say nothing while it loads a model: the largest, from a slow disk."""

LEAST_SILENCE_SECONDS = 300.0
"""Silence that is never too long, whatever was measured."""

SLOWNESS = 20.0
"""How many times as long as measured a round may take, on a machine that has much else to do."""

BEAT_SECONDS = 5.0
"""Seconds between two looks at whether the step loop has said something."""

Beat: TypeAlias = Callable[[], Awaitable[None]]
"""Waits until it is time to look once more; each counts as `BEAT_SECONDS`."""

_CAPACITY = {"cpu": 4, "cuda": 16}

# The folder that holds this package goes first only where Python would not find it anyway.
_BOOTSTRAP = (
    "import sys; sys.argv[1] in sys.path or sys.path.insert(0, sys.argv[1]); "
    "from engine.worker_process import main; main()"
)
_ROOT = Path(__file__).resolve().parents[1]

# OpenMP's threads spin while they wait for each other. Where something else needs a core, the one
# that is waited for does not get it, and a picture takes many times as long.
_ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE"}
# A process that reads other people's files has no use for the bot's secrets.
_SECRET = re.compile(r"(?:^|_)(?:TOKEN|SECRET|PASSWORD|API_?KEY)(?:_|$)", re.IGNORECASE)
_GRACE = 1.0  # seconds for a process whose pipe has closed to be gone, before it is killed

log = logging.getLogger(__name__)


async def beat() -> None:
    """Waits for `BEAT_SECONDS`."""
    await asyncio.sleep(BEAT_SECONDS)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a step loop may be silent before its process counts as hanging and is killed.

    Attributes:
        silence: seconds; None takes the device's of `SILENCE_SECONDS`.
        loading: the same while it loads a model, where that is longer.
        beat: waits between two looks.
    """

    silence: float | None = None
    loading: float = LOADING_SECONDS
    beat: Beat = beat

    def ends(
        self, device: str, silent: int, *, loading: bool, longest_round: float | None = None
    ) -> float | None:
        """Returns the seconds that were too many; None where it may be silent for longer.

        Args:
            device: where it draws.
            silent: beats since its last word.
            loading: whether that word was that it loads a model.
            longest_round: seconds that a round of what it draws takes, measured in this very
                process; None where that isn't known.
        """
        usual = self.silence or SILENCE_SECONDS.get(device.partition(":")[0], LOADING_SECONDS)
        if longest_round is not None:
            usual = min(usual, max(LEAST_SILENCE_SECONDS, SLOWNESS * longest_round))
        bound = max(usual, self.loading) if loading else usual
        return bound if silent * BEAT_SECONDS > bound else None


class LocalExecutor:
    """See `Executor`. One event loop uses it."""

    def __init__(
        self,
        device: str,
        *,
        capacity: int | None = None,
        may_fall_back: bool = False,
        max_rows: int | None = None,
        ledger: Path | None = None,
        start_seconds: float = START_SECONDS,
        close_seconds: float = CLOSE_SECONDS,
        patience: Patience | None = None,
    ) -> None:
        """Prepares; `start` begins.

        Args:
            device: such as ``cpu`` or ``cuda:0``.
            capacity: requests that may usefully be under way; None takes the device's usual number.
            may_fall_back: whether to draw on the CPU where torch can't use the device; for a
                device that nobody named.
            max_rows: most rows in a forward pass; None takes the device's usual number.
            ledger: the file that remembers what was measured, memory and time, shared by all
                devices; None keeps none.
            start_seconds: how long the process may take until it answers.
            close_seconds: how long it may take to end before it is killed.
            patience: how long its step loop may say nothing before it is killed.
        """
        self._wanted = device
        self._capacity = capacity
        self._may_fall_back = may_fall_back
        self._max_rows = max_rows
        self._ledger = ledger
        self._start_seconds = start_seconds
        self._close_seconds = close_seconds
        self._patience = patience or Patience()
        self._pace = Pace()
        self._changing = asyncio.Lock()
        self._child: _Child | None = None
        self._spawning: asyncio.Task[_Child] | None = None

    @property
    def device(self) -> str:
        """See `Executor.device`; what the process really uses, once it has started."""
        return self._child.device if self._child is not None else self._wanted

    @property
    def capacity(self) -> int:
        """See `Executor.capacity`."""
        return self._capacity or _CAPACITY.get(self.device.partition(":")[0], 1)

    @property
    def most_rows(self) -> int:
        """See `Executor.most_rows`."""
        return self._max_rows or _most_rows(self.device)

    @property
    def pace(self) -> Pace:
        """See `Executor.pace`."""
        return self._pace

    @property
    def loaded(self) -> tuple[str, ...]:
        """See `Executor.loaded`."""
        return () if self._child is None or self._child.death else self._child.loaded

    @property
    def pid(self) -> int | None:
        """The process's number; None where none runs."""
        return self._child.pid if self._child is not None and self._child.death is None else None

    async def start(self) -> None:
        """See `Executor.start`. A process that has died is replaced.

        Raises:
            WorkerDiedError: it ended, or said nothing in time, with its reason.
        """
        async with self._changing:
            if self._child is not None and self._child.death is None:
                return
            if self._child is not None:
                await self._child.end("was replaced", 0)
                self._child = None
            start = messages.Start(
                self._wanted,
                self._may_fall_back,
                logging.getLogger().getEffectiveLevel(),
                self._max_rows,
                self._ledger,
            )
            self._spawning = asyncio.create_task(
                _Child.spawn(start, self._start_seconds, self._patience, self._pace),
                name=f"start {self._wanted}",
            )
            try:
                self._child = await self._spawning
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
                raise WorkerDiedError(self._wanted, "was shut down") from None
            finally:
                self._spawning = None

    async def run(self, job_id: str, request: GenerationRequest) -> AsyncIterator[Event]:
        """See `Executor.run`.

        Raises:
            ValueError: a job of this id is under way.
        """
        child = self._living()
        events = child.open_run(job_id, request)
        try:
            while True:
                event = await events.get()
                if isinstance(event, DreamLabError):
                    raise event
                yield event
                if isinstance(event, GenerationResult):
                    return
        finally:
            child.close_run(job_id)

    async def cancel(self, job_id: str) -> None:
        """See `Executor.cancel`."""
        if self._child is not None:
            self._child.cancel_run(job_id)

    async def load(self, model: ModelSpec) -> LoadReport:
        """See `Executor.load`."""
        child = self._living()
        report: LoadReport = await child.call(lambda call_id: messages.Load(call_id, model))
        return report

    async def unload(self, model: ModelSpec) -> None:
        """See `Executor.unload`. Waits until nobody draws with it."""
        await self._living().call(lambda call_id: messages.Unload(call_id, model))

    async def stats(self) -> dict[str, Any]:
        """See `Executor.stats`."""
        stats: dict[str, Any] = await self._living().call(messages.Stats)
        return stats

    async def death(self) -> WorkerDiedError:
        """See `Executor.death`."""
        if self._child is None:
            return WorkerDiedError(self._wanted, "is not running")
        return await self._child.gone()

    async def close(self) -> None:
        """See `Executor.close`. The process is killed where it doesn't end by itself."""
        if self._spawning is not None:
            self._spawning.cancel()
        async with self._changing:
            child, self._child = self._child, None
            if child is not None:
                await child.end("was shut down", self._close_seconds)

    def _living(self) -> "_Child":
        if self._child is None:
            raise WorkerDiedError(self._wanted, "is not running")
        if self._child.death is not None:
            raise WorkerDiedError(self._child.device, self._child.death)
        return self._child


@dataclass(slots=True, eq=False)
class _Run:
    """A job that the process draws; the number tells it from a later one of the same id."""

    number: int
    request: GenerationRequest
    events: "asyncio.Queue[Event | DreamLabError]"


class _Child:
    """A living process: from its first answer to its end. It is never started again.

    Attributes:
        device: what it draws on.
        pid: its number.
        death: why it ended, continuing "The worker on cuda:0 …"; None while it lives.
        loaded: keys of the models in its memory.
    """

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        device: str,
        patience: Patience,
        pace: Pace,
        most_rows: int | None,
    ) -> None:
        assert process.stdin is not None  # noqa: S101 - both were asked for
        assert process.stdout is not None  # noqa: S101
        self.device = device
        self.pid = process.pid
        self.death: str | None = None
        self.loaded: tuple[str, ...] = ()
        self._process = process
        self._patience = patience
        self._pace = pace
        self._most_rows = most_rows or _most_rows(device)
        self._drawn: set[tuple[Any, ...]] = set()  # kinds of requests
        self._heard = True  # whether the step loop has said something since the last look
        self._loading = False  # whether its last word was that it loads a model
        self._gone = asyncio.Event()
        self._stdin = process.stdin
        self._stdout = process.stdout
        self._runs: dict[str, _Run] = {}
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._numbers = itertools.count(1)
        self._reader: asyncio.Task[None] | None = None

    @classmethod
    async def spawn(
        cls, start: messages.Start, seconds: float, patience: Patience, pace: Pace
    ) -> Self:
        """Starts a process and waits until it can draw.

        Raises:
            WorkerDiedError: it can't, with the reason that it gave.
        """
        environment = {k: v for k, v in os.environ.items() if not _SECRET.search(k)}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # a file named torch.py in the current folder is not torch
            "-c",
            _BOOTSTRAP,
            str(_ROOT),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=_ENVIRONMENT | environment | {"HF_HUB_OFFLINE": "1"},
        )
        child = cls(process, start.device, patience, pace, start.max_rows)
        try:
            child._send(start)
            async with asyncio.timeout(seconds):
                first = await child._read()
        except asyncio.IncompleteReadError as error:
            code = await process.wait()
            raise WorkerDiedError(
                start.device, f"can't start: its process {_ended(code)}; the log above says why"
            ) from error
        except TimeoutError as error:
            await child._reap(0)
            raise WorkerDiedError(
                start.device, f"can't start: it gave no answer within {seconds:g} seconds"
            ) from error
        except BaseException:
            await child._reap(0)
            raise
        if not isinstance(first, messages.Ready):
            await child._reap(_GRACE)
            raise WorkerDiedError(start.device, first.reason)
        child.device = first.device
        child._reader = asyncio.create_task(child._listen(), name=f"worker {first.device}")
        log.info("A worker process (%d) draws on %s", child.pid, child.device)
        return child

    def open_run(
        self, job_id: str, request: GenerationRequest
    ) -> "asyncio.Queue[Event | DreamLabError]":
        """Has a request drawn and returns where its events will arrive."""
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

    async def call(self, make: Callable[[int], messages.Command]) -> Any:
        """Sends a command that has an answer, and returns the answer.

        Args:
            make: returns the command for a call's number.
        """
        number = next(self._numbers)
        answer = self._calls[number] = asyncio.get_running_loop().create_future()
        try:
            self._send(make(number))
            return await answer
        finally:
            del self._calls[number]

    async def gone(self) -> WorkerDiedError:
        """Waits for its death and returns it."""
        await self._gone.wait()
        return WorkerDiedError(self.device, self.death or "ended")

    async def end(self, reason: str, seconds: float) -> None:
        """Ends the process, by force where it takes longer than ``seconds``."""
        if self.death is None:
            self._die(reason)
            self._send(messages.Close())
        await self._reap(seconds)
        if self._reader is not None:
            await self._reader

    def _send(self, message: messages.Start | messages.Command) -> None:
        # Never waits: the transport keeps what the pipe doesn't take yet, and commands are small.
        self._stdin.write(messages.frame(message))

    async def _read(self) -> Any:
        header = await self._stdout.readexactly(messages.HEADER.size)
        (length,) = messages.HEADER.unpack(header)
        return messages.unframe(await self._stdout.readexactly(length))

    async def _listen(self) -> None:
        """Hands on what the process says until it ends; then everybody who waits is told."""
        reason = None
        watcher = asyncio.create_task(self._watch(), name=f"watch {self.device}")
        try:
            while True:
                message = await self._read()
                self._heard, self._loading = True, isinstance(message, messages.Loading)
                if isinstance(message, messages.Unusable):
                    reason = message.reason
                else:
                    self._dispatch(message)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # it has ended
        except Exception:
            log.exception("What the worker on %s says can't be understood", self.device)
            reason = "said something that can't be understood"
        finally:
            watcher.cancel()
            code = await self._reap(_GRACE)
            if self.death is None:
                self._die(reason or _ended(code))
                log.error("The worker on %s (process %d) %s", self.device, self.pid, self.death)
            await asyncio.wait([watcher])

    async def _watch(self) -> None:
        """Asks for a word at every beat, and kills a process whose step loop has none for long."""
        silent = 0
        while self.death is None:
            if self._heard:
                silent, self._heard = 0, False
                self._send(messages.Ping(next(self._numbers)))  # that it is answered is enough
            await self._patience.beat()
            silent += 1
            bound = self._patience.ends(
                self.device, silent, loading=self._loading, longest_round=self._longest_round()
            )
            if bound is not None and not self._heard and self.death is None:
                self._die(f"gave no sign of life for {bound:g} seconds and was ended")
                log.error("The worker on %s (process %d) %s", self.device, self.pid, self.death)
                self._process.kill()

    def _longest_round(self) -> float | None:
        """Returns the seconds of a round, if this process has drawn all that is under way before.

        What an earlier start remembers may come from another machine.
        """
        requests = [(job_id, run.request) for job_id, run in self._runs.items()]
        if any(_kind(request) not in self._drawn for _, request in requests):
            return None
        works = [work_of(job_id, request) for job_id, request in requests]
        return longest_round(self._pace, works, self._most_rows)

    def _dispatch(self, message: messages.Reply) -> None:
        match message:
            case messages.Answer(call_id, value, error):
                answer = self._calls.get(call_id)
                if answer is None or answer.done():
                    return  # whoever called has gone
                if error is None:
                    answer.set_result(value)
                else:
                    answer.set_exception(error)
            case messages.Measured(figures, loaded):
                self.loaded = loaded
                self._pace.take(figures)
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

    def _die(self, reason: str) -> None:
        self.death = reason
        self._gone.set()
        for run in self._runs.values():
            run.events.put_nowait(WorkerDiedError(self.device, reason))
        self._runs.clear()
        for answer in self._calls.values():
            if not answer.done():
                answer.set_exception(WorkerDiedError(self.device, reason))

    async def _reap(self, seconds: float) -> int:
        """Waits for the process to end, kills it where it doesn't in time, returns its code."""
        try:
            async with asyncio.timeout(seconds):
                code = await self._process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            code = await self._process.wait()
        self._stdin.close()
        return code


def _most_rows(device: str) -> int:
    return MOST_ROWS.get(device.partition(":")[0], 1)


def _kind(request: GenerationRequest) -> tuple[Any, ...]:
    """Returns what is equal for requests whose rounds take alike."""
    refiner = request.refiner and request.refiner.key
    size = (request.width, request.height)
    return request.model.key, refiner, size, request.source is not None


def _ended(code: int) -> str:
    """Returns what an exit code means, continuing "The worker …"."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"was killed by {name}"
