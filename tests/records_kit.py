"""Records for tests, with everything that a test doesn't care about filled in."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bot.records import ImageRecord, JobRecord, Origin, Owner
from engine.jobs import GenerationRequest, JobStatus, LoraSpec, ModelSpec, Sampler, new_job_id

ASKED_AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def a_request(**changes: Any) -> GenerationRequest:
    request = GenerationRequest(
        mode="demo",
        model=ModelSpec(Path("models/x"), (LoraSpec(Path("loras/y"), 0.5),), "epsilon"),
        prompt="a lighthouse at dawn \N{SUNRISE}",
        negative_prompt="",
        width=128,
        height=64,
        steps=20,
        guidance_scale=3.0,
        sampler=Sampler.DPMPP_2M_KARRAS,
        seed=7,
    )
    return replace(request, **changes)


def a_job(
    front_end: str = "web",
    owner: str = "web:local",
    address: Mapping[str, Any] | None = None,
    **changes: Any,
) -> JobRecord:
    record = JobRecord(
        id=new_job_id(),
        owner=Owner(owner, "Ada"),
        origin=Origin(front_end, "discord:1", address or {}),
        request=a_request(),
        status=JobStatus.QUEUED,
        created_at=ASKED_AT,
    )
    return replace(record, **changes)


def done(job: JobRecord) -> JobRecord:
    return replace(job, status=JobStatus.DONE, finished_at=ASKED_AT, seconds=1.5, attempts=1)


def an_image(job: JobRecord, number: int = 0) -> ImageRecord:
    image_id = new_job_id()
    path = f"2026-01-02/{image_id}.png"
    return ImageRecord(image_id, job.id, path, 2**32 - 1, 128, 64, number)
