"""A fake executor for tests: the real protocol without a process, a model or a clock.

The test says what happens and when. Left alone, every drawing runs through its steps at once and
ends with small pictures of one colour that depend on the request and the seed alone::

    executor = FakeExecutor()

Told to hold, it lets the test play the worker::

    executor = FakeExecutor(hold=True, capacity=2)
    future = pool.submit_job(job)
    await executor.until(lambda: job.id in executor.running)
    executor.report(job.id, step=3)
    executor.finish(job.id)           # or fail(job.id, error), or die()
"""

import asyncio
import hashlib
import io
from collections.abc import AsyncGenerator, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from engine.errors import (
    JobCancelledError,
    ModelElsewhereError,
    OutOfMemoryError,
    WorkerDiedError,
)
from engine.executor import LoadReport
from engine.jobs import (
    Event,
    GeneratedImage,
    GenerationRequest,
    GenerationResult,
    ModelSpec,
    Progress,
    Stage,
)
from engine.need import Need
from engine.pace import Pace


def fake_result(
    job_id: str, request: GenerationRequest, device: str = "fake:0"
) -> GenerationResult:
    """Returns pictures of one colour each, of the asked size, equal for equal request and seed."""
    images = tuple(
        GeneratedImage(_png(request, seed), seed, request.width, request.height)
        for seed in request.seeds
    )
    return GenerationResult(job_id, images, seconds=0.0, device=device)


@dataclass(slots=True)
class _Run:
    request: GenerationRequest
    inbox: asyncio.Queue[Event | Exception] = field(default_factory=asyncio.Queue)


class FakeExecutor:
    """Fulfils `engine.executor.Executor`; scripted by events, never by time.

    Args:
        device: what it calls itself.
        capacity: how many drawings the pool may give it at once.
        most_rows: of a forward pass.
        pace: what drawings are said to take.
        hold: whether drawings wait for `finish`, `fail` or `die` after their first progress.

    Attributes:
        calls: what was asked of it, in order: ``("start",)``, ``("run", job_id)``,
            ``("cancel", job_id)``, ``("load", key)``, ``("unload", key)``, ``("close",)``.
        requests: every request that it was given to draw, in order.
        warmed: what each load was to be prepared for, in order.
        start_errors: raised by the next starts, one each.
        load_errors: raised by the load of a model, by `ModelSpec.key`; drawing with it likewise.
        missing: files that its machine lacks.
        most_pixels: of a picture that its memory has room for; None for any. Nobody knows that
            before it is tried, unless the pace's ``space`` says so.
        poison: prompts that kill the worker when they are drawn.
        start_gate: a start waits until it is set; it is, unless cleared.
        load_gate: likewise for loads.
        close_gate: likewise for closing.
    """

    def __init__(self, device: str = "fake:0", *, capacity: int = 1, hold: bool = False) -> None:
        self.device = device
        self.capacity = capacity
        self.hold = hold
        self.most_rows = 8
        self.pace = Pace()
        self.calls: list[tuple[str, ...]] = []
        self.requests: list[GenerationRequest] = []
        self.warmed: list[GenerationRequest | None] = []
        self.start_errors: list[Exception] = []
        self.load_errors: dict[str, Exception] = {}
        self.missing: set[Path] = set()
        self.most_pixels: int | None = None
        self.poison: set[str] = set()
        self.start_gate = _open_gate()
        self.load_gate = _open_gate()
        self.close_gate = _open_gate()
        self._runs: dict[str, _Run] = {}
        self._loaded: dict[str, ModelSpec] = {}
        self._death: asyncio.Future[None] | None = None  # of the living worker; None: there is none
        self._reason = "was not started"
        self._kind = WorkerDiedError
        self._waiters: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []

    # What the test asks and says ----------------------------------------------------------------

    @property
    def running(self) -> tuple[str, ...]:
        """Ids of the drawings that are under way, oldest first."""
        return tuple(self._runs)

    @property
    def loaded(self) -> tuple[str, ...]:
        """Keys of the models that are loaded, in that order."""
        return tuple(self._loaded)

    @property
    def alive(self) -> bool:
        """Whether there is a worker."""
        return self._death is not None

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits until something happens here that makes the condition true."""
        if not condition():
            reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append((condition, reached))
            await reached

    def report(self, job_id: str, step: int, preview: bytes | None = None) -> None:
        """Lets a held drawing report finished steps."""
        run = self._runs[job_id]
        progress = Progress(job_id, Stage.DENOISING, step, _steps(run.request), preview)
        run.inbox.put_nowait(progress)

    def finish(self, job_id: str) -> None:
        """Lets a held drawing end with its pictures."""
        run = self._runs[job_id]
        run.inbox.put_nowait(fake_result(job_id, run.request, self.device))

    def fail(self, job_id: str, error: Exception) -> None:
        """Lets a held drawing end with an error."""
        self._runs[job_id].inbox.put_nowait(error)

    def die(
        self, reason: str = "was killed", kind: type[WorkerDiedError] = WorkerDiedError
    ) -> None:
        """Ends the worker as a crash would: all that is under way ends with WorkerDiedError."""
        self._reason, self._kind = reason, kind
        self._loaded.clear()
        if self._death is not None:
            self._death.set_result(None)
            self._death = None
        for run in self._runs.values():
            run.inbox.put_nowait(self._died())
        self._touch()

    # What the pool asks -------------------------------------------------------------------------

    async def start(self) -> None:
        """Brings a worker up, unless `start_errors` or the gate say otherwise."""
        self._note("start")
        await self.start_gate.wait()
        if self.start_errors:
            raise self.start_errors.pop(0)
        if self._death is None:
            self._death = asyncio.get_running_loop().create_future()
        self._touch()

    async def run(self, job_id: str, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        """Draws at once, or as the test says where it holds."""
        self._note("run", job_id)
        self.requests.append(request)
        self._require_worker()
        run = self._runs[job_id] = _Run(request)
        self._touch()
        try:
            if request.prompt in self.poison:
                self.die("was killed by a prompt")
                raise self._died()
            self._look_for(Need.of(request).files)
            if error := self.load_errors.get(request.model.key):
                raise error
            self._loaded[request.model.key] = request.model
            if self.most_pixels is not None and request.width * request.height > self.most_pixels:
                raise OutOfMemoryError(self.device)
            yield Progress(job_id, Stage.ENCODING, 0, _steps(request))
            if not self.hold:
                for step in range(1, _steps(request) + 1):
                    run.inbox.put_nowait(Progress(job_id, Stage.DENOISING, step, _steps(request)))
                run.inbox.put_nowait(fake_result(job_id, request, self.device))
            while True:
                event = await run.inbox.get()
                if isinstance(event, Exception):
                    raise event
                yield event
                if isinstance(event, GenerationResult):
                    return
        finally:
            del self._runs[job_id]
            self._touch()

    async def cancel(self, job_id: str) -> None:
        """Ends a drawing after the progress that it has reported so far."""
        self._note("cancel", job_id)
        self._require_worker()
        if run := self._runs.get(job_id):
            run.inbox.put_nowait(JobCancelledError(job_id))

    async def load(self, model: ModelSpec, warm: GenerationRequest | None = None) -> LoadReport:
        """Loads a model once the gate is open and the worker lives."""
        self._note("load", model.key)
        self.warmed.append(warm)
        await self._open(self.load_gate)
        self._look_for(Need((model,)).files)
        if error := self.load_errors.get(model.key):
            raise error
        self._loaded[model.key] = model
        self._touch()
        return LoadReport(model.key, family="sd15", seconds=0.0, bytes=1)

    async def unload(self, model: ModelSpec) -> None:
        """Forgets a model."""
        self._note("unload", model.key)
        self._require_worker()
        self._loaded.pop(model.key, None)
        self._touch()

    async def stats(self) -> dict[str, Any]:
        """Returns what `ModelRegistry.get_vram_stats` would for models of one byte."""
        self._require_worker()
        return {
            "device": self.device,
            "total_gb": 1.0,
            "used_gb": 0.0,
            "available_gb": 1.0,
            "usage_percent": 0.0,
            "models_loaded": len(self._loaded),
            "models": [
                {
                    "name": key,
                    "model_path": str(model.path),
                    "vram_gb": 0.0,
                    "loras": [str(lora.path) for lora in model.loras],
                }
                for key, model in self._loaded.items()
            ],
        }

    async def death(self) -> WorkerDiedError:
        """Waits for `die` or `close`."""
        if self._death is not None:
            await asyncio.shield(self._death)
        return self._died()

    async def close(self) -> None:
        """Ends the worker once the gate is open."""
        self._note("close")
        await self.close_gate.wait()
        self.die("was closed")

    # ----------------------------------------------------------------------------------------------

    def _look_for(self, files: Iterable[Path]) -> None:
        for file in files:
            if file in self.missing:
                raise ModelElsewhereError(file, self.device)

    def _note(self, *call: str) -> None:
        self.calls.append(call)
        self._touch()

    def _touch(self) -> None:
        for waiter in tuple(self._waiters):
            condition, reached = waiter
            if reached.done() or condition():
                self._waiters.remove(waiter)
                if not reached.done():
                    reached.set_result(None)

    def _died(self) -> WorkerDiedError:
        return self._kind(self.device, self._reason)

    def _require_worker(self) -> asyncio.Future[None]:
        if self._death is None:
            raise self._died()
        return self._death

    async def _open(self, gate: asyncio.Event) -> None:
        """Waits for a gate, or raises when the worker dies first."""
        death = self._require_worker()
        opening = asyncio.ensure_future(gate.wait())
        opening.add_done_callback(lambda _: self._touch())
        try:
            await self.until(lambda: opening.done() or death.done())
        finally:
            opening.cancel()
        if death.done():
            raise self._died()


def _open_gate() -> asyncio.Event:
    gate = asyncio.Event()
    gate.set()
    return gate


def _steps(request: GenerationRequest) -> int:
    return request.steps * request.count


def _png(request: GenerationRequest, seed: int) -> bytes:
    colour = hashlib.sha256(f"{seed}{request.prompt}".encode()).digest()
    file = io.BytesIO()
    Image.new("RGB", (request.width, request.height), (colour[0], colour[1], colour[2])).save(
        file, "PNG"
    )
    return file.getvalue()
