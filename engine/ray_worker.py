"""A worker on a machine of the cluster: the very `WorkerHost` that a local process has.

Ray makes an actor of it; this file knows nothing of Ray. Its step loop has a thread of its own, so
that neither it nor Ray's calls wait for the other. Files are named as the asking machine
names them, and found here by what they hold.
"""

import asyncio
import logging
import os
import queue
import shutil
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from engine import messages
from engine.child_process import ENVIRONMENT
from engine.errors import DrawingError, DreamLabError, ModelError
from engine.jobs import GenerationRequest, GenerationResult, ModelSpec, Progress
from engine.messages import Answer, Command, JobFailed, Load, Ready, Reply, Run, Unload, Unusable
from engine.model_contents import Contents
from engine.ray_messages import Aside, Keep, Locate, SourcedRun
from engine.ray_scratch import Scratch

MODELS = "DREAMLAB_MODELS"
"""Environment variable of a machine: the folders that models lie in, as PATH has them."""

FOLDER = "DREAMLAB_WORKER_FOLDER"
"""Likewise the folder for what a worker keeps: measurements, digests, models that were sent."""

THREADS = "OMP_NUM_THREADS"
"""Likewise how many threads a worker draws with; its share of the cores unless it is set."""

LISTENING = 5.0
"""Longest that `RayWorker.listen` waits for something to say, in seconds."""

GATHERED = 0.1
"""Seconds that progress waits for what comes next, so that they travel together: each call between
machines takes processor time of both, which is the step loop's while a picture is drawn."""

UNHEARD = 90.0
"""Seconds after which a worker that nobody listens to ends itself: its driver is gone, or the
network between them, and what it drew nobody would hear of."""

log = logging.getLogger(__name__)


def version() -> str:
    """Returns the version that both ends must have."""
    try:
        return metadata.version("dream-lab")
    except metadata.PackageNotFoundError:
        return "unknown"


def threads_of(workers: int, cores: int | None = None) -> int:
    """Returns how many threads one of so many workers on a machine draws with.

    Args:
        workers: that share its cores, at least 1.
        cores: of the machine; None asks it, and counts a core with two threads once.
    """
    found = cores or psutil.cpu_count(logical=False) or os.cpu_count() or 1
    return max(1, found // workers)


class RayWorker:
    """One device's worker: `open` once, then `tell` and `listen`."""

    def __init__(self) -> None:
        self._commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._said: list[Reply | Ready | Unusable | Aside] = []
        self._lock = threading.Lock()
        self._news = asyncio.Event()
        self._urgent = asyncio.Event()  # something that somebody waits for
        self._loop: asyncio.AbstractEventLoop | None = None
        self._has_ended = False
        self._heard_at = time.monotonic()
        self._local: dict[Path, Path] = {}
        self._sources: dict[int, Path] = {}
        self._folder = Path(os.environ.get(FOLDER) or Path.home() / ".cache" / "dream-lab")
        self._scratch = Scratch(self._folder / ".scratch")
        self._roots = [Path(p) for p in os.environ.get(MODELS, "").split(os.pathsep) if p]
        self._contents: Contents | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, start: bytes, wanted: str) -> None:
        """Begins to serve; the first word says whether it can.

        Args:
            start: the frame of `engine.messages.Start`.
            wanted: `version` of whoever asks.
        """
        self._loop = asyncio.get_running_loop()
        if wanted != version():
            self._say(
                Unusable(
                    f"can't start: its machine has version {version()} of Dream Lab, the bot has "
                    f"{wanted}; install the same on both"
                )
            )
            self._end()
            return
        # Ray's own thread waits for the step loop's no longer than this, rather than five times as
        # long: what travels needs the interpreter for some microseconds at a time.
        sys.setswitchinterval(0.001)
        for name, value in (ENVIRONMENT | {"HF_HUB_OFFLINE": "1"}).items():
            os.environ.setdefault(name, value)
        said: messages.Start = messages.unframe(start[messages.HEADER.size :])
        # Where nobody said it when the process began, Ray has said one: it gives actors no cores.
        if THREADS not in psutil.Process().environ():
            os.environ[THREADS] = str(threads_of(said.workers or 1))
        logging.getLogger().setLevel(said.log_level)
        await asyncio.to_thread(self._scratch.sweep)
        self._contents = await asyncio.to_thread(Contents, self._folder / "contents.json")
        start_here = replace(said, ledger=self._folder / "measured.json")
        threading.Thread(target=self._serve, args=(start_here,), name="steps", daemon=True).start()
        self._begin(self._leave_when_unheard())

    async def tell(self, frames: tuple[bytes, ...]) -> None:
        """Takes commands, in order."""
        for frame in frames:
            message = messages.unframe(frame[messages.HEADER.size :])
            match message:
                case Locate() | Keep():
                    self._begin(self._answer(message))
                case SourcedRun(run, source):
                    self._begin_sourced(run, source)
                case Run() | Load() | Unload():
                    self._commands.put(self._translated(message))
                case _:
                    self._commands.put(message)

    async def listen(self) -> tuple[tuple[bytes, ...], bool]:
        """Returns what has been said since the last call, as frames, and whether that was the last.

        Waits for something at most `LISTENING` seconds, so that silence shows that the way is cut.
        What is only progress is gathered for `GATHERED` seconds.
        """
        self._heard_at = time.monotonic()
        if not self._has_ended:
            try:
                async with asyncio.timeout(LISTENING):
                    await self._news.wait()
            except TimeoutError:
                return (), False
            with suppress(TimeoutError):
                async with asyncio.timeout(GATHERED):
                    await self._urgent.wait()
        self._news.clear()
        self._urgent.clear()
        self._heard_at = time.monotonic()
        has_ended = self._has_ended  # before what was said is taken: its last words come first
        with self._lock:
            said, self._said = self._said, []
        return tuple(map(messages.frame, said)), has_ended

    def process_id(self) -> int:
        """Returns the number of its process."""
        return os.getpid()

    # The step loop ------------------------------------------------------------------------------

    def _serve(self, start: messages.Start) -> None:
        try:
            from engine.worker_process import work  # here, since it imports what takes seconds
            from engine.workers.light_imports import import_lightly

            import_lightly()
            work(start, self._commands, self._say)
        except Exception as error:
            log.exception("The step loop failed")
            self._say(Unusable(f"failed: {type(error).__name__}: {error}"))
        finally:
            self._end()

    def _say(self, message: Reply | Ready | Unusable | Aside) -> None:
        with self._lock:
            self._said.append(message)
        match message:
            case messages.JobEvent(run_id, GenerationResult()) | JobFailed(run_id):
                self._drop_source(run_id)
        is_progress = isinstance(message, messages.JobEvent) and isinstance(message.event, Progress)
        self._wake(is_urgent=not (is_progress or isinstance(message, messages.Measured)))

    def _end(self) -> None:
        self._has_ended = True
        self._wake(is_urgent=True)

    def _wake(self, *, is_urgent: bool) -> None:
        assert self._loop is not None  # noqa: S101 - it is open
        self._loop.call_soon_threadsafe(self._news.set)
        if is_urgent:
            self._loop.call_soon_threadsafe(self._urgent.set)

    async def _leave_when_unheard(self) -> None:
        while time.monotonic() - self._heard_at < UNHEARD:  # noqa: ASYNC110 - a silence has no event
            await asyncio.sleep(UNHEARD / 10)
        log.error("Nobody has listened for %g seconds; this worker ends", UNHEARD)
        os._exit(1)

    def _begin(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # Files --------------------------------------------------------------------------------------

    async def _answer(self, message: Locate | Keep) -> None:
        """Answers beside the step loop: to read a large file takes a while."""
        if isinstance(message, Locate):
            work: Callable[[], Any] = partial(self._locate, message)
        else:
            work = partial(self._keep, message)
        try:
            answer = Answer(message.call_id, await asyncio.to_thread(work))
        except OSError as error:
            path = message.named if isinstance(message, Keep) else Path()
            problem = ModelError(path, f"can't be kept: {error.strerror or error}")
            answer = Answer(message.call_id, error=problem)
        except DreamLabError as error:
            answer = Answer(message.call_id, error=error)
        self._say(Aside(answer))

    def _locate(self, message: Locate) -> tuple[Path, ...]:
        assert self._contents is not None  # noqa: S101 - it is open
        lacking = []
        for named, content in message.files:
            if content is None:
                found = named if named.exists() else None
            else:
                roots = [*self._roots, self._folder / "models"]
                found = self._contents.find(content, named, roots)
            if found is None:
                lacking.append(named)
            else:
                self._local[named] = found
        return tuple(lacking)

    def _keep(self, message: Keep) -> None:
        """Writes a part of a file; the last one puts it into its place, if it is what it should."""
        part = self._scratch.folder() / message.content.digest
        try:
            whole = self._write(message, part)
            if message.is_last:
                self._put_into_place(message, part, whole.name)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)  # a full disk needs the room
            raise

    def _put_into_place(self, message: Keep, part: Path, name: str) -> None:
        wanted = message.content.digest
        if Contents(None).of(part / name).digest != wanted:
            raise ModelError(message.named, "came changed; it is sent anew when asked for")
        folder = self._folder / "models" / wanted
        if folder.exists():  # another worker of this machine got it meanwhile
            shutil.rmtree(part)
        else:
            folder.parent.mkdir(parents=True, exist_ok=True)
            part.rename(folder)
        self._local[message.named] = folder / name

    def _write(self, message: Keep, folder: Path) -> Path:
        """Writes a part of a file below a folder; returns the path of the whole."""
        whole = folder / Path(message.content.name).name
        path = whole / message.part if message.part else whole
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ModelError(message.named, "it would be written elsewhere")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("r+b" if path.exists() else "wb") as file:
            file.seek(message.offset)
            file.write(message.data)
        return whole

    def _begin_sourced(self, run: Run, source: bytes) -> None:
        """Has the step loop draw from a picture that came along; who can't keep it says so."""
        try:
            path = self._scratch.folder() / f"{run.run_id}.png"
            self._sources[run.run_id] = path
            path.write_bytes(source)
        except OSError as error:
            self._drop_source(run.run_id)
            problem = DrawingError(
                "The picture to draw from can't be read: its machine can't keep it "
                f"({error.strerror or error})."
            )
            self._say(Aside(JobFailed(run.run_id, run.job_id, problem)))
        else:
            request = replace(run.request, source=path)
            self._commands.put(self._translated(replace(run, request=request)))

    def _drop_source(self, run_id: int) -> None:
        if source := self._sources.pop(run_id, None):
            with suppress(OSError):
                source.unlink()

    def _translated(self, command: Run | Load | Unload) -> Run | Load | Unload:
        if not isinstance(command, Run):
            return replace(command, model=self._here(command.model))
        request: GenerationRequest = command.request
        refiner = self._here(request.refiner) if request.refiner else None
        return replace(
            command, request=replace(request, model=self._here(request.model), refiner=refiner)
        )

    def _here(self, model: ModelSpec) -> ModelSpec:
        """Returns a model with this machine's paths, known by the name that it has elsewhere."""
        local = self._local
        return replace(
            model,
            path=local.get(model.path, model.path),
            loras=tuple(
                replace(lora, path=local.get(lora.path, lora.path)) for lora in model.loras
            ),
            vae=local.get(model.vae, model.vae) if model.vae else None,
            known_as=model.key,
        )
