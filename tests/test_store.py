import asyncio
import contextlib
import shutil
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from bot.database import StoreError, StoreUnavailableError, problem, write_problem
from bot.records import Delivery, JobRecord, Kinship, Parent
from bot.store import Store
from engine.jobs import JobStatus
from tests.records_kit import ASKED_AT, a_job, a_request, an_image, done

ROOT = Path(__file__).parent.parent
ALL = ("discord", "web", "cli")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with await Store.open(tmp_path / "data" / "dreamlab.db") as store:
        yield store


async def test_a_job_comes_back_as_it_was_stored(store: Store) -> None:
    parent = Parent("p", 2, Kinship.VARY)
    address = {"channel_id": 2**63, "token": "t"}
    job = a_job("discord", address=address, parent=parent, note="done so")

    await store.add(job)

    assert await store.get(job.id) == job


async def test_an_unknown_job_is_none(store: Store) -> None:
    assert await store.get("nobody") is None


async def test_an_old_request_without_the_newer_fields_can_be_read(
    store: Store, tmp_path: Path
) -> None:
    job = a_job()
    await store.add(job)
    with sqlite3.connect(tmp_path / "data" / "dreamlab.db") as db:
        newer = "'$.variation_seed', '$.typed_prompt', '$.typed_negative', '$.nsfw'"
        db.execute(f"UPDATE jobs SET request = json_remove(request, {newer})")  # noqa: S608 # ours

    assert await store.get(job.id) == job


async def test_a_job_runs_once(store: Store) -> None:
    job = a_job()
    await store.add(job)

    assert await store.begin(job.id)
    assert not await store.begin(job.id)

    running = await store.get(job.id)
    assert running is not None
    assert (running.status, running.attempts) == (JobStatus.RUNNING, 1)


async def test_a_result_is_stored_with_its_pictures_in_order(store: Store) -> None:
    job = a_job()
    await store.add(job)
    images = [an_image(job, number) for number in range(3)]

    assert await store.settle(done(job), images, carried=False)

    assert await store.get(job.id) == replace(done(job), images=tuple(images))
    assert await store.image(images[1].id) == images[1]


async def test_a_job_ends_once(store: Store) -> None:
    job = a_job("discord")
    await store.add(job)
    await store.settle(done(job), carried=True)

    failed = replace(done(job), status=JobStatus.FAILED, error="late")

    assert not await store.settle(failed, [an_image(job)], carried=True)
    assert await store.get(job.id) == done(job)


async def test_a_result_that_can_not_be_stored_whole_is_not_stored_at_all(store: Store) -> None:
    job = a_job("discord")
    await store.add(job)
    image = an_image(job)

    with pytest.raises(sqlite3.IntegrityError):
        await store.settle(done(job), [image, image], carried=True)

    assert await store.get(job.id) == job
    assert await store.claim_due(ASKED_AT, ASKED_AT, ALL, 9) == []


async def test_what_was_unfinished_waits_again_in_its_old_order(store: Store) -> None:
    jobs = [a_job() for _ in range(4)]
    for job in jobs:
        await store.add(job)
    await store.begin(jobs[2].id)
    await store.settle(done(jobs[1]), carried=False)

    waiting = await store.requeue(ALL)

    assert [job.id for job in waiting] == [jobs[i].id for i in (0, 2, 3)]
    assert {job.status for job in waiting} == {JobStatus.QUEUED}


async def test_only_the_named_front_ends_jobs_wait_again(store: Store) -> None:
    web, command = a_job("web"), a_job("cli")
    for job in (web, command):
        await store.add(job)
        await store.begin(job.id)

    assert [job.id for job in await store.requeue(("web",))] == [web.id]

    untouched = await store.get(command.id)
    assert untouched is not None
    assert untouched.status is JobStatus.RUNNING


async def test_history_is_newest_first_and_of_one_owner(store: Store) -> None:
    jobs = [a_job(owner="ada"), a_job(owner="bob"), a_job(owner="ada")]
    for job in jobs:
        await store.add(job)

    assert await store.history("ada", 10) == [jobs[2], jobs[0]]
    assert await store.history("ada", 1) == [jobs[2]]


async def test_forgotten_pictures_are_gone(store: Store) -> None:
    job = a_job()
    await store.add(job)
    image = an_image(job)
    await store.settle(done(job), [image], carried=False)

    await store.forget_images(job.id)

    assert await store.image(image.id) is None
    assert await store.get(job.id) == done(job)


async def test_a_delivery_is_claimed_once_until_its_time_is_over(store: Store) -> None:
    job = a_job("discord")
    await store.add(job)
    await store.settle(done(job), carried=True)
    later = ASKED_AT + timedelta(minutes=2)

    assert await store.claim_due(ASKED_AT, later, ALL, 9) == [Delivery(job.id, 1)]
    assert await store.claim_due(ASKED_AT, later, ALL, 9) == []
    assert await store.next_due(ALL) == later
    assert await store.claim_due(later, later, ALL, 9) == [Delivery(job.id, 2)]


async def test_deliveries_of_other_front_ends_wait_for_their_courier(store: Store) -> None:
    job = a_job("discord")
    await store.add(job)
    await store.settle(done(job), carried=True)

    assert await store.claim_due(ASKED_AT, ASKED_AT, (), 9) == []
    assert await store.claim_due(ASKED_AT, ASKED_AT, ("web",), 9) == []
    assert await store.next_due(("web",)) is None


async def test_what_was_delivered_or_given_up_is_never_due(store: Store) -> None:
    jobs = [a_job("discord") for _ in range(2)]
    for job in jobs:
        await store.add(job)
        await store.settle(done(job), carried=True)

    await store.delivered(jobs[0].id, ASKED_AT)
    await store.postpone(jobs[1].id, None, "the channel is gone")
    await store.claim_anew(ASKED_AT)

    assert await store.next_due(ALL) is None
    assert await store.claim_due(ASKED_AT + timedelta(days=9), ASKED_AT, ALL, 9) == []


async def test_a_restart_tries_postponed_deliveries_at_once(store: Store) -> None:
    job = a_job("discord")
    await store.add(job)
    await store.settle(done(job), carried=True)
    await store.postpone(job.id, ASKED_AT + timedelta(hours=1), "500")

    await store.claim_anew(ASKED_AT)

    assert await store.next_due(ALL) == ASKED_AT


async def test_a_report_is_kept_for_each_place(store: Store) -> None:
    job = a_job()
    await store.add(job)

    assert await store.report(job.id, "discord:1", ASKED_AT)
    assert await store.report(job.id, "discord:2", ASKED_AT)
    await store.withdraw_report(job.id, "discord:1")

    assert await store.report(job.id, "discord:1", ASKED_AT)
    assert not await store.report(job.id, "discord:2", ASKED_AT)


async def test_a_place_keeps_its_last_choice(store: Store) -> None:
    assert await store.chosen_modes("discord:1") == []

    await store.choose_mode("discord:1", "demo")
    await store.choose_mode("discord:1", "portrait")

    assert await store.chosen_modes("discord:1") == ["portrait"]
    assert await store.chosen_modes("discord:2") == []


async def test_a_threads_choice_stands_before_its_channels_and_that_before_its_places(
    store: Store,
) -> None:
    await store.choose_mode("discord:1", "demo")
    await store.choose_mode("discord:1", "portrait", channel="9")
    await store.choose_mode("discord:1", "sketch", channel="10")
    await store.choose_mode("discord:2", "other", channel="9")

    assert await store.chosen_modes("discord:1", ["9", "10", "11"]) == [
        "sketch",
        "portrait",
        "demo",
    ]
    assert await store.chosen_modes("discord:1", ["9"]) == ["portrait", "demo"]


async def test_what_was_committed_is_there_when_opened_again(tmp_path: Path) -> None:
    job = a_job()
    async with await Store.open(tmp_path / "x.db") as store:
        await store.add(job)

    async with await Store.open(tmp_path / "x.db") as store:
        assert await store.get(job.id) == job


async def test_many_at_once_do_not_mix_their_transactions(store: Store) -> None:
    jobs = [a_job("discord") for _ in range(50)]

    async def live(number: int) -> None:
        await store.add(jobs[number])
        await store.begin(jobs[number].id)
        await store.settle(done(jobs[number]), [an_image(jobs[number])], carried=True)

    await asyncio.gather(*(live(number) for number in range(50)))

    assert len(await store.claim_due(ASKED_AT, ASKED_AT, ALL, 99)) == 50


async def test_a_cancelled_writer_leaves_the_store_usable(store: Store) -> None:
    jobs = [a_job() for _ in range(20)]
    tasks = [asyncio.create_task(store.add(job)) for job in jobs]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)

    stored = {job.id for job in await store.requeue(ALL)}

    assert {job.id for job, end in zip(jobs, ended, strict=True) if end is None} <= stored


# States


def row(store_path: Path, job_id: str) -> tuple[str, int, int]:
    """Returns a job's status, its pictures and its deliveries, as the file has them."""
    with sqlite3.connect(store_path) as db:
        found: tuple[str, int, int] = db.execute(
            "SELECT status, (SELECT count(*) FROM images WHERE job_id = jobs.id),"
            " (SELECT count(*) FROM outbox WHERE job_id = jobs.id) FROM jobs WHERE id = ?",
            (job_id,),
        ).fetchone()
    return found


async def become(store: Store, job: JobRecord, status: JobStatus) -> bool:
    """Asks for a status in the one way that there is to it; says whether it came."""
    if status is JobStatus.QUEUED:
        return await store.give_back(job.id)
    if status is JobStatus.RUNNING:
        return await store.begin(job.id)
    ended = replace(done(job), status=status)
    images = [an_image(job)] if status is JobStatus.DONE else []
    return await store.settle(ended, images, carried=True)


WAYS = {
    JobStatus.QUEUED: (),
    JobStatus.RUNNING: (JobStatus.RUNNING,),
    JobStatus.DONE: (JobStatus.RUNNING, JobStatus.DONE),
    JobStatus.FAILED: (JobStatus.FAILED,),
    JobStatus.CANCELLED: (JobStatus.RUNNING, JobStatus.CANCELLED),
}


@pytest.mark.parametrize("new", JobStatus)
@pytest.mark.parametrize("old", JobStatus)
async def test_a_job_changes_as_the_table_of_states_allows_and_in_no_other_way(
    store: Store, tmp_path: Path, old: JobStatus, new: JobStatus
) -> None:
    path = tmp_path / "data" / "dreamlab.db"
    job = a_job("discord")
    await store.add(job)
    for status in WAYS[old]:
        assert await become(store, job, status)
    before = row(path, job.id)
    # What is drawn before that it runs could be noted has run all the same.
    allowed = new in old.followers or (old, new) == (JobStatus.QUEUED, JobStatus.DONE)

    assert await become(store, job, new) is allowed

    after = row(path, job.id)
    assert after == ((new, int(new is JobStatus.DONE), int(new.is_final)) if allowed else before)


def test_the_table_of_states_is_the_documents() -> None:
    document = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = "; ".join(
        f"{status} → {', '.join(status.followers)}" for status in JobStatus if not status.is_final
    )

    assert table in " ".join(document.split())


async def test_giving_a_job_back_takes_its_attempt_back(store: Store) -> None:
    job = a_job()
    await store.add(job)
    await store.begin(job.id)

    assert await store.give_back(job.id)

    assert await store.get(job.id) == job
    assert await store.running(ALL) == []


# Refusals


async def limit(store: Store, pages: int) -> None:
    """Has SQLite itself say that the disk is full when the file would grow beyond so many pages."""
    await store._write(lambda db: db.execute(f"PRAGMA max_page_count = {pages}").fetchall())


async def test_a_full_disk_refuses_new_jobs_loses_none_and_is_over_when_there_is_room(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    await limit(store, 1)  # as many as there are
    accepted, refused = [], 0
    while refused < 3:
        jobs = [a_job("discord") for _ in range(20)]
        ends = await asyncio.gather(*map(store.add, jobs), return_exceptions=True)
        for job, end in zip(jobs, ends, strict=True):
            if end is None:
                accepted.append(job)
            else:
                assert isinstance(end, StoreUnavailableError)
                assert "the disk is full" in str(end)
                refused += 1

    assert await store.history("web:local", 999) == accepted[::-1]
    await limit(store, 10_000)
    late = a_job()
    await store.add(late)

    assert [job.id for job in await store.requeue(ALL)] == [job.id for job in [*accepted, late]]
    assert caplog.text.count("Nothing can be stored: the disk is full") == 1
    assert caplog.text.count("can be stored again") == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if not (mount and umount):
        pytest.skip("this machine can't mount")
    made = [mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk]
    if subprocess.run(made, check=False, capture_output=True).returncode:
        pytest.skip("only root may mount a small disk, and not everywhere")
    yield disk
    subprocess.run([umount, disk], check=True)


async def test_a_disk_that_is_really_full_refuses_and_recovers(small_disk: Path) -> None:
    accepted = []

    async def accept() -> None:
        job = a_job()
        await store.add(job)
        accepted.append(job)

    async with await Store.open(small_disk / "x.db") as store:
        await accept()
        with contextlib.suppress(OSError), (small_disk / "filler").open("wb", 0) as file:
            while file.write(b"x" * 4096):
                pass
        ends = await asyncio.gather(*(accept() for _ in range(50)), return_exceptions=True)
        assert {str(end) for end in ends if end} == {str(StoreUnavailableError("the disk is full"))}
        assert await store.get(accepted[-1].id) == accepted[-1]
        (small_disk / "filler").unlink()
        await accept()
    async with await Store.open(small_disk / "x.db") as store:
        assert await store.history("web:local", 999) == accepted[::-1]


async def test_a_lock_refuses_writers_and_no_reader(store: Store, tmp_path: Path) -> None:
    job = a_job()
    await store.add(job)
    await store._write(lambda db: None)
    store._writer._db.execute("PRAGMA busy_timeout = 10")
    path = tmp_path / "data" / "dreamlab.db"
    with sqlite3.connect(path, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailableError, match="another program keeps the database"):
            await store.add(a_job())
        assert await store.get(job.id) == job
        assert "another program" in str(write_problem(path, 0))
        other.execute("ROLLBACK")

    await store.add(a_job())
    assert write_problem(path) is None


async def test_a_commit_is_synced_before_it_counts(store: Store) -> None:
    [(level,)] = await store._write(lambda db: db.execute("PRAGMA synchronous").fetchall())

    assert level == 2, "FULL: NORMAL loses the last commits in a power cut"


async def test_a_database_of_before_is_brought_up_to_date_and_can_shrink(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    first = (ROOT / "bot" / "migrations" / "0001_jobs.sql").read_text(encoding="utf-8")
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript(f"PRAGMA journal_mode=WAL; {first} PRAGMA user_version = 1;")

    async with await Store.open(path) as store:
        await store.add(a_job())

    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA auto_vacuum").fetchone() == (2,)
        assert db.execute("SELECT count(*) FROM jobs").fetchone() == (1,)


async def test_what_was_reported_before_places_were_noted_can_be_reported_once_more(
    tmp_path: Path,
) -> None:
    path = tmp_path / "x.db"
    scripts = sorted((ROOT / "bot" / "migrations").glob("*.sql"))[:13]
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript("".join(script.read_text(encoding="utf-8") for script in scripts))
        db.execute(
            "INSERT INTO jobs (id, owner_id, owner_name, front_end, address, request, status,"
            " created_at) VALUES ('a', '', '', 'discord', '{}', '{}', 'queued', 0)"
        )
        db.execute("INSERT INTO reports (job_id, created_at) VALUES ('a', 0)")
        db.execute("PRAGMA user_version = 13")
        db.commit()

    async with await Store.open(path) as store:
        assert await store.report("a", "discord:1", ASKED_AT)
        assert not await store.report("a", "discord:1", ASKED_AT)


# Opening


async def test_a_page_that_rotted_is_noticed_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "rotten.db"
    async with await Store.open(path) as store:
        await asyncio.gather(*(store.add(a_job()) for _ in range(200)))
    content = bytearray(path.read_bytes())
    for page in range(8, len(content) // 4096):
        content[page * 4096 : page * 4096 + 64] = b"\xaa" * 64
    path.write_bytes(content)

    with pytest.raises(StoreError, match=r"rotten\.db.*Put a backup in its place"):
        await Store.open(path)

    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "content", [b"not a database" * 100, b"SQLite format 3\0" + b"\xff" * 4096]
)
async def test_a_broken_file_is_named_with_what_to_do(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.db"
    path.write_bytes(content)

    with pytest.raises(StoreError, match=r"broken\.db.*backup"):
        await Store.open(path)

    assert problem(path)
    assert path.read_bytes() == content


async def test_a_folder_that_can_not_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StoreError, match="file"):
        await Store.open(tmp_path / "file" / "x.db")


async def test_a_database_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 999")

    with pytest.raises(StoreError, match="newer"):
        await Store.open(path)


async def test_a_sound_database_passes_the_check(store: Store, tmp_path: Path) -> None:
    await store.add(a_job(request=a_request(prompt="x")))

    assert problem(tmp_path / "data" / "dreamlab.db") is None
    assert problem(tmp_path / "not there yet.db") is None
