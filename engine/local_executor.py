"""One device's worker process on this machine, reached over pipes."""

import asyncio
import logging
from pathlib import Path
from typing import Any, Self

from engine import messages
from engine.child_process import ChildProcess, ended
from engine.dialogue import Dialogue
from engine.errors import WorkerDiedError
from engine.pace import Pace
from engine.patience import Patience
from engine.process_executor import ProcessExecutor

_GRACE = 1.0  # seconds for a process whose pipe has closed to be gone, before it is killed

log = logging.getLogger(__name__)


class LocalExecutor(ProcessExecutor):
    """See `Executor`. One event loop uses it."""

    def __init__(
        self,
        device: str,
        *,
        may_fall_back: bool = False,
        ledger: Path | None = None,
        host_cache: int | None = None,
        **options: Any,
    ) -> None:
        """Prepares; `start` begins.

        Args:
            device: such as ``cpu`` or ``cuda:0``.
            may_fall_back: whether to draw on the CPU where torch can't use the device; for a
                device that nobody named.
            ledger: the file that remembers what was measured, memory and time, shared by all
                devices; None keeps none.
            host_cache: bytes of the machine's memory for models that must leave the device; None
                takes a share of it for a GPU, and nothing for a CPU.
            options: see `ProcessExecutor`.
        """
        super().__init__(device, **options)
        self._may_fall_back = may_fall_back
        self._ledger = ledger
        self._host_cache = host_cache
        self._child: _Child | None = None

    @property
    def pid(self) -> int | None:
        """The process's number; None where none runs."""
        child = self._child
        return child.pid if child is not None and child.dialogue.death is None else None

    async def close(self) -> None:
        """See `Executor.close`. The process is killed where it doesn't end by itself."""
        await super().close()
        self._child = None

    async def _spawn(self) -> "_Child":
        start = messages.Start(
            self._wanted,
            self._may_fall_back,
            logging.getLogger().getEffectiveLevel(),
            self._max_rows,
            self._ledger,
            self._host_cache,
        )
        self._child = await _Child.spawn(start, self._start_seconds, self._patience, self._pace)
        return self._child


class _Child:
    """A living process: from its first answer to its end. It is never started again.

    Attributes:
        dialogue: what is said with it.
        pid: its number.
    """

    def __init__(
        self, process: ChildProcess, start: messages.Start, patience: Patience, pace: Pace
    ) -> None:
        self.pid = process.pid
        self.process = process
        self.dialogue = Dialogue(
            start.device,
            start.device,
            send=process.send,
            kill=process.kill,
            patience=patience,
            pace=pace,
            most_rows=start.max_rows,
        )
        self._reader: asyncio.Task[None] | None = None

    @classmethod
    async def spawn(
        cls, start: messages.Start, seconds: float, patience: Patience, pace: Pace
    ) -> Self:
        """Starts a process and waits until it can draw.

        Raises:
            WorkerDiedError: it can't, with the reason that it gave.
        """
        process = await ChildProcess.spawn("engine.worker_process")
        try:
            process.send(start)
            async with asyncio.timeout(seconds):
                first = await process.read()
        except asyncio.IncompleteReadError as error:
            code = await process.reap(_GRACE)
            raise WorkerDiedError(
                start.device, f"can't start: its process {ended(code)}; the log above says why"
            ) from error
        except TimeoutError as error:
            await process.reap(0)
            raise WorkerDiedError(
                start.device, f"can't start: it gave no answer within {seconds:g} seconds"
            ) from error
        except BaseException:
            await process.reap(0)
            raise
        if not isinstance(first, messages.Ready):
            await process.reap(_GRACE)
            raise WorkerDiedError(start.device, first.reason)
        child = cls(process, start, patience, pace)
        child.dialogue.settle_on(first.device)
        child._reader = asyncio.create_task(child._listen(), name=f"worker {first.device}")
        log.info("A worker process (%d) draws on %s", child.pid, first.device)
        return child

    async def end(self, reason: str, seconds: float) -> None:
        """Ends the process, by force where it takes longer than ``seconds``."""
        if self.dialogue.death is None:
            self.dialogue.die(reason)
            self.process.send(messages.Close())
        await self.process.reap(seconds)
        if self._reader is not None:
            await self._reader

    async def _listen(self) -> None:
        """Hands on what the process says until it ends; then everybody who waits is told."""
        reason = None
        dialogue = self.dialogue
        watcher = asyncio.create_task(dialogue.watch(), name=f"watch {dialogue.device}")
        try:
            while True:
                message = await self.process.read()
                if isinstance(message, messages.Unusable):
                    reason = message.reason
                else:
                    dialogue.hear(message)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # it has ended
        except Exception:
            log.exception("What the worker on %s says can't be understood", dialogue.device)
            reason = "said something that can't be understood"
        finally:
            watcher.cancel()
            code = await self.process.reap(_GRACE)
            if dialogue.death is None:
                dialogue.die(reason or ended(code))
                log.error("The worker on %s (process %d) %s", *self._who, dialogue.death)
            await asyncio.wait([watcher])

    @property
    def _who(self) -> tuple[str, int]:
        return self.dialogue.device, self.pid
