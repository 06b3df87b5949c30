"""What is alike for every executor whose worker speaks `engine.messages`, wherever it is."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

from engine import messages
from engine.dialogue import Dialogue, usual_rows
from engine.errors import DreamLabError, WorkerDiedError
from engine.executor import LoadReport
from engine.jobs import Event, GenerationRequest, GenerationResult, ModelSpec
from engine.pace import Pace
from engine.patience import Patience

START_SECONDS = 180.0
"""How long a process may take until it answers: importing torch from a cold disk takes a minute."""

CLOSE_SECONDS = 10.0
"""How long a process may take to end before it is killed: it looks up between two steps."""

_CAPACITY = {"cpu": 4, "cuda": 16}


class LivingWorker(Protocol):
    """A worker from its first answer to its end. It is never started again."""

    @property
    def dialogue(self) -> Dialogue:
        """What is said with it."""

    async def end(self, reason: str, seconds: float) -> None:
        """Ends it, by force where it takes longer than ``seconds``; once it is dead, cleans up."""


class ProcessExecutor(ABC):
    """See `Executor`; derive from it and say how a worker is started. One event loop uses it."""

    def __init__(
        self,
        device: str,
        *,
        kind: str | None = None,
        capacity: int | None = None,
        max_rows: int | None = None,
        start_seconds: float = START_SECONDS,
        close_seconds: float = CLOSE_SECONDS,
        patience: Patience | None = None,
    ) -> None:
        """Prepares; `start` begins.

        Args:
            device: what people call it.
            kind: what torch calls it, such as ``cpu`` or ``cuda:0``; None where that is the same.
            capacity: requests that may usefully be under way; None takes the device's usual number.
            max_rows: most rows in a forward pass; None takes the device's usual number.
            start_seconds: how long the process may take until it answers.
            close_seconds: how long it may take to end before it is killed.
            patience: how long its step loop may say nothing before it is killed.
        """
        self._wanted = device
        self._wanted_kind = kind or device
        self._capacity = capacity
        self._max_rows = max_rows
        self._start_seconds = start_seconds
        self._close_seconds = close_seconds
        self._patience = patience or Patience()
        self._pace = Pace()
        self._changing = asyncio.Lock()
        self._worker: LivingWorker | None = None
        self._starting: asyncio.Task[LivingWorker] | None = None

    @abstractmethod
    async def _spawn(self) -> LivingWorker:
        """Starts a worker and waits until it can draw.

        Raises:
            WorkerDiedError: it can't, with the reason that it gave.
        """

    async def _prepare(self, worker: LivingWorker, job_id: str, request: GenerationRequest) -> None:
        """Sees to it that a worker has what it is about to draw with and from.

        Raises:
            JobCancelledError: the job was cancelled meanwhile.
        """
        del job_id
        await self._make_known(worker, models_of(request))

    async def _make_known(  # noqa: B027 - one on this machine knows it
        self, worker: LivingWorker, models: Sequence[ModelSpec]
    ) -> None:
        """Sees to it that a worker knows where the files are that it is about to need."""

    @property
    def device(self) -> str:
        """See `Executor.device`; what the process really uses, once it has started."""
        return self._worker.dialogue.device if self._worker is not None else self._wanted

    @property
    def capacity(self) -> int:
        """See `Executor.capacity`."""
        return self._capacity or _CAPACITY.get(self._kind.partition(":")[0], 1)

    @property
    def most_rows(self) -> int:
        """See `Executor.most_rows`."""
        return self._max_rows or usual_rows(self._kind)

    @property
    def pace(self) -> Pace:
        """See `Executor.pace`."""
        return self._pace

    @property
    def loaded(self) -> tuple[str, ...]:
        """See `Executor.loaded`."""
        if self._worker is None or self._worker.dialogue.death:
            return ()
        return self._worker.dialogue.loaded

    @property
    def _kind(self) -> str:
        return self._worker.dialogue.kind if self._worker is not None else self._wanted_kind

    async def start(self) -> None:
        """See `Executor.start`. A process that has died is replaced.

        Raises:
            WorkerDiedError: it ended, or said nothing in time, with its reason.
        """
        async with self._changing:
            await self._see_off_start()
            if self._worker is not None and self._worker.dialogue.death is None:
                return
            if self._worker is not None:
                await self._worker.end("was replaced", 0)
                self._worker = None
            self._starting = asyncio.create_task(self._spawn(), name=f"start {self._wanted}")
            try:
                self._worker = await asyncio.shield(self._starting)
            except asyncio.CancelledError:
                self._give_up_start()
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise  # `close` waits for what is left of it
                raise WorkerDiedError(self._wanted, "was shut down") from None
            self._starting = None

    async def run(self, job_id: str, request: GenerationRequest) -> AsyncIterator[Event]:
        """See `Executor.run`.

        Raises:
            ValueError: a job of this id is under way.
        """
        worker = self._living()
        await self._prepare(worker, job_id, request)
        events = worker.dialogue.open_run(job_id, request)
        try:
            while True:
                event = await events.get()
                if isinstance(event, DreamLabError):
                    raise event
                yield event
                if isinstance(event, GenerationResult):
                    return
        finally:
            worker.dialogue.close_run(job_id)

    async def cancel(self, job_id: str) -> None:
        """See `Executor.cancel`."""
        if self._worker is not None:
            self._worker.dialogue.cancel_run(job_id)

    async def load(self, model: ModelSpec, warm: GenerationRequest | None = None) -> LoadReport:
        """See `Executor.load`."""
        worker = self._living()
        await self._make_known(worker, [model])
        report: LoadReport = await worker.dialogue.call(
            lambda call_id: messages.Load(call_id, model, warm)
        )
        return report

    async def unload(self, model: ModelSpec) -> None:
        """See `Executor.unload`. Waits until nobody draws with it."""
        await self._living().dialogue.call(lambda call_id: messages.Unload(call_id, model))

    async def stats(self) -> dict[str, Any]:
        """See `Executor.stats`."""
        stats: dict[str, Any] = await self._living().dialogue.call(messages.Stats)
        return stats

    async def death(self) -> WorkerDiedError:
        """See `Executor.death`."""
        if self._worker is None:
            return WorkerDiedError(self._wanted, "is not running")
        return await self._worker.dialogue.gone()

    async def close(self) -> None:
        """See `Executor.close`. The process is killed where it doesn't end by itself."""
        self._give_up_start()
        async with self._changing:
            await self._see_off_start()
            worker, self._worker = self._worker, None
            if worker is not None:
                await worker.end("was shut down", self._close_seconds)

    def _give_up_start(self) -> None:
        # Once: a start that is told to stop sees its process off, and a second time, from whoever
        # else shuts down, would interrupt that.
        if self._starting is not None and not self._starting.cancelling():
            self._starting.cancel()

    async def _see_off_start(self) -> None:
        """Waits for a start that was given up; a worker that came up all the same is kept."""
        if (starting := self._starting) is not None:
            await asyncio.wait([starting])
            self._starting = None
            if not starting.cancelled() and starting.exception() is None:
                self._worker = starting.result()

    def _living(self) -> LivingWorker:
        if self._worker is None:
            raise WorkerDiedError(self._wanted, "is not running")
        if self._worker.dialogue.death is not None:
            raise self._worker.dialogue.obituary()
        return self._worker


def models_of(request: GenerationRequest) -> list[ModelSpec]:
    """Returns what a request is drawn with."""
    return [request.model] + ([request.refiner] if request.refiner else [])
