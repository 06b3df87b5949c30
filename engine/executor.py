"""How the pool reaches the process beside a device."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from engine.errors import WorkerDiedError
from engine.jobs import Event, GenerationRequest, ModelSpec
from engine.pace import Pace


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What loading a model took.

    Attributes:
        key: the model's `ModelSpec.key`.
        family: detected family, such as ``sd15``.
        seconds: time it took; 0 where it was loaded already.
        bytes: memory that its weights hold.
        copied: bytes that came from the host's memory; 0 where it was read from the disk, or was
            loaded already.
    """

    key: str
    family: str
    seconds: float
    bytes: int
    copied: int = 0


class Executor(Protocol):
    """One device's worker process, however it is reached.

    Many `run` may be under way at once: the process joins them step by step. All methods raise
    `WorkerDiedError` where the process is gone; `start` brings a new one up.
    """

    @property
    def device(self) -> str:
        """The device's name, such as ``cpu`` or ``cuda:0``."""

    @property
    def capacity(self) -> int:
        """How many requests may usefully be under way at once; at least 1."""

    @property
    def most_rows(self) -> int:
        """Most rows in a forward pass."""

    @property
    def pace(self) -> Pace:
        """What its device has been measured to take; grows while it draws."""

    @property
    def loaded(self) -> tuple[str, ...]:
        """Keys of the models in its memory."""

    async def start(self) -> None:
        """Starts the process and returns once it answers; a running one is left as it is."""

    def run(self, job_id: str, request: GenerationRequest) -> AsyncIterator[Event]:
        """Draws a request: progress, then the result as the last event.

        Closing the iterator early cancels the job.

        Raises:
            ModelError: the model can't be loaded.
            DrawingError: it was loaded and failed.
            JobCancelledError: `cancel` came first.
            WorkerDiedError: the process died meanwhile.
        """

    async def cancel(self, job_id: str) -> None:
        """Ends a running job at its next step; an unknown one is no error."""

    async def load(self, model: ModelSpec, warm: GenerationRequest | None = None) -> LoadReport:
        """Loads a model, making room first.

        Args:
            model: what is loaded.
            warm: the like of what it will be asked for. What the first such request would wait
                for is prepared as soon as the model is there; who waits for the load does not
                wait for that.

        Raises:
            ModelError: it can't be loaded.
        """

    async def unload(self, model: ModelSpec) -> None:
        """Gives a model's memory back; an unknown one is no error."""

    async def stats(self) -> dict[str, Any]:
        """Returns `ModelRegistry.get_vram_stats` of the process."""

    async def death(self) -> WorkerDiedError:
        """Waits until the process is gone, whoever uses it or nobody, and returns why."""

    async def close(self) -> None:
        """Ends the process; what runs ends with `WorkerDiedError`. Closing twice is no error."""


class Fleet(Protocol):
    """Executors that come and go while the program runs."""

    @property
    def trouble(self) -> str | None:
        """Why there is none now, as a sentence without its full stop; None where all is well."""

    async def run(
        self,
        join: Callable[[Executor], None],
        leave: Callable[[Executor], Awaitable[None]],
        demand: Callable[[], int],
    ) -> None:
        """Tells of executors until it is cancelled, and ends all that is left of them then.

        Args:
            join: takes one more, which is started by whoever takes it.
            leave: gives one back: nothing more is begun on it. Returns when what ran there has
                ended, which it does at once where its worker is gone.
            demand: returns how many requests run or wait.
        """
