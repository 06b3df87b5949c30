"""Progress on Discord: one follower per job under way keeps its answer up to date.

A follower only ever shows the newest view and never holds anything up: each edit is one request
with a deadline, on a connection of its own, since discord.py tries an edit five times and holds
the token's lock meanwhile. The end of a job is the courier's to show; it stops the follower first.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import aiohttp
from pydantic import SecretStr

from bot import replies
from bot.address import Address
from bot.records import JobRecord, JobView
from bot.speech import speak
from engine.errors import DreamLabError

log = logging.getLogger(__name__)

EDIT_SECONDS = 3.0
"""Shortest time between two edits of one answer."""

DEADLINE = 3.0
"""Longest that one edit may take."""

FAREWELL = timedelta(seconds=30)
"""How long before its token dies an answer says that the picture comes elsewhere."""

# With a thousand people waiting, nobody at the back needs to see every step of the queue.
_PATIENCE = ((5, 1.0), (25, 5.0), (100, 10.0))
_LEAST_PATIENCE = 20.0


def pause(view: JobView, edit_seconds: float = EDIT_SECONDS) -> float:
    """Returns the seconds until a job's next edit: longer, the further back it waits."""
    if view.position is None:
        return edit_seconds
    for position, factor in _PATIENCE:
        if view.position <= position:
            return edit_seconds * factor
    return edit_seconds * _LEAST_PATIENCE


@dataclass
class _Follower:
    """One job's follower.

    Attributes:
        idle: set while no edit is on its way.
        in_doubt: whether the newest edit got no answer, so that Discord may do it yet. After a
            restart nobody knows.
    """

    address: Address
    in_doubt: bool = False
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class Followers:
    """All followers; each is remembered until `stop`, which says what is in doubt, or `close`."""

    def __init__(
        self,
        watch: Callable[[str], AsyncIterator[JobView]],
        api_url: str,
        now: Callable[[], datetime],
        edit_seconds: float = EDIT_SECONDS,
        deadline: float = DEADLINE,
        token: SecretStr | None = None,
    ) -> None:
        """Takes what it uses.

        Args:
            watch: `Studio.watch`.
            api_url: where Discord answers requests.
            now: the time.
            edit_seconds: see `EDIT_SECONDS`; tests are less patient.
            deadline: see `DEADLINE`.
            token: the bot's own, by which it edits answers to messages.
        """
        self._token = token
        self._watch = watch
        self._api_url = api_url
        self._now = now
        self._edit_seconds = edit_seconds
        self._deadline = deadline
        self._followers: dict[str, _Follower] = {}
        self._session: aiohttp.ClientSession | None = None

    def follow(self, job: JobRecord, shown: str = "") -> None:
        """Begins to follow a job.

        Args:
            job: asked for on Discord.
            shown: what its answer says already; nothing where a restart came in between.
        """
        address = Address.from_plain(job.origin.address)
        if job.id in self._followers or address.path is None:
            return
        follower = _Follower(address, in_doubt=not shown)
        follower.idle.set()
        follower.task = asyncio.create_task(
            self._run(job.id, follower, shown), name=f"progress of {job.id}"
        )
        self._followers[job.id] = follower

    async def stop(self, job_id: str) -> bool:
        """Ends a job's follower; when this returns, no edit of its is on its way.

        Returns:
            Whether one got no answer, so that Discord may do it yet, on top of what follows.
        """
        follower = self._followers.pop(job_id, None)
        if follower is None or follower.task is None:
            return False
        # An edit that Discord is working on could land after the result. It has a deadline.
        while not follower.idle.is_set():
            await follower.idle.wait()
        follower.task.cancel()
        await asyncio.wait([follower.task])
        return follower.in_doubt

    async def close(self) -> None:
        """Ends all of them."""
        await asyncio.gather(*(self.stop(job_id) for job_id in tuple(self._followers)))
        if self._session:
            await self._session.close()
            self._session = None

    async def _run(self, job_id: str, follower: _Follower, shown: str) -> None:
        speak(follower.address.locale)  # a task of its own
        left = follower.address.expires_at - self._now() - FAREWELL
        try:
            if left <= -FAREWELL:
                return  # a dead token shows nothing any more
            async with asyncio.timeout(max(0.0, left.total_seconds())):
                await self._show(job_id, follower, shown)
        except TimeoutError:
            await self._part(job_id, follower)
        except DreamLabError as error:
            log.warning("Job %s can't be followed: %s", job_id, error)
        except Exception:
            log.exception("Following job %s failed", job_id)

    async def _first_pause(self, job_id: str) -> float:
        """Returns the seconds from an answer to its first edit: a burst is not edited at once."""
        async for view in self._watch(job_id):
            return pause(view, self._edit_seconds)
        return self._edit_seconds

    async def _show(self, job_id: str, follower: _Follower, shown: str) -> None:
        preview = None
        # Its answer, or a follower before a restart, may have been sent a moment ago.
        await asyncio.sleep(await self._first_pause(job_id) if shown else self._edit_seconds)
        async for view in self._watch(job_id):
            if view.record.status.is_final:
                return
            text = replies.status(view)
            picture = view.progress.preview if view.progress else None
            if (text, picture) == (shown, preview):
                continue
            wait = await self._edit(follower, text, picture)
            shown, preview = text, picture
            await asyncio.sleep(max(wait, pause(view, self._edit_seconds)))

    async def _part(self, job_id: str, follower: _Follower) -> None:
        """Says where the result will come, while it still can be said here."""
        with suppress(DreamLabError):
            async for view in self._watch(job_id):
                if not view.record.status.is_final:
                    await self._edit(follower, replies.farewell(view), None)
                return

    async def _edit(self, follower: _Follower, text: str, preview: bytes | None) -> float:
        """Edits the answer once and returns how long Discord wants to be left alone.

        Nothing that goes wrong here matters: the next edit shows more than this one would have.
        """
        follower.idle.clear()
        follower.in_doubt = True
        try:
            async with asyncio.timeout(self._deadline):
                wait = await self._patch(follower.address, text, preview)
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            # Not the error itself: it may name the address, and the token is a part of that.
            log.info("A progress edit failed (%s)", type(error).__name__)
            return 0.0
        else:
            follower.in_doubt = False
            return wait
        finally:
            follower.idle.set()

    async def _patch(self, address: Address, text: str, preview: bytes | None) -> float:
        if self._session is None:
            self._session = aiohttp.ClientSession()
        payload: dict[str, Any] = {"content": text, "allowed_mentions": {"parse": []}}
        form = aiohttp.FormData(quote_fields=False)
        if preview:
            # Discord covers what is named so.
            name = "SPOILER_preview.jpg" if address.spoiler else "preview.jpg"
            payload["attachments"] = [{"id": 0, "filename": name}]
            form.add_field("files[0]", preview, filename=name, content_type="image/jpeg")
        form.add_field("payload_json", json.dumps(payload), content_type="application/json")
        headers = {}
        if address.is_message and self._token:
            headers["Authorization"] = f"Bot {self._token.get_secret_value()}"
        url = f"{self._api_url}{address.path}"
        async with self._session.patch(url, data=form, headers=headers) as response:
            if response.status >= 400:
                log.info("A progress edit was refused with status %d", response.status)
            return _wanted_pause(response)


def _wanted_pause(response: aiohttp.ClientResponse) -> float:
    headers = response.headers
    spent = response.status == 429 or headers.get("X-RateLimit-Remaining") == "0"
    wanted = headers.get("Retry-After") or headers.get("X-RateLimit-Reset-After") or "0"
    try:
        return float(wanted) if spent else 0.0
    except ValueError:
        return 0.0
