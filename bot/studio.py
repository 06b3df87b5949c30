"""The one service that every front end calls."""

from collections.abc import AsyncIterator
from pathlib import Path

from bot.records import ImageRecord, JobRecord, JobView, Origin, Owner
from engine.errors import DreamLabError, RequestError
from engine.jobs import RequestDraft
from modes.mode_config import ModeConfig


class UnknownJobError(RequestError):
    """There is no such job, or the asker may not see it."""

    def __init__(self, job_id: str) -> None:
        super().__init__("job", job_id, "the id of a request that was not deleted")


class NotAllowedError(DreamLabError):
    """Somebody tried what only the asker or a moderator may."""


class Studio:
    """Submit, cancel, settle, recover, history."""

    async def submit(
        self, draft: RequestDraft, owner: Owner, origin: Origin, parent_id: str | None = None
    ) -> JobRecord:
        """Stores a request and queues it; it is committed when this returns.

        Raises:
            RequestError: something in the draft is not allowed; nothing was stored.
            QueueFullError: likewise.
            PoolClosedError: likewise.
        """
        raise NotImplementedError

    async def again(
        self, job_id: str, owner: Owner, origin: Origin, *, vary: bool = False
    ) -> JobRecord:
        """Asks for the same once more: with a fresh seed, or, to vary, a seed close by.

        Raises:
            UnknownJobError: no such job.
            RequestError: as `submit`.
        """
        raise NotImplementedError

    async def cancel(self, job_id: str, by: Owner, *, moderator: bool = False) -> bool:
        """Takes a job back; False where it had ended already.

        Raises:
            UnknownJobError: no such job.
            NotAllowedError: it is somebody else's and ``moderator`` is false.
        """
        raise NotImplementedError

    async def delete(self, job_id: str, by: Owner, *, moderator: bool = False) -> JobRecord:
        """Removes a job's pictures, files included, and returns what it was.

        Raises:
            UnknownJobError: no such job.
            NotAllowedError: it is somebody else's and ``moderator`` is false.
        """
        raise NotImplementedError

    async def view(self, job_id: str) -> JobView:
        """Returns a job as it is now.

        Raises:
            UnknownJobError: no such job.
        """
        raise NotImplementedError

    def watch(self, job_id: str) -> AsyncIterator[JobView]:
        """Yields a job's view now and whenever it changes; the final one is the last.

        A slow reader misses views in between, never the final one. Any number may watch.

        Raises:
            UnknownJobError: no such job.
        """
        raise NotImplementedError

    async def history(self, owner_id: str, limit: int = 50) -> list[JobRecord]:
        """Returns an owner's newest jobs, newest first."""
        raise NotImplementedError

    async def mode_of(self, place: str | None) -> ModeConfig:
        """Returns the mode that a place draws with when nobody names one."""
        raise NotImplementedError

    async def switch_mode(self, name: str, place: str | None) -> ModeConfig:
        """Makes a mode the place's and begins to load its model; None is everywhere else.

        Raises:
            UnknownModeError: no such mode; nothing changed.
        """
        raise NotImplementedError

    def image_path(self, image: ImageRecord) -> Path:
        """Returns where a picture's file is."""
        raise NotImplementedError
