"""What schemathesis can't read in the description of the API; it loads this file itself."""

from typing import Any

import schemathesis


@schemathesis.hook
def before_call(_: schemathesis.HookContext, case: schemathesis.Case, __: Any) -> None:
    """Makes a request one that is looked at."""
    body = case.body
    # Bounds are the modes' own, and few numbers are within: half of the drawings name none, so that
    # they are drawn. What is meant to be refused stays as it is: less of it may be allowed.
    is_meant_well = case.meta is not None and case.meta.generation.mode.is_positive
    if is_meant_well and isinstance(body, dict) and "prompt" in body and len(body) % 2:
        case.body = {"prompt": body["prompt"]}
    # Where there is no body, JSON is said, as the page's own scripts do; else nothing is looked at.
    bare = case.media_type is None and "Content-Type" not in case.headers
    if bare and case.method in ("POST", "PUT"):
        case.headers["Content-Type"] = "application/json"
