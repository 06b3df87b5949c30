"""The composition root: the one place where the parts meet. Opens everything, closes everything."""

import asyncio
import importlib
import logging
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Protocol

from filelock import FileLock, Timeout

from bot import garbage
from bot.housekeeping import Housekeeper, Limits
from bot.image_folder import ImageFolder
from bot.loop_lag import LoopLag
from bot.outbox import Outbox
from bot.settings import Settings
from bot.store import Store
from bot.studio import Studio
from engine.devices import find_devices, may_fall_back
from engine.errors import DreamLabError
from engine.executor import Executor, Fleet
from engine.fleet_size import FleetSize
from engine.local_executor import LocalExecutor
from engine.mode_source import loading_of
from engine.worker_pool import WorkerPool
from modes.catalog import ModeCatalog
from modes.file_watcher import watch
from modes.model_watcher import watch_models

log = logging.getLogger(__name__)


LAST_DELIVERIES = 10.0
"""Most seconds that finished pictures get to reach their askers when the program ends."""


class AlreadyRunningError(DreamLabError):
    """Another Dream Lab runs on the same data folder."""


class FrontEnd(Protocol):
    """A way in that runs as long as the program does."""

    async def run(self) -> None:
        """Serves until it is cancelled."""


@dataclass(frozen=True, slots=True)
class App:
    """Everything that is open."""

    settings: Settings
    catalog: ModeCatalog
    store: Store
    pool: WorkerPool
    outbox: Outbox
    studio: Studio
    housekeeper: Housekeeper


@asynccontextmanager
async def open_app(
    settings: Settings,
    executors: Sequence[Executor] | None = None,
    fleet: Fleet | None = None,
) -> AsyncIterator[App]:
    """Opens the parts that every front end uses, and closes them in the reverse order.

    Returns before any model is loaded: worker processes start in the background. Leaving ends what
    runs at once; what was unfinished stays in the store.

    Args:
        settings: as read.
        executors: reach the devices; by default what ``EXECUTOR`` says: a local process for each
            of ``DEVICES``, or a fleet.
        fleet: brings more of them.

    Raises:
        DreamLabError: the modes file, the database or a device can't be used.
    """
    catalog = ModeCatalog(settings.modes_file, settings.model_root, settings.model)
    if executors is None and settings.executor == "ray":
        executors, fleet = (), _ray_fleet(settings)
    elif executors is None:
        devices = settings.devices or await asyncio.to_thread(find_devices)
        executors = [
            LocalExecutor(
                device,
                may_fall_back=may_fall_back(devices, are_named=bool(settings.devices)),
                ledger=settings.data / "measured.json",
                host_cache=_share(settings.host_cache_gb, len(devices)),
            )
            for device in devices
        ]
    async with await Store.open(settings.data / "dreamlab.db") as store:
        pool = WorkerPool(
            executors,
            catalog,
            fleet=fleet,
            queue_max=settings.queue_max,
            queue_max_per_owner=settings.waiting_per_owner,
            job_timeout=settings.job_timeout or None,
        )
        outbox = Outbox(store, lambda job_id: studio.view(job_id))
        images = ImageFolder(settings.data / "images")
        async with Studio(
            store,
            pool,
            catalog,
            images,
            on_settled=outbox.wake,
            weights=settings.role_weights,
            brought_to=outbox.brought_to,
        ) as studio:
            housekeeper = Housekeeper(store, images, studio.sources.remove, _limits(settings))
            await pool.start()
            try:
                yield App(settings, catalog, store, pool, outbox, studio, housekeeper)
            finally:
                await pool.shutdown()


def _ray_fleet(settings: Settings) -> Fleet:
    from engine.ray_executor import RayFleet

    least, most = settings.ray_workers or (0, None)
    return RayFleet(
        settings.ray_address,
        gpus_per_worker=settings.ray_gpus_per_worker,
        labels=settings.ray_labels,
        size=FleetSize(least, most),
        memory=settings.data / "contents.json",
        sends_models=settings.ray_send_models,
    )


async def run(settings: Settings, say: Callable[[str], None]) -> None:
    """Serves every front end until SIGINT or SIGTERM; then drains and returns.

    Args:
        settings: as read.
        say: tells the owner what they want to know at the terminal.

    Raises:
        AlreadyRunningError: another one runs on the same data folder.
        DreamLabError: something can't be opened.
    """
    settings.data.mkdir(parents=True, exist_ok=True)
    lock = FileLock(settings.data / "dreamlab.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise AlreadyRunningError(
            f"Another Dream Lab runs on the data folder {settings.data}. "
            "Stop that one first, or set DREAMLAB_DATA to another folder."
        ) from None
    try:
        async with open_app(settings) as app:
            await _serve(app, say)
    finally:
        lock.release()


async def _serve(app: App, say: Callable[[str], None]) -> None:
    """Runs every front end and what goes on in the background until it is told to stop."""
    tasks = asyncio.TaskGroup()
    signals = _Signals(on_reload=lambda: tasks.create_task(_reload(app.catalog), name="reload"))
    try:
        async with tasks:
            running = await _start(app, tasks, say)
            await signals.stop.wait()
            say("Finishing what is being drawn; Ctrl-C again leaves at once.")
            await _drain(app, signals.hurry)
            for task in running:
                task.cancel()
    except* DreamLabError as group:
        # One of them says what the owner must change; a traceback of all would bury it.
        raise _first(group) from None
    finally:
        signals.close()


async def _start(
    app: App, tasks: asyncio.TaskGroup, say: Callable[[str], None]
) -> list[asyncio.Task[None]]:
    # Imported here: a command-line request needs neither, and both take a while.
    from bot.web.app import WebFrontEnd, create_web_app

    recovered = await app.studio.recover()
    if recovered:
        say(f"Going on with {len(recovered)} unfinished requests.")
    lag = LoopLag()
    web = WebFrontEnd(
        create_web_app(app.studio, app.catalog, app.pool, app.settings, lag), app.settings
    )
    running = [
        tasks.create_task(lag.run(), name="event loop's lag"),
        tasks.create_task(app.studio.past.run(), name="history"),
        tasks.create_task(web.run(), name="page"),
        tasks.create_task(app.outbox.run(), name="outbox"),
        tasks.create_task(_watch_pool(app.pool), name="pool"),
        tasks.create_task(app.housekeeper.run(), name="housekeeping"),
        tasks.create_task(
            watch(app.catalog.path, app.catalog.reload, asyncio.Event()), name="modes file"
        ),
        tasks.create_task(watch_models(app.catalog), name="models' files"),
    ]
    say(f"Dream Lab is at {await web.ready()}")
    if app.settings.discord_token:
        # In a thread: it takes most of a second, and the page is served by now.
        await asyncio.to_thread(importlib.import_module, "bot.client")
        from bot.client import DiscordFrontEnd

        discord = DiscordFrontEnd(app.studio, app.catalog, app.settings)
        app.outbox.employ({"discord": discord.courier})
        await discord.resume([job for job in recovered if job.origin.front_end == "discord"])
        running.append(tasks.create_task(discord.run(), name="discord"))
    else:
        say("Without DISCORD_TOKEN it serves this page alone. Ctrl-C ends it.")
    _load(app, app.pool.get_current_mode())
    # What was imported stays: searching it stops the event loop for a quarter of a second.
    idle = partial(_is_idle, app.studio)
    running.append(tasks.create_task(garbage.search(idle), name="garbage"))
    return running


async def _reload(catalog: ModeCatalog) -> None:
    """Reads the modes again; what goes wrong with that must not end the program."""
    try:
        await catalog.reload()
    except Exception:
        log.exception("The modes could not be read again.")


async def _drain(app: App, hurry: asyncio.Event) -> None:
    """Takes nothing new and lets what runs finish, for as long as the owner has patience."""
    draining = asyncio.create_task(app.pool.shutdown(app.settings.shutdown_grace))
    hurrying = asyncio.create_task(hurry.wait())
    await asyncio.wait({draining, hurrying}, return_when=asyncio.FIRST_COMPLETED)
    if not draining.done():
        await app.pool.shutdown()
    await draining
    await app.studio.close()
    # What was just finished is brought now; what can't be is in the store for the next start.
    bringing = asyncio.create_task(app.outbox.rest())
    await asyncio.wait(
        {bringing, hurrying}, timeout=LAST_DELIVERIES, return_when=asyncio.FIRST_COMPLETED
    )
    for task in (bringing, hurrying):
        task.cancel()


async def _watch_pool(pool: WorkerPool) -> None:
    """Raises what broke the pool: the program must not seem to work without it."""
    await asyncio.shield(pool.failed)
    await asyncio.Event().wait()  # closed in good order


def _is_idle(studio: Studio) -> bool:
    return not studio.live.load()


def _limits(settings: Settings) -> Limits:
    return Limits(
        timedelta(days=settings.keep_days) if settings.keep_days else None,
        int(settings.disk_budget_gb * 2**30) if settings.disk_budget_gb else None,
    )


def _share(gigabytes: float | None, devices: int) -> int | None:
    """Returns each device's part of the host's memory in bytes; None leaves it to the device."""
    return None if gigabytes is None else int(gigabytes * 2**30) // max(1, devices)


def _load(app: App, mode: str) -> None:
    """Has a mode's model loaded before the first request for it."""
    loading = app.pool.submit_job(loading_of(app.catalog.get(mode)), admitted=True)
    loading.add_done_callback(_log_failure)


def _log_failure(future: asyncio.Future[Any]) -> None:
    if not future.cancelled() and (error := future.exception()):
        log.warning("The default mode's model is not loaded: %s", error)


def _first(group: BaseExceptionGroup[DreamLabError]) -> DreamLabError:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


class _Signals:
    """What the system and the owner's keyboard say: stop, hurry, read the modes again."""

    def __init__(self, on_reload: Callable[[], object]) -> None:
        self.stop = asyncio.Event()
        self.hurry = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        handlers = {"SIGINT": self._stop, "SIGTERM": self._stop, "SIGHUP": on_reload}
        # Windows has no SIGHUP, and its event loop takes no handlers: Ctrl-C raises there.
        self._handled = [getattr(signal, name) for name in handlers if hasattr(signal, name)] * (
            sys.platform != "win32"
        )
        for number in self._handled:
            self._loop.add_signal_handler(number, handlers[number.name])

    def close(self) -> None:
        """Gives the signals back."""
        for number in self._handled:
            self._loop.remove_signal_handler(number)

    def _stop(self) -> None:
        if self.stop.is_set():
            self.hurry.set()
        self.stop.set()
