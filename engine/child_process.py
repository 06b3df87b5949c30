"""A child process of ours that speaks in frames over its standard input and output.

It is a program of its own and not started through `multiprocessing`: the parent's main module is
then not imported a second time in it (with all of the bot), and asyncio reads and writes the pipes
without a thread.
"""

import asyncio
import contextlib
import logging
import os
import re
import signal
import sys
from asyncio.subprocess import SubprocessStreamProtocol
from collections.abc import Collection
from pathlib import Path
from typing import Any, Self

from engine.messages import HEADER, frame, unframe

# The folder that holds this package goes first only where Python would not find it anyway.
_BOOTSTRAP = (
    "import sys; sys.argv[1] in sys.path or sys.path.insert(0, sys.argv[1]); "
    "from {module} import main; main()"
)
_ROOT = Path(__file__).resolve().parents[1]

# OpenMP's threads spin while they wait for each other. Where something else needs a core, the one
# that is waited for does not get it, and a picture takes many times as long.
ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE"}
"""What whoever draws had better have in the environment, unless the owner set it."""

# A process that reads other people's files has no use for the bot's secrets.
_SECRET = re.compile(r"(?:^|_)(?:TOKEN|SECRET|PASSWORD|API_?KEY)(?:_|$)", re.IGNORECASE)

_READ_AHEAD = 1 << 16  # bytes
UNKILLABLE_SECONDS = 10.0
"""How long a process that was killed is waited for."""

log = logging.getLogger(__name__)


class ChildProcess:
    """See the module. One event loop uses it.

    Attributes:
        pid: its number.
    """

    def __init__(
        self, transport: asyncio.SubprocessTransport, process: asyncio.subprocess.Process
    ) -> None:
        assert process.stdin is not None  # noqa: S101 - both were asked for
        assert process.stdout is not None  # noqa: S101
        self.pid = process.pid
        self.process = process
        self._transport = transport
        self.stdin = process.stdin
        self._stdout = process.stdout
        self._is_left_behind = False

    @classmethod
    async def spawn(cls, module: str, *, keep: Collection[str] = ()) -> Self:
        """Starts a process.

        Args:
            module: whose ``main`` it runs.
            keep: secrets of the environment that it gets all the same, by name.
        """
        environment = {k: v for k, v in os.environ.items() if k in keep or not _SECRET.search(k)}
        # As `asyncio.create_subprocess_exec` does it, which keeps the transport to itself.
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.subprocess_exec(
            lambda: SubprocessStreamProtocol(_READ_AHEAD, loop),
            sys.executable,
            "-P",  # a file named torch.py in the current folder is not torch
            "-c",
            _BOOTSTRAP.format(module=module),
            str(_ROOT),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=None,
            env=ENVIRONMENT | environment | {"HF_HUB_OFFLINE": "1"},
        )
        return cls(transport, asyncio.subprocess.Process(transport, protocol, loop))

    def send(self, message: object) -> None:
        """Has a message travel; never waits."""
        # The transport keeps what the pipe doesn't take yet, and commands are small.
        self.stdin.write(frame(message))

    async def read(self) -> Any:
        """Returns the next message.

        Raises:
            asyncio.IncompleteReadError: the process closed the pipe, mostly by its end.
        """
        header = await self._stdout.readexactly(HEADER.size)
        (length,) = HEADER.unpack(header)
        return unframe(await self._stdout.readexactly(length))

    def kill(self) -> None:
        """Ends it at once."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()

    async def reap(self, seconds: float) -> int:
        """Waits for it to end, kills it where it doesn't in time, returns its code.

        What it said and nobody has read by then is lost, for its pipes are closed. One that
        outlives even being killed is left behind: the driver of a GPU that hangs can hold a process
        for ever. Nothing more is heard of it.
        """
        code = None
        try:
            if not self._is_left_behind:
                code = await self._wait(seconds)
            if code is None and not self._is_left_behind:
                self.kill()
                code = await self._wait(UNKILLABLE_SECONDS)
                if code is None:
                    log.error("Process %d was killed and does not end; it is left behind", self.pid)
                    self._is_left_behind = True
        finally:
            self._transport.close()  # which kills what still runs where this is interrupted
        return -signal.SIGKILL if code is None else code

    async def _wait(self, seconds: float) -> int | None:
        """Returns its code; None where it does not end in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                return await self.process.wait()
        return None


def ended(code: int) -> str:
    """Returns what an exit code means, continuing "The worker …"."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"was killed by {name}"
