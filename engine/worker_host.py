"""What lives beside one device: the loaded models and the loop that draws with them, step by step.

One thread calls everything here and nothing blocks but the work itself. Each `WorkerHost.tick`
lets new requests join, takes one denoising step for those that share a forward pass, turns what is
finished into pixels, and says how far everybody is. PNG files are made in a thread beside it.
"""

import importlib
import logging
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from typing import assert_never

from engine.errors import (
    DrawingError,
    DreamLabError,
    JobCancelledError,
    NotEnoughMemoryError,
)
from engine.executor import LoadReport
from engine.jobs import (
    GeneratedImage,
    GenerationRequest,
    GenerationResult,
    ModelSpec,
    Progress,
    Stage,
)
from engine.messages import (
    Answer,
    Cancel,
    Close,
    Command,
    JobEvent,
    JobFailed,
    Load,
    Loading,
    Ping,
    Reply,
    Run,
    Stats,
    Unload,
)
from engine.model_registry import ModelRegistry
from engine.step_batcher import LEAST_CAP, StepBatcher
from engine.worker_factory import WORKERS, WorkerFactory, check_model
from engine.workers.base import Drawing, Worker, to_image

REPORT_SECONDS = 0.25
"""Least time between two reports, and so two previews, of one job."""

_MAX_ROWS = {"cpu": 8, "cuda": 16}
_DECODES_PER_TICK = 2  # a crowd that finishes together must not stop everybody else's steps
_ENCODER_WAIT = 0.05

log = logging.getLogger(__name__)


class DeviceUnusableError(Exception):
    """The device can't be used by this process, or not any more.

    The text continues "The worker on cuda:0 …".
    """


def prepare_device(device: str, *, may_fall_back: bool) -> str:
    """Imports what takes seconds, tries the device, and returns the one that can be used.

    Args:
        device: such as ``cpu`` or ``cuda:0``.
        may_fall_back: whether the CPU will do where torch can't use the device.

    Raises:
        DeviceUnusableError: it can't be used, or the libraries can't be imported.
    """
    try:
        usable = _tried(device, may_fall_back=may_fall_back)
        for module in {module for module, _ in WORKERS.values()}:
            importlib.import_module(module)
        _quieten()
    except (ImportError, OSError) as error:  # OSError: a shared library is missing or broken
        raise DeviceUnusableError(f"can't start: {_first_line(error)}") from error
    return usable


def _tried(device: str, *, may_fall_back: bool) -> str:
    import torch

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built for it
        reason = _first_line(error)
        if not may_fall_back:
            raise DeviceUnusableError(
                f"can't start: torch can't use the device ({reason})"
            ) from error
        log.warning("torch can't use %s (%s). Drawing on the CPU instead.", device, reason)
        return "cpu"
    return device


def _quieten() -> None:
    """Keeps progress bars out of the log."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()


class _MustWaitError(Exception):
    """What is asked can't begin before a model is out of use."""


@dataclass(slots=True, eq=False)
class _Picture:
    """A drawing and where it is on its way to a file."""

    drawing: Drawing
    image: Future[GeneratedImage] | None = None


@dataclass(slots=True, eq=False)
class _Job:
    """A request that joined."""

    run: Run
    worker: Worker
    lease: ExitStack
    started: float
    pictures: list[_Picture]
    reported: Stage = Stage.ENCODING
    reported_at: float = 0.0

    @property
    def id(self) -> int:
        """The run's."""
        return self.run.run_id

    @property
    def request(self) -> GenerationRequest:
        """What is drawn."""
        return self.run.request


class WorkerHost:
    """Draws with whatever model is asked for, many requests at a time.

    Requests, loads and unloads begin in the order in which they came: one that must wait until a
    model is out of use holds up those behind it, so that it is never overtaken for ever.
    """

    def __init__(
        self,
        device: str,
        emit: Callable[[Reply], None],
        *,
        create: Callable[[ModelSpec], Worker] | None = None,
        registry: ModelRegistry | None = None,
        max_rows: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Takes its place beside a device; loads nothing yet.

        Args:
            device: such as ``cpu`` or ``cuda:0``.
            emit: is given every answer and event, from the calling thread.
            create: loads a model; None takes the factory's.
            registry: what is loaded; None makes the device's.
            max_rows: most rows in a forward pass; None takes the device's usual number.
            clock: seconds.
        """
        self.device = device
        self._emit = emit
        self._create = create or WorkerFactory(device).create
        self._registry = registry or ModelRegistry(device)
        self._max_rows = max(LEAST_CAP, max_rows or _MAX_ROWS[device.partition(":")[0]])
        self._clock = clock
        self._workers: dict[str, Worker] = {}
        self._waiting: deque[Run | Load | Unload] = deque()
        self._jobs: dict[int, _Job] = {}
        self._ceilings: dict[Hashable, int] = {}  # rows that fit where more ran out of memory
        self._held_up = False  # what waits first can't begin before a job has left
        self._batcher: StepBatcher[tuple[_Job, _Picture]] = StepBatcher()
        self._encoder = ThreadPoolExecutor(1, thread_name_prefix="png")

    @property
    def busy(self) -> bool:
        """Whether `tick` has something to do."""
        return bool(self._waiting or self._jobs)

    def handle(self, command: Command) -> None:
        """Takes a command; what takes time begins at the next `tick`."""
        match command:
            case Run() | Load() | Unload():
                self._waiting.append(command)
            case Cancel(run_id):
                self._cancel(run_id)
            case Stats(call_id):
                self._emit(Answer(call_id, self._registry.get_vram_stats()))
            case Ping(call_id):
                self._emit(Answer(call_id))
            case Close():
                self.close()
            case _:
                assert_never(command)

    def tick(self) -> None:
        """Does one round of work, the length of about one denoising step.

        Raises:
            DeviceUnusableError: nothing can be drawn here any more; the process had better end.
        """
        self._admit()
        self._step()
        self._decode()
        self._report()
        self._deliver()

    def close(self) -> None:
        """Drops everything; what ran gets no answer. Closing twice is no error."""
        self._waiting.clear()
        for job in list(self._jobs.values()):
            self._forget(job)
        for key in list(self._workers):
            self._drop(key)
        self._encoder.shutdown(cancel_futures=True)

    # Joining and leaving

    def _admit(self) -> None:
        """Begins what waits, in order, at most up to one that had to load a model."""
        loads = False
        while self._waiting and not loads and not self._held_up:
            command = self._waiting[0]
            loads = not isinstance(command, Unload) and _model(command).key not in self._workers
            try:
                self._begin(command)
            except _MustWaitError:
                self._held_up = True
                return
            except Exception as error:
                self._refuse(command, self._told(error))
            self._waiting.popleft()

    def _begin(self, command: Run | Load | Unload) -> None:
        match command:
            case Run():
                self._join(command)
            case Load(call_id, model):
                self._emit(Answer(call_id, self._load(model)))
            case Unload(call_id, model):
                if self._registry.in_use(model.key):
                    raise _MustWaitError
                self._drop(model.key)
                self._emit(Answer(call_id))
            case _:
                assert_never(command)

    def _join(self, run: Run) -> None:
        """Lets a request's pictures take part from the next step on."""
        key = run.request.model.key
        self._load(run.request.model, run)
        worker = self._workers[key]
        self._emit(JobEvent(run.run_id, Progress(run.job_id, Stage.ENCODING)))
        with ExitStack() as lease:
            lease.enter_context(self._registry.lease(key))
            pictures = [_Picture(drawing) for drawing in worker.begin(run.request)]
            job = _Job(run, worker, lease.pop_all(), self._clock(), pictures)
        self._jobs[job.id] = job
        size = run.request.width * run.request.height
        for picture in pictures:
            drawing = picture.drawing
            self._batcher.join((job, picture), self._key(job, drawing), job.id, drawing.rows, size)

    def _load(self, model: ModelSpec, run: Run | None = None) -> LoadReport:
        """Makes sure that a model is in memory; who waits for it is told where that takes time."""
        worker, seconds = self._workers.get(model.key), 0.0
        if worker is None:
            self._make_room(model)
            if run is not None:
                self._emit(JobEvent(run.run_id, Progress(run.job_id, Stage.LOADING)))
            self._emit(Loading())
            began = self._clock()
            worker = self._workers[model.key] = self._create(model)
            seconds = self._clock() - began
            self._registry.register_model(
                model.key,
                model.path,
                worker.weight_bytes,
                loras=[lora.path for lora in model.loras],
            )
            log.info("Loaded %s on %s in %.1f s", model.path, self.device, seconds)
        return LoadReport(model.key, worker.family.value, seconds, worker.weight_bytes)

    def _make_room(self, model: ModelSpec) -> None:
        check_model(model)  # nobody is dropped for a file that can't be loaded anyway
        files = (model.path, *(lora.path for lora in model.loras))
        needed = sum(map(self._registry.estimate_model_vram, files))
        try:
            names = self._registry.make_room(needed, model.path)
        except NotEnoughMemoryError:
            if self._jobs:
                raise _MustWaitError from None  # what they draw with can go when they are done
            raise
        for name in names:
            self._drop(name)

    def _drop(self, key: str) -> None:
        worker = self._workers.pop(key, None)
        self._registry.unregister_model(key)
        if worker is not None:
            worker.close()
            log.info("Dropped %s from %s", worker.model.path, self.device)

    def _cancel(self, run_id: int) -> None:
        job = self._jobs.get(run_id)
        if job is not None:
            self._fail(job, JobCancelledError(job.run.job_id))
            return
        for command in self._waiting:
            if isinstance(command, Run) and command.run_id == run_id:
                self._waiting.remove(command)
                self._held_up = False
                self._refuse(command, JobCancelledError(command.job_id))
                return

    def _refuse(self, command: Run | Load | Unload, error: DreamLabError) -> None:
        if isinstance(command, Run):
            self._emit(JobFailed(command.run_id, command.job_id, error))
        else:
            self._emit(Answer(command.call_id, error=error))

    def _fail(self, job: _Job, error: DreamLabError) -> None:
        self._forget(job)
        self._refuse(job.run, error)

    def _forget(self, job: _Job) -> None:
        del self._jobs[job.id]
        self._held_up = False
        job.lease.close()
        for picture in job.pictures:
            self._batcher.leave((job, picture))
            if picture.image is not None:
                picture.image.cancel()

    # Drawing

    def _step(self) -> None:
        """Takes one step for those that share the next forward pass."""
        batch = self._batcher.next_batch(lambda key: self._ceilings.get(key, self._max_rows))
        if not batch:
            return
        self._forward(batch)
        for job, picture in batch:
            if picture.drawing.done:
                self._batcher.leave((job, picture))

    def _key(self, job: _Job, drawing: Drawing) -> Hashable:
        return job.request.model.key, job.worker.batch_key(drawing)

    def _forward(self, batch: Sequence[tuple[_Job, _Picture]]) -> None:
        """Steps a batch; where it fails as a whole, finds out whose fault it is."""
        drawings = [picture.drawing for _, picture in batch]
        job = batch[0][0]
        try:
            job.worker.step(drawings)
        except Exception as error:
            if _is_out_of_memory(error):
                self._lower_ceiling(job, drawings)
            if len(batch) == 1:
                self._fail(job, self._told(error))
            elif _is_out_of_memory(error) and sum(d.rows for d in drawings) <= LEAST_CAP:
                self._forward_one_by_one(batch)  # no smaller batch is to come
            elif not _is_out_of_memory(error):
                self._told(error)  # in the log; the next line finds whom to tell
                self._forward_one_by_one(batch)
            return
        for owner, picture in batch:
            if picture.drawing.error is not None and owner.id in self._jobs:
                self._fail(owner, self._told(picture.drawing.error))

    def _forward_one_by_one(self, batch: Sequence[tuple[_Job, _Picture]]) -> None:
        for job, picture in batch:
            if job.id in self._jobs:
                self._forward([(job, picture)])

    def _lower_ceiling(self, job: _Job, drawings: Sequence[Drawing]) -> None:
        rows = sum(drawing.rows for drawing in drawings)
        ceiling = max(LEAST_CAP, rows // 2)
        self._ceilings[self._key(job, drawings[0])] = ceiling
        log.warning("%d rows ran out of memory on %s; at most %d now", rows, self.device, ceiling)

    def _decode(self) -> None:
        """Turns a few finished drawings into pixels; the encoder makes files of them."""
        finished = [
            (job, picture)
            for job in self._jobs.values()
            for picture in job.pictures
            if picture.drawing.done and picture.image is None
        ]
        for job, picture in finished[:_DECODES_PER_TICK]:
            if job.id not in self._jobs:
                continue  # another of its pictures just failed
            drawing = picture.drawing
            try:
                pixels = job.worker.decode(drawing)
            except Exception as error:
                self._fail(job, self._told(error))
                continue
            picture.image = self._encoder.submit(to_image, pixels, job.request, drawing.seed)

    def _report(self) -> None:
        """Says how far the jobs are, each at most every `REPORT_SECONDS` within a stage."""
        now = self._clock()
        for job in self._jobs.values():
            step = sum(picture.drawing.step for picture in job.pictures)
            moving = [p.drawing for p in job.pictures if not p.drawing.done]
            stage = Stage.DENOISING if moving else Stage.DECODING
            if step == 0 or (stage is job.reported and now - job.reported_at < REPORT_SECONDS):
                continue
            if not moving and job.reported is Stage.DECODING:
                continue  # nothing new to say
            job.reported, job.reported_at = stage, now
            steps = sum(picture.drawing.steps for picture in job.pictures)
            preview = _preview(job.worker, moving) if moving else None
            progress = Progress(job.run.job_id, stage, step, steps, preview)
            self._emit(JobEvent(job.id, progress))

    def _deliver(self) -> None:
        """Sends the results of the jobs whose files are all made."""
        pending = [p.image for job in self._jobs.values() for p in job.pictures if p.image]
        if pending and all(p.drawing.done for j in self._jobs.values() for p in j.pictures):
            wait(pending, _ENCODER_WAIT, FIRST_COMPLETED)  # there is nothing else to do
        for job in list(self._jobs.values()):
            files = [picture.image for picture in job.pictures]
            if all(file is not None and file.done() for file in files):
                self._finish(job, [file for file in files if file is not None])

    def _finish(self, job: _Job, files: Sequence["Future[GeneratedImage]"]) -> None:
        try:
            images = tuple(file.result() for file in files)
        except Exception as error:
            self._fail(job, self._told(error))
            return
        self._forget(job)
        seconds = self._clock() - job.started
        result = GenerationResult(job.run.job_id, images, seconds, self.device)
        self._emit(JobEvent(job.id, result))

    def _told(self, error: Exception) -> DreamLabError:
        """Returns an error as the asker is told; what nobody raised on purpose is logged.

        Raises:
            DeviceUnusableError: the device itself is at fault.
        """
        if isinstance(error, DreamLabError):
            return error
        if _is_out_of_memory(error):
            return DrawingError(
                f"{self.device} ran out of memory. A smaller picture or fewer at once may fit."
            )
        log.error("Drawing failed on %s", self.device, exc_info=error)
        if _is_device_failure(error):
            raise DeviceUnusableError(f"failed: {_first_line(error)}") from error
        return DrawingError(f"Drawing failed: {type(error).__name__}: {_first_line(error)}")


def _model(command: Run | Load) -> ModelSpec:
    return command.request.model if isinstance(command, Run) else command.model


def _preview(worker: Worker, drawings: Sequence[Drawing]) -> bytes | None:
    """Returns the preview of the one that is farthest; a failing preview is no failing picture."""
    try:
        return worker.preview(max(drawings, key=lambda drawing: drawing.step))
    except Exception:
        log.exception("A preview failed")
        return None


def _is_out_of_memory(error: Exception) -> bool:
    import torch

    return isinstance(error, (torch.OutOfMemoryError, MemoryError))


def _is_device_failure(error: Exception) -> bool:
    """After a failed CUDA kernel every further call fails: the context is gone."""
    import torch

    return isinstance(error, torch.AcceleratorError)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or "no reason given"
