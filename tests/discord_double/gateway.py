"""The websocket: HELLO, IDENTIFY, events, RESUME."""

import asyncio
import json
import secrets
import zlib
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web

from tests.discord_double.world import World

DISPATCH, HEARTBEAT, IDENTIFY, RESUME = 0, 1, 2, 6
RECONNECT, INVALID_SESSION, HELLO, ACK = 7, 9, 10, 11
_HEARTBEAT_MS = 41_250
_UNKNOWN_OPCODE, _NOT_AUTHENTICATED, _BAD_TOKEN = 4001, 4003, 4004


@dataclass
class Session:
    """What a client gets back after RESUME.

    Attributes:
        events: everything dispatched, in order; the sequence number is the place, from 1.
        line: the connection it has now.
    """

    id: str
    intents: int
    events: list[dict[str, Any]] = field(default_factory=list)
    line: "Line | None" = None


class Line:
    """One connection, compressed where the client asks for it."""

    def __init__(self, socket: web.WebSocketResponse, request: web.Request) -> None:
        self.socket = socket
        self.request = request
        stream = request.query.get("compress") == "zlib-stream"
        self._deflate = zlib.compressobj() if stream else None

    async def send(self, payload: dict[str, Any]) -> None:
        """Sends a payload; a client that is gone is no error."""
        text = json.dumps(payload)
        with suppress(ConnectionError, RuntimeError):
            if self._deflate is None:
                await self.socket.send_str(text)
            else:
                data = self._deflate.compress(text.encode())
                await self.socket.send_bytes(data + self._deflate.flush(zlib.Z_SYNC_FLUSH))

    def cut(self) -> None:
        """Ends the connection without a word, as a dead network does."""
        if self.request.transport is not None:
            self.request.transport.abort()


class Gateway:
    """All sessions."""

    def __init__(self, world: World, changed: Callable[[], Awaitable[None]]) -> None:
        """Takes the world and what to call when something happened."""
        self._world = world
        self._changed = changed
        self.token = world.token
        self.url = ""
        self.resume_url: str | None = None
        self.sessions: dict[str, Session] = {}
        self.received: list[dict[str, Any]] = []
        self.refusing = False
        self.refused = 0

    @property
    def live(self) -> Session | None:
        """The session that has a connection; the newest of several."""
        alive = [session for session in self.sessions.values() if session.line]
        return alive[-1] if alive else None

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serves one connection."""
        if self.refusing:
            self.refused += 1
            await self._changed()
            raise web.HTTPServiceUnavailable
        socket = web.WebSocketResponse(max_msg_size=0)
        await socket.prepare(request)
        line = Line(socket, request)
        await line.send({"op": HELLO, "d": {"heartbeat_interval": _HEARTBEAT_MS}})
        session: Session | None = None
        try:
            async for message in socket:
                if message.type is not WSMsgType.TEXT:
                    continue
                payload = json.loads(message.data)
                self.received.append(payload)
                session = await self._receive(line, session, payload)
                await self._changed()
        finally:
            if session and session.line is line:
                session.line = None
            await self._changed()
        return socket

    async def dispatch(self, event: str, data: dict[str, Any]) -> None:
        """Sends an event to the live session; one without connection gets it on RESUME.

        Raises:
            AssertionError: there is no session at all: Discord would drop the event.
        """
        session = self.live or next(reversed(self.sessions.values()), None)
        assert session is not None, "no bot ever connected"
        await self._dispatch(session, event, data)

    async def ask_to_reconnect(self) -> None:
        """Sends RECONNECT."""
        assert self.live is not None
        assert self.live.line is not None
        await self.live.line.send({"op": RECONNECT, "d": None})

    async def invalidate(self) -> None:
        """Forgets the live session and says so."""
        session = self.live
        assert session is not None
        assert session.line is not None
        line = session.line
        del self.sessions[session.id]
        await line.send({"op": INVALID_SESSION, "d": False})

    def forget(self) -> None:
        """Drops sessions without a connection, as Discord does after a while."""
        self.sessions = {key: s for key, s in self.sessions.items() if s.line}

    async def close(self) -> None:
        """Ends every connection."""
        for session in list(self.sessions.values()):
            if session.line:
                await session.line.socket.close(code=1001)

    async def _receive(
        self, line: Line, session: Session | None, payload: dict[str, Any]
    ) -> Session | None:
        op, data = payload["op"], payload.get("d") or {}
        if op == HEARTBEAT:
            # discord.py notes when it sent a heartbeat only after it was sent: an answer at once
            # would seem to belong to the one before.
            await asyncio.sleep(0.02)
            await line.send({"op": ACK})
        elif op == IDENTIFY:
            return await self._identify(line, data)
        elif op == RESUME:
            return await self._resume(line, data)
        elif session is None:
            await line.socket.close(code=_NOT_AUTHENTICATED)
        elif op not in (3, 4, 8):
            await line.socket.close(code=_UNKNOWN_OPCODE)
        return session

    async def _identify(self, line: Line, data: dict[str, Any]) -> Session | None:
        if data["token"] != self.token:
            await line.socket.close(code=_BAD_TOKEN)
            return None
        session = Session(secrets.token_hex(16), data["intents"])
        self.sessions[session.id] = session
        world = self._world
        ready = {
            "v": 10,
            "user": world.bot.payload(),
            "guilds": [{"id": str(guild), "unavailable": True} for guild in world.guilds],
            "session_id": session.id,
            "resume_gateway_url": self.resume_url or self.url,
            "application": {"id": str(world.application_id), "flags": 0},
        }
        if "shard" in data:
            ready["shard"] = data["shard"]
        await self._dispatch(session, "READY", ready)
        for guild in world.guilds.values():
            await self._dispatch(session, "GUILD_CREATE", guild.payload(world.bot))
        await self._catch_up(session, line, 0)
        return session

    async def _resume(self, line: Line, data: dict[str, Any]) -> Session | None:
        session = self.sessions.get(data["session_id"])
        if data["token"] != self.token or session is None:
            await line.send({"op": INVALID_SESSION, "d": False})
            return None
        await self._catch_up(session, line, data["seq"])
        await self._dispatch(session, "RESUMED", {})
        return session

    async def _catch_up(self, session: Session, line: Line, seen: int) -> None:
        """Sends what a client has not seen; what happens meanwhile waits its turn."""
        session.line = None
        while seen < len(session.events):
            await line.send(session.events[seen])
            seen += 1
        session.line = line

    async def _dispatch(self, session: Session, event: str, data: dict[str, Any]) -> None:
        payload = {"op": DISPATCH, "t": event, "s": len(session.events) + 1, "d": data}
        session.events.append(payload)
        if session.line:
            # Another coroutine must not come between: sequence numbers have an order.
            await asyncio.shield(session.line.send(payload))
