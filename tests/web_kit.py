"""The page for tests: the real store, studio, pool and server around a fake executor."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from bot.image_folder import ImageFolder
from bot.settings import Settings
from bot.store import Store
from bot.studio import Studio
from bot.web.app import WebFrontEnd, create_web_app
from engine.testing import FakeExecutor
from engine.worker_pool import WorkerPool
from modes.catalog import ModeCatalog

MODES = """
model_root: {root}
default_mode: small
modes:
  small:
    title: Small
    model: small.safetensors
    default_size: 64x64
    default_steps: 4
    min_size: 64
    max_size: 128
    max_steps: 50
    metadata: {{examples: [a red circle, a blue star]}}
  other:
    model: other.safetensors
"""

UNUSED = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""The page speaks HTTP; a context of its own for each client would load all certificates."""

PATIENCE = 30
"""Seconds after which a test gives up waiting; nothing is decided by it."""


@dataclass
class Page:
    """An open page and everything behind it."""

    url: str
    client: httpx.AsyncClient
    studio: Studio
    store: Store
    pool: WorkerPool
    executor: FakeExecutor
    catalog: ModeCatalog
    front_end: WebFrontEnd
    serving: asyncio.Task[None]

    @property
    def port(self) -> int:
        return httpx.URL(self.url).port or 80

    async def submit(self, prompt: str = "a red circle", **fields: Any) -> dict[str, Any]:
        answer = await self.client.post("/api/jobs", json={"prompt": prompt, **fields})
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    async def finished(self, prompt: str = "a red circle", **fields: Any) -> dict[str, Any]:
        job = await self.submit(prompt, **fields)
        async with self.events(f"/api/jobs/{job['id']}/events") as events:
            jobs = [data async for name, data in events if name == "job"]
        return dict(jobs[-1])

    @asynccontextmanager
    async def events(self, path: str) -> AsyncIterator[AsyncIterator[tuple[str, Any]]]:
        async with self.client.stream("GET", path) as answer:
            assert answer.status_code == 200
            yield _events(answer)


async def _events(answer: httpx.Response) -> AsyncIterator[tuple[str, Any]]:
    name = ""
    async for line in answer.aiter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


@asynccontextmanager
async def open_page(
    folder: Path,
    executor: FakeExecutor | None = None,
    *,
    queue_max: int = 64,
    modes: str = MODES,
    **more: Any,
) -> AsyncIterator[Page]:
    """Opens the page over a data folder, with more settings, and closes everything after it."""
    executor = executor or FakeExecutor()
    for name in ("small", "other"):
        (folder / f"{name}.safetensors").touch()
    modes_file = folder / "modes.yaml"
    modes_file.write_text(modes.format(root=folder), encoding="utf-8")
    settings = Settings(data=folder, modes_file=modes_file, web_port=0, **more)
    catalog = ModeCatalog(modes_file)
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(await Store.open(folder / "dreamlab.db"))
        pool = WorkerPool([executor], catalog, queue_max=queue_max)
        studio = Studio(store, pool, catalog, ImageFolder(folder / "images"))
        stack.push_async_callback(studio.close)
        await stack.enter_async_context(pool)
        await studio.recover()
        front_end = WebFrontEnd(create_web_app(studio, catalog, pool, settings), settings)
        serving = asyncio.create_task(front_end.run(), name="page")
        stack.push_async_callback(stop, serving)
        url = await front_end.ready()
        client = await stack.enter_async_context(
            httpx.AsyncClient(base_url=url, timeout=PATIENCE, trust_env=False, verify=UNUSED)
        )
        yield Page(url, client, studio, store, pool, executor, catalog, front_end, serving)


async def stop(serving: asyncio.Task[None]) -> None:
    """Ends the page as the program does."""
    serving.cancel()
    await asyncio.wait([serving])
