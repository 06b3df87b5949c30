"""(pure) A request's settings on one line, such as ``steps 30, guidance 7, sampler Euler a``."""

import re
from dataclasses import replace

from engine.errors import RequestError
from engine.jobs import GenerationRequest, RequestDraft

ALLOWED = (
    "steps 30, guidance 7, sampler Euler a, count 1, mode NAME, and strength 0.5 where it begins "
    "with a picture; each once, with commas between them"
)

_ITEM = re.compile(r"\s*(?P<name>[a-zA-Z]+)\s*[:=\s]\s*(?P<value>\S.*?)\s*", re.DOTALL)
_WHOLE = re.compile(r"-?\d{1,18}", re.ASCII)
_NUMBER = re.compile(r"-?\d{1,18}([.,]\d{1,18})?", re.ASCII)


def written(request: GenerationRequest) -> str:
    """Returns a request's settings as `read` reads them."""
    items = [
        f"steps {request.steps}",
        f"guidance {request.guidance_scale:g}",
        f"sampler {request.sampler.value}",
        f"count {request.count}",
        f"mode {request.mode}",
    ]
    if request.source is not None:
        items.append(f"strength {request.strength:g}")
    return ", ".join(items)


def read(line: str, draft: RequestDraft) -> RequestDraft:
    """Returns a draft with what a line says; what it leaves out stays as it is.

    Whether the values are allowed is for the mode to say.

    Raises:
        RequestError: something on the line can't be read.
    """
    seen: set[str] = set()
    for item in _items(line):
        match = _ITEM.fullmatch(item)
        name = match["name"].lower() if match else ""
        if match is None or name not in _FIELDS or name in seen:
            raise RequestError("settings", item.strip(), ALLOWED)
        seen.add(name)
        field, pattern, kind = _FIELDS[name]
        value = match["value"]
        if not pattern.fullmatch(value):
            raise RequestError(name, value, "a number" if kind is not str else "a name")
        draft = replace(draft, **{field: kind(value.replace(",", ".") if kind is float else value)})
    return draft


_TEXT = re.compile(r".{1,100}", re.DOTALL)
_FIELDS = {
    "steps": ("steps", _WHOLE, int),
    "guidance": ("guidance_scale", _NUMBER, float),
    "sampler": ("sampler", _TEXT, str),
    "count": ("count", _WHOLE, int),
    "mode": ("mode", _TEXT, str),
    "strength": ("strength", _NUMBER, float),
}


def _items(line: str) -> list[str]:
    """Returns what stands between commas; one inside a number separates nothing."""
    return [item for item in re.split(r",(?!\d)|,(?<!\d,)", line) if item.strip()]
