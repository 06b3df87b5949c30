"""What the modes file said before: kept once each, the last few of them."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from modes.modes_history import MOST, ModesHistory, UnknownVersionError

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)


def test_nothing_is_kept_before_anything_was(tmp_path: Path) -> None:
    assert ModesHistory(tmp_path / "none").versions() == []


def test_the_newest_comes_first_and_says_until_when_it_was_in_force(tmp_path: Path) -> None:
    history = ModesHistory(tmp_path / "history")
    history.keep(b"one", NOON)
    history.keep(b"two", NOON + timedelta(microseconds=1))
    first, second = history.versions()
    assert (first.content, second.content) == (b"two", b"one")
    assert (first.ended_at, second.ended_at) == (NOON + timedelta(microseconds=1), NOON)
    assert history.get(second.id) == second


def test_the_oldest_go(tmp_path: Path) -> None:
    history = ModesHistory(tmp_path)
    for number in range(MOST + 5):
        history.keep(str(number).encode(), NOON + timedelta(seconds=number))
    kept = [version.content for version in history.versions()]
    assert kept == [str(number).encode() for number in range(MOST + 4, 4, -1)]


def test_what_comes_again_stands_there_once(tmp_path: Path) -> None:
    history = ModesHistory(tmp_path)
    for second, content in enumerate((b"one", b"two", b"one")):
        history.keep(content, NOON + timedelta(seconds=second))
    assert [version.content for version in history.versions()] == [b"one", b"two"]


def test_files_of_others_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.yaml").write_text("mine")
    (tmp_path / ".half").write_text("of a write that was cut off")
    history = ModesHistory(tmp_path)
    history.keep(b"one", NOON)
    assert len(history.versions()) == 1
    assert (tmp_path / "notes.yaml").exists()


@pytest.mark.parametrize("wanted", ["", "nope", "../../etc/passwd", "20260701T120000.000000Z"])
def test_no_other_id_finds_anything(tmp_path: Path, wanted: str) -> None:
    with pytest.raises(UnknownVersionError):
        ModesHistory(tmp_path).get(wanted)
