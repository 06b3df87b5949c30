"""The local web page: the application, and the server that runs it in our own event loop."""

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Iterator

import uvicorn
from fastapi import FastAPI, Response
from fastapi.staticfiles import StaticFiles
from starlette.types import Scope

from bot.loop_lag import LoopLag
from bot.settings import Settings
from bot.studio import Studio
from bot.web import mode_routes, problems
from bot.web.a1111_routes import a1111
from bot.web.access import Access
from bot.web.connections import PatientProtocol
from bot.web.description import DescribedApp
from bot.web.device_board import DeviceBoard
from bot.web.device_routes import devices
from bot.web.events import Feeds
from bot.web.gallery_routes import gallery
from bot.web.gate import Gate
from bot.web.guard import LOOPBACK, Guard, host_name
from bot.web.image_routes import images
from bot.web.job_routes import jobs
from bot.web.keys import Keys
from bot.web.lineage_routes import lineage
from bot.web.metrics import Metrics
from bot.web.mode_edits import ModeEdits
from bot.web.mode_file_routes import modes_file
from bot.web.mode_live_routes import modes_live
from bot.web.model_routes import drawing, models
from bot.web.openai_routes import openai
from bot.web.page_routes import pages
from bot.web.plot_routes import plots
from bot.web.probe_routes import probes, status
from bot.web.queue_board import QueueBoard
from bot.web.queue_routes import line
from bot.web.sample_routes import samples
from bot.web.services import STATIC
from bot.web.session_routes import login, sessions
from bot.web.sessions import Sessions
from bot.web.status import StatusBoard
from bot.web.steward_routes import steward
from bot.web.thumbnails import Thumbnails
from engine.errors import DreamLabError
from engine.worker_pool import WorkerPool
from modes.catalog import ModeCatalog
from modes.modes_history import ModesHistory

_ABOUT = """Where the page needs a token, send it as `Authorization: Bearer TOKEN`. What is wrong is
told as problem details (RFC 9457)."""

_MOST_CONNECTIONS = 512
"""Open at once; one more is answered that the page is busy."""

_GRACE = 3
"""Seconds that open requests get to end when the page closes."""


class AddressError(DreamLabError):
    """The page can't listen where the settings say.

    Attributes:
        setting: the one to change.
    """

    def __init__(self, text: str, setting: str) -> None:
        super().__init__(text)
        self.setting = setting


def create_web_app(
    studio: Studio,
    catalog: ModeCatalog,
    pool: WorkerPool,
    settings: Settings,
    lag: LoopLag | None = None,
) -> FastAPI:
    """Returns the page and its API.

    Args:
        studio: what every route calls.
        catalog: the modes to choose from.
        pool: asked for its state.
        settings: where the page will be.
        lag: measures how late answers are; by default nobody does.
    """
    app = DescribedApp(
        title="Dream Lab",
        description=_ABOUT,
        openapi_url="/api/openapi.json",
        # FastAPI's pages for these load their scripts from another host.
        docs_url=None,
        redoc_url=None,
    )
    app.state.studio = studio
    app.state.catalog = catalog
    app.state.pool = pool
    app.state.edits = ModeEdits(catalog, ModesHistory(settings.data / "modes-history"))
    app.state.board = StatusBoard(pool, catalog)
    app.state.queue = QueueBoard(studio, catalog, pool)
    app.state.devices = DeviceBoard(studio, catalog, pool)
    app.state.thumbnails = Thumbnails()
    app.state.feeds = Feeds()
    app.state.lag = lag or LoopLag()
    app.state.metrics = Metrics(studio, catalog, pool, app.state.lag)
    app.state.keys = Keys(studio)
    app.state.access = Access(settings)
    app.state.sessions = Sessions(studio.sessions, app.state.access.by_fingerprint)
    routers = (
        login,
        sessions,
        pages,
        probes,
        status,
        jobs,
        images,
        samples,
        lineage,
        gallery,
        line,
        devices,
        modes_live,
        modes_file,
        mode_routes.routes,
        models,
        drawing,
        openai,
        a1111,
        plots,
        steward,
    )
    # As they are: FastAPI would make each anew, at the first request.
    app.router.routes += (route for router in routers for route in router.routes)
    app.mount("/static", _Static(directory=STATIC))
    problems.install(app, routers)
    # The last one added is asked first.
    app.add_middleware(Gate, access=app.state.access, sessions=app.state.sessions)
    names = (*LOOPBACK, host_name(settings.web_host), *settings.web_names)
    app.add_middleware(Guard, names=names)
    return app


class WebFrontEnd:
    """Serves the page until it is cancelled."""

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        self.app = app
        self._settings = settings
        self._address: asyncio.Future[str] | None = None

    async def ready(self) -> str:
        """Returns the page's address once it can be opened.

        Raises:
            AddressError: it can't be, see `run`.
        """
        return await asyncio.shield(self._ready())

    async def run(self) -> None:
        """Serves; when cancelled, ends the open streams and lets running requests finish.

        Raises:
            AddressError: the address can't be had; it says which setting to change.
        """
        address = self._ready()
        try:
            listener = listen(self._settings.web_host, self._settings.web_port)
        except AddressError as error:
            address.set_exception(error)
            address.exception()  # whoever awaits it gets it; nobody need
            raise
        server = _Server(_config(self.app), address)
        serving = asyncio.create_task(server.serve([listener]), name="web server")
        try:
            await asyncio.shield(serving)
        finally:
            self.app.state.feeds.close()
            server.end()
            await self.app.state.studio.plots.close()  # else whoever waits for them is waited for
            await serving
            listener.close()

    def _ready(self) -> asyncio.Future[str]:
        if self._address is None:
            self._address = asyncio.get_running_loop().create_future()
        return self._address


def listen(host: str, port: int) -> socket.socket:
    """Returns a socket that listens; port 0 picks a free one.

    Raises:
        AddressError: the address can't be had; it says which setting to change.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        raise _address_error(host, port, error) from error


def _address_error(host: str, port: int, error: OSError) -> AddressError:
    if error.errno == errno.EADDRINUSE:
        text = (
            f"Port {port} on {host} is used by another program. "
            "Set WEB_PORT to another one, or to 0 for any that is free."
        )
        return AddressError(text, "WEB_PORT")
    if error.errno == errno.EACCES:
        text = f"Port {port} on {host} is kept for the system. Set WEB_PORT to 1024 or more."
        return AddressError(text, "WEB_PORT")
    text = f"The page can't listen on {host} ({error.strerror}). Set WEB_HOST to 127.0.0.1."
    return AddressError(text, "WEB_HOST")


class _Static(StaticFiles):
    """The page's files, asked for anew each time: an update of Dream Lab shows at once."""

    def file_response(
        self,
        full_path: str | os.PathLike[str],
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        """Returns a file, or that it is still the same."""
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers["Cache-Control"] = "no-cache"
        return response


class _Server(uvicorn.Server):
    """Tells its address once it listens, and leaves the signals to the program."""

    def __init__(self, config: uvicorn.Config, address: asyncio.Future[str]) -> None:
        super().__init__(config)
        self._address = address
        self._end = asyncio.Event()

    def end(self) -> None:
        """Has it end, once what is asked is answered."""
        self.should_exit = True
        self._end.set()

    async def main_loop(self) -> None:
        """Keeps the date that answers carry, until it is to end.

        Uvicorn's own wakes ten times a second to see whether it is.
        """
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await self._end.wait()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts to listen."""
        await super().startup(sockets)
        if sockets and not self._address.done():
            host, port = sockets[0].getsockname()[:2]
            self._address.set_result(f"http://{host_name(host)}:{port}")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stops listening and waits for what is under way, if anything is."""
        if self.server_state.connections or self.server_state.tasks:
            await super().shutdown(sockets)
        for server in self.servers:
            server.close()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Captures none."""
        yield


def _config(app: FastAPI) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        log_config=None,
        log_level="warning",  # its address is told once, by the program
        access_log=False,
        lifespan="off",
        http=PatientProtocol,
        ws="none",
        server_header=False,
        # No header may speak for the connection; a proxy's names stand in WEB_NAMES.
        proxy_headers=False,
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_graceful_shutdown=_GRACE,
    )
