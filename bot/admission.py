"""Who is let do what where: looks up what counts there and refuses by `bot.policy`."""

from dataclasses import replace

from bot import policy
from bot.errors import refuse
from bot.house import House
from bot.records import JobRecord, Origin, Owner
from bot.rules import Rules
from engine.jobs import GenerationRequest
from modes.catalog import ModeCatalog
from modes.mode_config import ModeConfig


class Admission:
    """Lets people draw and show pictures where they may."""

    def __init__(self, house: House, catalog: ModeCatalog) -> None:
        """Takes what places allow, and the modes."""
        self._house = house
        self._catalog = catalog

    async def enter(self, mode: ModeConfig, owner: Owner, origin: Origin) -> Rules:
        """Returns what the place allows to somebody who may draw there.

        Raises:
            NotAllowedError: they may not.
        """
        standing = await self._house.standing(origin.place, owner.id)
        refuse(policy.draw_refusal(standing, mode, owner, origin))
        return standing.rules

    async def enter_to_show(self, job: JobRecord, asker: Owner, origin: Origin) -> Rules:
        """Returns what the place allows to somebody who may have a job's pictures posted there.

        Raises:
            NotAllowedError: they may not.
        """
        standing = await self._house.standing(origin.place, asker.id)
        mode = self._catalog.modes.get(job.request.mode)
        refuse(policy.show_refusal(standing, job, mode, asker, origin))
        return standing.rules

    def is_covered(self, job: JobRecord, origin: Origin) -> bool:
        """Says whether a job's pictures are shown as spoilers somewhere."""
        mode = self._catalog.modes.get(job.request.mode)
        return policy.is_covered(job.request, mode, origin)


def covered(request: GenerationRequest, mode: ModeConfig | None, origin: Origin) -> Origin:
    """Returns where a request comes from, with the note that its pictures are spoilers."""
    if not policy.is_covered(request, mode, origin):
        return origin
    return replace(origin, address={**origin.address, "spoiler": True})
