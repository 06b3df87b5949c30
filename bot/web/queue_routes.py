"""The queue over HTTP: what runs, what waits and why, and taking it back."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent

from bot.errors import UnknownJobError
from bot.web.events import RETRY, Feed
from bot.web.problems import PROBLEMS
from bot.web.queue_board import LOOK_EVERY, QueueBoard, QueueOut
from bot.web.roles import Role
from bot.web.services import TheBoard, TheFeeds, TheStudio, TheVisitor

line = APIRouter(prefix="/api/queue", responses=PROBLEMS)


def _queue(request: Request) -> QueueBoard:
    board: QueueBoard = request.app.state.queue
    return board


TheQueue = Annotated[QueueBoard, Depends(_queue)]


async def _feed_of_queue(
    studio: TheStudio, board: TheBoard, queue: TheQueue, feeds: TheFeeds, visitor: TheVisitor
) -> AsyncIterator[Feed]:
    async with Feed(studio) as feed:
        with feeds.open(feed, visitor):
            feed.follow_status(board.now)
            feed.follow_look("queue", lambda: queue.now(visitor), LOOK_EVERY)
            yield feed


@line.get("")
async def get_queue(queue: TheQueue, visitor: TheVisitor) -> QueueOut:
    """What runs, and what waits and why. What others ask for is told to nobody, admins included."""
    return queue.now(visitor)


@line.post("/{job_id}/cancel")
async def cancel(job_id: str, queue: TheQueue, studio: TheStudio, visitor: TheVisitor) -> QueueOut:
    """Takes a request of yours back, as an admin anybody's; one that has ended stays as it is."""
    is_admin = visitor.role is Role.ADMIN
    owner = (await studio.view(job_id)).record.owner
    if owner.id != visitor.owner.id and not is_admin:
        raise UnknownJobError(job_id)
    await studio.cancel(job_id, visitor.owner, moderator=is_admin)
    queue.forget()
    return queue.now(visitor)


@line.get("/events", response_class=EventSourceResponse)
async def queue_events(
    feed: Annotated[Feed, Depends(_feed_of_queue)],
) -> AsyncIterator[ServerSentEvent]:
    """A stream of ``queue`` and ``status``, one of each at once and one at each change."""
    yield ServerSentEvent(retry=RETRY)
    async for event in feed.until_idle():
        yield event
