"""(pure) Requests made of earlier ones: repeated, varied, enlarged."""

import math
import secrets
from dataclasses import replace
from pathlib import Path

from bot.policy import is_nsfw
from bot.source_images import MAX_SIDE
from engine.errors import ModelError, OutOfMemoryError, RequestError
from engine.jobs import MAX_SEED, GenerationRequest, RequestDraft
from modes.mode_config import ModeConfig, exists
from modes.request_fields import size_text
from modes.upscaling import Upscale

VARIATION_STRENGTH = 0.35
"""Share of new noise in a variation: the subject stays, its details move (judged by eye)."""

LARGEST_SIDE = 2 * MAX_SIDE
"""Pixels; beyond that a picture's file is of no use on a phone."""


def single(request: GenerationRequest, seed: int) -> GenerationRequest:
    """Returns the request that draws just the one picture with a seed."""
    return replace(request, seed=seed, count=1, variation_seed=request.variation_seed_of(seed))


def draft_of(request: GenerationRequest, mode: ModeConfig, *, seed: int | None) -> RequestDraft:
    """Returns what asks for the same of a mode once more; without a seed a fresh one is drawn."""
    return RequestDraft(
        # As typed: what the mode adds, it adds anew.
        prompt=request.shown_prompt,
        mode=request.mode,
        negative_prompt=request.shown_negative if mode.negative_allowed else None,
        width=request.width,
        height=request.height,
        steps=request.steps,
        guidance_scale=request.guidance_scale,
        sampler=request.sampler,
        seed=seed,
        count=request.count,
        # Where nothing was drawn anew, as much is as in any other enlarged picture.
        refiner_from=request.refiner_from if mode.refiner else None,
        strength=(request.strength or mode.upscale.strength) if request.source else None,
    )


def varied(request: GenerationRequest) -> GenerationRequest:
    """Returns a request for pictures that resemble the request's own.

    A second noise is mixed into the first, so that the pictures stay recognisable.
    """
    return replace(
        request,
        variation_seed=secrets.randbelow(MAX_SEED + 1),
        variation_strength=VARIATION_STRENGTH,
    )


def enlarged(
    request: GenerationRequest, source: Path, mode: ModeConfig | None
) -> tuple[GenerationRequest, str | None]:
    """Returns a request for a larger picture, and why no model draws it; None where one does.

    Args:
        request: of the one picture, as it was drawn.
        source: that picture, as `GenerationRequest` has it.
        mode: the request's, as it is now; None where it is gone.

    Raises:
        RequestError: it is as large already as pictures become.
    """
    way = mode.upscale if mode else Upscale()
    width, height = way.size(request.width, request.height)
    if max(width, height) > LARGEST_SIDE or max(request.width, request.height) > MAX_SIDE:
        most = min(int(LARGEST_SIDE / way.factor), MAX_SIDE)
        size = size_text((request.width, request.height))
        raise RequestError(
            "upscale", f"a picture of {size}", f"one whose sides have at most {most} pixels"
        )
    # At least as many steps as it takes for one of them to be made.
    larger = replace(
        request,
        width=width,
        height=height,
        source=source,
        strength=way.strength,
        steps=max(request.steps, math.ceil(1 / way.strength) if way.strength else 1),
        variation_seed=None,
        variation_strength=0.0,
        nsfw=is_nsfw(request, mode),
    )
    reason = _unfit(larger, mode)
    return (larger, None) if reason is None else (replace(larger, strength=0.0), without(reason))


def falls_back(outcome: object) -> bool:
    """Says whether a picture that could not be drawn larger can be had without the model."""
    return isinstance(outcome, ModelError | OutOfMemoryError)


def without(reason: str) -> str:
    """Returns what is said of a picture that no model drew."""
    return f"Enlarged without a model: {reason}"


def _unfit(larger: GenerationRequest, mode: ModeConfig | None) -> str | None:
    """Returns why no model can draw an enlarged picture; None where one can."""
    if mode is None:
        return f"the mode {larger.mode} is gone."
    if mode.upscale.strength == 0:
        return f"so it is with the mode {mode.title}."
    if mode.model.key != larger.model.key:
        return f"the mode {mode.title} draws with another model now."
    loras = [lora.path for lora in larger.model.loras]
    models = [larger.refiner.path] if larger.refiner else []
    if missing := [*mode.missing(), *(path for path in (*loras, *models) if not exists(path))]:
        return f"{missing[0].name} is missing."
    most = mode.upscale.max_size or mode.max_size
    if max(larger.width, larger.height) > most:
        size = size_text((larger.width, larger.height))
        return f"{size} is more than the mode {mode.title} draws; its longest side is {most}."
    return None
