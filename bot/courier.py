"""Brings the end of a job to Discord, once, however often it is tried.

While the interaction's token lives, the answer is edited, which can be repeated. After that a
message is posted whose nonce is the job's id, so that Discord itself drops a repetition; and since
Discord remembers nonces for minutes only, the channel is looked through first, back to the request.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, cast

import aiohttp
import discord

from bot import replies, views
from bot.address import Address
from bot.attachments import attachments
from bot.followers import Followers
from bot.outbox import Undeliverable
from bot.records import ImageRecord, JobRecord, JobView
from engine.errors import DreamLabError
from engine.jobs import JobStatus

if TYPE_CHECKING:
    from bot.client import DreamClient

log = logging.getLogger(__name__)

_TOKEN_IS_DEAD = frozenset({10008, 10015, 10062, 50027})
"""Unknown message, unknown webhook, unknown interaction, invalid webhook token."""

_NOBODY_THERE = frozenset({10003, 10004, 50001, 50007, 50013})
"""Unknown channel, unknown guild, missing access, can't message this user, missing permissions."""

_UNKNOWN_MESSAGE = 10008
_TOO_LARGE = 40005
_LOOKED_THROUGH = 1000
"""Most messages that are read to see whether a result was posted before."""

_SMALLEST_LIMIT = 2**18
REPEAT_AFTER = 6.0
"""Seconds after which a result is shown once more where a progress edit before it got no answer:
Discord may have been slow rather than deaf, and have done it on top of the result."""


class DiscordUnreachableError(DreamLabError):
    """Discord did not do what was asked; it may later. It never names an address or a token."""


class Acknowledgements:
    """Interactions whose first answer is on its way: until it is there, nobody can edit it."""

    def __init__(self) -> None:
        self._open: dict[int, asyncio.Event] = {}

    @contextmanager
    def opening(self, interaction_id: int) -> Iterator[None]:
        """Holds back whoever would edit the answer until the block ends."""
        event = self._open[interaction_id] = asyncio.Event()
        try:
            yield
        finally:
            del self._open[interaction_id]
            event.set()

    async def settled(self, interaction_id: int) -> None:
        """Waits until the first answer is there, or has failed for good."""
        if event := self._open.get(interaction_id):
            await event.wait()


class DiscordCourier:
    """Shows the end of jobs that were asked for on Discord."""

    def __init__(
        self,
        client: Callable[[], Awaitable["DreamClient"]],
        image_path: Callable[[ImageRecord], Path],
        followers: Followers,
        acknowledgements: Acknowledgements,
        now: Callable[[], datetime],
        repeat_after: float = REPEAT_AFTER,
    ) -> None:
        """Takes what it uses.

        Args:
            client: waits for and returns one that is logged in.
            image_path: `Studio.image_path`.
            followers: of the jobs under way.
            acknowledgements: first answers under way.
            now: the time.
            repeat_after: see `REPEAT_AFTER`; tests are less patient.
        """
        self._client = client
        self._image_path = image_path
        self._followers = followers
        self._acknowledgements = acknowledgements
        self._now = now
        self._repeat_after = repeat_after

    async def carry(self, view: JobView) -> None:
        """Shows a job's end to the asker; repeating it changes nothing.

        Raises:
            Undeliverable: the channel is gone or closed to the bot.
            DiscordUnreachableError: try again later.
        """
        job = view.record
        address = Address.from_plain(job.origin.address)
        await self._acknowledgements.settled(address.interaction_id)
        in_doubt = await self._followers.stop(job.id)
        client = await self._client()
        if self._now() < address.expires_at and await self._edit(client, address, job):
            if in_doubt:
                await asyncio.sleep(self._repeat_after)
                await self._edit(client, address, job)
            return
        is_deleted = job.status is JobStatus.DONE and not job.images
        if job.status is not JobStatus.CANCELLED and not is_deleted:  # who did either knows
            await self._post(client, address, job)

    async def _edit(self, client: "DreamClient", address: Address, job: JobRecord) -> bool:
        """Edits the answer; False where that is not possible any more."""
        webhook = discord.Webhook.partial(address.application_id, address.token, client=client)

        async def edit(content: str, files: list[discord.File]) -> None:
            await webhook.edit_message(
                cast(int, "@original"),  # what the route takes in an id's place
                content=content,
                attachments=files,
                view=views.ended_view(job),
                allowed_mentions=discord.AllowedMentions.none(),
            )

        try:
            await self._send(job, address.upload_limit, edit)
        except discord.HTTPException as error:
            if error.code in _TOKEN_IS_DEAD or error.status == 404:
                return False
            raise _unreachable(error) from None
        except (aiohttp.ClientError, OSError) as error:
            raise _unreachable(error) from None
        return True

    async def _post(self, client: "DreamClient", address: Address, job: JobRecord) -> None:
        """Posts a message of its own."""
        if address.channel_id is None:
            raise Undeliverable("Discord did not say which channel this was asked for in.")
        guild = client.get_guild(address.guild_id) if address.guild_id else None
        limit = guild.filesize_limit if guild else discord.utils.DEFAULT_FILE_SIZE_LIMIT_BYTES
        channel = client.get_partial_messageable(address.channel_id, guild_id=address.guild_id)

        async def post(content: str, files: list[discord.File]) -> None:
            await channel.send(
                content,
                files=files,
                view=views.ended_view(job),
                nonce=cast(int, job.id),  # a string by Discord's documentation
                allowed_mentions=discord.AllowedMentions(
                    everyone=False, roles=False, users=[discord.Object(address.user_id)]
                ),
            )

        try:
            if not await self._is_there(channel, job.id, address.interaction_id):
                await self._send(job, limit, post)
        except discord.HTTPException as error:
            if error.code == _UNKNOWN_MESSAGE:
                return  # it was posted with this nonce before, and somebody deleted it
            if error.code in _NOBODY_THERE or isinstance(error, discord.Forbidden):
                raise Undeliverable(f"Discord refuses it (error {error.code}).") from None
            raise _unreachable(error) from None
        except (aiohttp.ClientError, OSError) as error:
            raise _unreachable(error) from None

    async def _is_there(
        self, channel: discord.PartialMessageable, job_id: str, interaction_id: int
    ) -> bool:
        """Whether a message after the request holds the job's end already."""
        try:
            async for message in channel.history(limit=_LOOKED_THROUGH):
                if message.id < interaction_id:
                    break
                if message.author.id == channel._state.self_id and views.is_result(message, job_id):
                    return True
        except discord.Forbidden:
            pass  # it may write here without being allowed to read; the nonce is left
        return False

    async def _send(
        self,
        job: JobRecord,
        limit: int,
        send: Callable[[str, list[discord.File]], Awaitable[None]],
    ) -> None:
        """Sends a job's end, its pictures made smaller where Discord finds them too large."""
        while True:
            files, notes = await attachments(
                job.images,
                self._image_path,
                job.request,
                limit,
                spoiler=Address.from_plain(job.origin.address).spoiler,
            )
            try:
                await send(replies.outcome(job, notes), files)
            except discord.HTTPException as error:
                too_large = error.status == 413 or error.code == _TOO_LARGE
                if not (too_large and files and limit > _SMALLEST_LIMIT):
                    raise
                log.info("Discord finds %d bytes too large; smaller pictures follow", limit)
                limit //= 2
            else:
                return


def _unreachable(error: Exception) -> DiscordUnreachableError:
    if isinstance(error, discord.HTTPException):
        return DiscordUnreachableError(
            f"Discord answered with status {error.status}, error {error.code}."
        )
    return DiscordUnreachableError(f"Discord could not be reached ({type(error).__name__}).")
