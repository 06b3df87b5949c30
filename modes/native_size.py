"""The side that a model was trained at: what a mode draws with that names no size.

Far from it pictures fall apart: below it they are coarse, far above it things appear twice.
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

from engine.jobs import Family, ModelSpec
from engine.model_detector import DetectedModel, detect

NATIVE_SIDES: Mapping[Family, int] = {
    Family.SD15: 512,
    Family.SD2: 512,
    Family.SDXL: 1024,
    Family.SDXL_REFINER: 1024,
}
"""Pixels of both sides by family, from the model cards of their makers."""

SD2_V_SIDE = 768
"""The models of SD2.x that predict v went on training at this side (their model card)."""

Signature: TypeAlias = tuple[tuple[int, int] | None, ...]
"""What differs between two versions of a model."""

# What a folder's family and prediction are read from; the folder of the weights shows new ones.
_TELLING = ("unet", "unet/config.json", "scheduler/scheduler_config.json")


def native_side(model: ModelSpec) -> int:
    """Returns the pixels of both sides; takes milliseconds, and less for a known file.

    Raises:
        ModelError: there is no such model, or what it is can't be told.
    """
    found = _detected(model.path, signature(model.path))
    prediction = model.prediction_type or found.prediction_type_hint
    if found.family is Family.SD2 and prediction == "v_prediction":
        return SD2_V_SIDE
    return NATIVE_SIDES[found.family]


@functools.lru_cache(maxsize=256)
def _detected(path: Path, _: Signature) -> DetectedModel:
    return detect(path)  # an error is not kept: a file that is being copied is looked at again


def signature(path: Path) -> Signature:
    """Returns what tells a model from other versions of it, and from none."""
    return tuple(_stamp(path / part) for part in ("", *_TELLING))


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except (OSError, ValueError):  # ValueError: a NUL byte in the name
        return None
    return status.st_mtime_ns, status.st_size
