"""The models in a device's memory: loads them, makes room for them, lets them go and come back.

Which ones must go is `ModelRegistry`'s to choose; here it is done. What leaves the device may wait
in the host's memory (`engine.workers.host_cache`), and returns from there while others draw.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from engine.errors import ModelError, NotEnoughMemoryError
from engine.executor import LoadReport
from engine.failures import is_out_of_memory, let_go
from engine.jobs import Family, ModelSpec
from engine.ledger import Ledger
from engine.model_files import file_stamp, weight_files
from engine.model_registry import ModelRegistry
from engine.pace import Act
from engine.worker_factory import check_model
from engine.workers.base import Worker

if TYPE_CHECKING:
    from engine.workers.host_cache import HostCache, Return

LORAS_KEPT = 16
"""LoRAs that stay in memory beside a model, unless more are drawn with at once."""

log = logging.getLogger(__name__)

_Made = TypeVar("_Made")

_Stamps: TypeAlias = dict[Path, tuple[int, int]]


class MustWaitError(Exception):
    """What is asked can't begin before a model is out of use, or on the device."""


@dataclass(slots=True)
class _Arrival:
    """A model on its way back from the host's memory."""

    model: ModelSpec
    back: "Return"
    began: float
    stamps: _Stamps


class Shelf:
    """What is loaded beside one device. One thread uses it.

    Args:
        device: such as ``cpu`` or ``cuda:0``.
        create: loads a model.
        registry: what is loaded and in use, and the device's memory.
        ledger: what models take in it.
        drawn: returns what is drawn with just now, LoRAs included.
        note: is told what a load took: what it was, whose, when it began.
        clock: seconds.
        cache: where models wait that leave the device; None drops them.

    Attributes:
        joining: what the request that just joins is drawn with.
    """

    def __init__(
        self,
        device: str,
        create: Callable[[ModelSpec], Worker],
        registry: ModelRegistry,
        ledger: Ledger,
        *,
        drawn: Callable[[], Iterable[ModelSpec]],
        note: Callable[[Act, Worker, float], None],
        clock: Callable[[], float],
        cache: "HostCache | None" = None,
    ) -> None:
        self.create = create
        self.joining: tuple[ModelSpec, ...] = ()
        self._device = device
        self._registry = registry
        self._ledger = ledger
        self._drawn = drawn
        self._note = note
        self._clock = clock
        self._cache = cache
        self._workers: dict[str, Worker] = {}
        self._beside: dict[str, int] = {}  # bytes that a model took beyond its weights
        self._stamps: dict[str, _Stamps] = {}  # a loaded model's files as they were
        self._arriving: _Arrival | None = None
        self._returned: dict[str, LoadReport] = {}  # what who asked for it is not told yet

    # What is here

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of the models in the device's memory."""
        return tuple(self._workers)

    @property
    def waiting(self) -> tuple[str, ...]:
        """Keys of those that wait in the host's memory."""
        return () if self._cache is None else self._cache.waiting

    @property
    def arriving(self) -> bool:
        """Whether a model is on its way back from the host's memory."""
        return self._arriving is not None

    @property
    def busy(self) -> bool:
        """Whether `work` has something to do."""
        return self._arriving is not None or (self._cache is not None and self._cache.busy)

    def __getitem__(self, key: str) -> Worker:
        return self._workers[key]

    def is_loaded(self, model: ModelSpec) -> bool:
        """Returns whether a model and its LoRAs are in memory, as they are on disk."""
        return model.key in self._workers and self._is_current(model) and not self._lacking(model)

    def family(self, model: ModelSpec) -> Family:
        """Returns a model's family.

        Raises:
            ModelError: it can't be loaded.
        """
        worker = self._workers.get(model.key)
        if worker is None and self._cache is not None:
            worker = self._cache.parked(model.key)
        return check_model(model).family if worker is None else worker.family

    def lease(self, model: ModelSpec) -> AbstractContextManager[object]:
        """Keeps a loaded model in memory meanwhile."""
        return self._registry.lease(model.key)

    # Coming

    def load(
        self, model: ModelSpec, on_load: Callable[[], None], *, others_draw: bool = False
    ) -> LoadReport:
        """Makes sure that a model and its LoRAs are in memory.

        Args:
            model: what is wanted.
            on_load: is called before anything that takes time.
            others_draw: whether others have steps to make, while it returns from the host's memory.

        Raises:
            MustWaitError: it can be asked for again once others are done, or once it has returned.
            ModelError: it can't be loaded.
        """
        seconds = 0.0
        if not self.is_loaded(model):
            self._make_room(model, others_draw=others_draw)
            on_load()
            began = self._clock()
            if model.key not in self._workers:
                self._load_weights(replace(model, loras=()), others_draw=others_draw)
            self._load_loras(model)
            seconds = self._clock() - began
            if model.key not in self._returned:
                log.info("Loaded %s on %s in %.1f s", model.path, self._device, seconds)
        worker = self._workers[model.key]
        report = LoadReport(model.key, worker.family.value, seconds, worker.weight_bytes)
        returned = self._returned.pop(model.key, None)
        if returned is None:
            return report
        return replace(report, seconds=returned.seconds, copied=returned.copied)

    def work(self, *, hurry: bool) -> bool:
        """Goes on with what comes from the host's memory or is copied there, by a little.

        Args:
            hurry: whether nobody draws meanwhile: then what comes is waited for.

        Returns:
            Whether a model has just arrived.
        """
        arrival = self._arriving
        if arrival is None:
            if self._cache is not None:
                self._cache.work()
            return False
        if not (hurry or arrival.back.advance()):
            return False
        self._arriving = None
        self._arrive(arrival)
        return True

    def _arrive(self, arrival: _Arrival) -> None:
        worker, key = arrival.back.finish(), arrival.model.key
        seconds, copied = self._clock() - arrival.began, arrival.back.copied
        self._note(Act.SWITCH, worker, arrival.began)
        self._returned[key] = LoadReport(key, worker.family.value, seconds, 0, copied)
        self._put(arrival.model, worker, arrival.stamps, worker.weight_bytes)
        log.info(
            "%s is back on %s in %.3f s: %.2f GB from the host's memory",
            arrival.model.path,
            self._device,
            seconds,
            copied / 1e9,
        )

    def _put(self, model: ModelSpec, worker: Worker, stamps: _Stamps, held: int) -> None:
        self._registry.register_model(model.key, model.path, held)
        self._workers[model.key] = worker
        self._stamps[model.key] = stamps
        self._beside[model.key] = held - worker.weight_bytes

    def _load_weights(self, weights: ModelSpec, *, others_draw: bool) -> None:
        before, began = self._registry.get_used_vram(), self._clock()
        stamps = _stamps(weights)  # before they are read, so that no change is missed
        try:
            if self._waits(weights):
                self._arriving = _Arrival(weights, self._fetch(weights.key), began, stamps)
            else:
                worker = self.create(weights)
        except Exception as error:
            if not (isinstance(error, NotEnoughMemoryError) or is_out_of_memory(error)):
                raise
            let_go(error)
            if not self.relieve():
                raise self._too_large(weights) from None
            is_short = True
        else:
            is_short = False
        if is_short:
            return self._load_weights(weights, others_draw=others_draw)  # with what has gone
        if self._arriving is not None:
            if others_draw:
                raise MustWaitError
            self.work(hurry=True)
            return None
        self._note(Act.LOAD, worker, began)
        held = self._held(worker, before)
        self._ledger.note(weights, held)
        self._put(weights, worker, stamps, held)
        if self._cache is not None:
            self._cache.enter(weights.key, stamps, worker)
        return None

    def _held(self, worker: Worker, before: int) -> int:
        """Returns the bytes that a model has taken, of which so many were taken before."""
        if self._device == "cpu":  # its memory is everybody's: a difference would tell of others
            return worker.weight_bytes
        # What others let go of meanwhile, as one that compiles does, is not this model's.
        return max(worker.weight_bytes, self._registry.get_used_vram() - before)

    def _fetch(self, key: str) -> "Return":
        assert self._cache is not None  # noqa: S101 - it said that the model waits there
        return self._cache.fetch(key)

    def _waits(self, model: ModelSpec) -> bool:
        """Returns whether a model can return from the host's memory as it is on disk."""
        return self._cache is not None and self._cache.has(model.key, _stamps(model))

    def _is_current(self, model: ModelSpec) -> bool:
        """Returns whether a loaded model's files are still the same; one that is gone counts so."""
        loaded = self._stamps.get(model.key, {})
        return all(loaded.get(file) == stamp for file, stamp in _stamps(model).items())

    def _lacking(self, model: ModelSpec) -> list[Path]:
        """Returns the LoRAs that are not in memory beside a model, or not as they are on disk."""
        worker = self._workers.get(model.key)
        paths = dict.fromkeys(lora.path for lora in model.loras if lora.strength)
        return [path for path in paths if worker is None or not worker.holds_lora(path)]

    def _too_large(self, weights: ModelSpec) -> NotEnoughMemoryError:
        needed = self._ledger.needed(weights)
        registry = self._registry
        return NotEnoughMemoryError(
            weights.path, needed, registry.get_available_vram(), registry.get_total_vram()
        )

    def _load_loras(self, model: ModelSpec) -> None:
        worker = self._workers[model.key]
        try:
            for path in self._lacking(model):
                self.relieved(partial(worker.load_lora, path), keep=model)
        finally:
            wanted = self._wanted([*self._drawn(), *self.joining, model], model.key)
            idle = [path for path in worker.loras if path not in wanted]
            self._shed(model.key, idle[: max(0, len(worker.loras) - LORAS_KEPT)])

    # Going

    def _make_room(self, model: ModelSpec, *, others_draw: bool) -> None:
        """Drops what must go for a model and its LoRAs.

        Raises:
            MustWaitError: it fits once others are done.
            ModelError: it can't be loaded, or never fits; nobody is dropped for it.
        """
        waits = model.key not in self._workers and self._waits(model)
        if not waits:
            check_model(model)
        if model.key in self._workers and not self._is_current(model):
            if self._registry.in_use(model.key):
                raise MustWaitError  # they go on with what it was
            self.drop(model.key, for_good=True)
        lacking = self._lacking(model)
        needed = sum(map(self._ledger.estimate_lora, lacking))
        worker = self._workers.get(model.key)
        with ExitStack() as lease:
            if worker is None:
                needed += self._missing(model) if waits else self._ledger.needed(model)
            elif self._wanted(self._drawn(), model.key).intersection(lacking):
                raise MustWaitError  # the file has changed, and they go on with what it was
            else:
                lease.enter_context(self._registry.lease(model.key))
                self._shed(model.key, [path for path in worker.loras if path in lacking])
            if self._device == "cpu" and self._cache is not None:
                self._cache.relieve(needed)  # copies and models share one memory
            for name in self._to_drop(model, needed, others_draw=others_draw):
                self.drop(name)

    def _missing(self, model: ModelSpec) -> int:
        assert self._cache is not None  # noqa: S101 - it said that the model waits there
        return self._cache.missing(model.key)

    def _to_drop(self, model: ModelSpec, needed: int, *, others_draw: bool) -> list[str]:
        """Returns the models that must go; the LoRAs that nobody draws with go before any does."""
        try:
            names = self._registry.make_room(needed, model.path)
        except NotEnoughMemoryError:
            if not self._registry.could_fit(needed):
                raise
            if self._shed_idle(model):
                return self._to_drop(model, needed, others_draw=others_draw)
            if others_draw:
                raise MustWaitError from None  # what they draw with can go when they are done
            raise
        if names and self._shed_idle(model):
            return self._to_drop(model, needed, others_draw=others_draw)
        return names

    @staticmethod
    def _wanted(drawn: Iterable[ModelSpec], key: str) -> set[Path]:
        """Returns the LoRAs that a model is drawn with."""
        return {lora.path for spec in drawn if spec.key == key for lora in spec.loras}

    def _shed_idle(self, joining: ModelSpec | None = None) -> bool:
        """Drops the LoRAs that nobody draws with; returns whether there were any."""
        drawn = [*self._drawn(), *self.joining, *([joining] if joining else [])]
        shed = False
        for key, worker in self._workers.items():
            wanted = self._wanted(drawn, key)
            idle = [path for path in worker.loras if path not in wanted]
            self._shed(key, idle)
            shed = shed or bool(idle)
        return shed

    def _shed(self, key: str, paths: Sequence[Path]) -> None:
        worker = self._workers[key]
        for path in paths:
            worker.drop_lora(path)
            log.info("Dropped %s from %s", path, self._device)
        held = worker.weight_bytes + self._beside[key]
        self._registry.set_loras(key, worker.loras, held)

    def relieved(self, act: Callable[[], _Made], keep: ModelSpec | None = None) -> _Made:
        """Does what leaves all as it was where it fails; for lack of memory, what is idle goes.

        Args:
            act: what is done; again, as long as it lacks memory and there is something to drop.
            keep: a model that stays with its LoRAs, though nobody draws with it yet.
        """
        while True:
            try:
                return act()
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                let_go(error)
                if not self.relieve(keep):
                    raise

    def relieve(self, keep: ModelSpec | None = None) -> bool:
        """Drops something that nobody draws with; returns whether there was anything.

        LoRAs go first, they are soonest back; then the least recently used model.

        Args:
            keep: as in `relieved`.
        """
        if self._shed_idle(keep):
            return True
        if self._device == "cpu" and self._cache is not None and self._cache.shrink():
            return True
        for name in self._registry.get_loaded_models():
            if not self._registry.in_use(name) and (keep is None or name != keep.key):
                self.drop(name)
                return True
        return False

    def drop(self, key: str, *, for_good: bool = False) -> None:
        """Takes a model off the device; an unknown one is no error.

        Args:
            key: the model's.
            for_good: whether it leaves the host's memory, too.
        """
        worker = self._workers.pop(key, None)
        self._beside.pop(key, None)
        self._stamps.pop(key, None)
        self._returned.pop(key, None)
        self._registry.unregister_model(key)
        if for_good and self._cache is not None:
            self._cache.forget(key)
        if worker is None:
            return
        if for_good or self._cache is None or not self._cache.park(key):
            worker.close()
        log.info("Dropped %s from %s", worker.model.path, self._device)

    def close(self) -> None:
        """Drops everything."""
        if self._arriving is not None:
            self.work(hurry=True)
        for key in self.keys:
            self.drop(key, for_good=True)
        if self._cache is not None:
            self._cache.close()


def _stamps(model: ModelSpec) -> _Stamps:
    """Returns what tells the files of a model's weights from others of the same names."""
    stamps: _Stamps = {}
    for path in filter(None, (model.path, model.vae)):
        with suppress(ModelError):  # it is gone, or nobody may read it
            stamps.update((file, file_stamp(file)) for file in weight_files(path))
    return stamps
