"""A child process of ours that speaks in frames over its standard input and output.

It is a program of its own and not started through `multiprocessing`: the parent's main module is
then not imported a second time in it (with all of the bot), and asyncio reads and writes the pipes
without a thread.
"""

import asyncio
import contextlib
import os
import re
import signal
import sys
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


class ChildProcess:
    """See the module. One event loop uses it.

    Attributes:
        pid: its number.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None  # noqa: S101 - both were asked for
        assert process.stdout is not None  # noqa: S101
        self.pid = process.pid
        self.process = process
        self.stdin = process.stdin
        self._stdout = process.stdout

    @classmethod
    async def spawn(cls, module: str, *, keep: Collection[str] = ()) -> Self:
        """Starts a process.

        Args:
            module: whose ``main`` it runs.
            keep: secrets of the environment that it gets all the same, by name.
        """
        environment = {k: v for k, v in os.environ.items() if k in keep or not _SECRET.search(k)}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # a file named torch.py in the current folder is not torch
            "-c",
            _BOOTSTRAP.format(module=module),
            str(_ROOT),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=ENVIRONMENT | environment | {"HF_HUB_OFFLINE": "1"},
        )
        return cls(process)

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
        """Waits for it to end, kills it where it doesn't in time, returns its code."""
        try:
            async with asyncio.timeout(seconds):
                code = await self.process.wait()
        except TimeoutError:
            self.kill()
            code = await self.process.wait()
        self.stdin.close()
        return code


def ended(code: int) -> str:
    """Returns what an exit code means, continuing "The worker …"."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"was killed by {name}"
