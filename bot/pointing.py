"""What a message on Discord shows: one of the bot's jobs, a picture of anybody's."""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from urllib.parse import urlsplit

import discord

_BUTTON = re.compile(r"dream:[a-z]+:(?P<job>[\w-]{16})(?::.*)?")
_FILE = re.compile(r"(?:SPOILER_)?dream-(?P<job>[\w-]{16})-(?P<seed>\d+)\.\w+")
_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".gif")


def job_of(message: discord.Message) -> str | None:
    """Returns the job that one of the bot's own messages is about; None where it is about none.

    Whether the message is the bot's own is the caller's to know.
    """
    for attachment in message.attachments:
        if match := _FILE.fullmatch(attachment.filename):
            return match["job"]
    for custom_id in _button_ids(message):
        if match := _BUTTON.fullmatch(custom_id):
            return match["job"]
    return None


def seed_of(url: str) -> int | None:
    """Returns the seed of one of the bot's own pictures, as the file at an address is named."""
    match = _FILE.fullmatch(PurePosixPath(urlsplit(url).path).name)
    return int(match["seed"]) if match else None


def pictures(message: discord.Message) -> list[str]:
    """Returns the addresses of all pictures that a message shows, at Discord itself."""
    urls = [attachment.url for attachment in message.attachments if is_picture(attachment)]
    for embed in message.embeds:
        # Discord's own copy: nobody has the bot fetch what they like.
        urls += [shown.proxy_url for shown in (embed.image, embed.thumbnail) if shown.proxy_url]
    return list(dict.fromkeys(urls))


def picture_url(message: discord.Message) -> str | None:
    """Returns the address of the first of them; None where a message shows none."""
    return next(iter(pictures(message)), None)


def is_picture(attachment: discord.Attachment) -> bool:
    """Whether a file says that it is a picture."""
    kind = attachment.content_type or ""
    return kind.startswith("image/") or attachment.filename.lower().endswith(_ENDINGS)


def _button_ids(message: discord.Message) -> Iterator[str]:
    for row in message.components:
        if isinstance(row, discord.ActionRow):
            yield from (child.custom_id for child in row.children if child.custom_id)
