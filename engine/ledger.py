"""What models take in memory: worked out from their headers at first, measured once loaded.

Measured numbers are kept in a small file (`engine.measured_file`), so that the next start knows
them.
"""

import hashlib
import json
import logging
from math import prod
from pathlib import Path
from typing import Any

from engine.errors import ModelError
from engine.jobs import ModelSpec
from engine.measured_file import MeasuredFile
from engine.model_files import (
    file_size,
    file_stamp,
    is_folder,
    read_header,
    weight_files,
)
from engine.vae_detector import detect_vae

MOST_KEPT = 500
"""Measured models that the file keeps; the oldest go."""

_NUMBERS = {"cpu": ("float32", 4), "cuda": ("float16", 2)}
"""What weights become on a kind of device, and bytes that each takes."""

_PARTS = ("model.diffusion_model.", "cond_stage_model.", "conditioner.", "first_stage_model.")
"""How the names begin that are loaded from a single file; averages of training (EMA) are not."""

_VAE = "first_stage_model."

_SECTION = "bytes"

log = logging.getLogger(__name__)


class Ledger:
    """What models take on one kind of device. One thread uses it."""

    def __init__(self, device: str, path: Path | None = None) -> None:
        """Reads what was measured before.

        Args:
            device: such as ``cpu`` or ``cuda:0``.
            path: the file; None keeps nothing beyond this object.
        """
        self._kind = device.partition(":")[0]
        self._format, self._width = _NUMBERS[self._kind]
        self._file = MeasuredFile(path)
        self._measured = self._read()

    def needed(self, model: ModelSpec) -> int:
        """Returns the bytes that a model takes without its LoRAs: measured, or else estimated.

        Raises:
            ModelError: a file is missing or can't be read.
        """
        estimated = self.estimate(model)
        measured = self._measured.get(self._key(model))
        if measured is None:
            return estimated
        if not estimated / 2 <= measured <= estimated * 2:
            log.warning(
                "%s is said to take %d bytes, its headers tell of %d; taking these",
                model.path,
                measured,
                estimated,
            )
            return estimated
        return measured

    def estimate(self, model: ModelSpec) -> int:
        """Returns the bytes that a model's weights will take in the device's number format.

        Raises:
            ModelError: a file is missing or can't be read, or what is named as VAE is none.
        """
        own = sum(self._numbers(file, model) for file in weight_files(model.path))
        other = 0 if model.vae is None else _vae_numbers(model.vae)
        return (own + other) * self._width

    def estimate_lora(self, path: Path) -> int:
        """Returns the bytes that a LoRA will take.

        Raises:
            ModelError: the file is missing or can't be read.
        """
        return _all_numbers(path) * self._width

    def note(self, model: ModelSpec, measured: int) -> None:
        """Remembers what a model took. Where that can't be done, the log says so."""
        try:
            key = self._key(model)
        except ModelError as error:
            log.warning("What %s took is not remembered: %s", model.path, error)
            return
        if self._measured.get(key) == measured:
            return
        self._measured = self._read() | self._measured
        self._measured.pop(key, None)
        self._measured[key] = measured
        while len(self._measured) > MOST_KEPT:
            del self._measured[next(iter(self._measured))]
        self._file.write(_SECTION, self._measured)

    def _numbers(self, file: Path, model: ModelSpec) -> int:
        if is_folder(model.path):
            return 0 if model.vae is not None and file.parent.name == "vae" else _all_numbers(file)
        names = _PARTS if model.vae is None else tuple(set(_PARTS) - {_VAE})
        return _numbers_under(names, file)

    def _key(self, model: ModelSpec) -> str:
        """Returns what is equal for equal files in equal places that become equal weights."""
        files = (*weight_files(model.path), *(weight_files(model.vae) if model.vae else ()))
        stamps = [(str(file.absolute()), *file_stamp(file)) for file in files]
        digest = hashlib.sha256(json.dumps(stamps).encode()).hexdigest()[:16]
        return f"{model.path.name} {digest} {self._kind} {self._format}"

    def _read(self) -> dict[str, int]:
        return self._file.read(_SECTION, _bytes)


def _bytes(entry: Any) -> int | None:
    return entry if type(entry) is int and entry > 0 else None


def _vae_numbers(path: Path) -> int:
    """Returns how many numbers are loaded of a VAE: of a checkpoint, those of its VAE alone."""
    if is_folder(path):
        return sum(map(_all_numbers, weight_files(path)))
    return _numbers_under(detect_vae(path).prefix, path)


def _all_numbers(file: Path) -> int:
    """Returns how many numbers a file's tensors have."""
    if file.suffix != ".safetensors":
        return file_size(file) // 2  # it will be refused; pickles are not opened
    return _numbers_under("", file)


def _numbers_under(prefix: str | tuple[str, ...], file: Path) -> int:
    """Returns how many numbers the tensors have whose names begin with it, or with one of them."""
    header = read_header(file)
    return sum(prod(tensor.shape) for name, tensor in header.items() if name.startswith(prefix))
