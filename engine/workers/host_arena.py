"""Copies of weights in the host's memory, in blocks that are taken once and used again.

A module's tensors lie one behind the other in a row of bytes, and that row is cut into blocks, so
that any copy fits into any free blocks and a way back is a few long copies. For a CUDA device the
blocks are pinned: the copy engine reads them at the speed of the bus while kernels run.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

# Only the worker process imports this module.
import torch  # noqa: TID253

BLOCK = 64 * 2**20
"""Bytes of a block: long enough for a copy to reach the speed of the bus."""

_ALIGNMENT = 512
"""Bytes. Torch allocates at multiples of it on CUDA, and MKL asks for 64 (`alignment`): kernels
choose alike for a tensor that has returned, and it draws the same."""

_cuda: Any = torch.cuda  # torch says nothing of its types


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a tensor lies in the row of bytes, and how it is read."""

    begin: int
    end: int
    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """Where the tensors of a module lie; equal for modules of equal shapes and number formats.

    Attributes:
        slots: in the order of the tensors.
        size: bytes of the whole row.
    """

    slots: tuple[Slot, ...]
    size: int

    @classmethod
    def of(cls, tensors: Sequence[torch.Tensor]) -> "Plan | None":
        """Returns where tensors would lie; None where one is no solid piece of memory."""
        slots, begin = [], 0
        for tensor in tensors:
            if not _is_solid(tensor):
                return None
            end = begin + tensor.nbytes
            slots.append(Slot(begin, end, tensor.dtype, tuple(tensor.shape), tensor.stride()))
            begin = -(-end // _ALIGNMENT) * _ALIGNMENT
        return cls(tuple(slots), begin)

    def views(self, row: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Returns the tensors out of a row of bytes, without a copy."""
        return tuple(
            row[slot.begin : slot.end].view(slot.dtype).as_strided(slot.shape, slot.stride)
            for slot in self.slots
        )

    def cut(
        self, tensors: Sequence[torch.Tensor], begin: int, end: int
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """Yields the bytes of tensors that lie in a stretch of the row, each with its place."""
        for slot, tensor in zip(self.slots, tensors, strict=True):
            first, last = max(slot.begin, begin), min(slot.end, end)
            if first < last:
                yield first, _bytes(tensor)[first - slot.begin : last - slot.begin]


def _is_solid(tensor: torch.Tensor) -> bool:
    return tensor.is_contiguous() or (
        tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    )


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    """Returns a tensor's memory as it lies."""
    return tensor.detach().as_strided((tensor.numel(),), (1,)).view(torch.uint8)


class HostArena:
    """The blocks: as many as a budget allows, taken when first needed, kept for the next copy.

    Args:
        budget: bytes that all of them may hold.
        pinned: whether a GPU copies from them.
        block: bytes of each; a multiple of 512.
    """

    def __init__(self, budget: int, *, pinned: bool, block: int = BLOCK) -> None:
        self.block = block
        self.most = budget // block
        self._pinned = pinned
        self._free: list[torch.Tensor] = []
        self._taken = 0

    @property
    def held_bytes(self) -> int:
        """Memory that it holds, used or not."""
        return (self._taken + len(self._free)) * self.block

    @property
    def used_bytes(self) -> int:
        """Memory that copies lie in."""
        return self._taken * self.block

    def count(self, size: int) -> int:
        """Returns the blocks that so many bytes take."""
        return -(-size // self.block)

    def missing(self, count: int) -> int:
        """Returns the bytes of new memory that so many blocks would take."""
        return max(0, count - len(self._free)) * self.block

    def has_room(self, count: int) -> bool:
        """Returns whether so many blocks are within the budget now."""
        return self._taken + count <= self.most

    def take(self, count: int) -> list[torch.Tensor]:
        """Returns blocks; what they hold is anything.

        Raises:
            MemoryError: they are beyond the budget, or the machine has none.
        """
        if not self.has_room(count):
            raise MemoryError(f"{count} blocks are beyond the budget of {self.most}")
        while len(self._free) < count:
            self._free.append(self._new())
        blocks = [self._free.pop() for _ in range(count)]
        self._taken += count
        return blocks

    def give(self, blocks: Sequence[torch.Tensor]) -> None:
        """Takes blocks back."""
        self._free += blocks
        self._taken -= len(blocks)

    def trim(self) -> None:
        """Gives the memory of unused blocks back to the machine."""
        for block in self._free:
            if self._pinned:
                _cuda.cudart().cudaHostUnregister(block.data_ptr())
        self._free.clear()

    def _new(self) -> torch.Tensor:
        try:
            block = torch.empty(self.block, dtype=torch.uint8)
        except RuntimeError as error:  # torch's own kind of no memory
            raise MemoryError(str(error)) from error
        if self._pinned:
            # Not torch's own pinned memory: its allocator never gives any back.
            answer = _cuda.cudart().cudaHostRegister(block.data_ptr(), self.block, 0)
            if int(answer) != 0:
                raise MemoryError(f"the driver can't pin {self.block} bytes ({answer})")
        return block
