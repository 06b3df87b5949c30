"""Models over HTTP: what is loaded and lies in the roots, and a picture in one request."""

import asyncio
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request, Response

from bot.records import JobRecord
from bot.studio import Studio
from bot.web.image_routes import content_of
from bot.web.keys import TheOnce
from bot.web.mode_schemas import (
    DeviceOut,
    FoundOut,
    InventoryOut,
    LoadIn,
    LoadOut,
    ModelsStatusOut,
    VramOut,
)
from bot.web.own import own_parent
from bot.web.problems import PROBLEMS, ConflictError, NotDrawnError
from bot.web.roles import Role
from bot.web.schemas import DraftIn
from bot.web.services import HERE, TheCatalog, TheFeeds, ThePool, TheStudio, TheVisitor
from engine.errors import PoolClosedError, RequestError
from engine.worker_pool import WorkerPool
from modes.catalog import ModeCatalog
from modes.inventory import find_loras, find_models

models = APIRouter(prefix="/api", responses=PROBLEMS)
drawing = APIRouter(responses=PROBLEMS)

_PICTURE: dict[int | str, dict[str, Any]] = {
    HTTPStatus.OK: {
        "description": "The picture.",
        "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}},
        "headers": {
            "X-Mode": {"description": "The mode that drew it.", "schema": {"type": "string"}},
            "X-Seed": {"description": "Draws it again.", "schema": {"type": "integer"}},
        },
    }
}


@models.get("/models/status")
async def models_status(pool: ThePool, catalog: TheCatalog, studio: TheStudio) -> ModelsStatusOut:
    """What is loaded, and what waits to be drawn."""
    mode = await studio.choices.mode_of(HERE.place)
    devices = await _devices(pool, catalog)
    return ModelsStatusOut(
        current_mode=mode.name,
        is_loaded=any(
            model.name == mode.model.key for device in devices for model in device.models
        ),
        queue_size=pool.get_queue_size(),
        running=len(pool.running_jobs()),
        devices=devices,
    )


@models.get("/vram")
async def vram(pool: ThePool, catalog: TheCatalog) -> VramOut:
    """The devices' memory: a GPU's, or the machine's own where the CPU draws."""
    return VramOut(devices=await _devices(pool, catalog))


@models.post("/models/load")
async def load_model(body: LoadIn, studio: TheStudio, visitor: TheVisitor) -> LoadOut:
    """Loads a mode's model, making room first; answers when it is loaded.

    Not while drawing is paused (409).
    """
    report = await studio.steward.load(body.mode, visitor.owner, HERE.place)
    return LoadOut(mode=body.mode, family=report.family, seconds=report.seconds, bytes=report.bytes)


@models.post("/models/unload", status_code=HTTPStatus.NO_CONTENT)
async def unload_model(body: LoadIn, studio: TheStudio, visitor: TheVisitor) -> None:
    """Gives a mode's memory back once nobody draws with it; one that isn't loaded is no error."""
    await studio.steward.unload(body.mode, visitor.owner, HERE.place)


@models.get("/inventory/models")
async def model_inventory(catalog: TheCatalog) -> InventoryOut:
    """The checkpoints and diffusers folders in model_root, by their headers."""
    root = catalog.model_root
    named = [(mode.name, mode.model.path) for mode in catalog.modes.values()]
    found = await asyncio.to_thread(find_models, root)
    files = [
        FoundOut.of(file, [name for name, path in named if path == root / file.path])
        for file in found
    ]
    return InventoryOut(root=str(root), files=files)


@models.get("/inventory/loras")
async def lora_inventory(catalog: TheCatalog) -> InventoryOut:
    """The LoRAs in lora_root, by their headers."""
    root = catalog.lora_root
    named = [
        (mode.name, {lora.path for lora in mode.model.loras}) for mode in catalog.modes.values()
    ]
    found = await asyncio.to_thread(find_loras, root)
    files = [
        FoundOut.of(file, [name for name, paths in named if root / file.path in paths])
        for file in found
    ]
    return InventoryOut(root=str(root), files=files)


@drawing.post("/generate", response_class=Response, responses=_PICTURE)
async def generate(
    body: DraftIn,
    request: Request,
    studio: TheStudio,
    pool: ThePool,
    feeds: TheFeeds,
    visitor: TheVisitor,
    once: TheOnce,
) -> Response:
    """Draws one picture and answers with it.

    Whoever hangs up first takes the request back, unless it had a key to ask for it again. Where an
    admin names a mode, it is switched to, as the original did.
    """
    if body.count not in (None, 1):
        raise RequestError("count", body.count, "1 here; /api/jobs draws several")
    async with once.use(body.model_dump(exclude_defaults=True)) as (known, origin):
        record = known
        if record is None:
            parent = await own_parent(body, studio, visitor)
            record = await studio.submit(body.draft(), visitor.owner, origin, parent)
            feeds.announce(record.id, visitor.owner)
            other = body.mode if body.mode != pool.get_current_mode() else None
            if other is not None and visitor.role is Role.ADMIN:
                await studio.choices.switch_mode(other, HERE.place, visitor.owner)
    final = await ended(record, request, studio, goes_on=once.has_key)
    image = final.images[0]
    content = await content_of(image, studio)
    # A header takes no letter beyond ASCII; a mode's name may have some.
    headers = {"X-Mode": quote(final.request.mode), "X-Seed": str(image.seed)}
    return Response(content, media_type="image/png", headers=headers)


async def ended(
    record: JobRecord, request: Request, studio: Studio, *, goes_on: bool = False
) -> JobRecord:
    """Returns a job once it is done.

    Args:
        record: the job.
        request: what asks for it.
        studio: draws it.
        goes_on: whether it is drawn all the same where whoever asks hangs up.

    Raises:
        NotDrawnError: it failed.
        ConflictError: it was cancelled.
        PoolClosedError: it goes on at the next start.
    """
    watching = asyncio.ensure_future(_last(record.id, studio))
    # Its body was read: all that can still come is the end of the connection.
    leaving = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait({watching, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not watching.done():
            if goes_on:
                raise ConflictError("It is still being drawn; ask again with its key.")
            await studio.cancel(record.id, record.owner)
        final = await watching
    finally:
        leaving.cancel()
        watching.cancel()
    if not final.status.is_final:
        raise PoolClosedError
    if final.error is not None:
        raise NotDrawnError(final.error)
    if not final.images:
        raise ConflictError("The request was taken back; there is no picture.")
    return final


async def _last(job_id: str, studio: Studio) -> JobRecord:
    return [view async for view in studio.watch(job_id)][-1].record


async def _devices(pool: WorkerPool, catalog: ModeCatalog) -> list[DeviceOut]:
    return [
        DeviceOut.of(lane, known, catalog.modes, catalog.model_root)
        for lane, known in await pool.stats()
    ]
