"""What the API says of itself: each route's own words, and every status that it may answer with."""

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI

from bot.web.problems import MEDIA_TYPE, OPENAI_ERROR, PROBLEM, RANGES, openai_error, problem_facts

_SAYS: dict[HTTPStatus, tuple[str, dict[str, Any]]] = {
    HTTPStatus.BAD_REQUEST: (
        "The request can't be read.",
        {"detail": "The request can't be read. Allowed: a JSON object."},
    ),
    HTTPStatus.UNAUTHORIZED: (
        "A token is needed, or the one that came opens nothing.",
        {"detail": "That token is none of this page's.", "field": "token"},
    ),
    HTTPStatus.FORBIDDEN: (
        "The token's role, or the mode's, is not enough; or another site asks.",
        {"detail": "Your token is for viewers; this is for artists."},
    ),
    HTTPStatus.NOT_FOUND: (
        "There is no such thing, or it is somebody else's.",
        {
            "detail": "job: 'nope' is not allowed. Allowed: the id of a request.",
            "field": "job",
            "allowed": "the id of a request",
        },
    ),
    HTTPStatus.REQUEST_TIMEOUT: (
        "The request took too long to arrive.",
        {"detail": "The request took too long to arrive. Allowed: at most 300 seconds."},
    ),
    HTTPStatus.CONFLICT: (
        "The request does not fit the state that things are in.",
        {"detail": "The request is still on its way; cancel it first."},
    ),
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: (
        "The body is too large.",
        {"detail": "The request is too large. Allowed: at most 64 KiB."},
    ),
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: (
        "The body is of another kind.",
        {"detail": "Only JSON is taken. Allowed: the header 'Content-Type: application/json'."},
    ),
    HTTPStatus.MISDIRECTED_REQUEST: (
        "The page does not answer to this host name.",
        {
            "detail": "The page does not answer to this host name. Allowed: 127.0.0.1:4200; "
            "the setting WEB_NAMES allows others."
        },
    ),
    HTTPStatus.UNPROCESSABLE_ENTITY: (
        "Something in it is not allowed; the answer says what would be.",
        {
            "detail": "steps: 0 is not allowed. Allowed: a whole number from 1 to 100.",
            "field": "steps",
            "allowed": "a whole number from 1 to 100",
        },
    ),
    HTTPStatus.TOO_MANY_REQUESTS: (
        "Too much at once; where there is a Retry-After, after so many seconds it is fine.",
        {"detail": "Too many requests came with your token. Wait 3 seconds."},
    ),
    HTTPStatus.INTERNAL_SERVER_ERROR: (
        "It went wrong here: the drawing failed, or nobody foresaw it.",
        {"detail": "Something went wrong on this side; the log of Dream Lab says what."},
    ),
    HTTPStatus.SERVICE_UNAVAILABLE: (
        "Not now: the queue or the disk is full, a model can't be used, or it is shutting down.",
        {
            "detail": "queue: '64 waiting' is not allowed. "
            "Allowed: at most 64; try again in a moment.",
            "field": "queue",
            "allowed": "at most 64; try again in a moment",
        },
    ),
}

_ALWAYS = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.MISDIRECTED_REQUEST,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.SERVICE_UNAVAILABLE,
)
_WITH_BODY = (
    HTTPStatus.NOT_FOUND,
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
)


class DescribedApp(FastAPI):
    """An application whose description names every status."""

    def openapi(self) -> dict[str, Any]:
        """Returns the description; made once."""
        is_known = self.openapi_schema is not None
        described = super().openapi()
        if not is_known:
            _complete(described)
        return described


def _complete(described: dict[str, Any]) -> None:
    """Puts the statuses of errors into a description, in the place of FastAPI's own."""
    schemas = described.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas.update(Problem=PROBLEM, OpenAIError=OPENAI_ERROR)
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            answers = operation["responses"]
            as_problem = RANGES[0] in answers
            for known in RANGES:
                answers.pop(known, None)
            for status in _statuses(method, path, operation):
                answers[str(status.value)] = _answer(status, as_problem=as_problem)


def _statuses(method: str, path: str, operation: dict[str, Any]) -> Iterator[HTTPStatus]:
    yield from _ALWAYS
    if method in ("post", "put"):
        yield from _WITH_BODY
    elif operation.get("parameters"):
        yield HTTPStatus.UNPROCESSABLE_ENTITY
    if method != "get":
        yield HTTPStatus.CONFLICT
    if "{" in path:
        yield HTTPStatus.NOT_FOUND


def _answer(status: HTTPStatus, *, as_problem: bool) -> dict[str, Any]:
    meaning, facts = _SAYS[status]
    example = problem_facts(status, **facts)
    if as_problem:
        content = {MEDIA_TYPE: {"schema": _ref("Problem"), "example": example}}
    else:
        error = openai_error(status, example)
        content = {"application/json": {"schema": _ref("OpenAIError"), "example": error}}
    return {"description": meaning, "content": content}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}
