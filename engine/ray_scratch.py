"""What a worker on another machine keeps only while it lives, such as half a model on its way.

Each worker has a folder for it and holds a lock on that until its process ends, however it ends.
Whoever comes later removes the folders that nobody holds. Numbers of processes would not tell:
they come again, and containers that share a folder have the same ones.
"""

import logging
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

if sys.platform != "win32":
    import fcntl

log = logging.getLogger(__name__)


class Scratch:
    """One worker's folder, made when it is needed first. Any thread may use it.

    Args:
        parent: where all workers of a machine have theirs; it is made likewise.
    """

    def __init__(self, parent: Path) -> None:
        self._parent = parent
        self._folder: Path | None = None
        self._held: int | None = None  # the folder's descriptor
        self._making = threading.Lock()

    def folder(self) -> Path:
        """Returns the folder.

        Raises:
            OSError: it can't be made.
        """
        with self._making:
            if self._folder is None:
                self._parent.mkdir(parents=True, exist_ok=True)
                with _alone(self._parent):
                    self._folder = Path(tempfile.mkdtemp(dir=self._parent))
                    self._held = _hold(self._folder)
            return self._folder

    def sweep(self) -> None:
        """Removes what workers left that live no more; what can't be removed is in the log."""
        left: list[tuple[Path, int]] = []
        try:
            if self._parent.is_dir():
                with _alone(self._parent):
                    found = ((folder, _hold(folder)) for folder in self._parent.iterdir())
                    left += [(folder, held) for folder, held in found if held is not None]
        except OSError as error:
            log.warning("%s can't be tidied: %s", self._parent, error.strerror or error)
        for folder, held in left:
            try:
                shutil.rmtree(folder)
                log.info("Removed %s, which a worker left that is gone", folder)
            except OSError as error:
                log.warning("%s can't be removed: %s", folder, error.strerror or error)
            finally:
                os.close(held)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keeps others out, so that a folder that is just being made is not taken for one left."""
    held = _hold(folder, waits=True)
    try:
        yield
    finally:
        if held is not None:
            os.close(held)


def _hold(folder: Path, *, waits: bool = False) -> int | None:
    """Returns a descriptor that holds a folder until it is closed.

    Returns None where another one holds it, unless this waits for that, and where nobody can: some
    network drives know no locks.
    """
    if sys.platform == "win32":
        return None
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if waits else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
