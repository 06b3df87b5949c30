"""What members read who want to know all of a picture. Pure."""

from collections.abc import Iterator, Sequence

from bot.phrasebook import retold
from bot.records import JobRecord, Kinship
from bot.replies import cut, file_name, headline, plain
from bot.speech import later, named, tr, trn
from engine.jobs import GenerationRequest
from modes.request_fields import size_text

_NEGATIVE_LIMIT = 400
_SEEDS = 10
_KIN = {
    Kinship.AGAIN: (later("The same again"), later("the same as {which}, with another seed")),
    Kinship.VARY: (later("Variation"), later("a variation of {which}")),
    Kinship.UPSCALE: (later("Larger"), later("{which}, larger")),
    Kinship.EDIT: (later("Edited"), later("{which} with some of it changed")),
    Kinship.REMIX: (later("Remix"), later("drawn from {which}")),
}


def details(job: JobRecord, children: int) -> str:
    """Returns all that a member may know of a job.

    Args:
        job: any.
        children: how many buttons lead to what was made of it.
    """
    lines = [headline(job), *(f"- {line}" for line in _lines(job))]
    if children:
        lines.append(f"-# {tr('The buttons below lead to what was made of it.')}")
    return cut("\n".join(lines))


def kin(job: JobRecord) -> str:
    """Returns what a button that leads to a child is called."""
    if job.parent is None:
        return tr("Made of it")
    word = tr(_KIN[job.parent.kinship][0])
    if job.parent.number is None:
        return word
    return tr("{what}, picture {number}", what=word, number=job.parent.number + 1)


def too_large(job: JobRecord, size: int, limit: int) -> str:
    """Returns what is said of a file that Discord does not take.

    Args:
        job: whose picture it is.
        size: bytes that it has.
        limit: bytes that a file may have here.
    """
    return tr(
        "The original has {size} MB, and here a file may have {limit} MB. It is kept: "
        "{command} brings it in a server that takes larger files, and the bot's owner has it.",
        size=f"{size / 2**20:.1f}",
        limit=f"{limit / 2**20:.0f}",
        command=f"`/{named('show')} {job.id}`",
    )


def _lines(job: JobRecord) -> Iterator[str]:
    request = job.request
    facts = [
        plain(request.mode, 80),
        file_name(request.model.path),
        size_text((request.width, request.height)),
        trn("{count} step", "{count} steps", count=request.steps),
        tr("guidance {scale}", scale=f"{request.guidance_scale:g}"),
        request.sampler.value,
    ]
    yield " · ".join(facts)
    seeds = [str(image.seed) for image in job.images] or [str(seed) for seed in request.seeds]
    yield _seeds(seeds)
    if negative := request.shown_negative:
        yield tr("without {words}", words=plain(negative, _NEGATIVE_LIMIT))
    if more := ", ".join(_more(request)):
        yield more
    if job.parent:
        whole = f"`{plain(job.parent.job_id, 80)}`"
        which = tr("all of {job}", job=whole)
        if job.parent.number is not None:
            which = tr("picture {number} of {job}", number=job.parent.number + 1, job=whole)
        yield tr(_KIN[job.parent.kinship][1], which=which)
    if job.note:
        yield plain(retold(job.note))
    parts = [tr("asked {moment}", moment=f"<t:{job.created_at.timestamp():.0f}:f>")]
    if job.seconds is not None:
        parts.append(tr("drawn in {time}", time=tr("{number} s", number=f"{job.seconds:.1f}")))
    yield ", ".join([*parts, f"`{job.id}`"])


def _seeds(seeds: Sequence[str]) -> str:
    if len(seeds) == 1:
        return tr("seed {seed}", seed=seeds[0])
    return tr("seeds {seeds}", seeds=", ".join(seeds[:_SEEDS]))


def _more(request: GenerationRequest) -> Iterator[str]:
    """Yields what few requests have."""
    for lora in request.model.loras:
        name, strength = file_name(lora.path), f"{lora.strength:g}"
        yield f"LoRA {tr('{name} at {strength}', name=name, strength=strength)}"
    if request.variation_seed is not None:
        yield tr(
            "variation seed {seed} at {strength}",
            seed=request.variation_seed,
            strength=f"{request.variation_strength:g}",
        )
    if request.source is not None:
        yield tr("from a picture, strength {strength}", strength=f"{request.strength:g}")
    if request.clip_skip is not None:
        yield tr("clip skip {layer}", layer=request.clip_skip)
    if request.model.vae is not None:
        yield tr("VAE {name}", name=plain(request.model.vae.name, 60))
    if request.refiner is not None:
        yield tr(
            "refiner {name} from {share}",
            name=file_name(request.refiner.path),
            share=f"{request.refiner_from:.0%}",
        )
