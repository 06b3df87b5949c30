"""Modes that places and channels have chosen: what is drawn with when nobody names one."""

import asyncio
import logging
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from bot import policy
from bot.errors import refuse
from bot.loads import PlaceLoads
from bot.records import Owner
from bot.steward import Steward
from bot.store import Store
from engine.errors import JobCancelledError
from engine.worker_pool import WorkerPool
from modes.catalog import ModeCatalog
from modes.mode_config import ModeConfig

log = logging.getLogger(__name__)


class ModeChoices:
    """Keeps what was chosen, and has its models loaded."""

    def __init__(
        self, store: Store, pool: WorkerPool, catalog: ModeCatalog, steward: Steward
    ) -> None:
        """Takes what it uses."""
        self._store = store
        self._pool = pool
        self._catalog = catalog
        self._steward = steward
        self._loads = PlaceLoads(pool)

    async def mode_of(self, place: str | None, channels: Iterable[str] = frozenset()) -> ModeConfig:
        """Returns the mode that is drawn with when nobody names one.

        A channel's goes before its place's, and that before the current one. What was chosen and
        then removed falls back to the next of these.

        Args:
            place: as in `Origin`.
            channels: likewise.
        """
        chosen = await self._store.chosen_modes(place, channels) if place else []
        known = self._catalog.modes
        names = (*chosen, self._pool.get_current_mode(), self._catalog.default_mode)
        return next(known[name] for name in names if name in known)

    def loaded_models(self) -> frozenset[str]:
        """Returns the keys of the models that are surely in some device's memory, or on the way."""
        return frozenset(key for lane in self._pool.status() for key in lane.models)

    async def reset_mode(self, place: str, by: Owner, channel: str | None = None) -> bool:
        """Forgets the choice of a place, or of one channel in it; False where there was none."""
        return await self._store.forget_mode(place, by, datetime.now(UTC), channel)

    async def switch_mode(
        self,
        name: str,
        place: str | None,
        by: Owner,
        *,
        channel: str | None = None,
        wait: bool = False,
    ) -> ModeConfig:
        """Makes a mode the place's and has its model loaded in the background.

        Without a place it becomes the one of all who have chosen none, as soon as it is loaded.

        Args:
            name: the mode's.
            place: see `Origin`.
            by: who switches.
            channel: id of the one that it is for; None is the whole place.
            wait: return when it is loaded, and raise what prevents that.

        Raises:
            UnknownModeError: no such mode; nothing changed.
            NotAllowedError: who switches may not draw with it; likewise.
            PoolClosedError: likewise.
        """
        mode = self._catalog.get(name)
        refuse(policy.mode_refusal(mode, by))
        loading: asyncio.Future[Any]
        if place is None:
            loading = self._pool.switch_mode(name)
            await self._steward.note(None, by, f"Mode: {name}")
        else:
            await self._store.choose_mode(place, name, by, datetime.now(UTC), channel)
            loading = self._loads.ask(place, mode)
        loading.add_done_callback(_log_failure)
        if wait:
            await asyncio.shield(loading)
        return mode


def _log_failure(future: asyncio.Future[Any]) -> None:
    error = None if future.cancelled() else future.exception()
    # Where another choice took its place, nothing went wrong.
    if error and not isinstance(error, JobCancelledError):
        log.warning("The model could not be loaded: %s", error)
