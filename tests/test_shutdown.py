"""The real program is stopped, killed and hurried under a mixed load: nobody notices but the clock.

It is one story, since each start takes seconds to import torch.
"""

import asyncio
import io
import signal
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import psutil
import pytest
from PIL import Image

from tests.discord_double import DiscordDouble, Message
from tests.program_kit import PATIENCE, ROOT, Program, a_program

pytestmark = pytest.mark.slow  # worker processes import torch

LONG = 120
"""Steps that take longer than it takes to send a signal."""

MODES = f"""
model_root: {ROOT / "models"}
default_mode: demo
modes:
  demo:
    model: diffusers/dream-demo
    default_size: 64x64
    min_size: 64
    default_steps: 6
    max_steps: 500
    default_guidance: 3
    default_sampler: DDIM
"""


@asynccontextmanager
async def running(
    folder: Path, discord: DiscordDouble, grace: int = 0
) -> AsyncIterator[tuple[Program, httpx.AsyncClient]]:
    """Runs the program with Discord and the page.

    Args:
        folder: what it keeps.
        discord: stands in.
        grace: seconds that it gives what it draws to finish.
    """
    (folder / "modes.yaml").write_text(MODES)
    discord.world.commands = None
    settings = {
        "MODES_FILE": str(folder / "modes.yaml"),
        "SHUTDOWN_GRACE": str(grace),
        "DISCORD_TOKEN": discord.token,
        "DISCORD_API_URL": discord.api_url,
        "DISCORD_GATEWAY_URL": discord.gateway_url,
    }
    async with a_program(folder / "data", settings) as program, await program.page() as page:
        await discord.connected()
        yield program, page
    discord.gateway.forget()


def attempts(folder: Path) -> list[tuple[str, int]]:
    """Returns each job's status and how often it was begun, in the order of asking."""
    with closing(sqlite3.connect(folder / "data" / "dreamlab.db")) as db:
        return db.execute("SELECT status, attempts FROM jobs ORDER BY sequence").fetchall()


def pixels(content: bytes) -> npt.NDArray[np.int16]:
    return np.asarray(Image.open(io.BytesIO(content)), dtype=np.int16)


def alike(one: bytes, other: bytes) -> bool:
    """Whether two are one picture: who shares a batch may change a last bit."""
    return bool(np.abs(pixels(one) - pixels(other)).max() <= 2)


async def ask(page: httpx.AsyncClient, seed: int, steps: int, count: int = 1) -> str:
    body = {"prompt": "a red circle", "seed": seed, "steps": steps, "count": count}
    answer = await page.post("/api/jobs", json=body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def drawn(page: httpx.AsyncClient, job_id: str) -> bytes:
    """Waits for a job's end; returns its picture."""
    async with (
        asyncio.timeout(PATIENCE),
        page.stream("GET", f"/api/jobs/{job_id}/events") as events,
    ):
        async for _ in events.aiter_lines():
            pass
    job: dict[str, Any] = (await page.get(f"/api/jobs/{job_id}")).json()
    assert job["status"] == "done"
    return (await page.get(job["images"][0]["url"])).content


async def begun(folder: Path) -> None:
    """Waits until something is drawn that was not begun before."""
    while ("running", 1) not in attempts(folder):  # noqa: ASYNC110 # rows tell nobody
        await asyncio.sleep(0.01)


def answers(discord: DiscordDouble) -> list[Message]:
    return [m for m in discord.world.messages.values() if "Again" in m.buttons and not m.deleted]


async def test_a_stop_a_kill_and_a_second_interrupt_cost_time_alone(tmp_path: Path) -> None:
    async with DiscordDouble.running() as discord:
        async with running(tmp_path, discord) as (program, page):
            # It serves the page at once.
            assert (await page.get("/healthz")).status_code == 200
            assert (await page.get("/api/status")).json()["state"] in ("loading", "ready")
            values = {"prompt": "a blue square", "seed": 7, "steps": LONG}
            asked = await discord.slash("imagine", values=values)
            await discord.answer(asked)
            ids = [await ask(page, seed, 6) for seed in range(3)]
            await begun(tmp_path)
            workers = program.workers()
            await page.aclose()
            program.process.send_signal(signal.SIGTERM)
            assert await program.ended() == 0
            assert "Traceback" not in program.said
            assert workers
            assert not any(psutil.pid_exists(worker.pid) for worker in workers)
        assert all(status in ("queued", "done") for status, _ in attempts(tmp_path))
        assert ("queued", 0) in attempts(tmp_path)
        assert answers(discord) == []

        async with running(tmp_path, discord) as (program, page):
            message = await discord.picture(asked)
            pictures = [await drawn(page, job_id) for job_id in ids]
            assert attempts(tmp_path) == [("done", 1)] * 4, "a stop is no crash"
            assert answers(discord) == [message]
            assert message is asked.original
            assert pictures[0].startswith(b"\x89PNG")
            fresh = [await drawn(page, await ask(page, seed, 6)) for seed in range(3)]
            assert all(map(alike, pictures, fresh))
            again = await discord.picture(await discord.slash("imagine", values=values))
            assert alike(message.attachments[0].content, again.attachments[0].content)

            killed = await ask(page, 7, LONG, count=2)
            waiting = await ask(page, 0, 6)
            await begun(tmp_path)
            workers = program.workers()
            program.process.kill()
            await program.ended()
            _, alive = await asyncio.to_thread(psutil.wait_procs, workers, PATIENCE)
            assert not alive

        async with running(tmp_path, discord, grace=3600) as (program, page):
            await drawn(page, killed)
            assert alike(await drawn(page, waiting), fresh[0])
            assert len(answers(discord)) == 2, "each is brought once"

            for seed in range(8):
                await ask(page, seed, LONG, count=4)
            await begun(tmp_path)
            workers = program.workers()
            await page.aclose()
            program.process.send_signal(signal.SIGINT)
            await program.says("Ctrl-C again")
            program.process.send_signal(signal.SIGINT)
            assert await program.ended() == 0
            assert "Traceback" not in program.said
            assert not any(psutil.pid_exists(worker.pid) for worker in workers)
