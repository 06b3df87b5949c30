"""The whole program, as an owner starts, stops and kills it."""

import asyncio
import io
import os
import signal
import socket
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import psutil
import pytest
from PIL import Image

from tests.discord_double import DiscordDouble
from tests.program_kit import PATIENCE, ROOT, a_program, without_torch
from tests.tiny_models import write_json

RED_CIRCLE = {"prompt": "a red circle on a white background", "seed": 7}


async def ask(page: httpx.AsyncClient, **changes: Any) -> dict[str, Any]:
    answer = await page.post("/api/jobs", json=RED_CIRCLE | changes)
    assert answer.status_code == 201, answer.text
    job: dict[str, Any] = answer.json()
    return job


async def default_size(page: httpx.AsyncClient) -> list[int]:
    """Returns the width and height that the first mode draws with."""
    size: list[int] = (await page.get("/api/modes")).json()["modes"][0]["default_size"]
    return size


async def finished(page: httpx.AsyncClient, job_id: str) -> dict[str, Any]:
    """Follows a job's events to their end, as the page does; returns the job then."""
    async with (
        asyncio.timeout(PATIENCE),
        page.stream("GET", f"/api/jobs/{job_id}/events") as events,
    ):
        async for _ in events.aiter_lines():
            pass
    job: dict[str, Any] = (await page.get(f"/api/jobs/{job_id}")).json()
    return job


async def pixels(page: httpx.AsyncClient, job: dict[str, Any]) -> npt.NDArray[np.int16]:
    content = (await page.get(job["images"][0]["url"])).content
    return np.asarray(Image.open(io.BytesIO(content)), dtype=np.int16)


async def test_it_serves_the_page_at_once_draws_and_stops_without_leaving_a_process(
    tmp_path: Path,
) -> None:
    async with a_program(tmp_path / "data") as program, await program.page() as page:
        assert (await page.get("/healthz")).status_code == 200
        first = (await page.get("/api/status")).json()
        job = await finished(page, (await ask(page))["id"])
        image = await page.get(job["images"][0]["url"])
        workers = program.workers()
        await page.aclose()

        program.process.send_signal(signal.SIGTERM)

        assert await program.ended() == 0
        assert first["state"] in ("loading", "ready")
        assert job["status"] == "done"
        assert image.content.startswith(b"\x89PNG")
        assert workers
        assert not any(psutil.pid_exists(worker.pid) for worker in workers)


async def test_killed_in_the_middle_it_goes_on_with_the_same_picture(tmp_path: Path) -> None:
    async with a_program(tmp_path / "data") as program, await program.page() as page:
        job = await ask(page, steps=50, count=2)
        waiting = await ask(page)
        async with page.stream("GET", f"/api/jobs/{job['id']}/events") as events:
            async for line in events.aiter_lines():
                if "running" in line:
                    break
        workers = program.workers()
        program.process.kill()
        await program.ended()
        _, alive = await asyncio.to_thread(psutil.wait_procs, workers, PATIENCE)
        assert not alive

    async with a_program(tmp_path / "data") as program, await program.page() as page:
        assert (await finished(page, job["id"]))["status"] == "done"
        again = await finished(page, waiting["id"])
        fresh = await finished(page, (await ask(page))["id"])
        # Who shares a batch may differ in the last bit, which no eye and few files can tell.
        difference = await pixels(page, again) - await pixels(page, fresh)
        assert np.abs(difference).max() <= 2


async def test_two_can_not_run_on_one_data_folder(tmp_path: Path) -> None:
    settings = without_torch(tmp_path)
    async with a_program(tmp_path / "data", settings) as first:
        await first.says("http://")
        async with a_program(tmp_path / "data", settings) as second:
            assert await second.ended() == 1
            assert "Another Dream Lab" in second.said
            assert "Traceback" not in second.said


async def test_a_saved_modes_file_is_live_and_a_broken_one_changes_nothing(tmp_path: Path) -> None:
    modes = tmp_path / "modes.yaml"
    text = (
        f"model_root: {ROOT / 'models'}\n"
        "default_mode: one\n"
        "modes:\n"
        "  one: {model: diffusers/dream-demo}\n"
    )
    modes.write_text(text)
    settings = {"MODES_FILE": str(modes)} | without_torch(tmp_path)
    async with a_program(tmp_path / "data", settings) as program, await program.page() as page:

        async def names() -> list[str]:
            return [mode["name"] for mode in (await page.get("/api/modes")).json()["modes"]]

        assert await names() == ["one"]
        modes.write_text(text + "  two: {model: diffusers/dream-demo}\n")
        await program.says("Modes: one, two")
        assert await names() == ["one", "two"]

        modes.write_text(text + "  two: {model: }\n")
        await program.says("not in force")
        assert await names() == ["one", "two"]


async def test_sighup_reads_the_modes_again(tmp_path: Path) -> None:
    modes = tmp_path / "modes.yaml"
    modes.write_text("model_root: models\nmodes: {one: {model: x}}")
    config = tmp_path / "models/x/unet/config.json"
    write_json(config, {"cross_attention_dim": 768})
    settings = {"MODES_FILE": str(modes)} | without_torch(tmp_path)
    async with a_program(tmp_path / "data", settings) as program, await program.page() as page:
        assert await default_size(page) == [512, 512]
        # The modes file stays as it is, and its model where it was and of a size that is known, so
        # that nobody but the signal tells of the change.
        write_json(config, {"cross_attention_dim": 2048})
        program.process.send_signal(signal.SIGHUP)

        await program.says("Modes: one")
        assert await default_size(page) == [1024, 1024]
        assert program.process.returncode is None


async def test_a_model_that_is_copied_in_later_is_found_without_a_word(tmp_path: Path) -> None:
    modes = tmp_path / "modes.yaml"
    modes.write_text("model_root: models\nmodes: {one: {model: x}}")
    settings = {"MODES_FILE": str(modes)} | without_torch(tmp_path)
    async with a_program(tmp_path / "data", settings) as program, await program.page() as page:
        assert await default_size(page) == [512, 512]
        write_json(tmp_path / "x/unet/config.json", {"cross_attention_dim": 2048})
        (tmp_path / "models/diffusers").mkdir(parents=True)
        (tmp_path / "x").rename(tmp_path / "models/diffusers/x")

        await program.says("Modes: one")
        assert await default_size(page) == [1024, 1024]


async def test_a_second_interrupt_does_not_wait_for_what_is_drawn(tmp_path: Path) -> None:
    settings = {"SHUTDOWN_GRACE": "3600"}
    async with a_program(tmp_path / "data", settings) as program, await program.page() as page:
        jobs = [await ask(page, steps=100, count=4) for _ in range(8)]
        async with page.stream("GET", f"/api/jobs/{jobs[0]['id']}/events") as events:
            async for line in events.aiter_lines():
                if "running" in line:
                    break
        program.process.send_signal(signal.SIGINT)
        await program.says("Ctrl-C again")
        program.process.send_signal(signal.SIGINT)

        assert await program.ended() == 0
        assert "Traceback" not in program.said


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"DEVICES": "tpu"}, "DEVICES"),
        ({"WEB_PORT": "99999"}, "WEB_PORT"),
        ({"MODES_FILE": "/nowhere/modes.yaml"}, "/nowhere/modes.yaml"),
        ({"LOG_LEVEL": "loud", "QUEUE_MAX": "none"}, "QUEUE_MAX"),
    ],
)
async def test_what_is_set_wrong_is_named_in_a_sentence(
    tmp_path: Path, settings: dict[str, str], named: str
) -> None:
    async with a_program(tmp_path / "data", settings) as program:
        assert await program.ended() == 78
        assert named in program.said
        assert "Traceback" not in program.said


async def test_a_wrong_token_ends_the_program_so_that_no_supervisor_starts_it_again(
    tmp_path: Path,
) -> None:
    wrong = "wrong" * 5 + ".wrong1." + "wrong" * 5
    async with DiscordDouble.running() as discord:
        settings = without_torch(tmp_path) | {
            "DISCORD_TOKEN": wrong,
            "DISCORD_API_URL": discord.api_url,
            "DISCORD_GATEWAY_URL": discord.gateway_url,
        }
        async with a_program(tmp_path / "data", settings) as program:
            assert await program.ended() == 78, program.said
            assert "DISCORD_TOKEN" in program.said
            assert wrong not in program.said
            assert "Traceback" not in program.said


async def test_a_port_that_is_taken_is_named_with_the_setting(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = {"WEB_PORT": str(port)} | without_torch(tmp_path)
        async with a_program(tmp_path / "data", settings) as program:
            assert await program.ended() == 1
            assert str(port) in program.said
            assert "WEB_PORT" in program.said
            assert "Traceback" not in program.said


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
async def test_a_data_folder_that_can_not_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o500)
    async with a_program(tmp_path / "data") as program:
        assert await program.ended() == 1
        assert str(tmp_path / "data") in program.said


async def test_a_damaged_database_is_named_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    database = tmp_path / "data" / "dreamlab.db"
    database.write_bytes(b"not a database" * 999)
    async with a_program(tmp_path / "data") as program:
        assert await program.ended() == 1
        assert "dreamlab.db" in program.said
        assert "backup" in program.said
        assert "Traceback" not in program.said
    assert database.read_bytes() == b"not a database" * 999
