"""The real program in a process of its own, with a data folder of its own."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import psutil

ROOT = Path(__file__).parent.parent
PATIENCE = 280
"""Seconds after which a test gives up waiting; nothing is decided by it."""


def without_torch(folder: Path) -> dict[str, str]:
    """Returns what is set for a program that draws nothing: its worker never has torch imported.

    All its processes are there, and are spared seconds of work.

    Args:
        folder: gets a torch whose import does not end.
    """
    (folder / "torch.py").write_text("import threading\nthreading.Event().wait()\n")
    return {"PYTHONPATH": str(folder)}


class Program:
    """``python bot.py run`` and what it has said."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said = ""

    async def says(self, pattern: str) -> re.Match[str]:
        """Waits until it has said something that fits."""
        assert self.process.stdout
        async with asyncio.timeout(PATIENCE):
            while not (found := re.search(pattern, self.said)):
                line = await self.process.stdout.readline()
                assert line, f"it ended without saying {pattern!r}, but:\n{self.said}"
                self.said += line.decode()
        return found

    async def page(self) -> httpx.AsyncClient:
        """Waits until the page is served; returns a client for it, which the caller closes."""
        address = (await self.says(r"http://\S+")).group()
        return httpx.AsyncClient(base_url=address, timeout=PATIENCE)

    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    async def ended(self) -> int:
        """Waits for its end; returns its exit status."""
        async with asyncio.timeout(PATIENCE):
            output, _ = await self.process.communicate()
        self.said += output.decode()
        assert self.process.returncode is not None
        return self.process.returncode


@asynccontextmanager
async def a_program(
    data: Path, settings: Mapping[str, str] | None = None
) -> AsyncIterator[Program]:
    """Starts the bot on the CPU and a free port; kills it at the end, should it still run."""
    environment = os.environ | {
        "DREAMLAB_DATA": str(data),
        "WEB_PORT": "0",
        "DEVICES": "cpu",
        "DISCORD_TOKEN": "",
        "PYTHONUNBUFFERED": "1",
        **(settings or {}),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "bot.py",
        cwd=ROOT,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield Program(process)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
            await process.communicate()
