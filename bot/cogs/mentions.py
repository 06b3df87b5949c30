"""Messages: who names the bot in a channel, or writes to it alone, asks for a picture.

The rest of the message is the prompt, a picture that came along is what is drawn from, and so is
one of the bot's own that the message replies to. Discord tells the bot the words of these messages
alone; it asks for no others.
"""

import logging
import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

import aiohttp
import discord

from bot import replies, replies_asking, views
from bot.address import Address
from bot.asking import Asked
from bot.cogs.permute import confirmation_view
from bot.pointing import job_of, picture_url
from bot.records import JobRecord, Origin, Owner
from bot.speech import speak
from bot.wishes import Wish

if TYPE_CHECKING:
    from bot.client import DreamClient

log = logging.getLogger(__name__)

_REMEMBERED = 1000
"""Messages that are known to have been read, should Discord tell of them once more."""

_REPLAYED = timedelta(minutes=10)
"""How long after a message a RESUME may bring it again, generously."""

_LOOKED_AT = 5
"""Requests of somebody's in which a language is looked for, the newest first."""

_NO_HISTORY = 160002
"""Who may not read a channel's past may not reply to its messages."""

_NO_ENTRY = "\N{NO ENTRY SIGN}"
_KINDS = (discord.MessageType.default, discord.MessageType.reply)
_MENTION = re.compile(r"<@!?(\d+)>")
_THING = re.compile(r"<(?:a?:(\w+):\d+|#\d+|@&\d+|/([^:>]+):\d+|t:-?\d+(?::\w)?)>")


class Mentions:
    """Reads messages for one connection."""

    def __init__(self, client: "DreamClient") -> None:
        """Takes the connection."""
        self._client = client
        self._seen: OrderedDict[int, None] = OrderedDict()

    async def read(self, message: discord.Message) -> None:
        """Takes a message as a request, if it is one; nothing escapes."""
        if not self._is_for_us(message) or self._is_known(message.id):
            return
        with self._client.handling():
            try:
                locale = await self._locale(message)
                speak(locale)
                await self._take(message, locale)
            except discord.Forbidden:
                await self._refuse(message, replies_asking.may_not_write(message.channel.id))
            except Exception as error:  # the one place where nothing may escape
                await self._refuse(message, self._client.told(error))

    def _is_for_us(self, message: discord.Message) -> bool:
        if message.author.bot or message.webhook_id or message.type not in _KINDS:
            return False
        # A reply notifies the bot without its name in the words: that alone is no request.
        return message.guild is None or self._own_id in map(int, _MENTION.findall(message.content))

    def _is_known(self, message_id: int) -> bool:
        known = message_id in self._seen
        self._seen[message_id] = None
        while len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        return known

    @property
    def _own_id(self) -> int:
        return self._client.user.id if self._client.user else 0

    async def _locale(self, message: discord.Message) -> str | None:
        """Returns which language somebody reads, or else their server; messages don't say.

        What they last asked for by a command or a button does.
        """
        asker = self._client.owner_of(message.author)
        for job in await self._client.studio.history(asker.id, _LOOKED_AT):
            address = job.origin.address
            if address.get("token") and address.get("locale"):
                return str(address["locale"])
        return message.guild.preferred_locale.value if message.guild else None

    async def _take(self, message: discord.Message, locale: str | None) -> None:
        client = self._client
        guild_id = message.guild.id if message.guild else None
        client.welcome(guild_id)
        owner = client.owner_of(message.author)
        address = self._address(message, locale)
        since = message.created_at - _REPLAYED
        if await client.studio.keyed(owner.id, str(address.key), since):
            return  # a start of the program came in between
        wish = await self._wish(message)
        if not wish.prompt:
            await self._say(message, replies_asking.how_to_ask(self._own_id), f"how-{message.id}")
            return
        origin = replace(
            client.origin_at(message.channel, message.channel.id, guild_id),
            address=address.to_plain(),
        )
        with client.acknowledgements.opening(message.id):
            asked = await client.asking.read(wish, owner, origin)
            if len(asked) > 1:
                await self._confirm(message, wish, asked, owner)
                return
            await self._draw(message, wish, asked, owner, origin)

    async def _draw(
        self,
        message: discord.Message,
        wish: Wish,
        asked: Sequence[Asked],
        owner: Owner,
        origin: Origin,
    ) -> None:
        """Submits a request and replies with where it stands; then its progress is followed."""
        client = self._client
        (job,) = await client.asking.submit(wish, asked, owner, origin)
        text = replies.status(await client.studio.view(job.id))
        try:
            sent = await self._say(message, text, f"{job.id}-ask", view=views.waiting_view(job.id))
        except discord.Forbidden:
            # Nobody would see what comes of it.
            await client.studio.cancel(job.id, job.owner)
            raise
        except (discord.HTTPException, aiohttp.ClientError, OSError) as error:
            # It is stored, and its result still comes.
            log.warning("Job %s could not be answered (%s)", job.id, type(error).__name__)
            return
        await client.studio.answered(job.id, sent.id)
        client.followers.follow(_answered(job, sent.id), text)

    async def _confirm(
        self, message: discord.Message, wish: Wish, asked: Sequence[Asked], owner: Owner
    ) -> None:
        wish_id = await self._client.asking.keep(wish, owner)
        view = confirmation_view(wish_id, asked)
        await self._say(message, replies_asking.confirmation(asked), f"ask-{message.id}", view=view)

    async def _wish(self, message: discord.Message) -> Wish:
        """Returns what a message asks for."""
        prompt = self._words(message)
        if url := picture_url(message):
            return Wish(prompt, image_url=url)
        if message.attachments:
            # It is none, and the studio says so.
            return Wish(prompt, image_url=message.attachments[0].url)
        earlier = message.reference.resolved if message.reference else None
        if not isinstance(earlier, discord.Message):
            return Wish(prompt)
        return await self._remix(earlier, prompt)

    async def _remix(self, earlier: discord.Message, prompt: str) -> Wish:
        """Returns a request for another picture made of the one that a message shows."""
        if earlier.author.id == self._own_id and (job_id := job_of(earlier)):
            job = await self._client.studio.remixable(job_id)
            if job:
                return Wish(
                    prompt or job.request.shown_prompt,
                    image_id=job.images[0].id,
                    parent_id=job.id,
                    parent_number=job.images[0].number,
                    like_mode=job.request.mode,
                    is_plain=not prompt,
                )
        return Wish(prompt, image_url=picture_url(earlier))

    def _words(self, message: discord.Message) -> str:
        """Returns a message's words without the bot's name, other things by their names."""
        names = {user.id: user.display_name for user in message.mentions}

        def named(match: re.Match[str]) -> str:
            number = int(match[1])
            return "" if number == self._own_id else names.get(number, "")

        words = _MENTION.sub(named, message.content)
        return " ".join(_THING.sub(lambda thing: thing[1] or thing[2] or "", words).split())

    def _address(self, message: discord.Message, locale: str | None) -> Address:
        guild = message.guild
        limit = guild.filesize_limit if guild else discord.utils.DEFAULT_FILE_SIZE_LIMIT_BYTES
        return Address(
            application_id=self._client.application_id or 0,
            interaction_id=message.id,
            token="",
            channel_id=message.channel.id,
            guild_id=guild.id if guild else None,
            user_id=message.author.id,
            upload_limit=limit,
            answer_id=0,
            key=f"message {message.id}",
            locale=locale,
        )

    async def _say(
        self, message: discord.Message, text: str, nonce: str, **more: Any
    ) -> discord.Message:
        """Replies to a message; should it be said twice, Discord drops the second."""
        more |= {"nonce": cast(int, nonce), "allowed_mentions": discord.AllowedMentions.none()}
        try:
            return await message.channel.send(
                text, reference=message.to_reference(fail_if_not_exists=False), **more
            )
        except discord.HTTPException as error:
            if error.code != _NO_HISTORY:
                raise
        return await message.channel.send(text, **more)

    async def _refuse(self, message: discord.Message, text: str) -> None:
        """Says why there will be no picture: here, or else by a sign, or else in private."""
        ways = (
            lambda: self._say(message, text, f"no-{message.id}"),
            lambda: message.add_reaction(_NO_ENTRY),
            lambda: message.author.send(text),
        )
        for way in ways:
            try:
                await way()
            except discord.Forbidden:
                continue
            except (discord.HTTPException, aiohttp.ClientError, OSError) as error:
                log.warning("A refusal could not be told (%s)", type(error).__name__)
            return
        log.warning("Nothing can be said to who wrote message %d", message.id)


def _answered(job: JobRecord, answer_id: int) -> JobRecord:
    """Returns a job that knows which message its answer is."""
    address = {**job.origin.address, "answer_id": answer_id}
    return replace(job, origin=replace(job.origin, address=address))
