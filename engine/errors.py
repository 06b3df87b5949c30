"""The error family: what can go wrong between a request and its picture.

    DreamLabError
    ├── RequestError            the asker can mend it: a field, its value, what is allowed
    │   ├── UnknownModeError
    │   ├── TooLargeError
    │   ├── TooLongError
    │   ├── QueueFullError
    │   └── OwnerQueueFullError
    ├── ModelError              the owner can mend it: a path and the reason
    │   ├── ModelNotFoundError
    │   ├── ModelFormatError    unreadable, truncated or hostile file
    │   ├── UnsupportedModelError
    │   ├── NotEnoughMemoryError
    │   └── ModelElsewhereError     a machine of several lacks it; another may have it
    ├── WorkerDiedError         the process beside the device is gone; the job may be tried again
    │   ├── PoisonousRequestError   it was, and died again
    │   └── WorkerLostError     its machine is gone or out of reach; no request is to blame
    ├── NoDeviceError           no device works; what waits goes on waiting
    ├── JobTimeoutError         it ran for longer than a job may
    ├── DrawingError            the model ran and failed
    │   └── OutOfMemoryError
    ├── JobCancelledError
    └── PoolClosedError

``str(error)`` is one sentence for people who did not write the code: what is wrong, where, and
what is allowed. The facts are attributes too, for code. All of them survive pickling, since they
cross from the worker process.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any


class DreamLabError(RuntimeError):
    """Base of every error that Dream Lab raises on purpose."""

    def __reduce__(self) -> tuple[Any, ...]:
        # The default calls __init__ with the message alone, which the narrow types don't take.
        return _restore, (type(self), self.args, self.__dict__)


def _restore(
    kind: type[DreamLabError], args: tuple[Any, ...], facts: dict[str, Any]
) -> DreamLabError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(facts)
    return error


class RequestError(DreamLabError):
    """The request asks for something that is not allowed.

    Attributes:
        field: name of the request's field, as people type it.
        value: what was asked for.
        allowed: what would have been fine, in words.
    """

    def __init__(self, field: str, value: object, allowed: str) -> None:
        super().__init__(f"{field}: {_shown(value)} is not allowed. Allowed: {allowed}.")
        self.field = field
        self.value = value
        self.allowed = allowed


class UnknownModeError(RequestError):
    """No mode has this name."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        self.known = tuple(known)
        super().__init__("mode", name, ", ".join(self.known) or "no mode is configured")


class QueueFullError(RequestError):
    """As many jobs wait as the queue takes; nothing was stored."""

    def __init__(self, size: int) -> None:
        super().__init__("queue", f"{size} waiting", f"at most {size}; try again in a moment")
        self.size = size


class TooLargeError(RequestError):
    """No device has the memory to draw a picture of this size; nothing was stored.

    Attributes:
        width: pixels that were asked for.
        height: likewise.
        fits: a size that there is room for; None where there is none.
    """

    def __init__(self, width: int, height: int, fits: tuple[int, int] | None) -> None:
        asked = f"{width}x{height}"
        less = "less than that" if fits is None else f"{fits[0]}x{fits[1]}"
        super().__init__("size", asked, less)
        remedy = "No smaller size of this mode fits either." if fits is None else f"{less} fits."
        self.args = (f"{asked} is too big for the memory that this bot draws with. {remedy}",)
        self.width, self.height, self.fits = width, height, fits


class TooLongError(RequestError):
    """Drawing this would take longer than a request may; nothing was stored.

    Attributes:
        seconds: what it would take.
        most: what it may.
    """

    def __init__(self, seconds: float, most: float) -> None:
        super().__init__("request", f"{seconds:.0f} seconds", f"at most {most:.0f} seconds")
        self.args = (
            f"Drawing this would take about {_minutes(seconds)} here; a request may take "
            f"{_minutes(most)} at most. A smaller picture, fewer of them or fewer steps take less.",
        )
        self.seconds, self.most = seconds, most


class OwnerQueueFullError(RequestError):
    """As many jobs of one owner wait as may; nothing was stored.

    Attributes:
        waiting: how many do, or are about to.
        size: how many may.
        asked: how many more were asked for, all of them or none.
    """

    def __init__(self, waiting: int, size: int, asked: int = 1) -> None:
        super().__init__("queue", f"{waiting} of yours waiting", f"at most {size} of one member")
        if asked == 1:
            self.args = (
                f"You have {_counted(waiting, 'request')} waiting; at most {size} may wait at "
                "once. Ask again when one of them is being drawn.",
            )
        else:
            self.args = (
                f"{asked} requests are too many beside the {waiting} that you have waiting; at "
                f"most {size} may wait at once. Ask again when fewer of them wait.",
            )
        self.waiting = waiting
        self.size = size
        self.asked = asked


class ModelError(DreamLabError):
    """A model can't be used; the owner of the bot can mend it.

    Attributes:
        path: the file or folder.
        reason: what is wrong with it.
    """

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = Path(path)
        self.reason = reason

    @property
    def told(self) -> str:
        """The sentence for those who have no business with the owner's folders."""
        lines = self.reason.strip().splitlines() or ["no reason was given"]
        return f"The model {self.path.name} can't be used: {lines[0].rstrip('.')}."


class ModelNotFoundError(ModelError):
    """There is no such file or folder."""

    def __init__(self, path: Path | str) -> None:
        super().__init__(path, "no such file or folder")


class ModelFormatError(ModelError):
    """The file can't be read as what it claims to be."""


class UnsupportedModelError(ModelError):
    """The file is sound, but of a kind that no worker draws with."""


class NotEnoughMemoryError(ModelError):
    """The device can't hold the model, whatever is unloaded.

    Attributes:
        needed: bytes the model takes.
        free: bytes the device could give.
        total: bytes the device has.
    """

    def __init__(self, path: Path | str, needed: int, free: int, total: int) -> None:
        super().__init__(
            path,
            f"needs {needed / 2**30:.2f} GB of memory; {free / 2**30:.2f} GB of "
            f"{total / 2**30:.2f} GB can be freed",
        )
        self.needed = needed
        self.free = free
        self.total = total

    def beside(self, other: Path) -> "NotEnoughMemoryError":
        """Returns the same of a model that must be in memory together with another one."""
        error = NotEnoughMemoryError(self.path, self.needed, self.free, self.total)
        error.args = (f"{self} beside {other}",)
        return error


class ModelElsewhereError(ModelError):
    """A machine has no file of this content; another one may have it.

    Attributes:
        device: whose machine lacks it.
    """

    def __init__(self, path: Path | str, device: str) -> None:
        super().__init__(
            path,
            f"the machine of {device} has no file of this content. Copy it there, below a folder "
            "that DREAMLAB_MODELS names, or let files be sent with RAY_SEND_MODELS",
        )
        self.device = device

    @classmethod
    def everywhere(cls, path: Path | str, devices: Sequence[str]) -> "ModelElsewhereError":
        """Returns the same of every machine there is."""
        error = cls(path, ", ".join(devices))
        error.reason = (
            f"no machine that draws has a file of this content ({error.device}). Copy it to one, "
            "below a folder that DREAMLAB_MODELS names there, or let files be sent with "
            "RAY_SEND_MODELS"
        )
        error.args = (f"{path}: {error.reason}",)
        return error


class WorkerDiedError(DreamLabError):
    """The process beside the device ended or stopped answering.

    Attributes:
        device: the device it served, such as ``cuda:0``.
    """

    def __init__(self, device: str, reason: str) -> None:
        super().__init__(f"The worker on {device} {reason}.")
        self.device = device
        self.reason = reason


class PoisonousRequestError(WorkerDiedError):
    """A worker died each time that it did this job, the last time with nothing beside it."""

    def __init__(self, last: WorkerDiedError) -> None:
        super().__init__(last.device, last.reason)
        self.args = (f"{last} It is not the first time with this request: it isn't tried again.",)


class WorkerLostError(WorkerDiedError):
    """The machine of a worker is gone or out of reach: no request is to blame."""


class NoDeviceError(DreamLabError):
    """Every device is down; nothing was stored.

    Attributes:
        devices: their names; none where there is not even one.
    """

    def __init__(self, devices: Sequence[str], reason: str | None = None) -> None:
        what = f"{', '.join(devices)} failed again and again, as the log says"
        super().__init__(
            f"Nothing can be drawn at the moment: {reason or what}. It is tried once more every "
            "few minutes; ask again later."
        )
        self.devices = tuple(devices)


class JobTimeoutError(DreamLabError):
    """A job ran for longer than a job may.

    Attributes:
        seconds: how long it may.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(
            f"The request was given up after {seconds:g} seconds, the longest that one may take "
            "(JOB_TIMEOUT). A smaller picture, fewer of them or fewer steps take less."
        )
        self.seconds = seconds


class DrawingError(DreamLabError):
    """The model ran and what came out is no picture (NaN, out of memory, a bug)."""


class OutOfMemoryError(DrawingError):
    """The device holds the model, but not what drawing this takes as well."""

    def __init__(self, device: str) -> None:
        super().__init__(f"{device} ran out of memory. A smaller picture or fewer at once may fit.")
        self.device = device


class JobCancelledError(DreamLabError):
    """Somebody took the job back."""

    def __init__(self, job_id: str) -> None:
        super().__init__("The request was cancelled.")
        self.job_id = job_id


class PoolClosedError(DreamLabError):
    """The pool is shutting down: nothing new is taken, waiting jobs end with this."""

    def __init__(self) -> None:
        super().__init__("Dream Lab is shutting down; the request was not drawn.")


def _minutes(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    minutes = round(seconds / 60)
    return f"{minutes} minutes" if minutes < 120 else f"{minutes / 60:.1f} hours"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _shown(value: object, limit: int = 80) -> str:
    """Returns the value short enough for a message and free of control characters."""
    if value is None or value == "":
        return "nothing"
    if isinstance(value, int) and value.bit_length() > 200:
        return "so long a number"  # Python refuses to write out the longest
    seen = str(value)[: limit + 1]
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in seen)
    return repr(text) if len(text) <= limit else repr(text[:limit]) + "…"
