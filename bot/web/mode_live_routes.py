"""The modes as they stand now, and a stream of it: what is loaded where, and what is lacking."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel, Field

from bot.web.device_routes import TheDevices
from bot.web.events import RETRY, Feed
from bot.web.mode_edits import version_of
from bot.web.mode_schemas import DeviceOut
from bot.web.problems import PROBLEMS
from bot.web.services import (
    HERE,
    TheBoard,
    TheCatalog,
    TheEdits,
    TheFeeds,
    TheStudio,
    TheVisitor,
)
from modes.catalog import ModeCatalog
from modes.mode_config import ModeConfig

modes_live = APIRouter(prefix="/api/modes", responses=PROBLEMS)


class ModeStateOut(BaseModel):
    """A mode as it stands now."""

    name: str
    title: str
    description: str
    model: str = Field(description="The name of its model's file or folder.")
    size: tuple[int, int]
    nsfw: bool
    roles: list[str]
    loaded_on: list[str] = Field(description="The devices whose memory has its model.")
    missing: str | None = Field(description="The name of a file that it lacks.")


class ModesStateOut(BaseModel):
    """The modes as they stand now."""

    version: str = Field(description="Of the modes file; tells it from others.")
    current: str
    default: str
    modes: list[ModeStateOut]
    problems: list[str] = Field(description="Why the file as it is now is not in force.")


async def _feed_of_modes(
    studio: TheStudio,
    board: TheBoard,
    catalog: TheCatalog,
    edits: TheEdits,
    devices: TheDevices,
    feeds: TheFeeds,
    visitor: TheVisitor,
) -> AsyncIterator[Feed]:
    async def look() -> ModesStateOut:
        current = await studio.choices.mode_of(HERE.place)
        version = version_of(await asyncio.to_thread(edits.content))
        return await _state(catalog, version, current, (await devices.now(visitor)).devices)

    async with Feed(studio) as feed:
        with feeds.open(feed, visitor):
            feed.follow_status(board.now)
            feed.follow_look("modes", look)
            yield feed


@modes_live.get("/events", response_class=EventSourceResponse)
async def modes_events(
    feed: Annotated[Feed, Depends(_feed_of_modes)],
) -> AsyncIterator[ServerSentEvent]:
    """A stream of ``modes`` and ``status``, one of each at once and one at each change."""
    yield ServerSentEvent(retry=RETRY)
    async for event in feed.until_idle():
        yield event


async def _state(
    catalog: ModeCatalog, version: str, current: ModeConfig, devices: Sequence[DeviceOut]
) -> ModesStateOut:
    on: dict[str, list[str]] = {}
    for device in devices:
        for model in device.models:
            for name in model.modes:
                on.setdefault(name, []).append(device.device)

    def look() -> list[ModeStateOut]:
        return [_mode_state(mode, on.get(mode.name, [])) for mode in catalog.modes.values()]

    return ModesStateOut(
        version=version,
        current=current.name,
        default=catalog.default_mode,
        modes=await asyncio.to_thread(look),
        problems=[problem.brief for problem in catalog.problems],
    )


def _mode_state(mode: ModeConfig, loaded_on: list[str]) -> ModeStateOut:
    missing = mode.missing()
    return ModeStateOut(
        name=mode.name,
        title=mode.title,
        description=mode.description,
        model=mode.model.path.name,
        size=mode.default_size,
        nsfw=mode.nsfw,
        roles=list(mode.allowed_roles),
        loaded_on=loaded_on,
        missing=missing[0].name if missing else None,
    )
