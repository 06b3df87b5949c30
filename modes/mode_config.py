"""A mode: what the community draws with under one name, and what may be asked of it."""

import math
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from engine.errors import RequestError
from engine.jobs import (
    MAX_SEED,
    GenerationRequest,
    ModelSpec,
    RequestDraft,
    Sampler,
)
from engine.room import smaller
from modes.aspect import nearest_size, size_like
from modes.lora_choices import NAME, add_tags, has_tags, laid_over, read_tags
from modes.request_fields import (
    SIDE_STEP,
    clean_text,
    number,
    one_of_sizes,
    sampler,
    whole_number,
)
from modes.upscaling import Upscale

# What a mode that says nothing draws with; the size only where the model's own can't be told (it is
# that of Stable Diffusion 1.x, see `native_side`). Sampler and guidance are where most prompts and
# settings that people share come from (the defaults of AUTOMATIC1111's web UI), and 25 steps are
# where Euler a has settled.
DEFAULT_SIZE = (512, 512)
DEFAULT_STEPS = 25
DEFAULT_GUIDANCE = 7.0
DEFAULT_SAMPLER = Sampler.EULER_A

# What a member may ask for where the mode sets no bounds of its own; sides go from half of the
# model's own to twice that.
MIN_SIZE = 256
MAX_SIZE = 1024
MAX_STEPS = 100
MAX_GUIDANCE = 30.0
MAX_COUNT = 4
MAX_LORAS = 3
MAX_LORA_STRENGTH = 2.0

# Where the refiner's authors hand over, and how much of a picture is drawn anew: the usual values
# of the ecosystem's tools (diffusers' documentation of SDXL; AUTOMATIC1111's img2img).
REFINER_FROM = 0.8
STRENGTH = 0.75


@dataclass(frozen=True, slots=True)
class OfferedLora:
    """A LoRA that a request may ask for.

    Attributes:
        name: how it is asked for, as in ``<lora:name>``; its file's name unless given.
        path: the ``.safetensors`` file.
    """

    name: str
    path: Path


@dataclass(frozen=True, slots=True)
class ModeConfig:
    """What the community draws with under one name.

    Attributes:
        name: how it is asked for.
        model: the weights, with the mode's own LoRAs and VAE.
        title: what it is called where people choose; the name unless given.
        description: one line about it.
        default_size: width and height in pixels.
        default_steps: denoising steps.
        default_guidance: weight of the prompt.
        default_sampler: how a step is taken.
        default_negative: what to keep away from when nothing is said.
        prompt_prefix: stands before every prompt, a blank between them; people neither type nor
            see it, the model and the picture's file do.
        prompt_suffix: likewise behind it, after a comma.
        negative_always: kept away from in every picture, whatever else is. Guidance 1 has the
            model ignore this, too.
        negative_allowed: whether a request may bring a negative prompt of its own.
        sizes: the only sizes that may be asked for; empty for any within the bounds.
        samplers: those that may be asked for.
        min_size: pixels of the shortest side that may be asked for.
        max_size: pixels of the longest one.
        max_steps: most steps.
        max_guidance: highest guidance; the lowest is 1.
        max_count: most pictures of one request.
        clip_skip: see `GenerationRequest`.
        refiner: draws the last steps; None for none.
        refiner_from: the share of the steps, 0 to 1, after which it takes over.
        upscale: how its pictures are enlarged.
        loras_allowed: what a request may ask for beside the mode's own LoRAs.
        lora_folder: every ``.safetensors`` file in here, too; None for no folder.
        max_loras: most LoRAs that one request may ask for.
        max_lora_strength: highest strength of each, and below zero the lowest.
        allowed_roles: names or ids of the roles that may use this mode; empty for everybody.
        exact: see `GenerationRequest`.
        compile: see `GenerationRequest.compiled`.
        nsfw: whether its pictures may be unfit for some eyes. On Discord they are drawn in
            age-restricted channels alone, or as spoilers where a server says so.
        metadata: the owner's own notes, plain values.
    """

    name: str
    model: ModelSpec
    title: str = ""
    description: str = ""
    default_size: tuple[int, int] = DEFAULT_SIZE
    default_steps: int = DEFAULT_STEPS
    default_guidance: float = DEFAULT_GUIDANCE
    default_sampler: Sampler = DEFAULT_SAMPLER
    default_negative: str = ""
    prompt_prefix: str = ""
    prompt_suffix: str = ""
    negative_always: str = ""
    negative_allowed: bool = True
    sizes: tuple[tuple[int, int], ...] = ()
    samplers: tuple[Sampler, ...] = tuple(Sampler)
    min_size: int = MIN_SIZE
    max_size: int = MAX_SIZE
    max_steps: int = MAX_STEPS
    max_guidance: float = MAX_GUIDANCE
    max_count: int = MAX_COUNT
    clip_skip: int | None = None
    refiner: ModelSpec | None = None
    refiner_from: float = REFINER_FROM
    upscale: Upscale = field(default_factory=Upscale)
    loras_allowed: tuple[OfferedLora, ...] = ()
    lora_folder: Path | None = None
    max_loras: int = MAX_LORAS
    max_lora_strength: float = MAX_LORA_STRENGTH
    allowed_roles: tuple[str, ...] = ()
    exact: bool = False
    compile: bool = False
    nsfw: bool = False
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if not self.title:
            object.__setattr__(self, "title", self.name)

    def missing(self) -> tuple[Path, ...]:
        """Returns the files of the model and of all that belongs to it that don't exist."""
        vae, refiner = self.model.vae, self.refiner
        paths = [self.model.path, *(lora.path for lora in self.model.loras)]
        paths += [vae] if vae else []
        paths += [refiner.path] if refiner else []
        return tuple(path for path in paths if not exists(path))

    def offered_loras(self) -> Mapping[str, Path]:
        """Returns what a request may ask for, by name: the files that are there now."""
        named = {lora.name: lora.path for lora in self.loras_allowed if exists(lora.path)}
        if self.lora_folder is None:
            return named
        found = sorted(self.lora_folder.rglob("*.safetensors")) if exists(self.lora_folder) else ()
        any_of_them = {path.stem: path for path in reversed(found) if NAME.fullmatch(path.stem)}
        return dict(sorted(any_of_them.items())) | named

    def size_like(self, width: int, height: int) -> tuple[int, int]:
        """Returns what is drawn from a picture of a size when nobody asks for another."""
        if self.sizes:
            return nearest_size((width, height), self.default_size, self.sizes)
        return size_like((width, height), self.default_size, (self.min_size, self.max_size))

    def smaller(self, width: int, height: int, pixels: int) -> tuple[int, int] | None:
        """Returns the largest size with so many pixels that may be asked for in place of another.

        It has the other's aspect where the mode takes any size; None where there is none.
        """
        if self.sizes:
            fitting = [size for size in self.sizes if size[0] * size[1] <= pixels]
            return max(fitting, key=lambda size: size[0] * size[1], default=None)
        size = smaller(width, height, pixels)
        return size if size and min(size) >= self.min_size else None

    def build_request(
        self,
        draft: RequestDraft,
        source: Path | None = None,
        offered: Mapping[str, Path] | None = None,
    ) -> GenerationRequest:
        """Fills what the draft leaves open with this mode's defaults; a seed is drawn.

        The mode's own words are added here and nowhere else, to what was typed. What is typed
        again gets them again, and not twice. So it is with LoRAs: the model reads the prompt
        without their tags, people see it with the tags of all that was asked for.

        Args:
            draft: what was asked for.
            source: the draft's picture as a file, whole and sound; see `GenerationRequest`.
            offered: as `offered_loras` returns it; None has it looked up where that is needed,
                while all else waits.

        Raises:
            RequestError: a field is not allowed here; it names the first one.
        """
        typed = clean_text("prompt", draft.prompt, required=True)
        words, choices = read_tags(typed)
        clean_text("prompt", words, required=True)
        if offered is None:
            offered = self.offered_loras() if choices or draft.loras else {}
        loras = laid_over(
            self.model.loras,
            (*choices, *draft.loras),
            offered,
            self.max_loras,
            self.max_lora_strength,
        )
        typed = clean_text("prompt", add_tags(typed, draft.loras), required=True)
        prompt = _after_comma(f"{self.prompt_prefix} {words}".lstrip(), self.prompt_suffix)
        kept_away = self._negative(draft.negative_prompt)
        negative = _after_comma(kept_away, self.negative_always)
        width, height = self._size(draft)
        refiner, refiner_from = self._refiner(draft)
        steps = whole_number("steps", _said(draft.steps, self.default_steps), 1, self.max_steps)
        return GenerationRequest(
            mode=self.name,
            model=replace(self.model, loras=loras),
            prompt=prompt,
            typed_prompt=None if typed == prompt else typed,
            negative_prompt=negative,
            typed_negative=None if kept_away == negative else kept_away,
            width=width,
            height=height,
            steps=steps,
            guidance_scale=number(
                "guidance",
                _said(draft.guidance_scale, self.default_guidance),
                1,
                self.max_guidance,
            ),
            sampler=sampler("sampler", _said(draft.sampler, self.default_sampler), self.samplers),
            seed=whole_number(
                "seed", _said(draft.seed, secrets.randbelow(MAX_SEED + 1)), 0, MAX_SEED
            ),
            count=whole_number("count", _said(draft.count, 1), 1, self.max_count),
            source=source,
            strength=_strength(draft, source, steps),
            clip_skip=self.clip_skip,
            refiner=refiner,
            refiner_from=refiner_from,
            exact=self.exact,
            compiled=self.compile,
            nsfw=self.nsfw,
        )

    def _negative(self, said: object) -> str:
        text = clean_text("negative", _said(said, self.default_negative), required=False)
        # Who repeats the mode's own brings none.
        if not self.negative_allowed and text != self.default_negative:
            raise RequestError("negative", text, "the mode's own alone; leave it out")
        return text

    def _refiner(self, draft: RequestDraft) -> tuple[ModelSpec | None, float]:
        """Returns who draws the last steps, and after which share of them."""
        if self.refiner is None:
            if draft.refiner_from is not None:
                raise RequestError("refiner", draft.refiner_from, "none; this mode has no refiner")
            return None, 1.0
        share = number("refiner", _said(draft.refiner_from, self.refiner_from), 0, 1)
        # One that takes over at the very end would be loaded for nothing.
        return (self.refiner if share < 1 else None), share

    def _size(self, draft: RequestDraft) -> tuple[int, int]:
        width = _said(draft.width, self.default_size[0])
        height = _said(draft.height, self.default_size[1])
        if self.sizes:
            return one_of_sizes(width, height, self.sizes)
        side = (self.min_size, self.max_size, SIDE_STEP)
        return whole_number("width", width, *side), whole_number("height", height, *side)


def asks_for_loras(draft: RequestDraft) -> bool:
    """Says whether a draft may ask for LoRAs beside the mode's own."""
    return bool(draft.loras) or has_tags(draft.prompt)


def _after_comma(text: str, addition: str) -> str:
    """Returns both, a single comma between them; the one that is there where the other is empty."""
    if not addition or not text:
        return text or addition
    return f"{text.rstrip(' ,')}, {addition.lstrip(' ,')}"


def _strength(draft: RequestDraft, source: Path | None, steps: int) -> float:
    """Returns how much of a source is drawn anew; 1 where there is none."""
    if draft.image is not None and source is None:
        raise RequestError("image", "a picture", "words alone; pictures are taken by the studio")
    if source is None:
        if draft.strength is not None:
            raise RequestError("strength", draft.strength, "one beside a picture to start from")
        return 1.0
    # At least one step of those that there are, as `GenerationRequest.steps_taken` counts them.
    strength = number("strength", _said(draft.strength, STRENGTH), 0, 1)
    if int(steps * strength) < 1:
        low = math.ceil(100 / steps) / 100
        raise RequestError(
            "strength", f"{strength:g}", f"a number from {low:g} to 1 at {steps} steps"
        )
    return strength


def _said(value: object, default: object) -> object:
    return default if value is None else value


def exists(path: Path) -> bool:
    """Returns whether there is a file or folder; a path that can't be looked at is none."""
    # Path.exists raises for a name that is too long or a folder that may not be entered.
    return os.path.exists(path)  # noqa: PTH110
