"""The double: Discord's two addresses, and what people do with the bot."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar, Self, TypeVar

from aiohttp import web

from tests.discord_double import commands, limits
from tests.discord_double.calls import Call, Fault
from tests.discord_double.clock import Clock
from tests.discord_double.gateway import Gateway
from tests.discord_double.recording import Recording
from tests.discord_double.rest import DEFAULT_UPLOAD_LIMIT, Rest
from tests.discord_double.world import (
    Attachment,
    Guild,
    Interaction,
    Message,
    Role,
    Room,
    User,
    World,
)

MANAGE_MESSAGES = 1 << 13
MANAGE_GUILD = 1 << 5
_COMMAND, _COMPONENT, _AUTOCOMPLETE, _SUBMIT = 2, 3, 4, 5
_GUILD_MESSAGES, _DIRECT_MESSAGES, _MESSAGE_CONTENT = 1 << 9, 1 << 12, 1 << 15
_MENTION = re.compile(r"<@!?(\d+)>")
_SELECT, _LABEL = 3, 18
_PATIENCE = 300.0
"""Seconds after which a test that waits gives up: far more than anything takes."""

T = TypeVar("T")


class DiscordDouble:
    """Discord as far as Dream Lab sees it, on a free port of this machine.

    Use `running`; then what the bot did is in `world` and `calls`.

    Attributes:
        recording: where all doubles of this process write the requests that they get; None for
            nowhere.
    """

    recording: ClassVar[Recording | None] = None

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.world = World(self.clock)
        self._happened = asyncio.Condition()
        recording = self.recording
        self.rest = Rest(self.world, self._changed, recording.add if recording else lambda _: None)
        self.gateway = Gateway(self.world, self._changed)
        self.guild = next(iter(self.world.guilds.values()))
        self.user = self.world.add_user("ada")
        self.base = ""

    @classmethod
    @asynccontextmanager
    async def running(
        cls, clock: Clock | None = None, port: int = 0, more: list[web.RouteDef] | None = None
    ) -> AsyncIterator[Self]:
        """Serves until the block ends; port 0 takes a free one."""
        double = cls(clock)
        runner = await double._serve(port, more or [])
        try:
            yield double
        finally:
            for fault in double.rest.faults:
                if fault.until:
                    fault.until.set()
            await double.gateway.close()
            await runner.cleanup()

    async def _serve(self, port: int, more: list[web.RouteDef]) -> web.AppRunner:
        api = web.Application(client_max_size=64 * 2**20)
        api.add_routes(self.rest.routes())
        app = web.Application(client_max_size=64 * 2**20)
        app.add_subapp("/api/v10", api)
        cdn = web.get("/cdn/{file}/{name}", self.rest.cdn)
        app.add_routes([web.get("/gateway", self.gateway.handle), cdn, *more])
        runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        address = runner.addresses[0]
        self.base = f"http://{address[0]}:{address[1]}"
        self.gateway.url = self.gateway_url
        return runner

    @property
    def api_url(self) -> str:
        """For ``DISCORD_API_URL``."""
        return f"{self.base}/api/v10"

    @property
    def gateway_url(self) -> str:
        """For ``DISCORD_GATEWAY_URL``."""
        return f"{self.base.replace('http', 'ws', 1)}/gateway"

    @property
    def token(self) -> str:
        """For ``DISCORD_TOKEN``."""
        return self.world.token

    @property
    def calls(self) -> list[Call]:
        """Every request so far."""
        return self.rest.calls

    def calls_to(self, route: str) -> list[Call]:
        """Every request to a route so far."""
        return [call for call in self.calls if call.route == route]

    def fail(self, route: str, **fault: Any) -> Fault:
        """Has requests go wrong; see `Fault`. Returns it, to take it away with `mend`."""
        made = Fault(route, **fault)
        self.rest.faults.append(made)
        return made

    def mend(self, fault: Fault) -> None:
        """Takes a fault away."""
        if fault.until:
            fault.until.set()
        self.rest.faults.remove(fault)

    # Waiting

    async def until(
        self, look: Callable[[], T], what: str = "it", patience: float | None = _PATIENCE
    ) -> T:
        """Waits until a look at the double finds something, and returns that."""
        try:
            async with asyncio.timeout(patience), self._happened:
                while not (found := look()):
                    await self._happened.wait()
                return found
        except TimeoutError:
            raise AssertionError(f"waited {patience} s for {what}: {self.summary()}") from None

    async def connected(self) -> None:
        """Waits until a bot is connected and has synced its commands."""
        await self.until(lambda: self.gateway.live and self.world.commands, "a bot")

    def summary(self) -> list[str]:
        """Returns the requests so far, a line for each."""
        return [f"{call.route} {call.status} {call.content!r}" for call in self.calls]

    async def _changed(self) -> None:
        async with self._happened:
            self._happened.notify_all()

    # What people do

    def attach(self, filename: str, content: bytes) -> Attachment:
        """Uploads a file, to be the value of an option."""
        return self.world.upload(filename, content, f"{self.base}/cdn")

    async def add_role(self, name: str) -> Role:
        """Makes a role in the double's own server."""
        role = Role(self.world.snowflake(), name)
        self.guild.roles.append(role)
        if self.gateway.live:
            data = {"guild_id": str(self.guild.id), "role": role.payload()}
            await self.gateway.dispatch("GUILD_ROLE_CREATE", data)
        return role

    async def slash(self, line: str, *, overridden: bool = False, **user: Any) -> Interaction:
        """Types a command such as ``slash("mode switch", values={"mode": "anime"})``.

        Args:
            line: the command and its subcommands.
            overridden: whether the server's admins opened the command to everybody.
            user: see `_open`; ``values`` holds the options.
        """
        values: Mapping[str, Any] = user.pop("values", {})
        path = commands.find(self.world.commands, line)
        commands.check_offered(
            path[0],
            in_guild=not user.get("direct"),
            permissions=user.get("permissions", 0),
            overridden=overridden,
            installed=user.get("installed", True),
        )
        place = None if user.get("direct") else user.get("guild") or self.guild
        data = commands.data(path, values, guild=place)
        return await self._send(_COMMAND, data, **user)

    async def complete(
        self,
        line: str,
        option: str,
        typed: str,
        values: Mapping[str, Any] | None = None,
        **user: Any,
    ) -> list[dict[str, Any]]:
        """Types a part of an option and returns what the bot suggests."""
        path = commands.find(self.world.commands, line)
        data = commands.data(path, {**(values or {}), option: typed}, focused=option)
        interaction = await self._send(_AUTOCOMPLETE, data, **user)
        await self.until(lambda: interaction.choices is not None, "suggestions")
        assert interaction.choices is not None
        return interaction.choices

    async def menu(self, name: str, message: Message, **user: Any) -> Interaction:
        """Chooses an entry of a message's menu; see `_send`."""
        assert not message.deleted, "nobody finds a message that is gone"
        entry = commands.find_menu(self.world.commands, name)
        commands.check_offered(
            entry,
            in_guild=not user.get("direct"),
            permissions=user.get("permissions", 0),
            overridden=False,
            installed=user.get("installed", True),
        )
        # Discord tells all of a message that somebody points at.
        data = {
            "id": entry["id"],
            "name": name,
            "type": commands.MESSAGE_MENU,
            "target_id": str(message.id),
            "resolved": {"messages": {str(message.id): message.payload()}},
        }
        return await self._send(_COMMAND, data, **user)

    async def form(self, interaction: Interaction) -> dict[str, str]:
        """Waits for a form and returns what its fields hold, by label."""
        modal = await self.until(lambda: interaction.modal, "a form")
        assert modal is not None
        return {label: _filled(field) for label, field in limits.modal_fields(modal)}

    async def submit(
        self, interaction: Interaction, values: Mapping[str, str] | None = None, **user: Any
    ) -> Interaction:
        """Sends a form that somebody was shown.

        Args:
            interaction: what was answered with the form.
            values: what they fill in, by label; the rest stays as it is.
            user: see `_send`.
        """
        held = await self.form(interaction)
        unknown = set(values or {}) - set(held)
        assert not unknown, f"the form has no {unknown} but {list(held)}"
        assert interaction.modal is not None
        parts = []
        for label, field in limits.modal_fields(interaction.modal):
            value = (values or {}).get(label, held[label])
            if field["type"] == _SELECT:
                offered = [option["value"] for option in field["options"]]
                assert value in offered, f"{label} offers {offered}"
                answer: dict[str, Any] = {"values": [value]}
            else:
                limits.check_input(field, value)
                answer = {"value": value}
            filled = {"type": field["type"], "custom_id": field["custom_id"], **answer}
            parts.append({"type": _LABEL, "component": filled})
        data = {"custom_id": interaction.modal["custom_id"], "components": parts}
        return await self._send(_SUBMIT, data, message=interaction.pressed, **user)

    async def say(
        self,
        content: str,
        *,
        user: User | None = None,
        guild: Guild | None = None,
        room: Room | None = None,
        direct: bool = False,
        roles: Sequence[Role] = (),
        files: Sequence[Attachment] = (),
        replies_to: Message | None = None,
        webhook_id: int | None = None,
        embeds: Sequence[dict[str, Any]] = (),
    ) -> Message:
        """Writes a message, which the bot is told of as far as its intents go.

        Args:
            content: the words; ``<@id>`` names somebody.
            user: who writes; the double's own user unless told.
            guild: where; the double's own server unless told.
            room: the channel; the server's first unless told.
            direct: to the bot alone instead.
            roles: of the member.
            files: sent along.
            replies_to: what it answers.
            webhook_id: of a webhook that writes in the user's place.
            embeds: as Discord makes them of links.
        """
        user = user or self.user
        place = None if direct else guild or self.guild
        channel_id = place.channel_id if place else self.world.direct_channel(user.id)
        known = {who.id: who for who in (self.world.bot, *self.world.users)}
        named = [known[int(number)] for number in _MENTION.findall(content) if int(number) in known]
        message = self.world.say(
            room.id if room else channel_id,
            user,
            content,
            mentions=tuple(dict.fromkeys(named)),
            attachments=list(files),
            embeds=list(embeds),
            replies_to=replies_to,
            webhook_id=webhook_id,
        )
        await self.tell(message, guild=place, roles=roles)
        return message

    async def tell(
        self, message: Message, *, guild: Guild | None = None, roles: Sequence[Role] = ()
    ) -> None:
        """Sends MESSAGE_CREATE; once more where a RESUME comes in between."""
        session = self.gateway.live
        assert session is not None, "no bot is connected"
        assert not session.intents & _MESSAGE_CONTENT, "the bot asks for a privileged intent"
        if not session.intents & (_GUILD_MESSAGES if guild else _DIRECT_MESSAGES):
            return
        payload = message.seen_by(self.world.bot, direct=guild is None)
        if guild is not None:
            payload["guild_id"] = str(guild.id)
            if message.webhook_id is None:
                payload["member"] = guild.member(roles)
        await self.gateway.dispatch("MESSAGE_CREATE", payload)

    async def reply(self, message: Message) -> Message:
        """Waits for what the bot answers to a message."""

        def look() -> Message | None:
            posted = self.world.messages.values()
            return next((m for m in posted if m.replies_to is message and not m.deleted), None)

        answer = await self.until(look, "a reply")
        assert answer is not None
        return answer

    async def click(self, message: Message, label: str, **user: Any) -> Interaction:
        """Presses a message's button by its label."""
        assert not message.deleted, "nobody can press a button that is gone"
        assert label in message.buttons, f"no button {label!r} in {list(message.buttons)}"
        button = message.buttons[label]
        assert not button.get("disabled"), f"{label!r} is disabled"
        data = {"custom_id": button["custom_id"], "component_type": button["type"]}
        return await self._send(_COMPONENT, data, message=message, **user)

    async def answer(self, interaction: Interaction) -> Message:
        """Waits for what the user sees of an answer that is not "thinking"."""

        def look() -> Message | None:
            shown = interaction.answer
            return shown if shown and not shown.loading and interaction.acknowledged else None

        message = await self.until(look, "an answer")
        assert message is not None
        return message

    async def private_word(self, interaction: Interaction) -> Message:
        """Waits for an answer that only the user sees."""

        def look() -> Message | None:
            shown = [*interaction.followups, interaction.original]
            own = [m for m in shown if m and m is not interaction.pressed]
            return next((m for m in own if m.ephemeral and not m.loading), None)

        message = await self.until(look, "a private answer")
        assert message is not None
        return message

    async def picture(self, interaction: Interaction) -> Message:
        """Waits until the answer holds a finished picture.

        The answer to a button is a message of its own, not the one that the button is under.
        """

        def look() -> Message | None:
            shown = interaction.answer
            if shown is None or shown is interaction.pressed:
                return None
            assert not shown.ephemeral, f"instead of a picture: {shown.content}"
            ids = [str(button.get("custom_id")) for button in shown.buttons.values()]
            is_end = any(":again:" in ident for ident in ids)
            return shown if shown.attachments and is_end else None

        message = await self.until(look, "a picture")
        assert message is not None
        return message

    async def _send(
        self,
        kind: int,
        data: dict[str, Any],
        *,
        user: User | None = None,
        guild: Guild | None = None,
        permissions: int = 0,
        roles: Sequence[Role] = (),
        direct: bool = False,
        room: Room | None = None,
        message: Message | None = None,
        upload_limit: int = DEFAULT_UPLOAD_LIMIT,
        installed: bool = True,
        locale: str = "en-US",
    ) -> Interaction:
        """Sends INTERACTION_CREATE.

        Args:
            kind: 2 is a command, 3 a button, 4 autocompletion, 5 a form.
            data: what was done.
            user: who did; the double's own user unless told.
            guild: where; the double's own server unless told.
            permissions: of the member in the channel.
            roles: of the member.
            direct: in a direct message with the bot instead.
            room: the channel; the server's first unless told.
            message: the one whose button it was.
            upload_limit: bytes per file.
            installed: whether the bot is in the server, or else with the user alone.
            locale: which language the user reads.
        """
        user = user or self.user
        place = None if direct else guild or self.guild
        channel_id = place.channel_id if place else self.world.direct_channel(user.id)
        channel_id = room.id if room else channel_id
        interaction = self.world.open_interaction(kind, user, place, channel_id, upload_limit)
        interaction.original = interaction.pressed = message
        payload = {
            "id": str(interaction.id),
            "application_id": str(self.world.application_id),
            "type": kind,
            "token": interaction.token,
            "version": 1,
            "data": data,
            "attachment_size_limit": upload_limit,
            "channel_id": str(channel_id),
            "locale": locale,
            "app_permissions": "0",
            "entitlements": [],
            "authorizing_integration_owners": (
                {"0": str(place.id) if place else "0"} if installed else {"1": str(user.id)}
            ),
            "context": 0 if place else 1,
            **self._who_and_where(user, place, permissions, roles, room),
        }
        if message is not None:
            payload["message"] = message.payload()
        await self.gateway.dispatch("INTERACTION_CREATE", payload)
        return interaction

    def _who_and_where(
        self,
        user: User,
        place: Guild | None,
        permissions: int,
        roles: Sequence[Role],
        room: Room | None,
    ) -> dict[str, Any]:
        if place is None:
            channel = {"id": str(user.id), "type": 1, "recipients": [user.payload()]}
            return {"user": user.payload(), "channel": channel}
        member = {"user": user.payload(), **place.member(roles, permissions)}
        return {
            "member": member,
            "guild_id": str(place.id),
            "guild_locale": place.locale,
            "channel": place.channel(room),
        }


def _filled(field: Mapping[str, Any]) -> str:
    """Returns what a form's field holds before anybody touches it."""
    if field["type"] != _SELECT:
        return str(field.get("value") or "")
    chosen = [option["value"] for option in field["options"] if option.get("default")]
    return str(chosen[0]) if chosen else ""
