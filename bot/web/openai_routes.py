"""OpenAI's images API, for programs that speak it already: a mode is a model, the rest is ours."""

import base64
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, BeforeValidator, Field

from bot.web.image_routes import content_of
from bot.web.keys import TheOnce
from bot.web.model_routes import ended
from bot.web.problems import answer_for, answer_for_invalid, as_openai
from bot.web.schemas import DraftIn, Plain
from bot.web.services import TheCatalog, TheFeeds, TheStudio, TheVisitor
from engine.errors import DreamLabError


class _Route(APIRoute):
    """A route whose errors have the shape that OpenAI's clients read."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Returns what answers a request."""
        handle = super().get_route_handler()

        async def handle_or_tell(request: Request) -> Response:
            answer: JSONResponse
            try:
                return await handle(request)
            except DreamLabError as error:
                answer = answer_for(error)
            except RequestValidationError as error:
                answer = answer_for_invalid(error.errors())
            return as_openai(answer)

        return handle_or_tell


openai = APIRouter(prefix="/v1", route_class=_Route)


def _auto_is_none(value: object) -> object:
    return None if value == "auto" else value


class ImagesIn(BaseModel):
    """What OpenAI's clients send; hints such as ``quality`` and ``user`` mean nothing here."""

    prompt: str = Field(examples=["a red circle on a white background"])
    model: str | None = Field(None, description="Name of a mode; /v1/models lists them.")
    n: Plain = Field(None, description="How many pictures.", json_schema_extra={"type": "integer"})
    size: Annotated[str | None, BeforeValidator(_auto_is_none)] = Field(
        None, description="Such as 512x768; auto is the mode's own."
    )
    response_format: Literal["url", "b64_json"] | None = Field(
        None, description="One of them; left out, a picture comes with both."
    )
    output_format: Literal["png"] | None = None
    stream: Literal[False] | None = None
    # Beside OpenAI's, for clients that can send more (`extra_body`).
    negative_prompt: Plain = None
    steps: Plain = None
    guidance_scale: Plain = None
    sampler: Plain = None
    seed: Plain = None

    def draft(self) -> DraftIn:
        """Returns the same in the words of the page's own API."""
        return DraftIn(
            prompt=self.prompt,
            mode=self.model,
            size=self.size,
            count=self.n,
            negative_prompt=self.negative_prompt,
            steps=self.steps,
            guidance_scale=self.guidance_scale,
            sampler=self.sampler,
            seed=self.seed,
            image=None,
        )


class ImageData(BaseModel):
    """A picture."""

    url: str | None = Field(None, description="Opens with the token that asked.")
    b64_json: str | None = Field(None, description="The PNG file as base64.")


class ImagesOut(BaseModel):
    """The pictures."""

    created: int = Field(description="Seconds since 1970.")
    data: list[ImageData]
    output_format: Literal["png"] = "png"
    size: str


class ModelData(BaseModel):
    """A mode."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "dream-lab"


class ModelsOut(BaseModel):
    """The modes."""

    object: Literal["list"] = "list"
    data: list[ModelData]


@openai.get("/models")
async def list_models(catalog: TheCatalog) -> ModelsOut:
    """The modes, as OpenAI lists models."""
    return ModelsOut(data=[ModelData(id=name) for name in catalog.names()])


@openai.post("/images/generations", response_model_exclude_none=True)
async def generate_images(
    body: ImagesIn,
    request: Request,
    studio: TheStudio,
    feeds: TheFeeds,
    visitor: TheVisitor,
    once: TheOnce,
) -> ImagesOut:
    """Draws, and answers with the pictures.

    Whoever hangs up first takes the request back, unless it had a key to ask for it again.
    """
    draft = body.draft()
    async with once.use(draft.model_dump(exclude_defaults=True)) as (known, origin):
        record = known
        if record is None:
            record = await studio.submit(draft.draft(), visitor.owner, origin)
            feeds.announce(record.id, visitor.owner)
    final = await ended(record, request, studio, goes_on=once.has_key)
    data = []
    for image in final.images:
        url = encoded = None
        if body.response_format != "b64_json":
            url = f"{request.base_url}api/images/{image.id}"
        if body.response_format != "url":
            encoded = base64.b64encode(await content_of(image, studio)).decode()
        data.append(ImageData(url=url, b64_json=encoded))
    finished = final.finished_at or final.created_at
    size = f"{final.request.width}x{final.request.height}"
    return ImagesOut(created=int(finished.timestamp()), data=data, size=size)
