"""What travels between the bot, the process that speaks with Ray, and workers on other machines.

To the driver (`engine.ray_driver`) go `Connect`, then `Open`, `Tell`, `End` and `Want`; from it
come `Connected`, `Places`, `Heard`, `Lost` and `Disconnected`. A worker itself hears the frames of
`engine.messages` and a few more: `Locate`, `Keep` and `SourcedRun`. What it says beside its step
loop comes as `Aside`.
"""

from dataclasses import dataclass, field
from pathlib import Path

from engine.messages import Reply, Run
from engine.model_contents import Content


@dataclass(frozen=True, slots=True)
class Place:
    """A device of the cluster that a worker can have for itself.

    Attributes:
        key: unique in the cluster.
        node: Ray's id of its machine.
        device: what people call it, such as ``attic cuda:0``.
        kind: what torch calls it within the worker's process, ``cuda:0`` or ``cpu``.
        workers: how many its machine has place for, which share memory and cores.
    """

    key: str
    node: str
    device: str
    kind: str
    workers: int = 1


@dataclass(frozen=True, slots=True)
class Connect:
    """To a new driver, first of all.

    Attributes:
        address: of the head, such as ``10.0.0.2:6379``; ``auto`` finds one on this machine.
        gpus_per_worker: share of a GPU, or GPUs, of each worker; 0 draws on CPUs.
        labels: those that a machine must have.
        log_level: as `logging` numbers them.
        worker: the class that becomes an actor, as ``module:name``; benchmarks have one of theirs.
    """

    address: str
    gpus_per_worker: float
    labels: tuple[tuple[str, str], ...] = ()
    log_level: int = 20
    worker: str = "engine.ray_worker:RayWorker"


@dataclass(frozen=True, slots=True)
class Open:
    """Have a worker started; answered by `Heard` with its first word, or by `Lost`.

    Attributes:
        life: tells this worker from all others before and after.
        place: where.
        start: the frame of `engine.messages.Start`.
        seconds: it may take until it answers.
    """

    life: int
    place: Place
    start: bytes
    seconds: float


@dataclass(frozen=True, slots=True)
class Tell:
    """Have a frame travel to a worker."""

    life: int
    frame: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class End:
    """End a worker at once."""

    life: int


@dataclass(frozen=True, slots=True)
class Want:
    """Have Ray's autoscaler see to it that there is room for so many workers."""

    workers: int


@dataclass(frozen=True, slots=True)
class Connected:
    """The cluster answers."""


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The cluster doesn't answer, or not any more; the driver ends.

    Attributes:
        reason: a whole sentence without its full stop.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class Places:
    """What there is to draw on has changed, or is known for the first time."""

    places: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class Heard:
    """A worker has said something: frames of `engine.messages`."""

    life: int
    frames: tuple[bytes, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Lost:
    """A worker is gone.

    Attributes:
        life: which.
        reason: continues "The worker on attic cuda:0 …".
        is_machine: whether its machine or the way there is gone, so that no request is to blame.
    """

    life: int
    reason: str
    is_machine: bool


@dataclass(frozen=True, slots=True)
class Locate:
    """Find files by their contents; answered by the paths that are lacking, as they were named.

    Attributes:
        call_id: the call's number.
        files: each file or folder with its content; None where the asking machine has none itself,
            and the path alone counts.
    """

    call_id: int
    files: tuple[tuple[Path, Content | None], ...]


@dataclass(frozen=True, slots=True)
class Keep:
    """Keep a part of a file that is lacking; answered by None.

    Attributes:
        call_id: the call's number.
        named: how the file or folder is named by whoever asks.
        content: what it is when it is whole.
        part: the file within a folder; empty for a single file.
        offset: where the bytes belong.
        data: some of its bytes.
        is_last: whether it is whole with this; then it is examined and put into its place.
    """

    call_id: int
    named: Path
    content: Content
    part: str
    offset: int
    data: bytes = field(repr=False)
    is_last: bool = False


@dataclass(frozen=True, slots=True)
class SourcedRun:
    """Draw a request from a picture, which comes along."""

    run: Run
    source: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Aside:
    """A worker's word that comes not from its step loop, and so doesn't show that it turns."""

    word: Reply
