"""Pictures to draw from, through the studio with its real store; only the device is scripted."""

import asyncio
import io
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bot.records import JobRecord
from bot.source_images import read_source
from engine.errors import DreamLabError, QueueFullError, RequestError
from engine.jobs import GenerationRequest, JobStatus, RequestDraft
from tests.test_studio import ADA, BOB, DISCORD, WEB, Room, a_room


def picture(colour: str = "red", size: tuple[int, int] = (80, 40), kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, kind)
    return buffer.getvalue()


DRAFT = RequestDraft("x", seed=7, image=picture(), strength=0.6)


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[Room]:
    async with a_room(tmp_path) as room:
        yield room


def files(folder: Path) -> list[str]:
    """Returns the names of the pictures to draw from."""
    return sorted(path.name for path in (folder / "data" / "images" / "sources").glob("*"))


def drawn(room: Room) -> GenerationRequest:
    return room.executor.requests[-1]


async def done(room: Room, draft: RequestDraft = DRAFT) -> JobRecord:
    return await room.ended(await room.studio.submit(draft, ADA, WEB))


async def test_a_picture_is_kept_as_it_was_read_before_the_request_is_acknowledged(
    tmp_path: Path,
) -> None:
    async with a_room(tmp_path, hold=True) as room:
        job = await room.studio.submit(DRAFT, ADA, WEB)

        source = read_source(picture())
        assert files(tmp_path) == [f"{source.digest}.png"]
        path = room.studio.sources.path(job.request)
        assert path is not None
        assert path.read_bytes() == source.png
        assert job.request.strength == 0.6
        assert await room.as_acknowledged(job) == job
        # The row's path is of use wherever the data folder is; the worker's is whole.
        assert job.request.source == Path("sources", f"{source.digest}.png")
        await room.drawing(job)
        assert drawn(room).source == path
        assert path.is_absolute()


async def test_without_a_size_the_pictures_aspect_is_drawn(room: Room) -> None:
    job = await done(room)
    assert (job.request.width, job.request.height) == (88, 64)
    said = await done(room, RequestDraft("x", image=picture(), width=64, height=64))
    assert (said.request.width, said.request.height) == (64, 64)


async def test_the_same_picture_is_kept_once_and_goes_with_the_last_that_uses_it(
    room: Room, tmp_path: Path
) -> None:
    first, second, other = [
        await done(room),
        await done(room),
        await done(room, RequestDraft("x", image=picture("blue"))),
    ]
    assert len(files(tmp_path)) == 2

    await room.studio.delete(first.id, ADA)
    assert len(files(tmp_path)) == 2
    await room.studio.delete(second.id, ADA)
    assert files(tmp_path) == [f"{read_source(picture('blue')).digest}.png"]
    await room.studio.delete(second.id, ADA)
    await room.studio.delete(other.id, ADA)
    assert files(tmp_path) == []


async def test_the_store_gives_back_only_what_no_job_holds(room: Room) -> None:
    first, second = await done(room), await done(room)
    path = str(first.request.source)

    assert await room.store.unknown([path, "sources/other.png"]) == ["sources/other.png"]
    assert await room.store.forget_images(first.id) == []
    assert await room.store.forget_images(first.id) == []
    assert await room.store.forget([second.id]) == [second.images[0].path, path]
    assert await room.store.unknown([path]) == [path]


@pytest.mark.parametrize("vary", [False, True])
async def test_again_and_vary_draw_from_the_same_picture(
    room: Room, tmp_path: Path, vary: bool
) -> None:
    job = await done(room)

    child = await room.studio.remaker.again(job.id, BOB, DISCORD, vary=vary)

    for name in ("source", "strength", "width", "height"):
        assert getattr(child.request, name) == getattr(job.request, name)
    assert (child.request.seed == 7) is vary
    await room.ended(child)
    assert drawn(room).source == room.studio.sources.path(job.request)
    # It holds the picture on its own account.
    await room.studio.delete(job.id, ADA)
    assert len(files(tmp_path)) == 1
    await room.studio.delete(child.id, BOB)
    assert files(tmp_path) == []


async def test_what_was_deleted_is_not_drawn_from_again(room: Room) -> None:
    job = await done(room)
    await room.studio.delete(job.id, ADA)

    with pytest.raises(RequestError, match="one that was not deleted"):
        await room.studio.remaker.again(job.id, ADA, WEB)

    assert len(await room.studio.history(ADA.id)) == 1


async def test_deleting_and_asking_again_at_the_same_time_loses_no_picture(
    room: Room, tmp_path: Path
) -> None:
    job = await done(room)

    for _ in range(10):
        *answers, _ = await asyncio.gather(
            room.studio.submit(DRAFT, ADA, WEB),
            room.studio.remaker.again(job.id, ADA, WEB),
            room.studio.delete(job.id, ADA),
            return_exceptions=True,
        )
        children = [answer for answer in answers if isinstance(answer, JobRecord)]
        assert len(files(tmp_path)) == 1
        for child in children:
            assert (await room.ended(child)).status is JobStatus.DONE
            path = room.studio.sources.path(child.request)
            assert path is not None
            assert path.is_file()
        for child in children[1:]:
            await room.studio.delete(child.id, ADA)
        job = children[0]


async def test_after_a_restart_and_a_move_the_same_picture_is_drawn_from(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    async with a_room(old, hold=True) as room:
        job = await room.studio.submit(DRAFT, ADA, WEB)
        await room.drawing(job)
        before = drawn(room)
        assert before.source is not None
        content = before.source.read_bytes()
    shutil.move(old, new)

    async with a_room(new) as room:
        [recovered] = await room.studio.recover()
        assert recovered.request == job.request
        assert (await room.ended(job)).status is JobStatus.DONE
        after = drawn(room)
        assert after.source == new / "data" / "images" / job.request.source
        assert after.source.read_bytes() == content
        assert (after.seed, after.strength) == (before.seed, before.strength)


@pytest.mark.parametrize(
    ("draft", "named"),
    [
        (RequestDraft("x", image=b"hello"), "image"),
        (RequestDraft("x", image=b""), "image"),
        (RequestDraft("x", image=picture()[:300]), "image"),
        (RequestDraft("x", image=bytes(21 * 2**20)), "image"),
        (RequestDraft("x", image=picture(), strength=0.0), "strength"),
        (RequestDraft("x", image=picture(), strength=0.2, steps=4), "strength"),
        (RequestDraft("x", strength=0.5), "strength"),
        (RequestDraft("", image=picture()), "prompt"),
    ],
    ids=range(8),
)
async def test_what_is_refused_leaves_neither_row_nor_file(
    room: Room, tmp_path: Path, draft: RequestDraft, named: str
) -> None:
    with pytest.raises(RequestError) as refusal:
        await room.studio.submit(draft, ADA, WEB)

    assert refusal.value.field == named
    assert files(tmp_path) == []
    assert await room.studio.history(ADA.id) == []


async def test_a_full_queue_keeps_no_picture(tmp_path: Path) -> None:
    async with a_room(tmp_path, hold=True, queue_max=1) as room:
        await room.drawing(await room.studio.submit(RequestDraft("x"), ADA, WEB))
        await room.studio.submit(RequestDraft("x"), ADA, WEB)

        with pytest.raises(QueueFullError):
            await room.studio.submit(DRAFT, BOB, WEB)

        assert files(tmp_path) == []


async def test_a_disk_that_takes_no_picture_is_told_and_nothing_is_stored(
    room: Room, tmp_path: Path
) -> None:
    (tmp_path / "data" / "images").mkdir(exist_ok=True)
    (tmp_path / "data" / "images" / "sources").touch()  # a file where the folder should be

    with pytest.raises(DreamLabError, match="can't be kept"):
        await room.studio.submit(DRAFT, ADA, WEB)

    assert await room.studio.history(ADA.id) == []


async def test_reading_a_picture_does_not_keep_others_waiting(room: Room) -> None:
    noise = Image.frombytes("RGB", (2000, 2000), np.random.default_rng(1).bytes(12_000_000))
    buffer = io.BytesIO()
    noise.save(buffer, "PNG", compress_level=0)
    large = RequestDraft("x", image=buffer.getvalue()[:11_000_000])

    reading = asyncio.create_task(room.studio.submit(large, ADA, WEB))
    turns = 0
    while not reading.done():
        await asyncio.sleep(0)
        turns += 1

    with pytest.raises(RequestError, match="damaged"):  # it was cut off
        await reading
    assert turns > 100  # on the event loop there would be a handful
