"""Settings that every test shares."""

import gc
import os
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings

# Tiny models are slower with two threads than with one wherever the machine is busy.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Dozens of processes run the same code: it is compiled once, whatever the owner prefers elsewhere.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# Nothing here may reach for a model hub.
os.environ["HF_HUB_OFFLINE"] = "1"

# Timing never decides a test.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

# A failed assertion in a kit shows its values, as one in a test does.
pytest.register_assert_rewrite("tests.discord_kit", "tests.page_kit")


@pytest.fixture(autouse=True, scope="module")
def what_is_there_stays() -> None:
    """Spares a file's tests the search for garbage in all that was imported, as workers do.

    What a test makes is found; torch and its friends alone are a million objects.
    """
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Imports all files without a search for garbage in them, of which there is none."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Has files with slow tests come first: none is left to one process alone at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the project's own options."""
    parser.addoption(
        "--record-requests",
        type=Path,
        metavar="FILE",
        help="write what the bot asks of Discord's API, see tests/discord_double/recording.py",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Has every double of this run write to one file."""
    if path := config.getoption("--record-requests"):
        from tests.discord_double import DiscordDouble
        from tests.discord_double.recording import Recording

        DiscordDouble.recording = Recording(path.absolute())
        if not hasattr(config, "workerinput"):  # pytest-xdist's workers come after
            DiscordDouble.recording.begin()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Half as many again as there are cores: a third of their time, tests wait for somebody."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return cores + (cores + 1) // 2
