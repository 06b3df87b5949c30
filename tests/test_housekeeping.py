"""Housekeeping: what goes, what stays whatever the limits, and that files and rows go together."""

import logging
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.housekeeping import SAFE_AGE, Housekeeper, Limits, expired, lost_pictures, strays
from bot.image_folder import ImageFolder, PictureFile
from bot.records import FinishedJob, JobRecord, Kinship, Parent
from bot.source_images import SourceImage
from bot.store import Store
from engine.jobs import GeneratedImage, GenerationResult
from tests.records_kit import a_job, a_request, done

NOW = datetime(2026, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)

# Deciding

JOBS = st.lists(st.tuples(st.integers(0, 30), st.lists(st.integers(0, 50), max_size=3)), max_size=9)
LIMITS = st.builds(
    Limits,
    st.none() | st.integers(0, 30).map(lambda days: days * DAY),
    st.none() | st.integers(0, 500),
)


def finished(days_and_sizes: Sequence[tuple[int, list[int]]]) -> tuple[list[FinishedJob], dict]:
    jobs, sizes = [], {}
    for number, (days, bytes_) in enumerate(sorted(days_and_sizes, reverse=True)):
        paths = tuple(f"{number}/{i}" for i in range(len(bytes_)))
        sizes |= dict(zip(paths, bytes_, strict=True))
        jobs.append(FinishedJob(str(number), NOW - days * DAY, paths))
    return jobs, sizes


@given(JOBS, LIMITS, st.integers(0, 200))
def test_the_oldest_go_no_more_than_needed_and_what_stays_fits(
    given_jobs: list[tuple[int, list[int]]], limits: Limits, others: int
) -> None:
    jobs, sizes = finished(given_jobs)
    total = sum(sizes.values()) + others

    gone = expired(jobs, sizes, limits, total, NOW)

    kept = jobs[len(gone) :]
    assert gone == [job.id for job in jobs[: len(gone)]], "the oldest"

    def needed(job: FinishedJob, left: int) -> bool:
        too_old = limits.age is not None and NOW - job.finished_at > limits.age
        return too_old or (limits.size is not None and left > limits.size)

    left = total
    for job in jobs[: len(gone)]:
        assert needed(job, left), "no more than needed"
        left -= sum(sizes[path] for path in job.paths)
    assert not kept or not needed(kept[0], left), "all that must"


@given(JOBS, st.integers(0, 10**6))
def test_without_limits_nothing_goes(jobs: list[tuple[int, list[int]]], total: int) -> None:
    assert expired(*finished(jobs), Limits(), total, NOW) == []


MOMENTS = st.integers(-300, 300).map(lambda minutes: NOW + timedelta(minutes=minutes))


@given(st.dictionaries(st.text(max_size=3), MOMENTS), st.none() | MOMENTS, MOMENTS)
def test_only_files_of_an_earlier_life_that_are_old_enough_are_strays(
    written: dict[str, datetime], oldest: datetime | None, started: datetime
) -> None:
    files = {path: PictureFile(1, moment) for path, moment in written.items()}

    for path in strays(files, oldest, started, NOW):
        assert oldest is not None
        assert written[path] >= oldest, "a database that began anew owns none of the old pictures"
        assert written[path] < started, "this program's own files have rows, or are about to"
        assert written[path] < NOW - SAFE_AGE, "a command may be about to store its row"


# Doing


@dataclass
class House:
    """A data folder and who keeps it."""

    data: Path
    store: Store
    images: ImageFolder

    async def tidy(self, limits: Limits = Limits(), *, started: datetime = NOW) -> None:  # noqa: B008 # frozen
        await self.keeper(limits, started).tidy(NOW)

    def keeper(self, limits: Limits, started: datetime = NOW) -> Housekeeper:
        async def remove_sources(paths: Sequence[str]) -> None:
            self.images.discard(await self.store.unknown(paths))

        keeper = Housekeeper(self.store, self.images, remove_sources, limits)
        keeper._started = started
        return keeper

    async def finished(
        self,
        days: int,
        *,
        carried: bool = False,
        size: int = 1000,
        front_end: str = "web",
        source: Path | None = None,
    ) -> JobRecord:
        """Draws a job that ended so many days ago."""
        ended = NOW - days * DAY
        job = a_job(front_end, created_at=ended, request=a_request(source=source))
        await self.store.add(job)
        drawn = GeneratedImage(b"x" * size, 1, 8, 8)
        images = self.images.keep(GenerationResult(job.id, (drawn,), 1.0, "cpu"), ended.date())
        await self.store.settle(replace(done(job), finished_at=ended), images, carried=carried)
        return job

    def source(self, content: bytes) -> Path:
        """Keeps a picture to draw from."""
        picture = SourceImage(content, 8, 8)
        self.images.keep_source(picture)
        return self.images.source_of(picture)

    async def left(self, *jobs: JobRecord) -> list[bool]:
        """Says which jobs are still known; each has its rows and files, or neither."""
        found = [await self.store.get(job.id) for job in jobs]
        for record in filter(None, found):
            assert all(self.images.path(image).is_file() for image in record.images)
        known = {image.path for record in filter(None, found) for image in record.images}
        assert {path for path in self.images.survey() if not self.images.is_source(path)} == known
        return [record is not None for record in found]


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with await Store.open(tmp_path / "dreamlab.db") as store:
        yield House(tmp_path, store, ImageFolder(tmp_path / "images"))


async def test_what_is_older_than_its_days_goes_with_its_pictures(house: House) -> None:
    jobs = [await house.finished(days) for days in (40, 31, 29, 0)]

    await house.tidy(Limits(age=30 * DAY))

    assert await house.left(*jobs) == [False, False, True, True]


async def test_what_is_too_much_goes_oldest_first(house: House) -> None:
    jobs = [await house.finished(days, size=1000) for days in (1, 4, 3, 2)]

    await house.tidy(Limits(size=2500))

    assert await house.left(*jobs) == [True, False, False, True]


async def test_pictures_to_draw_from_count_when_it_is_decided_what_is_too_much(
    house: House,
) -> None:
    sources = [house.source(bytes([number]) * 2000) for number in range(4)]
    jobs = [await house.finished(9 - days, source=source) for days, source in enumerate(sources)]

    await house.tidy(Limits(size=3 * 3000))

    assert await house.left(*jobs) == [False, True, True, True]
    found = [house.images.source_path(source).is_file() for source in sources]
    assert found == [False, True, True, True]


async def test_a_picture_to_draw_from_makes_no_room_before_the_last_job_that_has_it_goes(
    house: House,
) -> None:
    shared = house.source(b"x" * 2000)
    jobs = [await house.finished(days, source=shared) for days in (9, 8, 7)]
    jobs.append(await house.finished(6))
    file = house.images.source_path(shared)

    await house.tidy(Limits(size=4500))
    assert await house.left(*jobs) == [False, False, True, True]
    assert file.is_file()

    await house.tidy(Limits(size=1500))
    assert await house.left(*jobs) == [False, False, False, True]
    assert not file.exists()


async def test_a_picture_to_draw_from_makes_no_room_while_a_job_that_stays_has_it(
    house: House,
) -> None:
    shared = house.source(b"x" * 2000)
    stays = await house.finished(9, source=shared, carried=True, front_end="discord")
    jobs = [await house.finished(days, source=shared) for days in (8, 7)]
    await house.store.add(a_job(request=a_request(source=shared), created_at=NOW))

    await house.tidy(Limits(size=3999))

    assert await house.left(stays, *jobs) == [True, False, False]
    assert house.images.source_path(shared).is_file()


async def test_by_default_everything_is_kept(house: House) -> None:
    job = await house.finished(9999)

    await house.tidy()

    assert await house.left(job) == [True]


async def test_more_than_one_transaction_takes_go_in_one_tidying(house: House) -> None:
    jobs = [await house.finished(50, size=1) for _ in range(250)]

    await house.tidy(Limits(age=DAY))

    assert not any(await house.left(*jobs))


async def test_what_is_undelivered_unfinished_or_repeated_stays_whatever_the_limits(
    house: House,
) -> None:
    undelivered = await house.finished(99, carried=True, front_end="discord")
    delivered = await house.finished(99, carried=True, front_end="discord")
    await house.store.delivered(delivered.id, NOW)
    given_up = await house.finished(99, carried=True, front_end="discord")
    await house.store.postpone(given_up.id, None, "the channel is gone")
    repeated = await house.finished(99)
    parent = Parent(repeated.id, None, Kinship.AGAIN)
    waiting = a_job(parent=parent, created_at=NOW - 99 * DAY)
    running = a_job(created_at=NOW - 99 * DAY)
    for job in (waiting, running):
        await house.store.add(job)
    await house.store.begin(running.id)

    await house.tidy(Limits(age=DAY, size=0))

    jobs = (undelivered, delivered, given_up, repeated, waiting, running)
    assert await house.left(*jobs) == [True, False, False, True, True, True]


async def test_a_picture_to_draw_from_goes_with_the_last_job_that_has_it(house: House) -> None:
    path = house.source(b"a picture")
    file = house.images.source_path(path)
    old, young = (
        a_job(request=a_request(source=path), created_at=NOW - days * DAY) for days in (9, 1)
    )
    for job, days in ((old, 9), (young, 1)):
        await house.store.add(job)
        await house.store.begin(job.id)
        ended = replace(done(job), finished_at=NOW - days * DAY)
        await house.store.settle(ended, carried=False)

    await house.tidy(Limits(age=5 * DAY))
    assert file.is_file()
    assert await house.left(old, young) == [False, True]

    await house.tidy(Limits(age=timedelta(0)))
    assert not file.is_file()


async def test_the_file_of_the_database_shrinks(house: House, tmp_path: Path) -> None:
    for _ in range(500):
        job = a_job(request=a_request(prompt="x" * 2000), created_at=NOW - 9 * DAY)
        await house.store.add(job)
        await house.store.begin(job.id)
        await house.store.settle(replace(done(job), finished_at=NOW - 9 * DAY), carried=False)

    async def pages() -> int:
        [(count,)] = await house.store._rows("PRAGMA page_count")
        return int(count)

    before = await pages()
    await house.tidy(Limits(age=DAY))

    assert await pages() < before / 4


def aged(path: Path, age: timedelta, size: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    os.utime(path, ((NOW - age).timestamp(),) * 2)
    return path


async def test_files_that_a_crash_left_are_swept_and_the_owners_stay(house: House) -> None:
    job = await house.finished(20)
    images = house.data / "images"
    swept = [
        aged(images / "2026-05-20" / "abcdefghijklmnop.png", DAY),
        aged(images / "2026-05-20" / "abcdefghijklmnop.part", DAY),
        aged(images / "sources" / ("0" * 64 + ".png"), DAY),
    ]
    kept = [
        aged(images / "2026-05-31" / "young-enough-000.png", SAFE_AGE / 2),
        aged(images / "2020-01-01" / "of-an-older-base.png", 999 * DAY),
        aged(images / "favourites" / "sunset.png", DAY),
        aged(images / "2026-05-20" / "notes.txt", DAY),
    ]

    await house.tidy()

    assert not any(path.exists() for path in swept)
    assert all(path.exists() for path in kept)
    record = await house.store.get(job.id)
    assert record
    assert house.images.path(record.images[0]).is_file()


async def test_pictures_stay_where_the_database_began_anew(house: House) -> None:
    picture = aged(house.data / "images" / "2026-05-20" / "abcdefghijklmnop.png", DAY)

    await house.tidy()
    assert picture.exists()

    await house.store.add(a_job(created_at=NOW))
    await house.tidy()
    assert picture.exists()


async def test_what_a_database_before_left_takes_nothing_of_the_budget_and_is_told_once(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    before = [
        aged(house.data / "images" / "2025-01-01" / f"of-an-older-base{n}.png", 400 * DAY, 50_000)
        for n in range(2)
    ]
    reused = house.source(b"x" * 2000)  # sent to the older one already, and to this one again
    aged(house.images.source_path(reused), 400 * DAY, 2000)
    jobs = [await house.finished(days, size=1000) for days in (3, 2, 1)]
    jobs.append(await house.finished(0, size=1000, source=reused))
    keeper = house.keeper(Limits(size=4500))

    with caplog.at_level(logging.WARNING):
        await keeper.tidy(NOW)
        await keeper.tidy(NOW)

    known = [await house.store.get(job.id) is not None for job in jobs]
    assert known == [False, False, True, True]
    assert all(path.exists() for path in before)
    assert len(caplog.messages) == 1
    assert "2 picture files (0.00 GB) are older than all requests" in caplog.text


async def test_rows_without_files_are_counted(house: House) -> None:
    jobs = [await house.finished(1) for _ in range(3)]
    lost = await house.store.get(jobs[0].id)
    assert lost
    house.images.remove(lost.images)

    assert lost_pictures(house.data / "dreamlab.db", house.data / "images") == (3, 1)


def test_a_day_is_a_folder_that_is_surveyed(tmp_path: Path) -> None:
    folder = ImageFolder(tmp_path / "images")
    assert folder.survey() == {}
    drawn = GeneratedImage(b"12345", 1, 8, 8)
    [image] = folder.keep(GenerationResult("x", (drawn,), 1.0, "cpu"), date(2026, 1, 2))

    assert {path: file.size for path, file in folder.survey().items()} == {image.path: 5}
