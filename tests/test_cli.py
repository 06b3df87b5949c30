"""The command line, as people use it.

What is about the process is asked of the real program, started anew; all else of its ``main`` here.
"""

import asyncio
import io
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

import httpx
import pytest
from PIL import Image
from rich.console import Console

from bot.cli import main
from bot.records import JobRecord, JobView, Origin, Owner
from bot.settings import names
from bot.store import Store
from bot.terminal import BarDisplay, LineDisplay, describe, describe_end, open_display
from engine.jobs import GenerationRequest, JobStatus, ModelSpec, Progress, Sampler, Stage
from tests.program_kit import without_torch

ROOT = Path(__file__).parent.parent
DEMO = ROOT / "models" / "diffusers" / "dream-demo"
VERBS = ("run", "imagine", "detect", "check", "modes")
GENEROUS = 240.0


def environment(data: Path, **settings: str) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if name not in names().values()}
    return ours | {
        "DREAMLAB_DATA": str(data),
        "MODES_FILE": str(ROOT / "modes" / "modes.yaml"),
        "WEB_PORT": "0",
        "DEVICES": "cpu",
        **settings,
    }


def bot(tmp_path: Path, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Runs the program in an empty folder, so that nobody's own .env is read."""
    return subprocess.run(
        [sys.executable, str(ROOT / "bot.py"), *words],
        cwd=tmp_path,
        env=environment(tmp_path / "data", **settings),
        capture_output=True,
        text=True,
        timeout=GENEROUS,
        check=False,
    )


class Here(Protocol):
    """Runs a command line in this process, as the program would in an empty folder."""

    def __call__(self, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """Returns its exit status and what it said."""


@pytest.fixture
def here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Here:
    def run(*words: str, **settings: str) -> subprocess.CompletedProcess[str]:
        with monkeypatch.context() as patch:
            patch.chdir(tmp_path)
            for name in os.environ.keys() & names().values():
                patch.delenv(name)
            for name, value in environment(tmp_path / "data", **settings).items():
                patch.setenv(name, value)
            status = main(words)
        said = capsys.readouterr()
        return subprocess.CompletedProcess(words, status, said.out, said.err)

    return run


@asynccontextmanager
async def started(
    tmp_path: Path, *words: str, **settings: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Starts the program and sees to its end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(ROOT / "bot.py"),
        *words,
        cwd=tmp_path,
        env=environment(tmp_path / "data", **settings),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(GENEROUS):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def line_with(stream: asyncio.StreamReader | None, text: str) -> str:
    assert stream is not None
    while line := (await stream.readline()).decode():
        if text in line:
            return line
    raise AssertionError(f"it ended without saying {text!r}")


def write_safetensors(path: Path, tensors: Mapping[str, tuple[int, ...]]) -> None:
    header: dict[str, object] = {}
    offset = 0
    for name, shape in tensors.items():
        size = 2
        for side in shape:
            size *= side
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(offset))


# Help


def test_help_teaches_and_lists_every_verb(tmp_path: Path) -> None:
    answer = bot(tmp_path, "--help")
    assert answer.returncode == 0
    for verb in VERBS:
        assert f"\n    {verb} " in answer.stdout
    assert "examples:" in answer.stdout
    assert "exit status:" in answer.stdout


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([verb, "--help"])
    assert caught.value.code == 0
    assert "exit status:" in capsys.readouterr().out


def test_only_the_standard_library_is_imported_before_a_verb_is_known() -> None:
    listing = "print(*sys.modules)"
    code = f"import sys; {listing}; import bot.cli; {listing}"
    bare, with_cli = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=GENEROUS,
        check=True,
    ).stdout.splitlines()
    added = {name.partition(".")[0] for name in {*with_cli.split()} - {*bare.split()}}
    assert added - set(sys.stdlib_module_names) == {"bot"}


@pytest.mark.parametrize(
    "words",
    [
        ["paint"],
        ["imagine"],
        ["imagine", "x", "--size", "big"],
        ["imagine", "x", "--steps", "many"],
        ["imagine", "x", "--seed", "1.5"],
        ["imagine", "x", "--out", "x.jpg"],
        ["imagine", "x", "--lora", "snow:much"],
        ["imagine", "x", "--strength", "half"],
        ["detect"],
        ["check", "--now"],
    ],
)
def test_a_wrong_command_line_is_status_2(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert "error: " in capsys.readouterr().err


# detect


def test_detect_tells_what_a_model_is(here: Here) -> None:
    answer = here("detect", str(DEMO))
    assert answer.returncode == 0
    assert answer.stderr == ""
    told = json.loads(answer.stdout)
    assert told["is"] == "model"
    assert (told["family"], told["cross_attention_dim"]) == ("sd15", 768)
    assert told["format"] == "diffusers"


def test_detect_tells_what_a_lora_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "lora.safetensors"
    key = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    write_safetensors(
        path, {f"{key}.lora_down.weight": (4, 768), f"{key}.lora_up.weight": (320, 4)}
    )
    assert main(["detect", str(path)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["is"], told["family"], told["rank"]) == ("lora", "sd15", 4)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (None, "ModelNotFoundError"),
        (b"", "ModelFormatError"),
        (b"\xff" * 100, "ModelFormatError"),
    ],
)
def test_detect_says_why_it_cannot_tell_on_both_channels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, kind: str
) -> None:
    path = tmp_path / "x.safetensors"
    if content is not None:
        path.write_bytes(content)
    assert main(["detect", str(path)]) == 1
    said = capsys.readouterr()
    told = json.loads(said.out)
    assert told["kind"] == kind
    assert told["error"] == said.err.strip()
    assert str(path) in told["error"]


def test_detect_of_something_else_says_what_it_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "vae.safetensors"
    write_safetensors(path, {"decoder.conv_in.weight": (4, 4, 3, 3)})
    assert main(["detect", str(path)]) == 1
    assert "a VAE" in json.loads(capsys.readouterr().out)["error"]


# modes


def test_modes_lists_them_with_the_default_marked(here: Here) -> None:
    answer = here("modes")
    assert answer.returncode == 0
    assert answer.stdout.startswith("* demo  Demo: ")


def test_modes_tells_what_most_modes_do_not_have(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "modes.yaml"
    path.write_text(
        """
model_root: .
default_mode: a
modes:
  a: {model: x}
  b:
    model: x
    clip_skip: 2
    vae: v.safetensors
    refiner: {model: r.safetensors, switch_at: 0.75}
    loras_allowed: [snow.safetensors]
    max_loras: 1
    allowed_roles: [Artists]
""",
        encoding="utf-8",
    )
    (tmp_path / "snow.safetensors").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MODES_FILE", str(path))
    assert main(["modes"]) == 0
    assert [line.strip() for line in capsys.readouterr().out.splitlines()[2:]] == [
        "clip skip 2",
        "VAE v.safetensors",
        "refiner r.safetensors after 75% of the steps",
        "LoRAs to ask for, 1 at once: snow",
        "roles that may use it: Artists",
    ]


def test_a_broken_modes_file_is_told_in_full_without_a_traceback(
    tmp_path: Path, here: Here
) -> None:
    path = tmp_path / "modes.yaml"
    path.write_text("model_root: .\nmodes:\n  a: {model: x, default_steps: lots}\n")
    settings = {"MODES_FILE": str(path)}
    for answer in (
        here("modes", **settings),
        here("imagine", "x", **settings),
        bot(tmp_path, "run", **settings),
    ):
        assert answer.returncode == 78
        assert "line 3: modes.a.default_steps: 'lots' is not allowed" in answer.stderr
        assert "Traceback" not in answer.stderr
        assert answer.stdout == ""


def test_bad_settings_are_all_told(tmp_path: Path, here: Here) -> None:
    (tmp_path / ".env").write_text("QUEUEMAX=3\n", encoding="utf-8")
    answer = here("modes", WEB_HOST="0.0.0.0", QUEUE_MAX="none")  # noqa: S104 - refused
    assert answer.returncode == 78
    assert len(answer.stderr.strip().splitlines()) == 3


# imagine


@pytest.mark.slow
def test_imagine_draws_from_a_picture_in_its_aspect_and_says_where_the_pictures_are(
    tmp_path: Path,
) -> None:
    Image.new("RGB", (400, 200), "red").save(tmp_path / "red.jpg")
    out = tmp_path / "circle.png"
    options = "--image=red.jpg --strength=0.2 --steps=10 --seed=7 --count=2"
    options += " --guidance=2.5 --sampler=ddim"
    answer = bot(tmp_path, "imagine", "a red circle", *options.split(), f"--out={out}", "--json")
    assert answer.returncode == 0, answer.stderr
    told = json.loads(answer.stdout)
    assert told["paths"] == [str(tmp_path / f"circle-{i}.png") for i in (1, 2)]
    assert told["seeds"] == [7, 8]
    assert told["seconds"] > 0
    request = told["request"]
    assert (request["prompt"], request["mode"], request["steps"]) == ("a red circle", "demo", 10)
    assert (request["guidance"], request["sampler"]) == (2.5, "DDIM")
    assert request["strength"] == 0.2
    for path in told["paths"]:
        with Image.open(path) as image:
            assert image.size == (request["width"], request["height"]) == (184, 88)
            assert "a red circle" in image.info["parameters"]
            # A fifth of it is drawn anew.
            red, green, blue = image.convert("RGB").resize((1, 1)).getpixel((0, 0))
            assert red > 150 > 100 > max(green, blue)
    assert len(list((tmp_path / "data" / "images").glob("2*/**/*.png"))) == 2
    assert "drawing, " in answer.stderr


def test_a_picture_that_is_not_there_is_named(tmp_path: Path, here: Here) -> None:
    for path in ("none.png", str(tmp_path)):
        answer = here("imagine", "x", "--image", path)
        assert answer.returncode == 1
        assert answer.stderr.startswith(f"{path}: ")


def test_imagine_refuses_in_the_same_words_as_everywhere(here: Here) -> None:
    answer = here("imagine", "x", "--mode", "nope", "--json")
    assert answer.returncode == 1
    told = json.loads(answer.stdout)
    assert told == {
        "error": "mode: 'nope' is not allowed. Allowed: demo.",
        "kind": "UnknownModeError",
    }
    assert answer.stderr.strip() == told["error"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["imagine", " "], "prompt: nothing is not allowed"),
        (["imagine", "x", "--guidance", "nan"], "guidance: 'nan' is not allowed"),
        (["imagine", "x", "--size", "100x100"], "width: '100' is not allowed"),
        (["imagine", "x", "--sampler", "Oiler"], "sampler: 'Oiler' is not allowed"),
        (["imagine", "x", "--lora", "snow:0.5"], "Allowed: none in this mode"),
        (["imagine", "x", "--image", str(Path(__file__))], "damaged or of another kind"),
        (["imagine", "x", "--strength", "0.5"], "strength: '0.5' is not allowed"),
        (["imagine", "x", "--out", "no/such/folder/x.png"], "out: 'no/such/folder/x.png'"),
    ],
)
def test_imagine_says_what_is_allowed(here: Here, words: list[str], said: str) -> None:
    answer = here(*words)
    assert answer.returncode == 1
    assert said in answer.stderr
    assert "Allowed: " in answer.stderr
    assert answer.stdout == ""


def test_imagine_with_a_model_that_is_not_there_says_so(tmp_path: Path, here: Here) -> None:
    (tmp_path / "modes.yaml").write_text("model_root: .\nmodes: {a: {model: x.safetensors}}\n")
    answer = here("imagine", "x", MODES_FILE=str(tmp_path / "modes.yaml"))
    assert answer.returncode == 1
    assert "a mode that is complete: x.safetensors is missing" in answer.stderr.splitlines()[-1]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT to send")
@pytest.mark.parametrize(
    ("sent", "status", "said"),
    [(signal.SIGINT, 130, "Ended by Ctrl-C."), (signal.SIGTERM, 143, "Ended by SIGTERM.")],
)
async def test_an_early_end_cancels_the_request(
    tmp_path: Path, sent: signal.Signals, status: int, said: str
) -> None:
    options = "--size=64x128 --steps=100 --guidance=2.5 --sampler=ddim --seed=7 --count=4"
    words = ["imagine", "x", "--negative", "y", *options.split()]
    async with started(tmp_path, *words, **without_torch(tmp_path)) as process:
        await line_with(process.stderr, "starting")
        process.send_signal(sent)
        _, errors = await process.communicate()
        assert process.returncode == status
    assert errors.decode().strip().endswith(said)
    assert b"Traceback" not in errors
    async with await Store.open(tmp_path / "data" / "dreamlab.db") as store:
        [job] = await store.history("cli:local", 9)
    assert job.status is JobStatus.CANCELLED
    asked = job.request
    assert (asked.prompt, asked.negative_prompt, asked.mode) == ("x", "y", "demo")
    assert (asked.width, asked.height, asked.steps, asked.guidance_scale) == (64, 128, 100, 2.5)
    assert (asked.sampler, asked.seed, asked.count) == (Sampler.DDIM, 7, 4)
    assert asked.source is None


# run


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT to send")
async def test_run_serves_the_page_and_leaves_others_to_draw(tmp_path: Path, here: Here) -> None:
    async with started(tmp_path, **without_torch(tmp_path)) as process:
        line = await line_with(process.stdout, "Dream Lab is at ")
        address = line.split()[-1]
        async with httpx.AsyncClient() as web:
            assert (await web.get(address)).status_code == 200

        second = await asyncio.to_thread(bot, tmp_path, "run")
        assert second.returncode == 1
        assert "Another Dream Lab runs" in second.stderr
        assert "Traceback" not in second.stderr

        # It gets as far as the modes: nothing locks it out.
        words = ("imagine", "x", "--mode", "nope", "--json")
        beside = await asyncio.to_thread(bot, tmp_path, *words)
        assert beside.returncode == 1
        assert "mode: 'nope'" in beside.stderr
        assert beside.stderr.strip() == json.loads(beside.stdout)["error"]

        port = httpx.URL(address).port
        checked = await asyncio.to_thread(here, "check", WEB_PORT=str(port))
        assert checked.returncode == 0, checked.stdout
        assert "taken: a Dream Lab is running" in checked.stdout

        process.send_signal(signal.SIGINT)
        await process.communicate()
        assert process.returncode == 0


def test_run_names_a_modes_file_that_is_not_there(here: Here) -> None:
    answer = here("run", MODES_FILE="/nowhere/modes.yaml")
    assert answer.returncode == 78
    assert "/nowhere/modes.yaml" in answer.stderr


def test_run_names_a_port_that_is_taken_with_its_setting(
    tmp_path: Path, here: Here, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        answer = here("run", WEB_PORT=port, **without_torch(tmp_path))
    assert answer.returncode == 1
    assert port in answer.stderr
    assert "WEB_PORT" in answer.stderr
    assert "Traceback" not in answer.stderr + caplog.text


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root, and Windows, may write anywhere"
)
def test_run_names_a_data_folder_that_can_not_be_written(tmp_path: Path, here: Here) -> None:
    (tmp_path / "data").mkdir(mode=0o500)
    answer = here("run")
    assert answer.returncode == 1
    assert str(tmp_path / "data") in answer.stderr


def test_run_names_a_data_folder_that_can_not_be_made(tmp_path: Path, here: Here) -> None:
    (tmp_path / "data").write_text("a file, in which not even root can make a folder")
    answer = here("run")
    assert answer.returncode == 1
    assert str(tmp_path / "data") in answer.stderr


def test_run_names_a_damaged_database_and_leaves_it_as_it_is(
    tmp_path: Path, here: Here, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "data").mkdir()
    database = tmp_path / "data" / "dreamlab.db"
    database.write_bytes(b"not a database" * 999)
    answer = here("run")
    assert answer.returncode == 1
    assert "dreamlab.db" in answer.stderr
    assert "backup" in answer.stderr
    assert "Traceback" not in answer.stderr + caplog.text
    assert database.read_bytes() == b"not a database" * 999


# What a terminal shows


def view(
    status: JobStatus = JobStatus.RUNNING,
    progress: Progress | None = None,
    position: int | None = None,
) -> JobView:
    model = ModelSpec(Path("x"))
    request = GenerationRequest("a", model, "p", "", 64, 64, 20, 3.0, Sampler.DDIM, 1)
    record = JobRecord("id", Owner("o", "o"), Origin("cli"), request, status, datetime.now(UTC))
    return JobView(record, position, progress)


def drawing(step: int) -> JobView:
    return view(progress=Progress("id", Stage.DENOISING, step, 20))


def test_every_state_has_its_words() -> None:
    assert describe(view(JobStatus.QUEUED, position=3)) == "waiting, 2 before it"
    now = datetime(2026, 5, 4, tzinfo=UTC)
    soon = replace(view(JobStatus.QUEUED, position=3), expected_at=now + timedelta(seconds=12))
    assert describe_end(soon, now) == ", done in about 12 s"
    assert describe_end(view(JobStatus.QUEUED, position=3), now) == ""
    assert describe(view(JobStatus.QUEUED, position=1)) == "starting"
    assert describe(view()) == "starting"
    assert describe(drawing(3)) == "drawing"
    assert describe(view(JobStatus.FAILED)) == "failed"
    assert len({describe(view(progress=Progress("id", stage))) for stage in Stage}) == len(Stage)


def test_a_log_gets_a_line_for_each_stage_and_not_for_each_step() -> None:
    stream = io.StringIO()
    with open_display(stream) as display:
        assert isinstance(display, LineDisplay)
        for step in range(21):
            display.show(drawing(step))
        display.show(view(JobStatus.DONE))
    assert stream.getvalue() == "drawing, 20 steps\ndone\n"


def test_a_terminal_gets_a_bar_with_the_step() -> None:
    stream = io.StringIO()
    with BarDisplay(Console(file=stream, force_terminal=True, width=80)) as display:
        display.show(view(JobStatus.QUEUED, position=3))
        display.show(drawing(5))
    assert "drawing" in stream.getvalue()
    assert "step 5/20" in stream.getvalue()
