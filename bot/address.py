"""Where on Discord a request was made: what an answer needs, kept with the job."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Self

TOKEN_LIFE = timedelta(minutes=15)
"""How long Discord lets an interaction's answer be edited."""

_DISCORD_EPOCH_MS = 1_420_070_400_000  # the first second of 2015


@dataclass(frozen=True, slots=True)
class Address:
    """An interaction and its surroundings.

    Attributes:
        application_id: the bot's application.
        interaction_id: a snowflake, so that it tells when the request was made.
        token: whoever has it may edit the answer. Never logged, never shown.
        channel_id: where it was made; None where Discord did not say.
        guild_id: the server; None in a direct message.
        user_id: who made it.
        upload_limit: bytes per file that the answer may carry.
        spoiler: whether pictures are covered until somebody uncovers them.
    """

    application_id: int
    interaction_id: int
    token: str = field(repr=False)
    channel_id: int | None
    guild_id: int | None
    user_id: int
    upload_limit: int
    spoiler: bool = False

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> Self:
        """Reads what `to_plain` wrote."""
        return cls(**values)

    def to_plain(self) -> dict[str, Any]:
        """Returns plain JSON values, for `Origin.address`."""
        return asdict(self)

    @property
    def expires_at(self) -> datetime:
        """When the token dies."""
        milliseconds = (self.interaction_id >> 22) + _DISCORD_EPOCH_MS
        return datetime.fromtimestamp(milliseconds / 1000, UTC) + TOKEN_LIFE
