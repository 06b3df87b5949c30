"""The vocabulary: every noun that travels between the front ends, the pool and the workers.

All of it is frozen: a change makes a new object, and a job keeps the request it was born with,
whatever is reloaded meanwhile. Everything here can be pickled (it crosses to the worker process)
and imports nothing heavy.
"""

import enum
import hashlib
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

MAX_SEED = 2**32 - 1
"""Largest seed, as the ecosystem's tools have it."""


class JobType(enum.StrEnum):
    """What a job does."""

    GENERATION = "generation"
    """Draws pictures."""
    MODE_SWITCH = "mode_switch"
    """Makes another mode the current one, its model loaded."""
    MODEL_LOAD = "model_load"
    """Loads a model without drawing."""
    MODEL_UNLOAD = "model_unload"
    """Gives a model's memory back."""
    CUSTOM = "custom"
    """Calls a handler."""


class JobStatus(enum.StrEnum):
    """Where a job is on its way: queued → running → done | failed | cancelled."""

    QUEUED = "queued"
    """Waits for its turn; survives a restart."""
    RUNNING = "running"
    """Is being drawn; goes back to queued when its worker dies."""
    DONE = "done"
    """Its pictures are kept."""
    FAILED = "failed"
    """Ended with an error that the asker is told."""
    CANCELLED = "cancelled"
    """Taken back by the asker or a moderator."""

    @property
    def followers(self) -> tuple["JobStatus", ...]:
        """What may come after it, as the figure in docs/architecture.md shows."""
        return _FOLLOWERS[self]

    @property
    def predecessors(self) -> tuple["JobStatus", ...]:
        """What it may come after."""
        return tuple(status for status in JobStatus if self in status.followers)

    @property
    def is_final(self) -> bool:
        """Whether the job can't change any more."""
        return not self.followers


_FOLLOWERS: Mapping[JobStatus, tuple[JobStatus, ...]] = {
    JobStatus.QUEUED: (JobStatus.RUNNING, JobStatus.FAILED, JobStatus.CANCELLED),
    JobStatus.RUNNING: (JobStatus.QUEUED, JobStatus.DONE, JobStatus.FAILED, JobStatus.CANCELLED),
    JobStatus.DONE: (),
    JobStatus.FAILED: (),
    JobStatus.CANCELLED: (),
}


class Stage(enum.StrEnum):
    """What a worker is doing for a running job."""

    LOADING = "loading"
    """The model is on its way into memory."""
    ENCODING = "encoding"
    """The prompt is being read by the text encoder."""
    DENOISING = "denoising"
    """The step loop runs."""
    DECODING = "decoding"
    """The latents become pixels."""


class Family(enum.StrEnum):
    """Kinds of models that a worker exists or is planned for."""

    SD15 = "sd15"
    SD2 = "sd2"
    SDXL = "sdxl"
    SDXL_REFINER = "sdxl_refiner"


class Sampler(enum.StrEnum):
    """The samplers by the names that people know."""

    EULER = "Euler"
    EULER_A = "Euler a"
    HEUN = "Heun"
    DPMPP_2M = "DPM++ 2M"
    DPMPP_2M_KARRAS = "DPM++ 2M Karras"
    DPMPP_2M_SDE_KARRAS = "DPM++ 2M SDE Karras"
    DPMPP_SDE_KARRAS = "DPM++ SDE Karras"
    UNIPC = "UniPC"
    LCM = "LCM"
    DDIM = "DDIM"

    def passes(self, steps: int) -> int:
        """Returns how many forward passes so many denoising steps, 0 or more, take."""
        # Heun looks at the end of each step before it takes it, but for the last, which ends at
        # the picture itself.
        return 2 * steps - 1 if steps and self is Sampler.HEUN else steps


@dataclass(frozen=True, slots=True)
class LoraSpec:
    """A LoRA to be laid over a model.

    Attributes:
        path: the ``.safetensors`` file.
        strength: factor on its weights; 1 as trained, 0 has no effect, negative inverts.
        adapter_name: what diffusers calls it; unique within a model.
    """

    path: Path
    strength: float = 1.0
    adapter_name: str = "default"


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Weights on disk and how to read them: what a worker process needs to load a model.

    Attributes:
        path: a single ``.safetensors`` checkpoint or a diffusers folder.
        loras: laid over it in this order, for those requests alone that ask with them.
        prediction_type: ``epsilon`` or ``v_prediction`` where the file does not say; None trusts
            the model's own configuration.
        vae: a VAE to decode with in place of the model's own: a ``.safetensors`` file or a
            diffusers folder.
        known_as: its key on the machine that asks for it, where that is another one and the paths
            are this one's; None for its own.
    """

    path: Path
    loras: tuple[LoraSpec, ...] = ()
    prediction_type: str | None = None
    vae: Path | None = None
    known_as: str | None = None

    @property
    def key(self) -> str:
        """A short name, equal exactly where all but the LoRAs is: they share the weights."""
        if self.known_as is not None:
            return self.known_as
        return _key(str(self.path), self.prediction_type, self.vae and str(self.vae))

    @property
    def files(self) -> tuple[Path, ...]:
        """All files and folders that it is read from, the LoRAs that count included."""
        loras = (lora.path for lora in self.loras if lora.strength)
        return (self.path, *([self.vae] if self.vae else []), *loras)


@lru_cache(1024)  # it is asked for many times in each turn of a large fleet
def _key(path: str, prediction_type: str | None, vae: str | None) -> str:
    digest = hashlib.sha256(repr((path, prediction_type, vae)).encode()).hexdigest()[:12]
    return f"{Path(path).name}-{digest}"


@dataclass(frozen=True, slots=True)
class LoraChoice:
    """A LoRA that somebody asks for beside the mode's own.

    Attributes:
        name: its file's name without folder and ending, as the ecosystem's ``<lora:name:0.8>``.
        strength: see `LoraSpec`.
    """

    name: str
    strength: float = 1.0


@dataclass(frozen=True, slots=True)
class RequestDraft:
    """What somebody asked for, before the mode's defaults; None where nothing was said.

    Attributes:
        prompt: the words to draw.
        mode: name of a mode; None takes the place's or the default one.
        negative_prompt: what to keep away from.
        width: pixels.
        height: pixels.
        steps: denoising steps.
        guidance_scale: weight of the prompt (classifier-free guidance); 1 ignores the negative.
        sampler: the value of a `Sampler`.
        seed: 0 to `MAX_SEED`; None draws one.
        count: pictures; picture i has seed + i (modulo 2**32).
        loras: laid over the mode's model, as far as the mode allows them; the prompt's
            ``<lora:name:0.8>`` count as well.
        image: a picture file to start from instead of noise (img2img), as it came.
        strength: how much of that picture is drawn anew, above 0 (nothing) to 1 (all of it).
        refiner_from: the share of the steps, 0 to 1, after which the mode's refiner takes over.
    """

    prompt: str
    mode: str | None = None
    negative_prompt: str | None = None
    width: int | None = None
    height: int | None = None
    steps: int | None = None
    guidance_scale: float | None = None
    sampler: str | None = None
    seed: int | None = None
    count: int | None = None
    loras: tuple[LoraChoice, ...] = ()
    image: bytes | None = field(default=None, repr=False)
    strength: float | None = None
    refiner_from: float | None = None


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """What is drawn, with nothing left open. Fields as in `RequestDraft`, and a few more.

    ``prompt`` and ``negative_prompt`` are what the model reads, whatever a mode adds included:
    pictures' files carry them, so that other tools draw the same from them. People are shown, and
    repeat, what they typed: `shown_prompt` and `shown_negative`.

    Attributes:
        variation_seed: seed of a second noise that is mixed into the first; None for none.
            Picture i has variation_seed + i, as its seed is seed + i.
        variation_strength: how much of it, 0 (nothing) to 1 (all), by spherical interpolation as
            the ecosystem's tools do it.
        typed_prompt: the prompt without the mode's additions; None where there are none.
        typed_negative: likewise the negative prompt.
        source: the picture to start from (img2img), a PNG of any size; None starts from noise.
        strength: how much of the source is drawn anew, 0 to 1; counts with a source alone. At 0
            nothing is drawn: the source is brought to the size, which needs no model.
        clip_skip: at which layer of the text encoder, counted from its end, the prompt is read, as
            the ecosystem counts: 1 is the last, 2 the last but one; None is what the family was
            trained with.
        refiner: draws the last steps in place of the model; None for none.
        refiner_from: the share of the steps, 0 to 1, after which the refiner takes over.
        exact: whether it is drawn to the same last bit whoever shares its forward passes.
        compiled: whether it is drawn with compiled code, as soon as there is any.
        nsfw: whether its mode is for adults, which may be gone when somebody wants to know; None
            where that was not noted. Nothing is drawn by it.
    """

    mode: str
    model: ModelSpec
    prompt: str
    negative_prompt: str
    width: int
    height: int
    steps: int
    guidance_scale: float
    sampler: Sampler
    seed: int
    count: int = 1
    variation_seed: int | None = None
    variation_strength: float = 0.0
    typed_prompt: str | None = None
    typed_negative: str | None = None
    source: Path | None = None
    strength: float = 1.0
    clip_skip: int | None = None
    refiner: ModelSpec | None = None
    refiner_from: float = 1.0
    exact: bool = False
    compiled: bool = False
    nsfw: bool | None = None

    @property
    def is_drawn(self) -> bool:
        """Whether a model draws; else the source is only brought to another size."""
        return self.source is None or self.strength > 0

    @property
    def steps_taken(self) -> int:
        """Denoising steps that are made: with a source, strength's share of them, rounded down."""
        # As the stock img2img pipelines count them.
        return (
            self.steps if self.source is None else min(int(self.steps * self.strength), self.steps)
        )

    @property
    def shown_prompt(self) -> str:
        """The prompt as it was typed."""
        return self.prompt if self.typed_prompt is None else self.typed_prompt

    @property
    def shown_negative(self) -> str:
        """The negative prompt as it was typed, or the mode's default."""
        return self.negative_prompt if self.typed_negative is None else self.typed_negative

    @property
    def cost(self) -> int:
        """Work in pixel-steps, each a forward pass: what the fair queue charges.

        At least one pass for each picture: what is free would go before everybody, always.
        """
        passes = max(1, self.sampler.passes(self.steps_taken))
        return self.width * self.height * passes * self.count

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seed of each picture."""
        return tuple((self.seed + i) % (MAX_SEED + 1) for i in range(self.count))

    def variation_seed_of(self, seed: int) -> int | None:
        """Returns the variation seed of the picture with a seed; None where there is none."""
        if self.variation_seed is None:
            return None
        return (self.variation_seed + seed - self.seed) % (MAX_SEED + 1)


@dataclass(frozen=True, slots=True)
class GeneratedImage:
    """One finished picture.

    Attributes:
        png: the file, its parameters in the text chunk ``parameters``.
        seed: the seed that draws just this one.
        width: pixels.
        height: pixels.
    """

    png: bytes
    seed: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a running job is.

    Attributes:
        job_id: whose.
        stage: what is being done.
        step: finished steps, of all the job's pictures together.
        steps: steps in all.
        preview: JPEG bytes of what the picture looks like now; None where there is none.
    """

    job_id: str
    stage: Stage
    step: int = 0
    steps: int = 0
    preview: bytes | None = field(default=None, repr=False)

    @property
    def fraction(self) -> float:
        """Share of the steps that are done, 0 to 1."""
        return self.step / self.steps if self.steps else 0.0


@dataclass(frozen=True, slots=True)
class GenerationResult:
    """What a job ends with when all went well.

    Attributes:
        job_id: whose.
        images: in the order of their seeds.
        seconds: from the first step to the last picture, loading left out.
        device: where it was drawn, such as ``cuda:0``.
    """

    job_id: str
    images: tuple[GeneratedImage, ...]
    seconds: float
    device: str


Event: TypeAlias = Progress | GenerationResult
"""What an executor yields while it draws; the result comes last."""


def new_job_id() -> str:
    """Returns a fresh id of 16 URL-safe characters (96 random bits: it can't be guessed)."""
    return secrets.token_urlsafe(12)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Something for the pool to do; subclass it to add a kind.

    Attributes:
        id: unique; made up unless given.
        owner: whose turn it takes in the fair queue.
        weight: share of the turns beside other owners; 1 is a member's.
        place: where it was asked for, such as a Discord server: places take turns, and within
            one its owners do. None is the owner alone.
    """

    id: str = field(default_factory=new_job_id)
    owner: str = "system"
    weight: float = 1.0
    place: str | None = None

    @property
    def type(self) -> JobType:
        """What kind of job it is."""
        return JobType.CUSTOM

    @property
    def cost(self) -> int:
        """What the fair queue charges its owner, in pixel-steps."""
        return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationJob(Job):
    """Draws a request. A draft gets its mode's defaults from the pool when it is submitted."""

    request: GenerationRequest | RequestDraft

    @property
    def type(self) -> JobType:
        """Always a generation."""
        return JobType.GENERATION

    @property
    def cost(self) -> int:
        """The request's pixel-steps."""
        return self.request.cost if isinstance(self.request, GenerationRequest) else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModeSwitchJob(Job):
    """Loads a mode's model and makes the mode the current one."""

    target_mode: str

    @property
    def type(self) -> JobType:
        """Always a mode switch."""
        return JobType.MODE_SWITCH


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLoadJob(Job):
    """Loads a model so that the next request need not wait for it.

    Attributes:
        model: what is loaded.
        warm: the like of that request, as far as it is known; see `Executor.load`.
    """

    model: ModelSpec
    warm: GenerationRequest | None = None

    @property
    def type(self) -> JobType:
        """Always a load."""
        return JobType.MODEL_LOAD


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelUnloadJob(Job):
    """Gives a model's memory back."""

    model: ModelSpec

    @property
    def type(self) -> JobType:
        """Always an unload."""
        return JobType.MODEL_UNLOAD


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomJob(Job):
    """Calls ``handler(*args, **kwargs)``; a plain function runs in a thread, a coroutine here."""

    handler: Callable[..., Any | Awaitable[Any]]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
