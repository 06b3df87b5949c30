"""A real Ray cluster on this machine: a head and nodes that come, go and are killed."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

from engine.errors import JobCancelledError, ModelError, NoDeviceError
from engine.jobs import (
    GenerationJob,
    GenerationRequest,
    GenerationResult,
    ModelSpec,
    Progress,
    Sampler,
)
from engine.lane import LaneState
from engine.model_contents import visible_files
from engine.ray_executor import RayFleet
from engine.worker_pool import WorkerPool
from tests.ray_kit import Island, RayCluster
from tests.test_worker_pool import PLAIN, SomeModes
from tests.worker_kit import ask, copy_demo

pytest.importorskip("ray", reason="the ray extra is not installed")

pytestmark = [
    pytest.mark.ray,
    pytest.mark.asyncio(loop_scope="module"),
    # Ray leaves sockets and subprocesses to its reaper.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

MACHINES = {"attic", "cellar"}
LONG = 150
"""Steps of a picture in whose middle something happens."""
ENDLESS = {"steps": 500, "count": 4}
"""A request that does not end before it is cancelled."""


@pytest.fixture(scope="module")
def island() -> Iterator[Island | None]:
    """A machine whose network can be cut; None where this machine permits none."""
    island = Island()
    yield island if island.make() else None
    island.sink()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(island: Island | None) -> AsyncIterator[RayCluster]:
    cluster = RayCluster(island.mainland if island else "127.0.0.1")
    await cluster.start()
    yield cluster
    await cluster.close()
    assert not cluster.processes()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(cluster: RayCluster) -> AsyncIterator[RayFleet]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in cluster.environment().items():
            patch.setenv(name, value)
        yield RayFleet(cluster.address, gpus_per_worker=0, reconnect_seconds=0.5, capacity=2)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(cluster: RayCluster, fleet: RayFleet) -> AsyncIterator[WorkerPool]:
    async with WorkerPool([], SomeModes(PLAIN), fleet=fleet) as pool:
        yield pool
    assert fleet.driver_pid is None


@pytest_asyncio.fixture(loop_scope="module")
async def pool(shared: WorkerPool, cluster: RayCluster) -> WorkerPool:
    """Two machines that are ready, whatever happened in the test before."""
    for name in MACHINES - set(cluster.nodes):
        await cluster.join(name)
    for name in set(cluster.nodes) - MACHINES - {"head"}:
        await cluster.kill(name)
    await cluster.until(lambda: ready(shared) == {"attic cpu", "cellar cpu"})
    return shared


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - other processes send no events; the timeout ends it
        await asyncio.sleep(0.05)


def ready(pool: WorkerPool) -> set[str]:
    return {lane.device for lane in pool.status() if lane.state is LaneState.READY}


class Story:
    """A request on its way: what is heard of it, and its end."""

    def __init__(self, pool: WorkerPool, owner: str = "ann", **changes: Any) -> None:
        self.heard: list[Progress | None] = []
        self.job = GenerationJob(owner=owner, request=ask(**changes))
        self.pool = pool
        self.future = pool.submit_job(self.job, on_event=self.heard.append)

    @property
    def device(self) -> str | None:
        return self.pool.device_of(self.job.id)

    @property
    def steps(self) -> int:
        """Steps that are made, since it began for the last time."""
        progress = self.heard[-1] if self.heard else None
        return progress.step if progress else 0

    async def drawing(self) -> None:
        await until(lambda: self.steps > 0 or self.future.done())
        assert not self.future.done()

    async def pictures(self) -> list[bytes]:
        result = await self.future
        assert isinstance(result, GenerationResult)
        assert [image.seed for image in result.images] == list(self.request.seeds)
        return [image.png for image in result.images]

    @property
    def request(self) -> GenerationRequest:
        assert isinstance(self.job.request, GenerationRequest)
        return self.job.request


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def undisturbed(shared: WorkerPool) -> list[bytes]:
    """A long picture, drawn alone and to its end."""
    return await Story(shared, steps=LONG).pictures()


async def test_a_mixed_load_finishes_with_progress_and_previews(
    pool: WorkerPool, tmp_path: Path
) -> None:
    source = tmp_path / "source.png"
    [png] = await Story(pool, steps=2, seed=3).pictures()
    source.write_bytes(png)
    stories = [
        Story(
            pool,
            owner=f"member {number % 3}",
            seed=number,
            steps=2 + number % 5,
            width=128 + 64 * (number % 2),
            count=1 + number % 2,
            sampler=list(Sampler)[number % len(Sampler)],
        )
        for number in range(10)
    ]
    drawn_from = Story(pool, source=source, strength=0.6, steps=5)
    broken = Story(pool, model=ModelSpec(tmp_path / "nowhere.safetensors"))
    unwanted = Story(pool, steps=LONG)
    await unwanted.drawing()
    assert pool.cancel(unwanted.job.id)

    pictures = [await story.pictures() for story in stories]

    assert all(
        len(drawn) == story.request.count for drawn, story in zip(pictures, stories, strict=True)
    )
    assert len({png for drawn in pictures for png in drawn}) == sum(map(len, pictures))
    assert len(await drawn_from.pictures()) == 1
    results = [await story.future for story in stories]
    assert {result.device for result in results} <= {"attic cpu", "cellar cpu"}
    heard = [event for story in stories for event in story.heard if event is not None]
    assert any(event.preview for event in heard)
    with pytest.raises(JobCancelledError):
        await unwanted.future
    with pytest.raises(ModelError, match=r"nowhere\.safetensors: no machine that draws has"):
        await broken.future


async def test_two_machines_draw_at_the_same_time(pool: WorkerPool) -> None:
    # Each machine takes two at once: of four, two are on each.
    stories = [Story(pool, **ENDLESS, seed=seed) for seed in range(4)]
    for story in stories:
        await story.drawing()

    assert sorted(str(story.device) for story in stories) == ["attic cpu"] * 2 + ["cellar cpu"] * 2

    for story in stories:
        pool.cancel(story.job.id)
    await asyncio.gather(*(story.future for story in stories), return_exceptions=True)


async def test_an_actor_killed_in_the_middle_of_a_picture_loses_and_doubles_nothing(
    pool: WorkerPool, cluster: RayCluster, undisturbed: list[bytes]
) -> None:
    story = Story(pool, steps=LONG)
    await story.drawing()
    name = str(story.device).split()[0]

    cluster.actor(name).kill()

    assert await story.pictures() == undisturbed
    assert story.heard.count(None) == 1
    await until(lambda: len(ready(pool)) == 2)


async def test_a_node_dies_its_picture_is_drawn_elsewhere_and_another_node_joins(
    pool: WorkerPool, cluster: RayCluster, undisturbed: list[bytes]
) -> None:
    story, other = Story(pool, steps=LONG), Story(pool, owner="bob", steps=LONG, seed=8)
    await story.drawing()
    await other.drawing()
    name = str(story.device).split()[0]
    [survivor] = MACHINES - {name}

    await cluster.kill(name)

    await until(lambda: ready(pool) == {f"{survivor} cpu"} and story.heard.count(None) == 1)
    await cluster.join("shed")
    assert len(await story.pictures()) == len(await other.pictures()) == 1
    await cluster.until(lambda: ready(pool) == {f"{survivor} cpu", "shed cpu"})
    stories = [Story(pool, steps=6, seed=seed) for seed in range(6)]
    results = [await each.future for each in stories]
    assert "shed cpu" in {result.device for result in results}


async def test_a_machine_is_sent_a_model_and_cut_off_in_the_middle_of_its_picture(
    pool: WorkerPool, fleet: RayFleet, cluster: RayCluster, island: Island | None, tmp_path: Path
) -> None:
    if island is None:
        pytest.skip("no network namespaces can be made here; root may")
    others = [Story(pool, owner=f"member {n}", **ENDLESS, seed=n) for n in range(4)]
    for each in others:
        await each.drawing()  # two machines are full
    model = copy_demo(tmp_path)
    await cluster.join("island", host=island.host, within=island.without(tmp_path))
    await cluster.until(lambda: "island cpu" in ready(pool))
    fleet.sends_models = True
    story = Story(pool, owner="islander", model=model, **ENDLESS)
    await story.drawing()
    fleet.sends_models = False
    assert story.device == "island cpu"
    [sent] = (cluster.folder / "island" / "models").iterdir()
    assert len(list(visible_files(sent))) == len(list(visible_files(model.path)))

    island.cut()

    await until(lambda: "island cpu" not in ready(pool) and story.heard.count(None) == 1)
    assert pool.position(story.job.id) == 1
    for each in others:
        assert each.heard.count(None) == 0
        pool.cancel(each.job.id)
    await story.drawing()
    assert story.device != "island cpu"
    pool.cancel(story.job.id)


async def test_the_process_that_speaks_with_ray_is_killed_and_started_again(
    pool: WorkerPool, fleet: RayFleet, undisturbed: list[bytes]
) -> None:
    story = Story(pool, steps=LONG)
    await story.drawing()
    pid = fleet.driver_pid
    assert pid is not None

    psutil.Process(pid).kill()

    assert await story.pictures() == undisturbed
    assert fleet.driver_pid not in (None, pid)
    assert story.heard.count(None) == 1


async def test_a_cluster_that_is_gone_is_told_and_the_waiting_are_drawn_when_it_is_back(
    pool: WorkerPool, fleet: RayFleet, cluster: RayCluster, undisturbed: list[bytes]
) -> None:
    story = Story(pool, steps=LONG)
    await story.drawing()

    await cluster.stop()

    await until(lambda: fleet.trouble is not None)
    with pytest.raises(NoDeviceError, match=f"The Ray cluster at {cluster.address} "):
        Story(pool)
    await until(lambda: [lane.device for lane in pool.status()] == ["the cluster"])
    [lane] = pool.status()
    assert lane.state is LaneState.DOWN
    assert lane.last_error == fleet.trouble
    await cluster.start()
    await cluster.join("attic")
    await cluster.until(story.future.done)
    assert await story.pictures() == undisturbed
    assert fleet.trouble is None
