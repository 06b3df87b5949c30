"""Where on Discord a request was made: what an answer needs, kept with the job.

A command, a button or a form is an interaction, and its token opens the answer for a while. What
somebody wrote as a message is answered by a message, which the bot may edit for ever.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Self

TOKEN_LIFE = timedelta(minutes=15)
"""How long Discord lets an interaction's answer be edited."""

_DISCORD_EPOCH_MS = 1_420_070_400_000  # the first second of 2015


@dataclass(frozen=True, slots=True)
class Address:
    """An interaction, or a message, and its surroundings.

    Attributes:
        application_id: the bot's application.
        interaction_id: a snowflake, so that it tells when the request was made; the message's
            where that asked.
        token: whoever has it may edit the answer. Never logged, never shown. Empty where a message
            asked.
        channel_id: where it was made; None where Discord did not say.
        guild_id: the server; None in a direct message.
        user_id: who made it.
        upload_limit: bytes per file that the answer may carry.
        spoiler: whether pictures are covered until somebody uncovers them.
        private: whether the asker alone sees the answer.
        notes: what the asker is told of their request, beside what becomes of it.
        answer_id: the message that is the answer. None is the interaction's first; 0 is not there
            yet, or it is not known whether it is.
        shared_id: the message that a private answer was shown to all in; None where it was not.
        key: what it is recognised by should it come twice; None where it can't.
        locale: as Discord says which language the asker reads; None where it did not.
    """

    application_id: int
    interaction_id: int
    token: str = field(repr=False)
    channel_id: int | None
    guild_id: int | None
    user_id: int
    upload_limit: int
    spoiler: bool = False
    private: bool = False
    notes: tuple[str, ...] = ()
    answer_id: int | None = None
    shared_id: int | None = None
    key: str | None = None
    locale: str | None = None

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> Self:
        """Reads what `to_plain` wrote."""
        return cls(**{**values, "notes": tuple(values.get("notes", ()))})

    def to_plain(self) -> dict[str, Any]:
        """Returns plain JSON values, for `Origin.address`."""
        return asdict(self)

    @property
    def is_message(self) -> bool:
        """Whether a message asked."""
        return not self.token

    @property
    def path(self) -> str | None:
        """Returns the route by which the answer is edited; None where there is none to edit."""
        if self.answer_id == 0:
            return None
        if self.is_message:
            return f"/channels/{self.channel_id}/messages/{self.answer_id}"
        answer = self.answer_id or "@original"
        return f"/webhooks/{self.application_id}/{self.token}/messages/{answer}"

    @property
    def expires_at(self) -> datetime:
        """When the answer can't be edited any more."""
        if self.is_message:
            return datetime.max.replace(tzinfo=UTC)
        milliseconds = (self.interaction_id >> 22) + _DISCORD_EPOCH_MS
        return datetime.fromtimestamp(milliseconds / 1000, UTC) + TOKEN_LIFE
