"""What clients of AUTOMATIC1111's API send and read: a mode is a checkpoint, the rest is ours."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from bot.records import JobRecord, JobView
from bot.source_images import ALLOWED
from bot.web.schemas import Plain, Text
from engine.errors import RequestError
from engine.jobs import RequestDraft, Sampler
from modes.mode_config import ModeConfig
from modes.request_fields import whole_number

CHECKPOINT = "sd_model_checkpoint"
"""The option that says with what is drawn."""

KARRAS = "Karras"

_NOTHING: tuple[object, ...] = (None, "", "None", False, 0, -1)
"""Values that ask for nothing, as clients send them with every request."""

_NOT_HERE = (
    "alwayson_scripts",
    "enable_hr",
    "hypernetwork_model",
    "mask",
    "refiner_checkpoint",
    "restore_faces",
    "script_name",
    "seed_resize_from_h",
    "seed_resize_from_w",
    "styles",
    "subseed_strength",
    "tiling",
)
"""Fields that would have another picture drawn, and that nobody here does."""


class TextToImageIn(BaseModel):
    """What to draw. What is left out comes from the mode.

    Of AUTOMATIC1111's other fields those that would change the picture, such as ``enable_hr`` or
    ``mask``, are refused where they ask for something; the rest means nothing here.
    """

    model_config = ConfigDict(
        extra="allow",
        allow_inf_nan=False,
        json_schema_extra={
            "examples": [
                {
                    "prompt": "a red circle on a white background",
                    "steps": 20,
                    "width": 128,
                    "height": 128,
                    "seed": -1,
                }
            ]
        },
    )

    prompt: Text = Field("", description="The words to draw; <lora:name:0.8> in them counts.")
    negative_prompt: Plain = Field(None, json_schema_extra={"type": "string"})
    seed: Plain = Field(None, description="-1 draws one.", json_schema_extra={"type": "integer"})
    steps: Plain = Field(None, json_schema_extra={"type": "integer"})
    cfg_scale: Plain = Field(None, json_schema_extra={"type": "number"})
    width: Plain = Field(None, json_schema_extra={"type": "integer"})
    height: Plain = Field(None, json_schema_extra={"type": "integer"})
    batch_size: Plain = Field(
        None,
        description="Pictures; n_iter times as many are drawn, all of them in one request.",
        json_schema_extra={"type": "integer"},
    )
    n_iter: Plain = Field(None, json_schema_extra={"type": "integer"})
    sampler_name: Text | None = None
    sampler_index: Text | None = Field(None, description="The same, as older clients say it.")
    scheduler: Text | None = Field(None, description="automatic, or karras.")
    denoising_strength: Plain = Field(
        None,
        description="Counts with a picture to start from.",
        json_schema_extra={"type": "number"},
    )
    override_settings: dict[str, Any] | None = Field(
        None, description=f"Options for this request alone; {CHECKPOINT} names a mode."
    )
    send_images: bool = True

    _unread: ClassVar[frozenset[str]] = frozenset({"denoising_strength"})

    def draft(self, modes: Mapping[str, ModeConfig], current: ModeConfig) -> RequestDraft:
        """Returns the same in the engine's words.

        Args:
            modes: all of them, by name.
            current: draws where the request names none.

        Raises:
            RequestError: it asks for something that nobody here does.
        """
        for field in _NOT_HERE:
            value = (self.model_extra or {}).get(field)
            if asks_for_something(value):
                raise RequestError(field, "what was sent", "nothing; it isn't done here")
        mode = mode_in(self.override_settings or {}, modes, current)
        return RequestDraft(
            prompt=self.prompt,
            mode=mode.name,
            negative_prompt=self.negative_prompt,
            width=self.width,
            height=self.height,
            steps=self.steps,
            guidance_scale=self.cfg_scale,
            sampler=_sampler(self.sampler_name or self.sampler_index, self.scheduler),
            seed=None if self.seed == -1 else self.seed,
            count=_times("batch_size", self.batch_size) * _times("n_iter", self.n_iter),
        )

    def echo(self) -> dict[str, Any]:
        """Returns what was asked for and looked at; call it when it has been drawn."""
        return self.model_dump(
            exclude={"override_settings", *self._unread, *(self.model_extra or {})}
        )


class ImageToImageIn(TextToImageIn):
    """What to draw from a picture; it covers the size, its middle kept."""

    init_images: list[str] = Field(
        min_length=1,
        max_length=1,
        description=f"The picture to start from, as base64 or a data: URL: {ALLOWED}.",
    )

    _unread: ClassVar[frozenset[str]] = frozenset({"init_images"})

    def draft(self, modes: Mapping[str, ModeConfig], current: ModeConfig) -> RequestDraft:
        """Returns the same in the engine's words.

        Raises:
            RequestError: as for a picture from words, or the picture is no base64.
        """
        return replace(
            super().draft(modes, current),
            image=_decoded(self.init_images[0]),
            strength=self.denoising_strength,
        )


class ImagesOut(BaseModel):
    """The pictures."""

    images: list[str] = Field(description="PNG files as base64, in the order of their seeds.")
    parameters: dict[str, Any] = Field(description="What was asked for.")
    info: str = Field(description="What was drawn, as JSON in a text.")


class CheckpointOut(BaseModel):
    """A mode, as a checkpoint is listed."""

    model_config = ConfigDict(protected_namespaces=())

    title: str = Field(description=f"What the option {CHECKPOINT} takes.")
    model_name: str
    hash: str | None = None
    sha256: str | None = None
    filename: str = Field(description="The model's name, without its folder.")
    config: str | None = None


class SamplerOut(BaseModel):
    """A sampler."""

    name: str
    aliases: list[str] = []
    options: dict[str, str] = {}


class SchedulerOut(BaseModel):
    """A way to space the steps."""

    name: str
    label: str
    aliases: list[str] | None = None
    default_rho: float = -1.0
    need_inner_model: bool = False


class LoraOut(BaseModel):
    """A LoRA that prompts may name."""

    name: str
    alias: str
    path: str = Field(description="The file's name, without its folder.")
    metadata: dict[str, Any] = {}


class EmbeddingsOut(BaseModel):
    """Textual inversions: none."""

    loaded: dict[str, Any] = {}
    skipped: dict[str, Any] = {}


class ScriptsOut(BaseModel):
    """Scripts: none."""

    txt2img: list[str] = []
    img2img: list[str] = []


class ProgressStateOut(BaseModel):
    """The request that the progress is about."""

    skipped: bool = False
    interrupted: bool = False
    stopping_generation: bool = False
    job: str = Field(default="", description="Its id.")
    job_count: int = Field(default=0, description="Your requests that wait or run.")
    job_timestamp: str = Field(default="0", description="When it was asked for, as 20260131235959.")
    job_no: int = 0
    sampling_step: int = 0
    sampling_steps: int = 0


class ProgressOut(BaseModel):
    """Where your oldest request is."""

    progress: float = Field(default=0.0, description="Share of the steps that are done, 0 to 1.")
    eta_relative: float = Field(
        default=0.0, description="Seconds until it is done; 0 where unknown."
    )
    state: ProgressStateOut = ProgressStateOut()
    current_image: str | None = Field(default=None, description="A small JPEG as base64.")
    textinfo: str | None = None


def options_of(mode: ModeConfig) -> dict[str, Any]:
    """Returns the options that there are, as a mode has them."""
    return {
        CHECKPOINT: mode.name,
        "sd_vae": mode.model.vae.name if mode.model.vae else "Automatic",
        "CLIP_stop_at_last_layers": mode.clip_skip or 1,
        "samples_format": "png",
        "enable_pnginfo": True,
    }


def mode_in(
    options: Mapping[str, Any], modes: Mapping[str, ModeConfig], current: ModeConfig
) -> ModeConfig:
    """Returns the mode that options ask for; the current one where they name none.

    Args:
        options: as sent. Clients send back what they got, so what stays as it is is taken.
        modes: all of them, by name.
        current: see above.

    Raises:
        RequestError: there is no such mode, or another option would change.
    """
    wanted = options.get(CHECKPOINT)
    mode = current if wanted in (None, "") else _named(wanted, modes)
    theirs = options_of(mode)
    for name, value in options.items():
        if name == CHECKPOINT or not asks_for_something(value):
            continue
        if name not in theirs:
            raise RequestError("option", name, f"{CHECKPOINT}; a mode says all else")
        if value != theirs[name]:
            raise RequestError(name, value, f"{theirs[name]}, as the mode {mode.name} has it")
    return mode


def asks_for_something(value: object) -> bool:
    """Whether a value is more than a client's way to say nothing, in lists and groups likewise."""
    left = [value]
    while left:  # a call for each level would end where Python's stack does
        value = left.pop()
        if isinstance(value, Mapping):
            left.extend(value.values())
        elif isinstance(value, list):
            left.extend(value)
        elif value not in _NOTHING:
            return True
    return False


def progress_of(view: JobView, waiting: int, now: datetime, *, with_image: bool) -> ProgressOut:
    """Returns where a job is.

    Args:
        view: of the job.
        waiting: requests of its owner that wait or run, itself included.
        now: the time.
        with_image: whether a preview comes along.
    """
    progress = view.progress
    left = (view.expected_at - now).total_seconds() if view.expected_at else 0.0
    preview = progress.preview if progress and with_image else None
    return ProgressOut(
        progress=progress.fraction if progress else 0.0,
        eta_relative=max(0.0, left),
        state=ProgressStateOut(
            job=view.record.id,
            job_count=waiting,
            job_timestamp=view.record.created_at.astimezone(UTC).strftime("%Y%m%d%H%M%S"),
            sampling_step=progress.step if progress else 0,
            sampling_steps=progress.steps if progress else 0,
        ),
        current_image=base64.b64encode(preview).decode() if preview else None,
    )


def info_of(record: JobRecord, infotexts: Sequence[str]) -> dict[str, Any]:
    """Returns what was drawn, with the names that clients look for.

    Args:
        record: the job, done.
        infotexts: of each picture, as its file has it.
    """
    request = record.request
    prompts = [request.prompt] * len(record.images)
    negatives = [request.negative_prompt] * len(record.images)
    variation = request.variation_seed if request.variation_seed is not None else -1
    return {
        "prompt": request.prompt,
        "all_prompts": prompts,
        "negative_prompt": request.negative_prompt,
        "all_negative_prompts": negatives,
        "seed": request.seed,
        "all_seeds": [image.seed for image in record.images],
        "subseed": variation,
        "all_subseeds": [
            request.variation_seed_of(image.seed) if variation != -1 else -1
            for image in record.images
        ],
        "subseed_strength": request.variation_strength,
        "width": request.width,
        "height": request.height,
        "sampler_name": request.sampler.value,
        "cfg_scale": request.guidance_scale,
        "steps": request.steps,
        "batch_size": request.count,
        "restore_faces": False,
        "face_restoration_model": None,
        "sd_model_name": request.mode,
        "sd_model_hash": None,
        "sd_vae_name": request.model.vae.name if request.model.vae else None,
        "sd_vae_hash": None,
        "seed_resize_from_w": -1,
        "seed_resize_from_h": -1,
        "denoising_strength": request.strength if request.source else None,
        "extra_generation_params": {},
        "index_of_first_image": 0,
        "infotexts": list(infotexts),
        "styles": [],
        "job_timestamp": record.created_at.astimezone(UTC).strftime("%Y%m%d%H%M%S"),
        "clip_skip": request.clip_skip or 1,
        "is_using_inpainting_conditioning": False,
    }


def samplers() -> Iterator[SamplerOut]:
    """Yields the samplers."""
    for sampler in Sampler:
        is_karras = sampler.value.endswith(KARRAS)
        yield SamplerOut(
            name=sampler.value, options={"scheduler": KARRAS.lower()} if is_karras else {}
        )


def _named(wanted: object, modes: Mapping[str, ModeConfig]) -> ModeConfig:
    if isinstance(wanted, str):
        # A client of this API looks for the closest title in small letters, and sends it so.
        folded = {name.casefold(): mode for name, mode in modes.items()}
        if mode := modes.get(wanted) or folded.get(wanted.strip().casefold()):
            return mode
    raise RequestError(CHECKPOINT, wanted, ", ".join(modes))


def _sampler(name: str | None, scheduler: str | None) -> str | None:
    asked = (scheduler or "automatic").casefold()
    if asked not in ("automatic", KARRAS.casefold()):
        raise RequestError("scheduler", scheduler, "automatic, karras")
    if not name or asked == "automatic" or name.casefold().endswith(KARRAS.casefold()):
        return name or None
    return f"{name} {KARRAS}"


def _times(field: str, value: object) -> int:
    return 1 if value is None else whole_number(field, value, 1, 100)


def _decoded(text: str) -> bytes:
    head, comma, rest = text.partition(",")
    encoded = rest if comma and head.startswith("data:") else text
    try:
        # Some clients break it into lines, as mail does.
        return base64.b64decode("".join(encoded.split()), validate=True)
    except ValueError:
        raise RequestError("init_images", "what was sent", f"base64 of {ALLOWED}") from None
