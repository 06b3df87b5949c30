"""The models that come back onto a device without being read from the disk again.

After a model's first load its weights are copied into the host's memory (`HostArena`), a block at
a time between two steps. When it has to leave the device, its worker stays as it is, without
weights; on its return they are copied back while others draw, and take effect between two steps.
Parts of equal content, such as the text encoders of two checkpoints, are held once: in the host's
memory, and on the device.
"""

import logging
import weakref
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import psutil

# Only the worker process imports this module.
import torch  # noqa: TID253

from engine.workers.base import Worker
from engine.workers.host_arena import BLOCK, HostArena, Plan

MARGIN = 0.1
"""Share of the machine's memory that is left to others: less than that free, and copies go."""

_LOOK_EVERY = 64  # times: it takes as long as some microseconds' drawing

_cuda: Any = torch.cuda  # torch says nothing of its types

log = logging.getLogger(__name__)

Tensors = tuple[torch.Tensor, ...]


@dataclass(slots=True, eq=False, weakref_slot=True)
class _OnDevice:
    """A part's tensors on the device, for all models that share it."""

    tensors: Tensors


@dataclass(slots=True, eq=False)
class _Copy:
    """A part in the host's memory.

    Attributes:
        users: models that have it.
        on_device: the same on the device, as long as one of them is there.
    """

    plan: Plan
    blocks: list[torch.Tensor]
    users: int = 0
    on_device: "weakref.ref[_OnDevice] | None" = None

    @property
    def here(self) -> _OnDevice | None:
        return None if self.on_device is None else self.on_device()


@dataclass(slots=True, eq=False)
class _Kept:
    """A model.

    Attributes:
        stamp: what tells its files from others of the same names.
        parts: the tensors that its worker draws with; they get and lose their memory here.
        copies: of the parts, as far as they are made.
        on_device: its share of what is on the device; empty while it is not there.
        is_back: whether it is on the device or on its way.
    """

    worker: Worker
    stamp: object
    parts: list[Tensors]
    copies: list[_Copy] = field(default_factory=list)
    on_device: list[_OnDevice] = field(default_factory=list)
    is_back: bool = True

    @property
    def is_whole(self) -> bool:
        return len(self.copies) == len(self.parts)


class HostCache:
    """What the host's memory holds for one device. One thread uses it.

    Args:
        device: such as ``cpu`` or ``cuda:0``.
        budget: bytes that copies may hold; below one block it holds nothing.
        block: see `HostArena`.
        available: the machine's free memory in bytes; None asks it.
        total: all of it.
    """

    def __init__(
        self,
        device: str,
        budget: int,
        *,
        block: int = BLOCK,
        available: Callable[[], int] | None = None,
        total: int | None = None,
    ) -> None:
        self.device = device
        cuda = device.startswith("cuda")
        self.arena = HostArena(budget, pinned=cuda, block=block)
        self._stream: Any = _cuda.Stream(device) if cuda else None
        self._available = available or (lambda: int(psutil.virtual_memory().available))
        self._margin = int(MARGIN * (total or psutil.virtual_memory().total))
        self._kept: OrderedDict[str, _Kept] = OrderedDict()  # the least recently used first
        self._copies: list[_Copy] = []
        self._copying: Generator[None, None, None] | None = None
        self._to_copy: str | None = None
        self._looks = 0

    @property
    def busy(self) -> bool:
        """Whether `work` has something to do."""
        return self._copying is not None

    @property
    def waiting(self) -> tuple[str, ...]:
        """Keys of the models that are here and not on the device."""
        return tuple(key for key, kept in self._kept.items() if not kept.is_back)

    def enter(self, key: str, stamp: object, worker: Worker) -> None:
        """Begins to copy a model that has just been loaded; `work` goes on with it.

        Args:
            key: the model's.
            stamp: equal as long as its files are the same.
            worker: draws with it.
        """
        self.forget(key)
        parts = [tuple(tensors) for tensors in worker.parts().values()]
        if not parts or not self.arena.most:
            return
        self.finish()  # another one's
        self._kept[key] = _Kept(worker, stamp, parts)
        self._copying, self._to_copy = self._copy(key), key

    def work(self) -> None:
        """Copies a block, where one is left to copy; now and then looks at the machine's memory."""
        self._looks += 1
        if self._kept and self._looks % _LOOK_EVERY == 0:
            self.relieve()
        if self._copying is not None and next(self._copying, self) is self:
            self._copying = self._to_copy = None

    def finish(self) -> None:
        """Copies all that is left to copy."""
        while self.busy:
            self.work()

    def relieve(self, needed: int = 0) -> bool:
        """Forgets the least recently used copies until the machine has memory to spare.

        Args:
            needed: bytes that shall be free beside the `MARGIN`.

        Returns:
            Whether there is that much now.
        """
        while self._available() < self._margin + needed:
            self.arena.trim()
            if self._available() >= self._margin + needed:
                break
            if not self.shrink():
                return False
        return True

    def shrink(self) -> bool:
        """Forgets the least recently used model; returns whether there was one to forget."""
        for key, kept in self._kept.items():
            if key != self._to_copy and not (kept.is_back and not kept.on_device):
                self.forget(key)
                self.arena.trim()
                return True
        return False

    def park(self, key: str) -> bool:
        """Takes a model's weights off the device; its worker waits here for its return.

        Returns:
            False where it is not here: then whoever has the worker closes it.
        """
        kept = self._kept.get(key)
        if kept is None:
            return False
        if key == self._to_copy:
            self.finish()
        if key not in self._kept or not kept.is_whole:
            self.forget(key)
            return False
        kept.worker.rest()
        for tensors in kept.parts:
            for tensor in tensors:
                tensor.data = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
        kept.on_device.clear()
        kept.is_back = False
        self._kept.move_to_end(key)
        return True

    def has(self, key: str, stamp: object) -> bool:
        """Returns whether a model can return; one whose files have changed is forgotten."""
        kept = self._kept.get(key)
        if kept is not None and kept.stamp != stamp:
            self.forget(key)
            return False
        return kept is not None and not kept.is_back

    def parked(self, key: str) -> Worker | None:
        """Returns the worker of a model that is here and not on the device."""
        kept = self._kept.get(key)
        return None if kept is None or kept.is_back else kept.worker

    def missing(self, key: str) -> int:
        """Returns the bytes that a model takes on the device beyond what it shares there."""
        return sum(copy.plan.size for copy in self._kept[key].copies if copy.here is None)

    def fetch(self, key: str) -> "Return":
        """Begins to copy a model back.

        Raises:
            torch.OutOfMemoryError: the device has no room; nothing has changed.
        """
        kept = self._kept[key]
        back = Return(kept, self.device, self._stream, self.arena.block)
        kept.is_back = True
        self._kept.move_to_end(key)
        return back

    def forget(self, key: str) -> None:
        """Gives a model's copies up; a worker that waits here is closed."""
        kept = self._kept.pop(key, None)
        if kept is None:
            return
        if key == self._to_copy:
            self._copying = self._to_copy = None
        for copy in kept.copies:
            self._release(copy)
        if not kept.is_back:
            kept.worker.close()

    def close(self) -> None:
        """Gives everything up."""
        for key in list(self._kept):
            self.forget(key)
        self.arena.trim()

    # Copying

    def _copy(self, key: str) -> Generator[None, None, None]:
        kept = self._kept[key]
        for tensors in kept.parts:
            # Between two blocks a VAE that overflows may get wider numbers, in other memory.
            now = tuple(tensor.data for tensor in tensors)
            plan = Plan.of(now)
            copy = None
            if plan is not None:
                copy = yield from self._equal(plan, now)
                copy = copy or (yield from self._new(plan, now))
            if copy is None:
                log.info("%s stays out of the host's memory: no room", kept.worker.model.path)
                self.forget(key)
                return
            copy.users += 1
            kept.copies.append(copy)
            self._share(kept, copy, tensors, now)

    def _equal(self, plan: Plan, tensors: Tensors) -> Generator[None, None, _Copy | None]:
        """Returns the copy whose every byte is that of some tensors; most differ at once."""
        alike = [copy for copy in self._copies if copy.plan == plan]
        if alike:
            scratch = torch.empty(self.arena.block, dtype=torch.uint8)
        for number in range(self.arena.count(plan.size)):
            if not alike:
                return None
            part = yield from self._read(plan, tensors, number, scratch)
            alike = [copy for copy in alike if torch.equal(copy.blocks[number][: len(part)], part)]
        alike = [copy for copy in alike if copy.users]  # the others went meanwhile
        return alike[0] if alike else None

    def _new(self, plan: Plan, tensors: Tensors) -> Generator[None, None, _Copy | None]:
        count = self.arena.count(plan.size)
        if count > self.arena.most:
            return None
        while not self.arena.has_room(count):
            if not self.shrink():
                return None
        missing = self.arena.missing(count)
        if missing and not self.relieve(missing):
            return None
        try:
            copy = _Copy(plan, self.arena.take(count))
        except MemoryError as error:
            log.warning("The host's memory takes no more weights: %s", error)
            return None
        try:
            for number, block in enumerate(copy.blocks):
                yield from self._read(plan, tensors, number, block)
        except GeneratorExit:  # the model was forgotten meanwhile
            if self._stream is not None:
                self._stream.synchronize()  # nothing may write into them any more
            self.arena.give(copy.blocks)
            raise
        self._copies.append(copy)
        return copy

    def _read(
        self, plan: Plan, tensors: Tensors, number: int, block: torch.Tensor
    ) -> Generator[None, None, torch.Tensor]:
        """Fills a block with its stretch of the row, and returns as much of it as there is."""
        begin = number * self.arena.block
        end = min(plan.size, begin + self.arena.block)
        block[: end - begin].zero_()  # between the tensors
        if self._stream is not None:
            self._stream.wait_stream(_cuda.current_stream(self.device))
        with _on(self._stream):
            for at, piece in plan.cut(tensors, begin, end):
                block[at - begin : at - begin + len(piece)].copy_(piece, non_blocking=True)
        done = _recorded(self._stream)
        yield
        while not done():
            yield
        return block[: end - begin]

    def _share(self, kept: _Kept, copy: _Copy, tensors: Tensors, copied: Tensors) -> None:
        """Lets a model on the device draw with the part that another one has there already."""
        here = copy.here
        if here is None:
            here = _OnDevice(copied)
            copy.on_device = weakref.ref(here)
        else:
            _point(tensors, here.tensors)
        kept.on_device.append(here)

    def _release(self, copy: _Copy) -> None:
        copy.users -= 1
        if not copy.users:
            self._copies.remove(copy)
            self.arena.give(copy.blocks)


class Return:
    """A model's way back onto the device; made by `HostCache.fetch`.

    Attributes:
        copied: bytes that are copied: parts that another model has there are not.
    """

    def __init__(self, kept: _Kept, device: str, stream: Any, block: int) -> None:
        self._kept = kept
        self._block = block
        self._parts: list[_OnDevice] = []
        self.copied = 0
        rows = []
        for copy in kept.copies:
            part = copy.here
            if part is None:
                row = torch.empty(copy.plan.size, dtype=torch.uint8, device=device)
                part = _OnDevice(copy.plan.views(row))
                rows.append((copy, part, row))
                self.copied += copy.plan.size
            self._parts.append(part)
        for copy, part, _ in rows:
            copy.on_device = weakref.ref(part)
        self._copying = self._copies([(copy, row) for copy, _, row in rows])
        self._done: Callable[[], bool] | None = None
        if stream is not None:
            stream.wait_stream(_cuda.current_stream(device))  # what was there is done with
            with _on(stream):
                for _ in self._copying:
                    pass
            for _, _, row in rows:
                row.record_stream(stream)
            self._done = _recorded(stream)
        self._stream = stream

    def advance(self) -> bool:
        """Goes on by a block on the CPU; elsewhere the device does so by itself.

        Returns:
            Whether all is there.
        """
        if self._done is not None:
            return self._done()
        return next(self._copying, self) is self

    def finish(self) -> Worker:
        """Waits for what is left, gives the worker its weights and returns it."""
        if self._stream is not None:
            self._stream.synchronize()
        else:
            for _ in self._copying:
                pass
        for tensors, part in zip(self._kept.parts, self._parts, strict=True):
            _point(tensors, part.tensors)
        self._kept.on_device = self._parts
        return self._kept.worker

    def _copies(self, rows: Iterable[tuple[_Copy, torch.Tensor]]) -> Generator[None, None, None]:
        for copy, row in rows:
            for number, block in enumerate(copy.blocks):
                stretch = row[number * self._block : (number + 1) * self._block]
                stretch.copy_(block[: len(stretch)], non_blocking=True)
                yield


def _point(tensors: Sequence[torch.Tensor], at: Sequence[torch.Tensor]) -> None:
    """Gives tensors the memory of others."""
    for tensor, other in zip(tensors, at, strict=True):
        tensor.data = other


def _on(stream: Any) -> Any:
    return nullcontext() if stream is None else _cuda.stream(stream)


def _recorded(stream: Any) -> Callable[[], bool]:
    """Returns what tells whether all that a stream was told so far is done."""
    if stream is None:
        return lambda: True
    event = _cuda.Event()
    event.record(stream)
    return lambda: bool(event.query())


def default_budget(device: str, devices: int, total: int | None = None) -> int:
    """Returns the bytes that copies may hold where the owner sets nothing.

    A quarter of the machine's memory, shared by its GPUs. A CPU draws in that very memory: what is
    kept for it twice would only be evicted sooner.
    """
    if not device.startswith("cuda"):
        return 0
    return (total or int(psutil.virtual_memory().total)) // 4 // max(1, devices)
