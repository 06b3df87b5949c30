"""Connections: how long whoever is at the other end may keep one waiting.

The server ends a connection that is idle between requests by itself, but not one that sends a head
byte by byte, or nothing at all; nor one that goes on with a body after its answer, or never reads
what it asked for. Some hundreds of those would keep everybody else out.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 10.0
"""From the connection, or from the first byte of a later request, to the end of the headers."""

REST_SECONDS = 10.0
"""From an answer to the end of a body that was still on its way."""

READ_SECONDS = 60.0
"""For the next `READ_BYTES` of an answer, or what is left of it, to be read."""

READ_BYTES = 64 * 1024
"""About 1 KiB a second, a tenth of what the slowest phone manages."""


class PatientProtocol(H11Protocol):
    """HTTP for a while; whoever doesn't say what they want, or reads no answer, is hung up on."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._head = _Deadline(self.loop)
        self._rest = _Deadline(self.loop)
        self._reading = _Deadline(self.loop)
        self._unread = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """Waits for a request."""
        super().connection_made(transport)
        # So that it is told of whatever the other end leaves unread, however little.
        transport.set_write_buffer_limits(high=0)
        # Else a short answer waits 40 ms for the other end to confirm its head; asyncio does it for
        # sockets alone whose protocol was named, which Python's own servers' is not.
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._look()

    def data_received(self, data: bytes) -> None:
        """Takes a piece of a request."""
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        """Waits for the rest of a body that was answered before its end."""
        super().on_response_complete()
        if self._is_owed_a_body():
            self._rest.begin(REST_SECONDS, self.transport.abort)

    def pause_writing(self) -> None:
        """Waits for an answer to be read."""
        super().pause_writing()
        self._await_reading()

    def resume_writing(self) -> None:
        """Goes on: all of it was read."""
        self._reading.drop()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Waits no longer."""
        for deadline in (self._head, self._rest, self._reading):
            deadline.drop()
        super().connection_lost(exc)

    def _look(self) -> None:
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self._head.begin(HEAD_SECONDS, self.transport.close)
        else:
            self._head.drop()
        if not self._is_owed_a_body():
            self._rest.drop()

    def _is_owed_a_body(self) -> bool:
        return self.conn.our_state is h11.DONE and self.conn.their_state is h11.SEND_BODY

    def _await_reading(self) -> None:
        self._unread = self.transport.get_write_buffer_size()
        self._reading.begin(READ_SECONDS, self._look_at_reading)

    def _look_at_reading(self) -> None:
        if self.transport.get_write_buffer_size() > self._unread - READ_BYTES:
            self.transport.abort()
        else:
            self._reading.drop()
            self._await_reading()


class _Deadline:
    """A moment by which something must have happened, or else."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, seconds: float, otherwise: Callable[[], None]) -> None:
        """Sets it; one that is set stays as it is."""
        if self._timer is None:
            self._timer = self._loop.call_later(seconds, otherwise)

    def drop(self) -> None:
        """Has nothing happen."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
