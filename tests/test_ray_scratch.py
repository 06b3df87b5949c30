"""What a worker of a cluster keeps only while it lives."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.messages import JobFailed, Ping, Run, frame
from engine.model_contents import Contents
from engine.ray_messages import Aside, Keep, SourcedRun
from engine.ray_scratch import Scratch
from tests.test_model_contents import same_header
from tests.test_ray_parts import Quiet, a_worker, ask_of, machine, said_by
from tests.worker_kit import ask

__all__ = ["machine"]  # a fixture

ROOT = Path(__file__).parent.parent
FULL = OSError(28, "No space left on device")


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def dies(worker: Quiet) -> None:
    """Does what the end of its process does."""
    held = worker._scratch._held
    assert held is not None
    os.close(held)


def test_what_a_killed_process_left_goes_and_what_a_living_one_has_stays(tmp_path: Path) -> None:
    program = f"""
from pathlib import Path
from engine.ray_scratch import Scratch

folder = Scratch(Path({str(tmp_path)!r})).folder()
(folder / "half a model").write_bytes(b"1")
print(folder, flush=True)
input()
"""
    other = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with other:
        assert other.stdout is not None
        theirs = Path(other.stdout.readline().strip())
        scratch = Scratch(tmp_path)
        (scratch.folder() / "ours").write_bytes(b"2")

        Scratch(tmp_path).sweep()

        assert {path.name for path in files(tmp_path)} == {"half a model", "ours"}
        other.kill()
        other.wait()
        Scratch(tmp_path).sweep()
        assert not theirs.exists()
        assert [path.name for path in files(tmp_path)] == ["ours"]


def test_where_there_is_nothing_yet_nothing_is_made(tmp_path: Path) -> None:
    Scratch(tmp_path / "none").sweep()

    assert not (tmp_path / "none").exists()


async def test_half_a_model_that_a_worker_left_goes_when_the_next_one_starts(
    tmp_path: Path, machine: Path
) -> None:
    model = same_header(tmp_path / "bot" / "dream.safetensors", b"1")
    content = Contents(None).of(model)
    first, beside = await a_worker(), await a_worker()
    half = Keep(1, model, content, "", 0, b"x" * 1000)
    for worker in (first, beside):
        assert (await ask_of(worker, half)).error is None
    assert len(files(tmp_path / "kept")) == 2

    dies(first)
    await a_worker()

    [left] = files(tmp_path / "kept")
    assert left.is_relative_to(beside._scratch.folder())


async def test_a_full_disk_is_told_and_what_came_of_the_model_goes(
    tmp_path: Path, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = same_header(tmp_path / "bot" / "dream.safetensors", b"1")
    content, data = Contents(None).of(model), model.read_bytes()
    worker = await a_worker()
    assert (await ask_of(worker, Keep(1, model, content, "", 0, data[:9]))).error is None

    def full(*_: object) -> None:
        raise FULL

    monkeypatch.setattr(Path, "rename", full)
    last = Keep(2, model, content, "", 9, data[9:], is_last=True)
    assert "can't be kept: No space left on device" in str((await ask_of(worker, last)).error)

    assert files(tmp_path / "kept") == []
    monkeypatch.undo()


async def test_a_picture_that_there_is_no_room_for_fails_its_own_request_alone(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = await a_worker()

    def full(path: Path, data: bytes) -> None:
        path.touch()
        raise FULL

    def sourced(run_id: int) -> SourcedRun:
        return SourcedRun(Run(run_id, f"job {run_id}", ask(source=Path("/bot/a.png"))), b"pixels")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        await worker.tell(framed(sourced(1), Ping(2)))

    assert worker.told() == Ping(2)
    [told] = await said_by(worker)
    assert isinstance(told, Aside)
    assert isinstance(told.word, JobFailed)
    assert (told.word.run_id, told.word.job_id) == (1, "job 1")
    assert "its machine can't keep it (No space left on device)" in str(told.word.error)
    assert not files(worker._scratch.folder())
    await worker.tell(framed(sourced(3)))
    assert worker.told().request.source.read_bytes() == b"pixels"


async def test_a_picture_of_a_worker_that_died_goes_when_the_next_one_starts(
    tmp_path: Path, machine: Path
) -> None:
    worker = await a_worker()
    run = Run(7, "job", ask(source=Path("/bot/a.png")))
    await worker.tell(framed(SourcedRun(run, b"pixels")))
    source = worker.told().request.source
    assert source.is_relative_to(tmp_path / "kept")

    dies(worker)
    await a_worker()

    assert not source.exists()


def framed(*commands: Any) -> tuple[bytes, ...]:
    return tuple(map(frame, commands))
