"""Files from other addresses: whole, too large, slow, broken."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from bot.downloads import DownloadError, download

FILE = b"0123456789"


@asynccontextmanager
async def serving(
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> AsyncIterator[str]:
    app = web.Application()
    app.add_routes([web.get("/secret-address", handler)])
    runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    try:
        yield f"http://{host}:{port}/secret-address"
    finally:
        await runner.cleanup()


async def whole(_: web.Request) -> web.StreamResponse:
    return web.Response(body=FILE)


async def endless(request: web.Request) -> web.StreamResponse:
    """Says that it is small and never ends."""
    answer = web.StreamResponse()
    await answer.prepare(request)
    while True:
        await answer.write(b"x" * 65536)


async def cut_off(request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse(headers={"Content-Length": "100"})
    await answer.prepare(request)
    await answer.write(FILE)
    assert request.transport is not None
    request.transport.abort()
    return answer


async def silent(_: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def elsewhere(_: web.Request) -> web.StreamResponse:
    raise web.HTTPFound("http://127.0.0.1:1/inside")


async def gone(_: web.Request) -> web.StreamResponse:
    raise web.HTTPNotFound


@pytest.mark.parametrize("most", [10, 11, 10**9])
async def test_a_file_that_fits_is_whole(most: int) -> None:
    async with serving(whole) as url:
        assert await download(url, most) == FILE


async def test_of_a_file_that_is_too_large_one_byte_more_is_read() -> None:
    async with serving(endless) as url:
        assert len(await download(url, 100_000)) == 100_001


@pytest.mark.parametrize("handler", [cut_off, elsewhere, gone])
async def test_what_does_not_come_is_told_without_its_address(
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG")
    async with serving(handler) as url:
        with pytest.raises(DownloadError, match="could not be fetched") as caught:
            await download(url, 1000)

    assert "secret" not in str(caught.value) + caplog.text


async def test_a_server_that_says_nothing_is_given_up() -> None:
    async with serving(silent) as url:
        with pytest.raises(DownloadError, match=r"longer than 0\.05 seconds"):
            await download(url, 1000, seconds=0.05)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/x", "nonsense", "ftp://127.0.0.1/x", ""])
async def test_an_address_that_leads_nowhere_is_told(url: str) -> None:
    with pytest.raises(DownloadError):
        await download(url, 1000)
