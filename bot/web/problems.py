"""Errors as answers: RFC 9457 problem details with the sentences that every front end shows."""

import json
import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from bot.database import StoreUnavailableError
from bot.errors import NotAllowedError, UnknownImageError, UnknownJobError
from bot.plots import PlotError
from bot.steward import PausedError
from engine.errors import (
    DreamLabError,
    JobCancelledError,
    ModelError,
    NoDeviceError,
    OwnerQueueFullError,
    PoolClosedError,
    QueueFullError,
    RequestError,
    WorkerDiedError,
)
from modes.modes_file import ModesFileError

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"

_MOST_ERRORS = 50
"""A file or a body can be wrong in more ways than anybody reads."""


_OPENAI_NAMES = {"mode": "model", "count": "n", "width": "size", "height": "size"}


class TooManyError(DreamLabError):
    """Somebody has as many of these as one may have."""


# The first kind that fits decides, so the narrow ones stand before the wide ones.
_STATUSES: tuple[tuple[type[DreamLabError], HTTPStatus], ...] = (
    (UnknownJobError, HTTPStatus.NOT_FOUND),
    (UnknownImageError, HTTPStatus.NOT_FOUND),
    (QueueFullError, HTTPStatus.SERVICE_UNAVAILABLE),
    (OwnerQueueFullError, HTTPStatus.TOO_MANY_REQUESTS),
    (RequestError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (NotAllowedError, HTTPStatus.FORBIDDEN),
    (TooManyError, HTTPStatus.TOO_MANY_REQUESTS),
    (JobCancelledError, HTTPStatus.CONFLICT),
    (StoreUnavailableError, HTTPStatus.SERVICE_UNAVAILABLE),
    (PoolClosedError, HTTPStatus.SERVICE_UNAVAILABLE),
    (WorkerDiedError, HTTPStatus.SERVICE_UNAVAILABLE),
    (NoDeviceError, HTTPStatus.SERVICE_UNAVAILABLE),
    (PlotError, HTTPStatus.SERVICE_UNAVAILABLE),
    (PausedError, HTTPStatus.CONFLICT),
)

# What pydantic's error types ask for, in the words of the other sentences.
_EXPECTED: Mapping[str, str] = {
    "bool_type": "true or false",
    "dict_type": "a JSON object",
    "finite_number": "a number",
    "float_type": "a number",
    "int_type": "a whole number",
    "json_invalid": "a JSON object",
    "model_attributes_type": "a JSON object",
    "string_type": "text",
    "string_unicode": "text in valid Unicode",
}


RANGES = ("4XX", "5XX")

PROBLEMS: dict[int | str, dict[str, Any]] = {status: {} for status in RANGES}
"""Says that a route answers with problems; `bot/web/description.py` says with which."""

PROBLEM: dict[str, Any] = {
    "title": "Problem",
    "description": "What is wrong, as problem details (RFC 9457).",
    "type": "object",
    "required": ["title", "status", "detail"],
    "properties": {
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "A sentence for people."},
        "field": {"type": "string", "description": "What was wrong."},
        "allowed": {"type": "string", "description": "What would have been fine."},
        "errors": {
            "type": "array",
            "description": "All that was wrong, where that may be more than one thing.",
            "items": {"type": "object"},
        },
    },
}

OPENAI_ERROR: dict[str, Any] = {
    "title": "OpenAIError",
    "description": "What is wrong, in the shape that clients of OpenAI's API read.",
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"enum": ["invalid_request_error", "server_error"]},
                "param": {"type": ["string", "null"]},
                "code": {"type": "null"},
            },
        }
    },
}


class ConflictError(DreamLabError):
    """The request does not fit the state that things are in."""


class NotDrawnError(DreamLabError):
    """A drawing failed, and why; the studio has logged it."""


class NotThereError(DreamLabError):
    """The address names something that there is not."""


def problem(
    status: int, detail: str, *, headers: Mapping[str, str] | None = None, **facts: object
) -> JSONResponse:
    """Returns the answer for an error.

    Args:
        status: HTTP status.
        detail: one sentence for people.
        headers: more headers for the answer.
        facts: further members, such as the ``field`` that was wrong; None is left out.
    """
    content = problem_facts(status, detail=detail, **facts)
    return JSONResponse(content, status, dict(headers or {}), MEDIA_TYPE)


def problem_facts(status: int, **facts: object) -> dict[str, Any]:
    """Returns the members of a problem; None is left out."""
    known = {name: fact for name, fact in facts.items() if fact is not None}
    return {"title": HTTPStatus(status).phrase, "status": int(status), **known}


def problem_for(error: DreamLabError) -> JSONResponse:
    """Returns the answer for one of our own errors, its text free of this machine's paths."""
    if isinstance(error, ConflictError):
        return problem(HTTPStatus.CONFLICT, str(error))
    if isinstance(error, NotThereError):
        return problem(HTTPStatus.NOT_FOUND, str(error))
    if isinstance(error, ModesFileError):
        return _modes_problem(error)
    status = next((status for kind, status in _STATUSES if isinstance(error, kind)), None)
    if isinstance(error, ModelError):
        # Its own text has the whole path, which is the owner's business alone: the log has it.
        return problem(HTTPStatus.SERVICE_UNAVAILABLE, error.told)
    headers = {"Retry-After": "5"} if status == HTTPStatus.SERVICE_UNAVAILABLE else None
    return problem(
        status or HTTPStatus.INTERNAL_SERVER_ERROR,
        str(error),
        headers=headers,
        field=getattr(error, "field", None),
        allowed=getattr(error, "allowed", None),
    )


def problem_for_bug() -> JSONResponse:
    """Returns the answer for an error that nobody foresaw; its details are for the log alone."""
    detail = "Something went wrong on this side; the log of Dream Lab says what."
    return problem(HTTPStatus.INTERNAL_SERVER_ERROR, detail)


def answer_for(error: DreamLabError) -> JSONResponse:
    """Returns the answer for an error that left a route, and logs what the owner must know."""
    answer = problem_for(error)
    ours_alone = answer.status_code == HTTPStatus.INTERNAL_SERVER_ERROR
    if isinstance(error, ModelError) or (ours_alone and not isinstance(error, NotDrawnError)):
        logger.error("A request to the web page failed.", exc_info=error)
    return answer


def shaped(answer: JSONResponse, path: str) -> JSONResponse:
    """Returns a problem as clients of the address read it."""
    return as_openai(answer) if path.startswith("/v1/") else answer


def openai_error(status: int, told: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a problem's members in the shape that clients of OpenAI's API read."""
    field = told.get("field")
    is_theirs = status < HTTPStatus.INTERNAL_SERVER_ERROR
    return {
        "error": {
            "message": told["detail"],
            "type": "invalid_request_error" if is_theirs else "server_error",
            "param": None if field is None else _OPENAI_NAMES.get(field, field),
            "code": None,
        }
    }


def as_openai(answer: JSONResponse) -> JSONResponse:
    """Returns a problem in the shape that clients of OpenAI's API read."""
    error = openai_error(answer.status_code, json.loads(bytes(answer.body)))
    headers = {
        name: value
        for name, value in answer.headers.items()
        if name not in ("content-length", "content-type")
    }
    return JSONResponse(error, answer.status_code, headers)


def install(app: FastAPI, routers: Sequence[APIRouter]) -> None:
    """Makes every error that leaves a route a problem.

    Args:
        app: whose.
        routers: all of its routes, for what an address can do.
    """

    async def ours(_: Request, error: Exception) -> JSONResponse:
        if not isinstance(error, DreamLabError):
            raise error
        return answer_for(error)

    async def validation(_: Request, error: Exception) -> JSONResponse:
        if not isinstance(error, RequestValidationError):
            raise error
        return answer_for_invalid(error.errors())

    async def http(request: Request, error: Exception) -> JSONResponse:
        if not isinstance(error, HTTPException):
            raise error
        headers = dict(error.headers or {})
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED and (can := _methods(request)):
            # The framework names those of the first route alone.
            headers["Allow"] = ", ".join(sorted(can))
        answer = problem(error.status_code, _http_detail(error), headers=headers)
        return shaped(answer, request.url.path)

    def _methods(request: Request) -> set[str]:
        routes = (route for router in routers for route in router.routes)
        return {
            method
            for route in routes
            if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE
            for method in route.methods or ()
        }

    app.add_exception_handler(DreamLabError, ours)
    app.add_exception_handler(RequestValidationError, validation)
    app.add_exception_handler(HTTPException, http)


def answer_for_invalid(errors: Sequence[Any]) -> JSONResponse:
    """Returns the answer for a body or parameter of the wrong type; the first error leads."""
    found = [_as_request_error(error) for error in errors[:_MOST_ERRORS]]
    lead = found[0]
    return problem(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        str(lead),
        field=lead.field,
        allowed=lead.allowed,
        errors=[{"field": e.field, "detail": str(e), "allowed": e.allowed} for e in found],
    )


def _modes_problem(error: ModesFileError) -> JSONResponse:
    """Returns the answer for a modes file that can't be used: the first thing wrong leads."""
    found = [
        {"key": problem.key, "line": problem.line, "detail": problem.brief}
        for problem in error.problems
    ]
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    lead = error.problems[0].brief if error.problems else "The modes file can't be used."
    return problem(
        HTTPStatus.UNPROCESSABLE_ENTITY, lead + more, field="modes", errors=found[:_MOST_ERRORS]
    )


def _as_request_error(error: Mapping[str, Any]) -> RequestError:
    # loc is ("body" | "path" | "query", name, ...); a body that is no JSON has a number instead.
    names = [part for part in error["loc"][1:] if isinstance(part, str)]
    kind = error["type"]
    if kind == "extra_forbidden":
        return RequestError("body", names[-1], "only the fields that /api/openapi.json lists")
    field = names[0] if names else "body"
    value = None if kind == "missing" else error.get("input")
    if kind == "json_invalid" or field == "body":
        value = "what was sent"  # all of it: too much to repeat, and a secret may be in it
    if kind == "missing":
        return RequestError(field, value, "something; it is needed")
    if kind == "too_long":  # all that is too much is not written out to show its beginning
        counts = error["ctx"]
        return RequestError(
            field, f"{counts['actual_length']} of them", f"at most {counts['max_length']}"
        )
    return RequestError(field, value, _EXPECTED.get(kind, error["msg"]))


def _http_detail(error: HTTPException) -> str:
    """Returns a sentence for what the framework refuses by itself."""
    if error.status_code == HTTPStatus.NOT_FOUND:
        return "There is nothing at this address."
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return "This can't be done at this address; /api/openapi.json lists what can."
    if error.status_code == HTTPStatus.BAD_REQUEST:
        return "The request can't be read. Allowed: a JSON object."
    return str(error.detail)
