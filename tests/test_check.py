"""The check: facts in, findings out, and the next step for each that is not as it should be."""

import socket
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock
from pydantic import SecretStr

from bot import check
from bot.check import Finding, Gpu, Level
from bot.cli import main
from bot.settings import Settings, names
from bot.store import Store
from engine.errors import ModelNotFoundError
from engine.jobs import Family, ModelSpec
from engine.model_detector import DetectedLora, DetectedModel
from modes.mode_config import ModeConfig
from tests.records_kit import a_job, an_image, done

ROOT = Path(__file__).parent.parent
GIB = 2**30
MODE = ModeConfig("a", ModelSpec(Path("x")))
TOKEN = "MTIzNDU2Nzg5MDEyMzQ1Njc4.GAbCdE.abcdefghijklmnopqrstuvwxyz0123456789AB"
CARD = Gpu(0, "NVIDIA A", 24 * GIB, 20 * GIB)


def model(family: Family = Family.SD15, variant: str = "text2image") -> DetectedModel:
    return DetectedModel(
        Path("x"),
        family,
        768,
        "single_file",
        4,
        variant,
        None,
        2 * GIB,  # type: ignore[arg-type] # a plain word
    )


@pytest.fixture
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder and the shipped modes; returns the data folder, not made yet."""
    for name in names().values():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MODES_FILE", str(ROOT / "modes" / "modes.yaml"))
    monkeypatch.setenv("WEB_PORT", "0")
    monkeypatch.setenv("DEVICES", "cpu")
    return tmp_path / "data"


def examined() -> dict[str, Finding]:
    return {finding.subject: finding for finding in check.examine()}


# Judging


@pytest.mark.parametrize(
    ("needed", "installed", "level", "said"),
    [
        (["torch>=2.13,<2.14"], {"torch": "2.13.0+cpu"}, Level.OK, "all 1 installed"),
        (["torch>=2.13,<2.14"], {"torch": "2.14.0"}, Level.BROKEN, "torch 2.14.0 is not <2.14"),
        (["torch>=2.13", "rich"], {"rich": "1"}, Level.BROKEN, "torch is missing"),
        (["rich", 'pytest>=9; extra == "dev"'], {"rich": "1"}, Level.OK, "all 1 installed"),
        (["x; sys_platform == 'never'"], {}, Level.OK, "all 0 installed"),
    ],
)
def test_packages_are_compared_with_what_is_needed(
    needed: list[str], installed: dict[str, str], level: Level, said: str
) -> None:
    finding = check.judge_packages(needed, installed)
    assert finding.level is level
    assert said in finding.text
    assert bool(finding.hint) is (level is Level.BROKEN)


def test_a_token_is_judged_and_never_shown() -> None:
    absent, good, odd = map(check.judge_token, (None, TOKEN, "1234567890abcdef"))
    assert [finding.level for finding in (absent, good, odd)] == ["warning", "ok", "warning"]
    assert "developers/applications" in absent.hint
    assert TOKEN not in str(good)
    assert "1234567890" not in str(odd)


def test_a_model_is_judged_by_what_draws_it() -> None:
    assert check.judge_model(MODE, model()).level is Level.OK
    gone = check.judge_model(MODE, ModelNotFoundError("x"))
    assert (gone.level, gone.text) == (Level.BROKEN, "x: no such file or folder")
    assert check.judge_model(MODE, model(Family.SDXL_REFINER)).level is Level.OK
    inpainting = check.judge_model(MODE, model(variant="inpainting"))
    assert inpainting.level is Level.BROKEN
    assert "SD1.5" in inpainting.hint


def test_a_lora_must_fit_the_model() -> None:
    def lora(family: Family) -> DetectedLora:
        return DetectedLora(Path("l"), family, 768, "kohya", 4, 1)

    assert check.judge_lora(MODE, model(), lora(Family.SD15)) is None
    foreign = check.judge_lora(MODE, model(), lora(Family.SDXL))
    assert foreign is not None
    assert "a LoRA for SDXL base; the model is SD1.5" in foreign.text
    gone = check.judge_lora(MODE, model(), ModelNotFoundError("l"))
    assert gone is not None
    assert gone.level is Level.BROKEN


@pytest.mark.parametrize(
    ("wanted", "cuda", "gpus", "torch_has_cuda", "level", "said"),
    [
        ((), 0, [], True, Level.OK, "cpu"),
        ((), 1, [CARD], True, Level.OK, "cuda:0 NVIDIA A, 20.0 GB of 24.0 GB free"),
        ((), 2, [], True, Level.OK, "2 CUDA devices"),
        ((), 1, [CARD], False, Level.WARNING, "the installed torch can't use it"),
        (("cpu",), 1, [CARD], True, Level.OK, "cpu"),
        (("cuda:0",), 1, [CARD], True, Level.OK, "cuda:0"),
        (("cuda:0", "cuda:1"), 1, [CARD], True, Level.BROKEN, "cuda:1: there is cuda:0"),
        (("cuda:0",), 0, [], True, Level.BROKEN, "cuda:0: there are 0 CUDA devices"),
        (("cuda:0",), 1, [CARD], False, Level.BROKEN, "the installed torch has no CUDA"),
    ],
)
def test_devices_are_compared_with_what_is_wanted(
    wanted: tuple[str, ...],
    cuda: int,
    gpus: list[Gpu],
    torch_has_cuda: bool,
    level: Level,
    said: str,
) -> None:
    finding = check.judge_devices(wanted, cuda, gpus, torch_has_cuda=torch_has_cuda)
    assert finding.level is level
    assert said in finding.text


def test_what_the_drivers_tool_says_is_read_and_nonsense_left_out() -> None:
    csv = "0, NVIDIA H100, 81559, 81000\n1, NVIDIA A, [N/A], [N/A]\nFailed\n\n"
    assert check.parse_gpus(csv) == [Gpu(0, "NVIDIA H100", 81559 << 20, 81000 << 20)]


def test_room_is_judged() -> None:
    assert check.judge_disk(100 * GIB).level is Level.OK
    assert check.judge_disk(GIB).level is Level.WARNING
    assert check.judge_disk(1000).level is Level.BROKEN
    assert check.judge_memory(8 * GIB, 16 * GIB).level is Level.OK
    assert check.judge_memory(GIB // 2, 16 * GIB).level is Level.WARNING


def test_a_taken_port_is_broken_unless_dream_lab_has_it() -> None:
    def judged(port: int, problem: str | None, running: bool = False) -> Finding:
        return check.judge_port("::1", port, problem, running=running)

    assert judged(4200, None).text == "http://[::1]:4200 is free"
    assert judged(0, None).level is Level.OK
    assert judged(4200, "Address already in use").level is Level.BROKEN
    assert judged(4200, "Address already in use", running=True).level is Level.OK


def test_a_page_that_others_reach_unencrypted_is_warned_of() -> None:
    token = SecretStr("0123456789abcdef")
    alone, proxied = Settings(), Settings(web_token=token, web_names=("https://x.example",))
    reached = check.judge_visitors(Settings(web_token=token, web_host="192.0.2.1"))
    assert reached.level is Level.WARNING
    assert "HTTPS" in (reached.hint or "")
    for settings in (alone, proxied):
        assert check.judge_visitors(settings).level is Level.OK


# Looking


def test_a_fresh_checkout_has_nothing_broken_and_nothing_is_made(surroundings: Path) -> None:
    findings = examined()
    assert not [f for f in findings.values() if f.level is Level.BROKEN]
    assert findings["token"].level is Level.WARNING
    assert findings["mode demo"].text.startswith("SD1.5, ")
    assert "made at the first start" in findings["data folder"].text
    assert not surroundings.exists()


def test_bad_settings_are_findings(surroundings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUEUE_MAX", "none")
    monkeypatch.setenv("LOG_LEVEL", "loud")
    broken = [finding for finding in check.examine() if finding.level is Level.BROKEN]
    assert [finding.subject for finding in broken] == ["settings", "settings"]


def test_a_broken_modes_file_and_a_missing_model_are_findings(
    surroundings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = surroundings.with_name("modes.yaml")
    monkeypatch.setenv("MODES_FILE", str(path))
    path.write_text("model_root: .\nmodes: {a: {model: x, steps: 3}}\n", encoding="utf-8")
    assert "line 2: modes.a.steps: unknown key" in examined()["modes file"].text
    path.write_text("model_root: .\nmodes: {a: {model: x}}\n", encoding="utf-8")
    finding = examined()["mode a"]
    assert finding.level is Level.BROKEN
    assert "no such file or folder" in finding.text
    path.unlink()
    assert examined()["modes file"].level is Level.BROKEN


def test_a_modes_file_that_can_not_be_looked_at_is_a_finding(
    surroundings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODES_FILE", str(surroundings.with_name("a" * 300)))
    finding = examined()["modes file"]
    assert finding.level is Level.BROKEN
    assert "can't be read: File name too long" in finding.text


def test_a_single_model_without_a_modes_file_is_a_warning(
    surroundings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODES_FILE", str(surroundings / "none.yaml"))
    monkeypatch.setenv("MODEL_ROOT", str(ROOT / "models"))
    monkeypatch.setenv("MODEL", "diffusers/dream-demo")
    findings = examined()
    assert findings["modes file"].level is Level.WARNING
    assert findings["mode default"].level is Level.OK


def test_a_file_in_the_data_folders_place_is_broken(surroundings: Path) -> None:
    surroundings.write_text("not a folder", encoding="utf-8")
    assert examined()["data folder"].level is Level.BROKEN


def test_a_damaged_database_is_broken(surroundings: Path) -> None:
    surroundings.mkdir()
    (surroundings / "dreamlab.db").write_bytes(b"not a database, whatever it is called" * 100)
    finding = examined()["database"]
    assert finding.level is Level.BROKEN
    assert "not a database" in finding.text


@contextmanager
def listening() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


def test_a_taken_port_is_found(surroundings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with listening() as port:
        monkeypatch.setenv("WEB_PORT", str(port))
        assert examined()["page"].level is Level.BROKEN


def test_a_running_dream_lab_is_seen_by_its_lock(surroundings: Path) -> None:
    assert not check.is_running(surroundings)
    surroundings.mkdir()
    lock = surroundings / "dreamlab.lock"
    with FileLock(lock):
        assert check.is_running(surroundings)
    assert not check.is_running(surroundings)


def test_the_screen_shows_every_finding_and_the_status_says_whether_all_is_well(
    surroundings: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DISCORD_TOKEN", TOKEN)
    assert main(["check"]) == 0
    screen = capsys.readouterr().out
    for subject, finding in examined().items():
        if subject not in ("memory", "disk"):  # they change from one look to the next
            assert f"{finding.level:<8} {subject:<12} {finding.text}" in screen
    assert TOKEN[:10] not in screen
    monkeypatch.setenv("MODES_FILE", str(surroundings / "none.yaml"))
    assert main(["check"]) == 1
    screen = capsys.readouterr().out
    assert "broken   modes file" in screen
    assert "MODEL_ROOT" in screen


# The store


async def test_a_lost_picture_is_told(surroundings: Path) -> None:
    job = a_job()
    async with await Store.open(surroundings / "dreamlab.db") as store:
        await store.add(job)
        await store.settle(done(job), [an_image(job)], carried=False)

    found = examined()["pictures"]

    assert (found.level, found.text) == (Level.WARNING, "1 of 1 have no file")
    assert "restore" in found.hint


async def test_a_database_that_can_not_be_written_is_told(
    surroundings: Path,
) -> None:
    path = surroundings / "dreamlab.db"
    await (await Store.open(path)).close()
    with sqlite3.connect(path, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        found = examined()["database"]

    assert found.level is Level.BROKEN
    assert "another program keeps the database locked" in found.text
    assert "none of the old is lost" in found.hint


@pytest.mark.parametrize(
    ("problem", "has_ray", "has_token", "level", "text"),
    [
        (None, True, True, Level.OK, "Ray, head at 10.0.0.2:6379"),
        (None, True, False, Level.WARNING, "without RAY_AUTH_TOKEN"),
        ("Connection refused", True, True, Level.BROKEN, "10.0.0.2:6379: Connection refused"),
        (None, False, True, Level.BROKEN, "Ray is not installed"),
    ],
)
def test_a_cluster_is_judged(
    problem: str | None, has_ray: bool, has_token: bool, level: Level, text: str
) -> None:
    finding = check.judge_cluster("10.0.0.2:6379", problem, has_ray=has_ray, has_token=has_token)
    assert finding.level is level
    assert text in finding.text
    assert bool(finding.hint) is (level is not Level.OK)
