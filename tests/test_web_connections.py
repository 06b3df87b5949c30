"""How long a connection's other end may keep the page waiting."""

import asyncio
import socket
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import h11
import pytest
import uvicorn
from fastapi import FastAPI
from uvicorn.server import ServerState

from bot.web.connections import READ_BYTES, READ_SECONDS, REST_SECONDS, PatientProtocol

LATER = READ_SECONDS + 1


class Loop:
    """Time that passes when the test says."""

    def __init__(self) -> None:
        self.now = 0.0
        self._timers: list[tuple[float, Timer]] = []

    def call_later(self, seconds: float, what: Callable[[], None]) -> "Timer":
        timer = Timer(what)
        self._timers.append((self.now + seconds, timer))
        return timer

    def create_task(self, answering: Coroutine[Any, Any, None]) -> "Task":
        """Has the test answer."""
        answering.close()
        return Task()

    def pass_by(self, seconds: float) -> None:
        self.now += seconds
        due = [timer for at, timer in self._timers if at <= self.now]
        self._timers = [(at, timer) for at, timer in self._timers if at > self.now]
        for timer in due:
            timer.run()


class Timer:
    """Runs once, unless it is cancelled."""

    def __init__(self, what: Callable[[], None]) -> None:
        self._what: Callable[[], None] | None = what

    def cancel(self) -> None:
        self._what = None

    def run(self) -> None:
        if self._what is not None:
            self._what()


class Task:
    """Never ends."""

    def add_done_callback(self, callback: Callable[..., object]) -> None:
        """Calls nobody back."""


class Transport(asyncio.Transport):
    """A connection whose other end has read as much as the test says."""

    def __init__(self) -> None:
        self.socket = socket.socket()
        super().__init__({"socket": self.socket})
        self.unread = 0
        self.is_aborted = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high == 0

    def get_write_buffer_size(self) -> int:
        return self.unread

    def is_closing(self) -> bool:
        return self.is_aborted

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Takes it."""

    def pause_reading(self) -> None:
        """Has nothing to read."""

    def resume_reading(self) -> None:
        """Likewise."""

    def close(self) -> None:
        """Waits for the other end to read."""

    def abort(self) -> None:
        self.is_aborted = True


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def transport() -> Iterator[Transport]:
    transport = Transport()
    with transport.socket:
        yield transport


@pytest.fixture
def protocol(loop: Loop, transport: Transport) -> PatientProtocol:
    fake: Any = loop
    config = uvicorn.Config(FastAPI(), log_config=None)
    opened = PatientProtocol(config, ServerState(), {}, fake)
    opened.connection_made(transport)
    return opened


def test_a_short_answer_waits_for_nobody_to_confirm_its_head(
    protocol: PatientProtocol, transport: Transport
) -> None:
    assert transport.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize(("rest", "is_aborted"), [(b"x", True), (b"xx", False)])
def test_a_body_that_is_answered_must_end_soon(
    protocol: PatientProtocol, loop: Loop, transport: Transport, rest: bytes, is_aborted: bool
) -> None:
    protocol.data_received(b"GET / HTTP/1.1\r\nHost: here\r\nContent-Length: 3\r\n\r\nx")
    for event in (h11.Response(status_code=200, headers=[]), h11.EndOfMessage()):
        protocol.conn.send(event)
    protocol.on_response_complete()
    loop.pass_by(REST_SECONDS / 4)
    protocol.data_received(rest)
    loop.pass_by(REST_SECONDS / 4)
    assert not transport.is_aborted
    loop.pass_by(REST_SECONDS / 2)
    assert transport.is_aborted is is_aborted


def test_an_answer_that_nobody_reads_ends_the_connection(
    protocol: PatientProtocol, loop: Loop, transport: Transport
) -> None:
    transport.unread = 1
    protocol.pause_writing()
    loop.pass_by(READ_SECONDS - 1)
    assert not transport.is_aborted
    loop.pass_by(1)
    assert transport.is_aborted


def test_who_reads_slowly_gets_all_of_it(
    protocol: PatientProtocol, loop: Loop, transport: Transport
) -> None:
    transport.unread = 5 * READ_BYTES
    protocol.pause_writing()
    while transport.unread:
        transport.unread -= READ_BYTES
        if not transport.unread:
            protocol.resume_writing()
        loop.pass_by(LATER)
        assert not transport.is_aborted


def test_who_reads_next_to_nothing_is_hung_up_on(
    protocol: PatientProtocol, loop: Loop, transport: Transport
) -> None:
    transport.unread = 5 * READ_BYTES
    protocol.pause_writing()
    transport.unread -= READ_BYTES - 1
    loop.pass_by(LATER)
    assert transport.is_aborted


def test_each_answer_has_its_own_time(
    protocol: PatientProtocol, loop: Loop, transport: Transport
) -> None:
    for _ in range(3):
        transport.unread = 1
        protocol.pause_writing()
        loop.pass_by(READ_SECONDS - 1)
        transport.unread = 0
        protocol.resume_writing()
    assert not transport.is_aborted
