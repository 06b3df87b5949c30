"""What drawing takes of a device's memory beside the weights, watched where the device can tell."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from engine.measured_file import MeasuredFile
from engine.model_registry import ModelRegistry
from engine.room import Space

MOST_KEPT = 300
"""Sizes that are remembered; the oldest go."""


class MemoryWatch:
    """The memory of one device. One thread uses it.

    Args:
        device: such as ``cpu`` or ``cuda:0``.
        registry: knows what models hold.
        measured: remembers what sizes took.
    """

    def __init__(self, device: str, registry: ModelRegistry, measured: MeasuredFile) -> None:
        self._device = device
        self._registry = registry
        self._measured = measured
        self._section = f"bytes of a row beside the weights on {device}"
        self._total: int | None = None
        self._held: dict[str, int] = {}
        self._peaks: dict[tuple[str, int], int] = {}
        for name, taken in measured.read(self._section, _bytes).items():
            pixels, _, model = name.partition(" ")
            if pixels.isascii() and pixels.isdecimal() and len(pixels) <= 12 and int(pixels):
                self._peaks[model, int(pixels)] = taken

    def space(self) -> Space:
        """Returns all that is known."""
        if self._total is None:
            self._total = self._registry.get_total_vram()
        for name, model in self._registry.get_loaded_models().items():
            self._held[name] = model.vram_bytes
        number = 4 if self._device == "cpu" else 2
        return Space(self._total, number, dict(self._held), dict(self._peaks))

    @contextmanager
    def watched(self, model: str, pixels: int, rows: int, *, alone: bool) -> Iterator[None]:
        """Notes the most that a forward pass takes, where the device counts it.

        Decodes are not watched: where memory lacks, they are made in tiles.

        Args:
            model: `ModelSpec.key`.
            pixels: of a picture.
            rows: of the pass, those included that only fill it up.
            alone: whether it is a single picture's, and nothing else is done meanwhile.
        """
        if self._device == "cpu" or not alone:
            yield
            return
        import torch

        torch.cuda.reset_peak_memory_stats(self._device)
        before = torch.cuda.memory_allocated(self._device)
        yield
        self.note(model, pixels, torch.cuda.max_memory_allocated(self._device) - before, rows)

    def note(self, model: str, pixels: int, taken: int, rows: int) -> None:
        """Remembers what each row took beside the weights, if it is more than was known."""
        taken //= rows
        if taken <= self._peaks.get((model, pixels), 0):
            return
        self._peaks.pop((model, pixels), None)
        self._peaks[model, pixels] = taken
        while len(self._peaks) > MOST_KEPT:
            del self._peaks[next(iter(self._peaks))]
        entries = {f"{size} {key}": most for (key, size), most in self._peaks.items()}
        self._measured.write(self._section, entries)


def _bytes(entry: Any) -> int | None:
    return entry if type(entry) is int and 0 < entry < 2**50 else None
