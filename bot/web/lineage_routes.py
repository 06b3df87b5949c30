"""Families of pictures over HTTP."""

from fastapi import APIRouter

from bot.web.lineage_schemas import FamilyOut
from bot.web.own import OwnJob
from bot.web.problems import PROBLEMS
from bot.web.services import TheStudio

lineage = APIRouter(prefix="/api", responses=PROBLEMS)

MOST = 60
"""Members of a family that are told of."""


@lineage.get("/jobs/{job_id}/family")
async def family(view: OwnJob, studio: TheStudio) -> FamilyOut:
    """What a job was made of, and what was made of that and of it, as far as it is yours."""
    return FamilyOut.of(await studio.lineage.family(view.record, MOST))
