"""More of what was drawn: once more, edited, varied, enlarged."""

from bot import remakes
from bot.admission import Admission, covered
from bot.intake import Intake
from bot.lineage import Lineage
from bot.lookup import stored_image, stored_job
from bot.records import Child, ImageRecord, JobRecord, Kinship, Origin, Owner, Parent
from bot.rules import Rules
from bot.source_files import SourceFiles
from bot.source_images import SourceImage
from bot.store import Store
from bot.store_lineage import OnlyChildError
from engine.jobs import GenerationRequest, RequestDraft
from modes.catalog import ModeCatalog


class Remaker:
    """Asks for what is made of earlier requests and their pictures."""

    def __init__(
        self,
        store: Store,
        catalog: ModeCatalog,
        lineage: Lineage,
        admission: Admission,
        intake: Intake,
        sources: SourceFiles,
    ) -> None:
        """Takes what it uses."""
        self._store = store
        self._catalog = catalog
        self._lineage = lineage
        self._admission = admission
        self._intake = intake
        self._sources = sources

    async def again(
        self, job_id: str, owner: Owner, origin: Origin, *, vary: bool = False
    ) -> JobRecord:
        """Asks for the same once more: with a fresh seed, or varied, the seed kept.

        Of an enlarged picture it is what was enlarged.

        Raises:
            UnknownJobError: no such job.
            NotAllowedError: as `Studio.submit`.
            RequestError: likewise.
        """
        earlier = await self._unenlarged(job_id)
        mode = self._catalog.get(earlier.mode)
        rules = await self._admission.enter(mode, owner, origin)
        draft = remakes.draft_of(earlier, mode, seed=earlier.seed if vary else None)
        request = await self._intake.build(mode, draft, earlier.source)
        request = remakes.varied(request) if vary else request
        parent = Parent(job_id, None, Kinship.VARY if vary else Kinship.AGAIN)
        return await self._intake.accept(
            request, owner, covered(request, mode, origin), rules, parent
        )

    async def edit(
        self, job_id: str, draft: RequestDraft, owner: Owner, origin: Origin
    ) -> JobRecord:
        """Asks for what somebody has made of an earlier request; its picture to start from stays.

        Of an enlarged picture it is what was enlarged.

        Raises:
            UnknownJobError: no such job.
            NotAllowedError: as `Studio.submit`.
            RequestError: likewise.
        """
        earlier = await self._unenlarged(job_id)
        mode = self._catalog.get(draft.mode or earlier.mode)
        rules = await self._admission.enter(mode, owner, origin)
        request = await self._intake.build(mode, draft, earlier.source)
        parent = Parent(job_id, None, Kinship.EDIT)
        return await self._intake.accept(
            request, owner, covered(request, mode, origin), rules, parent
        )

    async def vary(self, image_id: str, owner: Owner, origin: Origin) -> Child:
        """Asks for a picture that resembles one, unless there is one: its seed and a second noise.

        Of an enlarged picture it is what was enlarged that is varied.

        Raises:
            UnknownImageError: no such picture.
            NotAllowedError: as `Studio.submit`.
            RequestError: likewise.
        """
        image, job = await self._pictured(image_id)
        mode = self._catalog.get(job.request.mode)
        rules = await self._admission.enter(mode, owner, origin)
        parent = Parent(job.id, image.number, Kinship.VARY)
        if child := await self._lineage.only_child(parent):
            return Child(child, is_new=False)
        earlier = (await self._lineage.unenlarged(job)).request
        draft = remakes.draft_of(remakes.single(earlier, image.seed), mode, seed=image.seed)
        request = remakes.varied(await self._intake.build(mode, draft, earlier.source))
        return await self._bear(request, owner, covered(request, mode, origin), rules, parent)

    async def upscale(self, image_id: str, owner: Owner, origin: Origin) -> Child:
        """Asks for a picture to be enlarged, unless it was: drawn in part anew, by its own model.

        Where no model fits, it is enlarged without; the job's note says so.

        Raises:
            UnknownImageError: no such picture.
            NotAllowedError: as `Studio.submit`.
            RequestError: likewise, or it is too large already.
        """
        image, job = await self._pictured(image_id)
        mode = self._catalog.modes.get(job.request.mode)
        if mode:
            await self._admission.enter(mode, owner, origin)
        # The picture stays what it is, whatever has become of its mode.
        rules = await self._admission.enter_to_show(job, owner, origin)
        parent = Parent(job.id, image.number, Kinship.UPSCALE)
        if child := await self._lineage.only_child(parent):
            return Child(child, is_new=False)
        source = await self._sources.read_drawn(image)
        request, note = remakes.enlarged(
            remakes.single(job.request, image.seed), self._sources.name(source), mode
        )
        return await self._bear(
            request, owner, covered(request, mode, origin), rules, parent, source=source, note=note
        )

    async def _bear(
        self,
        request: GenerationRequest,
        owner: Owner,
        origin: Origin,
        rules: Rules,
        parent: Parent,
        *,
        source: SourceImage | None = None,
        note: str | None = None,
    ) -> Child:
        """Accepts the one child of a picture; whoever comes second gets the first one's."""
        try:
            job = await self._intake.accept(request, owner, origin, rules, parent, source, note)
        except OnlyChildError as error:
            return Child(await stored_job(self._store, error.child_id), is_new=False)
        return Child(job, is_new=True)

    async def _unenlarged(self, job_id: str) -> GenerationRequest:
        job = await stored_job(self._store, job_id)
        return (await self._lineage.unenlarged(job)).request

    async def _pictured(self, image_id: str) -> tuple[ImageRecord, JobRecord]:
        image = await stored_image(self._store, image_id)
        return image, await stored_job(self._store, image.job_id)
