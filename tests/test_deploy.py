"""The files for owners who run the bot under a supervisor: sound, and in step with the program."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from bot.app import LAST_DELIVERIES
from bot.cli import MISCONFIGURED
from bot.settings import Settings
from engine.worker_pool import CLOSE_TIMEOUT

DEPLOY = Path(__file__).parent.parent / "deploy"
UNIT = DEPLOY / "dream-lab.service"
TOOLS = Path(sys.executable).parent
LONGEST_STOP = Settings().shutdown_grace + CLOSE_TIMEOUT + LAST_DELIVERIES


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, check=False)


def unit_value(key: str) -> str:
    [value] = re.findall(rf"^{key}=(.*)$", UNIT.read_text(), re.MULTILINE)
    return str(value)


def compose_service() -> dict[str, object]:
    service: dict[str, object] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"][
        "dream-lab"
    ]
    return service


def test_the_dockerfile_has_nothing_that_its_linter_warns_of() -> None:
    checked = run(TOOLS / "hadolint", "--failure-threshold", "info", DEPLOY / "Dockerfile")
    assert checked.returncode == 0, checked.stdout


def test_the_compose_file_is_of_the_published_schema() -> None:
    schema = ("--builtin-schema", "vendor.compose-spec")
    checked = run(TOOLS / "check-jsonschema", *schema, DEPLOY / "compose.yaml")
    assert checked.returncode == 0, checked.stdout


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="there is no systemd here")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    # The program is not where the unit has it, and systemd-analyze asks for that.
    unit = UNIT.read_text().replace("/opt/dream-lab/.venv/bin/python", sys.executable)
    here = tmp_path / UNIT.name
    here.write_text(unit)
    checked = run("systemd-analyze", "verify", "--man=no", here)
    assert checked.returncode == 0, checked.stderr
    assert not checked.stderr


def test_nobody_is_killed_who_still_finishes_in_good_order() -> None:
    assert float(unit_value("TimeoutStopSec")) > LONGEST_STOP
    grace = re.fullmatch(r"(\d+)s", str(compose_service()["stop_grace_period"]))
    assert grace
    assert float(grace[1]) > LONGEST_STOP


def test_what_only_the_owner_can_mend_is_not_started_again_by_systemd() -> None:
    assert unit_value("RestartPreventExitStatus") == str(MISCONFIGURED)


def test_the_container_runs_without_root() -> None:
    users = re.findall(r"^USER (.*)$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    assert users
    assert users[-1] not in ("root", "0")
