"""What this machine's model files hold, read beside everything else and once, whoever asks."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from engine.errors import ModelNotFoundError
from engine.model_contents import Content, Contents

READERS = 2
"""Files that are read at the same time: a large one takes a disk a minute, and another waits."""


class ContentReader:
    """See the module. One event loop uses it.

    Args:
        memory: see `Contents`.
    """

    def __init__(self, memory: Path | None) -> None:
        self._contents = Contents(memory)
        # Threads of its own: the event loop's are few, and others wait for theirs.
        self._threads = ThreadPoolExecutor(READERS, thread_name_prefix="contents")
        self._reading: dict[Path, asyncio.Future[Content | None]] = {}

    async def of(self, path: Path) -> Content | None:
        """Returns what a file or folder holds; None where this machine doesn't have it."""
        known = await asyncio.to_thread(self._contents.known, path)
        if known is not None:
            return known
        reading = self._reading.get(path)
        if reading is None:
            loop = asyncio.get_running_loop()
            reading = self._reading[path] = loop.run_in_executor(self._threads, self._read, path)
            reading.add_done_callback(lambda _: self._reading.pop(path))
        return await asyncio.shield(reading)  # others may wait for it as well

    def close(self) -> None:
        """Begins no file more. What is being read is read to its end."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _read(self, path: Path) -> Content | None:
        try:
            return self._contents.of(path)
        except ModelNotFoundError:
            return None
