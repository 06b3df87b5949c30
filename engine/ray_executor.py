"""Workers on other machines, reached through a Ray cluster: an executor for each, and the fleet.

The bot speaks with `engine.ray_driver`, a process beside it, and that one with Ray. Whatever
happens to the cluster, the bot lives on: workers die, as those on this machine do, the pool lets
their jobs wait again, and the fleet goes on looking for the cluster.
"""

import asyncio
import itertools
import logging
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from engine import messages
from engine.child_process import ChildProcess, ended
from engine.content_reader import ContentReader
from engine.dialogue import Dialogue
from engine.errors import (
    DrawingError,
    JobCancelledError,
    ModelElsewhereError,
    ModelError,
    WorkerDiedError,
    WorkerLostError,
)
from engine.executor import Executor
from engine.fleet_size import FleetSize
from engine.jobs import GenerationRequest, GenerationResult, ModelSpec
from engine.model_contents import Content, visible_files
from engine.pace import Pace
from engine.patience import Patience
from engine.process_executor import LivingWorker, ProcessExecutor, models_of
from engine.ray_messages import (
    Aside,
    Connect,
    Connected,
    Disconnected,
    End,
    Heard,
    Keep,
    Locate,
    Lost,
    Open,
    Place,
    Places,
    SourcedRun,
    Tell,
    Want,
)

RECONNECT_SECONDS = 10.0
"""Pause before the cluster is looked for again."""

SIZE_SECONDS = 2.0
"""Seconds between two looks at how many workers are wanted, where machines come and go by it."""

LOCATED_SECONDS = 5.0
"""How long it is not looked again whether a model's files are still what they were."""

REFUSED_SECONDS = 600.0
"""How long a place where no worker could start comes after all others, where machines come and go:
its GPU may be somebody else's."""

PART_BYTES = 16 * 2**20
"""Bytes of a model that travel at a time, where files are sent."""

_AUTH = ("RAY_AUTH_TOKEN",)  # the one secret that the driver needs
_END_SECONDS = 5.0

log = logging.getLogger(__name__)


class RayFleet:
    """All devices of a cluster that have the labels. One event loop uses it.

    Args:
        address: of the head, such as ``10.0.0.2:6379``; ``auto`` finds one on this machine.
        gpus_per_worker: share of a GPU, or GPUs, of each worker; 0 draws on CPUs.
        labels: those that a machine must have.
        size: how many workers there should be.
        memory: the file that remembers what model files hold.
        sends_models: whether machines are sent the files that they lack.
        reconnect_seconds: pause before the cluster is looked for again.
        worker: see `engine.ray_messages.Connect`.
        options: of each executor; see `ProcessExecutor`.
    """

    def __init__(
        self,
        address: str,
        *,
        gpus_per_worker: float = 1.0,
        labels: Sequence[tuple[str, str]] = (),
        size: FleetSize | None = None,
        memory: Path | None = None,
        sends_models: bool = False,
        reconnect_seconds: float = RECONNECT_SECONDS,
        worker: str = "engine.ray_worker:RayWorker",
        **options: Any,
    ) -> None:
        self._connect = Connect(
            address,
            gpus_per_worker,
            tuple(labels),
            logging.getLogger().getEffectiveLevel(),
            worker,
        )
        self._size = size or FleetSize()
        self.sends_models = sends_models
        self._sending: dict[tuple[str, str], asyncio.Lock] = {}
        self._reconnect_seconds = reconnect_seconds
        self._options = options
        self._contents = ContentReader(memory)
        self._driver: ChildProcess | None = None
        self._places: dict[str, Place] = {}
        self._executors: dict[str, RayExecutor] = {}  # by the key of their place
        self._lives: dict[int, _RayWorker] = {}
        self._numbers = itertools.count(1)
        self._trouble: str | None = None
        self._asked: int | None = None  # machines that Ray was asked for through this driver
        self._refused: dict[str, float] = {}  # places where no worker could start, and since when
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def trouble(self) -> str | None:
        """See `Fleet.trouble`."""
        return self._trouble

    @property
    def driver_pid(self) -> int | None:
        """The number of the process that speaks with Ray; None where none runs."""
        return self._driver.pid if self._driver is not None else None

    async def run(
        self,
        join: Callable[[Executor], None],
        leave: Callable[[Executor], Awaitable[None]],
        demand: Callable[[], int],
    ) -> None:
        """See `Fleet.run`."""
        parts = [
            asyncio.create_task(self._keep_connected(), name="fleet's cluster"),
            asyncio.create_task(self._keep_size(join, leave, demand), name="fleet's size"),
        ]
        try:
            done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            for part in done:
                part.result()  # by an error, which is a bug
        finally:
            for part in parts:
                part.cancel()
            self._contents.close()
            await asyncio.wait(parts)

    # Speaking with the driver -------------------------------------------------------------------

    async def _keep_connected(self) -> None:
        """Has one driver after the other serve."""
        while True:
            self._trouble = await self._serve()
            log.error("%s. It is looked for again.", self._trouble)
            self._lose_all(self._trouble)
            await asyncio.sleep(self._reconnect_seconds)

    async def _serve(self) -> str:
        """Has a driver serve until it ends, and returns why it did."""
        try:
            driver = await ChildProcess.spawn("engine.ray_driver", keep=_AUTH)
        except OSError as error:
            return f"The process that speaks with Ray can't be started ({error.strerror or error})"
        self._driver, self._asked = driver, None
        driver.send(self._connect)
        reason = None
        try:
            while True:
                message = await driver.read()
                if isinstance(message, Disconnected):
                    reason = message.reason
                else:
                    self._take(message)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # it has ended
        finally:
            self._driver = None
            # It ends by that, once it has asked for no machine any more; Ray ends its actors.
            driver.stdin.close()
            code = await driver.reap(_END_SECONDS)
        log.info("The process that speaks with Ray %s", ended(code))
        # Ray itself ends it where the head stays away.
        return reason or f"The Ray cluster at {self._connect.address} does not answer any more"

    def _take(self, message: object) -> None:
        match message:
            case Connected():
                log.info("The Ray cluster at %s answers", self._connect.address)
            case Places(places):
                self._places = {place.key: place for place in places}
                nodes = {place.node for place in places}
                for node, digest in [each for each in self._sending if each[0] not in nodes]:
                    if not self._sending[node, digest].locked():
                        del self._sending[node, digest]
                is_empty = not places and not self._size.is_elastic
                self._trouble = _nothing_there(self._connect) if is_empty else None
                self._lose_those_without_a_place()
                self._changed.set()
            case Heard(number, frames):
                if worker := self._lives.get(number):
                    worker.hear(frames)
            case Lost(number, reason, is_machine):
                if worker := self._lives.pop(number, None):
                    worker.lose(reason, is_machine=is_machine)

    def send(self, message: object) -> None:
        """Has a message travel to the driver, if there is one."""
        if self._driver is not None:
            self._driver.send(message)

    def _lose_those_without_a_place(self) -> None:
        for number, worker in list(self._lives.items()):
            if worker.place.key not in self._places:
                del self._lives[number]
                worker.lose("is gone: its machine has left the cluster", is_machine=True)
                self.send(End(number))

    def _lose_all(self, reason: str) -> None:
        """Notes that no worker can be reached any more."""
        lives, self._lives = self._lives, {}
        for worker in lives.values():
            worker.lose(f"is out of reach: {_begun_small(reason)}", is_machine=True)
        self._places = {}
        self._changed.set()

    # Coming and going ---------------------------------------------------------------------------

    async def _keep_size(
        self,
        join: Callable[[Executor], None],
        leave: Callable[[Executor], Awaitable[None]],
        demand: Callable[[], int],
    ) -> None:
        """Has as many executors as there are places, or as many as are wanted."""
        clock = asyncio.get_running_loop().time
        while True:
            self._changed.clear()
            wanted = self._size.wanted(demand(), len(self._executors), clock())
            for key in [key for key in self._executors if key not in self._places]:
                self._leave(key, leave)
            self._forget_refusals(clock() - REFUSED_SECONDS)
            self._ask_for(wanted)
            for key in self._superfluous(wanted):
                self._leave(key, leave)
            for place in self._to_join(wanted):
                executor = RayExecutor(self, place, **self._options)
                self._executors[place.key] = executor
                log.info("%s joins", place.device)
                join(executor)
            with suppress(TimeoutError):
                async with asyncio.timeout(SIZE_SECONDS if self._size.is_elastic else None):
                    await self._changed.wait()

    def _ask_for(self, wanted: int) -> None:
        """Has Ray see to it that there is room for so many workers, where machines come and go."""
        most = self._size.most
        if most is None or self._driver is None:
            return
        # Ray counts a place that refuses as room.
        asked = min(most, wanted + len(self._refused)) if wanted else 0
        if asked != self._asked:
            self._asked = asked
            self.send(Want(asked))

    def _superfluous(self, wanted: int) -> list[str]:
        """Returns the places to give back: of idle workers alone, those that refuse first."""
        if not self._size.is_elastic:
            return []
        idle = [key for key, executor in self._executors.items() if executor.is_idle]
        idle.sort(key=lambda key: key not in self._refused)
        better = sum(place.key not in self._refused for place in self._free())
        useless = min(better, sum(key in self._refused for key in idle))
        return idle[: max(useless, len(self._executors) - wanted)]

    def _to_join(self, wanted: int) -> list[Place]:
        """Returns the places to take: those that refused come last, the latest at the end."""
        free = sorted(self._free(), key=lambda place: self._refused.get(place.key, -math.inf))
        return free[: max(0, wanted - len(self._executors))] if self._size.is_elastic else free

    def _free(self) -> list[Place]:
        return [place for key, place in self._places.items() if key not in self._executors]

    def _forget_refusals(self, before: float) -> None:
        """Forgets them where no worker is tried, and where there is no such place any more."""
        for key, since in list(self._refused.items()):
            if key not in self._places or (key not in self._executors and since < before):
                del self._refused[key]

    def _leave(self, key: str, leave: Callable[[Executor], Awaitable[None]]) -> None:
        executor = self._executors.pop(key)
        log.info("%s leaves", executor.device)
        task = asyncio.create_task(_left(executor, leave), name=f"leave {executor.device}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # For the executors --------------------------------------------------------------------------

    def open(self, worker: "_RayWorker", start: messages.Start, seconds: float) -> int:
        """Has a worker started, and hands it what it says; returns its number.

        Raises:
            WorkerLostError: there is no such place at the moment.
        """
        if self._driver is None or worker.place.key not in self._places:
            reason = self._trouble or "Its machine has left the cluster"
            raise WorkerLostError(worker.place.device, "can't start: " + _begun_small(reason))
        number = next(self._numbers)
        self._lives[number] = worker
        self.send(Open(number, worker.place, messages.frame(start), seconds))
        return number

    def note_start(self, place: Place, *, is_well: bool) -> None:
        """Remembers whether a worker could start at a place."""
        if is_well:
            self._refused.pop(place.key, None)
        else:
            self._refused[place.key] = asyncio.get_running_loop().time()
            self._changed.set()

    async def content_of(self, path: Path) -> Content | None:
        """Returns what a file holds; None where this machine doesn't have it."""
        return await self._contents.of(path)

    def sending(self, place: Place, content: Content) -> asyncio.Lock | None:
        """Returns what lets one at a time send a file to a machine; None where nobody may."""
        if not self.sends_models:
            return None
        return self._sending.setdefault((place.node, content.digest), asyncio.Lock())


class RayExecutor(ProcessExecutor):
    """See `Executor`: one device of a cluster.

    Args:
        fleet: whose.
        place: the device.
        options: see `ProcessExecutor`.
    """

    def __init__(self, fleet: RayFleet, place: Place, **options: Any) -> None:
        super().__init__(place.device, kind=place.kind, **options)
        self.place = place
        self._fleet = fleet
        self._preparing: dict[str, asyncio.Task[None]] = {}  # by job id

    @property
    def is_idle(self) -> bool:
        """Whether nobody draws with it."""
        if self._preparing:
            return False
        return self._worker is None or self._worker.dialogue.is_idle

    async def _spawn(self) -> "_RayWorker":
        start = messages.Start(
            device=self.place.kind,
            may_fall_back=False,
            log_level=logging.getLogger().getEffectiveLevel(),
            max_rows=self._max_rows,
            workers=self.place.workers,
        )
        worker = _RayWorker(self._fleet, self.place, self._patience, self._pace, self._max_rows)
        try:
            await worker.begin(start, self._start_seconds)
        except WorkerDiedError:
            self._fleet.note_start(self.place, is_well=False)
            raise
        self._fleet.note_start(self.place, is_well=True)
        return worker

    async def cancel(self, job_id: str) -> None:
        """See `Executor.cancel`. It ends what is sent for a job as well."""
        if preparing := self._preparing.get(job_id):
            preparing.cancel()
        await super().cancel(job_id)

    async def _prepare(self, worker: LivingWorker, job_id: str, request: GenerationRequest) -> None:
        preparing = asyncio.create_task(self._bring(worker, job_id, request))
        self._preparing[job_id] = preparing
        try:
            await asyncio.wait([preparing])
            if preparing.cancelled():
                raise JobCancelledError(job_id)
            preparing.result()
        finally:
            preparing.cancel()
            del self._preparing[job_id]

    async def _bring(self, worker: LivingWorker, job_id: str, request: GenerationRequest) -> None:
        assert isinstance(worker, _RayWorker)  # noqa: S101 - made above
        await self._make_known(worker, models_of(request))
        if request.source is not None:
            await worker.bring_source(job_id, request.source)

    async def _make_known(self, worker: LivingWorker, models: Sequence[ModelSpec]) -> None:
        assert isinstance(worker, _RayWorker)  # noqa: S101 - made above
        paths = [path for model in models for path in model.files]
        await worker.locate(list(dict.fromkeys(paths)))


class _RayWorker:
    """A living worker: from its start to its end. It is never started again.

    Attributes:
        dialogue: what is said with it.
        place: where it draws.
        sources: pictures to draw from, by the id of the job that they will travel with.
    """

    def __init__(
        self,
        fleet: RayFleet,
        place: Place,
        patience: Patience,
        pace: Pace,
        most_rows: int | None,
    ) -> None:
        self.place = place
        self.dialogue = Dialogue(
            place.device,
            place.kind,
            send=self._send,
            kill=self._kill,
            patience=patience,
            pace=pace,
            most_rows=most_rows,
        )
        self._fleet = fleet
        self._number = 0
        self._first: asyncio.Future[messages.Ready] = asyncio.get_running_loop().create_future()
        self._watcher: asyncio.Task[None] | None = None
        self._located: dict[Path, Content | None] = {}
        self._looked: dict[Path, float] = {}
        self.sources: dict[str, bytes] = {}

    async def begin(self, start: messages.Start, seconds: float) -> None:
        """Starts it and waits until it can draw.

        Raises:
            WorkerDiedError: it can't, with the reason that it gave.
        """
        self._number = self._fleet.open(self, start, seconds)
        try:
            async with asyncio.timeout(seconds):
                await self._first
        except TimeoutError as error:
            self._kill()
            raise WorkerDiedError(
                self.place.device, f"can't start: it gave no answer within {seconds:g} seconds"
            ) from error
        except BaseException:
            self._kill()
            raise
        watch = self.dialogue.watch()
        self._watcher = asyncio.create_task(watch, name=f"watch {self.place.device}")
        log.info("A worker draws on %s", self.place.device)

    def hear(self, frames: Sequence[bytes]) -> None:
        """Takes what it says; who says what can't be understood is given up, and nobody else."""
        try:
            for frame in frames:
                self._take(messages.unframe(frame[messages.HEADER.size :]))
        except Exception:
            log.exception("What the worker on %s says can't be understood", self.place.device)
            self.lose("said something that can't be understood", is_machine=False)
            self._kill()

    def _take(self, message: Any) -> None:
        match message:
            case messages.Ready():
                if not self._first.done():
                    self._first.set_result(message)
            case messages.Unusable(reason):
                self.lose(reason, is_machine=False)
            case messages.JobEvent(run_id, GenerationResult() as result):
                here = replace(result, device=self.place.device)
                self.dialogue.hear(messages.JobEvent(run_id, here))
            case Aside(word):
                self.dialogue.hear(word, is_aside=True)
            case messages.JobFailed(error=ModelError()) | messages.Answer(error=ModelError()):
                # Its files may have moved there since they were found.
                self._located.clear()
                self._looked.clear()
                self.dialogue.hear(message)
            case _:
                self.dialogue.hear(message)

    def lose(self, reason: str, *, is_machine: bool) -> None:
        """Notes that it is gone."""
        kind = WorkerLostError if is_machine else WorkerDiedError
        if not self._first.done():
            self._first.set_exception(kind(self.place.device, reason))
        elif self.dialogue.death is None:
            self.dialogue.die(reason, kind)
            log.error("The worker on %s %s", self.place.device, reason)
        if self._watcher is not None:
            self._watcher.cancel()

    async def end(self, reason: str, seconds: float) -> None:
        """Ends it: at once, since nothing that it holds is worth keeping."""
        del seconds
        self.dialogue.die(reason)
        self._kill()
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.wait([self._watcher])

    def _kill(self) -> None:
        self._fleet.send(End(self._number))

    def _send(self, message: object) -> None:
        if isinstance(message, messages.Run) and (source := message.request.source):
            picture = self.sources.pop(message.job_id, None)
            message = SourcedRun(message, source.read_bytes() if picture is None else picture)
        self._fleet.send(Tell(self._number, messages.frame(message)))

    # Files --------------------------------------------------------------------------------------

    async def bring_source(self, job_id: str, source: Path) -> None:
        """Reads a picture that a job will be drawn from, since its machine doesn't have it.

        Raises:
            DrawingError: it can't be read.
        """
        try:
            self.sources[job_id] = await asyncio.to_thread(source.read_bytes)
        except OSError as error:
            raise DrawingError(
                f"The picture to draw from can't be read: {error.strerror or error}."
            ) from error

    async def locate(self, paths: Sequence[Path]) -> None:
        """Sees to it that its machine has files of the same contents.

        Raises:
            ModelElsewhereError: it lacks one.
        """
        now = asyncio.get_running_loop().time()
        if all(self._looked.get(path, -math.inf) + LOCATED_SECONDS > now for path in paths):
            return
        contents = {path: await self._fleet.content_of(path) for path in paths}
        news = {
            path: content
            for path, content in contents.items()
            if path not in self._located or self._located[path] != content
        }
        for path in await self._lacking(news):
            content = news[path]
            lock = self._fleet.sending(self.place, content) if content is not None else None
            if content is None or lock is None:
                raise ModelElsewhereError(path, self.place.device)
            async with lock:
                if await self._lacking({path: content}):  # nobody else has sent it meanwhile
                    await self._bring(path, content)
        self._located.update(news)
        self._looked.update(dict.fromkeys(paths, now))

    async def _lacking(self, files: Mapping[Path, Content | None]) -> Sequence[Path]:
        if not files:
            return ()
        pairs = tuple(files.items())
        lacking: Sequence[Path] = await self.dialogue.call(lambda number: Locate(number, pairs))
        return lacking

    async def _bring(self, path: Path, content: Content) -> None:
        log.info("Sending %s to the machine of %s", path, self.place.device)
        files = await asyncio.to_thread(_parts_of, path)
        for number, (part, size) in enumerate(files):
            for offset in range(0, max(size, 1), PART_BYTES):
                data = await asyncio.to_thread(_part, path / part, offset)
                is_last = number == len(files) - 1 and offset + PART_BYTES >= size
                keep = partial(
                    Keep,
                    named=path,
                    content=content,
                    part=part,
                    offset=offset,
                    data=data,
                    is_last=is_last,
                )
                await self.dialogue.call(keep)


async def _left(executor: Executor, leave: Callable[[Executor], Awaitable[None]]) -> None:
    try:
        await leave(executor)
    except Exception:
        log.exception("%s did not leave well", executor.device)


def _parts_of(path: Path) -> list[tuple[str, int]]:
    """Returns a folder's files with their sizes; of a single file that one, without a name."""
    if not path.is_dir():
        return [("", path.stat().st_size)]
    return [
        (file.relative_to(path).as_posix(), file.stat().st_size) for file in visible_files(path)
    ]


def _part(path: Path, offset: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(PART_BYTES)


def _nothing_there(connect: Connect) -> str:
    what = "a CPU" if connect.gpus_per_worker <= 0 else f"{connect.gpus_per_worker:g} free GPU"
    which = "".join(f", {name}={value}" for name, value in connect.labels)
    label = f" and the labels {which[2:]}" if which else ""
    return f"No machine of the Ray cluster at {connect.address} offers {what}{label}"


def _begun_small(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]
