"""The process that speaks with Ray, beside the bot: the one place where Ray is imported.

It is a process of its own since Ray ends whoever is connected when the cluster's head stays away
("The program will terminate"), and takes 250 MB: the bot lives on and starts another one. Commands
come in on standard input and events leave on standard output, as in `engine.worker_process`; what
workers say passes through unread.

Each worker is an actor on the machine that its place names. Ray neither restarts actors nor repeats
calls (``max_restarts=0``, ``max_task_retries=0``): an actor is one life of a worker, and what
becomes of its jobs is the pool's to decide.
"""

import asyncio
import importlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Awaitable
from typing import Any, TypeVar

from engine import standard_streams
from engine.ray_messages import (
    Connect,
    Connected,
    Disconnected,
    End,
    Heard,
    Lost,
    Open,
    Places,
    Tell,
    Want,
)
from engine.ray_places import places_of
from engine.ray_worker import LISTENING, version

CONNECT_SECONDS = 60.0
"""How long the head may take to answer at first."""

LOOK_SECONDS = 2.0
"""Seconds between two looks at which machines there are."""

UNREACHABLE_SECONDS = 30.0
"""How long a worker, or the head, may not answer at all before it counts as out of reach."""

GIVE_BACK_SECONDS = 3.0
"""How long Ray may take to hear that no machine is wanted any more."""

NAMESPACE = "dream-lab"
"""Where the actors' names would be; others in the cluster have their own."""

Value = TypeVar("Value")

log = logging.getLogger(__name__)


def main() -> None:
    """Connects to a cluster and serves the bot until it says so or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    commands_in, events_out = standard_streams.take_standard_streams()
    try:
        connect = standard_streams.read(commands_in)
    except EOFError:
        return
    assert isinstance(connect, Connect)  # noqa: S101 - the fleet's first words, or a bug
    logging.basicConfig(
        level=connect.log_level, format="%(asctime)s %(levelname)s ray %(name)s: %(message)s"
    )
    asyncio.run(_Driver(connect, standard_streams.Writer(events_out)).run(commands_in))


class _OutOfReachError(Exception):
    """The cluster does not answer. The text is a sentence without its full stop."""


class _Driver:
    def __init__(self, connect: Connect, writer: standard_streams.Writer) -> None:
        self._connect = connect
        self._writer = writer
        self._ray: Any = None
        self._lives: dict[int, _Life] = {}
        self._wanted: int | None = None  # workers; None where nobody said a number
        self._is_ending = False
        self._asking = threading.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, commands_in: Any) -> None:
        """Serves until the cluster is out of reach; the process ends with it."""
        try:
            await self._serve(commands_in)
        except _OutOfReachError as error:
            self._writer.send(Disconnected(str(error)))
        except BaseException:
            log.exception("The driver failed")
        self._writer.close()
        # Any other way out would wait for calls to a head that is not there.
        os._exit(0)

    async def _serve(self, commands_in: Any) -> None:
        await self._reach()
        loop = asyncio.get_running_loop()
        commands: asyncio.Queue[Any] = asyncio.Queue()

        def take(command: object) -> None:
            loop.call_soon_threadsafe(commands.put_nowait, command)

        standard_streams.read_all(commands_in, take, self.give_back)
        looking = asyncio.create_task(self._look())
        while True:
            command = asyncio.create_task(commands.get())
            await asyncio.wait({command, looking}, return_when=asyncio.FIRST_COMPLETED)
            if looking.done():
                looking.result()  # it ends by an error alone
            self._handle(await command)

    async def _reach(self) -> None:
        """Connects; everything of Ray that can block does so in a thread."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            self._ray = await _bounded(
                asyncio.to_thread(_connected, self._connect), CONNECT_SECONDS
            )
        except ImportError as error:
            raise _OutOfReachError(
                "Ray is not installed: pip install -c constraints.txt -e '.[ray]'"
            ) from error
        except Exception as error:
            log.info("The cluster can't be reached", exc_info=True)
            raise _OutOfReachError(
                f"The Ray cluster at {self._connect.address} can't be reached ({_short(error)})"
            ) from error
        self._writer.send(Connected())

    async def _look(self) -> None:
        """Says which places there are, whenever that changes."""
        told, connect = None, self._connect
        while True:
            try:
                nodes = await _bounded(asyncio.to_thread(self._ray.nodes), UNREACHABLE_SECONDS)
            except Exception as error:
                raise _OutOfReachError(
                    f"The head of the Ray cluster at {connect.address} does not answer any more"
                ) from error
            places = places_of(nodes, connect.gpus_per_worker, connect.labels)
            if places != told:
                told = places
                self._writer.send(Places(places))
            await asyncio.sleep(LOOK_SECONDS)

    def _handle(self, command: object) -> None:
        match command:
            case Open():
                life = self._lives[command.life] = _Life(self, command)
                self._begin(life.run())
            case Tell(number, frame):
                if found := self._lives.get(number):
                    found.frames.put_nowait(frame)
            case End(number):
                if found := self._lives.get(number):
                    found.end()
            case Want(workers):
                self._wanted = workers
                self._begin(asyncio.to_thread(self._ask))

    def _ask(self) -> None:
        """Asks Ray for as many machines as are wanted by now, whatever was asked before."""
        from ray.autoscaler.sdk import request_resources

        connect = self._connect
        bundle = {"GPU": connect.gpus_per_worker} if connect.gpus_per_worker > 0 else {"CPU": 1}
        with self._asking:  # so that the last one to ask has the latest number
            workers = 0 if self._is_ending else self._wanted or 0
            try:
                request_resources(
                    bundles=[bundle] * workers,
                    bundle_label_selectors=[dict(connect.labels)] * workers,
                )
            except Exception as error:
                log.warning("Ray can't be asked for %d machines: %s", workers, _short(error))

    def give_back(self) -> None:
        """Asks for no machine any more: Ray would keep for ever what it was asked for once."""
        self._is_ending = True
        if self._wanted is None:
            return
        asking = threading.Thread(target=self._ask, name="give back", daemon=True)
        asking.start()
        asking.join(GIVE_BACK_SECONDS)

    def _begin(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def say(self, message: object) -> None:
        self._writer.send(message)

    def forget(self, number: int) -> None:
        self._lives.pop(number, None)

    def actor(self, command: Open) -> Any:
        """Has Ray start an actor at a place; returns its handle at once."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        place = command.place
        return (
            self._ray.remote(_named(self._connect.worker))
            .options(
                num_cpus=0,
                num_gpus=self._connect.gpus_per_worker if place.kind != "cpu" else 0,
                max_restarts=0,
                max_task_retries=0,
                max_concurrency=1000,
                scheduling_strategy=NodeAffinitySchedulingStrategy(place.node, soft=False),
            )
            .remote()
        )

    def kill(self, actor: Any) -> None:
        try:
            self._ray.kill(actor, no_restart=True)
        except Exception as error:
            log.info("An actor could not be killed: %s", _short(error))


class _Life:
    """One worker: from the actor's start to its end."""

    def __init__(self, driver: _Driver, command: Open) -> None:
        self.frames: asyncio.Queue[bytes] = asyncio.Queue()
        self._driver = driver
        self._command = command
        self._number = command.life
        self._talking: asyncio.Task[None] | None = None

    def end(self) -> None:
        if self._talking is not None:
            self._talking.cancel()

    async def run(self) -> None:
        try:
            actor = self._driver.actor(self._command)
        except Exception as error:  # its class can't be imported, say, or Ray refuses it
            log.warning("A worker on %s can't start", self._command.place.device, exc_info=True)
            lost = Lost(self._number, f"can't start: {_short(error)}", is_machine=False)
        else:
            lost = await self._live(actor)
            self._driver.kill(actor)
        self._driver.forget(self._number)
        self._driver.say(lost)

    async def _live(self, actor: Any) -> Lost:
        """Hands on what is said with a worker until it ends, and returns why it did."""
        self._talking = asyncio.create_task(self._talk(actor))
        await asyncio.wait([self._talking])
        if self._talking.cancelled():
            return Lost(self._number, "was shut down", is_machine=False)
        if (error := self._talking.exception()) is not None:
            log.info("A worker on %s is gone", self._command.place.device, exc_info=error)
            return Lost(self._number, *_explained(error))
        return Lost(self._number, "ended", is_machine=False)

    async def _talk(self, actor: Any) -> None:
        try:
            await _bounded(actor.open.remote(self._command.start, version()), self._command.seconds)
        except TimeoutError:
            raise _NoPlaceError(self._command.seconds) from None
        telling = asyncio.create_task(self._tell(actor))
        try:
            has_ended = False
            while not has_ended:
                listening = asyncio.ensure_future(actor.listen.remote())
                await asyncio.wait(
                    {listening, telling},
                    timeout=LISTENING + UNREACHABLE_SECONDS,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if telling.done():
                    telling.result()
                if not listening.done():
                    raise TimeoutError
                frames, has_ended = listening.result()
                if frames:
                    self._driver.say(Heard(self._number, frames))
        finally:
            telling.cancel()

    async def _tell(self, actor: Any) -> None:
        """Hands commands on, one call after the other: an actor's calls may overtake each other."""
        while True:
            frames = [await self.frames.get()]
            while not self.frames.empty():
                frames.append(self.frames.get_nowait())
            await _bounded(actor.tell.remote(tuple(frames)), UNREACHABLE_SECONDS)


class _NoPlaceError(Exception):
    """The actor did not begin: what it needs is taken, or its machine is too slow."""


def _connected(connect: Connect) -> Any:
    import ray

    ray.init(
        address=connect.address,
        namespace=NAMESPACE,
        log_to_driver=False,
        configure_logging=False,
    )
    return ray


def _named(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


async def _bounded(work: Awaitable[Value], seconds: float) -> Value:
    """Waits for something that may hang without a word.

    Raises:
        TimeoutError: it took longer.
    """
    return await asyncio.wait_for(asyncio.ensure_future(work), seconds)


def _explained(error: BaseException) -> tuple[str, bool]:
    """Returns why a worker is gone, and whether its machine or the way there is."""
    from ray import exceptions

    text = str(error)
    match error:
        case _NoPlaceError():
            seconds = float(error.args[0])
            return f"can't start: the cluster gave it no place within {seconds:g} seconds", False
        case TimeoutError():
            return f"has been out of reach for {UNREACHABLE_SECONDS:g} seconds", True
        case exceptions.ActorUnschedulableError():
            return "can't start: its machine has left the cluster", True
        case exceptions.ActorUnavailableError():
            return "is out of reach", True
        case exceptions.RayActorError() if "node" in text and "died" in text.partition("\n")[0]:
            return "is gone: its machine has left the cluster", True
        case exceptions.RayActorError():
            return "is gone: its process ended", False
    return f"failed: {_short(error)}", False


def _short(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0][:200] or type(error).__name__


if __name__ == "__main__":
    sys.exit("This process is started by engine.ray_executor.")
