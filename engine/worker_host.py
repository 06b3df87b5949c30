"""What lives beside one device: the loaded models and the loop that draws with them, step by step.

One thread calls everything here and nothing blocks but the work itself. Each `WorkerHost.tick`
lets new requests join, takes one denoising step for those that share a forward pass, turns what is
finished into pixels, and says how far everybody is. PNG files are made in a thread beside it.
"""

import importlib
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, assert_never

from engine.errors import (
    DrawingError,
    DreamLabError,
    JobCancelledError,
    NotEnoughMemoryError,
    OutOfMemoryError,
    UnsupportedModelError,
)
from engine.executor import LoadReport
from engine.failures import first_line, is_device_failure, is_out_of_memory, let_go
from engine.jobs import (
    Family,
    GeneratedImage,
    GenerationRequest,
    GenerationResult,
    ModelSpec,
    Progress,
    Stage,
)
from engine.ledger import Ledger
from engine.measured_file import MeasuredFile
from engine.messages import (
    Answer,
    Cancel,
    Close,
    Command,
    JobEvent,
    JobFailed,
    Load,
    Loading,
    Measured,
    Ping,
    Reply,
    Run,
    Stats,
    Unload,
)
from engine.model_detector import FAMILY_NAMES
from engine.model_registry import ModelRegistry
from engine.pace import Act
from engine.shelf import MustWaitError, Shelf
from engine.step_batcher import LEAST_CAP, StepBatcher
from engine.timekeeper import PassKey, Timekeeper, size_of
from engine.worker_factory import WORKERS, WorkerFactory
from engine.workers.base import Drawing, Worker, to_image

if TYPE_CHECKING:
    from engine.workers.host_cache import HostCache

REPORT_SECONDS = 0.25
"""Least time between two reports, and so two previews, of one job."""

_DECODES_PER_TICK = 2  # a crowd that finishes together must not stop everybody else's steps
_ENCODER_WAIT = 0.05
_ENCODERS = {"cpu": 1, "cuda": 4}
"""Threads that make PNG files. A file takes a core for up to a fifth of a second, which a GPU may
draw several pictures in; a CPU draws with that very core."""

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
        raise DeviceUnusableError(f"can't start: {first_line(error)}") from error
    return usable


def _tried(device: str, *, may_fall_back: bool) -> str:
    import torch

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built for it
        reason = first_line(error)
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


@dataclass(slots=True, eq=False)
class _Picture:
    """A drawing and where it is on its way to a file.

    Attributes:
        drawing: what has come of it so far.
        worker: who makes its next step: the model's, later the refiner's.
        shared: whether others took part in one of its passes.
        alone: whether nobody may.
        image: its file on the way; None before it is decoded.
    """

    drawing: Drawing
    worker: Worker
    shared: bool = False
    alone: bool = False
    image: Future[GeneratedImage] | None = None


@dataclass(slots=True, eq=False)
class _Job:
    """A request that joined."""

    run: Run
    refiner: Worker | None
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

    def __init__(  # noqa: PLR0913 - all but two are for tests and benchmarks to replace
        self,
        device: str,
        emit: Callable[[Reply], None],
        *,
        create: Callable[[ModelSpec], Worker] | None = None,
        registry: ModelRegistry | None = None,
        ledger: Ledger | None = None,
        measured: MeasuredFile | None = None,
        cache: "HostCache | None" = None,
        max_rows: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Takes its place beside a device; loads nothing yet.

        Args:
            device: such as ``cpu`` or ``cuda:0``.
            emit: is given every answer and event, from the calling thread.
            create: loads a model; None takes the factory's.
            registry: what is loaded; None makes the device's.
            ledger: what models take in memory; None makes one that keeps no file.
            measured: remembers what loads, passes and decodes took; None keeps no file.
            cache: where models wait that must leave the device; None drops them.
            max_rows: most rows in a forward pass; None takes the device's usual number.
            clock: seconds.
        """
        self.device = device
        self._emit = emit
        self._registry = registry or ModelRegistry(device)
        self._clock = clock
        self._times = Timekeeper(
            device, self._registry, measured or MeasuredFile(None), max_rows, clock
        )
        self._shelf = Shelf(
            device,
            create or WorkerFactory(device).create,
            self._registry,
            ledger or Ledger(device),
            drawn=self._drawn,
            note=self._times.note,
            clock=clock,
            cache=cache,
        )
        self._waiting: deque[Run | Load | Unload] = deque()
        self._jobs: dict[int, _Job] = {}
        self._held_up = False  # what waits first can't begin before a job has left
        self._batcher: StepBatcher[tuple[_Job, _Picture], PassKey] = StepBatcher()
        encoders = _ENCODERS[device.partition(":")[0]]
        self._encoder = ThreadPoolExecutor(encoders, thread_name_prefix="png")
        if known := self._times.pace.figures():
            emit(Measured(known, ()))

    @property
    def busy(self) -> bool:
        """Whether `tick` has something to do."""
        return bool(self._waiting or self._jobs or self._shelf.busy)

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
        if self._shelf.work(hurry=not self._jobs):
            self._held_up = False
        if not self._shelf.arriving:  # who comes later does not overtake who waits for it
            self._admit()
        self._step()
        self._decode()
        self._report()
        self._deliver()
        told = self._times.tell(self._shelf.keys, self._shelf.waiting, idle=not self._jobs)
        if told is not None:
            self._emit(told)

    def close(self) -> None:
        """Drops everything; what ran gets no answer. Closing twice is no error."""
        self._waiting.clear()
        for job in list(self._jobs.values()):
            self._forget(job)
        self._shelf.close()
        self._encoder.shutdown(cancel_futures=True)

    # Joining and leaving

    def _admit(self) -> None:
        """Begins what waits, in order, at most up to one that had to load a model."""
        loads = False
        while self._waiting and not loads and not self._held_up:
            command = self._waiting[0]
            loads = not isinstance(command, Unload) and not all(
                map(self._shelf.is_loaded, _models(command))
            )
            try:
                self._begin(command)
            except MustWaitError:
                self._held_up = True
                return
            except Exception as error:
                self._refuse(command, self._told(error))
            self._waiting.popleft()

    def _begin(self, command: Run | Load | Unload) -> None:
        match command:
            case Run():
                self._join(command)
            case Load(call_id, model, warm):
                self._emit(Answer(call_id, self._load(model)))
                if warm is not None:
                    self._warm(warm)
            case Unload(call_id, model):
                if self._registry.in_use(model.key):
                    raise MustWaitError
                self._shelf.drop(model.key, for_good=True)
                self._emit(Answer(call_id))
            case _:
                assert_never(command)

    def _join(self, run: Run) -> None:
        """Lets a request's pictures take part from the next step on."""
        request = run.request
        self._check_refiner(request)
        self._shelf.joining = _drawn_with(request)
        try:
            with ExitStack() as lease:
                worker, *more = [self._lease(model, run, lease) for model in self._shelf.joining]
                self._emit(JobEvent(run.run_id, Progress(run.job_id, Stage.ENCODING)))
                began = self._clock()
                drawings = self._shelf.relieved(lambda: worker.begin(request))
                pictures = [_Picture(drawing, worker) for drawing in drawings]
                pixels = 0 if request.source is None else size_of(request)
                self._times.note(Act.BEGIN, worker, began, pixels)
                refiner = more[0] if more else None
                job = _Job(run, refiner, lease.pop_all(), self._clock(), pictures)
        finally:
            self._shelf.joining = ()
        self._jobs[job.id] = job
        for picture in pictures:
            self._take_part(job, picture)

    def _take_part(self, job: _Job, picture: _Picture) -> None:
        """Lets a picture that has just begun share passes from the next one on."""
        if job.id not in self._jobs:
            return  # another of its pictures just failed
        size, key, rows = size_of(job.request), _key(picture), picture.drawing.rows
        self._batcher.join((job, picture), key, job.id, rows, size)
        self._hand_over(job, picture)

    def _lease(self, model: ModelSpec, run: Run, lease: ExitStack) -> Worker:
        """Returns the worker of a run's model or refiner, which stays in memory until it ends."""
        try:
            self._load(model, run)
        except NotEnoughMemoryError as error:
            if model is not run.request.refiner:
                raise
            raise error.beside(run.request.model.path) from error
        lease.enter_context(self._shelf.lease(model))
        return self._shelf[model.key]

    def _drawn(self) -> Iterator[ModelSpec]:
        for job in self._jobs.values():
            yield from _drawn_with(job.request)

    def _check_refiner(self, request: GenerationRequest) -> None:
        """Refuses a refiner that doesn't go on where the model leaves off.

        Raises:
            ModelError: one of the two is of another family, or can't be loaded.
        """
        if request.refiner is None:
            return
        base, refiner = Family.SDXL, Family.SDXL_REFINER
        pair = ((request.model, base), (request.refiner, refiner))
        for model, expected in pair:
            family = self._shelf.family(model)
            if family is not expected:
                raise UnsupportedModelError(
                    model.path,
                    f"is {FAMILY_NAMES[family]}; where a refiner is named, the model is "
                    f"{FAMILY_NAMES[base]} and the refiner {FAMILY_NAMES[refiner]}",
                )

    def _load(self, model: ModelSpec, run: Run | None = None) -> LoadReport:
        """Makes sure that a model and its LoRAs are in memory.

        Args:
            model: what is wanted.
            run: who waits for it, and is told where it takes time.
        """

        def on_load() -> None:
            if run is not None:
                self._emit(JobEvent(run.run_id, Progress(run.job_id, Stage.LOADING)))
            self._emit(Loading())

        return self._shelf.load(model, on_load, others_draw=bool(self._jobs))

    def _warm(self, request: GenerationRequest) -> None:
        """Prepares a model that has just been loaded for what it will be asked.

        Nothing has to leave the device for it.
        """
        worker = self._shelf[request.model.key]
        try:
            [drawing] = worker.begin(replace(request, count=1))
            self._times.warm(worker, drawing)
        except Exception as error:
            if is_out_of_memory(error):
                let_go(error)
            self._told(error)  # it is loaded all the same; whoever draws with it meets it again

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
        batch = self._batcher.next_batch(self._times.cap)
        if not batch:
            return
        self._forward(batch)
        job, picture = batch[0]
        if job.id in self._jobs:
            passed = sum(each.drawing.rows for _, each in batch)
            self._times.rehearse(picture.worker, picture.drawing, _key(picture), passed)
        for job, picture in batch:
            if picture.drawing.done:
                self._batcher.leave((job, picture))
            self._hand_over(job, picture)

    def _hand_over(self, job: _Job, picture: _Picture) -> None:
        """Lets the refiner go on with a picture that is far enough."""
        refiner = job.refiner
        if refiner is None or not picture.drawing.leaves or job.id not in self._jobs:
            return
        try:
            self._shelf.relieved(lambda: refiner.take_over(picture.drawing))
        except Exception as error:
            self._fail(job, self._told(error))
            return
        picture.worker = refiner
        if picture.drawing.done:  # its steps lie elsewhere than the model's, all of them before
            self._batcher.leave((job, picture))
        else:
            self._batcher.move((job, picture), _key(picture), size_of(job.request))

    def _forward(self, batch: Sequence[tuple[_Job, _Picture]]) -> None:
        """Steps a batch; where it fails as a whole, finds out whose fault it is."""
        drawings = [picture.drawing for _, picture in batch]
        job, first = batch[0]
        try:
            self._times.step(first.worker, drawings)
        except Exception as error:
            if is_out_of_memory(error):
                let_go(error)
            if is_out_of_memory(error) and self._shelf.relieve():
                return  # what has gone may be enough; nobody has changed, the next round will show
            if is_out_of_memory(error):
                self._times.lower_ceiling(_key(first), sum(each.rows for each in drawings))
            # An exact pass is never made smaller.
            if len(batch) == 1 or (is_out_of_memory(error) and job.request.exact):
                self._fail(job, self._told(error))
            elif is_out_of_memory(error) and sum(d.rows for d in drawings) <= LEAST_CAP:
                self._forward_one_by_one(batch)  # no smaller batch is to come
            elif not is_out_of_memory(error):
                self._told(error)  # in the log; the next line finds whom to tell
                self._forward_one_by_one(batch)
            return
        for owner, picture in batch:
            picture.shared = picture.shared or len(batch) > 1
            if picture.drawing.error is not None and owner.id in self._jobs:
                self._fail(owner, self._told(picture.drawing.error))

    def _forward_one_by_one(self, batch: Sequence[tuple[_Job, _Picture]]) -> None:
        for job, picture in batch:
            if job.id in self._jobs:
                self._forward([(job, picture)])

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
            seed, began = picture.drawing.seed, self._clock()
            try:
                pixels = picture.worker.decode(picture.drawing)
            except DrawingError as error:
                if picture.shared:
                    self._draw_alone(job, picture)
                else:
                    self._fail(job, error)
            except Exception as error:
                if is_out_of_memory(error):
                    let_go(error)
                    if self._shelf.relieve():
                        continue  # the next round tries again, with what has gone meanwhile
                self._fail(job, self._told(error))
            else:
                self._times.note(Act.DECODE, picture.worker, began, size_of(job.request))
                picture.image = self._encoder.submit(to_image, pixels, job.request, seed)

    def _draw_alone(self, job: _Job, picture: _Picture) -> None:
        """Begins a picture anew by itself: half precision rounds otherwise in company."""
        request, seed = job.request, picture.drawing.seed
        log.warning("A picture of %s is no picture; drawing it alone", picture.worker.model.path)
        variation_seed = request.variation_seed_of(seed)
        single = replace(request, seed=seed, count=1, variation_seed=variation_seed)
        picture.worker = self._shelf[request.model.key]
        try:
            [picture.drawing] = picture.worker.begin(single)
        except Exception as error:
            self._fail(job, self._told(error))
            return
        picture.shared, picture.alone = False, True
        self._take_part(job, picture)

    def _report(self) -> None:
        """Says how far the jobs are, each at most every `REPORT_SECONDS` within a stage."""
        now = self._clock()
        for job in self._jobs.values():
            step = sum(picture.drawing.step for picture in job.pictures)
            moving = [picture for picture in job.pictures if not picture.drawing.done]
            stage = Stage.DENOISING if moving else Stage.DECODING
            if step == 0 or (stage is job.reported and now - job.reported_at < REPORT_SECONDS):
                continue
            if not moving and job.reported is Stage.DECODING:
                continue  # nothing new to say
            job.reported, job.reported_at = stage, now
            steps = sum(picture.drawing.steps for picture in job.pictures)
            preview = _preview(moving) if moving else None
            progress = Progress(job.run.job_id, stage, step, steps, preview)
            self._emit(JobEvent(job.id, progress))

    def _deliver(self) -> None:
        """Sends the results of the jobs whose files are all made."""
        pictures = [picture for job in self._jobs.values() for picture in job.pictures]
        pending = [one.image for one in pictures if one.image and not one.image.done()]
        if pending and all(one.drawing.done for one in pictures):
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
        if is_out_of_memory(error):
            return OutOfMemoryError(self.device)
        log.error("Drawing failed on %s", self.device, exc_info=error)
        if is_device_failure(error):
            raise DeviceUnusableError(f"failed: {first_line(error)}") from error
        return DrawingError(f"Drawing failed: {type(error).__name__}: {first_line(error)}")


def _key(picture: _Picture) -> PassKey:
    return PassKey.of(picture.worker, picture.drawing, id(picture) if picture.alone else None)


def _models(command: Run | Load) -> tuple[ModelSpec, ...]:
    return _drawn_with(command.request) if isinstance(command, Run) else (command.model,)


def _drawn_with(request: GenerationRequest) -> tuple[ModelSpec, ...]:
    return (request.model,) if request.refiner is None else (request.model, request.refiner)


def _preview(pictures: Sequence[_Picture]) -> bytes | None:
    """Returns the preview of the one that is farthest; a failing preview is no failing picture."""
    farthest = max(pictures, key=lambda picture: picture.drawing.step)
    try:
        return farthest.worker.preview(farthest.drawing)
    except Exception:
        log.exception("A preview failed")
        return None
