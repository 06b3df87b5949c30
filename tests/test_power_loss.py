"""What is on the disk at every moment, opened as after a power cut: consistent, nothing lost."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bot.image_folder import ImageFolder
from bot.records import JobRecord
from bot.store import Store
from engine.jobs import GeneratedImage, GenerationResult, JobStatus
from tests.records_kit import ASKED_AT, a_job, done

ALL = ("discord", "web")
LATER = ASKED_AT + timedelta(hours=1)
PNG = b"a whole picture" * 99


@dataclass(frozen=True)
class Promised:
    """What somebody was told before the power went.

    Attributes:
        accepted: jobs that were acknowledged.
        ended: ids of those whose end was told.
        delivered: ids of those whose result arrived.
    """

    accepted: tuple[JobRecord, ...] = ()
    ended: frozenset[str] = frozenset()
    delivered: frozenset[str] = frozenset()


class Day:
    """A short day of a bot: jobs of every fate, each step told once it is on the disk."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.folder = ImageFolder(data / "images")
        self.promised = Promised()
        self.told: Callable[[], None] = lambda: None

    async def pass_by(self, store: Store) -> None:
        drawn, fetched, failed, cancelled, waiting = jobs = [
            a_job("discord"), a_job("web"), a_job("discord"), a_job("web"), a_job("discord")
        ]  # fmt: skip
        for job in jobs:
            await store.add(job)
            self._tell(accepted=(*self.promised.accepted, job))
        for job in (drawn, fetched, failed):
            await store.begin(job.id)
        for job in (drawn, fetched):
            await self._draw(store, job)
        for job, status in ((failed, JobStatus.FAILED), (cancelled, JobStatus.CANCELLED)):
            ended = replace(done(job), status=status, error="so it is")
            await store.settle(ended, carried=job.origin.front_end == "discord")
            self._tell(ended=self.promised.ended | {job.id})
        await store.claim_due(ASKED_AT, LATER, ("discord",), 9)
        await store.delivered(drawn.id, ASKED_AT)
        self._tell(delivered=frozenset({drawn.id}))
        await store.begin(waiting.id)
        await store.give_back(waiting.id)

    async def _draw(self, store: Store, job: JobRecord) -> None:
        pictures = tuple(GeneratedImage(PNG, seed, 8, 8) for seed in range(2))
        result = GenerationResult(job.id, pictures, 1.0, "cpu")
        images = await asyncio.to_thread(self.folder.keep, result, date(2026, 1, 2))
        await store.settle(done(job), images, carried=job.origin.front_end == "discord")
        self._tell(ended=self.promised.ended | {job.id})

    def _tell(self, **news: object) -> None:
        self.promised = replace(self.promised, **news)
        self.told()


async def examine(data: Path, promised: Promised) -> None:
    """Opens what the disk had, as the next start does, and asks for all that was promised."""
    folder = ImageFolder(data / "images")
    async with await Store.open(data / "dreamlab.db") as store:
        for job in promised.accepted:
            record = await store.get(job.id)
            assert record, "an acknowledged request is there"
            assert record.status.is_final or job.id not in promised.ended
        everything = await store.history("web:local", 99)
        for record in everything:
            is_done = record.status is JobStatus.DONE
            assert len(record.images) == (2 if is_done else 0)
            for image in record.images:
                assert folder.path(image).read_bytes() == PNG, "a row has its whole file"
        carried = {
            job.id
            for job in everything
            if job.origin.front_end == "discord" and job.status.is_final
        }
        due = {delivery.job_id for delivery in await store.claim_due(LATER, LATER, ALL, 99)}
        assert due <= carried
        arrived = {job.id for job in promised.accepted[:1]}
        assert carried - due <= arrived, "only what arrived is not due"
        assert not due & promised.delivered
        waiting = await store.requeue(ALL)
        assert {job.id for job in waiting} == {
            job.id for job in everything if not job.status.is_final
        }


def copy(data: Path, to: Path) -> None:
    """Copies what is on the disk; the shared memory beside the log is none of it."""
    shutil.copytree(data, to, ignore=shutil.ignore_patterns("*-shm"))


@asynccontextmanager
async def a_store(data: Path) -> AsyncIterator[Store]:
    async with await Store.open(data / "dreamlab.db") as store:
        yield store


@pytest.mark.slow
async def test_whatever_moment_the_program_is_killed_at_nothing_is_lost_and_all_fits_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    day = Day(data)
    moments: list[tuple[Path, Promised]] = []

    def moment(_: object = None) -> None:
        promised = day.promised  # before the copy: what is promised meanwhile may be missing
        copy(data, tmp_path / str(len(moments)))
        moments.append((tmp_path / str(len(moments)), promised))

    sync = os.fsync

    def syncing(descriptor: int) -> None:
        moment()
        sync(descriptor)
        moment()

    async with a_store(data) as store:
        store._writer._db.set_trace_callback(moment)  # before each statement
        monkeypatch.setattr(os, "fsync", syncing)  # before and after each file and folder
        day.told = moment
        await day.pass_by(store)
        monkeypatch.undo()
        store._writer._db.set_trace_callback(None)

    assert len(moments) > 60
    for folder, promised in moments:
        await examine(folder, promised)


@dataclass(frozen=True)
class Lived:
    """A day that is over: the folder, and how long the log was when each thing was promised."""

    data: Path
    promises: list[tuple[int, Promised]]
    log: bytes = field(repr=False)


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Lived:
    folder = tmp_path_factory.mktemp("lived")

    async def live() -> Lived:
        day = Day(folder / "data")
        log = folder / "data" / "dreamlab.db-wal"
        promises: list[tuple[int, Promised]] = []
        async with a_store(day.data) as store:
            # Everything is in the log, nothing in the database yet.
            await store._write(lambda db: None)
            day.told = lambda: promises.append((log.stat().st_size, day.promised))
            promises.append((log.stat().st_size, day.promised))
            await day.pass_by(store)
            copy(day.data, folder / "copy")
        return Lived(folder / "copy", promises, (folder / "copy" / log.name).read_bytes())

    return asyncio.run(live())


@given(share=st.floats(0, 1), rubbish=st.binary(max_size=64))
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_whatever_of_the_log_the_disk_had_not_written_yet_no_promise_is_broken(
    tmp_path_factory: pytest.TempPathFactory, lived: Lived, share: float, rubbish: bytes
) -> None:
    # A power cut takes what was not synced, and a promise is made after the sync.
    length = int(share * len(lived.log))
    kept = [promised for synced, promised in lived.promises if synced <= length]
    folder = tmp_path_factory.mktemp("cut") / "data"
    copy(lived.data, folder)
    (folder / "dreamlab.db-wal").write_bytes(lived.log[:length] + rubbish)

    if kept:
        asyncio.run(examine(folder, kept[-1]))
