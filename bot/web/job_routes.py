"""Jobs over HTTP: asked for, followed, taken back. Each route parses, asks the studio, answers."""

from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent

from bot.records import JobRecord
from bot.studio import Studio
from bot.web.events import RETRY, Feed
from bot.web.keys import TheOnce
from bot.web.own import OwnJob, own_parent
from bot.web.problems import PROBLEMS, ConflictError
from bot.web.schemas import AgainIn, DraftIn, JobOut, JobsOut
from bot.web.services import TheBoard, TheFeeds, TheStudio, TheVisitor

_HISTORY = 50

jobs = APIRouter(prefix="/api", responses=PROBLEMS)


async def _feed_of_job(
    view: OwnJob, studio: TheStudio, feeds: TheFeeds, visitor: TheVisitor
) -> AsyncIterator[Feed]:
    async with Feed(studio) as feed:
        with feeds.open(feed, visitor):
            feed.follow(view.record.id)
            yield feed


async def _feed_of_all(
    studio: TheStudio, board: TheBoard, feeds: TheFeeds, visitor: TheVisitor
) -> AsyncIterator[Feed]:
    async with Feed(studio) as feed:
        with feeds.open(feed, visitor, everything=True):
            feed.follow_status(board.now)
            yield feed


@jobs.post("/jobs", status_code=HTTPStatus.CREATED)
async def submit(
    body: DraftIn,
    studio: TheStudio,
    feeds: TheFeeds,
    visitor: TheVisitor,
    once: TheOnce,
    response: Response,
) -> JobOut:
    """Asks for pictures; the request is stored when this answers."""
    async with once.use(body.model_dump(exclude_defaults=True)) as (known, origin):
        record = known
        if record is None:
            parent = await own_parent(body, studio, visitor)
            record = await studio.submit(body.draft(), visitor.owner, origin, parent)
            feeds.announce(record.id, visitor.owner)
    return await _answer(record, studio, response, is_known=known is not None)


@jobs.get("/jobs")
async def history(
    studio: TheStudio,
    visitor: TheVisitor,
    limit: Annotated[int, Query(ge=1, le=200)] = _HISTORY,
) -> JobsOut:
    """Your newest jobs, newest first."""
    records = await studio.history(visitor.owner.id, limit)
    return JobsOut(jobs=[JobOut.of_record(record) for record in records])


@jobs.get("/jobs/{job_id}")
async def get_job(view: OwnJob) -> JobOut:
    """A job as it is now."""
    return JobOut.of(view)


@jobs.delete("/jobs/{job_id}", status_code=HTTPStatus.NO_CONTENT)
async def delete(view: OwnJob, studio: TheStudio, feeds: TheFeeds, visitor: TheVisitor) -> None:
    """Deletes the pictures of a job that has ended.

    One that has not is refused (409): whoever cancels as the last step ends must not lose the
    finished picture.
    """
    job_id = view.record.id
    if not view.record.status.is_final:
        raise ConflictError("The request is still on its way; cancel it first.")
    await studio.delete(job_id, visitor.owner)
    feeds.announce_gone(job_id, visitor.owner)


@jobs.post("/jobs/{job_id}/cancel")
async def cancel(view: OwnJob, studio: TheStudio, visitor: TheVisitor) -> JobOut:
    """Takes a job back; one that has ended already stays as it is."""
    await studio.cancel(view.record.id, visitor.owner)
    return JobOut.of(await studio.view(view.record.id))


@jobs.post("/jobs/{job_id}/again", status_code=HTTPStatus.CREATED)
async def again(
    body: AgainIn,
    view: OwnJob,
    studio: TheStudio,
    feeds: TheFeeds,
    visitor: TheVisitor,
    once: TheOnce,
    response: Response,
) -> JobOut:
    """Asks for the same once more with a fresh seed, or for a variation of it."""
    earlier = view.record.id
    async with once.use({"again": earlier, **body.model_dump(exclude_defaults=True)}) as (
        known,
        origin,
    ):
        record = known
        if record is None:
            record = await studio.remaker.again(earlier, visitor.owner, origin, vary=body.vary)
            feeds.announce(record.id, visitor.owner)
    return await _answer(record, studio, response, is_known=known is not None)


async def _answer(
    record: JobRecord, studio: Studio, response: Response, *, is_known: bool
) -> JobOut:
    """Answers with a job that was asked for, now or before."""
    if is_known:
        response.headers["Idempotent-Replayed"] = "true"
    response.headers["Location"] = f"/api/jobs/{record.id}"
    return JobOut.of(await studio.view(record.id))


@jobs.get("/jobs/{job_id}/events", response_class=EventSourceResponse)
async def job_events(
    feed: Annotated[Feed, Depends(_feed_of_job)],
) -> AsyncIterator[ServerSentEvent]:
    """A stream of ``job`` events, one at once and one at each change; ends with the job."""
    yield ServerSentEvent(retry=RETRY)
    async for event in feed.until_idle():
        yield event


@jobs.get("/events", response_class=EventSourceResponse)
async def all_events(
    studio: TheStudio, visitor: TheVisitor, feed: Annotated[Feed, Depends(_feed_of_all)]
) -> AsyncIterator[ServerSentEvent]:
    """A stream of everything of yours, of which the page keeps one open.

    It begins with ``jobs`` (the history) and ``status``; then come ``job``, ``gone`` and
    ``status`` at each change. (A browser opens six connections to a host at most: one stream for
    each job would use them up.)
    """
    yield ServerSentEvent(retry=RETRY)
    async for event in feed.everything(lambda: studio.history(visitor.owner.id, _HISTORY)):
        yield event
