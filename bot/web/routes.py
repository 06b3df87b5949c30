"""The page's addresses: each route parses, calls the studio once and answers."""

import asyncio
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent

from bot.records import Child, ImageRecord, JobView, Kinship, Parent
from bot.studio import Studio, UnknownImageError, UnknownJobError
from bot.web.events import RETRY, Feed
from bot.web.keys import Keys
from bot.web.lineage_schemas import FamilyOut
from bot.web.metrics import MEDIA_TYPE
from bot.web.problems import PROBLEMS, ConflictError
from bot.web.roles import Visitor
from bot.web.schemas import AgainIn, DraftIn, JobOut, JobsOut
from bot.web.services import (
    HERE,
    TheBoard,
    TheFeeds,
    TheLag,
    TheMetrics,
    TheStudio,
    TheVisitor,
)
from bot.web.status import HealthOut, StatusOut

_HISTORY = 50
_KEY = (
    "A text of your own, such as a UUID. The same request with the same key within a day gets the "
    "same job; another request with it is refused (409)."
)

probes = APIRouter(include_in_schema=False)
api = APIRouter(prefix="/api", responses=PROBLEMS)


async def _own_job(job_id: str, studio: TheStudio, visitor: TheVisitor) -> JobView:
    """Returns one of the visitor's own jobs; to them, those of others don't exist."""
    view = await studio.view(job_id)
    if view.record.owner.id != visitor.owner.id:
        raise UnknownJobError(job_id)
    return view


OwnJob = Annotated[JobView, Depends(_own_job)]


async def _parent(body: DraftIn, studio: Studio, visitor: Visitor) -> Parent | None:
    """Returns what a request was made of, as it says."""
    if body.made_of is None:
        return None
    job = (await _own_job(body.made_of, studio, visitor)).record
    return Parent(job.id, None, Kinship.EDIT if body.image is None else Kinship.REMIX)


async def _own_image(image_id: str, studio: TheStudio, visitor: TheVisitor) -> ImageRecord:
    """Returns one of the visitor's own pictures; likewise."""
    record = await studio.image(image_id)
    if (await studio.view(record.job_id)).record.owner.id != visitor.owner.id:
        raise UnknownImageError(image_id)
    return record


OwnImage = Annotated[ImageRecord, Depends(_own_image)]


def _keys(request: Request) -> Keys:
    keys: Keys = request.app.state.keys
    return keys


TheKeys = Annotated[Keys, Depends(_keys)]


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


@probes.get("/healthz")
async def healthz(lag: TheLag) -> HealthOut:
    """Whether the program answers, and how soon."""
    return HealthOut(loop_lag=lag.worst)


@probes.get("/readyz")
async def readyz(board: TheBoard, response: Response) -> StatusOut:
    """Whether a model can draw."""
    status = board.now()
    if not status.can_draw:
        response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
    return status


@probes.get("/metrics", response_class=Response)
async def metrics(figures: TheMetrics) -> Response:
    """Figures for Prometheus."""
    return Response(await figures.render(), media_type=MEDIA_TYPE)


@api.get("/status")
async def get_status(board: TheBoard) -> StatusOut:
    """What the studio is doing."""
    return board.now()


@api.post("/jobs", status_code=HTTPStatus.CREATED)
async def submit(
    body: DraftIn,
    studio: TheStudio,
    feeds: TheFeeds,
    visitor: TheVisitor,
    keys: TheKeys,
    response: Response,
    key: Annotated[str | None, Header(alias="Idempotency-Key", description=_KEY)] = None,
) -> JobOut:
    """Asks for pictures; the request is stored when this answers."""
    async with keys.use(key, body, visitor.owner) as (known, origin):
        record = known
        if record is None:
            parent = await _parent(body, studio, visitor)
            record = await studio.submit(body.draft(), visitor.owner, origin, parent)
    if known:
        response.headers["Idempotent-Replayed"] = "true"
    else:
        feeds.announce(record.id, visitor.owner)
    response.headers["Location"] = f"/api/jobs/{record.id}"
    return JobOut.of(await studio.view(record.id))


@api.get("/jobs")
async def history(
    studio: TheStudio,
    visitor: TheVisitor,
    limit: Annotated[int, Query(ge=1, le=200)] = _HISTORY,
) -> JobsOut:
    """Your newest jobs, newest first."""
    records = await studio.history(visitor.owner.id, limit)
    return JobsOut(jobs=[JobOut.of_record(record) for record in records])


@api.get("/jobs/{job_id}")
async def get_job(view: OwnJob) -> JobOut:
    """A job as it is now."""
    return JobOut.of(view)


@api.delete("/jobs/{job_id}", status_code=HTTPStatus.NO_CONTENT)
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


@api.post("/jobs/{job_id}/cancel")
async def cancel(view: OwnJob, studio: TheStudio, visitor: TheVisitor) -> JobOut:
    """Takes a job back; one that has ended already stays as it is."""
    await studio.cancel(view.record.id, visitor.owner)
    return JobOut.of(await studio.view(view.record.id))


@api.post("/jobs/{job_id}/again", status_code=HTTPStatus.CREATED)
async def again(
    body: AgainIn,
    view: OwnJob,
    studio: TheStudio,
    feeds: TheFeeds,
    visitor: TheVisitor,
    response: Response,
) -> JobOut:
    """Asks for the same once more with a fresh seed, or for a variation of it."""
    record = await studio.again(view.record.id, visitor.owner, HERE, vary=body.vary)
    feeds.announce(record.id, visitor.owner)
    response.headers["Location"] = f"/api/jobs/{record.id}"
    return JobOut.of(await studio.view(record.id))


@api.get("/jobs/{job_id}/events", response_class=EventSourceResponse)
async def job_events(
    feed: Annotated[Feed, Depends(_feed_of_job)],
) -> AsyncIterator[ServerSentEvent]:
    """A stream of ``job`` events, one at once and one at each change; ends with the job."""
    yield ServerSentEvent(retry=RETRY)
    async for event in feed.until_idle():
        yield event


@api.get("/events", response_class=EventSourceResponse)
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


@api.get("/images/{image_id}", response_class=Response)
async def image(
    record: OwnImage,
    studio: TheStudio,
    download: Annotated[bool, Query(description="Have it saved instead of shown.")] = False,
) -> Response:
    """A picture as PNG, its parameters in the text chunk ``parameters``."""
    try:
        content = await asyncio.to_thread(studio.image_path(record).read_bytes)
    except FileNotFoundError:
        raise UnknownImageError(record.id) from None
    name = f'filename="dream-lab-{record.seed}.png"'
    headers = {
        # A picture never changes under its id.
        "Cache-Control": "private, max-age=31536000, immutable",
        "Content-Disposition": f"{'attachment' if download else 'inline'}; {name}",
    }
    return Response(content, media_type="image/png", headers=headers)


@api.get("/jobs/{job_id}/family")
async def family(view: OwnJob, studio: TheStudio, visitor: TheVisitor) -> FamilyOut:
    """What a job was made of, and what was made of it."""
    children = await studio.lineage.children(view.record.id)
    own = [child for child in children if child.owner.id == visitor.owner.id]
    return FamilyOut.of(view.record, own)


_ONCE: dict[int | str, dict[str, Any]] = {
    HTTPStatus.OK.value: {"model": JobOut, "description": "It was asked for before."}
}


@api.post("/images/{image_id}/vary", status_code=HTTPStatus.CREATED, responses=_ONCE)
async def vary(
    record: OwnImage,
    studio: TheStudio,
    feeds: TheFeeds,
    visitor: TheVisitor,
    response: Response,
) -> JobOut:
    """Asks for a picture that resembles one; there is one such child of each picture."""
    child = await studio.vary(record.id, visitor.owner, HERE)
    return await _born(child, studio, feeds, visitor, response)


@api.post("/images/{image_id}/upscale", status_code=HTTPStatus.CREATED, responses=_ONCE)
async def upscale(
    record: OwnImage,
    studio: TheStudio,
    feeds: TheFeeds,
    visitor: TheVisitor,
    response: Response,
) -> JobOut:
    """Asks for a picture to be enlarged by its model, or without where none fits (`note`)."""
    child = await studio.upscale(record.id, visitor.owner, HERE)
    return await _born(child, studio, feeds, visitor, response)


async def _born(
    child: Child, studio: TheStudio, feeds: TheFeeds, visitor: TheVisitor, response: Response
) -> JobOut:
    """Answers with a picture's one child, new or not."""
    if child.is_new:
        feeds.announce(child.job.id, visitor.owner)
    else:
        response.status_code = HTTPStatus.OK
    response.headers["Location"] = f"/api/jobs/{child.job.id}"
    return JobOut.of(await studio.view(child.job.id))
