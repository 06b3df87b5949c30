"""Streams of what happens: one job's, or everything of one owner's, as server-sent events."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Self

from fastapi.sse import ServerSentEvent
from pydantic import BaseModel

from bot.errors import UnknownJobError
from bot.records import JobRecord, Owner
from bot.studio import Studio
from bot.web.problems import TooManyError
from bot.web.roles import Visitor
from bot.web.schemas import GoneOut, JobOut, JobsOut

logger = logging.getLogger(__name__)

STATUS_EVERY = 1.0
"""Seconds between two looks at the studio's status; only a change is sent."""

MOST = 256
"""Streams that may be open at once."""

MOST_OF_ONE = 64
"""Streams of one owner; a browser keeps one for each of its tabs."""

RETRY = 1000
"""Milliseconds after which a browser whose stream broke asks again."""


class Feed:
    """One open stream. What is new waits in it, newest only, until the reader takes it.

    Used as ``async with``: leaving ends its tasks. A reader that is slower than the news misses
    states in between, never a job's last one, and holds no more memory than one event for each
    job that it follows.
    """

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self._news: dict[str, ServerSentEvent] = {}
        self._changed = asyncio.Event()
        self._ended = False
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = tuple(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def follow(self, job_id: str) -> None:
        """Sends the job's state now and whenever it changes."""
        self._start(f"job {job_id}", self._watch(job_id))

    def follow_status(self, status: Callable[[], BaseModel]) -> None:
        """Sends the status now and whenever it changes."""
        self.follow_look("status", status)

    def follow_look(
        self,
        event: str,
        look: Callable[[], BaseModel | Awaitable[BaseModel]],
        every: float = STATUS_EVERY,
    ) -> None:
        """Sends what a look finds, now and whenever it is something else.

        Args:
            event: the name that it is sent under.
            look: looks.
            every: seconds between two looks.
        """
        self._start(event, self._poll(event, look, every))

    def tell(self, event: str, about: str, data: BaseModel) -> None:
        """Puts in an event; it takes the place of an unread one about the same."""
        self._news[about] = ServerSentEvent(event=event, data=data)
        self._changed.set()

    def end(self) -> None:
        """Ends the stream once what waits in it is read."""
        self._ended = True
        self._changed.set()

    async def until_idle(self) -> AsyncIterator[ServerSentEvent]:
        """Yields the events until nothing is followed any more."""
        while self._tasks or self._news:
            async for event in self._take():
                yield event
            if self._ended:
                return

    async def everything(
        self, history: Callable[[], Awaitable[Sequence[JobRecord]]]
    ) -> AsyncIterator[ServerSentEvent]:
        """Yields what there is, then the events, until the stream is ended from outside."""
        # Jobs that are announced from here on wait in the news: they can't fall between the two.
        records = await history()
        jobs = JobsOut(jobs=[JobOut.of_record(record) for record in records])
        yield ServerSentEvent(event="jobs", data=jobs)
        for record in records:
            if not record.status.is_final:
                self.follow(record.id)
        while not self._ended:
            async for event in self._take():
                yield event

    async def _take(self) -> AsyncIterator[ServerSentEvent]:
        await self._changed.wait()
        self._changed.clear()
        while self._news:
            yield self._news.pop(next(iter(self._news)))

    def _start(self, name: str, work: Awaitable[None]) -> None:
        if name in self._tasks:
            return
        task = asyncio.ensure_future(self._run(name, work))
        task.set_name(f"web feed: {name}")
        self._tasks[name] = task

    async def _run(self, name: str, work: Awaitable[None]) -> None:
        try:
            await work
        except Exception:
            # The reader comes back by itself and begins anew; the reason is in the log.
            logger.exception("A stream of events broke off at %s.", name)
            self.end()
        finally:
            self._tasks.pop(name, None)
            self._changed.set()

    async def _watch(self, job_id: str) -> None:
        try:
            async for view in self._studio.watch(job_id):
                self.tell("job", job_id, JobOut.of(view))
        except UnknownJobError:
            self.tell("gone", job_id, GoneOut(id=job_id))

    async def _poll(
        self, event: str, look: Callable[[], BaseModel | Awaitable[BaseModel]], every: float
    ) -> None:
        shown = None
        while True:
            found = look()
            now = found if isinstance(found, BaseModel) else await found
            if now != shown:
                self.tell(event, event, now)
                shown = now
            await asyncio.sleep(every)


class Feeds:
    """The open streams: a new job reaches each, and a shutdown ends them."""

    def __init__(self) -> None:
        self._all: dict[Feed, Visitor] = {}
        self._of_everything: set[Feed] = set()
        self._closed = False

    @contextmanager
    def open(self, feed: Feed, visitor: Visitor, *, everything: bool = False) -> Iterator[None]:
        """Counts a stream in while it is read; it ends with the session that it was opened with.

        Args:
            feed: the stream.
            visitor: who reads it.
            everything: whether it hears of its reader's new jobs.

        Raises:
            TooManyError: as many are open as there may be.
        """
        theirs = sum(known.owner == visitor.owner for known in self._all.values())
        if theirs >= MOST_OF_ONE or len(self._all) >= MOST:
            raise TooManyError("Too many streams of events are open; close some of them first.")
        self._all[feed] = visitor
        if everything:
            self._of_everything.add(feed)
        if self._closed:
            feed.end()
        expiry = None
        if visitor.expires is not None:
            expiry = asyncio.get_running_loop().call_at(visitor.expires, feed.end)
        try:
            yield
        finally:
            if expiry:
                expiry.cancel()
            del self._all[feed]
            self._of_everything.discard(feed)

    def announce(self, job_id: str, owner: Owner) -> None:
        """Has an owner's streams of everything follow a new job."""
        for feed in self._of(owner):
            feed.follow(job_id)

    def announce_gone(self, job_id: str, owner: Owner) -> None:
        """Tells an owner's streams of everything that a job was deleted."""
        for feed in self._of(owner):
            feed.tell("gone", job_id, GoneOut(id=job_id))

    def end_of(self, visitor: Visitor) -> None:
        """Ends every stream that was opened with a visitor's session."""
        for feed, known in tuple(self._all.items()):
            if visitor.session is not None and known.session == visitor.session:
                feed.end()

    def _of(self, owner: Owner) -> list[Feed]:
        return [feed for feed in self._of_everything if self._all[feed].owner == owner]

    def close(self) -> None:
        """Ends every stream, those to come included."""
        self._closed = True
        for feed in tuple(self._all):
            feed.end()
