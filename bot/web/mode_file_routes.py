"""Editing the modes file in a browser: what a draft would mean, a picture with it, the way back."""

import asyncio
import difflib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any, Literal, Self

from fastapi import APIRouter, Depends, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import AfterValidator, BaseModel, Field
from pydantic_core import PydanticCustomError

from bot.web.device_routes import TheDevices
from bot.web.events import RETRY, Feed
from bot.web.mode_edits import ModeEdits, version_of
from bot.web.mode_routes import EXAMPLE, list_modes
from bot.web.mode_schemas import DeviceOut, ModesOut
from bot.web.problems import PROBLEMS
from bot.web.schemas import JobOut, Sent, parse_imagine
from bot.web.services import (
    HERE,
    TheBoard,
    TheCatalog,
    TheEdits,
    TheFeeds,
    TheStudio,
    TheVisitor,
)
from engine.errors import RequestError
from engine.jobs import RequestDraft
from modes.catalog import ModeCatalog
from modes.mode_config import ModeConfig
from modes.modes_editor import plain_modes, with_mode, without_mode
from modes.modes_file import ModesFileError
from modes.yaml_reader import Problem

modes_file = APIRouter(prefix="/api/modes-file", responses=PROBLEMS)
modes_live = APIRouter(prefix="/api/modes", responses=PROBLEMS)

_AROUND = 3  # lines that a difference is shown with on either side


def _whole(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise PydanticCustomError("string_unicode", "text in valid Unicode") from None
    return text


Text = Annotated[str, AfterValidator(_whole)]
"""Text without half a character, which no file and no answer can hold."""


class ChangeIn(Sent):
    """One mode made to say something else."""

    name: Text
    values: dict[str, Any] | None = Field(
        description="Keys that say something else, as modes.yaml has them; a null takes the key "
        "out. Instead of all of it, null takes the mode out."
    )


class DraftFileIn(Sent):
    """A modes file that is being edited."""

    text: Text = Field(examples=[EXAMPLE])
    change: ChangeIn | None = Field(default=None, description="Made to the text before it is read.")


class TryIn(Sent):
    """A picture with a mode of a draft."""

    text: Text = Field(description="The modes file that is being edited.", examples=[EXAMPLE])
    mode: Text = Field(examples=["demo"])
    prompt: str = Field(examples=["a red circle on a white background"])
    seed: int | None = Field(default=None, description="Left out, one is drawn.")


class RestoreIn(Sent):
    """What the file is to say again."""

    version: str = Field(examples=["20261123T020000.000000Z"])


class ProblemOut(BaseModel):
    """Something wrong with, or noteworthy about, a draft."""

    key: str
    line: int | None
    detail: str

    @classmethod
    def of(cls, problem: Problem) -> Self:
        """Returns a problem; its place stands beside what it says."""
        return cls(key=problem.key, line=problem.line, detail=problem.text)


class DiffLineOut(BaseModel):
    """A line of a difference."""

    kind: Literal["same", "added", "removed", "gap"]
    text: str
    line: int | None = Field(description="Its number in the draft; in the file where removed.")


class VersionOut(BaseModel):
    """What the file said before."""

    id: str
    ended_at: datetime = Field(description="Until when it was in force.")
    diff: list[DiffLineOut] = Field(description="What would change if it came back.")


class FileOut(BaseModel):
    """The modes file as it is."""

    text: str
    version: str = Field(description="Tells it from others; see `If-Match` of PUT /api/modes.")
    versions: list[VersionOut] = Field(description="What it said before, newest first.")


class CheckOut(BaseModel):
    """What a draft would mean."""

    text: str = Field(description="The draft, with the change made where that was possible.")
    version: str = Field(description="Of the file that there is.")
    problems: list[ProblemOut] = Field(description="Why it can't come into force; none: it can.")
    warnings: list[ProblemOut]
    diff: list[DiffLineOut] = Field(description="Against the file that there is.")
    modes: dict[str, Any] | None = Field(
        description="What each mode says, as plain values; null where the text can't be read."
    )


class ModeStateOut(BaseModel):
    """A mode as it stands now."""

    name: str
    title: str
    description: str
    model: str = Field(description="The name of its model's file or folder.")
    size: tuple[int, int]
    nsfw: bool
    roles: list[str]
    loaded_on: list[str] = Field(description="The devices whose memory has its model.")
    missing: str | None = Field(description="The name of a file that it lacks.")


class ModesStateOut(BaseModel):
    """The modes as they stand now."""

    version: str = Field(description="Of the modes file; tells it from others.")
    current: str
    default: str
    modes: list[ModeStateOut]
    problems: list[str] = Field(description="Why the file as it is now is not in force.")


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


async def _feed_of_modes(
    studio: TheStudio,
    board: TheBoard,
    catalog: TheCatalog,
    edits: TheEdits,
    devices: TheDevices,
    feeds: TheFeeds,
    visitor: TheVisitor,
) -> AsyncIterator[Feed]:
    async def look() -> ModesStateOut:
        current = await studio.mode_of(HERE.place)
        version = version_of(await asyncio.to_thread(edits.content))
        return await _state(catalog, version, current, (await devices.now(visitor)).devices)

    async with Feed(studio) as feed:
        with feeds.open(feed, visitor):
            feed.follow_status(board.now)
            feed.follow_look("modes", look)
            yield feed


@modes_live.get("/events", response_class=EventSourceResponse)
async def modes_events(
    feed: Annotated[Feed, Depends(_feed_of_modes)],
) -> AsyncIterator[ServerSentEvent]:
    """A stream of ``modes`` and ``status``, one of each at once and one at each change."""
    yield ServerSentEvent(retry=RETRY)
    async for event in feed.until_idle():
        yield event


def differences(before: str, after: str) -> Iterator[DiffLineOut]:
    """Yields what is different between two texts, with a few lines around it; nothing for none."""
    old, new = before.splitlines(), after.splitlines()
    matcher = difflib.SequenceMatcher(None, old, new)
    for index, group in enumerate(matcher.get_grouped_opcodes(_AROUND)):
        if index:
            yield DiffLineOut(kind="gap", text="", line=None)
        for kind, old_from, old_to, new_from, new_to in group:
            if kind == "equal":
                yield from _lines("same", new, new_from, new_to)
                continue
            yield from _lines("removed", old, old_from, old_to)
            yield from _lines("added", new, new_from, new_to)


def _lines(
    kind: Literal["same", "added", "removed"], lines: Sequence[str], start: int, end: int
) -> Iterator[DiffLineOut]:
    for number in range(start, end):
        yield DiffLineOut(kind=kind, text=lines[number], line=number + 1)


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


async def _state(
    catalog: ModeCatalog, version: str, current: ModeConfig, devices: Sequence[DeviceOut]
) -> ModesStateOut:
    on: dict[str, list[str]] = {}
    for device in devices:
        for model in device.models:
            for name in model.modes:
                on.setdefault(name, []).append(device.device)

    def look() -> list[ModeStateOut]:
        return [_mode_state(mode, on.get(mode.name, [])) for mode in catalog.modes.values()]

    return ModesStateOut(
        version=version,
        current=current.name,
        default=catalog.default_mode,
        modes=await asyncio.to_thread(look),
        problems=[problem.brief for problem in catalog.problems],
    )


def _mode_state(mode: ModeConfig, loaded_on: list[str]) -> ModeStateOut:
    missing = mode.missing()
    return ModeStateOut(
        name=mode.name,
        title=mode.title,
        description=mode.description,
        model=mode.model.path.name,
        size=mode.default_size,
        nsfw=mode.nsfw,
        roles=list(mode.allowed_roles),
        loaded_on=loaded_on,
        missing=missing[0].name if missing else None,
    )


def _content(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _text(content: bytes) -> str:
    return content.decode("utf-8", "replace")
