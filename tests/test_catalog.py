"""The catalog: the modes in force, swapped whole, the last good ones kept."""

import logging
from pathlib import Path

import pytest

from engine.errors import UnknownModeError
from modes.catalog import ModeCatalog
from modes.modes_file import ModesFileError

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


def test_a_changed_file_is_in_force_after_a_reload_and_listeners_hear_of_it(path: Path) -> None:
    catalog = ModeCatalog(path)
    before, kept = catalog.modes, catalog.get("a")
    heard: list[tuple[str, ...]] = []
    catalog.add_listener(lambda changed: heard.append(changed.names()))
    path.write_text(GOOD.replace("  a:", "  c:").replace("default_mode: a", "default_mode: c"))
    assert catalog.reload()
    assert catalog.default_mode == "c"
    assert heard == [("c", "b")]
    # Whoever took the old snapshot still has it.
    assert before["a"] is kept
    assert "a" not in catalog.modes


def test_reloading_the_same_file_tells_nobody(path: Path) -> None:
    catalog = ModeCatalog(path)
    heard: list[object] = []
    catalog.add_listener(heard.append)
    path.write_text(GOOD + "# a comment\n", encoding="utf-8")
    assert catalog.reload()
    assert not heard


def test_a_broken_file_changes_nothing_and_says_why_until_it_is_mended(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    catalog = ModeCatalog(path)
    before = catalog.modes
    heard: list[object] = []
    catalog.add_listener(heard.append)
    path.write_text(GOOD.replace("10", "lots"), encoding="utf-8")
    with caplog.at_level(logging.ERROR):
        assert not catalog.reload()
    assert catalog.modes is before
    assert catalog.error is not None
    assert "line 5: modes.b.default_steps: 'lots' is not allowed" in catalog.error
    assert catalog.error in caplog.text
    assert not heard
    path.write_text(GOOD.replace("10", "12"), encoding="utf-8")
    assert catalog.reload()
    assert catalog.error is None
    assert catalog.get("b").default_steps == 12
    assert len(heard) == 1


def test_a_file_that_vanished_changes_nothing_and_says_so(path: Path) -> None:
    catalog = ModeCatalog(path, path.parent, "x.safetensors")
    path.unlink()
    assert not catalog.reload()
    assert catalog.names() == ("a", "b")
    assert "No such file" in (catalog.error or "")


def test_a_listener_that_fails_does_not_keep_the_others_from_hearing(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    catalog = ModeCatalog(path)
    heard: list[object] = []

    def fail(_: ModeCatalog) -> None:
        raise ValueError("not my day")

    catalog.add_listener(fail)
    catalog.add_listener(heard.append)
    path.write_text(GOOD.replace("10", "12"), encoding="utf-8")
    assert catalog.reload()
    assert len(heard) == 1
    assert "not my day" in caplog.text


def test_a_bad_first_file_is_an_error_even_where_there_is_a_fallback(path: Path) -> None:
    path.write_text("modes: 1", encoding="utf-8")
    with pytest.raises(ModesFileError, match="modes: '1' is not allowed"):
        ModeCatalog(path, path.parent, "x.safetensors")


def test_without_a_file_the_one_model_is_drawn_with_until_a_file_comes(path: Path) -> None:
    path.unlink()
    catalog = ModeCatalog(path, path.parent, "x.safetensors")
    assert catalog.names() == (catalog.default_mode,)
    assert any("no modes file" in str(warning) for warning in catalog.warnings)
    assert catalog.reload()
    path.write_text(GOOD, encoding="utf-8")
    assert catalog.reload()
    assert catalog.names() == ("a", "b")


def test_with_neither_file_nor_model_it_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ModesFileError, match=r"(?s)none.yaml: no such file.*MODEL_ROOT.*MODEL:"):
        ModeCatalog(tmp_path / "none.yaml")
