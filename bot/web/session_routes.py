"""Signing in and out: a browser's session in exchange for a token."""

from http import HTTPStatus
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel, Field

from bot.web.access import TooFastError, TooManyGuessesError, WrongTokenError
from bot.web.gate import address_of, cookie_name, is_private, refusal_of
from bot.web.problems import PROBLEMS, ConflictError
from bot.web.schemas import Sent
from bot.web.services import STATIC, TheAccess, TheFeeds, TheSessions, TheVisitor
from bot.web.sessions import LIFE

login = APIRouter(include_in_schema=False)
sessions = APIRouter(prefix="/api/session", responses=PROBLEMS)


class SignIn(Sent):
    """A token."""

    # Of any type: an answer that says what was wrong with a value would repeat it.
    token: Any = Field(
        json_schema_extra={"type": "string"}, examples=["the text that WEB_TOKEN is set to"]
    )


class SessionOut(BaseModel):
    """Who asks."""

    role: Literal["viewer", "artist", "admin"]
    can_sign_out: bool = Field(description="Whether the browser signed in.")


@login.get("/login")
async def login_page() -> FileResponse:
    """Where a browser signs in."""
    return FileResponse(STATIC / "login.html", headers={"Cache-Control": "no-cache"})


@sessions.post("", status_code=HTTPStatus.NO_CONTENT)
async def sign_in(
    body: SignIn, request: Request, access: TheAccess, known: TheSessions
) -> Response:
    """Begins a session: its cookie opens what the token opens, for a week."""
    if access.is_open:
        raise ConflictError("This page needs no token; it serves this machine alone.")
    try:
        token = body.token if isinstance(body.token, str) else ""
        visitor = access.by_token(token.strip(), address_of(request))
        access.count(visitor)
    except (WrongTokenError, TooManyGuessesError, TooFastError) as error:
        return refusal_of(error)
    answer = Response(status_code=HTTPStatus.NO_CONTENT)
    answer.set_cookie(
        cookie_name(request),
        await known.begin(visitor),
        max_age=LIFE,
        path="/",
        secure=is_private(request),
        httponly=True,
        samesite="strict",
    )
    return answer


@sessions.get("")
async def who(visitor: TheVisitor) -> SessionOut:
    """What you may do here."""
    role: Any = visitor.role.name.lower()
    return SessionOut(role=role, can_sign_out=visitor.session is not None)


@sessions.delete("", status_code=HTTPStatus.NO_CONTENT)
async def sign_out(
    request: Request, known: TheSessions, visitor: TheVisitor, feeds: TheFeeds
) -> Response:
    """Ends the session, and the streams that were opened with it."""
    await known.end(visitor)
    feeds.end_of(visitor)
    # Pictures are kept for good by the browser, which others may use after this.
    answer = Response(status_code=HTTPStatus.NO_CONTENT, headers={"Clear-Site-Data": '"cache"'})
    answer.delete_cookie(
        cookie_name(request),
        path="/",
        secure=is_private(request),
        httponly=True,
        samesite="strict",
    )
    return answer
