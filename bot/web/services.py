"""What routes are given: the services behind the page, and who asks."""

from pathlib import Path
from typing import Annotated

from fastapi import Depends, Request

from bot.loop_lag import LoopLag
from bot.records import Origin
from bot.studio import Studio
from bot.web.access import Access
from bot.web.events import Feeds
from bot.web.metrics import Metrics
from bot.web.mode_edits import ModeEdits
from bot.web.roles import Visitor
from bot.web.sessions import Sessions
from bot.web.status import StatusBoard
from engine.worker_pool import WorkerPool
from modes.catalog import ModeCatalog

STATIC = Path(__file__).parent / "static"

HERE = Origin("web")


def _studio(request: Request) -> Studio:
    studio: Studio = request.app.state.studio
    return studio


def _catalog(request: Request) -> ModeCatalog:
    catalog: ModeCatalog = request.app.state.catalog
    return catalog


def _pool(request: Request) -> WorkerPool:
    pool: WorkerPool = request.app.state.pool
    return pool


def _board(request: Request) -> StatusBoard:
    board: StatusBoard = request.app.state.board
    return board


def _feeds(request: Request) -> Feeds:
    feeds: Feeds = request.app.state.feeds
    return feeds


def _edits(request: Request) -> ModeEdits:
    edits: ModeEdits = request.app.state.edits
    return edits


def _lag(request: Request) -> LoopLag:
    lag: LoopLag = request.app.state.lag
    return lag


def _access(request: Request) -> Access:
    access: Access = request.app.state.access
    return access


def _sessions(request: Request) -> Sessions:
    sessions: Sessions = request.app.state.sessions
    return sessions


def _visitor(request: Request) -> Visitor:
    visitor: Visitor = request.scope["visitor"]
    return visitor


def _metrics(request: Request) -> Metrics:
    metrics: Metrics = request.app.state.metrics
    return metrics


TheStudio = Annotated[Studio, Depends(_studio)]
TheCatalog = Annotated[ModeCatalog, Depends(_catalog)]
ThePool = Annotated[WorkerPool, Depends(_pool)]
TheBoard = Annotated[StatusBoard, Depends(_board)]
TheFeeds = Annotated[Feeds, Depends(_feeds)]
TheEdits = Annotated[ModeEdits, Depends(_edits)]
TheLag = Annotated[LoopLag, Depends(_lag)]
TheMetrics = Annotated[Metrics, Depends(_metrics)]
TheAccess = Annotated[Access, Depends(_access)]
TheSessions = Annotated[Sessions, Depends(_sessions)]
TheVisitor = Annotated[Visitor, Depends(_visitor)]
