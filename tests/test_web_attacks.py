"""Each rule of SECURITY.md is attacked over real sockets, and holds."""

import asyncio
import base64
import io
import logging
import re
import socket
import struct
import zipfile
import zlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from PIL import Image, PngImagePlugin

from bot.settings import Settings
from bot.web.access import MOST_FAILURES, Access, TooFastError
from bot.web.events import MOST_OF_ONE
from bot.web.guard import MAX_BODY, MAX_SIGN_IN
from bot.web.pace import Pace
from bot.web.roles import RULES, Role
from tests.web_kit import PATIENCE, UNUSED, Page, open_page

ADMIN, ADA, BOB = "admin-0123456789abcdef", "artist-ada-0123456789", "artist-bob-0123456789"
VIEWER, DISCORD = "viewer-0123456789abcd", "discord.token.never-shown"
SECRETS: dict[str, Any] = {
    "web_token": ADMIN,
    "web_artist_token": (ADA, BOB),
    "web_viewer_token": (VIEWER,),
    "discord_token": DISCORD,
}
ACTS = sorted((method, path) for method, path in RULES if method not in ("GET", "HEAD"))
LOOKS = sorted(path for method, path in RULES if method == "GET")
STREAMS = [path for path in LOOKS if path.endswith("/events") and "{" not in path]
JSON = {"Content-Type": "application/json"}
JSON_LINES = ("Content-Type: application/json",)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def address(path: str) -> str:
    return re.sub(r"\{[^}]*\}", "nope", path)


@pytest.fixture
async def page(tmp_path: Path) -> AsyncIterator[Page]:
    """A page that needs tokens."""
    async with open_page(tmp_path, **SECRETS) as opened:
        yield opened


@asynccontextmanager
async def browser(page: Page, token: str) -> AsyncIterator[httpx.AsyncClient]:
    """A browser that is signed in."""
    async with httpx.AsyncClient(
        base_url=page.url, timeout=PATIENCE, trust_env=False, verify=UNUSED
    ) as client:
        answer = await client.post("/api/session", json={"token": token})
        assert answer.status_code == 204
        yield client


async def raw(page: Page, request: bytes) -> bytes:
    """Sends bytes that no HTTP client would, and returns all that is answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", page.port)
    writer.write(request)
    async with asyncio.timeout(PATIENCE):
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


def request_of(page: Page, target: str, *headers: str, method: str = "GET") -> bytes:
    lines = [f"{method} {target} HTTP/1.1", f"Host: 127.0.0.1:{page.port}", *headers]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1")


# Files and folders --------------------------------------------------------------------------------

CLIMBS = (
    "../",
    "..%2f",
    "%2e%2e/",
    "%2e%2e%2f",
    "..%5c",
    "..%255c",
    "....//",
    "..;/",
    "%c0%ae%c0%ae/",
    "/etc/passwd%00/",
    "C:%5c",
)


async def test_no_path_climbs_out_of_the_pages_folder(page: Page, tmp_path: Path) -> None:
    bases = ["/static/", "/api/images/", "/api/jobs/", "/api/modes/", "/", "/api/plots/"]
    bases += [address(path).rpartition("nope")[0] for path in LOOKS if "{" in path]
    for base in dict.fromkeys(bases):
        for climb in CLIMBS:
            target = f"{base}{climb * 6}{str(tmp_path).lstrip('/')}/dreamlab.db"
            answer = await raw(page, request_of(page, target, f"Authorization: Bearer {ADMIN}"))
            assert answer.split()[1] in (b"404", b"405", b"307", b"422", b"400"), target
            assert b"SQLite format" not in answer, target


async def test_no_folder_is_listed(page: Page) -> None:
    for target in ("/static", "/static/", "/static/.", "/static//", "/pages/", "/api/images/"):
        answer = await raw(page, request_of(page, target, f"Authorization: Bearer {ADMIN}"))
        assert answer.split()[1] in (b"404", b"307"), target
        assert b"page.css" not in answer


# Other sites --------------------------------------------------------------------------------------


async def test_no_name_but_the_pages_own_is_answered(page: Page) -> None:
    port = page.port
    for head in (
        f"GET /api/status HTTP/1.1\r\nHost: evil.example:{port}",
        f"GET /api/status HTTP/1.1\r\nHost: 127.0.0.1.evil.example:{port}",
        f"GET /api/status HTTP/1.1\r\nHost: evil.example:{port}\r\n"
        f"X-Forwarded-Host: 127.0.0.1:{port}",
        f"GET http://127.0.0.1:{port}/api/status HTTP/1.1\r\nHost: evil.example",
        f"GET /api/status HTTP/1.1\r\nHost: 127.0.0.1:{port}@evil.example",
        "GET /api/status HTTP/1.0",
    ):
        request = f"{head}\r\nAuthorization: Bearer {ADMIN}\r\nConnection: close\r\n\r\n"
        answer = await raw(page, request.encode())
        assert answer.split()[1] in (b"400", b"421"), head


async def test_whatever_acts_can_be_made_to_act_by_no_other_site(page: Page) -> None:
    foreign: tuple[dict[str, str], ...] = (
        {**JSON, "Origin": "https://evil.example"},
        {**JSON, "Origin": "null"},
        {**JSON, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
        {**JSON, "Sec-Fetch-Site": "same-site"},
    )
    forms = ("application/x-www-form-urlencoded", "text/plain")
    async with browser(page, ADMIN) as client:
        for method, path in ACTS:
            for headers in foreign:
                answer = await client.request(method, address(path), content=b"{}", headers=headers)
                assert answer.status_code == 403, (method, path, headers)
            if method == "DELETE":  # which no form can send
                continue
            for kind in forms:
                headers = {"Content-Type": kind}
                answer = await client.request(method, address(path), content=b"{}", headers=headers)
                assert answer.status_code == 415, (method, path, kind)
        # No trick with the method leads past that.
        headers = {"X-HTTP-Method-Override": "DELETE", "Origin": "https://evil.example"}
        assert (await client.get("/api/session", headers=headers)).status_code == 403
        assert (await client.get("/api/session")).json()["role"] == "admin"
    assert page.executor.requests == []
    assert page.pool.get_current_mode() == "small"


async def test_no_answer_lets_another_site_read_or_frame_it(page: Page) -> None:
    for path in LOOKS:
        if path.endswith("/events"):
            continue
        answer = await page.client.get(address(path), headers=bearer(ADMIN))
        assert not any(name.startswith("access-control") for name in answer.headers), path
        assert answer.headers["x-frame-options"] == "DENY", path
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"], path
        assert answer.headers["x-content-type-options"] == "nosniff", path


# Pictures -----------------------------------------------------------------------------------------


def chunk(kind: bytes, content: bytes) -> bytes:
    crc = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)


def png(width: int, height: int, *chunks: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IEND", b"")


def sound() -> bytes:
    notes = PngImagePlugin.PngInfo()
    notes.add_text("Comment", "<script>alert(1)</script>")
    file = io.BytesIO()
    Image.new("RGB", (64, 64), "orange").save(file, "PNG", pnginfo=notes)
    return file.getvalue()


def archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        packed.writestr("evil.class", "code")
    return file.getvalue()


def bombs() -> dict[str, bytes]:
    unpacks = zlib.compress(bytes(80 * 2**20))
    return {
        "too many pixels": png(30_000, 30_000, chunk(b"IDAT", zlib.compress(bytes(10**6)))),
        "far too many": png(2**31 - 1, 2**31 - 1),
        "too few bytes": png(1000, 1000, chunk(b"IDAT", zlib.compress(b"\0"))),
        "a text that unpacks": png(8, 8, chunk(b"zTXt", b"a\0\0" + unpacks), chunk(b"IDAT", b"")),
        "a profile that unpacks": png(
            8, 8, chunk(b"iCCP", b"a\0\0" + unpacks), chunk(b"IDAT", b"")
        ),
        "a drawing": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
        "a page": b"<!doctype html><script>alert(1)</script>",
        "a program": b"%!PS-Adobe-3.0 EPSF-3.0\n(/etc/passwd) run",
        "an archive": archive(),
        "a tiff": b"II*\0" + struct.pack("<I", 2**31),
        "half of a picture": sound()[:60],
        "nothing": b"",
    }


async def test_bombs_and_what_is_no_picture_are_refused_and_leave_nothing(
    page: Page, tmp_path: Path
) -> None:
    for name, content in bombs().items():
        encoded = base64.b64encode(content).decode()
        for path, body in (
            ("/api/jobs", {"prompt": "x", "image": encoded}),
            ("/sdapi/v1/img2img", {"prompt": "x", "init_images": [encoded]}),
        ):
            answer = await page.client.post(path, json=body, headers=bearer(ADA))
            assert answer.status_code == 422, (name, path, answer.text)
            assert len(answer.content) < 1000
    assert page.executor.requests == []
    assert not [path for path in (tmp_path / "images").rglob("*") if path.is_file()]


async def test_of_a_picture_that_is_more_than_one_the_pixels_alone_stay(page: Page) -> None:
    for hidden in (archive(), b"<script>alert(1)</script>", b"#!/bin/sh\nrm -rf /"):
        body = {"prompt": "x", "image": base64.b64encode(sound() + hidden).decode()}
        answer = await page.client.post("/generate", json=body, headers=bearer(ADA))
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "image/png"
        source = page.executor.requests[-1].source
        assert source is not None
        kept = source.read_bytes()
        assert hidden not in kept
        assert b"script" not in kept
        assert kept.endswith(b"IEND\xaeB`\x82")


# Words that end up elsewhere ----------------------------------------------------------------------


async def test_nothing_sent_becomes_a_header_or_a_line_in_the_log(
    page: Page, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    evil = "a\r\nX-Evil: 1\r\n\r\n<script>\x1b[2J"
    body = {"prompt": "x", "mode": evil}
    answers = [
        await page.client.post("/generate", json=body, headers=bearer(ADA)),
        await page.client.post("/api/jobs", json={"prompt": evil}, headers=bearer(ADA)),
        await page.client.post("/api/session", json={"token": evil}),
        await page.client.post(f"/api/modes/{quote(evil)}", json={}, headers=bearer(ADMIN)),
        await page.client.get("/gallery", params={"q": evil}),
        await page.client.get("/login", params={"to": evil}),
        await page.client.get("/api/jobs", params={"limit": evil}, headers=bearer(ADA)),
        await page.client.get(f"/api/images/{quote(evil)}", headers=bearer(ADA)),
    ]
    for answer in answers:
        assert "x-evil" not in answer.headers
        assert not any("\r" in value or "\n" in value for value in answer.headers.values())
        assert "<script>\x1b" not in answer.text
    split = request_of(page, "/api/status?a=%0d%0aX-Evil:%201", "X-A: b\r\n c: d")
    assert b"x-evil: 1" not in (await raw(page, split)).lower()
    for record in caplog.records:
        if not record.name.startswith(("httpx", "httpcore", "asyncio")):
            assert not re.search(r"[\r\n\x1b]", record.getMessage()), record


async def test_no_two_readings_of_one_request(page: Page) -> None:
    hidden = b"GET /api/status HTTP/1.1\r\nHost: evil\r\n\r\n"
    for headers in (
        ("Content-Length: 4", "Transfer-Encoding: chunked"),
        ("Content-Length: 4", "Content-Length: 40"),
        ("Content-Length: +4",),
        ("Transfer-Encoding: xchunked",),
        ("Transfer-Encoding : chunked",),
    ):
        request = request_of(page, "/api/session", *JSON_LINES, *headers, method="POST")
        answer = await raw(page, request + b"0\r\n\r\n" + hidden)
        assert answer.count(b"HTTP/1.1 ") == 1, headers
        assert answer.split()[1] in (b"400", b"413", b"422", b"501"), headers


# Guessing -----------------------------------------------------------------------------------------


async def test_guesses_are_counted_together_whichever_way_they_come(page: Page) -> None:
    statuses = []
    for i in range(MOST_FAILURES + 3):
        if i % 3 == 0:
            answer = await page.client.post("/api/session", json={"token": f"guess-{i}"})
        elif i % 3 == 1:
            answer = await page.client.get("/api/status", headers=bearer(f"guess-{i}"))
        else:
            answer = await page.client.get("/sdapi/v1/progress", auth=("a", f"guess-{i}"))
        statuses.append(answer.status_code)
    assert statuses == [401] * MOST_FAILURES + [429] * 3
    # Not even the right one tells itself apart now.
    right = await page.client.get("/api/status", headers=bearer(ADMIN))
    assert (right.status_code, "retry-after" in right.headers) == (429, True)


async def test_ids_say_nothing_of_each_other(page: Page) -> None:
    jobs = []
    for _ in range(3):
        answer = await page.client.post("/api/jobs", json={"prompt": "x"}, headers=bearer(ADA))
        jobs.append(answer.json()["id"])
    for job_id in jobs:
        while (job := (await page.client.get(f"/api/jobs/{job_id}", headers=bearer(ADA))).json())[
            "status"
        ] != "done":
            pass
        jobs += [image["id"] for image in job["images"] if image["id"] not in jobs]
        if len(jobs) == 6:
            break
    assert len(set(jobs)) == 6
    for one in jobs:
        assert len(base64.urlsafe_b64decode(one + "==")) >= 12  # 96 random bits
    prefixes = {one[:4] for one in jobs}
    assert len(prefixes) == 6


# Floods -------------------------------------------------------------------------------------------


async def test_streams_of_one_token_are_bounded_over_all_addresses(page: Page) -> None:
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(
            httpx.AsyncClient(
                base_url=page.url,
                timeout=PATIENCE,
                trust_env=False,
                verify=UNUSED,
                limits=httpx.Limits(max_connections=None),
            )
        )

        async def status_of(path: str, token: str) -> int:
            stream = client.stream("GET", path, headers=bearer(token))
            return (await stack.enter_async_context(stream)).status_code

        for i in range(MOST_OF_ONE):
            assert await status_of(STREAMS[i % len(STREAMS)], ADA) == 200
        for path in STREAMS:
            assert await status_of(path, ADA) == 429, path
            assert await status_of(path, BOB) == 200, path
        assert (await client.get("/api/jobs", headers=bearer(ADA))).status_code == 200


async def test_requests_of_one_token_are_bounded_and_of_others_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.web.access.BURST", 5)
    monkeypatch.setattr("bot.web.access.PER_SECOND", 1e-3)
    async with open_page(tmp_path, **SECRETS) as page, browser(page, ADA) as client:
        # A browser's session, with its beginning, and a program's token are one token.
        for _ in range(2):
            assert (await client.get("/api/session")).status_code == 200
            answer = await page.client.get("/api/session", headers=bearer(ADA))
            assert answer.status_code == 200
        for answer in (
            await client.get("/api/session"),
            await page.client.get("/api/session", headers=bearer(ADA)),
            await page.client.get("/sdapi/v1/progress", auth=("any", ADA)),
            await page.client.get("/v1/models", headers=bearer(ADA)),
        ):
            assert answer.status_code == 429
            assert int(answer.headers["retry-after"]) > 0
        assert "Too many requests" in answer.json()["error"]["message"]
        again = await page.client.post("/api/session", json={"token": ADA})
        assert again.status_code == 429
        other = await page.client.get("/api/session", headers=bearer(BOB))
        assert other.status_code == 200


def test_a_pace_gives_back_what_time_brings_and_no_more() -> None:
    now = 0.0
    pace = Pace(2.0, 3, lambda: now)
    assert [pace.wait("a") for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    assert pace.wait("b") == 0.0
    now = 0.25
    assert pace.wait("a") == 0.25
    now = 0.5
    assert [pace.wait("a"), pace.wait("a")] == [0.0, 0.5]
    now = 1e6
    assert [pace.wait("a") for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]


def test_whoever_sits_at_the_machine_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bot.web.access.BURST", 1)
    access = Access(Settings(web_token=ADMIN), lambda: 0.0)
    visitor = access.by_token(ADMIN, "x")
    access.count(visitor)
    with pytest.raises(TooFastError, match="Wait 1 second"):
        access.count(visitor)
    alone = Access(Settings())
    for _ in range(5):
        alone.count(visitor)


async def test_who_does_not_say_what_they_want_is_hung_up_on(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with AsyncExitStack() as stack:
        stream = page.client.stream("GET", "/api/events", headers=bearer(ADA))
        lines = (await stack.enter_async_context(stream)).aiter_lines()
        monkeypatch.setattr("bot.web.connections.HEAD_SECONDS", 0.05)
        whole = f"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:{page.port}\r\n\r\n".encode()
        for begins, goes_on in (
            (b"", b""),
            (b"GET /healthz HTTP/1.1\r\n", b""),
            (whole, b"GET /hea"),
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", page.port)
            writer.write(begins)
            async with asyncio.timeout(PATIENCE):
                if goes_on:
                    assert b" 200 " in await reader.readuntil(b"}")
                    writer.write(goes_on)
                assert await reader.read() == b""  # it is closed
            writer.close()
            await writer.wait_closed()
        monkeypatch.undo()
        # Whoever has said it is not: the stream is as open as before.
        await page.client.post("/api/jobs", json={"prompt": "later"}, headers=bearer(ADA))
        async with asyncio.timeout(PATIENCE):
            while "later" not in await anext(lines):
                pass


async def test_who_trickles_a_body_is_told_that_it_took_too_long(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.web.guard.MOST_SECONDS", 0.05)
    request = request_of(
        page,
        "/api/jobs",
        f"Authorization: Bearer {ADA}",
        *JSON_LINES,
        "Content-Length: 1000",
        method="POST",
    )
    answer = await raw(page, request + b"{")
    assert answer.split()[1] == b"408"
    assert b"took too long" in answer


async def test_a_body_as_long_as_a_picture_that_holds_none_is_not_read(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nobody_reads(_: object) -> Any:
        raise AssertionError("It was read.")

    monkeypatch.setattr("starlette.requests.Request.json", nobody_reads)
    headers = {**bearer(ADA), **JSON}
    for path, field in (
        ("/api/jobs", "loras"),
        ("/api/jobs", "steps"),
        ("/generate", "loras"),
        ("/sdapi/v1/img2img", "alwayson_scripts"),
        ("/sdapi/v1/img2img", "init_images"),
    ):
        for value in ("[]", "{}", "1", '{"name":"a"}'):
            parts = (f'{{"prompt":"x","{field}":[', ",".join([value] * 100_000), "]}")

            async def one_by_one(parts: tuple[str, ...] = parts) -> AsyncIterator[bytes]:
                for part in parts:
                    yield part.encode()

            for content in ("".join(parts), one_by_one()):
                answer = await page.client.post(path, content=content, headers=headers)
                assert answer.status_code == 413, (path, field, value)
                assert "10000 commas" in answer.json()["detail"]


async def test_what_is_in_a_long_body_beside_its_picture_counts_alone(page: Page) -> None:
    picture = png(64, 64, chunk(b"IDAT", zlib.compress(bytes(64 * (1 + 3 * 64)))))
    picture += bytes(2 * MAX_BODY)  # what follows its end is left out
    body = {"prompt": "a, b, c", "image": base64.b64encode(picture).decode()}
    answer = await page.client.post("/generate", json=body, headers=bearer(ADA))
    assert answer.status_code == 200, answer.text
    wordy = await page.client.post("/api/jobs", json={"prompt": "," * 20_000}, headers=bearer(ADA))
    assert (wordy.status_code, wordy.json()["field"]) == (422, "prompt")


async def trickle(writer: asyncio.StreamWriter) -> None:
    """Sends a byte at a time, as long as it may."""
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0)


async def test_who_goes_on_with_a_body_after_its_answer_is_hung_up_on(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.web.connections.REST_SECONDS", 0.05)
    for target in ("POST /api/jobs", "GET /healthz"):
        lines = (f"{target} HTTP/1.1", f"Host: 127.0.0.1:{page.port}", *JSON_LINES)
        reader, writer = await asyncio.open_connection("127.0.0.1", page.port)
        writer.write("\r\n".join([*lines, "Content-Length: 100000000", "", "x"]).encode())
        async with asyncio.timeout(PATIENCE):
            await reader.readuntil(b"}")  # the answer
            with pytest.raises(ConnectionError):
                await trickle(writer)
        writer.close()


async def pour(ours: socket.socket, requests: bytes) -> None:
    """Sends requests as long as it may, and reads no answer."""
    while True:
        await asyncio.get_running_loop().sock_sendall(ours, requests)


async def test_who_reads_no_answer_is_hung_up_on(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.web.connections.READ_SECONDS", 0.05)
    lines = ("GET /static/page.css HTTP/1.1", f"Host: 127.0.0.1:{page.port}", "", "")
    with socket.socket() as ours:
        ours.setblocking(False)
        await asyncio.get_running_loop().sock_connect(ours, ("127.0.0.1", page.port))
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(ConnectionError):
                await pour(ours, "\r\n".join(lines).encode() * 1000)


async def test_a_token_that_trickles_or_is_long_is_refused_soon(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = await page.client.post("/api/session", json={"token": "x" * MAX_SIGN_IN})
    assert long.status_code == 413
    assert "4 KiB" in long.json()["detail"]
    monkeypatch.setattr("bot.web.guard.SIGN_IN_SECONDS", 0.05)
    request = request_of(page, "/api/session", *JSON_LINES, "Content-Length: 1000", method="POST")
    assert (await raw(page, request + b"{")).split()[1] == b"408"


# Secrets ------------------------------------------------------------------------------------------


async def test_no_answer_shows_a_secret_or_to_a_viewer_where_things_are(
    page: Page, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    hashes = [name for name, _ in page.front_end.app.state.access._visitors]
    for path in LOOKS:
        if path.endswith("/events"):
            continue
        for token in (ADMIN, VIEWER):
            answer = await page.client.get(address(path), headers=bearer(token))
            shown = answer.content + repr(answer.headers).encode()
            for secret in (ADMIN, ADA, BOB, VIEWER, DISCORD):
                assert secret.encode() not in shown, path
            assert not any(known.hex().encode() in shown for known in hashes), path
            if token == VIEWER or RULES["GET", path] is not Role.ADMIN:
                assert str(tmp_path).encode() not in shown, path
    bodies: list[Any] = [
        {"token": [ADA]},
        {"token": {"a": ADA}},
        {"tokn": ADA},
        [ADA],
        ADA,
    ]
    for body in bodies:
        answer = await page.client.post("/api/session", json=body)
        assert answer.status_code in (401, 422)
        assert ADA not in answer.text
    ours = [
        record.getMessage()
        for record in caplog.records
        if not record.name.startswith(("httpx", "httpcore"))
    ]
    for secret in (ADMIN, ADA, BOB, VIEWER, DISCORD):
        assert secret not in "\n".join(ours)
    assert not any(secret in repr(Settings(**SECRETS)) for secret in (ADMIN, ADA, DISCORD))
