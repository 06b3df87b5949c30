"""What owners and admins do to the whole of it: pause, load, unload, read the modes again.

Whether they may is the caller's to check. Each leaves a trace, in the place where it was done, or
in `EVERYWHERE` where that is none.
"""

import logging
from dataclasses import dataclass
from datetime import UTC, datetime

from bot.records import Owner
from bot.rules import read_reason
from bot.store import Store
from engine.errors import DreamLabError
from engine.executor import LoadReport
from engine.jobs import ModelUnloadJob
from engine.mode_source import loading_of
from engine.worker_pool import WorkerPool
from modes.catalog import ModeCatalog
from modes.mode_config import ModeConfig

log = logging.getLogger(__name__)

_PATIENCE = 0.5  # seconds that a device has to say what it holds

EVERYWHERE = "everywhere"
"""The place of what concerns all places."""


class PausedError(DreamLabError):
    """Nothing is loaded while drawing is paused."""

    def __init__(self) -> None:
        super().__init__("Drawing is paused, so nothing is loaded. End the pause first.")


@dataclass(frozen=True, slots=True)
class Pause:
    """Why nothing new is drawn.

    Attributes:
        reason: as the owner gave it; empty where they gave none.
        running: drawings that were still under way when it began.
        waiting: requests that waited then.
    """

    reason: str
    running: int = 0
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class Device:
    """What a device holds, in GB of 2**30 bytes.

    Attributes:
        name: such as ``cuda:0``.
        used: memory in use.
        total: memory there is.
        loaded: keys of the models in it.
    """

    name: str
    used: float
    total: float
    loaded: frozenset[str]


class Steward:
    """Looks after everything; a restart ends a pause.

    That is on purpose: who pauses for an update wants it to go on afterwards, and a pause that
    outlived whoever began it would look like a fault.

    Attributes:
        pause: why nothing new is drawn; None where it is.
    """

    def __init__(
        self,
        store: Store,
        pool: WorkerPool,
        catalog: ModeCatalog,
    ) -> None:
        """Takes what it looks after."""
        self._store = store
        self._pool = pool
        self._catalog = catalog
        self.pause: Pause | None = None

    async def note(self, place: str | None, by: Owner, what: str) -> None:
        """Keeps a sentence about what somebody did."""
        await self._store.note(place or EVERYWHERE, by, what, datetime.now(UTC))

    async def devices(self) -> list[Device]:
        """Returns what the devices hold; one that is away or says nothing is left out."""
        return [
            Device(
                lane.device,
                known["used_gb"],
                known["total_gb"],
                frozenset(model["name"] for model in known["models"]),
            )
            for lane, known in await self._pool.stats(_PATIENCE)
            if known is not None
        ]

    async def drain(self, by: Owner, place: str | None, reason: str = "") -> Pause:
        """Begins nothing new; what runs is finished, what waits and what comes keeps its place.

        Raises:
            RequestError: the reason is too long.
        """
        reason = read_reason(reason)
        await self.note(place, by, f"Paused drawing: {reason or 'no reason given'}")
        self._pool.hold()
        running = len(self._pool.running_jobs())
        self.pause = Pause(reason, running, self._pool.get_queue_size())
        log.warning("Drawing is paused by %s (%s)", by.id, reason or "no reason given")
        return self.pause

    async def resume(self, by: Owner, place: str | None) -> bool:
        """Goes on; False where nothing was paused."""
        if self.pause is None:
            return False
        await self.note(place, by, "Went on drawing")
        self.pause = None
        self._pool.resume()
        log.warning("Drawing goes on, by %s", by.id)
        return True

    async def drained(self) -> None:
        """Waits until nothing runs any more, or the pause has ended."""
        await self._pool.drained()

    async def load(self, mode: str, by: Owner, place: str | None) -> LoadReport:
        """Has a mode's model loaded, making room first; returns when it is.

        Raises:
            UnknownModeError: there is no such mode.
            PausedError: drawing is paused.
            ModelError: it can't be loaded.
            DreamLabError: others of `WorkerPool.submit_job`.
        """
        chosen = self._catalog.get(mode)
        if self.pause is not None:
            raise PausedError
        job = loading_of(chosen, owner=by.id)
        report: LoadReport = await self._pool.submit_job(job, admitted=True)
        await self.note(place, by, f"Loaded: {mode}")
        return report

    async def unload(self, mode: str, by: Owner, place: str | None) -> ModeConfig:
        """Gives a mode's memory back once nobody draws with it; returns the mode.

        Raises:
            UnknownModeError: there is no such mode.
            DreamLabError: others of `WorkerPool.submit_job`.
        """
        chosen = self._catalog.get(mode)
        if self.pause is not None:
            await self._pool.unload(chosen.model)  # what waits would hold it up
        else:
            job = ModelUnloadJob(owner=by.id, model=chosen.model)
            await self._pool.submit_job(job, admitted=True)
        await self.note(place, by, f"Unloaded: {mode}")
        return chosen

    async def reload(self, by: Owner, place: str | None) -> bool:
        """Reads the modes file again; False where it can't be used, and what was before stays."""
        taken = await self._catalog.reload()
        await self.note(
            place, by, "Read the modes again" if taken else "Read the modes again: refused"
        )
        return taken
