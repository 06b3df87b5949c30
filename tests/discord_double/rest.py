"""The HTTP routes, as far as a bot of slash commands and buttons uses them."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import BodyPartReader, web

from tests.discord_double import errors, limits
from tests.discord_double.calls import Call, Fault, Files
from tests.discord_double.world import EPHEMERAL, Interaction, Message, World

DEFAULT_UPLOAD_LIMIT = 10 * limits.MIB
_COMMAND, _COMPONENT, _AUTOCOMPLETE, _SUBMIT = 2, 3, 4, 5
_MESSAGE, _LOADING, _LOADING_UPDATE, _UPDATE, _CHOICES, _MODAL = 4, 5, 6, 7, 8, 9
_ANSWERS_TO = {
    _COMMAND: {_MESSAGE, _LOADING, _MODAL},
    _COMPONENT: {_MESSAGE, _LOADING, _LOADING_UPDATE, _UPDATE, _MODAL},
    _AUTOCOMPLETE: {_CHOICES},
    _SUBMIT: {_MESSAGE, _LOADING, _LOADING_UPDATE, _UPDATE},
}

Answer = dict[str, Any] | list[dict[str, Any]] | None
Handler = Callable[[Call], Awaitable[Answer]]


class Rest:
    """The routes over a `World`; every request is kept, every fault is met here."""

    def __init__(
        self,
        world: World,
        changed: Callable[[], Awaitable[None]],
        answered: Callable[[Call], None] = lambda _: None,
    ) -> None:
        """Takes the world and what to call when something happened and a request was answered."""
        self._world = world
        self._changed = changed
        self._answered = answered
        self.calls: list[Call] = []
        self.faults: list[Fault] = []

    def routes(self) -> list[web.RouteDef]:
        """Returns the routes below the API's base address."""
        original = "/webhooks/{application}/{token}/messages/@original"
        follow_up = "/webhooks/{application}/{token}/messages/{message}"
        message = "/channels/{channel}/messages/{message}"
        table: list[tuple[str, str, str, Handler]] = [
            ("GET", "/users/@me", "me", self._me),
            ("GET", "/oauth2/applications/@me", "application", self._application),
            ("PUT", "/applications/{application}/commands", "commands", self._commands),
            ("POST", "/interactions/{interaction}/{token}/callback", "callback", self._callback),
            ("GET", original, "get_original", self._get_original),
            ("PATCH", original, "edit_original", self._edit_original),
            ("DELETE", original, "delete_original", self._delete_original),
            ("POST", "/webhooks/{application}/{token}", "followup", self._followup),
            ("POST", "/channels/{channel}/messages", "send", self._send),
            ("GET", "/channels/{channel}/messages", "history", self._history),
            ("PATCH", message, "edit", self._edit),
            ("DELETE", message, "delete", self._delete),
            ("PATCH", follow_up, "edit_followup", self._edit_followup),
            ("DELETE", follow_up, "delete_followup", self._delete_followup),
            ("POST", "/users/@me/channels", "direct_channel", self._direct_channel),
            ("PUT", f"{message}/reactions/{{emoji}}/@me", "react", self._react),
        ]
        return [
            web.route(method, path, self._guarded(name, path, handler), name=name)
            for method, path, name, handler in table
        ]

    async def cdn(self, request: web.Request) -> web.StreamResponse:
        """Serves a file that somebody sent along; it needs no token and answers no JSON."""
        call = await self._read("cdn", "/cdn/{file}/{name}", request)
        self.calls.append(call)
        await self._changed()
        fault = next((fault for fault in self.faults if fault.meets(call)), None)
        if fault and fault.until:
            await fault.until.wait()
        elif fault:
            call.status = fault.status
            return web.Response(status=fault.status, headers=fault.headers)
        upload = self._world.uploads.get(int(call.params["file"]))
        call.status = 200 if upload else 404
        return web.Response(status=call.status, body=upload.content if upload else b"")

    def _guarded(
        self, name: str, template: str, handler: Handler
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            call = await self._read(name, template, request)
            self.calls.append(call)
            await self._changed()
            try:
                return await self._answer(call, handler, request)
            finally:
                self._answered(call)
                await self._changed()

        return handle

    async def _read(self, name: str, template: str, request: web.Request) -> Call:
        body, files, types = await _body(request)
        return Call(
            route=name,
            template=template,
            method=request.method,
            params={**request.match_info, **request.query},
            query=dict(request.query),
            json={"items": body} if isinstance(body, list) else body or {},
            body=body,
            files=files,
            types=types,
            headers=request.headers,
            authorization=request.headers.get("Authorization"),
            at=self._world.clock.now(),
            came=asyncio.get_running_loop().time(),
        )

    async def _answer(self, call: Call, handler: Handler, request: web.Request) -> web.Response:
        fault = next((fault for fault in self.faults if fault.meets(call)), None)
        if fault and fault.until:
            await fault.until.wait()
        if fault is None or fault.processed or fault.until:
            try:
                status, answer = 200, await handler(call)
            except errors.ApiError as error:
                status, answer = error.status, error.body
                call.code = error.code
            if fault is None or fault.until:
                call.status = status if answer is not None else 204
                return _json(call.status, answer)
        call.status, call.code = fault.status, fault.code
        if fault.status == 0:
            assert request.transport is not None
            request.transport.abort()
        body = {"message": "The double was told to fail.", "code": fault.code}
        return _json(fault.status or 500, body | _retry_after(fault), fault.headers)

    # What a token of the bot may do

    def _authorize(self, call: Call) -> None:
        if call.authorization != f"Bot {self._world.token}":
            raise errors.unauthorized()

    async def _me(self, call: Call) -> Answer:
        self._authorize(call)
        return self._world.bot.payload()

    async def _application(self, call: Call) -> Answer:
        self._authorize(call)
        return {
            "id": str(self._world.application_id),
            "name": "Dream Lab",
            "icon": None,
            "description": "",
            "bot_public": True,
            "bot_require_code_grant": False,
            "owner": self._world.bot.payload(),
            "verify_key": "",
            "flags": 0,
            "team": None,
        }

    async def _commands(self, call: Call) -> Answer:
        self._authorize(call)
        commands = call.json["items"]
        limits.check_commands(commands)
        self._world.commands = [
            {
                **command,
                "id": str(self._world.snowflake()),
                "application_id": str(self._world.application_id),
                "version": str(self._world.snowflake()),
            }
            for command in commands
        ]
        return self._world.commands

    async def _send(self, call: Call) -> Answer:
        self._authorize(call)
        channel = self._world.channel(int(call.params["channel"]))
        message = self._world.create(channel, call.json, call.files, DEFAULT_UPLOAD_LIMIT)
        return message.payload()

    async def _history(self, call: Call) -> Answer:
        self._authorize(call)
        channel = self._world.channel(int(call.params["channel"]))
        limit = int(call.params.get("limit", 50))
        before = int(call.params["before"]) if "before" in call.params else None
        return [message.payload() for message in self._world.history(channel, limit, before)]

    async def _edit(self, call: Call) -> Answer:
        self._authorize(call)
        channel = self._world.channel(int(call.params["channel"]))
        message = self._world.message(int(call.params["message"]), channel)
        if message.author != self._world.bot:
            raise errors.not_the_author()
        self._world.edit(message, call.json, call.files, DEFAULT_UPLOAD_LIMIT)
        return message.payload()

    async def _delete(self, call: Call) -> Answer:
        self._authorize(call)
        channel = self._world.channel(int(call.params["channel"]))
        self._world.message(int(call.params["message"]), channel).deleted = True
        return None

    async def _direct_channel(self, call: Call) -> Answer:
        self._authorize(call)
        user_id = int(call.json["recipient_id"])
        recipient = {"id": str(user_id), "username": "somebody", "discriminator": "0"}
        channel = self._world.direct_channel(user_id)
        return {"id": str(channel), "type": 1, "recipients": [{**recipient, "avatar": None}]}

    async def _react(self, call: Call) -> Answer:
        self._authorize(call)
        channel = int(call.params["channel"])
        if channel in self._world.unreacted:
            raise errors.missing_permissions()
        message = self._world.message(int(call.params["message"]), channel)
        message.reactions.append(call.params["emoji"])
        return None

    # What an interaction's token may do

    async def _callback(self, call: Call) -> Answer:
        interaction = self._world.unacknowledged(
            int(call.params["interaction"]), call.params["token"]
        )
        kind, data = call.json["type"], call.json.get("data") or {}
        if kind not in _ANSWERS_TO[interaction.kind]:
            raise errors.invalid_form("type", "Not an answer to this interaction.")
        answer: dict[str, Any] = {
            "interaction": {"id": str(interaction.id), "type": interaction.kind}
        }
        if kind == _MESSAGE:
            interaction.original = self._world.create(
                interaction.channel_id, data, call.files, interaction.upload_limit
            )
        elif kind == _LOADING:
            flags = int(data.get("flags") or 0)
            interaction.original = self._world.create_loading(interaction.channel_id, flags)
        elif kind == _UPDATE:
            assert interaction.original is not None
            self._world.edit(interaction.original, data, call.files, interaction.upload_limit)
        elif kind == _MODAL:
            limits.check_modal(data)
            interaction.modal = data
        elif kind == _CHOICES:
            limits.check_choices(data["choices"])
            interaction.choices = data["choices"]
        if kind in (_MESSAGE, _UPDATE):
            assert interaction.original is not None
            answer["resource"] = {"type": kind, "message": interaction.original.payload()}
        interaction.acknowledged = kind
        return answer

    async def _get_original(self, call: Call) -> Answer:
        interaction = self._world.answered(call.params["token"])
        return self._original(interaction).payload()

    async def _edit_original(self, call: Call) -> Answer:
        interaction = self._world.answered(call.params["token"])
        message = self._original(interaction)
        self._world.edit(message, call.json, call.files, interaction.upload_limit)
        return message.payload()

    async def _delete_original(self, call: Call) -> Answer:
        interaction = self._world.answered(call.params["token"])
        self._original(interaction).deleted = True
        return None

    async def _followup(self, call: Call) -> Answer:
        interaction = self._world.answered(call.params["token"])
        original = interaction.original
        if original and original.loading and not original.deleted:
            # Documented: right after "thinking" a follow-up edits that message, and the
            # ephemeral flag is ignored.
            data = {key: value for key, value in call.json.items() if key != "flags"}
            self._world.edit(original, data, call.files, interaction.upload_limit)
            return original.payload()
        message = self._world.create(
            interaction.channel_id, call.json, call.files, interaction.upload_limit
        )
        message.flags |= int(call.json.get("flags") or 0) & EPHEMERAL
        interaction.followups.append(message)
        return message.payload()

    async def _edit_followup(self, call: Call) -> Answer:
        interaction = self._world.answered(call.params["token"])
        message = self._followup_of(interaction, call)
        self._world.edit(message, call.json, call.files, interaction.upload_limit)
        return message.payload()

    async def _delete_followup(self, call: Call) -> Answer:
        interaction = self._world.answered(call.params["token"])
        self._followup_of(interaction, call).deleted = True
        return None

    def _followup_of(self, interaction: Interaction, call: Call) -> Message:
        message = self._world.message(int(call.params["message"]))
        if message is not interaction.original and message not in interaction.followups:
            raise errors.unknown_message()
        return message

    def _original(self, interaction: Interaction) -> Message:
        if interaction.original is None or interaction.original.deleted:
            raise errors.unknown_message()
        return interaction.original


async def _body(request: web.Request) -> tuple[Any, Files, dict[str, str | None]]:
    """Returns the JSON of a request, its files, and what these say that they are."""
    if not request.content_type.startswith("multipart/"):
        raw = await request.read()
        return (json.loads(raw) if raw else None), {}, {}
    body: Any = None
    files: Files = {}
    types: dict[str, str | None] = {}
    async for part in await request.multipart():
        assert isinstance(part, BodyPartReader)
        if part.name == "payload_json":
            body = json.loads(await part.text())
        else:
            files[str(part.name)] = (part.filename or "", bytes(await part.read()))
            types[str(part.name)] = part.headers.get("Content-Type")
    return body, files, types


def _json(status: int, answer: Answer, headers: dict[str, str] | None = None) -> web.Response:
    # discord.py reads JSON only where the type is exactly this, without a charset.
    body = b"" if answer is None else json.dumps(answer).encode()
    content_type = "application/json" if body else None
    return web.Response(status=status, body=body, headers=headers, content_type=content_type)


def _retry_after(fault: Fault) -> dict[str, Any]:
    if fault.status != 429:
        return {}
    return {"retry_after": float(fault.headers.get("Retry-After", "1")), "global": False}
