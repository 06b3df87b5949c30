"""What members read who want to know all of a picture. Pure."""

from collections.abc import Iterator

from bot.records import JobRecord, Kinship
from bot.replies import cut, headline, plain
from engine.jobs import GenerationRequest
from modes.request_fields import size_text

_NEGATIVE_LIMIT = 400
_SEEDS = 10
_KIN = {
    Kinship.AGAIN: ("The same again", "the same as {}, with another seed"),
    Kinship.VARY: ("Variation", "a variation of {}"),
    Kinship.UPSCALE: ("Larger", "{}, larger"),
    Kinship.EDIT: ("Edited", "{} with some of it changed"),
    Kinship.REMIX: ("Remix", "drawn from {}"),
}


def details(job: JobRecord, children: int) -> str:
    """Returns all that a member may know of a job.

    Args:
        job: any.
        children: how many buttons lead to what was made of it.
    """
    lines = [headline(job), *(f"- {line}" for line in _lines(job))]
    if children:
        lines.append("-# The buttons below lead to what was made of it.")
    return cut("\n".join(lines))


def kin(job: JobRecord) -> str:
    """Returns what a button that leads to a child is called."""
    if job.parent is None:
        return "Made of it"
    word = _KIN[job.parent.kinship][0]
    return word if job.parent.number is None else f"{word} of {job.parent.number + 1}"


def too_large(job: JobRecord, size: int, limit: int) -> str:
    """Returns what is said of a file that Discord does not take.

    Args:
        job: whose picture it is.
        size: bytes that it has.
        limit: bytes that a file may have here.
    """
    return (
        f"The original has {size / 2**20:.1f} MB, and here a file may have {limit / 2**20:.0f} MB. "
        f"It is kept: `/show {job.id}` brings it in a server that takes larger files, and the "
        "bot's owner has it."
    )


def _lines(job: JobRecord) -> Iterator[str]:
    request = job.request
    yield (
        f"{plain(request.mode, 80)} · {plain(request.model.path.stem, 80)} · "
        f"{size_text((request.width, request.height))} · {request.steps} steps · "
        f"guidance {request.guidance_scale:g} · {request.sampler.value}"
    )
    seeds = [str(image.seed) for image in job.images] or [str(seed) for seed in request.seeds]
    yield f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(seeds[:_SEEDS])}"
    if negative := request.shown_negative:
        yield f"without {plain(negative, _NEGATIVE_LIMIT)}"
    if more := ", ".join(_more(request)):
        yield more
    if job.parent:
        which = "all" if job.parent.number is None else f"picture {job.parent.number + 1}"
        told = _KIN[job.parent.kinship][1].format(f"{which} of `{plain(job.parent.job_id, 80)}`")
        yield told
    if job.note:
        yield plain(job.note)
    took = "" if job.seconds is None else f", drawn in {job.seconds:.1f} s"
    yield f"asked <t:{job.created_at.timestamp():.0f}:f>{took}, `{job.id}`"


def _more(request: GenerationRequest) -> Iterator[str]:
    """Yields what few requests have."""
    for lora in request.model.loras:
        yield f"LoRA {plain(lora.path.stem, 60)} at {lora.strength:g}"
    if request.variation_seed is not None:
        yield f"variation seed {request.variation_seed} at {request.variation_strength:g}"
    if request.source is not None:
        yield f"from a picture, strength {request.strength:g}"
    if request.clip_skip is not None:
        yield f"clip skip {request.clip_skip}"
    if request.model.vae is not None:
        yield f"VAE {plain(request.model.vae.name, 60)}"
    if request.refiner is not None:
        yield f"refiner {plain(request.refiner.path.stem, 60)} from {request.refiner_from:.0%}"
