"""Who may talk to the page: hosts, origins, body sizes, and the headers of every answer.

Being on this machine, or a cookie, is what lets a browser in (`bot/web/gate.py`). So another site
that is open in the same browser must not get through it: neither by a name that it lets point at
this machine (DNS rebinding), nor by sending forms here (cross-site request forgery), nor by
framing the page or loading its pictures.
"""

import asyncio
import contextlib
import ipaddress
import logging
from http import HTTPStatus

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bot.source_images import MAX_BYTES
from bot.web.problems import problem, problem_for_bug, shaped

logger = logging.getLogger(__name__)

MAX_BODY = 64 * 1024
"""Largest request body in bytes: the longest prompt that any model reads is far below it."""

MAX_DRAFT = (MAX_BYTES + 3) // 3 * 4 + MAX_BODY
"""Likewise where a picture to start from comes along, as base64: 4 characters for 3 bytes. The
studio says what is wrong with one that is a little too large."""

MOST_COMMAS = 10_000
"""Likewise commas in such a body, which is long for its picture and has none in it. JSON has a
comma between any two values, and millions of values would keep all others waiting."""

MAX_MODES_FILE = 256 * 1024
"""Likewise for a whole modes file."""

MAX_MODES_DRAFT = 2 * MAX_MODES_FILE + MAX_BODY
"""Likewise for one within JSON, where quotes and line ends take two characters."""

MAX_SIGN_IN = 4 * 1024
"""Likewise for a token, which anybody may send."""

_LIMITS = {
    ("POST", "/api/session"): MAX_SIGN_IN,
    ("POST", "/api/jobs"): MAX_DRAFT,
    ("POST", "/generate"): MAX_DRAFT,
    ("POST", "/sdapi/v1/img2img"): MAX_DRAFT,
    ("PUT", "/api/modes"): MAX_MODES_FILE,
    ("POST", "/api/modes-file/check"): MAX_MODES_DRAFT,
    ("POST", "/api/modes-file/try"): MAX_MODES_DRAFT,
}

_JSON = "application/json"
_MEDIA = {("PUT", "/api/modes"): (_JSON, "application/yaml")}
"""Kinds of bodies where others than JSON are taken. A form of another site can send none of them:
browsers ask for permission first, and get none."""

_BODILESS = frozenset(
    {f"/sdapi/v1/{name}" for name in ("interrupt", "skip", "refresh-checkpoints")}
)
"""Where a POST without a body, and so without a kind, is taken. A form of another site always has a
kind, and whatever else another site's page can send says where it comes from."""

_BRINGS_BODY = frozenset({"POST", "PUT", "PATCH"})

MOST_SECONDS = 300
"""Seconds that a body may take to arrive; a phone sends the largest in a third of it."""

SIGN_IN_SECONDS = 10
"""Likewise for a token: without one nobody may keep a connection busy for long."""

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
"""Names that a browser uses for this machine and no other site can take."""

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
        "trusted-types 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class RefusedError(Exception):
    """The request is turned away before any route sees it.

    Attributes:
        status: HTTP status of the answer.
    """

    def __init__(self, status: HTTPStatus, detail: str) -> None:
        super().__init__(detail)
        self.status = status


def host_name(host: str) -> str:
    """Returns a host as it stands in an address."""
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(host).version == 6:
            return f"[{host}]"
    return host


def known_hosts(names: tuple[str, ...], address: str, port: int) -> dict[str, str]:
    """Returns what the header ``Host`` may say, each with the origin that the page has there.

    The address itself is among them. No other site can have it as its origin, so that taking it
    opens no way for DNS rebinding, which needs a name.

    Args:
        names: host names that the page answers to, or whole origins such as
            ``https://pictures.example`` where a proxy stands before it.
        address: the one that the connection came in on.
        port: likewise.
    """
    known: dict[str, str] = {}
    for name in (*names, host_name(address)):
        scheme, _, host = name.rpartition("://")
        if scheme:
            known[host] = name
            continue
        known[f"{host}:{port}"] = f"http://{host}:{port}"
        if port == 80:  # browsers leave it out
            known[host] = f"http://{host}"
    return known


def check(method: str, path: str, headers: Headers, known: dict[str, str]) -> str:
    """Decides whether a request may pass, and returns the origin that the page has for it.

    Args:
        method: HTTP method.
        path: of its address.
        headers: as they came.
        known: see `known_hosts`.

    Raises:
        RefusedError: it may not, and why.
    """
    hosts = headers.getlist("host")
    ours = known.get(hosts[0].lower()) if len(hosts) == 1 else None
    if ours is None:
        detail = (
            f"The page does not answer to this host name. Allowed: {', '.join(known)}; "
            "the setting WEB_NAMES allows others."
        )
        raise RefusedError(HTTPStatus.MISDIRECTED_REQUEST, detail)
    # Browsers send one or both of these with whatever a page makes them send; curl sends neither.
    origins = headers.getlist("origin")
    site = headers.get("sec-fetch-site", "same-origin")
    foreign = any(origin.lower() != ours for origin in origins)
    foreign = foreign or site not in ("same-origin", "none")
    follows_link = method == "GET" and headers.get("sec-fetch-mode") == "navigate"
    if foreign and not follows_link:
        detail = "Another site may neither act nor look here; open the page itself."
        raise RefusedError(HTTPStatus.FORBIDDEN, detail)
    if method in SAFE_METHODS:
        return ours
    media = headers.get("content-type", "").split(";")[0].strip().lower()
    taken = _MEDIA.get((method, path), (_JSON,))
    has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
    needs_kind = has_body or "content-type" in headers or path not in _BODILESS
    if method in _BRINGS_BODY and needs_kind and media not in taken:
        allowed = " or ".join(f"'Content-Type: {kind}'" for kind in taken)
        detail = f"Only JSON is taken. Allowed: the header {allowed}."
        raise RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, detail)
    length = headers.get("content-length", "0")
    limit = limit_of(method, path)
    if not length.isdecimal() or int(length) > limit:
        raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _too_large(limit))
    return ours


def limit_of(method: str, path: str) -> int:
    """Returns the largest body in bytes that an address takes."""
    return _LIMITS.get((method, path), MAX_BODY)


def seconds_of(method: str, path: str) -> float:
    """Returns how long the body that an address takes may take to arrive."""
    return SIGN_IN_SECONDS if (method, path) == ("POST", "/api/session") else MOST_SECONDS


def _too_large(limit: int) -> str:
    return f"The request is too large. Allowed: at most {limit // 1024} KiB."


_TOO_FULL = (
    "The request has too much in it beside a picture. Allowed: at most "
    f"{MOST_COMMAS} commas where it is larger than {MAX_BODY // 1024} KiB."
)


class Guard:
    """Middleware that asks `check`, counts the body and puts the headers on every answer."""

    def __init__(self, app: ASGIApp, names: tuple[str, ...] = LOOPBACK) -> None:
        self._app = app
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers, or passes the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(send)
        method, path = scope["method"], scope["path"]
        # The address that the connection itself came in on; no header can say otherwise.
        address, port = scope.get("server") or ("127.0.0.1", 0)
        try:
            ours = check(
                method, path, Headers(scope=scope), known_hosts(self._names, address, port or 0)
            )
        except RefusedError as error:
            await shaped(problem(error.status, str(error)), path)(scope, receive, answer)
            return
        scope["scheme"] = ours.partition("://")[0]
        try:
            limited = _limited(receive, limit_of(method, path), seconds_of(method, path))
            await self._app(scope, limited, answer)
        except Exception:
            logger.exception("A request to the web page failed unexpectedly.")
            if answer.begun:
                raise  # the server breaks the connection off, so that nobody takes it for whole
            await shaped(problem_for_bug(), path)(scope, receive, answer)


class _Answer:
    """Sends an answer on, with the headers that each must have."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.begun = True
            headers = MutableHeaders(scope=message)
            for name, value in SECURITY_HEADERS.items():
                headers[name] = value
            # What a route says nothing about is nobody's to keep.
            headers.setdefault("Cache-Control", "no-store")
        await self._send(message)


def _limited(receive: Receive, limit: int, seconds: float) -> Receive:
    """Counts a body whose length nobody announced, what is in it, and the seconds it takes."""
    taken = 0
    commas = 0
    has_more = True
    due = asyncio.get_running_loop().time() + seconds

    async def limited() -> Message:
        nonlocal taken, commas, has_more
        if not has_more:  # what may still come is the end of the connection
            return await receive()
        try:
            async with asyncio.timeout_at(due):
                message = await receive()
        except TimeoutError:
            detail = f"The request took too long to arrive. Allowed: at most {seconds} seconds."
            raise HTTPException(HTTPStatus.REQUEST_TIMEOUT, detail) from None
        has_more = message.get("more_body", False)
        body = message.get("body", b"")
        taken += len(body)
        if taken > limit:
            raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _too_large(limit))
        if limit == MAX_DRAFT:
            commas += body.count(b",")
            if taken > MAX_BODY and commas > MOST_COMMAS:
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _TOO_FULL)
        return message

    return limited
