"""The requests that came in, and the faults they meet."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

Files = dict[str, tuple[str, bytes]]
"""Uploaded parts by field name: file name and bytes."""


@dataclass
class Call:
    """One request.

    Attributes:
        route: short name of the route: ``callback``, ``edit_original``, ``send``, ...
        template: the path below the API's address, with names in braces.
        method: HTTP verb.
        params: what the path and the query name.
        query: the latter alone.
        json: the body, or the part ``payload_json``; a list stands in it as ``items``.
        body: the same as it came; None where there was none.
        files: uploaded parts.
        types: what the uploaded parts say that they are, by field name.
        headers: as they came.
        authorization: the header, where there is one.
        at: when it came, by the double's clock.
        came: when it came, by the event loop's clock in seconds.
        status: what it was answered; None while it wasn't, 0 where the connection was cut.
        code: Discord's error code; 0 where there is none.
    """

    route: str
    method: str
    params: dict[str, str]
    json: dict[str, Any]
    files: Files
    authorization: str | None
    at: datetime
    came: float
    template: str = ""
    query: dict[str, str] = field(default_factory=dict)
    body: Any = None
    types: dict[str, str | None] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int | None = None
    code: int = 0

    @property
    def content(self) -> str:
        """The message text that it brought."""
        data = self.json.get("data") or {} if self.route == "callback" else self.json
        return data.get("content") or ""


@dataclass
class Fault:
    """Something that goes wrong.

    Attributes:
        route: which requests meet it.
        where: which of these; all unless told.
        times: how many requests meet it; None is all.
        status: what they are answered; 0 cuts the connection without an answer.
        code: Discord's code in the answer.
        headers: of the answer.
        processed: whether the request takes effect before it goes wrong.
        until: the answer waits for this.
    """

    route: str
    where: Callable[[Call], bool] = lambda _: True
    times: int | None = None
    status: int = 500
    code: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    processed: bool = False
    until: asyncio.Event | None = None
    met: int = 0

    def meets(self, call: Call) -> bool:
        """Whether a request meets it; counts it where so."""
        if call.route != self.route or not self.where(call):
            return False
        if self.times is not None and self.met >= self.times:
            return False
        self.met += 1
        return True
