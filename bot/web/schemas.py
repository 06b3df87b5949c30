"""What the page and the server say to each other, as JSON."""

import base64
import re
from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from bot.records import ImageRecord, JobRecord, JobView, Setback
from bot.source_images import ALLOWED
from bot.web.lineage_schemas import ParentOut
from engine.errors import RequestError
from engine.jobs import (
    GenerationRequest,
    JobStatus,
    LoraChoice,
    Progress,
    RequestDraft,
    Stage,
)
from modes.modes_file import LORAS_LIMIT
from modes.request_fields import read_size

_COMMAND = re.compile(r"\s*/([a-z][\w-]*)(?:\s+|$)", re.IGNORECASE)

MOST_KEYS = 100
"""Most keys of one object that was sent: each unknown one has an error of its own."""


class Sent(BaseModel):
    """Something that was sent: no unknown keys, no silent conversions, no NaN."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _bounded(cls, sent: object) -> object:
        if isinstance(sent, dict) and len(sent) > MOST_KEYS:
            raise PydanticCustomError("too_many_keys", "at most {most} keys", {"most": MOST_KEYS})
        return sent


def _whole(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise PydanticCustomError("string_unicode", "text in valid Unicode") from None
    return text


Text = Annotated[str, AfterValidator(_whole)]
"""Text without half a character, which no file and no answer can hold."""


def _plain(value: object) -> object:
    if isinstance(value, dict | list):
        raise PydanticCustomError("plain", "one number or one text")
    return value


Plain = Annotated[Any, AfterValidator(_plain)]
"""Any number or text. Whether it is allowed is for the mode to say, in the same sentence as in
every other front end; a type here would have pydantic say it first and in other words."""


def _optional(kind: str, meaning: str) -> Any:
    return Field(None, description=meaning, json_schema_extra={"type": kind})


class LoraIn(Sent):
    """A LoRA to lay over the mode's model."""

    name: str = Field(description="As the mode's `loras` has it.")
    strength: Plain = Field(1, json_schema_extra={"type": "number"})


class DraftIn(Sent):
    """What to draw. What is left out comes from the mode."""

    prompt: str = Field(
        description="The words to draw; may begin with /imagine.",
        examples=["/imagine a red circle on a white background"],
    )
    mode: str | None = Field(None, description="Name of a mode.")
    negative_prompt: Plain = _optional("string", "What to keep away from.")
    width: Plain = _optional("integer", "Pixels.")
    height: Plain = _optional("integer", "Pixels.")
    size: str | None = Field(
        None, description="Both at once, instead of width and height.", examples=["512x768"]
    )
    steps: Plain = _optional("integer", "Denoising steps.")
    guidance_scale: Plain = _optional("number", "Weight of the prompt.")
    sampler: Plain = _optional("string", "Name of a sampler, such as 'Euler a'.")
    seed: Plain = _optional("integer", "0 to 4294967295; left out, one is drawn.")
    count: Plain = _optional("integer", "How many pictures.")
    loras: list[LoraIn] = Field(
        default_factory=list,
        max_length=LORAS_LIMIT,
        description="Laid over the model, as the mode allows.",
    )
    made_of: Text | None = Field(
        default=None,
        description="The job of yours that this one changes; they are shown as a family.",
    )
    image: str | None = Field(
        None,
        description=f"A picture to start from, as base64: {ALLOWED}.",
        json_schema_extra={"contentEncoding": "base64"},
    )
    strength: Plain = _optional("number", "How much of it is drawn anew, above 0 to 1.")
    refiner_from: Plain = _optional(
        "number", "The share of the steps after which the mode's refiner takes over; 1 for never."
    )

    def draft(self) -> RequestDraft:
        """Returns the draft; whether its values are allowed is for the studio to say.

        Raises:
            RequestError: the text is another command, the size is none or given twice, or the
                picture is no base64.
        """
        width, height = self.width, self.height
        if self.size is not None:
            if width is not None or height is not None:
                raise RequestError("size", self.size, "either size or width and height")
            width, height = read_size(self.size)
        return RequestDraft(
            prompt=parse_imagine(self.prompt),
            mode=self.mode,
            negative_prompt=self.negative_prompt,
            width=width,
            height=height,
            steps=self.steps,
            guidance_scale=self.guidance_scale,
            sampler=self.sampler,
            seed=self.seed,
            count=self.count,
            loras=tuple(LoraChoice(lora.name, lora.strength) for lora in self.loras),
            image=None if self.image is None else _decoded(self.image),
            strength=self.strength,
            refiner_from=self.refiner_from,
        )


class AgainIn(Sent):
    """How to repeat a job."""

    vary: bool = Field(
        False,
        description="The same seed, a little changed, instead of a fresh one.",
        examples=[True],
    )


class RequestOut(BaseModel):
    """What is drawn, nothing left open."""

    mode: str
    prompt: str = Field(description="As typed; the picture's file has the mode's additions, too.")
    negative_prompt: str = Field(description="Likewise, or the mode's default.")
    width: int
    height: int
    steps: int
    guidance_scale: float
    sampler: str
    seed: int
    count: int
    variation_seed: int | None = Field(description="Seed of the noise mixed in for a variation.")
    strength: float | None = Field(
        description="How much of a picture was drawn anew; null where it began with noise."
    )
    refiner_from: float = Field(
        description="The share of the steps after which a refiner took over; 1 where none did."
    )

    @classmethod
    def of(cls, request: GenerationRequest) -> Self:
        """Returns the request as it was typed, without the model's place on this machine."""
        told = {name: getattr(request, name) for name in cls.model_fields}
        told.update(
            prompt=request.shown_prompt,
            negative_prompt=request.shown_negative,
            sampler=request.sampler.value,
            strength=None if request.source is None else request.strength,
        )
        return cls(**told)


class ProgressOut(BaseModel):
    """Where a running job is."""

    stage: Stage
    step: int
    steps: int
    fraction: float = Field(description="Share of the steps that are done, 0 to 1.")
    preview: str | None = Field(description="A small JPEG as a data: URL.")

    @classmethod
    def of(cls, progress: Progress) -> Self:
        """Returns the progress, its preview ready for an image's address."""
        preview = progress.preview and base64.b64encode(progress.preview).decode()
        return cls(
            stage=progress.stage,
            step=progress.step,
            steps=progress.steps,
            fraction=progress.fraction,
            preview=f"data:image/jpeg;base64,{preview}" if preview else None,
        )


class ImageOut(BaseModel):
    """A finished picture."""

    id: str
    url: str
    seed: int = Field(description="The seed that draws just this one.")
    width: int
    height: int

    @classmethod
    def of(cls, image: ImageRecord) -> Self:
        """Returns the picture with its address."""
        return cls(
            id=image.id,
            url=f"/api/images/{image.id}",
            seed=image.seed,
            width=image.width,
            height=image.height,
        )


class JobOut(BaseModel):
    """A job as it is now."""

    id: str
    status: JobStatus
    position: int | None = Field(description="Place in the queue, 1 is next.")
    before: str | None = Field(description="Who goes before it, such as '2 members'.")
    paused: str | None = Field(
        description="Why nothing that waits is drawn, empty for no reason given; null where it is."
    )
    setback: Setback | None = Field(
        description="Why it waits once more: a restart, or that it was interrupted; null where not."
    )
    expected_at: datetime | None = Field(
        description="When it will be done; null where what it takes was never measured."
    )
    progress: ProgressOut | None
    request: RequestOut
    images: list[ImageOut]
    error: str | None = Field(description="One sentence, where it failed.")
    created_at: datetime
    finished_at: datetime | None
    seconds: float | None = Field(description="Time it took to draw.")
    parent_id: str | None = Field(description="The job that this one was made of.")
    parent: ParentOut | None = Field(description="The same, with its image and how; null likewise.")
    note: str | None = Field(
        description="A sentence on how it was done, such as why no model enlarged it."
    )

    @classmethod
    def of(cls, view: JobView) -> Self:
        """Returns what the page may know of a job."""
        record = view.record
        return cls(
            id=record.id,
            status=record.status,
            position=view.position,
            before=view.before,
            paused=view.paused,
            setback=view.setback,
            expected_at=view.expected_at,
            progress=ProgressOut.of(view.progress) if view.progress else None,
            request=RequestOut.of(record.request),
            images=[ImageOut.of(image) for image in record.images],
            error=record.error,
            created_at=record.created_at,
            finished_at=record.finished_at,
            seconds=record.seconds,
            parent_id=record.parent_id,
            parent=ParentOut.of(record.parent) if record.parent else None,
            note=record.note,
        )

    @classmethod
    def of_record(cls, record: JobRecord) -> Self:
        """Returns a job whose place and progress nobody looked up."""
        return cls.of(JobView(record))


class JobsOut(BaseModel):
    """Jobs, newest first."""

    jobs: list[JobOut]


class GoneOut(BaseModel):
    """A job that was deleted."""

    id: str


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise RequestError("image", "what was sent", f"base64 of {ALLOWED}") from None


def parse_imagine(text: str) -> str:
    """Returns the words of ``/imagine words`` or of words alone.

    Raises:
        RequestError: it is another command.
    """
    command = _COMMAND.match(text)
    if command is None:
        return text.strip()
    if command[1].lower() != "imagine":
        raise RequestError("command", f"/{command[1]}", "/imagine, /mode list, /mode switch NAME")
    return text[command.end() :].strip()
