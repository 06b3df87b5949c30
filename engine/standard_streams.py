"""A child's standard input and output as the way of its messages: see `engine.child_process`.

Whatever else would write there goes to standard error, which is the parent's.
"""

import logging
import os
import queue
import threading
from collections.abc import Callable
from typing import Any, BinaryIO

from engine.messages import HEADER, frame, unframe

log = logging.getLogger(__name__)


def take_standard_streams() -> tuple[BinaryIO, BinaryIO]:
    """Keeps standard input and output for the messages and gives libraries harmless ones."""
    commands_in = os.fdopen(os.dup(0), "rb")
    events_out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return commands_in, events_out


def read(stream: BinaryIO) -> Any:
    """Returns the next message.

    Raises:
        EOFError: the parent closed the pipe.
    """
    header = stream.read(HEADER.size)
    if len(header) < HEADER.size:
        raise EOFError
    (length,) = HEADER.unpack(header)
    return unframe(stream.read(length))


def read_all(
    stream: BinaryIO, take: Callable[[Any], None], last: Callable[[], None] = lambda: None
) -> None:
    """Reads messages in a thread of its own; ends the process at once when the parent is gone.

    Args:
        stream: where they come in.
        take: is called with each.
        last: what is done before the process ends; must not take long.
    """

    def run() -> None:
        try:
            while True:
                take(read(stream))
        except EOFError:  # the parent is gone; nothing here is worth keeping
            try:
                last()
            finally:
                os._exit(0)
        except BaseException:
            log.exception("The commands can't be read any more")
            os._exit(1)

    threading.Thread(target=run, name="commands", daemon=True).start()


class Writer:
    """Sends messages from a thread of its own, so that a slow reader never stops a step."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._queue: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="events", daemon=True)
        self._thread.start()

    def send(self, message: object) -> None:
        """Has a message travel; never waits."""
        self._queue.put(message)

    def close(self) -> None:
        """Waits until everything is sent."""
        self._queue.put(None)
        self._thread.join()

    def _write(self) -> None:
        try:
            while (message := self._queue.get()) is not None:
                self._stream.write(frame(message))
                self._stream.flush()
        except BrokenPipeError:
            os._exit(0)  # the parent is gone
        except BaseException:
            log.exception("The events can't be sent any more")
            os._exit(1)
