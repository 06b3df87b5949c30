"""The Discord front end: connects, stays connected, and hands requests to the studio."""

import asyncio
import logging
import random
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeAlias

import aiohttp
import discord
import yarl
from discord import app_commands

from bot import replies, views
from bot.address import Address
from bot.asking import Asking
from bot.cogs.mentions import Mentions
from bot.cogs.registered import BUTTONS, COMMANDS, FORMS
from bot.cogs.translator import Translator
from bot.courier import Acknowledgements, DiscordCourier
from bot.errors import NotAllowedError
from bot.followers import EDIT_SECONDS, Followers
from bot.forms import take_back
from bot.phrasebook import retold
from bot.records import JobRecord, Origin, Owner
from bot.settings import Settings, SettingsError
from bot.speech import speak, tr
from bot.studio import Studio
from engine.errors import DreamLabError, ModelError
from modes.catalog import ModeCatalog

log = logging.getLogger(__name__)

ACKNOWLEDGE_SECONDS = 1.5
"""How long a submission may take before "thinking" is shown: half of what Discord allows."""

AT_ONCE = 16
"""Requests that are submitted at the same time. Who comes while it is as many is told so by
"thinking" and waits for a turn: in a burst, all would be answered together, at its end."""

LISTEN_SECONDS = 3.0
"""Longest that turns wait for others to be told "thinking": Discord gives up on these then."""

CONNECTIONS = 100
"""Most connections to Discord's API. A burst uses those that are there instead of opening more."""

ANSWER_SECONDS = 10.0
"""How long Discord may take to accept where a new job stands, before it is tried once more."""

_FIRST_RETRY = 1.0
_LAST_RETRY = 120.0
_STEADY_SECONDS = 300.0
_CLOSE_SECONDS = 5.0
_BAD_TOKEN = 4004
_UNKNOWN_INTERACTION = 10062
_ALREADY_ACKNOWLEDGED = 40060

_NETWORK = (
    discord.HTTPException,
    discord.GatewayNotFound,
    discord.ConnectionClosed,
    aiohttp.ClientError,
    OSError,
)
"""What calls to Discord raise where Discord or the way there is at fault."""

_KEEPABLE = (
    discord.TextChannel,
    discord.VoiceChannel,
    discord.StageChannel,
    discord.ForumChannel,
    discord.Thread,
)
"""Channels that can be kept for adults."""

Submission: TypeAlias = Callable[[Owner, Origin], Awaitable[JobRecord]]
"""Submits a request for somebody somewhere: a call of the studio's."""


class DiscordLoginError(SettingsError):
    """Discord does not know the token; only the owner can mend that."""

    def __init__(self) -> None:
        problem = (
            "Discord refuses the bot's token. Copy it again from the page Bot of your application "
            "at https://discord.com/developers/applications into DISCORD_TOKEN."
        )
        super().__init__((problem,))


class PatientSocket(discord.gateway.DiscordWebSocket):
    """Discord's gateway. Between two events everything else on the event loop has its turn.

    discord.py itself goes on for as long as events are there: a burst would stop all else.
    """

    async def poll_event(self) -> None:
        """Takes one event."""
        await super().poll_event()
        await asyncio.sleep(0)


class DreamTree(app_commands.CommandTree["DreamClient"]):
    """The slash commands; what no command explained itself ends here."""

    async def on_error(
        self, interaction: "discord.Interaction[DreamClient]", error: app_commands.AppCommandError
    ) -> None:
        """Tells whoever typed the command."""
        await interaction.client.explain(interaction, error)


class DreamClient(discord.Client):
    """One connection to Discord, from its login until it ends for good."""

    def __init__(self, front_end: "DiscordFrontEnd", **options: Any) -> None:
        """Takes what it is the connection of, and what discord.py should know beside that."""
        super().__init__(
            **options,
            # Nothing here is privileged: messages that name the bot, and those to it alone, come
            # with their words all the same. Servers are kept for their channels and upload limits.
            intents=discord.Intents(guilds=True, guild_messages=True, dm_messages=True),
            allowed_mentions=discord.AllowedMentions.none(),
            member_cache_flags=discord.MemberCacheFlags.none(),
            chunk_guilds_at_startup=False,
            max_messages=None,
            connector=aiohttp.TCPConnector(limit=CONNECTIONS),
        )
        self.studio = front_end.studio
        self.catalog = front_end.catalog
        self.asking = front_end.asking
        self.acknowledgements = front_end.acknowledgements
        self.followers = front_end.followers
        self.allows_direct = front_end.settings.discord_direct
        self._front_end = front_end
        self._mentions = Mentions(self)
        installs = front_end.settings.discord_user_install
        self.tree = DreamTree(
            self,
            allowed_installs=app_commands.AppInstallationType(guild=True, user=installs),
            allowed_contexts=app_commands.AppCommandContext(
                guild=True, dm_channel=self.allows_direct, private_channel=installs
            ),
        )
        self._sync: asyncio.Task[None] | None = None
        self._handling: set[asyncio.Task[Any]] = set()
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._thinking = 0
        self._calm = asyncio.Event()
        self._calm.set()

    async def setup_hook(self) -> None:
        """Prepares what must be there before the first event comes."""
        self.add_dynamic_items(*BUTTONS)
        for command in COMMANDS:
            self.tree.add_command(command)
        await self.tree.set_translator(Translator())
        self._sync = asyncio.create_task(self._sync_commands(), name="command sync")
        self._front_end.logged_in(self)

    async def close(self) -> None:
        """Lets what is being answered finish, for a moment, and closes the connection."""
        if self._sync:
            self._sync.cancel()
            await asyncio.wait([self._sync])
        current = asyncio.current_task()
        if handling := [task for task in self._handling if task is not current]:
            _, late = await asyncio.wait(handling, timeout=_CLOSE_SECONDS)
            for task in late:
                task.cancel()
        await super().close()

    async def on_socket_event_type(self, event: str) -> None:
        """Keeps a proxy in between: READY names Discord's own address for RESUME."""
        gateway = self._front_end.gateway
        if event == "READY" and gateway is not None:
            for socket in self._sockets():
                socket.gateway = gateway

    def _sockets(self) -> Sequence[discord.gateway.DiscordWebSocket]:
        return [self.ws] if self.ws else []

    async def on_message(self, message: discord.Message) -> None:
        """Takes what somebody asks for in a message."""
        await self._mentions.read(message)

    async def on_interaction(self, interaction: discord.Interaction[Any]) -> None:
        """Takes forms; discord.py brings commands and buttons to where they belong."""
        if interaction.type is discord.InteractionType.modal_submit:
            await take_back(interaction, FORMS)

    # What commands and buttons use

    def owner(self, interaction: "discord.Interaction[DreamClient]") -> Owner:
        """Returns who did something, with the roles that they hold here."""
        return self.owner_of(interaction.user)

    def owner_of(self, user: discord.User | discord.Member) -> Owner:
        """Returns somebody, with their roles where Discord has told these."""
        held = user.roles if isinstance(user, discord.Member) else ()
        roles = frozenset(name for role in held for name in (role.name, str(role.id)))
        return Owner(f"discord:{user.id}", user.display_name, roles)

    def operates(self, user: discord.User | discord.Member) -> bool:
        """Says whether somebody runs this bot: its application's owner or team, or a named one."""
        application = self.application
        team = application.team.members if application and application.team else ()
        owner = [application.owner] if application and not team else []
        known = {str(each.id) for each in (*team, *owner)}
        return str(user.id) in known | set(self._front_end.operators)

    def place(self, interaction: "discord.Interaction[DreamClient]") -> str | None:
        """Returns whose chosen mode counts; None in a direct message."""
        return _place(interaction.guild_id)

    def origin(self, interaction: "discord.Interaction[DreamClient]") -> Origin:
        """Returns where something was done, as far as a place's rules go."""
        return self.origin_at(interaction.channel, interaction.channel_id, interaction.guild_id)

    def origin_at(self, channel: object, channel_id: int | None, guild_id: int | None) -> Origin:
        """Returns a channel, as far as a place's rules go."""
        ids = {str(channel_id)}
        if isinstance(channel, discord.Thread):
            ids.add(str(channel.parent_id))
        return Origin(
            "discord",
            _place(guild_id),
            channels=frozenset(ids),
            # Direct messages, and what Discord says too little of, are for everybody's eyes.
            is_restricted=isinstance(channel, _KEEPABLE) and channel.is_nsfw(),
        )

    def address(self, interaction: "discord.Interaction[DreamClient]") -> Address:
        """Returns where something is answered."""
        return _address(interaction)

    def told(self, error: Exception) -> str:
        """Returns what a person is told of an error."""
        return _sentence(error)

    def welcome(self, guild_id: int | None) -> None:
        """Refuses to draw in direct messages where the bot's owner wants that.

        Raises:
            NotAllowedError: so it is.
        """
        if guild_id is None and not self.allows_direct:
            told = tr("Drawing in direct messages is switched off; ask in a server.")
            raise NotAllowedError(told)

    async def take(
        self,
        interaction: "discord.Interaction[DreamClient]",
        submission: Submission,
        *,
        private: bool = False,
    ) -> None:
        """Submits a request and answers with where it stands; then its progress is followed.

        Args:
            interaction: by which it was asked.
            submission: stores it.
            private: whether the asker alone sees the answer.

        Raises:
            DreamLabError: the studio's own; nothing was stored.
        """
        self.welcome(interaction.guild_id)
        address = replace(self.address(interaction), private=private)
        origin = replace(self.origin(interaction), address=address.to_plain())
        with self._front_end.acknowledgements.opening(interaction.id):
            if len(self.acknowledgements) > AT_ONCE:
                await self._think(interaction, private=private)
            async with self._turns:
                if interaction.response.is_done():
                    await self._listened()
                # A task of its own, so that the deadline doesn't cut a commit short. Who is slow,
                # such as with a picture to fetch, holds nobody else up for longer than that.
                submitting = asyncio.ensure_future(submission(self.owner(interaction), origin))
                await asyncio.wait([submitting], timeout=ACKNOWLEDGE_SECONDS)
            if not (submitting.done() or interaction.response.is_done()):
                await self._think(interaction, private=private)
            job = await submitting
            shown = await self._answer(interaction, job, private=private)
            if shown is not None:
                self._front_end.followers.follow(job, shown)

    async def _think(
        self, interaction: "discord.Interaction[DreamClient]", *, private: bool
    ) -> None:
        """Tells somebody that their request has arrived."""
        self._thinking += 1
        if self._thinking > AT_ONCE:
            self._calm.clear()
        try:
            await interaction.response.defer(thinking=True, ephemeral=private)
        except _NETWORK as error:
            log.warning("An interaction could not be acknowledged: %s", _brief(error))
        finally:
            self._thinking -= 1
            if self._thinking <= AT_ONCE:
                self._calm.set()

    async def _listened(self) -> None:
        """Waits, for a while, until not many are left whom Discord gives up on in seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LISTEN_SECONDS):
                await self._calm.wait()

    async def _answer(
        self, interaction: "discord.Interaction[DreamClient]", job: JobRecord, *, private: bool
    ) -> str | None:
        """Shows where a new job stands and returns what was shown; None if Discord gave up on it.

        The job is stored: where the network fails, its result still comes.
        """
        text = replies.status(await self.studio.view(job.id))
        for _ in range(2):
            try:
                view = views.waiting_view(job.id)
                # What hangs keeps its progress from being shown, for minutes.
                async with asyncio.timeout(ANSWER_SECONDS):
                    if interaction.response.is_done():
                        await interaction.edit_original_response(content=text, view=view)
                    else:
                        await interaction.response.send_message(text, view=view, ephemeral=private)
            except discord.HTTPException as error:
                if error.code == _ALREADY_ACKNOWLEDGED:
                    break  # an attempt whose answer was lost on the way had arrived
                if error.code == _UNKNOWN_INTERACTION:
                    log.warning("Discord gave up on job %s before it was answered", job.id)
                    # The asker was told that the bot did not respond, and asks again.
                    await self.studio.cancel(job.id, job.owner)
                    return None
                log.warning("Job %s could not be answered: %s", job.id, _brief(error))
            except (aiohttp.ClientError, OSError) as error:
                log.warning("Job %s could not be answered: %s", job.id, _brief(error))
            else:
                break
        return text

    @asynccontextmanager
    async def explaining(
        self, interaction: "discord.Interaction[DreamClient]"
    ) -> AsyncIterator[None]:
        """Tells whoever did something what went wrong in the block, as a private answer."""
        speak(interaction.locale.value)
        with self.handling():
            try:
                yield
            except Exception as error:  # the one place where nothing may escape
                await self.explain(interaction, error)

    @contextmanager
    def handling(self) -> Iterator[None]:
        """Has the connection stay open for a moment until the block ends."""
        task = asyncio.current_task()
        if task:
            self._handling.add(task)
        try:
            yield
        finally:
            if task:
                self._handling.discard(task)

    async def explain(
        self, interaction: "discord.Interaction[DreamClient]", error: Exception
    ) -> None:
        """Says what went wrong as a private answer, however far the interaction has come."""
        text = self.told(error)
        try:
            if not interaction.response.is_done():
                await interaction.response.send_message(text, ephemeral=True)
                return
            if (
                interaction.response.type
                is discord.InteractionResponseType.deferred_channel_message
            ):
                # A follow-up would fill the public "thinking" instead.
                await interaction.delete_original_response()
            await interaction.followup.send(text, ephemeral=True)
        except _NETWORK as failure:
            log.warning("An error could not be told to the asker: %s", _brief(failure))

    async def _sync_commands(self) -> None:
        """Tells Discord the commands; it keeps them, so that a failure can wait."""
        delay = _FIRST_RETRY
        while True:
            try:
                await self.tree.sync()
            except app_commands.CommandSyncFailure:
                log.exception("Discord refuses the commands: this is a bug")
                return
            except _NETWORK as error:
                log.warning("The commands are not synced yet: %s", _brief(error))
                await asyncio.sleep(delay)
                delay = min(2 * delay, _LAST_RETRY)
            else:
                return


class ShardedDreamClient(DreamClient, discord.AutoShardedClient):
    """The same over several connections, of which each has some of the servers."""

    def __init__(self, front_end: "DiscordFrontEnd", shards: int | None) -> None:
        """Takes how many connections there are; None asks Discord."""
        super().__init__(front_end, shard_count=shards)

    def _sockets(self) -> Sequence[discord.gateway.DiscordWebSocket]:
        return [self._get_websocket(shard_id=number) for number in self.shards]

    async def launch_shard(
        self, gateway: yarl.URL, shard_id: int, *, initial: bool = False
    ) -> None:
        """Opens a connection, to a proxy in between where one is set."""
        gateway = self._front_end.gateway or gateway
        await super().launch_shard(gateway, shard_id, initial=initial)


class DiscordFrontEnd:
    """Discord as a way in: `run` it, give its ``courier`` to the outbox.

    Attributes:
        courier: brings results.
    """

    def __init__(
        self,
        studio: Studio,
        catalog: ModeCatalog,
        settings: Settings,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        edit_seconds: float = EDIT_SECONDS,
    ) -> None:
        """Takes what it uses.

        Args:
            studio: the service.
            catalog: the modes.
            settings: with the token.
            now: the time; tests move it.
            edit_seconds: shortest time between two edits of an answer; tests are less patient.
        """
        self.studio = studio
        self.catalog = catalog
        self.gateway = (
            yarl.URL(settings.discord_gateway_url) if settings.discord_gateway_url else None
        )
        self.settings = settings
        self.asking = Asking(studio, catalog, settings.combinations_max)
        self.acknowledgements = Acknowledgements()
        self.followers = Followers(
            studio.watch,
            settings.discord_api_url,
            now,
            edit_seconds,
            token=settings.discord_token,
        )
        self.courier = DiscordCourier(
            self._logged_in_client,
            studio.image_path,
            self.followers,
            self.acknowledgements,
            now,
            repeat_after=2 * edit_seconds,
        )
        self.operators = settings.discord_operators
        self._token = settings.discord_token
        self._api_url = settings.discord_api_url
        self._client: DreamClient | None = None
        self._login = asyncio.Event()

    async def run(self) -> None:
        """Stays connected until it is cancelled.

        Raises:
            DiscordLoginError: the token is wrong; trying again is of no use.
        """
        # At DEBUG it writes out what travels, tokens included.
        logging.getLogger("discord").setLevel(max(log.getEffectiveLevel(), logging.INFO))
        # Nothing is spoken here: discord.py need not warn of what only voice needs.
        discord.VoiceClient.warn_nacl = False
        discord.VoiceClient.warn_dave = False
        # It knows no other way to be pointed elsewhere.
        discord.http.Route.BASE = self._api_url
        discord.client.DiscordWebSocket = PatientSocket  # type: ignore[misc]
        discord.shard.DiscordWebSocket = PatientSocket  # type: ignore[misc]
        if self.gateway is not None:
            discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY = self.gateway
        try:
            await self._stay_connected()
        finally:
            await self.followers.close()

    async def resume(self, records: Sequence[JobRecord]) -> None:
        """Follows jobs again that a restart interrupted; those of other front ends are skipped."""
        for record in records:
            if record.origin.front_end == "discord":
                self.followers.follow(record)

    def logged_in(self, client: DreamClient) -> None:
        """Notes the connection that requests go through from now on."""
        self._client = client
        self._login.set()

    async def _logged_in_client(self) -> DreamClient:
        while self._client is None:
            await self._login.wait()
        return self._client

    async def _stay_connected(self) -> None:
        loop = asyncio.get_running_loop()
        delay = _FIRST_RETRY
        while True:
            began = loop.time()
            await self._connect()
            if loop.time() - began > _STEADY_SECONDS:
                delay = _FIRST_RETRY
            log.warning("Connecting to Discord again in %.0f s", delay)
            # Many bots behind one address must not all come back at once.
            await asyncio.sleep(delay * random.uniform(0.8, 1.2))  # noqa: S311 # no secret
            delay = min(2 * delay, _LAST_RETRY)

    def _new_client(self) -> DreamClient:
        shards = self.settings.discord_shards
        return DreamClient(self) if shards == "off" else ShardedDreamClient(self, shards)

    async def _connect(self) -> None:
        """Holds one connection until it ends for good, for whatever reason."""
        assert self._token is not None  # noqa: S101 # the app starts no Discord without one
        client = self._new_client()
        try:
            async with client:
                await client.start(self._token.get_secret_value())
        except discord.LoginFailure:
            raise DiscordLoginError from None
        except discord.ConnectionClosed as error:
            if error.code == _BAD_TOKEN:
                raise DiscordLoginError from None
            log.warning("Discord closed the connection with code %d", error.code)
        except _NETWORK as error:
            log.warning("No connection to Discord: %s", _brief(error))
        except Exception as error:
            # discord.py leaks AttributeError where the first connection fails; a bug of ours
            # would show its traceback.
            log.warning("No connection to Discord", exc_info=error)
        finally:
            self._client = None
            self._login.clear()


def _place(guild_id: int | None) -> str | None:
    return f"discord:{guild_id}" if guild_id else None


def _address(interaction: discord.Interaction[Any]) -> Address:
    return Address(
        application_id=interaction.application_id,
        interaction_id=interaction.id,
        token=interaction.token,
        channel_id=interaction.channel_id,
        guild_id=interaction.guild_id,
        user_id=interaction.user.id,
        upload_limit=interaction.filesize_limit,
        locale=interaction.locale.value,
    )


def _sentence(error: Exception) -> str:
    """Returns what a person is told; what nobody foresaw goes to the log with a note to find it."""
    if isinstance(error, NotAllowedError):
        return replies.refusal(str(error))
    if isinstance(error, ModelError):  # whose text has a path, which is the owner's business
        return replies.plain(retold(error.told))
    if isinstance(error, DreamLabError):
        return replies.plain(retold(str(error)))
    if isinstance(error, app_commands.CommandNotFound | app_commands.CommandSignatureMismatch):
        return tr("This command has changed. Reload Discord (Ctrl+R) and type it again.")
    if isinstance(error, _NETWORK):
        log.warning("An interaction could not be answered: %s", _brief(error))
        return tr("Discord did not take the answer. Please try again.")
    note = secrets.token_hex(3)
    log.error("Note %s: a command failed", note, exc_info=error)
    return replies.unexpected(note)


def _brief(error: Exception) -> str:
    """Returns an error without what it may carry: addresses hold tokens."""
    if isinstance(error, discord.HTTPException):
        return f"status {error.status}, error {error.code}"
    return type(error).__name__
