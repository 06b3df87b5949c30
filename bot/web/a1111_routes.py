"""AUTOMATIC1111's API, for programs and Discord bots that speak it, onto the same studio."""

import asyncio
import base64
import io
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Request
from PIL import Image

from bot.records import JobRecord, Owner
from bot.studio import Studio
from bot.web.a1111_schemas import (
    CHECKPOINT,
    KARRAS,
    CheckpointOut,
    EmbeddingsOut,
    ImagesOut,
    ImageToImageIn,
    LoraOut,
    ProgressOut,
    SamplerOut,
    SchedulerOut,
    ScriptsOut,
    TextToImageIn,
    info_of,
    mode_in,
    options_of,
    progress_of,
    samplers,
)
from bot.web.events import Feeds
from bot.web.image_routes import content_of
from bot.web.model_routes import ended
from bot.web.problems import PROBLEMS
from bot.web.roles import Visitor
from bot.web.services import HERE, TheCatalog, TheEdits, TheFeeds, TheStudio, TheVisitor
from engine.jobs import JobStatus
from modes.catalog import ModeCatalog

BASE = "/sdapi/v1"

NONE_HERE = (
    "face-restorers",
    "hypernetworks",
    "latent-upscale-modes",
    "prompt-styles",
    "realesrgan-models",
    "sd-vae",
    "upscalers",
)
"""What that API lists and nobody here has; programs ask for it when they start."""

a1111 = APIRouter(prefix=BASE, responses=PROBLEMS)


@a1111.post("/txt2img")
async def text_to_image(
    body: TextToImageIn,
    request: Request,
    studio: TheStudio,
    catalog: TheCatalog,
    feeds: TheFeeds,
    visitor: TheVisitor,
) -> ImagesOut:
    """Draws, and answers with the pictures; whoever hangs up first takes the request back."""
    return await _drawn(body, request, studio, catalog, feeds, visitor)


@a1111.post("/img2img")
async def image_to_image(
    body: ImageToImageIn,
    request: Request,
    studio: TheStudio,
    catalog: TheCatalog,
    feeds: TheFeeds,
    visitor: TheVisitor,
) -> ImagesOut:
    """The same from a picture."""
    return await _drawn(body, request, studio, catalog, feeds, visitor)


@a1111.get("/progress")
async def progress(
    studio: TheStudio,
    visitor: TheVisitor,
    without_image: Annotated[bool, Query(alias="skip_current_image")] = False,
) -> ProgressOut:
    """Where your own oldest request is that runs, or else waits."""
    unfinished = await studio.members.unfinished(visitor.owner.id)
    if not unfinished:
        return ProgressOut()
    view = await studio.view(_current(unfinished).id)
    return progress_of(view, len(unfinished), datetime.now(UTC), with_image=not without_image)


@a1111.post("/interrupt")
async def interrupt(studio: TheStudio, visitor: TheVisitor) -> dict[str, str]:
    """Takes the request back that /progress tells of, if there is one."""
    await _interrupt(studio, visitor.owner)
    return {}


@a1111.post("/skip")
async def skip(studio: TheStudio, visitor: TheVisitor) -> dict[str, str]:
    """The same: the pictures of a request are drawn together."""
    await _interrupt(studio, visitor.owner)
    return {}


@a1111.get("/options")
async def get_options(studio: TheStudio) -> dict[str, Any]:
    """The options that there are: the mode, and what it says."""
    return options_of(await studio.choices.mode_of(HERE.place))


@a1111.post("/options")
async def set_options(
    body: Annotated[
        dict[str, Any],
        Body(
            description="What /options told, with another mode as sd_model_checkpoint.",
            examples=[{"sd_model_checkpoint": "demo"}],
        ),
    ],
    studio: TheStudio,
    catalog: TheCatalog,
    visitor: TheVisitor,
) -> None:
    """Switches to another mode; answers when its model is loaded."""
    mode = mode_in(body, catalog.modes, await studio.choices.mode_of(HERE.place))
    if body.get(CHECKPOINT):
        await studio.choices.switch_mode(mode.name, HERE.place, visitor.owner, wait=True)


@a1111.get("/sd-models")
async def list_checkpoints(catalog: TheCatalog) -> list[CheckpointOut]:
    """The modes, as that API lists checkpoints."""
    return [
        CheckpointOut(title=mode.name, model_name=mode.name, filename=mode.model.path.name)
        for mode in catalog.modes.values()
    ]


@a1111.post("/refresh-checkpoints")
async def refresh_checkpoints(edits: TheEdits) -> None:
    """Reads the modes file again."""
    await edits.reload()


@a1111.get("/samplers")
async def list_samplers() -> list[SamplerOut]:
    """The samplers."""
    return list(samplers())


@a1111.get("/schedulers")
async def list_schedulers() -> list[SchedulerOut]:
    """How steps may be spaced: as the sampler's name says, or as Karras does it."""
    return [SchedulerOut(name=name.lower(), label=name) for name in ("Automatic", KARRAS)]


@a1111.get("/loras")
async def list_loras(catalog: TheCatalog) -> list[LoraOut]:
    """The LoRAs that some mode offers."""

    def offered() -> dict[str, str]:
        return {
            name: path.name
            for mode in catalog.modes.values()
            for name, path in mode.offered_loras().items()
        }

    found = await asyncio.to_thread(offered)
    return [LoraOut(name=name, alias=name, path=file) for name, file in found.items()]


@a1111.get("/embeddings")
async def list_embeddings() -> EmbeddingsOut:
    """None."""
    return EmbeddingsOut()


@a1111.get("/scripts")
async def list_scripts() -> ScriptsOut:
    """None."""
    return ScriptsOut()


@a1111.get("/cmd-flags")
async def get_flags() -> dict[str, str]:
    """None; programs ask for them to see whether anybody answers."""
    return {}


async def _nothing() -> list[str]:
    """None."""
    return []


for _name in NONE_HERE:
    a1111.add_api_route(f"/{_name}", _nothing, name=f"list {_name}")


async def _drawn(
    body: TextToImageIn,
    request: Request,
    studio: Studio,
    catalog: ModeCatalog,
    feeds: Feeds,
    visitor: Visitor,
) -> ImagesOut:
    draft = body.draft(catalog.modes, await studio.choices.mode_of(HERE.place))
    record = await studio.submit(draft, visitor.owner, HERE)
    feeds.announce(record.id, visitor.owner)
    final = await ended(record, request, studio)
    contents = [await content_of(image, studio) for image in final.images]
    images, infotexts = await asyncio.to_thread(_read, contents)
    return ImagesOut(
        images=images if body.send_images else [],
        parameters=body.echo(),
        info=json.dumps(info_of(final, infotexts)),
    )


async def _interrupt(studio: Studio, owner: Owner) -> None:
    if unfinished := await studio.members.unfinished(owner.id):
        await studio.cancel(_current(unfinished).id, owner)


def _current(unfinished: list[JobRecord]) -> JobRecord:
    """Returns the oldest of somebody's requests that runs, or else waits."""
    running = (job for job in unfinished if job.status is JobStatus.RUNNING)
    return next(running, unfinished[0])


def _read(contents: Sequence[bytes]) -> tuple[list[str], list[str]]:
    """Returns pictures as base64, and how each was drawn as its file says."""
    images, infotexts = [], []
    for content in contents:
        images.append(base64.b64encode(content).decode())
        with Image.open(io.BytesIO(content), formats=["PNG"]) as picture:
            infotexts.append(str(picture.info.get("parameters", "")))
    return images, infotexts
