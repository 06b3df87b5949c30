"""New jobs: checked, committed and queued, all of them or none."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from contextvars import copy_context
from datetime import UTC, datetime
from pathlib import Path

from bot import policy
from bot.errors import refuse
from bot.live_jobs import LiveJobs
from bot.offered_loras import OfferedLoras
from bot.priorities import weight_of
from bot.records import JobRecord, Origin, Owner, Parent
from bot.rules import Rules, Usage
from bot.source_files import SourceFiles
from bot.source_images import SourceImage
from bot.store import Store
from engine.errors import PoolClosedError, RequestError
from engine.jobs import GenerationRequest, JobStatus, RequestDraft, new_job_id
from engine.room import smaller
from engine.worker_pool import WorkerPool
from modes.catalog import ModeCatalog
from modes.mode_config import ModeConfig, asks_for_loras


class Intake:
    """Accepts requests of those who may ask: `bot.admission` has let them in."""

    def __init__(
        self,
        store: Store,
        pool: WorkerPool,
        catalog: ModeCatalog,
        sources: SourceFiles,
        live: LiveJobs,
        loras: OfferedLoras,
        weights: Mapping[str, float],
    ) -> None:
        """Takes what it uses, and the weights of roles; see `bot.priorities`."""
        self._store = store
        self._pool = pool
        self._catalog = catalog
        self._sources = sources
        self._live = live
        self._loras = loras
        self._weights = weights
        self._keeping: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Waits until what is being committed is."""
        await asyncio.gather(*self._keeping, return_exceptions=True)

    async def build(
        self, mode: ModeConfig, draft: RequestDraft, source: Path | None
    ) -> GenerationRequest:
        """Returns the request of a draft; a mode whose files are missing is refused at once.

        Args:
            mode: fills in what is left open.
            draft: what is asked for.
            source: of the picture to start from, as `SourceFiles.name` has it; None for none.

        Raises:
            RequestError: something in the draft is not allowed, or a file is missing.
        """
        offered = await self._loras.of(mode) if asks_for_loras(draft) else {}
        request = mode.build_request(draft, source, offered)
        if missing := mode.missing():
            raise RequestError(
                "mode", mode.name, f"a mode that is complete: {missing[0].name} is missing"
            )
        return request

    async def accept(
        self,
        request: GenerationRequest,
        owner: Owner,
        origin: Origin,
        rules: Rules,
        parent: Parent | None,
        source: SourceImage | None = None,
        note: str | None = None,
    ) -> JobRecord:
        """Accepts one request, as `accept_all` does."""
        requests = [(request, origin)]
        (record,) = await self.accept_all(requests, owner, rules, parent, source, note)
        return record

    async def accept_all(
        self,
        requests: Sequence[tuple[GenerationRequest, Origin]],
        owner: Owner,
        rules: Rules,
        parent: Parent | None,
        source: SourceImage | None = None,
        note: str | None = None,
    ) -> list[JobRecord]:
        """Stores requests and queues them; they are committed when this returns.

        Args:
            requests: each with where it comes from; all start from one picture, or none.
            owner: who asks.
            rules: the place's.
            parent: what all of them are made of.
            source: the picture to start from; None for none, or where its file is there already.
            note: a sentence for the asker, as in `JobRecord`.

        Raises:
            NotAllowedError: the rules are against it; nothing was stored.
            OnlyChildError: the parent's picture has its child; likewise.
            RequestError: the picture to start from is gone, or no device has room; likewise.
            QueueFullError: likewise.
            PoolClosedError: likewise.
            DreamLabError: something can't be written; likewise.
        """
        for request, _ in requests:
            refuse(policy.words_refusal(rules, request))
            mode = self._catalog.modes.get(request.mode)
            self._pool.check(request, mode.smaller if mode else smaller)
        now = datetime.now(UTC)
        records = [
            JobRecord(
                id=new_job_id(),
                owner=owner,
                origin=origin,
                request=request,
                status=JobStatus.QUEUED,
                created_at=now,
                parent=parent,
                note=note,
                weight=weight_of(owner, self._weights),
            )
            for request, origin in requests
        ]
        pictures = sum(request.count for request, _ in requests)
        pixel_steps = sum(
            request.count * request.width * request.height * request.steps
            for request, _ in requests
        )

        spoken = copy_context()  # the store's thread has none of whose language it is

        def admit(usage: Usage) -> None:
            refuse(
                spoken.run(
                    policy.usage_refusal,
                    rules,
                    usage,
                    pictures,
                    now,
                    requests=len(requests),
                    pixel_steps=pixel_steps,
                )
            )

        # A task of its own: whoever asks may be gone in the middle of the commit, and a job that is
        # stored but not queued would wait for the next start.
        keeping = asyncio.create_task(
            self._keep(records, source, admit), name=f"keep {records[0].id}"
        )
        self._keeping.add(keeping)
        keeping.add_done_callback(self._keeping.discard)
        await asyncio.shield(keeping)
        return records

    async def _keep(
        self,
        records: Sequence[JobRecord],
        source: SourceImage | None,
        admit: Callable[[Usage], None],
    ) -> None:
        """Commits new jobs and queues them."""
        with self._pool.reserve(records[0].owner.id, len(records)):
            name = records[0].request.source
            if name is None:
                await self._store.add_all(records, admit)
            else:
                async with self._sources.kept(name, source):
                    await self._store.add_all(records, admit)
            # A shutdown may have begun meanwhile. What is committed is drawn at the next start.
            with suppress(PoolClosedError):
                for record in records:
                    await self._live.add(record)
