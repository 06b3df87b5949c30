# ruff: noqa: ASYNC240 - the tests' own files are tiny
"""The catalog: the modes in force, swapped whole, the last good ones kept."""

import asyncio
import logging
import threading
from pathlib import Path

import pytest

import modes.catalog
from engine.errors import UnknownModeError
from modes.catalog import ModeCatalog
from modes.modes_file import ModesFile, ModesFileError, load_modes
from modes.yaml_reader import MAX_PROBLEMS

GENEROUS = 30.0

GOOD = """model_root: models
default_mode: a
modes:
  a: {model: x.safetensors}
  b: {model: x.safetensors, default_steps: 10}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "modes.yaml"
    path.write_text(GOOD, encoding="utf-8")
    return path


class SlowDisk:
    """Reads modes files as ever, and gives each away only when it is told to."""

    def __init__(self) -> None:
        self.read = threading.Semaphore(0)
        self.may_go_on = threading.Event()

    def load(self, path: Path) -> ModesFile:
        file = load_modes(path)
        self.read.release()
        assert self.may_go_on.wait(GENEROUS), "the event loop stood still"
        return file

    async def has_read(self) -> None:
        """Waits until a file was read."""
        assert await asyncio.to_thread(self.read.acquire, timeout=GENEROUS)


@pytest.fixture
def slow(path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[ModeCatalog, SlowDisk]:
    """A catalog whose file is read slowly from now on."""
    catalog, disk = ModeCatalog(path), SlowDisk()
    monkeypatch.setattr(modes.catalog, "load_modes", disk.load)
    return catalog, disk


def test_it_knows_its_modes_by_name(path: Path) -> None:
    catalog = ModeCatalog(path)
    assert catalog.default_mode == "a"
    assert catalog.names() == ("a", "b")
    assert catalog.get("b").default_steps == 10
    assert catalog.error is None
    assert catalog.path == path
    assert [warning.line for warning in catalog.warnings] == [4, 5]


def test_an_unknown_mode_is_refused_with_the_known_ones(path: Path) -> None:
    with pytest.raises(UnknownModeError) as caught:
        ModeCatalog(path).get("c")
    assert caught.value.known == ("a", "b")
    assert "a, b" in str(caught.value)


async def test_a_changed_file_is_in_force_after_a_reload_and_listeners_hear_of_it(
    path: Path,
) -> None:
    catalog = ModeCatalog(path)
    before, kept = catalog.modes, catalog.get("a")
    heard: list[tuple[str, ...]] = []
    catalog.add_listener(lambda changed: heard.append(changed.names()))
    path.write_text(GOOD.replace("  a:", "  c:").replace("default_mode: a", "default_mode: c"))
    assert await catalog.reload()
    assert catalog.default_mode == "c"
    assert heard == [("c", "b")]
    # Whoever took the old snapshot still has it.
    assert before["a"] is kept
    assert "a" not in catalog.modes


async def test_reloading_the_same_file_tells_nobody(path: Path) -> None:
    catalog = ModeCatalog(path)
    heard: list[object] = []
    catalog.add_listener(heard.append)
    path.write_text(GOOD + "# a comment\n", encoding="utf-8")
    assert await catalog.reload()
    assert not heard


async def test_a_broken_file_changes_nothing_and_says_why_until_it_is_mended(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    catalog = ModeCatalog(path)
    before = catalog.modes
    heard: list[object] = []
    catalog.add_listener(heard.append)
    path.write_text(GOOD.replace("10", "lots"), encoding="utf-8")
    with caplog.at_level(logging.ERROR):
        assert not await catalog.reload()
    assert catalog.modes is before
    why = catalog.error or ""
    assert "line 5: modes.b.default_steps: 'lots' is not allowed" in why
    assert why in caplog.text
    assert not heard
    path.write_text(GOOD.replace("10", "12"), encoding="utf-8")
    assert await catalog.reload()
    assert catalog.error is None
    assert catalog.get("b").default_steps == 12
    assert len(heard) == 1


async def test_a_file_that_vanished_changes_nothing_and_says_so(path: Path) -> None:
    catalog = ModeCatalog(path, path.parent, "x.safetensors")
    path.unlink()
    assert not await catalog.reload()
    assert catalog.names() == ("a", "b")
    assert "No such file" in (catalog.error or "")


async def test_a_listener_that_fails_does_not_keep_the_others_from_hearing(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    catalog = ModeCatalog(path)
    heard: list[object] = []

    def fail(_: ModeCatalog) -> None:
        raise ValueError("not my day")

    catalog.add_listener(fail)
    catalog.add_listener(heard.append)
    path.write_text(GOOD.replace("10", "12"), encoding="utf-8")
    assert await catalog.reload()
    assert len(heard) == 1
    assert "not my day" in caplog.text


def test_a_bad_first_file_is_an_error_even_where_there_is_a_fallback(path: Path) -> None:
    path.write_text("modes: 1", encoding="utf-8")
    with pytest.raises(ModesFileError, match="modes: '1' is not allowed"):
        ModeCatalog(path, path.parent, "x.safetensors")


async def test_without_a_file_the_one_model_is_drawn_with_until_a_file_comes(path: Path) -> None:
    path.unlink()
    catalog = ModeCatalog(path, path.parent, "x.safetensors")
    assert catalog.names() == (catalog.default_mode,)
    assert any("no modes file" in str(warning) for warning in catalog.warnings)
    assert await catalog.reload()
    path.write_text(GOOD, encoding="utf-8")
    assert await catalog.reload()
    assert catalog.names() == ("a", "b")


def test_a_file_that_can_not_be_looked_at_is_told_and_no_model_stands_in_for_it(
    tmp_path: Path,
) -> None:
    path = tmp_path / ("a" * 300)
    with pytest.raises(ModesFileError, match="can't be read: File name too long"):
        ModeCatalog(path, tmp_path, "x.safetensors")


def test_with_neither_file_nor_model_it_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ModesFileError, match=r"(?s)none.yaml: no such file.*MODEL_ROOT.*MODEL:"):
        ModeCatalog(tmp_path / "none.yaml")


async def test_what_was_saved_last_is_in_force_however_many_read_at_once(
    path: Path, slow: tuple[ModeCatalog, SlowDisk]
) -> None:
    catalog, disk = slow
    path.write_text(GOOD.replace("10", "12"), encoding="utf-8")
    early = asyncio.create_task(catalog.reload())
    await disk.has_read()
    path.write_text(GOOD.replace("10", "14"), encoding="utf-8")
    late = asyncio.create_task(catalog.reload())
    await asyncio.sleep(0)  # it has begun
    disk.may_go_on.set()
    assert await early
    assert await late
    assert catalog.get("b").default_steps == 14


async def test_the_event_loop_goes_on_while_a_file_is_read_and_listeners_hear_in_it(
    path: Path, slow: tuple[ModeCatalog, SlowDisk]
) -> None:
    catalog, disk = slow
    heard: list[int] = []
    catalog.add_listener(lambda _: heard.append(threading.get_ident()))
    path.write_text(GOOD.replace("10", "12"), encoding="utf-8")
    reading = asyncio.create_task(catalog.reload())
    await disk.has_read()
    assert catalog.get("b").default_steps == 10
    disk.may_go_on.set()
    assert await reading
    assert catalog.get("b").default_steps == 12
    assert heard == [threading.get_ident()]


async def test_a_reload_that_is_given_up_puts_nothing_older_in_force(
    path: Path, slow: tuple[ModeCatalog, SlowDisk]
) -> None:
    catalog, disk = slow
    path.write_text(GOOD.replace("10", "12"), encoding="utf-8")
    given_up = asyncio.create_task(catalog.reload())
    await disk.has_read()
    given_up.cancel()
    path.write_text(GOOD.replace("10", "14"), encoding="utf-8")
    disk.may_go_on.set()
    assert await catalog.reload()
    assert given_up.cancelled()
    assert catalog.get("b").default_steps == 14


async def test_of_thousands_of_mistakes_a_hundred_are_told_and_how_many_more(path: Path) -> None:
    catalog = ModeCatalog(path)
    path.write_text(GOOD + "".join(f"x{n}: 1\n" for n in range(5000)), encoding="utf-8")
    assert not await catalog.reload()
    *told, last = catalog.problems
    assert [problem.line for problem in told] == list(range(6, 6 + MAX_PROBLEMS))
    assert all("unknown key" in problem.text for problem in told)
    assert last.text == f"and {5000 - MAX_PROBLEMS} more; mend these first"
