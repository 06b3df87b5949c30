"""Which devices to draw on: reads the setting, asks the CUDA driver, never imports torch."""

import importlib.util
import logging
import re
import runpy
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ALLOWED = "auto, cpu, or CUDA devices such as cuda:0,cuda:1"

_DEVICE = re.compile(r"cpu|cuda:(?:0|[1-9][0-9]?)")
_PROBE_SECONDS = 20

# Asks the driver itself, in a process that ends: the driver's answer obeys CUDA_VISIBLE_DEVICES as
# torch does, and a process that has asked keeps a context for good.
_PROBE = """
import ctypes, sys
cuda = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
count = ctypes.c_int(0)
if cuda.cuInit(0) == 0 and cuda.cuDeviceGetCount(ctypes.byref(count)) == 0:
    sys.stdout.write(str(count.value))
"""

log = logging.getLogger(__name__)


def parse_devices(setting: str) -> tuple[str, ...]:
    """Returns the devices that a setting names; none for ``auto``.

    Args:
        setting: `ALLOWED`, in any case.

    Raises:
        ValueError: it is something else, or names a device twice; the text says which.
    """
    text = setting.strip().lower()
    if text == "auto":
        return ()
    names = [name.strip() for name in text.split(",")]
    names = ["cuda:0" if name == "cuda" else name for name in names]
    for name in names:
        if not _DEVICE.fullmatch(name):
            raise ValueError(f"it has {name!r} in it" if name else "it has a gap in it")
    if len(set(names)) < len(names):
        raise ValueError("it names a device twice")
    return tuple(names)


def find_devices() -> tuple[str, ...]:
    """Returns what ``auto`` is here: every CUDA device that the driver shows, or else the CPU.

    The CPU, too, where the installed torch has no CUDA. Takes up to some seconds: call it in a
    thread where that matters.
    """
    count = cuda_devices() if torch_has_cuda() else 0
    return tuple(f"cuda:{i}" for i in range(count)) or ("cpu",)


def may_fall_back(devices: Sequence[str], *, are_named: bool) -> bool:
    """Returns whether the CPU will do in place of a device that torch can't use.

    Not in place of one that somebody named, nor of one of several: the others draw many times as
    fast, and what a CPU took from them would come late.

    Args:
        devices: all that are drawn on.
        are_named: whether somebody chose them; else they were found.
    """
    return not are_named and len(devices) == 1


def cuda_devices() -> int:
    """Returns how many CUDA devices the driver shows to a new process; 0 without a driver."""
    try:
        probe = subprocess.run(  # noqa: S603 - our own interpreter and our own words
            [sys.executable, "-I", "-S", "-c", _PROBE],
            capture_output=True,
            timeout=_PROBE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        log.warning("The CUDA driver could not be asked for its devices: %s", error)
        return 0
    answer = probe.stdout.decode(errors="replace").strip()
    return int(answer) if answer.isdecimal() else 0


def torch_has_cuda() -> bool:
    """Returns whether the installed torch is a build with CUDA, without importing it."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return False  # the worker process will say what is missing
    version = Path(spec.origin).with_name("version.py")
    return version.is_file() and runpy.run_path(str(version)).get("cuda") is not None
