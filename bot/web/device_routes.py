"""How the devices stand, live, and what failed lately."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent

from bot.web.device_board import LOOK_EVERY, DeviceBoard, FailuresOut
from bot.web.events import RETRY, Feed
from bot.web.problems import PROBLEMS
from bot.web.services import TheBoard, TheFeeds, TheStudio, TheVisitor

devices = APIRouter(prefix="/api", responses=PROBLEMS)


def _devices(request: Request) -> DeviceBoard:
    board: DeviceBoard = request.app.state.devices
    return board


TheDevices = Annotated[DeviceBoard, Depends(_devices)]


async def _feed_of_devices(
    studio: TheStudio,
    board: TheBoard,
    devices: TheDevices,
    feeds: TheFeeds,
    visitor: TheVisitor,
) -> AsyncIterator[Feed]:
    async with Feed(studio) as feed:
        with feeds.open(feed, visitor):
            feed.follow_status(board.now)
            feed.follow_look("devices", lambda: devices.now(visitor), LOOK_EVERY)
            feed.follow_look("failures", lambda: devices.failures(visitor), LOOK_EVERY)
            yield feed


@devices.get("/failures")
async def get_failures(devices: TheDevices, visitor: TheVisitor) -> FailuresOut:
    """What failed lately: yours, and for admins everybody's. What was asked for is not told."""
    return await devices.failures(visitor)


@devices.get("/devices/events", response_class=EventSourceResponse)
async def devices_events(
    feed: Annotated[Feed, Depends(_feed_of_devices)],
) -> AsyncIterator[ServerSentEvent]:
    """A stream of ``devices``, ``failures`` and ``status``: one of each, then at each change."""
    yield ServerSentEvent(retry=RETRY)
    async for event in feed.until_idle():
        yield event
