"""Brings the end of a job to Discord, once, however often it is tried.

While the answer can be edited, it is, which can be repeated. After that a message is posted whose
nonce is the job's id, so that Discord itself drops a repetition; and since Discord remembers nonces
for minutes only, the channel is looked through first, back to the request. An edit notifies nobody:
who wants to be told gets a word beside it, which is kept from being said twice in the same way.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import aiohttp
import discord

from bot import replies, views
from bot.address import Address
from bot.attachments import attachments
from bot.followers import Followers
from bot.outbox import Undeliverable
from bot.preferences import Ping
from bot.records import ImageRecord, JobRecord, JobView, Origin
from bot.speech import speak
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
_EDITED_TOO_OFTEN = 30046
"""A message older than an hour takes but a few edits."""

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

    def __len__(self) -> int:
        """How many there are."""
        return len(self._open)

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
        asked = Address.from_plain(job.origin.address)
        speak(asked.locale)
        await self._acknowledgements.settled(asked.interaction_id)
        in_doubt = await self._followers.stop(job.id)
        client = await self._client()
        # Which message the answer is may have become known meanwhile.
        job = (await client.studio.view(job.id)).record
        address = Address.from_plain(job.origin.address)
        ping = _heard(address, (await client.studio.members.preferences(job.owner.id)).ping)
        shown = await self._edit(client, address, job)
        if shown is not None:
            if in_doubt:
                await asyncio.sleep(self._repeat_after)
                await self._edit(client, address, job)
            await self._tell(client, address, job, ping, shown)
            return
        # Its asker may have deleted it meanwhile, and the answer is gone for that.
        job = (await client.studio.view(job.id)).record
        if not _is_news(job):
            return
        if ping is Ping.DIRECT and await self._write_to(client, address, job, None):
            return
        await self._post(client, address, job, ping)

    async def _edit(self, client: "DreamClient", address: Address, job: JobRecord) -> int | None:
        """Edits the answer and returns its id; None where that is not possible any more."""
        if address.path is None or self._now() >= address.expires_at:
            return None
        answer_id = 0

        async def edit(content: str, files: list[discord.File]) -> None:
            nonlocal answer_id
            message = await _editor(client, address)(
                content=content,
                attachments=files,
                view=views.ended_view(job, await client.studio.lineage.used(job.id)),
                allowed_mentions=discord.AllowedMentions.none(),
            )
            answer_id = message.id

        try:
            await self._send(job, address.upload_limit, edit)
        except discord.HTTPException as error:
            if error.code in _TOKEN_IS_DEAD or error.status == 404:
                return None
            if address.is_message and (
                error.code in (*_NOBODY_THERE, _EDITED_TOO_OFTEN) or error.status == 403
            ):
                return None
            raise _unreachable(error) from None
        except (aiohttp.ClientError, OSError) as error:
            raise _unreachable(error) from None
        return answer_id

    async def _tell(
        self, client: "DreamClient", address: Address, job: JobRecord, ping: Ping, shown: int
    ) -> None:
        """Tells who wants to be told that their answer has changed."""
        if ping is Ping.QUIET or not _is_news(job):
            return
        if ping is Ping.DIRECT:
            await self._write_to(client, address, job, shown)
            return
        if address.channel_id is None or address.private:
            return  # nobody can be named beside what nobody else sees
        channel = client.get_partial_messageable(address.channel_id, guild_id=address.guild_id)

        def is_word(message: discord.Message) -> bool:
            reference = message.reference
            return reference is not None and reference.message_id == shown

        try:
            if not await self._is_there(channel, is_word, address.interaction_id):
                await channel.send(
                    replies.ping(job),
                    reference=_reference(address, shown),
                    nonce=cast(int, f"{job.id}-ping"),
                    allowed_mentions=_only(address.user_id),
                )
        except discord.HTTPException as error:
            if error.code != _UNKNOWN_MESSAGE and error.status not in (400, 403, 404):
                raise _unreachable(error) from None
            log.info("The asker of job %s can't be pinged (error %d)", job.id, error.code)
        except (aiohttp.ClientError, OSError) as error:
            raise _unreachable(error) from None

    async def _write_to(
        self, client: "DreamClient", address: Address, job: JobRecord, shown: int | None
    ) -> bool:
        """Brings a result to its asker alone; False where they take no messages.

        Args:
            client: logged in.
            address: of the answer.
            job: with a final status.
            shown: the answer's id; None where it could not be shown there.
        """
        link = []
        if shown is not None and not address.private:
            link.append(_link(address, shown))

        async def write(content: str, files: list[discord.File]) -> None:
            await channel.send(
                content,
                files=files,
                view=views.ended_view(job, await client.studio.lineage.used(job.id)),
                nonce=cast(int, f"{job.id}-told"),
                allowed_mentions=discord.AllowedMentions.none(),
            )

        try:
            channel = await client.create_dm(discord.Object(address.user_id))
            result = partial(views.is_result, job_id=job.id)
            if not await self._is_there(channel, result, address.interaction_id):
                limit = discord.utils.DEFAULT_FILE_SIZE_LIMIT_BYTES
                # Where it was asked for may be for adults; this is not.
                private = Origin("discord", None, is_restricted=False)
                covered = client.studio.admission.is_covered(job, private)
                await self._send(job, limit, write, link, covered=covered)
        except discord.HTTPException as error:
            if error.code == _UNKNOWN_MESSAGE:
                return True  # written before, and deleted
            if error.code not in _NOBODY_THERE and error.status not in (400, 403, 404):
                raise _unreachable(error) from None
            log.info("The asker of job %s takes no direct message", job.id)
            return False
        except (aiohttp.ClientError, OSError) as error:
            raise _unreachable(error) from None
        return True

    async def _post(
        self, client: "DreamClient", address: Address, job: JobRecord, ping: Ping
    ) -> None:
        """Posts a message of its own."""
        if address.channel_id is None:
            raise Undeliverable("Discord did not say which channel this was asked for in.")
        if address.private:
            raise Undeliverable("Its asker alone may see it, and /results brings it to them.")
        guild = client.get_guild(address.guild_id) if address.guild_id else None
        limit = guild.filesize_limit if guild else discord.utils.DEFAULT_FILE_SIZE_LIMIT_BYTES
        channel = client.get_partial_messageable(address.channel_id, guild_id=address.guild_id)

        async def post(content: str, files: list[discord.File]) -> None:
            await channel.send(
                content,
                files=files,
                view=views.ended_view(job, await client.studio.lineage.used(job.id)),
                nonce=cast(int, job.id),  # a string by Discord's documentation
                silent=ping is Ping.QUIET,
                **_beside(address),
                allowed_mentions=(
                    _only(address.user_id) if ping is Ping.PING else discord.AllowedMentions.none()
                ),
            )

        try:
            result = partial(views.is_result, job_id=job.id)
            if not await self._is_there(channel, result, address.interaction_id):
                await self._send(job, limit, post)
        except discord.HTTPException as error:
            if error.code == _UNKNOWN_MESSAGE:
                return  # it was posted with this nonce before, and somebody deleted it
            if error.code in _NOBODY_THERE or isinstance(error, discord.Forbidden):
                await self._say_where(client, address, job)
                raise Undeliverable(f"Discord refuses it (error {error.code}).") from None
            raise _unreachable(error) from None
        except (aiohttp.ClientError, OSError) as error:
            raise _unreachable(error) from None

    async def _say_where(self, client: "DreamClient", address: Address, job: JobRecord) -> None:
        """Says in an answer to a message where its pictures are that may not be shown there."""
        if not address.is_message or address.path is None or not job.images:
            return
        try:
            await _editor(client, address)(
                content=replies.kept(job),
                view=None,
                allowed_mentions=discord.AllowedMentions.none(),
            )
        except (discord.HTTPException, aiohttp.ClientError, OSError) as error:
            log.info("Where job %s is can't be told (%s)", job.id, type(error).__name__)

    async def _is_there(
        self,
        channel: discord.PartialMessageable | discord.DMChannel,
        is_it: Callable[[discord.Message], bool],
        interaction_id: int,
    ) -> bool:
        """Whether the bot has written something since the request already."""
        try:
            async for message in channel.history(limit=_LOOKED_THROUGH):
                if message.id < interaction_id:
                    break
                if message.author.id == channel._state.self_id and is_it(message):
                    return True
        except discord.Forbidden:
            pass  # it may write here without being allowed to read; the nonce is left
        return False

    async def _send(
        self,
        job: JobRecord,
        limit: int,
        send: Callable[[str, list[discord.File]], Awaitable[None]],
        more: Sequence[str] = (),
        *,
        covered: bool = False,
    ) -> None:
        """Sends a job's end, its pictures made smaller where Discord finds them too large."""
        while True:
            files, notes = await attachments(
                job.images,
                self._image_path,
                job.request,
                limit,
                spoiler=covered or Address.from_plain(job.origin.address).spoiler,
            )
            try:
                await send(replies.outcome(job, [*notes, *more]), files)
            except discord.HTTPException as error:
                too_large = error.status == 413 or error.code == _TOO_LARGE
                if not (too_large and files and limit > _SMALLEST_LIMIT):
                    raise
                log.info("Discord finds %d bytes too large; smaller pictures follow", limit)
                limit //= 2
            else:
                return


def _heard(address: Address, ping: Ping) -> Ping:
    """Returns how somebody is told; where they alone read, a word there is a direct message."""
    return Ping.PING if ping is Ping.DIRECT and address.guild_id is None else ping


def _is_news(job: JobRecord) -> bool:
    """Whether its asker doesn't know: they do of what they took back or had deleted."""
    is_deleted = job.status is JobStatus.DONE and not job.images
    return job.status is not JobStatus.CANCELLED and not is_deleted


def _editor(client: "DreamClient", address: Address) -> Callable[..., Awaitable[discord.Message]]:
    """Returns what edits an answer."""
    if address.is_message:
        assert address.channel_id is not None  # noqa: S101 # a message has its channel
        assert address.answer_id is not None  # noqa: S101 # asked before
        channel = client.get_partial_messageable(address.channel_id, guild_id=address.guild_id)
        return channel.get_partial_message(address.answer_id).edit
    webhook = discord.Webhook.partial(address.application_id, address.token, client=client)
    # The route takes this in an id's place.
    return partial(webhook.edit_message, address.answer_id or cast(int, "@original"))


def _reference(address: Address, message_id: int) -> discord.MessageReference:
    assert address.channel_id is not None  # noqa: S101 # who refers to a message knows where it is
    return discord.MessageReference(
        message_id=message_id,
        channel_id=address.channel_id,
        guild_id=address.guild_id,
        fail_if_not_exists=False,
    )


def _beside(address: Address) -> dict[str, Any]:
    """Returns what makes a message the answer to the one that asked."""
    if not address.is_message:
        return {}
    return {"reference": _reference(address, address.interaction_id), "mention_author": False}


def _only(user_id: int) -> discord.AllowedMentions:
    return discord.AllowedMentions(
        everyone=False, roles=False, users=[discord.Object(user_id)], replied_user=False
    )


def _link(address: Address, message_id: int) -> str:
    return f"https://discord.com/channels/{address.guild_id}/{address.channel_id}/{message_id}"


def _unreachable(error: Exception) -> DiscordUnreachableError:
    if isinstance(error, discord.HTTPException):
        return DiscordUnreachableError(
            f"Discord answered with status {error.status}, error {error.code}."
        )
    return DiscordUnreachableError(f"Discord could not be reached ({type(error).__name__}).")
