"""Families of pictures through the studio and the page: varied, enlarged, repeated, walked."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bot.errors import NotAllowedError, UnknownImageError
from bot.records import ImageRecord, JobRecord, Kinship, Parent
from bot.remakes import LARGEST_SIDE, enlarged
from engine.errors import (
    DrawingError,
    ModelFormatError,
    OutOfMemoryError,
    RequestError,
    UnknownModeError,
)
from engine.images import read_png
from engine.jobs import JobStatus, RequestDraft
from modes.upscaling import Upscale
from tests.records_kit import a_request
from tests.test_studio import ADA, BOB, DISCORD, MODES, WEB, Room, a_room
from tests.web_kit import open_page

DRAFT = RequestDraft("a red circle", seed=7, count=2)


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[Room]:
    async with a_room(tmp_path) as room:
        yield room


async def drawn(room: Room, draft: RequestDraft = DRAFT) -> JobRecord:
    return await room.ended(await room.studio.submit(draft, ADA, WEB))


async def second(room: Room) -> ImageRecord:
    """Returns the second picture of a request."""
    return (await drawn(room)).images[1]


WITHOUT_SMALL = MODES.replace("  small:", "  gone:").replace(": small", ": other", 1)


async def test_a_picture_is_varied_alone_with_its_own_seed(room: Room) -> None:
    image = await second(room)

    child = await room.studio.remaker.vary(image.id, BOB, WEB)
    await room.ended(child.job)

    request = room.executor.requests[-1]
    assert child.is_new
    assert child.job.owner == BOB
    assert child.job.parent == Parent(image.job_id, 1, Kinship.VARY)
    assert (request.seed, request.count) == (8, 1)
    assert request.variation_seed is not None


async def test_a_picture_is_enlarged_by_its_own_model_from_itself(room: Room) -> None:
    image = await second(room)

    child = await room.studio.remaker.upscale(image.id, ADA, WEB)
    ended = await room.ended(child.job)

    request = room.executor.requests[-1]
    assert child.job.parent == Parent(image.job_id, 1, Kinship.UPSCALE)
    assert (request.width, request.height, request.seed, request.count) == (128, 128, 8, 1)
    assert (request.prompt, request.strength) == ("a red circle", Upscale().strength)
    assert request.source is not None
    with (
        Image.open(request.source) as source,
        Image.open(room.studio.image_path(image)) as picture,
    ):
        assert np.array_equal(np.asarray(source), np.asarray(picture))
    assert ended.note is None


@pytest.mark.parametrize("how", ["vary", "upscale"])
async def test_many_who_press_at_once_get_one_child(room: Room, how: str) -> None:
    image = await second(room)
    press = getattr(room.studio.remaker, how)

    children = await asyncio.gather(*(press(image.id, owner, WEB) for owner in [ADA, BOB] * 5))
    later = await press(image.id, BOB, WEB)

    assert sum(child.is_new for child in children) == 1
    assert {child.job.id for child in (*children, later)} == {children[0].job.id}
    assert not later.is_new
    assert await room.studio.lineage.used(image.job_id) == {(Kinship(how), 1)}


async def test_pictures_of_one_request_have_children_of_their_own(room: Room) -> None:
    job = await drawn(room)

    children = [
        (await room.studio.remaker.vary(job.images[0].id, ADA, WEB)).job,
        (await room.studio.remaker.vary(job.images[1].id, ADA, WEB)).job,
        (await room.studio.remaker.upscale(job.images[1].id, ADA, WEB)).job,
        await room.studio.remaker.again(job.id, ADA, WEB),
        await room.studio.remaker.again(job.id, ADA, WEB),
    ]

    found = await room.studio.lineage.children(job.id)
    assert [child.id for child in found] == [child.id for child in children]
    assert await room.studio.lineage.parent(children[0]) == job
    assert await room.studio.lineage.parent(job) is None


@pytest.mark.parametrize("end", ["failed", "cancelled", "deleted"])
async def test_what_came_to_nothing_can_be_asked_for_again(tmp_path: Path, end: str) -> None:
    async with a_room(tmp_path, hold=True) as room:
        job = await room.studio.submit(DRAFT, ADA, WEB)
        await room.drawing(job)
        room.executor.finish(job.id)
        image = (await room.ended(job)).images[0]
        first = (await room.studio.remaker.vary(image.id, ADA, WEB)).job
        await room.drawing(first)
        if end == "cancelled":
            await room.studio.cancel(first.id, ADA)
        elif end == "failed":
            room.executor.fail(first.id, DrawingError("no"))
        else:
            room.executor.finish(first.id)
        await room.ended(first)
        if end == "deleted":
            await room.studio.delete(first.id, ADA)

        other = await room.studio.remaker.vary(image.id, ADA, WEB)

        assert other.is_new
        assert other.job.id != first.id
        assert [child.id for child in await room.studio.lineage.children(job.id)] == [other.job.id]


async def test_an_enlarged_picture_is_varied_and_repeated_as_it_was_before(room: Room) -> None:
    image = await second(room)
    large = await room.ended((await room.studio.remaker.upscale(image.id, ADA, WEB)).job)

    varied = (await room.studio.remaker.vary(large.images[0].id, ADA, WEB)).job
    again = await room.studio.remaker.again(large.id, ADA, WEB)

    assert varied.parent == Parent(large.id, 0, Kinship.VARY)
    for job in (varied, again):
        assert (job.request.width, job.request.height, job.request.source) == (64, 64, None)
    assert varied.request.seed == 8


async def test_an_enlarged_picture_outlives_its_parent(room: Room, tmp_path: Path) -> None:
    image = await second(room)
    large = await room.ended((await room.studio.remaker.upscale(image.id, ADA, WEB)).job)

    await room.studio.delete(image.job_id, ADA)

    assert room.studio.image_path(large.images[0]).is_file()
    source = room.studio.sources.path(large.request)
    assert source is not None
    assert source.is_file()
    with pytest.raises(UnknownImageError):
        await room.studio.remaker.upscale(image.id, ADA, WEB)


async def test_what_is_too_large_for_the_mode_is_enlarged_without_it(room: Room) -> None:
    image = (await drawn(room, RequestDraft("x", seed=1, width=128, height=64))).images[0]

    child = await room.studio.remaker.upscale(image.id, ADA, WEB)
    ended = await room.ended(child.job)

    assert len(room.executor.requests) == 1
    assert ended.status is JobStatus.DONE
    assert ended.note == (
        "Enlarged without a model: 256x128 is more than the mode small draws; "
        "its longest side is 128."
    )
    with Image.open(room.studio.image_path(ended.images[0])) as large:
        assert large.size == (256, 128)
    parameters = read_png(room.studio.image_path(ended.images[0]).read_bytes())
    assert parameters
    assert parameters.settings["Denoising strength"] == "0"


async def test_a_picture_whose_mode_is_gone_is_enlarged_without_it_but_not_varied(
    tmp_path: Path,
) -> None:
    async with a_room(tmp_path) as room:
        image = await second(room)
    async with a_room(tmp_path, modes=WITHOUT_SMALL) as room:
        ended = await room.ended((await room.studio.remaker.upscale(image.id, ADA, WEB)).job)

        assert ended.note == "Enlarged without a model: the mode small is gone."
        assert (ended.images[0].width, ended.images[0].height) == (128, 128)
        with pytest.raises(UnknownModeError):
            await room.studio.remaker.vary(image.id, ADA, WEB)


@pytest.mark.parametrize(
    "error",
    [OutOfMemoryError("cuda:0"), ModelFormatError(Path("/secret/m.safetensors"), "is damaged")],
)
async def test_a_picture_that_the_model_can_not_draw_larger_is_enlarged_all_the_same(
    tmp_path: Path, error: Exception
) -> None:
    async with a_room(tmp_path, hold=True) as room:
        job = await room.studio.submit(DRAFT, ADA, WEB)
        await room.drawing(job)
        room.executor.finish(job.id)
        image = (await room.ended(job)).images[0]
        child = (await room.studio.remaker.upscale(image.id, ADA, WEB)).job
        await room.drawing(child)
        room.executor.fail(child.id, error)

        ended = await room.ended(child)

        assert ended.status is JobStatus.DONE
        assert ended.note
        assert ended.note.startswith("Enlarged without a model: ")
        assert "/secret" not in ended.note
        assert (ended.images[0].width, ended.images[0].height) == (128, 128)


async def test_other_errors_of_an_enlarged_picture_are_told(tmp_path: Path) -> None:
    async with a_room(tmp_path, hold=True) as room:
        job = await room.studio.submit(DRAFT, ADA, WEB)
        await room.drawing(job)
        room.executor.finish(job.id)
        image = (await room.ended(job)).images[0]
        child = (await room.studio.remaker.upscale(image.id, ADA, WEB)).job
        await room.drawing(child)
        room.executor.fail(child.id, DrawingError("It drew no numbers."))

        assert (await room.ended(child)).error == "It drew no numbers."


async def test_a_plain_enlargement_that_a_restart_interrupts_is_made_after_it(
    tmp_path: Path,
) -> None:
    draft = RequestDraft("x", seed=1, width=128, height=64)
    async with a_room(tmp_path) as room:
        image = (await drawn(room, draft)).images[0]
    async with a_room(tmp_path, hold=True) as room:
        busy = await room.studio.submit(DRAFT, ADA, WEB)
        await room.drawing(busy)
        child = (await room.studio.remaker.upscale(image.id, ADA, WEB)).job
    async with a_room(tmp_path) as room:
        await room.studio.recover()

        ended = await room.ended(child)

        assert (ended.status, ended.images[0].width) == (JobStatus.DONE, 256)


async def test_who_may_not_draw_here_gets_not_even_an_old_child(room: Room) -> None:
    image = await second(room)
    await room.studio.remaker.upscale(image.id, ADA, WEB)
    await room.studio.house.block("discord:1", BOB, "spam", ADA)

    for how in (room.studio.remaker.upscale, room.studio.remaker.vary):
        with pytest.raises(NotAllowedError, match=r"has blocked you from drawing.*spam"):
            await how(image.id, BOB, DISCORD)


async def test_a_picture_whose_file_is_gone_is_not_enlarged(room: Room) -> None:
    image = await second(room)
    room.studio.image_path(image).unlink()

    with pytest.raises(UnknownImageError):
        await room.studio.remaker.upscale(image.id, ADA, WEB)


def test_pictures_are_not_enlarged_without_end() -> None:
    side = LARGEST_SIDE // 2 + 8
    with pytest.raises(RequestError, match="one whose sides have at most 2048 pixels"):
        enlarged(a_request(width=side, height=64), Path("x"), None)


def test_an_enlarged_picture_of_few_steps_takes_one_at_least() -> None:
    larger, _ = enlarged(replace(a_request(), steps=1), Path("x"), None)

    assert int(larger.steps * Upscale().strength) >= 1


async def test_the_page_varies_and_enlarges_each_picture_once(tmp_path: Path) -> None:
    async with open_page(tmp_path) as page:
        job = await page.finished(count=2)
        image = job["images"][1]["id"]

        for how in ("vary", "upscale"):
            new = await page.client.post(f"/api/images/{image}/{how}", json={})
            old = await page.client.post(f"/api/images/{image}/{how}", json={})

            assert (new.status_code, old.status_code) == (201, 200)
            assert new.headers["Location"] == old.headers["Location"]
            parent = {"job_id": job["id"], "number": 1, "kinship": how}
            assert new.json()["parent"] == parent
        family = (await page.client.get(f"/api/jobs/{job['id']}/family")).json()["family"]
        assert [(one["parent_id"], one["number"], one["kinship"]) for one in family] == [
            (None, None, None),
            (job["id"], 1, "vary"),
            (job["id"], 1, "upscale"),
        ]
        assert family[0]["image_ids"] == [one["id"] for one in job["images"]]


@pytest.mark.parametrize("image", ["x", "-" * 64, "%00", "..%2F..", "é"])
async def test_the_page_knows_no_such_picture(tmp_path: Path, image: str) -> None:
    async with open_page(tmp_path) as page:
        for how in ("vary", "upscale"):
            answer = await page.client.post(f"/api/images/{image}/{how}", json={})
            assert answer.status_code == 404


async def test_the_page_enlarges_nobody_elses_pictures(tmp_path: Path) -> None:
    async with open_page(tmp_path) as page:
        job = await page.studio.submit(RequestDraft("x"), BOB, WEB)
        *_, view = [view async for view in page.studio.watch(job.id)]
        image = view.record.images[0].id

        for how in ("vary", "upscale"):
            answer = await page.client.post(f"/api/images/{image}/{how}", json={})
            assert answer.status_code == 404
        assert (await page.client.get(f"/api/jobs/{job.id}/family")).status_code == 404
