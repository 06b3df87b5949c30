import os
from pathlib import Path

import pytest

from engine.errors import ModelNotFoundError
from engine.model_contents import Contents
from tests.tiny_models import write_tensors

SHAPES = {"a": (4, 4), "b": (8,)}


def same_header(path: Path, byte: bytes) -> Path:
    """Writes a model whose header and size are those of others, and whose weights differ."""
    write_tensors(path, SHAPES)
    raw = path.read_bytes()
    path.write_bytes(raw[:-1] + byte)
    return path


def test_a_file_is_found_by_its_content_under_another_name(tmp_path: Path) -> None:
    here = same_header(tmp_path / "bot" / "dream.safetensors", b"1")
    there = same_header(tmp_path / "worker" / "checkpoints" / "renamed.safetensors", b"1")

    wanted = Contents(None).of(here)

    named = Path("/nowhere/dream.safetensors")
    assert Contents(None).find(wanted, named, [tmp_path / "worker"]) == there
    assert Contents(None).find(wanted, here, []) == here
    assert Contents(None).find(wanted, named, [tmp_path / "empty"]) is None


def test_a_model_with_the_same_header_and_size_is_another_one(tmp_path: Path) -> None:
    here = same_header(tmp_path / "bot" / "dream.safetensors", b"1")
    other = same_header(tmp_path / "worker" / "dream.safetensors", b"2")

    wanted = Contents(None).of(here)

    assert other.stat().st_size == wanted.size
    assert Contents(None).find(wanted, other, [tmp_path / "worker"]) is None


def test_a_folder_is_its_files_and_their_names_and_hidden_ones_are_none(tmp_path: Path) -> None:
    folders = [tmp_path / name / "dream" for name in ("bot", "worker", "other")]
    for folder in folders:
        same_header(folder / "unet" / "weights.safetensors", b"1")
        (folder / "model_index.json").write_text("{}")
    (folders[1] / ".cache").mkdir()
    (folders[1] / ".cache" / "junk").write_text("junk")
    (folders[2] / "unet" / "weights.safetensors").rename(folders[2] / "weights.safetensors")

    contents = Contents(None)
    wanted = contents.of(folders[0])

    assert wanted.is_folder
    assert contents.find(wanted, Path("/nowhere"), [tmp_path / "worker"]) == folders[1]
    assert contents.of(folders[2]).digest != wanted.digest


def test_what_was_read_is_remembered_until_the_file_changes(tmp_path: Path) -> None:
    memory = tmp_path / "contents.json"
    model = same_header(tmp_path / "dream.safetensors", b"1")
    before, status = Contents(memory).of(model), model.stat()

    # The same size and time: it is not read again, so that this change goes unnoticed.
    same_header(model, b"2")
    os.utime(model, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert Contents(memory).of(model) == before
    os.utime(model, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert Contents(memory).of(model).digest != before.digest


@pytest.mark.parametrize("entry", ['{"sha256": {"x": [1, 2]}}', "[]", "no JSON"])
def test_a_broken_memory_is_written_anew(tmp_path: Path, entry: str) -> None:
    memory = tmp_path / "contents.json"
    memory.write_text(entry)
    model = same_header(tmp_path / "dream.safetensors", b"1")

    assert Contents(memory).of(model) == Contents(None).of(model)


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError):
        Contents(None).of(tmp_path / "none.safetensors")
