"""The gate: middleware that lets a request in by token or session, before its body is read."""

import base64
import contextlib
from http import HTTPStatus
from urllib.parse import urlencode

from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from bot.web.access import YOU, Access, TooFastError, TooManyGuessesError, WrongTokenError
from bot.web.page_routes import PAGES
from bot.web.problems import problem, shaped
from bot.web.roles import Role, Visitor, role_needed
from bot.web.sessions import Sessions

_PAGES = frozenset(page.path for page in PAGES)
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="Dream Lab"'}
_SIGN_IN = "Sign in at /login, or send a token: the header 'Authorization: Bearer TOKEN'."


class Gate:
    """Asks `role_needed` of each request, and puts the visitor into its scope."""

    def __init__(self, app: ASGIApp, access: Access, sessions: Sessions) -> None:
        self._app = app
        self._access = access
        self._sessions = sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on, or answers that it may not pass."""
        if not self._access.is_open:
            await self._sessions.recall()
        if scope["type"] == "http" and (refusal := self._refusal(scope)):
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        needed = role_needed(scope["method"], scope["path"])
        if needed is None:
            return None
        refusal = self._refused(scope, needed)
        return shaped(refusal, scope["path"]) if isinstance(refusal, JSONResponse) else refusal

    def _refused(self, scope: Scope, needed: Role) -> Response | None:
        connection = HTTPConnection(scope)
        try:
            visitor = self._visitor(connection)
            if visitor is not None:
                self._access.count(visitor)
        except (WrongTokenError, TooManyGuessesError, TooFastError) as error:
            return refusal_of(error)
        if visitor is None:
            if scope["path"] in _PAGES:
                return RedirectResponse(_login(scope), HTTPStatus.SEE_OTHER)
            detail = f"This page needs a token. {_SIGN_IN}"
            return problem(HTTPStatus.UNAUTHORIZED, detail, headers=_CHALLENGE)
        if visitor.role < needed:
            detail = f"Your token is for {_plural(visitor.role)}; this is for {_plural(needed)}."
            return problem(HTTPStatus.FORBIDDEN, detail)
        scope["visitor"] = visitor
        return None

    def _visitor(self, connection: HTTPConnection) -> Visitor | None:
        if self._access.is_open:
            return Visitor(Role.ADMIN, YOU)
        given = connection.headers.getlist("authorization")
        if given:
            token = _token_in(given[0], connection.scope["path"]) if len(given) == 1 else None
            return None if token is None else self._access.by_token(token, address_of(connection))
        secret = connection.cookies.get(cookie_name(connection))
        return self._sessions.find(secret) if secret else None


def _token_in(authorization: str, path: str) -> str | None:
    """Returns the token that a header brings; None where it is of another kind."""
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic" and path.startswith("/sdapi/"):
        # Clients of that API know names and passwords alone: the password is the token.
        with contextlib.suppress(ValueError):
            return base64.b64decode(value, validate=True).decode().partition(":")[2]
    return None


def refusal_of(error: WrongTokenError | TooManyGuessesError | TooFastError) -> Response:
    """Returns the answer for a token that opens nothing, or nothing just now."""
    if not isinstance(error, WrongTokenError):
        headers = {"Retry-After": str(error.seconds)}
        return problem(HTTPStatus.TOO_MANY_REQUESTS, str(error), headers=headers)
    return problem(HTTPStatus.UNAUTHORIZED, str(error), headers=_CHALLENGE, field="token")


def address_of(connection: HTTPConnection) -> str:
    """Returns where a connection comes from; no header can say otherwise."""
    return connection.client.host if connection.client else "nowhere"


def is_private(connection: HTTPConnection) -> bool:
    """Says whether the browser came by https (`Guard` has said so)."""
    return bool(connection.scope["scheme"] == "https")


def cookie_name(connection: HTTPConnection) -> str:
    """Returns the session cookie's name."""
    # The prefix has browsers refuse one that another host or an unencrypted page would set.
    return "__Host-dream-lab" if is_private(connection) else "dream-lab"


def _login(scope: Scope) -> str:
    """Returns the login, which leads back to the page that was asked for."""
    query = scope["query_string"].decode("latin-1")
    here = scope["path"] + (f"?{query}" if query else "")
    return "/login" if here == "/" else f"/login?{urlencode({'to': here})}"


def _plural(role: Role) -> str:
    return f"{role.name.lower()}s"
