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
from collections.abc import Callable
from typing import TYPE_CHECKING

from engine import standard_streams
from engine.ledger import Ledger
from engine.measured_file import MeasuredFile
from engine.messages import Close, Command, Ready, Reply, Start, Unusable
from engine.model_registry import cuda_count
from engine.worker_host import DeviceUnusableError, WorkerHost, prepare_device
from engine.workers.light_imports import import_lightly

if TYPE_CHECKING:
    from engine.workers.host_cache import HostCache

_PR_SET_PDEATHSIG = 1  # prctl(2)

log = logging.getLogger(__name__)


def main() -> None:
    """Serves one device until told to end."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    gc.disable()  # until all is imported, nothing is garbage
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    commands_in, events_out = standard_streams.take_standard_streams()
    try:
        start = standard_streams.read(commands_in)
    except EOFError:
        return  # the parent is gone already
    assert isinstance(start, Start)  # noqa: S101 - the executor's first words, or a bug
    logging.basicConfig(
        level=start.log_level,
        format=f"%(asctime)s %(levelname)s {start.device} %(name)s: %(message)s",
    )
    commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
    standard_streams.read_all(commands_in, commands.put)
    writer = standard_streams.Writer(events_out)
    try:
        import_lightly()
        work(start, commands, writer.send)
    finally:
        writer.close()
    # What is still alive here are threads that only wait; the interpreter's own way out would
    # unload CUDA piece by piece.
    os._exit(0)


def work(
    start: Start,
    commands: "queue.SimpleQueue[Command]",
    send: Callable[[Ready | Unusable | Reply], None],
) -> None:
    """Serves a device until a `Close` comes, or until it can't be used; that is said.

    Args:
        start: what is served.
        commands: from the executor.
        send: has what it says travel; never waits.
    """
    try:
        device = prepare_device(start.device, may_fall_back=start.may_fall_back)
        # What was imported stays: the search for what a dropped model leaves behind passes it over.
        gc.freeze()
        gc.enable()
        send(Ready(device))
        host = WorkerHost(
            device,
            send,
            ledger=Ledger(device, start.ledger),
            measured=MeasuredFile(start.ledger),
            cache=_cache(device, start),
            max_rows=start.max_rows,
        )
        _serve(host, commands)
    except DeviceUnusableError as error:
        send(Unusable(str(error)))


def _cache(device: str, start: Start) -> "HostCache":
    from engine.workers.host_cache import HostCache, default_budget

    budget = start.host_cache
    if budget is None:
        budget = default_budget(device, start.workers or cuda_count())
    return HostCache(device, budget)


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


if __name__ == "__main__":
    sys.exit("This process is started by engine.local_executor.")
