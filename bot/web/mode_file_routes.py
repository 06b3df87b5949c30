"""Editing the modes file in a browser: what a draft would mean, a picture with it, the way back."""

import asyncio
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Response

from bot.web.difference import differences
from bot.web.mode_edits import ModeEdits, version_of
from bot.web.mode_file_schemas import (
    ChangeIn,
    CheckOut,
    DraftFileIn,
    FileOut,
    ProblemOut,
    RestoreIn,
    TryIn,
    VersionOut,
)
from bot.web.mode_routes import list_modes
from bot.web.mode_schemas import ModesOut
from bot.web.problems import PROBLEMS
from bot.web.schemas import JobOut, parse_imagine
from bot.web.services import (
    HERE,
    TheCatalog,
    TheEdits,
    TheFeeds,
    TheStudio,
    TheVisitor,
)
from engine.errors import RequestError
from engine.jobs import RequestDraft
from modes.catalog import ModeCatalog
from modes.modes_editor import plain_modes, with_mode, without_mode
from modes.modes_file import ModesFileError
from modes.yaml_reader import Problem

modes_file = APIRouter(prefix="/api/modes-file", responses=PROBLEMS)


@modes_file.get("")
async def get_file(edits: TheEdits) -> FileOut:
    """The modes file as text, and what it said before."""

    def read() -> FileOut:
        content = edits.content()
        text = _text(content)
        return FileOut(
            text=text,
            version=version_of(content),
            versions=[
                VersionOut(
                    id=version.id,
                    ended_at=version.ended_at,
                    diff=list(differences(text, _text(version.content))),
                )
                for version in edits.versions()
            ],
        )

    return await asyncio.to_thread(read)


@modes_file.post("/check")
async def check_draft(body: DraftFileIn, edits: TheEdits, catalog: TheCatalog) -> CheckOut:
    """What a draft would mean: all that is wrong with it, and how it differs. Changes nothing."""
    return await asyncio.to_thread(_check, body, edits, catalog)


@modes_file.post("/try", status_code=HTTPStatus.CREATED)
async def try_draft(
    body: TryIn,
    edits: TheEdits,
    studio: TheStudio,
    feeds: TheFeeds,
    visitor: TheVisitor,
    response: Response,
) -> JobOut:
    """Asks for a picture with a mode of a draft; it becomes one of your pictures."""
    file = await asyncio.to_thread(edits.checked, _content(body.text))
    mode = file.modes.get(body.mode)
    if mode is None:
        raise RequestError("mode", body.mode, f"one of the draft: {', '.join(file.modes)}")
    draft = RequestDraft(prompt=parse_imagine(body.prompt), seed=body.seed)
    record = await studio.try_out(mode, draft, visitor.owner, HERE)
    feeds.announce(record.id, visitor.owner)
    response.headers["Location"] = f"/api/jobs/{record.id}"
    return JobOut.of(await studio.view(record.id))


@modes_file.post("/restore")
async def restore(
    body: RestoreIn,
    edits: TheEdits,
    studio: TheStudio,
    catalog: TheCatalog,
    visitor: TheVisitor,
) -> ModesOut:
    """Has the file say again what it said before."""
    await edits.restore(body.version)
    await studio.steward.note(HERE.place, visitor.owner, "Brought an older modes file back")
    return await list_modes(studio, catalog, visitor)


def _check(body: DraftFileIn, edits: ModeEdits, catalog: ModeCatalog) -> CheckOut:
    now = edits.content()
    text, problems = body.text, list[Problem]()
    warnings: Sequence[Problem] = ()
    modes: Mapping[str, Any] | None = None
    try:
        if body.change:
            text = _changed(text, body.change, catalog)
    except ModesFileError as error:
        problems += error.problems
    try:
        modes = plain_modes(_content(text), catalog.path).get("modes")
        warnings = edits.checked(_content(text)).warnings
    except ModesFileError as error:
        problems = problems or list(error.problems)
    return CheckOut(
        text=text,
        version=version_of(now),
        problems=[ProblemOut.of(problem) for problem in problems],
        warnings=[ProblemOut.of(warning) for warning in warnings],
        diff=list(differences(_text(now), text)),
        modes=dict(modes) if isinstance(modes, Mapping) else None,
    )


def _changed(text: str, change: ChangeIn, catalog: ModeCatalog) -> str:
    if change.values is None:
        return without_mode(text, catalog.path, change.name)
    said = (plain_modes(_content(text), catalog.path).get("modes") or {}).get(change.name)
    before = said if isinstance(said, dict) else {}
    return with_mode(text, catalog.path, change.name, {**before, **change.values})


def _content(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _text(content: bytes) -> str:
    return content.decode("utf-8", "replace")
