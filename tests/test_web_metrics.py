"""What /metrics says: names that dashboards can rely on, and nothing that is anybody's."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from engine.errors import ModelFormatError
from engine.pace import Act, Measurement
from engine.testing import FakeExecutor
from tests.web_kit import Page, open_page

NAMES = {
    "dreamlab_waiting": ("gauge", {"mode"}),
    "dreamlab_running": ("gauge", {"mode"}),
    "dreamlab_requests": ("counter", {"mode", "status"}),
    "dreamlab_images": ("counter", {"mode"}),
    "dreamlab_errors": ("counter", {"kind"}),
    "dreamlab_wait_seconds": ("histogram", set()),
    "dreamlab_picture_seconds": ("histogram", {"mode"}),
    "dreamlab_step_seconds": ("histogram", {"family"}),
    "dreamlab_switch_seconds": ("histogram", {"family", "source"}),
    "dreamlab_event_loop_lag_seconds": ("gauge", set()),
    "dreamlab_device_up": ("gauge", {"device"}),
    "dreamlab_device_memory_used_bytes": ("gauge", {"device"}),
    "dreamlab_device_memory_bytes": ("gauge", {"device"}),
}
"""Dashboards and alerts name these: a change is a breaking one."""


@pytest.fixture
async def held(tmp_path: Path) -> AsyncIterator[Page]:
    """A page whose one worker does what the test says."""
    async with open_page(tmp_path, FakeExecutor(hold=True)) as opened:
        yield opened


async def text(page: Page) -> str:
    answer = await page.client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    return answer.text


async def figures(page: Page) -> dict[tuple[str, ...], float]:
    """Returns each figure by its name and the values of its labels."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(await text(page))
        for sample in family.samples
    }


async def end_of(page: Page, job: str) -> None:
    async with page.events(f"/api/jobs/{job}/events") as events:
        async for _ in events:
            pass


async def test_names_types_and_labels_are_what_dashboards_rely_on(held: Page) -> None:
    job = (await held.submit())["id"]
    await held.executor.until(lambda: job in held.executor.running)
    held.executor.finish(job)
    await end_of(held, job)
    failing = (await held.submit())["id"]
    await held.executor.until(lambda: failing in held.executor.running)
    held.executor.fail(failing, ModelFormatError(Path("x"), "no"))
    await end_of(held, failing)
    for act in (Act.PASS, Act.LOAD):
        held.executor.pace.on_measurement(Measurement(act, "sd15", 0.1))
    found = {
        family.name: (
            family.type,
            {label for sample in family.samples for label in sample.labels} - {"le"},
        )
        for family in text_string_to_metric_families(await text(held))
        if not family.name.endswith("_created")
    }
    assert found == NAMES


async def test_what_waits_and_runs_is_counted_by_mode(held: Page) -> None:
    first = (await held.submit())["id"]
    await held.executor.until(lambda: first in held.executor.running)
    await held.submit()
    await held.submit()
    now = await figures(held)
    assert now["dreamlab_running", "small"] == 1
    assert now["dreamlab_waiting", "small"] == 2
    assert now["dreamlab_waiting", "other"] == 0
    assert now["dreamlab_device_up", "fake:0"] == 1


async def test_pictures_waits_and_failures_are_counted_as_they_come(held: Page) -> None:
    job = (await held.submit(count=2))["id"]
    await held.executor.until(lambda: job in held.executor.running)
    held.executor.finish(job)
    await end_of(held, job)
    failing = (await held.submit())["id"]
    await held.executor.until(lambda: failing in held.executor.running)
    held.executor.fail(failing, ModelFormatError(Path("/secret/place"), "it is no model"))
    await end_of(held, failing)
    cancelled = (await held.submit())["id"]
    await held.executor.until(lambda: cancelled in held.executor.running)
    await held.client.post(f"/api/jobs/{cancelled}/cancel", json={})
    now = await figures(held)
    assert now["dreamlab_images_total", "small"] == 2
    assert now["dreamlab_picture_seconds_count", "small"] == 2
    assert now["dreamlab_wait_seconds_count",] == 3
    assert now["dreamlab_errors_total", "ModelFormatError"] == 1
    for status in ("done", "failed", "cancelled"):
        assert now["dreamlab_requests_total", "small", status] == 1
    assert now["dreamlab_running", "small"] == 0


async def test_steps_and_switches_are_told_as_workers_measured_them(held: Page) -> None:
    for act, seconds in (
        (Act.PASS, 0.03),
        (Act.PASS, 0.3),
        (Act.LOAD, 12.0),
        (Act.SWITCH, 0.5),
        (Act.DECODE, 9.0),  # neither
    ):
        held.executor.pace.on_measurement(Measurement(act, "sdxl", seconds))
    now = await figures(held)
    assert now["dreamlab_step_seconds_count", "sdxl"] == 2
    assert now["dreamlab_step_seconds_sum", "sdxl"] == pytest.approx(0.33)
    assert now["dreamlab_step_seconds_bucket", "sdxl", "0.05"] == 1
    assert now["dreamlab_switch_seconds_sum", "sdxl", "disk"] == 12
    assert now["dreamlab_switch_seconds_sum", "sdxl", "memory"] == 0.5


async def test_nothing_that_anybody_typed_and_no_place_or_secret_is_in_it(tmp_path: Path) -> None:
    token, artist = "admin-0123456789abcdef", "artist-0123456789abcd"
    executor = FakeExecutor(hold=True)
    async with open_page(tmp_path, executor, web_token=token, web_artist_token=(artist,)) as page:
        page.client.headers["Authorization"] = f"Bearer {artist}"
        job = await page.submit("a most private prompt", negative_prompt="privately", seed=987654)
        await executor.until(lambda: job["id"] in executor.running)
        executor.fail(job["id"], ModelFormatError(tmp_path / "hidden.safetensors", "a reason"))
        await end_of(page, job["id"])
        said = await text(page)
        owner = (await page.studio.view(job["id"])).record.owner.id
    for secret in ("privat", "987654", job["id"], owner, token, artist, str(tmp_path), "hidden"):
        assert secret not in said


async def test_each_application_counts_by_itself(tmp_path: Path) -> None:
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        async with open_page(folder) as page:
            await page.finished()
            assert (await figures(page))["dreamlab_images_total", "small"] == 1
