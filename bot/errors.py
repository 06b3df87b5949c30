"""What front ends are told where the service can't do as they ask."""

from engine.errors import DreamLabError, RequestError


class UnknownJobError(RequestError):
    """There is no such job."""

    def __init__(self, job_id: str) -> None:
        super().__init__("job", job_id, "the id of a request")


class UnknownImageError(RequestError):
    """There is no such picture, or it was deleted."""

    def __init__(self, image_id: str) -> None:
        super().__init__("image", image_id, "the id of a picture that was not deleted")


class NotAllowedError(DreamLabError):
    """Somebody tried what only others may: the asker, a moderator, members with a role."""


def refuse(reason: str | None) -> None:
    """Refuses where a policy gives a reason to.

    Raises:
        NotAllowedError: with the reason, unless it is None.
    """
    if reason:
        raise NotAllowedError(reason)
