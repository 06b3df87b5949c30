"""Reading what model files hold, while others need threads as well. The test says when a disk is
done."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine import model_contents
from engine.content_reader import READERS
from engine.ray_executor import RayFleet

pytestmark = pytest.mark.timeout(60)


class Disk:
    """Stands in for a slow one.

    Attributes:
        read: names of the files that were begun, oldest first.
        is_done: whether it reads to the end.
    """

    def __init__(self) -> None:
        self.read: list[str] = []
        self.is_done = threading.Event()
        self._digest = model_contents.hashlib.file_digest

    def file_digest(self, file: Any, kind: str) -> Any:
        self.read.append(Path(file.name).name)
        self.is_done.wait()
        return self._digest(file, kind)

    async def until(self, count: int) -> None:
        while len(self.read) < count:  # noqa: ASYNC110 - threads; the test's timeout ends it
            await asyncio.sleep(0.01)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    disk = Disk()
    monkeypatch.setattr(model_contents.hashlib, "file_digest", disk.file_digest)
    yield disk
    disk.is_done.set()


def models(folder: Path, count: int) -> list[Path]:
    paths = [folder / f"{number}.safetensors" for number in range(count)]
    for path in paths:
        path.write_text(path.name)
    return paths


async def test_a_file_is_read_once_however_many_ask(tmp_path: Path, disk: Disk) -> None:
    fleet, [model] = RayFleet("nowhere"), models(tmp_path, 1)
    asking = [asyncio.create_task(fleet.content_of(model)) for _ in range(8)]
    await disk.until(1)
    later = asyncio.create_task(fleet.content_of(model))
    await asyncio.to_thread(list)  # it has looked whether the file is known

    asking[0].cancel()
    disk.is_done.set()

    found = set(await asyncio.gather(*asking[1:], later))
    assert disk.read == ["0.safetensors"]
    assert len(found) == 1
    assert None not in found


async def test_who_needs_a_thread_for_something_else_gets_one(tmp_path: Path, disk: Disk) -> None:
    fleet = RayFleet("nowhere")
    asking = [asyncio.create_task(fleet.content_of(path)) for path in models(tmp_path, 50)]
    await disk.until(READERS)

    assert await asyncio.to_thread(lambda: "another") == "another"

    disk.is_done.set()
    assert None not in await asyncio.gather(*asking)


async def test_what_is_known_is_told_while_other_files_are_read(tmp_path: Path, disk: Disk) -> None:
    fleet, [known, *others] = RayFleet("nowhere"), models(tmp_path, 1 + 2 * READERS)
    disk.is_done.set()
    content = await fleet.content_of(known)
    disk.is_done.clear()
    asking = [asyncio.create_task(fleet.content_of(path)) for path in others]
    await disk.until(1 + READERS)

    assert await fleet.content_of(known) == content

    disk.is_done.set()
    await asyncio.gather(*asking)


async def test_what_is_not_there_has_no_content(tmp_path: Path) -> None:
    assert await RayFleet("nowhere").content_of(tmp_path / "none.safetensors") is None
