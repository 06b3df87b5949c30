"""What Discord remembers: users, servers, channels, interactions, messages."""

import itertools
import mimetypes
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.discord_double import errors, limits
from tests.discord_double.calls import Files
from tests.discord_double.clock import Clock

TOKEN_LIFE = timedelta(minutes=15)
ACKNOWLEDGE_WITHIN = timedelta(seconds=3)
NONCE_LIFE = timedelta(minutes=5)
SILENT = 1 << 12
EPHEMERAL = 1 << 6
LOADING = 1 << 7

_EPOCH = datetime(2015, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class User:
    """Somebody."""

    id: int
    name: str
    bot: bool = False

    def payload(self) -> dict[str, Any]:
        """As Discord's JSON has it."""
        return {
            "id": str(self.id),
            "username": self.name,
            "global_name": None,
            "discriminator": "0",
            "avatar": None,
            "bot": self.bot,
        }


@dataclass(frozen=True)
class Role:
    """What members of a server may hold."""

    id: int
    name: str

    def payload(self) -> dict[str, Any]:
        """As Discord's JSON has it."""
        return {"id": str(self.id), "name": self.name, "permissions": "0", "position": 0}


@dataclass(frozen=True)
class Room:
    """A further text channel of a server, or a thread of its first one."""

    id: int
    name: str
    nsfw: bool = False
    parent_id: int | None = None


@dataclass(frozen=True)
class Guild:
    """A server with one text channel, and further ones.

    Attributes:
        held: roles of members that an option names; who is not in it holds none.
        locale: the language that its community reads.
    """

    id: int
    name: str
    channel_id: int
    roles: list[Role] = field(default_factory=list, compare=False)
    rooms: list[Room] = field(default_factory=list, compare=False)
    held: dict[int, list[Role]] = field(default_factory=dict, compare=False)
    locale: str = "en-US"

    def payload(self, bot: User) -> dict[str, Any]:
        """As GUILD_CREATE has it."""
        roles = [Role(self.id, "@everyone"), *self.roles]
        member = {"user": bot.payload(), "roles": [], "flags": 0, "joined_at": _EPOCH.isoformat()}
        return {
            "id": str(self.id),
            "name": self.name,
            "owner_id": "1",
            "unavailable": False,
            "member_count": 2,
            "roles": [role.payload() for role in roles],
            "emojis": [],
            "stickers": [],
            "features": [],
            "preferred_locale": self.locale,
            "channels": [
                self.channel(),
                *(self.channel(room) for room in self.rooms if not room.parent_id),
            ],
            "threads": [],
            "members": [{**member, "deaf": False, "mute": False}],
            "voice_states": [],
            "presences": [],
            "stage_instances": [],
            "guild_scheduled_events": [],
            "soundboard_sounds": [],
        }

    def channel(self, room: Room | None = None) -> dict[str, Any]:
        """Its first text channel, or another."""
        room = room or Room(self.channel_id, "pictures")
        shown: dict[str, Any] = {
            "id": str(room.id),
            "type": 11 if room.parent_id else 0,
            "guild_id": str(self.id),
            "name": room.name,
            "position": 0,
            "permission_overwrites": [],
            "nsfw": room.nsfw,
            "topic": None,
            "rate_limit_per_user": 0,
            "parent_id": str(room.parent_id) if room.parent_id else None,
            "last_message_id": None,
        }
        if not room.parent_id:
            return shown
        metadata = {
            "archived": False,
            "auto_archive_duration": 60,
            "archive_timestamp": _EPOCH.isoformat(),
            "locked": False,
        }
        thread = {"owner_id": "1", "message_count": 0, "member_count": 1}
        return {**shown, **thread, "thread_metadata": metadata}

    def member(self, roles: Sequence[Role], permissions: int = 0) -> dict[str, Any]:
        """A member, as interactions have it; whose it is stands beside it."""
        return {
            "roles": [str(role.id) for role in roles],
            "flags": 0,
            "permissions": str(permissions),
            "joined_at": "2020-01-01T00:00:00+00:00",
            "deaf": False,
            "mute": False,
        }


@dataclass
class Attachment:
    """A file of a message, or one that somebody sends along with a command.

    Attributes:
        cdn: where it is served; for those of messages this leads nowhere.
        claimed: the size that Discord tells of it, where that is not the real one.
    """

    id: int
    filename: str
    content: bytes
    description: str | None = None
    cdn: str = "https://cdn.invalid"
    claimed: int | None = None

    def payload(self) -> dict[str, Any]:
        """As Discord's JSON has it."""
        url = f"{self.cdn}/{self.id}/{self.filename}"
        return {
            "id": str(self.id),
            "filename": self.filename,
            "description": self.description,
            "content_type": mimetypes.guess_type(self.filename)[0],
            "size": len(self.content) if self.claimed is None else self.claimed,
            "url": url,
            "proxy_url": url,
        }


@dataclass
class Message:
    """A message as it is now, and what its text was before.

    Attributes:
        flags: 64 is ephemeral, 128 is "thinking".
        shown: every text it ever had, oldest first.
        pinged: users who were notified when it was created.
        replies_to: the message that it answers.
        mentions: users whom it names.
        reactions: emojis that the bot put on it.
        webhook_id: of the webhook that wrote it.
    """

    id: int
    channel_id: int
    author: User
    created_at: datetime
    content: str = ""
    embeds: list[dict[str, Any]] = field(default_factory=list)
    components: list[dict[str, Any]] = field(default_factory=list)
    attachments: list[Attachment] = field(default_factory=list)
    flags: int = 0
    nonce: str | None = None
    edited_at: datetime | None = None
    deleted: bool = False
    shown: list[str] = field(default_factory=list)
    pinged: tuple[int, ...] = ()
    replies_to: "Message | None" = None
    mentions: tuple[User, ...] = ()
    reactions: list[str] = field(default_factory=list)
    webhook_id: int | None = None

    @property
    def ephemeral(self) -> bool:
        """Whether only its addressee sees it."""
        return bool(self.flags & EPHEMERAL)

    @property
    def loading(self) -> bool:
        """Whether it says no more than that somebody is thinking."""
        return bool(self.flags & LOADING)

    @property
    def buttons(self) -> dict[str, dict[str, Any]]:
        """Its buttons by label."""
        return {
            button.get("label") or button["emoji"]["name"]: button
            for row in self.components
            for button in row["components"]
        }

    def seen_by(self, bot: User, *, direct: bool) -> dict[str, Any]:
        """As Discord tells a bot of it that has not the privileged message content intent."""
        payload = self.payload()
        if not (direct or self.author == bot or bot in self.mentions):
            payload |= {"content": "", "attachments": [], "embeds": [], "components": []}
        if self.replies_to:
            payload["referenced_message"] = self.replies_to.seen_by(bot, direct=direct)
        return payload

    def payload(self) -> dict[str, Any]:
        """As Discord's JSON has it."""
        reference: dict[str, Any] = {}
        if self.replies_to:
            reference["message_reference"] = {
                "type": 0,
                "message_id": str(self.replies_to.id),
                "channel_id": str(self.channel_id),
            }
        if self.webhook_id:
            reference["webhook_id"] = str(self.webhook_id)
        return reference | {
            "id": str(self.id),
            "type": 19 if self.replies_to else 0,
            "channel_id": str(self.channel_id),
            "author": self.author.payload(),
            "content": self.content,
            "timestamp": self.created_at.isoformat(),
            "edited_timestamp": self.edited_at.isoformat() if self.edited_at else None,
            "tts": False,
            "mention_everyone": False,
            "mentions": [user.payload() for user in self.mentions],
            "mention_roles": [],
            "attachments": [attachment.payload() for attachment in self.attachments],
            "embeds": self.embeds,
            "components": self.components,
            "pinned": False,
            "flags": self.flags,
            "nonce": self.nonce,
        }


@dataclass
class Interaction:
    """Something a user did, and what became of it.

    Attributes:
        kind: 2 is a command, 3 a button, 4 autocompletion, 5 a form that was filled in.
        acknowledged: type of the first answer; None before.
        original: the message that ``@original`` means.
        pressed: the message whose button it was.
        followups: later messages.
        choices: the answer to autocompletion.
        modal: the form that it was answered with.
        upload_limit: bytes per file.
    """

    id: int
    token: str
    kind: int
    user: User
    guild: Guild | None
    channel_id: int
    created_at: datetime
    upload_limit: int
    acknowledged: int | None = None
    original: Message | None = None
    pressed: Message | None = None
    followups: list[Message] = field(default_factory=list)
    choices: list[dict[str, Any]] | None = None
    modal: dict[str, Any] | None = None

    @property
    def answer(self) -> Message | None:
        """What the user sees: the answer's newest message that is there."""
        sources = [*self.followups, *([self.original] if self.original else [])]
        return next((message for message in sources if not message.deleted), None)


class World:
    """Everything, and the rules by which it changes."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._counter = itertools.count()
        self.bot = User(self.snowflake(), "Dream Lab", bot=True)
        self.application_id = self.snowflake()
        self.token = f"{secrets.token_hex(12)}.{secrets.token_hex(4)}.{secrets.token_hex(16)}"
        self.users: list[User] = []
        self.guilds: dict[int, Guild] = {}
        self.channels: dict[int, Guild | None] = {}
        self.forbidden: set[int] = set()
        self.closed: set[int] = set()
        self.unreacted: set[int] = set()
        self.messages: dict[int, Message] = {}
        self.interactions: dict[str, Interaction] = {}
        self.uploads: dict[int, Attachment] = {}
        self.commands: list[dict[str, Any]] | None = None
        self._nonces: dict[tuple[int, str], Message] = {}
        self.add_guild("Picture Club")

    def snowflake(self) -> int:
        """Returns a fresh id that tells the time."""
        milliseconds = int((self.clock.now() - _EPOCH).total_seconds() * 1000)
        return (milliseconds << 22) | (next(self._counter) % 2**22)

    def add_guild(self, name: str) -> Guild:
        """Makes a server that the bot is in."""
        guild = Guild(self.snowflake(), name, self.snowflake())
        self.guilds[guild.id] = guild
        self.channels[guild.channel_id] = guild
        return guild

    def add_room(self, guild: Guild, name: str, **more: Any) -> Room:
        """Makes a further channel, or a thread with ``parent_id``; before a bot is connected."""
        room = Room(self.snowflake(), name, **more)
        guild.rooms.append(room)
        self.channels[room.id] = guild
        return room

    def add_user(self, name: str) -> User:
        """Makes a user."""
        user = User(self.snowflake(), name)
        self.users.append(user)
        return user

    def upload(self, filename: str, content: bytes, cdn: str) -> Attachment:
        """Keeps a file that somebody sends along with a command."""
        attachment = Attachment(self.snowflake(), filename, content, cdn=cdn)
        self.uploads[attachment.id] = attachment
        return attachment

    def say(self, channel_id: int, author: User, content: str, **more: Any) -> Message:
        """Has somebody write a message; see `Message` for what it may have beside words."""
        message = Message(
            self.snowflake(), channel_id, author, self.clock.now(), content=content, **more
        )
        self.messages[message.id] = message
        return message

    def direct_channel(self, user_id: int) -> int:
        """Returns the channel between a user and the bot.

        Raises:
            ApiError: the user takes no messages.
        """
        if user_id in self.closed:
            raise errors.cannot_message()
        # Every user's channel with the bot has the user's own id here.
        self.channels.setdefault(user_id, None)
        return user_id

    def open_interaction(
        self, kind: int, user: User, guild: Guild | None, channel_id: int, upload_limit: int
    ) -> Interaction:
        """Makes an interaction; the token is its secret."""
        interaction = Interaction(
            id=self.snowflake(),
            token=secrets.token_urlsafe(32),
            kind=kind,
            user=user,
            guild=guild,
            channel_id=channel_id,
            created_at=self.clock.now(),
            upload_limit=upload_limit,
        )
        self.interactions[interaction.token] = interaction
        return interaction

    def unacknowledged(self, interaction_id: int, token: str) -> Interaction:
        """Returns an interaction that may still be acknowledged.

        Raises:
            ApiError: it may not.
        """
        interaction = self.interactions.get(token)
        if interaction is None or interaction.id != interaction_id:
            raise errors.unknown_interaction()
        if interaction.acknowledged is not None:
            raise errors.already_acknowledged()
        if self.clock.now() - interaction.created_at > ACKNOWLEDGE_WITHIN:
            raise errors.unknown_interaction()
        return interaction

    def answered(self, token: str) -> Interaction:
        """Returns an interaction whose answer may be edited.

        Raises:
            ApiError: it may not (any more).
        """
        interaction = self.interactions.get(token)
        if interaction is None:
            raise errors.unknown_webhook()
        if self.clock.now() - interaction.created_at >= TOKEN_LIFE:
            raise errors.dead_token()
        if interaction.acknowledged is None:
            raise errors.unknown_webhook()
        return interaction

    def channel(self, channel_id: int) -> int:
        """Returns a channel's id where the bot may use it.

        Raises:
            ApiError: it may not.
        """
        if channel_id not in self.channels:
            raise errors.unknown_channel()
        if channel_id in self.forbidden:
            raise errors.missing_access()
        if channel_id in self.closed:
            raise errors.cannot_message()
        return channel_id

    def message(self, message_id: int, channel_id: int | None = None) -> Message:
        """Returns a message that is there.

        Raises:
            ApiError: it is not.
        """
        message = self.messages.get(message_id)
        if message is None or message.deleted or channel_id not in (None, message.channel_id):
            raise errors.unknown_message()
        return message

    def create(
        self, channel_id: int, data: Mapping[str, Any], files: Files, upload_limit: int
    ) -> Message:
        """Posts a message of the bot's; a nonce that was seen returns the earlier one.

        Raises:
            ApiError: it is not allowed.
        """
        limits.check_message(data, files=len(files))
        nonce = str(data["nonce"]) if data.get("nonce") and data.get("enforce_nonce") else None
        earlier = self._nonces.get((channel_id, nonce)) if nonce else None
        if earlier and self.clock.now() - earlier.created_at < NONCE_LIFE:
            if earlier.deleted:
                raise errors.unknown_message()
            return earlier
        limits.check_files([len(content) for _, content in files.values()], upload_limit)
        answered = self._referenced(channel_id, data.get("message_reference"))
        message = self._new_message(channel_id, flags=int(data.get("flags") or 0))
        message.nonce = nonce
        self._apply(message, data, files)
        allowed = data.get("allowed_mentions")
        message.pinged = _pinged(message.content, allowed)
        message.replies_to = answered
        if answered and (allowed is None or allowed.get("replied_user")):
            message.pinged += (answered.author.id,)
        if nonce:
            self._nonces[channel_id, nonce] = message
        return message

    def _referenced(self, channel_id: int, reference: Mapping[str, Any] | None) -> Message | None:
        if reference is None:
            return None
        try:
            answered = self.message(int(reference["message_id"]), channel_id)
            if answered.ephemeral:
                raise errors.unknown_message()
        except errors.ApiError:
            if reference.get("fail_if_not_exists", True):
                raise errors.invalid_form("message_reference", "Unknown message") from None
            return None
        return answered

    def create_loading(self, channel_id: int, flags: int) -> Message:
        """Posts "… is thinking"."""
        return self._new_message(channel_id, flags=(flags & EPHEMERAL) | LOADING)

    def edit(
        self, message: Message, data: Mapping[str, Any], files: Files, upload_limit: int
    ) -> Message:
        """Changes a message; what is not named stays.

        Raises:
            ApiError: it is not allowed.
        """
        limits.check_message(data, files=len(files), editing=True)
        limits.check_files([len(content) for _, content in files.values()], upload_limit)
        self._apply(message, data, files)
        message.flags &= ~LOADING
        message.edited_at = self.clock.now()
        return message

    def history(self, channel_id: int, limit: int, before: int | None = None) -> list[Message]:
        """Returns a channel's newest messages, newest first; those before one, if that is named."""
        seen = [
            message
            for message in self.messages.values()
            if message.channel_id == channel_id
            and not (message.deleted or message.ephemeral)
            and (before is None or message.id < before)
        ]
        return sorted(seen, key=lambda message: -message.id)[:limit]

    def _new_message(self, channel_id: int, flags: int) -> Message:
        message = Message(self.snowflake(), channel_id, self.bot, self.clock.now(), flags=flags)
        self.messages[message.id] = message
        return message

    def _apply(self, message: Message, data: Mapping[str, Any], files: Files) -> None:
        attachments = self._attachments(message, data.get("attachments"), files)
        content = message.content if "content" not in data else data["content"] or ""
        embeds = message.embeds if "embeds" not in data else data["embeds"] or []
        if not (content or embeds or attachments):
            raise errors.empty_message()
        message.content, message.embeds, message.attachments = content, embeds, attachments
        if "components" in data:
            message.components = data["components"] or []
        message.shown.append(content)

    def _attachments(
        self, message: Message, listed: Sequence[Mapping[str, Any]] | None, files: Files
    ) -> list[Attachment]:
        """Returns what is kept and what is new: a list given names all of both."""
        uploads = {name.removeprefix("files[").removesuffix("]"): f for name, f in files.items()}
        if listed is None:
            listed = [{"id": a.id} for a in message.attachments]
            listed = [*listed, *({"id": index} for index in uploads)]
        kept = {str(attachment.id): attachment for attachment in message.attachments}
        attachments = []
        for entry in listed:
            key = str(entry["id"])
            if key in uploads:
                filename, content = uploads.pop(key)
                attachments.append(
                    Attachment(
                        self.snowflake(),
                        entry.get("filename") or filename,
                        content,
                        entry.get("description"),
                    )
                )
            elif key in kept:
                attachments.append(kept[key])
            else:
                raise errors.invalid_form("attachments", f"No file with the id {key}.")
        return attachments


def _pinged(content: str, allowed: Mapping[str, Any] | None) -> tuple[int, ...]:
    """Returns whom a new message notifies."""
    mentioned = [
        int(word.rstrip(">").lstrip("!"))
        for part in content.split("<@")[1:]
        if (word := part.split(">")[0]).lstrip("!").isdigit()
    ]
    if allowed is None or "users" in (allowed.get("parse") or []):
        return tuple(mentioned)
    chosen = {int(user) for user in allowed.get("users") or []}
    return tuple(user for user in mentioned if user in chosen)
