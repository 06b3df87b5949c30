"""The modes over HTTP: look, switch, edit. An edit is checked, and in force when it answers."""

import asyncio
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Body, Header, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import TypeAdapter, ValidationError

from bot.source_images import MAX_BYTES
from bot.web.mode_schemas import ModeOut, ModesOut, SwitchIn
from bot.web.problems import PROBLEMS, NotThereError
from bot.web.roles import Role
from bot.web.sample_routes import sample_url
from bot.web.services import HERE, TheCatalog, TheEdits, TheStudio, TheVisitor
from engine.errors import UnknownModeError
from engine.jobs import Sampler

YAML = "application/yaml"

routes = APIRouter(prefix="/api/modes", responses=PROBLEMS)

Values = dict[str, Any]
"""Keys and plain values, as modes.yaml has them."""

_mapping: TypeAdapter[Values] = TypeAdapter(Values)

_VERSION = (
    "`version` of the file that this one was made from (`/api/modes-file`): another by now is "
    "refused (409)."
)

EXAMPLE = """\
model_root: models
default_mode: demo
modes:
  demo:
    model: diffusers/dream-demo
    default_size: 128x128
"""
"""A modes file, as documentation shows it."""

_MODE = {"model": "diffusers/dream-demo", "default_size": "128x128", "default_steps": 20}

_FILE: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            YAML: {"schema": {"type": "string"}, "example": EXAMPLE},
            "application/json": {
                "schema": {"type": "object"},
                "example": {
                    "model_root": "models",
                    "default_mode": "demo",
                    "modes": {"demo": {"model": "diffusers/dream-demo"}},
                },
            },
        },
    }
}


@routes.get("")
async def list_modes(studio: TheStudio, catalog: TheCatalog, visitor: TheVisitor) -> ModesOut:
    """What can be drawn with."""
    modes = catalog.modes.values()
    # Who may look at no pictures is told of none.
    samples = await studio.samples.of(visitor.owner) if visitor.role >= Role.ARTIST else {}
    sample_of = {mode: sample_url(image_id) for mode, image_id in samples.items()}
    return ModesOut(
        current=(await studio.choices.mode_of(HERE.place)).name,
        default=catalog.default_mode,
        modes=await asyncio.to_thread(
            lambda: [ModeOut.of(mode, sample_of.get(mode.name)) for mode in modes]
        ),
        samplers=list(Sampler),
        max_image_bytes=MAX_BYTES,
        problems=[problem.brief for problem in catalog.problems],
    )


@routes.put("", openapi_extra=_FILE)
async def replace_file(
    request: Request,
    edits: TheEdits,
    studio: TheStudio,
    catalog: TheCatalog,
    visitor: TheVisitor,
    version: Annotated[str | None, Header(alias="If-Match", description=_VERSION)] = None,
) -> ModesOut:
    """Puts another modes file in the place of the one there is.

    As YAML the text is kept to the letter, comments included; a JSON object is written as YAML.
    Where something in it is not allowed, all of that is told and nothing changes.
    """
    content = await request.body()
    if request.headers["content-type"].lower().startswith(YAML):
        await edits.replace(content, version)
    else:
        await edits.replace_with(_parsed(content), version)
    await studio.steward.note(HERE.place, visitor.owner, "Replaced the modes file")
    return await list_modes(studio, catalog, visitor)


@routes.post("/switch", status_code=HTTPStatus.ACCEPTED)
async def switch_mode(body: SwitchIn, studio: TheStudio, visitor: TheVisitor) -> ModeOut:
    """Has a mode's model loaded; from then on it draws wherever no other mode was chosen."""
    mode = await studio.choices.switch_mode(body.mode, HERE.place, visitor.owner)
    return await asyncio.to_thread(ModeOut.of, mode)


@routes.post("/reload")
async def reload_modes(
    edits: TheEdits, studio: TheStudio, catalog: TheCatalog, visitor: TheVisitor
) -> ModesOut:
    """Reads the modes file again, for where no change of it was noticed."""
    await edits.reload()
    await studio.steward.note(HERE.place, visitor.owner, "Read the modes again")
    return await list_modes(studio, catalog, visitor)


@routes.post("/{name}", responses={HTTPStatus.CREATED: {"description": "It is new."}})
async def set_mode(
    name: str,
    body: Annotated[
        Values, Body(description="The mode's keys, as modes.yaml has them.", examples=[_MODE])
    ],
    edits: TheEdits,
    catalog: TheCatalog,
    studio: TheStudio,
    visitor: TheVisitor,
    response: Response,
) -> ModeOut:
    """Adds a mode, or has one say this and nothing else. Comments in the file stay."""
    if is_new := await edits.set(name, body):
        response.status_code = HTTPStatus.CREATED
    what = f"{'Added' if is_new else 'Changed'} a mode: {name}"
    await studio.steward.note(HERE.place, visitor.owner, what)
    return await asyncio.to_thread(ModeOut.of, catalog.get(name))


@routes.delete("/{name}", status_code=HTTPStatus.NO_CONTENT)
async def remove_mode(name: str, edits: TheEdits, studio: TheStudio, visitor: TheVisitor) -> None:
    """Takes a mode out of the file; the default one can't be removed (409)."""
    try:
        await edits.remove(name)
    except UnknownModeError as error:
        raise NotThereError(str(error)) from None
    await studio.steward.note(HERE.place, visitor.owner, f"Removed a mode: {name}")


def _parsed(content: bytes) -> Values:
    try:
        return _mapping.validate_json(content)
    except ValidationError as error:
        errors = [{**one, "loc": ("body", *one["loc"])} for one in error.errors()]
        raise RequestValidationError(errors) from None
