"""What a bot asked of Discord's API: a line of JSON for each request, for others to check.

A line has ``method``, ``route`` (the path with names in braces in place of what changes), ``path``,
``query``, ``headers``, ``body`` (JSON; null where there is none), ``files`` (the field, name, type
and size in bytes of each) and ``status``, what the double answered: 0 where it cut the connection,
null where it did not come to an answer. No token is in it.
"""

import json
import os
from pathlib import Path
from typing import Any

from tests.discord_double.calls import Call

_SECRET = "token"
_HIDDEN = "***"
_HEADERS = ("Accept", "Content-Type", "User-Agent", "X-Audit-Log-Reason")
"""What is kept as it came. Of `Authorization` the scheme alone is."""


class Recording:
    """A file that requests are appended to; several processes may share it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def begin(self) -> None:
        """Makes the file, or empties it."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_bytes(b"")

    def add(self, call: Call) -> None:
        """Writes a request, as one write at the end of the file."""
        line = json.dumps(entry(call), ensure_ascii=False) + "\n"
        file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(file, line.encode())
        finally:
            os.close(file)


def entry(call: Call) -> dict[str, Any]:
    """Returns a request as it is written."""
    named = {name: _HIDDEN if name == _SECRET else value for name, value in call.params.items()}
    headers = {name: call.headers[name] for name in _HEADERS if name in call.headers}
    if call.authorization:
        headers["Authorization"] = f"{call.authorization.partition(' ')[0]} {_HIDDEN}"
    return {
        "method": call.method,
        "route": call.template,
        "path": call.template.format_map(named),
        "query": call.query,
        "headers": headers,
        "body": call.body,
        "files": [
            {"field": field, "name": name, "type": call.types.get(field), "bytes": len(content)}
            for field, (name, content) in call.files.items()
        ],
        "status": call.status,
    }
