"""Models that places have chosen: loaded in the background, so that the next picture need not wait.

A place may choose as often as it likes, and all places share the devices. So of each place one load
waits at most, that of its last choice, and one of each model, whoever has chosen it.
"""

import asyncio
from dataclasses import dataclass, field

from engine.executor import LoadReport
from engine.jobs import ModelLoadJob
from engine.mode_source import loading_of
from engine.worker_pool import WorkerPool
from modes.mode_config import ModeConfig


@dataclass(slots=True, eq=False)
class _Load:
    """One that has not ended, and who wants it."""

    job: ModelLoadJob
    future: asyncio.Future[LoadReport]
    places: set[str] = field(default_factory=set)


class PlaceLoads:
    """Has the pool load what places choose."""

    def __init__(self, pool: WorkerPool) -> None:
        """Takes what loads."""
        self._pool = pool
        self._loads: dict[str, _Load] = {}  # by the model's key

    def ask(self, place: str, mode: ModeConfig) -> asyncio.Future[LoadReport]:
        """Has a mode's model loaded, in place of what the place has waited for so far.

        What is loading already is finished all the same, and what others wait for is loaded.

        Args:
            place: as in `Origin`.
            mode: whose model.

        Returns:
            How it ends: with `JobCancelledError` where another choice took its place.

        Raises:
            PoolClosedError: the pool is shutting down.
        """
        key = mode.model.key
        self._take_back(place, besides=key)
        load = self._loads.get(key)
        if load is None:
            job = loading_of(mode)
            load = _Load(job, self._pool.submit_job(job, admitted=True))
            self._loads[key] = load
            load.future.add_done_callback(lambda _: self._forget(key, load))
        load.places.add(place)
        return load.future

    def _take_back(self, place: str, *, besides: str) -> None:
        """Ends what waits for a place alone, but for one model."""
        for key, load in list(self._loads.items()):
            if key == besides:
                continue
            load.places.discard(place)
            waits = self._pool.position(load.job.id) is not None
            if waits and not load.places:
                self._forget(key, load)
                self._pool.cancel(load.job.id)

    def _forget(self, key: str, load: _Load) -> None:
        if self._loads.get(key) is load:
            del self._loads[key]
