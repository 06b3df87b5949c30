"""Kept pictures as Discord takes them: files that fit, each with a description."""

import asyncio
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import discord

from bot import replies, uploads
from bot.records import ImageRecord
from engine.jobs import GenerationRequest


def filename(image: ImageRecord) -> str:
    """Returns what a picture's file is called, without its ending."""
    return f"dream-{image.job_id}-{image.seed}"


async def attachments(
    images: Sequence[ImageRecord],
    image_path: Callable[[ImageRecord], Path],
    request: GenerationRequest,
    limit: int,
    *,
    spoiler: bool = False,
) -> tuple[list[discord.File], list[str]]:
    """Returns a job's pictures ready to be sent, and what was done to them.

    Args:
        images: of one job; those deleted since are left out.
        image_path: `Studio.image_path`.
        request: what they were drawn from.
        limit: bytes that one file may have.
        spoiler: whether they are covered until somebody uncovers them.
    """
    share = uploads.share_of(limit, len(images))
    files, notes = [], []
    for image in images:
        try:
            upload = await asyncio.to_thread(
                uploads.prepare, image_path(image), filename(image), share
            )
        except FileNotFoundError:
            continue  # deleted since the row was read
        if upload is None:
            notes.append("a picture is too large for Discord; the bot's owner has it")
            continue
        if upload.note and upload.note not in notes:
            notes.append(upload.note)
        files.append(
            discord.File(
                io.BytesIO(upload.content),
                filename=upload.filename,
                spoiler=spoiler,
                description=replies.alt_text(request, image.number),
            )
        )
    return files, notes
