"""Backups: what comes back is what was there, whole, or the old state stays."""

import asyncio
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from filelock import FileLock

from bot.backup import BackupError, Contents, back_up, restore
from bot.cli import main
from bot.database import StoreError
from bot.image_folder import ImageFolder
from bot.records import JobRecord, Session
from bot.source_images import SourceImage
from bot.store import Store
from engine.jobs import GeneratedImage, GenerationResult
from tests.records_kit import a_job, a_request, done

ROOT = Path(__file__).parent.parent


async def fill(data: Path, jobs: int = 3) -> list[JobRecord]:
    """Draws so many jobs and leaves one more waiting, which starts from a picture."""
    folder = ImageFolder(data / "images")
    source = SourceImage(b"the picture to draw from", 8, 8)
    async with await Store.open(data / "dreamlab.db") as store:
        for number in range(jobs):
            job = a_job("discord")
            await store.add(job)
            drawn = GeneratedImage(f"picture {number}".encode() * 999, number, 8, 8)
            result = GenerationResult(job.id, (drawn,), 1.0, "cpu")
            images = folder.keep(result, date(2026, 1, 2))
            await store.settle(done(job), images, carried=True)
        folder.keep_source(source)
        waiting = a_job("discord", request=a_request(source=folder.source_of(source)))
        await store.add(waiting)
        return await store.history("web:local", 99)


async def kept(data: Path) -> tuple[list[JobRecord], list[bytes]]:
    """Returns a data folder's jobs and pictures."""
    async with await Store.open(data / "dreamlab.db") as store:
        jobs = await store.history("web:local", 99)
    folder = ImageFolder(data / "images")
    pictures = [folder.path(image).read_bytes() for job in jobs for image in job.images]
    sources = [folder.source_path(job.request.source) for job in jobs if job.request.source]
    return jobs, pictures + [path.read_bytes() for path in sources]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def content(file: Path) -> bytes:
    return file.read_bytes()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "backup.zip"


async def test_what_was_backed_up_comes_back_elsewhere(
    data: Path, file: Path, tmp_path: Path
) -> None:
    await fill(data)
    before = await kept(data)

    assert back_up(data, file) == Contents(4, 4)
    assert restore(file, tmp_path / "new") == Contents(4, 4)

    assert await kept(tmp_path / "new") == before
    assert names(tmp_path) == ["backup.zip", "data", "new"]
    assert not (tmp_path / "new" / ".restoring").exists()


async def test_a_restored_backup_signs_nobody_in_again(
    data: Path, file: Path, tmp_path: Path
) -> None:
    await fill(data)
    now = datetime.now(UTC)
    async with await Store.open(data / "dreamlab.db") as store:
        await store.add_session(Session("key", "token", now + timedelta(days=1)), now, 9)
        back_up(data, file)
        assert len(await store.sessions()) == 1

    restore(file, tmp_path / "new")
    async with await Store.open(tmp_path / "new" / "dreamlab.db") as store:
        assert await store.sessions() == []


async def test_a_backup_is_of_one_moment_while_the_bot_goes_on(
    data: Path, file: Path, tmp_path: Path
) -> None:
    await fill(data)
    async with await Store.open(data / "dreamlab.db") as store:
        writing = True

        async def write() -> int:
            count = 0
            while writing:
                await store.add(a_job(owner="busy"))
                count += 1
            return count

        task = asyncio.create_task(write())
        await asyncio.to_thread(back_up, data, file)
        writing = False
        written = await task
        restore(file, tmp_path / "new")
        async with await Store.open(tmp_path / "new" / "dreamlab.db") as restored:
            saved = len(await restored.history("busy", 10**6))

    assert saved <= written
    assert (await kept(tmp_path / "new"))[1]


async def test_a_restore_takes_the_place_of_what_was_there_when_it_is_told_to(
    data: Path, file: Path
) -> None:
    await fill(data)
    before = await kept(data)
    back_up(data, file)
    async with await Store.open(data / "dreamlab.db") as store:
        await store.add(a_job())
    later = await kept(data)

    with pytest.raises(BackupError, match="--replace"):
        restore(file, data)
    assert await kept(data) == later

    restore(file, data, replace=True)
    assert await kept(data) == before


async def test_a_damaged_database_is_replaced_with_its_log(data: Path, file: Path) -> None:
    await fill(data)
    before = await kept(data)
    back_up(data, file)
    log = data / "dreamlab.db-wal"
    async with await Store.open(data / "dreamlab.db") as store:
        await store.add(a_job())
        left = content(log)  # sound, and no part of what comes back
    (data / "dreamlab.db").write_bytes(b"not a database" * 999)
    log.write_bytes(left)

    restore(file, data, replace=True)

    assert await kept(data) == before


async def test_a_picture_whose_file_is_lost_is_left_out(data: Path, file: Path) -> None:
    await fill(data)
    next((data / "images").glob("2026*/*.png")).unlink()

    assert back_up(data, file) == Contents(4, 3, missing=1)

    jobs, pictures = await kept_after_restore(file, data)
    assert len(jobs) == 4
    assert len(pictures) == 3


async def samples(data: Path) -> dict[str, str]:
    async with await Store.open(data / "dreamlab.db") as store:
        return await store.samples()


async def test_a_sample_whose_file_is_lost_is_no_sample_after_a_restore(
    data: Path, file: Path, tmp_path: Path
) -> None:
    chosen = [job.images[0] for job in await fill(data, jobs=2) if job.images]
    async with await Store.open(data / "dreamlab.db") as store:
        await store.choose_sample("lost", chosen[0].id)
        await store.choose_sample("kept", chosen[1].id)
    ImageFolder(data / "images").path(chosen[0]).unlink()

    back_up(data, file)

    with zipfile.ZipFile(file) as zipped:
        packed = Path(zipped.extract("dreamlab.db", tmp_path / "packed"))
    assert await samples(packed.parent) == {"kept": chosen[1].id}
    restore(file, tmp_path / "new")
    assert await samples(tmp_path / "new") == {"kept": chosen[1].id}


async def test_samples_that_an_older_backup_left_without_a_picture_do_not_come_back(
    data: Path, file: Path, tmp_path: Path
) -> None:
    await fill(data)
    back_up(data, file)

    def leave_a_sample(name: str, content: bytes) -> bytes:
        if name != "dreamlab.db":
            return content
        path = tmp_path / name
        path.write_bytes(content)
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("INSERT INTO samples VALUES ('lost', 'an image that is gone')")
        return path.read_bytes()

    repack(file, leave_a_sample)
    restore(file, tmp_path / "new")

    assert await samples(tmp_path / "new") == {}


async def kept_after_restore(file: Path, data: Path) -> tuple[list[JobRecord], list[bytes]]:
    new = data.with_name("new")
    restore(file, new)
    return await kept(new)


async def test_a_backup_may_have_any_name(data: Path, tmp_path: Path) -> None:
    await fill(data)
    before = await kept(data)
    for name in ("dreamlab.db", "backup.zip", "a backup"):
        assert back_up(data, tmp_path / name) == Contents(4, 4)
        restore(tmp_path / name, tmp_path / f"of {name}")
        assert await kept(tmp_path / f"of {name}") == before


@pytest.mark.parametrize("name", ["dreamlab.db", "dreamlab.db-wal", "dreamlab.lock"])
async def test_a_backup_takes_the_place_of_none_of_the_programs_own_files(
    data: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    await fill(data)
    before = await kept(data)
    monkeypatch.chdir(data)
    for target in (data / name, Path(name), data / "images" / ".." / name):
        with pytest.raises(BackupError, match="one of the program's own files"):
            back_up(data, target)
    assert await kept(data) == before


def test_nothing_can_not_be_backed_up(data: Path, file: Path) -> None:
    with pytest.raises(BackupError, match="holds no database"):
        back_up(data, file)
    assert not file.exists()


async def test_a_damaged_database_is_not_backed_up_over_a_good_backup(
    data: Path, file: Path
) -> None:
    await fill(data)
    back_up(data, file)
    good = content(file)
    (data / "dreamlab.db").write_bytes(b"not a database" * 999)

    with pytest.raises(StoreError, match="damaged"):
        back_up(data, file)

    assert content(file) == good
    assert names(file.parent) == ["backup.zip", "data"]


# Broken backups


def truncate(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def flip_a_picture(file: Path) -> None:
    flipped = bytearray(content(file))
    flipped[flipped.index(b"picture 1")] ^= 1
    file.write_bytes(flipped)


def has_a_database_that_can_not_be_unpacked(file: Path) -> None:
    flipped = bytearray(content(file))
    with zipfile.ZipFile(file) as zipped:
        start = zipped.getinfo("dreamlab.db").header_offset
    packed = start + len("dreamlab.db") + 30  # behind the entry's own header
    flipped[packed] |= 0b110  # no such kind of block
    file.write_bytes(flipped)


def leads_to_before_its_beginning(file: Path) -> None:
    rotten = bytearray(content(file))
    rotten[-6:-2] = b"\xff\xff\xff\x7f"  # the directory's place, in the record at the end
    file.write_bytes(rotten)


def is_packed_in_another_way(file: Path) -> None:
    with zipfile.ZipFile(file) as zipped:
        contents = {name: zipped.read(name) for name in zipped.namelist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_BZIP2) as zipped:
        for name, content in contents.items():
            zipped.writestr(name, content)


def is_text(file: Path) -> None:
    file.write_text("hello")


def is_empty(file: Path) -> None:
    file.write_bytes(b"")


def is_some_zip(file: Path) -> None:
    with zipfile.ZipFile(file, "w") as zipped:
        zipped.writestr("readme.txt", "hello")


def climbs_out(file: Path) -> None:
    with zipfile.ZipFile(file, "a") as zipped:
        zipped.writestr("images/../../../outside.png", "hello")


def lacks_a_picture(file: Path) -> None:
    repack(file, lambda name, content: None if b"picture 1" in content else content)


def has_a_rotten_database(file: Path) -> None:
    rot = b"SQLite format 3\0" + b"\xff" * 9999
    repack(file, lambda name, content: rot if name == "dreamlab.db" else content)


def is_of_the_future(file: Path) -> None:
    def change(name: str, content: bytes) -> bytes:
        if name != "dreamlab.db":
            return content
        path = file.with_suffix(".db")
        path.write_bytes(content)
        with closing(sqlite3.connect(path)) as db:
            db.execute("PRAGMA user_version = 999")
        return path.read_bytes()

    repack(file, change)


def repack(file: Path, change: Callable[[str, bytes], bytes | None]) -> None:
    with zipfile.ZipFile(file) as zipped:
        contents = {name: zipped.read(name) for name in zipped.namelist()}
    with zipfile.ZipFile(file, "w") as zipped:
        for name, content in contents.items():
            if (changed := change(name, content)) is not None:
                zipped.writestr(name, changed)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (truncate, "no whole backup"),
        (flip_a_picture, "no whole backup"),
        (has_a_database_that_can_not_be_unpacked, "no whole backup"),
        (leads_to_before_its_beginning, "no whole backup"),
        (is_packed_in_another_way, "packed as no backup of Dream Lab has it"),
        (is_text, "no whole backup"),
        (is_empty, "no whole backup"),
        (is_some_zip, "no backup of Dream Lab"),
        (climbs_out, "holds 'images/../../../outside.png'"),
        (lacks_a_picture, "1 pictures are missing"),
        (has_a_rotten_database, "database is not sound"),
        (is_of_the_future, "install the newer Dream Lab"),
    ],
)
async def test_a_broken_backup_is_refused_and_changes_nothing(
    data: Path, file: Path, broken: Callable[[Path], None], said: str
) -> None:
    await fill(data)
    back_up(data, file)
    before = await kept(data)
    broken(file)

    with pytest.raises((BackupError, StoreError), match=said):
        restore(file, data, replace=True)

    assert await kept(data) == before
    assert not (data / ".restoring").exists()


# In use


async def test_a_running_dream_lab_is_not_restored_over(data: Path, file: Path) -> None:
    await fill(data)
    back_up(data, file)
    with (
        FileLock(data / "dreamlab.lock"),
        pytest.raises(BackupError, match="Stop it first"),
    ):
        restore(file, data, replace=True)


async def test_a_command_that_draws_is_not_restored_over(data: Path, file: Path) -> None:
    await fill(data)
    back_up(data, file)
    async with await Store.open(data / "dreamlab.db") as store:
        with pytest.raises(BackupError, match="Stop it first"):
            restore(file, data, replace=True)
        await store.add(a_job())

    assert len((await kept(data))[0]) == 5


# Killed

KILLED = """
import os, signal, sys
from pathlib import Path
from bot import backup

last = reached = 0
def step(function):
    def stepping(*arguments, **named):
        global reached
        for moment in ("before", "after"):
            if reached == last:
                os.kill(os.getpid(), signal.SIGKILL)
            reached += 1
            if moment == "before":
                result = function(*arguments, **named)
        return result
    return stepping

for name in ("_close_log", "_unpack", "_copy", "_move", "sync_folder", "open_database"):
    setattr(backup, name, step(getattr(backup, name)))
Path.replace = step(Path.replace)

for line in sys.stdin:
    last = int(line)
    # What is killed has restored nothing before, as a program of its own.
    if not (child := os.fork()):
        backup.restore(Path(sys.argv[1]), Path(sys.argv[2]), replace=True)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture
def restorings(tmp_path: Path, file: Path) -> Iterator[Iterator[tuple[Path, int]]]:
    """Restores again and again, killed one step later each time; yields the folder after each."""
    shutil.copytree(tmp_path / "data", tmp_path / "before")

    def each(program: subprocess.Popen[str]) -> Iterator[tuple[Path, int]]:
        assert program.stdin
        assert program.stdout
        for step in range(999):
            shutil.rmtree(tmp_path / "data")
            shutil.copytree(tmp_path / "before", tmp_path / "data")
            program.stdin.write(f"{step}\n")
            program.stdin.flush()
            ended = int(program.stdout.readline())
            yield tmp_path / "data", ended
            if ended == 0:
                return

    command = [sys.executable, "-c", KILLED, file, tmp_path / "data"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as program:
        yield each(program)


@pytest.fixture
def older_backup(data: Path, file: Path) -> tuple[list[JobRecord], list[JobRecord]]:
    """A data folder with two jobs of which the backup knows none but its own; returns both."""
    backed_up = asyncio.run(fill(data, jobs=1))
    back_up(data, file)
    shutil.rmtree(data)
    return backed_up, asyncio.run(fill(data, jobs=1))


@pytest.mark.slow
def test_a_restore_that_is_killed_leaves_the_old_state_or_the_new_one(
    older_backup: tuple[list[JobRecord], list[JobRecord]], restorings: Iterator[tuple[Path, int]]
) -> None:
    new, old = older_backup
    seen: list[bool] = []
    for data, ended in restorings:
        jobs, pictures = asyncio.run(kept(data))
        assert jobs in (old, new)
        assert len(pictures) == 2
        seen.append(jobs == new)
        assert ended in (0, -signal.SIGKILL)

    assert seen == sorted(seen), "once it is the new state it stays it"
    assert len(seen) > 20
    assert (seen[0], seen[-1]) == (False, True)


# The verbs


async def test_the_verbs_say_what_they_did(
    data: Path,
    file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    await fill(data)
    monkeypatch.setenv("DREAMLAB_DATA", str(data))
    assert main(["backup", str(file)]) == 0
    assert "4 requests, 4 pictures" in capsys.readouterr().out

    assert main(["restore", str(file)]) == 1
    assert "--replace" in capsys.readouterr().err

    monkeypatch.setenv("DREAMLAB_DATA", str(tmp_path / "new"))
    assert main(["restore", str(file)]) == 0
    assert "4 requests, 4 pictures" in capsys.readouterr().out
    assert main(["backup", str(tmp_path / "no" / "such" / "folder.zip")]) == 1
    assert "no/such" in capsys.readouterr().err
