import json
from pathlib import Path

import pytest

from engine.measured_file import MeasuredFile


def number(entry: object) -> int | None:
    return entry if type(entry) is int else None


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "measured.json"


def test_sections_leave_each_other_alone(path: Path) -> None:
    bytes_, seconds = MeasuredFile(path), MeasuredFile(path)
    bytes_.write("bytes", {"a": 1})
    seconds.write("seconds on cpu", {"b": 2})
    bytes_.write("bytes", {"a": 3})

    assert MeasuredFile(path).read("bytes", number) == {"a": 3}
    assert MeasuredFile(path).read("seconds on cpu", number) == {"b": 2}
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_what_is_not_there_is_empty(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert MeasuredFile(path).read("bytes", number) == {}
    MeasuredFile(path).write("bytes", {"a": 1})

    assert MeasuredFile(path).read("other", number) == {}
    assert MeasuredFile(None).read("bytes", number) == {}
    MeasuredFile(None).write("bytes", {"a": 1})
    assert caplog.text == ""


@pytest.mark.parametrize("section", [[], "text", 7, None, {"a": "b"}, {"a": [1]}])
def test_what_makes_no_sense_is_said_and_passed_over(
    path: Path, section: object, caplog: pytest.LogCaptureFixture
) -> None:
    path.parent.mkdir()
    path.write_text(json.dumps({"bytes": section, "other": {"a": 1}}))

    assert MeasuredFile(path).read("bytes", number) == {}
    assert "is measured anew" in caplog.text
    assert MeasuredFile(path).read("other", number) == {"a": 1}


def test_a_broken_file_is_written_anew(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"{\xff")

    MeasuredFile(path).write("bytes", {"a": 1})

    assert MeasuredFile(path).read("bytes", number) == {"a": 1}
