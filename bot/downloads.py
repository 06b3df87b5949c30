"""Files from other addresses, bounded in bytes and time."""

import asyncio
import logging

import aiohttp

from engine.errors import DreamLabError

log = logging.getLogger(__name__)

SECONDS = 30.0
"""Longest that a file may take."""


class DownloadError(DreamLabError):
    """A file could not be fetched; asking once more may help."""


async def download(url: str, most: int, seconds: float = SECONDS) -> bytes:
    """Returns a file's bytes, or its first ``most`` + 1 where it is larger.

    Args:
        url: from somebody trusted, such as Discord; it is not followed elsewhere.
        most: bytes that the caller takes.
        seconds: longest that it may take in all.

    Raises:
        DownloadError: it did not come. Its text doesn't have the address, which may be secret.
    """
    try:
        async with asyncio.timeout(seconds):
            return await _fetched(url, most)
    except TimeoutError:
        sentence = f"The file took longer than {seconds:g} seconds. Please send it again."
    except (aiohttp.ClientError, OSError, ValueError) as error:
        log.info("A file could not be fetched (%s)", type(error).__name__)
        sentence = "The file could not be fetched. Please send it again."
    raise DownloadError(sentence)


async def _fetched(url: str, most: int) -> bytes:
    async with aiohttp.ClientSession() as session, session.get(url, allow_redirects=False) as got:
        got.raise_for_status()
        if got.status != 200:
            raise aiohttp.ClientError(got.status)
        content = bytearray()
        async for part in got.content.iter_any():
            content += part
            if len(content) > most:
                break
        return bytes(content[: most + 1])
