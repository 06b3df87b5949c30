"""How the program is: for supervisors, for Prometheus, and in words."""

from http import HTTPStatus

from fastapi import APIRouter, Response

from bot.web.metrics import MEDIA_TYPE
from bot.web.problems import PROBLEMS
from bot.web.services import TheBoard, TheLag, TheMetrics
from bot.web.status import HealthOut, StatusOut

probes = APIRouter(include_in_schema=False)
status = APIRouter(prefix="/api", responses=PROBLEMS)


@probes.head("/healthz")  # many monitors ask so
@probes.get("/healthz")
async def healthz(lag: TheLag) -> HealthOut:
    """Whether the program answers, and how soon."""
    return HealthOut(loop_lag=lag.worst)


@probes.head("/readyz")
@probes.get("/readyz")
async def readyz(board: TheBoard, response: Response) -> StatusOut:
    """Whether a model can draw."""
    status = board.now()
    if not status.can_draw:
        response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
    return status


@probes.get("/metrics", response_class=Response)
async def metrics(figures: TheMetrics) -> Response:
    """Figures for Prometheus."""
    return Response(await figures.render(), media_type=MEDIA_TYPE)


@status.get("/status")
async def get_status(board: TheBoard) -> StatusOut:
    """What the studio is doing."""
    return board.now()
