"""(pure) Who may do what over HTTP: roles, who holds one, and the role that each address needs."""

from dataclasses import dataclass
from enum import IntEnum

from starlette.routing import compile_path

from bot.records import Owner


class Role(IntEnum):
    """What somebody may do; each may do what those before it may."""

    VIEWER = 1
    """Look at how things stand: status, modes, devices, figures."""
    ARTIST = 2
    """Draw, and see their own pictures."""
    ADMIN = 3
    """Edit modes, load models, see what lies in the roots."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who asks.

    Attributes:
        role: what they may do.
        owner: whose the jobs are that they ask for.
        session: key of the browser's session; None where a token came along, or none is needed.
        expires: when the session ends, in seconds of the monotonic clock; None likewise.
        token: fingerprint of the token, which it can't be told from; None where none is needed.
    """

    role: Role
    owner: Owner
    session: str | None = None
    expires: float | None = None
    token: str | None = None


A1111_LISTS = (
    "cmd-flags",
    "embeddings",
    "face-restorers",
    "hypernetworks",
    "latent-upscale-modes",
    "loras",
    "prompt-styles",
    "realesrgan-models",
    "samplers",
    "schedulers",
    "scripts",
    "sd-models",
    "sd-vae",
    "upscalers",
)
"""What programs that speak AUTOMATIC1111's API ask for when they start."""

PUBLIC = None
"""For everybody who reaches the page."""

RULES: dict[tuple[str, str], Role | None] = {
    ("GET", "/login"): PUBLIC,
    ("GET", "/static/{path:path}"): PUBLIC,
    ("GET", "/healthz"): PUBLIC,
    ("POST", "/api/session"): PUBLIC,
    ("GET", "/api/session"): Role.VIEWER,
    ("DELETE", "/api/session"): Role.VIEWER,
    ("GET", "/"): Role.VIEWER,  # they are led on from pages that are of no use to them
    ("GET", "/gallery"): Role.VIEWER,
    ("GET", "/queue"): Role.VIEWER,
    ("GET", "/modes"): Role.VIEWER,
    ("GET", "/status"): Role.VIEWER,
    ("GET", "/readyz"): Role.VIEWER,
    ("GET", "/metrics"): Role.VIEWER,
    ("GET", "/api/openapi.json"): Role.VIEWER,
    ("GET", "/api/status"): Role.VIEWER,
    ("GET", "/api/events"): Role.VIEWER,
    ("GET", "/api/plots"): Role.VIEWER,
    ("GET", "/api/plots/{name}.svg"): Role.VIEWER,
    ("GET", "/api/modes"): Role.VIEWER,
    ("GET", "/api/models/status"): Role.VIEWER,
    ("GET", "/api/vram"): Role.VIEWER,
    ("GET", "/api/jobs"): Role.VIEWER,
    ("POST", "/api/jobs"): Role.ARTIST,
    ("GET", "/api/jobs/{job_id}"): Role.ARTIST,
    ("DELETE", "/api/jobs/{job_id}"): Role.ARTIST,
    ("POST", "/api/jobs/{job_id}/cancel"): Role.ARTIST,
    ("POST", "/api/jobs/{job_id}/again"): Role.ARTIST,
    ("GET", "/api/jobs/{job_id}/events"): Role.ARTIST,
    ("GET", "/api/jobs/{job_id}/family"): Role.ARTIST,
    ("GET", "/api/gallery"): Role.ARTIST,
    ("GET", "/api/images/{image_id}"): Role.ARTIST,
    ("GET", "/api/images/{image_id}/small"): Role.ARTIST,
    ("GET", "/api/samples/{image_id}"): Role.ARTIST,
    ("PUT", "/api/images/{image_id}/sample"): Role.ADMIN,
    ("DELETE", "/api/images/{image_id}/sample"): Role.ADMIN,
    ("GET", "/api/devices/events"): Role.VIEWER,
    ("GET", "/api/failures"): Role.VIEWER,
    ("GET", "/api/modes/events"): Role.VIEWER,
    ("GET", "/api/modes-file"): Role.ADMIN,
    ("POST", "/api/modes-file/check"): Role.ADMIN,
    ("POST", "/api/modes-file/try"): Role.ADMIN,
    ("POST", "/api/modes-file/restore"): Role.ADMIN,
    ("GET", "/api/queue"): Role.VIEWER,
    ("GET", "/api/queue/events"): Role.VIEWER,
    ("POST", "/api/queue/{job_id}/cancel"): Role.ARTIST,
    ("POST", "/api/images/{image_id}/vary"): Role.ARTIST,
    ("POST", "/api/images/{image_id}/upscale"): Role.ARTIST,
    ("POST", "/generate"): Role.ARTIST,
    ("GET", "/v1/models"): Role.VIEWER,
    ("POST", "/v1/images/generations"): Role.ARTIST,
    **{("GET", f"/sdapi/v1/{name}"): Role.VIEWER for name in A1111_LISTS},
    ("GET", "/sdapi/v1/options"): Role.VIEWER,
    ("GET", "/sdapi/v1/progress"): Role.VIEWER,
    ("POST", "/sdapi/v1/txt2img"): Role.ARTIST,
    ("POST", "/sdapi/v1/img2img"): Role.ARTIST,
    ("POST", "/sdapi/v1/interrupt"): Role.ARTIST,
    ("POST", "/sdapi/v1/skip"): Role.ARTIST,
    ("POST", "/sdapi/v1/options"): Role.ADMIN,
    ("POST", "/sdapi/v1/refresh-checkpoints"): Role.ADMIN,
    ("POST", "/api/drain"): Role.ADMIN,
    ("DELETE", "/api/drain"): Role.ADMIN,
    ("GET", "/api/audit"): Role.ADMIN,
    ("PUT", "/api/modes"): Role.ADMIN,
    ("POST", "/api/modes/switch"): Role.ADMIN,
    ("POST", "/api/modes/reload"): Role.ADMIN,
    ("POST", "/api/modes/{name}"): Role.ADMIN,
    ("DELETE", "/api/modes/{name}"): Role.ADMIN,
    ("POST", "/api/models/load"): Role.ADMIN,
    ("POST", "/api/models/unload"): Role.ADMIN,
    ("GET", "/api/inventory/models"): Role.ADMIN,
    ("GET", "/api/inventory/loras"): Role.ADMIN,
}
"""Every address, with the least role that it needs."""

_COMPILED = [(method, compile_path(path)[0], role) for (method, path), role in RULES.items()]


def role_needed(method: str, path: str) -> Role | None:
    """Returns the least role for a request; what no rule names is for admins alone."""
    if method == "HEAD":  # asks for less of what GET asks for
        method = "GET"
    for known, pattern, role in _COMPILED:
        if known == method and pattern.match(path):
            return role
    return Role.ADMIN
