"""The studio with its real store and pool; only the device is scripted."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from PIL import Image

from bot.app import open_app
from bot.errors import NotAllowedError, UnknownImageError, UnknownJobError
from bot.records import JobRecord, JobView, Origin, Owner
from bot.rules import Usage
from bot.settings import Settings
from bot.store import Store
from bot.studio import Studio
from engine.errors import (
    DrawingError,
    ModelFormatError,
    QueueFullError,
    RequestError,
    UnknownModeError,
)
from engine.jobs import JobStatus, RequestDraft
from engine.pace import Act, Figure
from engine.testing import FakeExecutor
from engine.worker_pool import WorkerPool
from modes.catalog import ModeCatalog

ROOT = Path(__file__).parent.parent
ADA = Owner("web:ada", "Ada")
BOB = Owner("web:bob", "Bob")
WEB = Origin("web")
DISCORD = Origin("discord", "discord:1", {"channel_id": 5})
DRAFT = RequestDraft("a red circle", seed=7)

MODES = """
model_root: .
default_mode: small
modes:
  small: {model: small, default_size: 64, min_size: 64, max_size: 128, default_steps: 4}
  other: {model: other, default_size: 128, min_size: 64, max_size: 128}
"""


@dataclass
class Room:
    """A studio and what it stands on."""

    studio: Studio
    store: Store
    pool: WorkerPool
    catalog: ModeCatalog
    executor: FakeExecutor

    async def ended(self, job: JobRecord) -> JobRecord:
        *_, last = [view async for view in self.studio.watch(job.id)]
        return last.record

    async def as_acknowledged(self, job: JobRecord) -> JobRecord:
        """Returns a job's row without what the pool may have done to it since."""
        row = await self.store.get(job.id)
        assert row is not None
        return replace(row, status=JobStatus.QUEUED, attempts=0)

    async def drawing(self, job: JobRecord) -> None:
        await self.executor.until(lambda: job.id in self.executor.running)


@asynccontextmanager
async def a_room(
    folder: Path, *, hold: bool = False, queue_max: int = 64, modes: str = MODES
) -> AsyncIterator[Room]:
    modes_file = folder / "modes.yaml"
    modes_file.write_text(modes)
    for model in ("small", "other"):
        (folder / model).mkdir(exist_ok=True)
    settings = Settings(
        data=folder / "data",
        modes_file=modes_file,
        queue_max=queue_max,
        queue_max_per_owner=queue_max,
    )
    executor = FakeExecutor(hold=hold)
    async with open_app(settings, [executor]) as app:
        yield Room(app.studio, app.store, app.pool, app.catalog, executor)


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[Room]:
    async with a_room(tmp_path) as room:
        yield room


@pytest.fixture
async def slow_room(tmp_path: Path) -> AsyncIterator[Room]:
    """Drawings wait for the test."""
    async with a_room(tmp_path, hold=True) as room:
        yield room


async def test_a_request_is_committed_when_it_is_acknowledged(slow_room: Room) -> None:
    job = await slow_room.studio.submit(DRAFT, ADA, DISCORD)

    assert await slow_room.as_acknowledged(job) == job
    assert (job.status, job.owner, job.origin) == (JobStatus.QUEUED, ADA, DISCORD)
    assert (job.request.width, job.request.steps) == (64, 4)


async def test_a_request_whose_asker_is_gone_in_the_middle_of_its_commit_is_drawn_all_the_same(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = room.store.add_all
    stored: list[JobRecord] = []

    async def leave_in_the_middle(
        records: Sequence[JobRecord], admit: Callable[[Usage], None]
    ) -> None:
        await add(records, admit)
        asking.cancel()
        await asyncio.sleep(0)
        stored.extend(records)

    monkeypatch.setattr(room.store, "add_all", leave_in_the_middle)
    asking = asyncio.create_task(room.studio.submit(DRAFT, ADA, WEB))
    with pytest.raises(asyncio.CancelledError):
        await asking
    await room.executor.until(lambda: bool(stored))

    assert (await room.ended(stored[0])).status is JobStatus.DONE


async def test_a_request_ends_with_its_pictures_on_the_disk(room: Room) -> None:
    job = await room.studio.submit(RequestDraft("x", seed=7, count=2), ADA, WEB)

    ended = await room.ended(job)

    assert ended.status is JobStatus.DONE
    assert [image.seed for image in ended.images] == [7, 8]
    for image in ended.images:
        with Image.open(room.studio.image_path(image)) as picture:
            assert picture.size == (64, 64)
        assert await room.studio.image(image.id) == image


async def test_who_watches_sees_waiting_then_running_then_the_end(slow_room: Room) -> None:
    first = await slow_room.studio.submit(DRAFT, ADA, WEB)
    await slow_room.drawing(first)
    second = await slow_room.studio.submit(DRAFT, ADA, WEB)
    seen: asyncio.Queue[JobView] = asyncio.Queue()

    async def watch() -> None:
        async for view in slow_room.studio.watch(second.id):
            seen.put_nowait(view)

    watching = asyncio.create_task(watch())
    view = await seen.get()
    assert (view.record.status, view.position, view.progress) == (JobStatus.QUEUED, 1, None)

    slow_room.executor.finish(first.id)
    await slow_room.drawing(second)
    slow_room.executor.report(second.id, 3, b"jpeg")
    while not (view.progress and view.progress.preview):
        view = await seen.get()
    assert view.record.status is JobStatus.RUNNING
    assert view.position is None
    assert view.progress.step == 3

    slow_room.executor.finish(second.id)
    await watching
    views = [seen.get_nowait() for _ in range(seen.qsize())]
    assert [view.record.status.is_final for view in views][-1:] == [True]
    assert not any(view.record.status.is_final for view in views[:-1])


async def test_those_who_wait_see_their_place_move(slow_room: Room) -> None:
    jobs = [await slow_room.studio.submit(DRAFT, ADA, WEB) for _ in range(3)]
    await slow_room.drawing(jobs[0])
    positions: asyncio.Queue[int | None] = asyncio.Queue()

    async def watch() -> None:
        async for view in slow_room.studio.watch(jobs[2].id):
            positions.put_nowait(view.position)

    watching = asyncio.create_task(watch())
    assert await positions.get() == 2

    slow_room.executor.finish(jobs[0].id)

    assert await positions.get() == 1
    watching.cancel()


async def test_those_who_wait_are_told_behind_whom_and_until_when(slow_room: Room) -> None:
    first = await slow_room.studio.submit(DRAFT, BOB, WEB)
    await slow_room.drawing(first)
    mine = [await slow_room.studio.submit(DRAFT, ADA, WEB) for _ in range(2)]
    unknown = await slow_room.studio.view(mine[1].id)
    assert (unknown.before, unknown.expected_at) == ("1 of your own", None)
    watching = slow_room.studio.watch(mine[1].id)
    await anext(watching)

    request = mine[1].request
    key, pixels = request.model.key, request.width * request.height
    slow_room.executor.pace.take(
        [
            Figure(Act.BEGIN, key, 10.0),
            Figure(Act.PASS, key, 60.0, 5, pixels, 2),
            Figure(Act.DECODE, key, 10.0, 1, pixels),
        ]
    )

    told = await anext(watching)
    assert told.expected_at is not None
    drawing = timedelta(seconds=10 + request.steps * 60 + 10)
    assert datetime.now(UTC) + 2 * drawing < told.expected_at < datetime.now(UTC) + 3 * drawing
    again = await slow_room.studio.view(mine[1].id)
    assert again.expected_at == told.expected_at  # it is not told anew for a few seconds


async def test_an_ended_job_can_still_be_watched(room: Room) -> None:
    job = await room.studio.submit(DRAFT, ADA, WEB)
    ended = await room.ended(job)

    assert await room.ended(job) == ended
    assert (await room.studio.view(job.id)).record == ended


@pytest.mark.parametrize(
    ("draft", "named"),
    [
        (RequestDraft(""), "prompt"),
        (RequestDraft("x" * 2001), "prompt"),
        (RequestDraft("a\x00b"), "prompt"),
        (RequestDraft("x", width=65), "width"),
        (RequestDraft("x", height=4096), "height"),
        (RequestDraft("x", steps=0), "steps"),
        (RequestDraft("x", steps=10_000), "steps"),
        (RequestDraft("x", seed=-1), "seed"),
        (RequestDraft("x", seed=2**32), "seed"),
        (RequestDraft("x", count=0), "count"),
        (RequestDraft("x", guidance_scale=float("nan")), "guidance"),
        (RequestDraft("x", sampler="Oiler"), "sampler"),
        (RequestDraft("x", mode="nope"), "mode"),
    ],
)
async def test_what_is_not_allowed_is_named_and_nothing_is_stored(
    room: Room, draft: RequestDraft, named: str
) -> None:
    with pytest.raises(RequestError, match=rf"(?i){named}.*Allowed") as refusal:
        await room.studio.submit(draft, ADA, WEB)

    assert refusal.value.field.startswith(named)
    assert await room.studio.history(ADA.id) == []


async def test_a_full_queue_refuses_with_its_size_and_stores_nothing(tmp_path: Path) -> None:
    async with a_room(tmp_path, hold=True, queue_max=2) as room:
        running = await room.studio.submit(DRAFT, ADA, WEB)
        await room.drawing(running)

        asked = await asyncio.gather(
            *(room.studio.submit(DRAFT, ADA, WEB) for _ in range(5)), return_exceptions=True
        )

        refused = [answer for answer in asked if isinstance(answer, BaseException)]
        assert len(refused) == 3
        assert all(isinstance(error, QueueFullError) and error.size == 2 for error in refused)
        assert len(await room.studio.history(ADA.id)) == 3


async def test_a_job_whose_worker_died_waits_again_at_its_place(slow_room: Room) -> None:
    job = await slow_room.studio.submit(DRAFT, ADA, WEB)
    await slow_room.drawing(job)
    views = slow_room.studio.watch(job.id)
    while (await anext(views)).record.status is not JobStatus.RUNNING:
        pass

    slow_room.executor.start_gate.clear()
    slow_room.executor.die()

    while (view := await anext(views)).record.status is not JobStatus.QUEUED:
        pass
    assert (view.position, view.progress) == (1, None)
    slow_room.executor.start_gate.set()
    while (await anext(views)).record.status is not JobStatus.RUNNING:
        pass
    await slow_room.drawing(job)
    slow_room.executor.finish(job.id)
    assert (await slow_room.ended(job)).status is JobStatus.DONE


async def test_a_mode_whose_model_is_missing_is_refused_at_once(room: Room, tmp_path: Path) -> None:
    (tmp_path / "other").rmdir()

    with pytest.raises(RequestError, match=r"mode: 'other'.*other is missing") as refusal:
        await room.studio.submit(RequestDraft("x", mode="other"), ADA, WEB)

    assert str(tmp_path) not in str(refusal.value)
    assert await room.studio.history(ADA.id) == []


async def test_a_broken_models_folder_is_not_the_askers_business(slow_room: Room) -> None:
    job = await slow_room.studio.submit(DRAFT, ADA, WEB)
    await slow_room.drawing(job)

    slow_room.executor.fail(job.id, ModelFormatError("/home/owner/models/x", "is truncated"))

    assert (await slow_room.ended(job)).error == "The model x can't be used: is truncated."


async def test_a_failed_drawing_tells_the_asker_why(slow_room: Room) -> None:
    job = await slow_room.studio.submit(DRAFT, ADA, WEB)
    await slow_room.drawing(job)

    slow_room.executor.fail(job.id, DrawingError("The picture came out as noise."))

    ended = await slow_room.ended(job)
    assert (ended.status, ended.error) == (JobStatus.FAILED, "The picture came out as noise.")


async def test_an_unforeseen_error_ends_the_job_without_its_details(slow_room: Room) -> None:
    job = await slow_room.studio.submit(DRAFT, ADA, WEB)
    await slow_room.drawing(job)

    slow_room.executor.fail(job.id, ZeroDivisionError("/secret/path"))

    ended = await slow_room.ended(job)
    assert ended.status is JobStatus.FAILED
    assert "secret" not in str(ended.error)


async def a_drawing_without_room(room: Room, folder: Path) -> JobRecord:
    """Returns a job that is drawn and whose picture can't be written, until `make_room`."""
    room.studio._settler.pause = 0.01
    (folder / "data" / "images").touch()  # a file where the folder should be
    job = await room.studio.submit(DRAFT, ADA, WEB)
    await room.drawing(job)
    room.executor.finish(job.id)
    live = room.studio.live.get(job.id)
    assert live is not None
    while not live.is_refused:
        await live.changed.wait()
    return job


def make_room(folder: Path) -> None:
    (folder / "data" / "images").unlink()


async def test_a_result_that_can_not_be_written_is_kept_until_it_can(
    slow_room: Room, tmp_path: Path
) -> None:
    job = await a_drawing_without_room(slow_room, tmp_path)
    ending = asyncio.create_task(slow_room.ended(job))

    make_room(tmp_path)

    ended = await ending
    assert ended.status is JobStatus.DONE
    assert slow_room.studio.image_path(ended.images[0]).is_file()


async def test_a_result_that_can_not_be_written_leaves_the_job_for_the_next_start(
    tmp_path: Path,
) -> None:
    async with a_room(tmp_path, hold=True) as room:
        job = await a_drawing_without_room(room, tmp_path)
    make_room(tmp_path)

    async with a_room(tmp_path) as room:
        assert [record.id for record in await room.studio.recover()] == [job.id]
        assert (await room.ended(job)).status is JobStatus.DONE


async def test_what_can_not_be_written_can_be_cancelled(slow_room: Room, tmp_path: Path) -> None:
    job = await a_drawing_without_room(slow_room, tmp_path)

    assert await slow_room.studio.cancel(job.id, ADA)

    assert (await slow_room.ended(job)).status is JobStatus.CANCELLED
    make_room(tmp_path)
    assert await slow_room.studio.recover() == []
    assert (await slow_room.studio.view(job.id)).record.status is JobStatus.CANCELLED


CRASHING = """
import asyncio, os, signal, sys
from pathlib import Path
from tests.test_studio import ADA, DRAFT, WEB, a_room

async def crash():
    async with a_room(Path(sys.argv[1]), hold=True) as room:
        if not await room.studio.recover():
            for _ in range(2):
                await room.studio.submit(DRAFT, ADA, WEB)
        while not (running := await room.store.running(("web",))):
            await asyncio.sleep(0.01)
        print(*(job.id for job in running), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(crash())
"""


async def test_what_runs_in_two_crashes_is_failed_and_its_neighbour_goes_on(
    tmp_path: Path,
) -> None:
    for _ in range(2):
        crash = await asyncio.create_subprocess_exec(
            sys.executable, "-c", CRASHING, tmp_path, cwd=ROOT, stdout=asyncio.subprocess.PIPE
        )
        said, _ = await crash.communicate()
        assert crash.returncode == -signal.SIGKILL
    assert len(said.split()) == 1

    async with a_room(tmp_path) as room:
        [neighbour] = await room.studio.recover()
        assert (await room.ended(neighbour)).status is JobStatus.DONE
        poisonous = await room.store.get(said.decode().strip())

    assert poisonous
    assert poisonous.status is JobStatus.FAILED
    assert "crashed" in str(poisonous.error)


async def test_a_heun_picture_is_enlarged_without_a_model_and_again_after_a_restart(
    tmp_path: Path,
) -> None:
    draft = RequestDraft("a red circle", sampler="Heun", width=128, height=128)
    async with a_room(tmp_path) as room:
        drawn = await room.ended(await room.studio.submit(draft, ADA, WEB))
        child = await room.studio.remaker.upscale(drawn.images[0].id, ADA, WEB)
        assert not child.job.request.is_drawn
        assert (await room.ended(child.job)).status is JobStatus.DONE
        waiting = replace(child.job, id="again", parent=None)
        await room.store.add(waiting)

    async with a_room(tmp_path) as room:
        assert [record.id for record in await room.studio.recover()] == ["again"]
        assert (await room.ended(waiting)).status is JobStatus.DONE


async def test_what_can_not_be_queued_after_a_restart_fails_and_is_in_nobody_s_way(
    tmp_path: Path,
) -> None:
    async with a_room(tmp_path, hold=True) as room:
        job = await room.studio.submit(DRAFT, ADA, WEB)
        await room.store.add(replace(job, id="broken", weight=-1.0))
        await room.store.add(replace(job, id="behind"))

    async with a_room(tmp_path) as room:
        await room.studio.recover()
        assert (await room.ended(job)).status is JobStatus.DONE
        assert (await room.ended(replace(job, id="behind"))).status is JobStatus.DONE
        broken = await room.store.get("broken")

    assert broken
    assert broken.status is JobStatus.FAILED
    assert "Something went wrong" in str(broken.error)


async def test_a_shutdown_is_no_crash(tmp_path: Path) -> None:
    async with a_room(tmp_path, hold=True) as room:
        job = await room.studio.submit(DRAFT, ADA, WEB)
    for _ in range(3):
        async with a_room(tmp_path, hold=True) as room:
            [waiting] = await room.studio.recover()
            assert waiting.attempts == 0
            await room.drawing(job)
            while not await room.store.running(("web",)):  # noqa: ASYNC110 # rows have no events
                await asyncio.sleep(0.01)


async def test_what_is_committed_while_the_pool_closes_is_drawn_by_the_next_start(
    tmp_path: Path,
) -> None:
    async with a_room(tmp_path, hold=True) as room:
        submitting = asyncio.create_task(room.studio.submit(DRAFT, ADA, WEB))
        for _ in range(2):  # the asker's task, and the one that keeps the job
            await asyncio.sleep(0)  # its place is reserved, its row on the way
        await room.pool.shutdown()
        job = await submitting

    async with a_room(tmp_path) as room:
        assert [record.id for record in await room.studio.recover()] == [job.id]
        assert (await room.ended(job)).status is JobStatus.DONE


@pytest.mark.parametrize("waiting", [True, False])
async def test_the_asker_cancels_what_waits_or_runs(slow_room: Room, waiting: bool) -> None:
    job = await slow_room.studio.submit(DRAFT, ADA, WEB)
    await slow_room.drawing(job)
    if waiting:
        job = await slow_room.studio.submit(DRAFT, ADA, WEB)

    assert await slow_room.studio.cancel(job.id, ADA)

    assert (await slow_room.ended(job)).status is JobStatus.CANCELLED
    assert not await slow_room.studio.cancel(job.id, ADA)


async def test_only_the_asker_or_a_moderator_cancels_or_deletes(slow_room: Room) -> None:
    job = await slow_room.studio.submit(DRAFT, ADA, WEB)

    with pytest.raises(NotAllowedError, match="Ada or a moderator"):
        await slow_room.studio.cancel(job.id, BOB)
    with pytest.raises(NotAllowedError, match="Ada or a moderator"):
        await slow_room.studio.delete(job.id, BOB)

    assert await slow_room.studio.cancel(job.id, BOB, moderator=True)


async def test_deleting_removes_rows_and_files(room: Room) -> None:
    job = await room.ended(await room.studio.submit(DRAFT, ADA, WEB))
    path = room.studio.image_path(job.images[0])

    await room.studio.delete(job.id, ADA)

    assert not path.exists()
    with pytest.raises(UnknownImageError):
        await room.studio.image(job.images[0].id)
    assert (await room.studio.view(job.id)).record.images == ()


async def test_deleting_what_is_being_drawn_ends_it(slow_room: Room) -> None:
    job = await slow_room.studio.submit(DRAFT, ADA, WEB)
    await slow_room.drawing(job)

    deleted = await slow_room.studio.delete(job.id, ADA)

    assert deleted.status is JobStatus.CANCELLED


async def test_again_draws_the_same_with_another_seed(room: Room) -> None:
    draft = RequestDraft("x", width=128, steps=9, guidance_scale=2.5, seed=7, negative_prompt="y")
    job = await room.ended(await room.studio.submit(draft, ADA, WEB))

    child = await room.studio.remaker.again(job.id, BOB, DISCORD)

    assert child.parent_id == job.id
    assert child.owner == BOB
    assert child.request.seed != job.request.seed  # equal once in four billion runs
    assert (child.request.width, child.request.steps, child.request.negative_prompt) == (
        128,
        9,
        "y",
    )


async def test_again_adds_the_modes_own_words_once_and_shows_what_was_typed(
    tmp_path: Path,
) -> None:
    added = "prompt_prefix: pixel art of, prompt_suffix: warm, negative_always: text"
    modes = MODES.replace("default_steps: 4}", f"default_negative: fog, {added}}}")
    async with a_room(tmp_path, modes=modes) as room:
        job = await room.ended(await room.studio.submit(DRAFT, ADA, WEB))
        child = await room.ended(await room.studio.remaker.again(job.id, ADA, WEB))
        varied = await room.studio.remaker.again(child.id, ADA, WEB, vary=True)
        grandchild = await room.ended(varied)
        # The owner changes the mode: what is asked again gets what it adds now.
        (tmp_path / "modes.yaml").write_text(
            modes.replace("pixel art of", "a photo of").replace(
                "default_negative: fog", "negative_allowed: false, default_negative: rain"
            )
        )
        assert await room.catalog.reload()
        changed = await room.studio.remaker.again(job.id, ADA, WEB)

    for record in (job, child, grandchild):
        assert record.request.prompt == "pixel art of a red circle, warm"
        assert record.request.negative_prompt == "fog, text"
        assert record.request.shown_prompt == "a red circle"
        assert record.request.shown_negative == "fog"
    assert changed.request.prompt == "a photo of a red circle, warm"
    assert changed.request.negative_prompt == "rain, text"


async def test_vary_keeps_the_seed_and_mixes_in_another(room: Room) -> None:
    job = await room.ended(await room.studio.submit(DRAFT, ADA, WEB))

    child = await room.studio.remaker.again(job.id, ADA, WEB, vary=True)

    assert child.request.seed == 7
    assert child.request.variation_seed is not None
    assert 0 < child.request.variation_strength < 1


async def test_unknown_ids_are_refused_everywhere(room: Room) -> None:
    for attempt in (
        room.studio.view("nope"),
        room.studio.cancel("nope", ADA),
        room.studio.delete("nope", ADA),
        room.studio.remaker.again("nope", ADA, WEB),
        anext(room.studio.watch("../../etc/passwd")),
    ):
        with pytest.raises(UnknownJobError):
            await attempt


async def test_a_place_draws_with_the_mode_it_chose(room: Room) -> None:
    await room.studio.choices.switch_mode("other", "discord:1", ADA)

    assert (await room.studio.submit(DRAFT, ADA, DISCORD)).request.mode == "other"
    assert (await room.studio.submit(DRAFT, ADA, WEB)).request.mode == "small"
    assert (await room.studio.submit(RequestDraft("x", mode="small"), ADA, DISCORD)).request.mode


async def test_switching_to_an_unknown_mode_changes_nothing(room: Room) -> None:
    with pytest.raises(UnknownModeError, match="small, other"):
        await room.studio.choices.switch_mode("nope", "discord:1", ADA)

    assert (await room.studio.choices.mode_of("discord:1")).name == "small"


async def test_a_place_whose_mode_was_removed_draws_with_the_default(
    room: Room, tmp_path: Path
) -> None:
    await room.store.choose_mode("discord:1", "gone")

    assert (await room.studio.choices.mode_of("discord:1")).name == "small"


async def test_after_a_restart_the_unfinished_goes_on_as_it_was_asked(tmp_path: Path) -> None:
    async with a_room(tmp_path, hold=True) as room:
        jobs = [await room.studio.submit(DRAFT, owner, WEB) for owner in (ADA, BOB, ADA)]
        await room.drawing(jobs[0])

    async with a_room(tmp_path) as room:
        recovered = await room.studio.recover()

        assert [job.request for job in recovered] == [job.request for job in jobs]
        for job in jobs:
            assert (await room.ended(job)).status is JobStatus.DONE
    assert [request.seed for request in room.executor.requests] == [7, 7, 7]


async def test_what_a_command_asked_for_is_not_drawn_by_the_next_process(tmp_path: Path) -> None:
    async with a_room(tmp_path, hold=True) as room:
        await room.studio.submit(DRAFT, ADA, Origin("cli"))

    async with a_room(tmp_path) as room:
        assert await room.studio.recover() == []


async def test_only_a_carried_front_ends_result_waits_for_delivery(room: Room) -> None:
    await room.ended(await room.studio.submit(DRAFT, ADA, WEB))
    await room.ended(await room.studio.submit(DRAFT, ADA, DISCORD))

    assert await room.store.next_due(("web",)) is None
    assert await room.store.next_due(("discord",)) is not None
