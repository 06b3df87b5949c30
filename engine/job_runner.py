"""How a job of each kind is done once it has a lane."""

import asyncio
import inspect
import logging
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import aclosing
from typing import Any, Protocol, cast, runtime_checkable

from engine.errors import DrawingError, JobCancelledError
from engine.executor import Executor, LoadReport
from engine.jobs import (
    CustomJob,
    Event,
    GenerationJob,
    GenerationRequest,
    GenerationResult,
    Job,
    ModelLoadJob,
    ModelSpec,
    ModelUnloadJob,
    ModeSwitchJob,
    Progress,
    Stage,
)
from engine.lane import Lane
from engine.mode_source import CurrentMode, loading_of
from engine.need import Need
from engine.submission import Submission

logger = logging.getLogger(__name__)


@runtime_checkable
class RunnableJob(Protocol):
    """A kind of job that says itself how it runs."""

    async def run(self, executor: Executor) -> Any:
        """Does the work beside the given executor and returns the job's result."""


class HelperStarter(Protocol):
    """Runs something beside the jobs and owns its task."""

    def __call__(self, work: Coroutine[Any, Any, None], *, name: str) -> None:
        """Starts it and returns."""


class JobRunner:
    """Does jobs; who is next and what becomes of errors is the pool's business.

    Args:
        lanes: all there are, for what concerns every device.
        mode: changed by mode switches.
        start_helper: runs what a job leaves behind.
    """

    def __init__(
        self, lanes: Sequence[Lane], mode: CurrentMode, start_helper: HelperStarter
    ) -> None:
        self._lanes = lanes
        self._mode = mode
        self._start_helper = start_helper
        self._switching = asyncio.Lock()

    async def run(self, submission: Submission, lane: Lane) -> Any:
        """Does a job on a lane and returns its result.

        Raises:
            WorkerDiedError: the lane's worker died meanwhile; it may be tried again.
            Exception: whatever else the job fails with.
        """
        job = submission.job
        model = submission.need.model
        loaded = model is None or lane.used_last == model.key
        submission.tell(Progress(job.id, Stage.ENCODING if loaded else Stage.LOADING))
        match job:
            case RunnableJob():
                with lane.calling() as executor:
                    return await job.run(executor)
            case GenerationJob(request=GenerationRequest() as request):
                return await self._draw(submission, lane, request)
            case ModeSwitchJob():
                return await self._switch(job, lane)
            case ModelLoadJob():
                return await _load(lane, job.model, job.warm)
            case ModelUnloadJob():
                ready = [other for other in self._lanes if other.is_ready]
                await asyncio.gather(*(other.unload(job.model) for other in ready))
                return None
            case CustomJob():
                return await _call(job)
        raise TypeError(f"{type(job).__name__} doesn't say how it runs")

    async def _draw(
        self, submission: Submission, lane: Lane, request: GenerationRequest
    ) -> GenerationResult:
        job_id = submission.job.id
        result: GenerationResult | None = None
        with lane.calling(request.model) as executor:
            # The protocol promises an iterator that can be closed, as every generator can.
            run = cast("AsyncGenerator[Event, None]", executor.run(job_id, request))
            async with aclosing(run) as events:
                while not submission.has_ended and (event := await anext(events, None)):
                    if isinstance(event, GenerationResult):
                        result = event
                    else:
                        submission.tell(event)
        if submission.has_ended:
            raise JobCancelledError(job_id)
        if result is None:
            raise DrawingError(f"The worker on {lane.device} ended without a picture.")
        return result

    async def _switch(self, job: ModeSwitchJob, lane: Lane) -> str:
        name = job.target_mode
        async with self._switching:
            if name == self._mode.name:
                return name
            load = loading_of(self._mode.get(name))
            # On one device first: a model that kills its worker must not take all of them.
            await _load(lane, load.model, load.warm)
            self._mode.choose(name)
        for other in self._lanes:
            if other is not lane and other.is_ready:
                self._start_helper(_load_as_well(other, load), name=f"load on {other.device}")
        return name


def model_of(job: Job) -> ModelSpec | None:
    """Returns what a job needs loaded; None where that is nothing, or not known yet."""
    if _runs_itself(job):
        return None
    if isinstance(job, GenerationJob) and isinstance(job.request, GenerationRequest):
        return job.request.model
    return job.model if isinstance(job, ModelLoadJob | ModelUnloadJob) else None


def need_of(job: Job, modes: CurrentMode) -> Need:
    """Returns what a job needs of a device.

    Raises:
        UnknownModeError: it switches to a mode that there is not.
    """
    if isinstance(job, GenerationJob) and isinstance(job.request, GenerationRequest):
        return Need() if _runs_itself(job) else Need.of(job.request)
    if isinstance(job, ModeSwitchJob) and not _runs_itself(job):
        return Need((modes.get(job.target_mode).model,))
    model = model_of(job)
    return Need() if model is None else Need((model,))


def is_drawing(job: Job) -> bool:
    """Whether a job is a drawing of the executor's, and not one that runs itself."""
    return isinstance(job, GenerationJob) and not _runs_itself(job)


def can_run(job: Job) -> bool:
    """Whether a job's kind is known here or says itself how it runs."""
    known = GenerationJob | ModeSwitchJob | ModelLoadJob | ModelUnloadJob | CustomJob
    return isinstance(job, known | RunnableJob)


def _runs_itself(job: Job) -> bool:
    """Says what ``isinstance(job, RunnableJob)`` does, in a fortieth of the time."""
    return getattr(job, "run", None) is not None


async def _load(lane: Lane, model: ModelSpec, warm: GenerationRequest | None) -> LoadReport:
    with lane.calling(model) as executor:
        return await executor.load(model, warm)


async def _load_as_well(lane: Lane, job: ModelLoadJob) -> None:
    try:
        await _load(lane, job.model, job.warm)
    except Exception as error:  # nobody waits for it: the first drawing there tries again
        logger.warning("%s has not loaded %s: %s", lane.device, job.model.path.name, error)


async def _call(job: CustomJob) -> Any:
    if inspect.iscoroutinefunction(job.handler):
        return await job.handler(*job.args, **job.kwargs)
    value = await asyncio.to_thread(_call_plainly, job)
    return await value if inspect.isawaitable(value) else value


def _call_plainly(job: CustomJob) -> Any:
    try:
        return job.handler(*job.args, **job.kwargs)
    except (StopIteration, SystemExit) as error:
        # The first can't travel through a future, the second would end the event loop.
        raise RuntimeError(f"the handler raised {error!r}") from error
