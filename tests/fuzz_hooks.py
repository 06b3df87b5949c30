"""What schemathesis can't read in the description of the API; it loads this file itself."""

from typing import Any

import schemathesis


@schemathesis.hook
def map_body(_: schemathesis.HookContext, body: Any) -> Any:
    """Has half of the drawings drawn: bounds are the modes' own, and few numbers are within."""
    if isinstance(body, dict) and "prompt" in body and len(body) % 2:
        return {"prompt": body["prompt"]}
    return body


@schemathesis.hook
def before_call(_: schemathesis.HookContext, case: schemathesis.Case, __: Any) -> None:
    """Says JSON where there is no body, as the page's own scripts do; else nothing is looked at."""
    if case.method == "POST" and case.media_type is None and "Content-Type" not in case.headers:
        case.headers["Content-Type"] = "application/json"
