"""The pool's own tasks: all that runs beside its jobs. An error in one of them is a bug."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

logger = logging.getLogger(__name__)


class PoolTasks:
    """Runs tasks that nobody awaits, so that none of them dies unheard.

    Args:
        patience: seconds that a task gets to end before it is given up.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._tasks: set[asyncio.Task[Any]] = set()
        self._failed: asyncio.Future[None] | None = None

    @property
    def failed(self) -> asyncio.Future[None]:
        """Ends with the first error, with None once all has ended well (`finish`)."""
        if self._failed is None:
            self._failed = asyncio.get_running_loop().create_future()
        return self._failed

    def start(self, work: Coroutine[Any, Any, None], *, name: str) -> None:
        """Runs something until it ends, or until `end`."""
        self.own(asyncio.create_task(work, name=name))

    def own(self, task: asyncio.Task[Any]) -> None:
        """Does the same for a task that runs."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.watch(task)

    def watch(self, task: asyncio.Task[Any]) -> None:
        """Hears of a task's error; whoever made it ends it."""
        task.add_done_callback(self._raise_loudly)

    def call(self, step: Callable[[], None]) -> None:
        """Calls what the event loop would call, and hears of its error."""
        try:
            step()
        except Exception as error:  # a bug: nothing in a step is expected to raise
            self._fail(error)

    async def end(self, others: Iterable[asyncio.Task[Any]]) -> None:
        """Cancels all that it owns and some others, and waits as `wait` does."""
        everything = [*others, *self._tasks]
        for task in everything:
            task.cancel()
        await self.wait(everything)

    async def wait(self, tasks: Sequence[asyncio.Task[Any]]) -> None:
        """Waits until tasks have ended; what takes longer than its patience is given up."""
        if not tasks:
            return
        _, stuck = await asyncio.wait(tasks, timeout=self._patience)
        for task in stuck:
            logger.error("%s did not end within %.1f s; given up", task.get_name(), self._patience)
            task.cancel()

    def finish(self) -> None:
        """Says that all has ended: nothing fails any more."""
        if not self.failed.done():
            self.failed.set_result(None)

    def _raise_loudly(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        logger.critical("The pool failed", exc_info=error)
        if not self.failed.done():
            self.failed.set_exception(error)
