"""A pretended Discord to try the bot with, by hand and without an account.

Start it, start the bot with the three settings that it names, and type what people do.
"""

import argparse
import asyncio
import sys
from pathlib import Path
from typing import Any

from tests.discord_double.clock import Clock
from tests.discord_double.console import HELP, Console
from tests.discord_double.double import DiscordDouble
from tests.discord_double.recording import Recording


def say(text: str) -> None:
    """Writes a line to the terminal."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


async def main(options: argparse.Namespace) -> None:
    """Serves until the input ends or says quit."""
    if options.record_requests:
        DiscordDouble.recording = Recording(options.record_requests)
        DiscordDouble.recording.begin()
    async with DiscordDouble.running(Clock(running=True), options.port) as double:
        double.world.token = double.gateway.token = options.token
        say(f"DISCORD_TOKEN={options.token}")
        say(f"DISCORD_API_URL={double.api_url}")
        say(f"DISCORD_GATEWAY_URL={double.gateway_url}\n\n{HELP}")
        console = Console(double, options.pictures, say)
        watching = asyncio.create_task(console.watch(), name="watching")
        try:
            async for line in _lines():
                if line.strip() == "quit":
                    return
                await console.do(line)
        finally:
            watching.cancel()
            await asyncio.wait([watching])


async def _lines() -> Any:
    """Yields what is typed, without holding up the rest."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    try:
        while line := await reader.readline():
            yield line.decode("utf-8", "replace")
    finally:
        transport.close()


def parse_arguments() -> argparse.Namespace:
    """Returns the options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.discord_double", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--token", default="pretended-token", help="what the bot logs in with")
    parser.add_argument(
        "--pictures",
        type=Path,
        default=Path("pretended-pictures"),
        help="folder that received pictures are kept in",
    )
    parser.add_argument(
        "--record-requests", type=Path, metavar="FILE", help="write what the bot asks for"
    )
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main(parse_arguments()))
