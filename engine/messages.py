"""What crosses the pipe to a worker process, and how it is framed.

A frame is eight bytes (big-endian length), then a pickled message. Both ends are this program, one
the other's child, so that pickle is no danger here; nothing from outside is ever unpickled.
"""

import pickle
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from engine.errors import DreamLabError
from engine.jobs import Event, GenerationRequest, ModelSpec
from engine.pace import Figure, Measurement
from engine.room import Space

HEADER = struct.Struct("!Q")
"""What comes before each message: its length in bytes."""


@dataclass(frozen=True, slots=True)
class Start:
    """To a new process, first of all: what it serves.

    Attributes:
        device: such as ``cpu`` or ``cuda:0``.
        may_fall_back: whether the CPU will do where the device can't be used.
        log_level: the least level of its log lines, as `logging` numbers them.
        max_rows: most rows in a forward pass; None leaves it to the device.
        ledger: the file of what was measured, memory and time; None keeps none.
        host_cache: bytes of the host's memory for models that must leave the device; None leaves it
            to the device.
        workers: how many share the machine's memory; None where each of its GPUs has one.
    """

    device: str
    may_fall_back: bool
    log_level: int
    max_rows: int | None
    ledger: Path | None = None
    host_cache: int | None = None
    workers: int | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """Draw a request; answered by events, the last one a result, or by `JobFailed`.

    Attributes:
        run_id: tells this attempt from an earlier one of the same job, whose last words may
            still be on their way.
        job_id: whose.
        request: what is drawn.
    """

    run_id: int
    job_id: str
    request: GenerationRequest


@dataclass(frozen=True, slots=True)
class Cancel:
    """End a run; answered by `JobFailed` where there was one, by nothing where there was not."""

    run_id: int


@dataclass(frozen=True, slots=True)
class Load:
    """Load a model; answered by a `LoadReport`.

    Attributes:
        model: what is loaded.
        warm: the like of what it will be asked for, prepared after the answer; None prepares
            nothing.
    """

    call_id: int
    model: ModelSpec
    warm: GenerationRequest | None = None


@dataclass(frozen=True, slots=True)
class Unload:
    """Drop a model once nobody draws with it; answered by None."""

    call_id: int
    model: ModelSpec


@dataclass(frozen=True, slots=True)
class Stats:
    """Say what is loaded; answered by `ModelRegistry.get_vram_stats`."""

    call_id: int


@dataclass(frozen=True, slots=True)
class Ping:
    """Say anything: answered by None between two steps, so that silence shows a hang."""

    call_id: int


@dataclass(frozen=True, slots=True)
class Close:
    """End now, whatever runs."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The process can draw.

    Attributes:
        device: where; the CPU where it fell back.
    """

    device: str


@dataclass(frozen=True, slots=True)
class Unusable:
    """The process can't draw, or not any more, and ends.

    Attributes:
        reason: continues "The worker on cuda:0 …".
    """

    reason: str


@dataclass(frozen=True, slots=True)
class JobEvent:
    """Something happened to a job, whose id is the event's."""

    run_id: int
    event: Event


@dataclass(frozen=True, slots=True)
class JobFailed:
    """A job ended without a result."""

    run_id: int
    job_id: str
    error: DreamLabError


@dataclass(frozen=True, slots=True)
class Loading:
    """From now until its next word the step loop loads a model, which may take minutes."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What things take here has been measured, or what is loaded has changed.

    Attributes:
        figures: those that are new or have changed notably.
        loaded: keys of the models in memory.
        waiting: keys of those that wait in the host's memory, off the device.
        space: what is known of the device's memory; None where nothing is yet.
        measurements: each step and load that was measured since the last such message.
    """

    figures: tuple[Figure, ...]
    loaded: tuple[str, ...]
    waiting: tuple[str, ...] = ()
    space: Space | None = None
    measurements: tuple[Measurement, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call returned, or the error that it ended with."""

    call_id: int
    value: Any = None
    error: DreamLabError | None = None


Command: TypeAlias = Run | Cancel | Load | Unload | Stats | Ping | Close
"""What a worker process is told, once it has started."""

Reply: TypeAlias = JobEvent | JobFailed | Loading | Measured | Answer
"""What it says while it works; all of it comes from the step loop, and so shows that it turns."""


def frame(message: object) -> bytes:
    """Returns a message as it crosses the pipe."""
    body = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    return HEADER.pack(len(body)) + body


def unframe(body: bytes) -> Any:
    """Returns the message that came after a header.

    Raises:
        Exception: of any kind, where the other end wrote something else.
    """
    return pickle.loads(body)  # noqa: S301 - from our own child or parent, see above
