"""The whole program, as an owner starts it, changes what it reads, and stops it."""

import asyncio
import signal
from pathlib import Path

import httpx
import psutil

from tests.discord_double import DiscordDouble
from tests.program_kit import PATIENCE, a_program, without_torch
from tests.tiny_models import write_json


async def default_size(page: httpx.AsyncClient) -> list[int]:
    """Returns the width and height that the first mode draws with."""
    size: list[int] = (await page.get("/api/modes")).json()["modes"][0]["default_size"]
    return size


async def test_a_running_program_hears_of_models_of_signals_and_of_a_saved_modes_file(
    tmp_path: Path,
) -> None:
    modes = tmp_path / "modes.yaml"
    text = "model_root: models\ndefault_mode: one\nmodes:\n  one: {model: x}\n"
    modes.write_text(text)
    config = tmp_path / "models/diffusers/x/unet/config.json"
    settings = {"MODES_FILE": str(modes)} | without_torch(tmp_path)
    async with a_program(tmp_path / "data", settings) as program, await program.page() as page:

        async def names() -> list[str]:
            return [mode["name"] for mode in (await page.get("/api/modes")).json()["modes"]]

        # A model that is copied in later is found without a word.
        assert await default_size(page) == [512, 512]
        write_json(tmp_path / "x/unet/config.json", {"cross_attention_dim": 2048})
        config.parents[2].mkdir(parents=True)
        (tmp_path / "x").rename(config.parents[1])
        await program.says("Modes: one")
        assert await default_size(page) == [1024, 1024]

        # The modes file stays as it is, and its model where it was and of a size that is known, so
        # that nobody but the signal tells of the change.
        write_json(config, {"cross_attention_dim": 768})
        program.said = ""
        program.process.send_signal(signal.SIGHUP)
        await program.says("Modes: one")
        assert await default_size(page) == [512, 512]
        assert program.process.returncode is None

        # A saved modes file is live.
        assert await names() == ["one"]
        modes.write_text(text + "  two: {model: diffusers/x}\n")
        await program.says("Modes: one, two")
        assert await names() == ["one", "two"]

        # A broken one changes nothing.
        modes.write_text(text + "  two: {model: }\n")
        await program.says("not in force")
        assert await names() == ["one", "two"]

        # Told to stop while nothing is drawn, it leaves no process.
        workers = program.workers()
        await page.aclose()
        program.process.send_signal(signal.SIGTERM)
        assert await program.ended() == 0
        assert "Traceback" not in program.said
        assert workers
        _, alive = await asyncio.to_thread(psutil.wait_procs, workers, PATIENCE)
        assert not alive


async def test_what_is_set_wrong_is_named_in_a_sentence(tmp_path: Path) -> None:
    wrong = {"DEVICES": "tpu", "WEB_PORT": "99999", "LOG_LEVEL": "loud", "QUEUE_MAX": "none"}
    async with a_program(tmp_path / "data", wrong) as program:
        assert await program.ended() == 78
        assert all(name in program.said for name in wrong)
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
