"""Models over HTTP: what is loaded, what lies in the roots, and a picture in one request."""

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

from bot.web.access import YOU
from engine.errors import DrawingError, UnsupportedModelError
from engine.jobs import JobStatus
from engine.testing import FakeExecutor
from tests.tiny_models import write_checkpoint, write_folder, write_lora
from tests.web_kit import PATIENCE, Page, open_page


@pytest.fixture
async def page(tmp_path: Path) -> AsyncIterator[Page]:
    async with open_page(tmp_path) as opened:
        yield opened


@pytest.fixture
async def held(tmp_path: Path) -> AsyncIterator[Page]:
    """A page whose one worker does what the test says."""
    async with open_page(tmp_path, FakeExecutor(hold=True)) as opened:
        yield opened


async def test_a_model_is_loaded_told_and_its_memory_given_back(page: Page) -> None:
    before = (await page.client.get("/api/models/status")).json()
    loaded = await page.client.post("/api/models/load", json={"mode": "small"})
    status = (await page.client.get("/api/models/status")).json()
    unloaded = await page.client.post("/api/models/unload", json={"mode": "small"})
    after = (await page.client.get("/api/models/status")).json()

    assert (before["current_mode"], before["is_loaded"]) == ("small", False)
    assert (loaded.status_code, loaded.json()["family"]) == (200, "sd15")
    assert status["is_loaded"]
    (model,) = status["devices"][0]["models"]
    assert (model["path"], model["modes"]) == ("small.safetensors", ["small"])
    assert unloaded.status_code == 204
    assert (after["is_loaded"], after["devices"][0]["models"]) == (False, [])


async def test_memory_is_told_without_waiting_for_what_is_drawn(held: Page) -> None:
    await held.submit()
    await held.executor.until(lambda: bool(held.executor.running))

    (device,) = (await held.client.get("/api/vram")).json()["devices"]

    assert (device["device"], device["state"]) == ("fake:0", "ready")
    assert (device["total_gb"], device["used_gb"], device["models_loaded"]) == (1.0, 0.0, 1)


async def test_a_worker_that_is_away_has_no_numbers(tmp_path: Path) -> None:
    executor = FakeExecutor()
    executor.start_gate.clear()
    async with open_page(tmp_path, executor) as page:
        (device,) = (await page.client.get("/api/vram")).json()["devices"]
        executor.start_gate.set()

    assert (device["state"], device["total_gb"], device["models"]) == ("starting", None, [])


async def test_a_model_that_cannot_be_loaded_is_told_without_its_folder(page: Page) -> None:
    model = page.catalog.get("other").model
    page.executor.load_errors[model.key] = UnsupportedModelError(model.path, "is a VAE")

    answer = await page.client.post("/api/models/load", json={"mode": "other"})

    assert answer.status_code == 503
    assert answer.json()["detail"] == "The model other.safetensors can't be used: is a VAE."
    assert str(model.path.parent) not in answer.text


@pytest.mark.parametrize("verb", ["load", "unload"])
async def test_only_a_modes_model_is_loaded_or_unloaded(page: Page, verb: str) -> None:
    for body in ({"mode": "nope"}, {"mode": "../small"}, {"mode": 5}, {}, {"path": "/etc"}):
        answer = await page.client.post(f"/api/models/{verb}", json=body)
        assert answer.status_code == 422
        assert answer.headers["content-type"] == "application/problem+json"


async def test_the_inventory_tells_family_size_users_and_what_is_wrong(
    page: Page, tmp_path: Path
) -> None:
    for folder in ("checkpoints/ours", "diffusers", "loras", "vae"):
        (tmp_path / folder).mkdir(parents=True)
    write_checkpoint(tmp_path / "checkpoints" / "ours" / "xl.safetensors", 2048)
    write_folder(tmp_path / "diffusers" / "tiny", {"cross_attention_dim": 768, "in_channels": 4})
    (tmp_path / "checkpoints" / "old.ckpt").write_bytes(b"pickle")
    (tmp_path / "checkpoints" / "lost.safetensors").symlink_to(tmp_path / "nowhere")
    (tmp_path / "checkpoints" / "again").symlink_to(tmp_path / "checkpoints")
    (tmp_path / "vae" / "vae.safetensors").touch()
    write_lora(tmp_path / "loras" / "soft light.safetensors", 768)
    (tmp_path / "loras" / "notes.txt").touch()

    models = (await page.client.get("/api/inventory/models")).json()
    loras = (await page.client.get("/api/inventory/loras")).json()

    assert models.pop("root") == str(tmp_path)
    assert str(tmp_path) not in str(models)
    found = {file["path"]: file for file in models["files"]}
    assert set(found) == {
        "checkpoints/lost.safetensors",
        "checkpoints/old.ckpt",
        "checkpoints/ours/xl.safetensors",
        "diffusers/tiny",
        "other.safetensors",
        "small.safetensors",
    }
    assert found["checkpoints/ours/xl.safetensors"]["family"] == "sdxl"
    assert found["checkpoints/ours/xl.safetensors"]["bytes"] > 0
    assert (found["diffusers/tiny"]["family"], found["diffusers/tiny"]["problem"]) == ("sd15", None)
    assert "pickles" in found["checkpoints/old.ckpt"]["problem"]
    assert found["checkpoints/lost.safetensors"]["problem"] == "No such file or directory"
    assert (found["small.safetensors"]["modes"], found["small.safetensors"]["family"]) == (
        ["small"],
        None,
    )
    assert [(file["name"], file["family"]) for file in loras["files"]] == [("soft light", "sd15")]


async def test_an_inventory_follows_a_file_that_changes(page: Page, tmp_path: Path) -> None:
    before = (await page.client.get("/api/inventory/models")).json()["files"]
    write_checkpoint(tmp_path / "small.safetensors", 768)
    after = (await page.client.get("/api/inventory/models")).json()["files"]

    assert [file["family"] for file in before] == [None, None]
    assert [file["family"] for file in after] == [None, "sd15"]


async def test_one_request_brings_the_picture_with_its_mode_and_seed(page: Page) -> None:
    answer = await page.client.post(
        "/generate", json={"prompt": "a red circle", "size": "64x128", "seed": 7}
    )

    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    assert (answer.headers["x-mode"], answer.headers["x-seed"]) == ("small", "7")
    with Image.open(io.BytesIO(answer.content)) as picture:
        assert picture.size == (64, 128)
    (record,) = await page.studio.history(YOU.id)
    assert (record.status, record.request.prompt) == (JobStatus.DONE, "a red circle")


async def test_a_request_that_names_another_mode_switches_to_it(page: Page) -> None:
    answer = await page.client.post("/generate", json={"prompt": "x", "mode": "other"})
    assert answer.headers["x-mode"] == "other"
    async with page.events("/api/events") as events:
        async for name, data in events:
            if name == "status" and data["mode"] == "other":
                break


async def test_a_mode_whose_name_no_header_takes_is_told_escaped(page: Page) -> None:
    mode = {"model": "small.safetensors", "default_size": "64x64", "min_size": 64}
    await page.client.post("/api/modes/träume", json=mode)

    answer = await page.client.post("/generate", json={"prompt": "x", "mode": "träume"})

    assert answer.headers["x-mode"] == "tr%C3%A4ume"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"prompt": "x", "count": 2}, "count"),
        ({"prompt": "x", "mode": "nope"}, "mode"),
        ({"prompt": "x", "steps": 0}, "steps"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": "x", "cfg": 1}, "body"),
    ],
)
async def test_a_refused_request_switches_nothing(
    page: Page, body: dict[str, object], field: str
) -> None:
    answer = await page.client.post("/generate", json={"mode": "other", **body})

    assert (answer.status_code, answer.json()["field"]) == (422, field)
    assert page.pool.get_current_mode() == "small"
    assert await page.studio.history(YOU.id) == []


async def test_a_drawing_that_fails_is_a_problem_and_no_picture(
    held: Page, caplog: pytest.LogCaptureFixture
) -> None:
    asking = asyncio.create_task(held.client.post("/generate", json={"prompt": "x"}))
    await held.executor.until(lambda: bool(held.executor.running))
    held.executor.fail(held.executor.running[0], DrawingError("The picture came out black."))

    answer = await asking

    assert answer.status_code == 500
    assert answer.json()["detail"] == "The picture came out black."
    assert "Traceback" not in caplog.text  # it is told where it happened, once


@pytest.mark.parametrize("path", ["/generate", "/v1/images/generations", "/sdapi/v1/txt2img"])
async def test_a_picture_that_is_deleted_as_it_is_done_is_told(
    page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(page.studio, "image_path", lambda _: tmp_path / "deleted.png")
    answer = await page.client.post(path, json={"prompt": "x"})
    assert answer.status_code == 404
    assert "the id of a picture that was not deleted" in answer.text


async def test_a_drawing_that_is_cancelled_is_told(held: Page) -> None:
    asking = asyncio.create_task(held.client.post("/generate", json={"prompt": "x"}))
    await held.executor.until(lambda: bool(held.executor.running))
    await held.client.post(f"/api/jobs/{held.executor.running[0]}/cancel", json={})

    answer = await asking

    assert answer.status_code == 409


async def test_whoever_hangs_up_takes_the_request_back(held: Page) -> None:
    async with httpx.AsyncClient(base_url=held.url, trust_env=False, timeout=PATIENCE) as client:
        asking = asyncio.create_task(client.post("/generate", json={"prompt": "x"}))
        await held.executor.until(lambda: bool(held.executor.running))
        asking.cancel()
    await held.executor.until(lambda: not held.executor.running)

    (record,) = await held.studio.history(YOU.id)
    job = [view async for view in held.studio.watch(record.id)][-1].record
    assert job.status is JobStatus.CANCELLED
