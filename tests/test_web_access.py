"""Who may use the page: each rule is attacked over real HTTP, and holds."""

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.routing import Mount, Route

from bot.settings import Settings
from bot.web.access import (
    MOST_FAILURES,
    WINDOW,
    YOU,
    Access,
    TooManyGuessesError,
    WrongTokenError,
)
from bot.web.events import MOST_OF_ONE, Feed, Feeds
from bot.web.page_routes import PAGES
from bot.web.problems import TooManyError
from bot.web.roles import RULES, Role, Visitor, role_needed
from tests.web_kit import Page, open_page

ADMIN = "admin-0123456789abcdef"
ADA = "artist-ada-0123456789"
BOB = "artist-bob-0123456789"
VIEWER = "viewer-0123456789abcd"
TOKENS = {"web_token": ADMIN, "web_artist_token": (ADA, BOB), "web_viewer_token": (VIEWER,)}
OF_ROLE = {Role.ADMIN: ADMIN, Role.ARTIST: ADA, Role.VIEWER: VIEWER}
HTTPS = "https://pictures.example"


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
async def page(tmp_path: Path) -> AsyncIterator[Page]:
    """A page that needs tokens."""
    async with open_page(tmp_path, **TOKENS, web_names=(HTTPS, "nas.lan")) as opened:
        yield opened


@asynccontextmanager
async def browser(page: Page) -> AsyncIterator[httpx.AsyncClient]:
    """A browser of its own, with a jar of cookies."""
    async with httpx.AsyncClient(base_url=page.url, timeout=30, trust_env=False) as client:
        yield client


async def sign_in(client: httpx.AsyncClient, token: str) -> httpx.Response:
    return await client.post("/api/session", json={"token": token})


async def raw(page: Page, request: str) -> str:
    """Sends bytes that no HTTP client would, and returns the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", page.port)
    writer.write(request.replace("\n", "\r\n").encode("latin-1"))
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer.decode("latin-1")


# Every address has a rule -------------------------------------------------------------------------


def addresses(routes: list[Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yields method and template of all that the application answers to."""
    for route in routes:
        if isinstance(route, Mount):
            yield "GET", prefix + route.path + "/{path:path}"
        elif isinstance(route, Route):
            for method in (route.methods or set()) - {"HEAD"}:
                yield method, prefix + route.path
        else:  # a router that was included
            inner = route.original_router
            yield from addresses(inner.routes, prefix)


async def test_every_address_of_the_application_has_a_rule_and_no_rule_is_idle(page: Page) -> None:
    assert set(addresses(page.front_end.app.routes)) == set(RULES)


async def test_all_that_the_api_describes_has_a_rule(page: Page) -> None:
    described = (await page.client.get("/api/openapi.json", headers=bearer(ADMIN))).json()["paths"]
    found = {(verb.upper(), path) for path, item in described.items() for verb in item}
    assert found <= set(RULES)
    assert len(found) > 20


def example_of(path: str) -> str:
    for name, value in {
        "{path:path}": "page.css",
        "{job_id}": "nope",
        "{image_id}": "nope",
        "{name}": "nope",
    }.items():
        path = path.replace(name, value)
    return path


async def ask(page: Page, method: str, path: str, headers: dict[str, str]) -> int:
    """Returns the status of an answer, without waiting for a stream's end."""
    body = {"json": {}} if method in ("POST", "PUT") else {}
    async with page.client.stream(method, example_of(path), headers=headers, **body) as answer:
        return answer.status_code


@pytest.mark.parametrize(("method", "path"), sorted(RULES))
async def test_an_address_is_for_its_role_and_those_above_it(
    page: Page, method: str, path: str
) -> None:
    needed = RULES[method, path]
    without = await ask(page, method, path, {})
    if needed is None:
        # A body without a token is one with a wrong one; all else is answered.
        assert without == (422 if path == "/api/session" else 200)
        return
    is_page = path in {page.path for page in PAGES}
    assert without == (303 if is_page else 401)
    for role, token in OF_ROLE.items():
        status = await ask(page, method, path, bearer(token))
        if role < needed:
            assert status == 403, role
        else:
            assert status not in (401, 403), role


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/nope"),
        ("GET", "/API/JOBS"),
        ("GET", "//api/jobs"),
        ("GET", "/static/../api/jobs"),
        ("HEAD", "/nope"),
        ("HEAD", "/generate"),
        ("TRACE", "/api/jobs"),
        ("PATCH", "/healthz"),
        ("GET", "/healthz/../api/jobs"),
        ("GET", "/login/"),
    ],
)
def test_what_no_rule_names_is_for_admins(method: str, path: str) -> None:
    # "/static/.." is served from the folder of the page's files, or not at all.
    expected = None if path.startswith("/static/") else Role.ADMIN
    assert role_needed(method, path) is expected


@pytest.mark.parametrize("path", sorted(path for method, path in RULES if method == "GET"))
def test_whoever_may_have_something_may_have_its_head(path: str) -> None:
    assert role_needed("HEAD", path) is RULES["GET", path]


@given(st.text(max_size=30))
def test_no_path_but_the_named_ones_is_public(path: str) -> None:
    if role_needed("GET", f"/{path}") is None:
        assert path in ("login", "healthz") or path.startswith("static/")


# Tokens -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        f"Bearer {ADMIN}x",
        f"Bearer {ADMIN[:-1]}",
        f"Bearer {ADMIN.upper()}",
        f"Bearer {ADMIN[:-1]}\xe9",
        f"Bearer {ADMIN},{ADMIN}",
        "Bearer",
        "Bearer null",
        f"Basic {ADMIN}",
        f"{ADMIN}",
        f"Token {ADMIN}",
        "Bearer " + "x" * 10_000,
    ],
)
async def test_a_near_miss_is_a_miss(page: Page, value: str) -> None:
    headers = [(b"authorization", value.encode("latin-1"))]
    answer = await page.client.get("/api/status", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.headers["content-type"] == "application/problem+json"
    assert ADMIN[:-1] not in answer.text


async def test_two_tokens_are_none(page: Page) -> None:
    headers = [("Authorization", f"Bearer {ADMIN}"), ("Authorization", f"Bearer {VIEWER}")]
    assert (await page.client.get("/api/status", headers=headers)).status_code == 401


async def test_a_token_in_the_address_opens_nothing(page: Page) -> None:
    for name in ("token", "access_token", "authorization"):
        answer = await page.client.get("/api/status", params={name: ADMIN})
        assert answer.status_code == 401


async def test_tokens_and_sessions_are_never_logged(
    page: Page, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with browser(page) as client:
        await sign_in(client, ADMIN)
        await sign_in(client, ADMIN + "x")
        session = next(iter(client.cookies.jar)).value
        await client.get("/api/status", headers=bearer(BOB + "x"))
        await client.get("/api/status")
    ours = [
        record for record in caplog.records if not record.name.startswith(("httpx", "httpcore"))
    ]
    said = "\n".join(record.getMessage() for record in ours)
    assert "127.0.0.1 sent a wrong token" in said
    for secret in (ADMIN, BOB, session):
        assert secret not in said


@pytest.mark.parametrize("body", [{"token": [ADMIN]}, {"token": {"a": ADMIN}}, {"tokn": ADMIN}])
async def test_a_token_in_the_wrong_place_is_not_repeated(page: Page, body: object) -> None:
    answer = await page.client.post("/api/session", json=body)
    assert answer.status_code in (401, 422)
    assert ADMIN not in answer.text


async def test_no_body_is_read_before_the_token(page: Page) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", page.port)
    writer.write(
        f"POST /api/jobs HTTP/1.1\r\nHost: 127.0.0.1:{page.port}\r\n"
        "Content-Type: application/json\r\nContent-Length: 1000000\r\n\r\n".encode()
    )
    assert b" 401 " in await reader.readline()
    writer.close()
    await writer.wait_closed()


# Sessions -----------------------------------------------------------------------------------------


async def test_a_browser_without_a_session_is_led_to_the_login(page: Page) -> None:
    answer = await page.client.get("/")
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    login = await page.client.get("/login")
    assert 'type="password"' in login.text
    assert "default-src 'self'" in login.headers["content-security-policy"]


async def test_a_session_opens_what_its_token_opens_and_ends_with_the_sign_out(page: Page) -> None:
    async with browser(page) as client:
        assert (await sign_in(client, ADA)).status_code == 204
        assert (await client.get("/")).status_code == 200
        who = (await client.get("/api/session")).json()
        assert who == {"role": "artist", "can_sign_out": True}
        assert (await client.post("/api/modes/reload", json={})).status_code == 403
        stolen = dict(client.cookies)
        left = await client.delete("/api/session")
        assert left.status_code == 204
        assert left.headers["clear-site-data"] == '"cache"'  # pictures too
        assert not client.cookies
        # Who kept a copy has nothing.
        client.cookies.update(stolen)
        assert (await client.get("/api/status")).status_code == 401


async def test_a_restart_signs_nobody_out_and_nobody_in_again(tmp_path: Path) -> None:
    async with open_page(tmp_path, **TOKENS) as page, browser(page) as ada, browser(page) as bob:
        await sign_in(ada, ADA)
        await sign_in(bob, BOB)
        stays, left = dict(ada.cookies), dict(bob.cookies)
        assert (await bob.delete("/api/session")).status_code == 204
    async with open_page(tmp_path, **TOKENS) as page, browser(page) as client:
        client.cookies.update(left)
        assert (await client.get("/api/status")).status_code == 401
        client.cookies.update(stays)
        assert (await client.get("/api/session")).json()["role"] == "artist"
        assert (await client.delete("/api/session")).status_code == 204
    async with open_page(tmp_path, **TOKENS) as page, browser(page) as client:
        client.cookies.update(stays)
        assert (await client.get("/api/status")).status_code == 401


async def test_a_token_that_is_changed_takes_its_sessions_along(tmp_path: Path) -> None:
    async with open_page(tmp_path, **TOKENS) as page, browser(page) as client:
        await sign_in(client, ADMIN)
        cookies = dict(client.cookies)
    changed = {**TOKENS, "web_token": "another-0123456789abcdef"}
    async with open_page(tmp_path, **changed) as page, browser(page) as client:
        client.cookies.update(cookies)
        assert (await client.get("/api/status")).status_code == 401


def content_of(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())


async def test_nothing_in_the_data_folder_opens_the_page(tmp_path: Path) -> None:
    async with open_page(tmp_path, **TOKENS) as page, browser(page) as client:
        await sign_in(client, ADMIN)
        secret = client.cookies["dream-lab"]
        assert (await client.get("/api/status")).status_code == 200
    kept = content_of(tmp_path)
    assert hashlib.sha256(secret.encode()).hexdigest().encode() in kept
    for told in (secret, ADMIN, ADA):
        assert told.encode() not in kept


async def test_no_script_and_no_other_site_gets_the_cookie(page: Page) -> None:
    async with browser(page) as client:
        plain = (await sign_in(client, ADMIN)).headers["set-cookie"]
    answer = await page.client.post(
        "/api/session", json={"token": ADMIN}, headers={"Host": "pictures.example"}
    )
    private = answer.headers["set-cookie"]
    for cookie in (plain, private):
        parts = {part.strip().lower() for part in cookie.split(";")[1:]}
        assert {"httponly", "samesite=strict", "path=/"} <= parts
        assert not any(part.startswith("domain") for part in parts)
        assert ADMIN not in cookie
    assert "secure" not in plain.lower()
    assert "; Secure" in private
    assert private.startswith("__Host-")


async def test_each_sign_in_is_another_session_whatever_the_browser_brings(page: Page) -> None:
    async with browser(page) as client:
        client.cookies.set("dream-lab", "chosen-by-somebody-else")
        assert (await client.get("/api/status")).status_code == 401
        first = await sign_in(client, ADMIN)
        second = await sign_in(client, ADMIN)
    values = {answer.headers["set-cookie"].split(";")[0] for answer in (first, second)}
    assert len(values) == 2
    assert "chosen-by-somebody-else" not in str(values)


async def test_events_come_with_the_cookie_and_end_with_the_sign_out(page: Page) -> None:
    async with browser(page) as client:
        await sign_in(client, ADA)
        async with client.stream("GET", "/api/events") as answer:
            assert answer.status_code == 200
            lines = answer.aiter_lines()
            while not (await anext(lines)).startswith("event: jobs"):
                pass
            await client.delete("/api/session")
            async for _ in lines:  # ends by itself
                pass


async def test_a_page_for_this_machine_alone_needs_no_login(tmp_path: Path) -> None:
    async with open_page(tmp_path) as page:
        who = (await page.client.get("/api/session")).json()
        assert who == {"role": "admin", "can_sign_out": False}
        assert (await sign_in(page.client, ADMIN)).status_code == 409
        job = await page.submit()
        assert (await page.studio.view(job["id"])).record.owner == YOU


# Whose pictures -----------------------------------------------------------------------------------


async def test_artists_see_their_own_pictures_and_nobody_elses(page: Page) -> None:
    async with AsyncExitStack() as stack:
        ada, bob, admin = [await stack.enter_async_context(browser(page)) for _ in range(3)]
        for client, token in ((ada, ADA), (bob, BOB), (admin, ADMIN)):
            await sign_in(client, token)
        job = (await ada.post("/api/jobs", json={"prompt": "a secret garden"})).json()
        async with ada.stream("GET", f"/api/jobs/{job['id']}/events") as events:
            await events.aread()
        job = (await ada.get(f"/api/jobs/{job['id']}")).json()
        picture = job["images"][0]["url"]
        assert (await ada.get(picture)).status_code == 200
        for other in (bob, admin):
            assert (await other.get("/api/jobs")).json() == {"jobs": []}
            for method, path in (
                ("GET", f"/api/jobs/{job['id']}"),
                ("GET", f"/api/jobs/{job['id']}/events"),
                ("DELETE", f"/api/jobs/{job['id']}"),
                ("GET", picture),
            ):
                assert (await other.request(method, path)).status_code == 404, path
            for verb in ("cancel", "again"):
                answer = await other.post(f"/api/jobs/{job['id']}/{verb}", json={})
                assert answer.status_code == 404
        # Another browser with the same token shares them.
        shared = await page.client.get("/api/jobs", headers=bearer(ADA))
        assert [one["id"] for one in shared.json()["jobs"]] == [job["id"]]


async def test_news_of_a_job_reaches_its_owners_streams_alone(page: Page) -> None:
    async with browser(page) as ada, browser(page) as bob:
        await sign_in(ada, ADA)
        await sign_in(bob, BOB)
        async with bob.stream("GET", "/api/events") as answer:
            lines = answer.aiter_lines()
            while not (await anext(lines)).startswith("event: jobs"):
                pass
            await ada.post("/api/jobs", json={"prompt": "a secret garden"})
            await bob.post("/api/jobs", json={"prompt": "a public garden"})
            seen = ""
            while '"done"' not in seen:
                seen += await anext(lines)
            assert "public garden" in seen
            assert "secret garden" not in seen


async def test_an_artists_generate_switches_nobodys_mode(page: Page) -> None:
    body = {"prompt": "x", "mode": "other"}
    answer = await page.client.post("/generate", json=body, headers=bearer(ADA))
    assert (answer.status_code, answer.headers["x-mode"]) == (200, "other")
    assert page.pool.get_current_mode() == "small"


def test_an_owners_id_outlives_a_restart_and_gives_nothing_away() -> None:
    one, again = (Access(Settings(**TOKENS)).by_token(ADA, "x").owner for _ in range(2))
    assert one == again
    assert one != Access(Settings(**TOKENS)).by_token(BOB, "x").owner
    assert ADA not in one.id + one.name
    assert not one.is_trusted


# Guessing -----------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def guess(access: Access, address: str = "192.0.2.1") -> None:
    with pytest.raises(WrongTokenError):
        access.by_token("wrong", address)


async def test_an_address_that_guesses_is_not_listened_to_for_a_while(page: Page) -> None:
    async with browser(page) as client:
        assert (await sign_in(client, ADA)).status_code == 204
        for _ in range(MOST_FAILURES):
            assert (await sign_in(page.client, "wrong")).status_code == 401
        for answer in (
            await sign_in(page.client, ADMIN),
            await page.client.get("/api/status", headers=bearer(ADMIN)),
        ):
            assert answer.status_code == 429
            assert 0 < int(answer.headers["retry-after"]) <= WINDOW
            assert "set-cookie" not in answer.headers
        # Who is signed in is not shut out by somebody else's guesses.
        assert (await client.get("/api/status")).status_code == 200


async def test_a_header_cannot_pretend_to_be_another_address(page: Page) -> None:
    for i in range(MOST_FAILURES):
        headers = {"X-Forwarded-For": f"192.0.2.{i}", "Forwarded": f"for=192.0.2.{i}"}
        await page.client.get("/api/status", headers=bearer("wrong") | headers)
    answer = await page.client.get("/api/status", headers=bearer(ADMIN))
    assert answer.status_code == 429


def test_guesses_are_counted_by_address_and_forgotten_after_a_while() -> None:
    clock = Clock()
    access = Access(Settings(**TOKENS), clock)
    for _ in range(MOST_FAILURES):
        guess(access)
    with pytest.raises(TooManyGuessesError):
        access.by_token(ADMIN, "192.0.2.1")
    assert access.by_token(ADMIN, "192.0.2.2").role is Role.ADMIN
    clock.now += WINDOW
    assert access.by_token(ADMIN, "192.0.2.1").role is Role.ADMIN
    guess(access)  # and the count began anew


def test_an_ipv6_network_counts_as_one_address() -> None:
    access = Access(Settings(**TOKENS), Clock())
    for i in range(MOST_FAILURES):
        guess(access, f"2001:db8::{i:x}")
    with pytest.raises(TooManyGuessesError):
        access.by_token(ADMIN, "2001:db8::ffff:1")
    assert access.by_token(ADMIN, "2001:db8:0:1::1").role is Role.ADMIN
    for _ in range(MOST_FAILURES):
        guess(access, "::ffff:192.0.2.1")
    with pytest.raises(TooManyGuessesError):
        access.by_token(ADMIN, "192.0.2.1")


# Other sites --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://pictures.example", "Host": "pictures.example"},
        {"Origin": "https://pictures.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
async def test_another_site_can_neither_act_nor_sign_in_even_with_the_cookie(
    page: Page, headers: dict[str, str]
) -> None:
    async with browser(page) as client:
        await sign_in(client, ADMIN)
        answers = [
            await client.post("/api/jobs", json={"prompt": "x"}, headers=headers),
            await client.post("/api/session", json={"token": ADMIN}, headers=headers),
            await client.delete("/api/session", headers=headers),
        ]
        assert [answer.status_code for answer in answers] == [403] * 3
        assert (await client.get("/api/status")).status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("nas.lan:{port}", 204),
        ("NAS.lan:{port}", 204),
        ("pictures.example", 204),
        ("127.0.0.1:{port}", 204),
        ("pictures.example:{port}", 421),
        ("nas.lan", 421),
        ("evil.example:{port}", 421),
        ("pictures.example.evil.example", 421),
        ("192.0.2.7:{port}", 421),
    ],
)
async def test_only_names_that_the_owner_set_are_answered(
    page: Page, host: str, status: int
) -> None:
    headers = {"Host": host.format(port=page.port)}
    answer = await page.client.post("/api/session", json={"token": ADMIN}, headers=headers)
    assert answer.status_code == status


async def test_behind_a_proxy_the_page_is_same_origin_to_itself(page: Page) -> None:
    headers = {"Host": "pictures.example", "Origin": HTTPS, "Sec-Fetch-Site": "same-origin"}
    answer = await page.client.post("/api/session", json={"token": ADA}, headers=headers)
    assert answer.status_code == 204
    cookie = {"Cookie": answer.headers["set-cookie"].split(";")[0]}
    body = {"prompt": "x"}
    drawn = await page.client.post("/api/jobs", json=body, headers=headers | cookie)
    assert drawn.status_code == 201
    # The cookie of the encrypted page is none on the unencrypted one.
    assert (await page.client.get("/api/status", headers=cookie)).status_code == 401


@pytest.mark.parametrize(
    "line",
    [
        "Authorization: Bearer x\n Set-Cookie: dream-lab=1",
        "Cookie: dream-lab=a\x00b",
        "Cookie: " + "dream-lab=x; " * 3000,
        "Host : evil.example",
        "X: a\nContent-Length: 5\nTransfer-Encoding: chunked",
    ],
)
async def test_hostile_headers_neither_open_the_page_nor_come_back(page: Page, line: str) -> None:
    host = f"Host: 127.0.0.1:{page.port}\n"
    answer = await raw(page, f"GET /api/status HTTP/1.1\n{host}{line}\nConnection: close\n\n")
    assert answer.split()[1] in ("400", "401", "431")
    assert "set-cookie" not in answer.lower()
    assert (await page.client.get("/healthz")).status_code == 200


# Floods -------------------------------------------------------------------------------------------


async def test_streams_of_one_owner_are_bounded_and_others_still_get_theirs(page: Page) -> None:
    feeds: Feeds = page.front_end.app.state.feeds
    ada = Access(Settings(**TOKENS)).by_token(ADA, "x")
    async with AsyncExitStack() as stack:
        for _ in range(MOST_OF_ONE):
            feed = await stack.enter_async_context(Feed(page.studio))
            stack.enter_context(feeds.open(feed, ada))
        answer = await page.client.get("/api/events", headers=bearer(ADA))
        assert answer.status_code == 429
        assert await ask(page, "GET", "/api/events", bearer(BOB)) == 200
        assert (await page.client.get("/api/jobs", headers=bearer(ADA))).status_code == 200
    assert await ask(page, "GET", "/api/events", bearer(ADA)) == 200


async def test_a_stream_ends_when_its_session_does(page: Page) -> None:
    now = asyncio.get_running_loop().time()
    visitor = Visitor(Role.VIEWER, YOU, session="s", expires=now)
    async with Feed(page.studio) as feed:
        with Feeds().open(feed, visitor):
            events = [event async for event in feed.everything(lambda: page.studio.history("no"))]
    assert [event.event for event in events] == ["jobs"]


async def test_all_streams_together_are_bounded(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.web.events.MOST", 1)
    feeds = Feeds()
    async with Feed(page.studio) as one, Feed(page.studio) as more:
        with feeds.open(one, Visitor(Role.ADMIN, YOU)), pytest.raises(TooManyError):
            feeds.open(more, Visitor(Role.ADMIN, YOU)).__enter__()
