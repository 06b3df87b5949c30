"""The worker process: commands come in on standard input, events leave on standard output.

Whatever else would write there goes to standard error, which is the parent's. The process ends
when the parent says so or is gone: a closed standard input ends it at once, whatever it is doing,
so that a killed parent leaves no orphan; on Linux the kernel sees to it as well, for a process that
is stopped or stuck. SIGINT and SIGTERM are the parent's to act on.
"""

import ctypes
import gc
import logging
import os
import queue
import signal
import sys
import threading
from typing import BinaryIO

from engine.ledger import Ledger
from engine.measured_file import MeasuredFile
from engine.messages import HEADER, Close, Command, Ready, Reply, Start, Unusable, frame, unframe
from engine.worker_host import DeviceUnusableError, WorkerHost, prepare_device

_PR_SET_PDEATHSIG = 1  # prctl(2)

log = logging.getLogger(__name__)


def main() -> None:
    """Serves one device until told to end."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    commands_in, events_out = _take_standard_streams()
    try:
        start = _read(commands_in)
    except EOFError:
        return  # the parent is gone already
    assert isinstance(start, Start)  # noqa: S101 - the executor's first words, or a bug
    logging.basicConfig(
        level=start.log_level,
        format=f"%(asctime)s %(levelname)s {start.device} %(name)s: %(message)s",
    )
    commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
    threading.Thread(
        target=_read_commands, args=(commands_in, commands), name="commands", daemon=True
    ).start()
    writer = _Writer(events_out)
    try:
        device = prepare_device(start.device, may_fall_back=start.may_fall_back)
        # What was imported stays: the search for what a dropped model leaves behind passes it over.
        gc.freeze()
        writer.send(Ready(device))
        host = WorkerHost(
            device,
            writer.send,
            ledger=Ledger(device, start.ledger),
            measured=MeasuredFile(start.ledger),
            max_rows=start.max_rows,
        )
        _serve(host, commands)
    except DeviceUnusableError as error:
        writer.send(Unusable(str(error)))
    finally:
        writer.close()
    # What is still alive here are threads that only wait; the interpreter's own way out would
    # unload CUDA piece by piece.
    os._exit(0)


def _serve(host: WorkerHost, commands: "queue.SimpleQueue[Command]") -> None:
    while True:
        command = _next(commands, wait=not host.busy)
        while command is not None:
            if isinstance(command, Close):
                return
            host.handle(command)
            command = _next(commands, wait=False)
        host.tick()


def _next(commands: "queue.SimpleQueue[Command]", *, wait: bool) -> Command | None:
    try:
        return commands.get(block=wait)
    except queue.Empty:
        return None


def _take_standard_streams() -> tuple[BinaryIO, BinaryIO]:
    """Keeps standard input and output for the messages and gives libraries harmless ones."""
    commands_in = os.fdopen(os.dup(0), "rb")
    events_out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return commands_in, events_out


def _read(stream: BinaryIO) -> object:
    """Returns the next message.

    Raises:
        EOFError: the parent closed the pipe.
    """
    header = stream.read(HEADER.size)
    if len(header) < HEADER.size:
        raise EOFError
    (length,) = HEADER.unpack(header)
    return unframe(stream.read(length))


def _read_commands(stream: BinaryIO, commands: "queue.SimpleQueue[Command]") -> None:
    try:
        while True:
            commands.put(_read(stream))  # type: ignore[arg-type] # only commands follow a Start
    except EOFError:
        os._exit(0)  # the parent is gone; nothing here is worth keeping
    except BaseException:
        log.exception("The commands can't be read any more")
        os._exit(1)


class _Writer:
    """Sends messages from a thread of its own, so that a slow reader never stops a step."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._queue: queue.SimpleQueue[Ready | Unusable | Reply | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="events", daemon=True)
        self._thread.start()

    def send(self, message: Ready | Unusable | Reply) -> None:
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


if __name__ == "__main__":
    sys.exit("This process is started by engine.local_executor.")
