# ruff: noqa: ASYNC240 - the tests' own files are tiny
"""The watcher: a change is told by the system's own events, however the editor saves."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from modes.catalog import ModeCatalog
from modes.file_watcher import watch

GENEROUS = 30.0
GOOD = "model_root: m\nmodes:\n  a: {model: x, default_steps: 10}\n"


class Watch:
    """A watch under way, whose calls can be waited for."""

    def __init__(self, path: Path, catalog: ModeCatalog | None = None) -> None:
        self.path = path
        self.catalog = catalog
        self.calls: asyncio.Queue[bool | None] = asyncio.Queue()

    async def on_change(self) -> None:
        self.calls.put_nowait(await self.catalog.reload() if self.catalog else None)

    async def told(self, until: Callable[[], bool] = lambda: True) -> None:
        """Waits for a call after which a condition holds."""
        async with asyncio.timeout(GENEROUS):
            await self.calls.get()
            while not until():
                await self.calls.get()

    async def rest(self) -> int:
        """Waits until nothing more comes of what was done so far; returns how much came."""
        count = 0
        with contextlib.suppress(TimeoutError):
            while True:
                await asyncio.wait_for(self.calls.get(), 1.5)
                count += 1
        return count


@contextlib.asynccontextmanager
async def watching(path: Path, catalog: ModeCatalog | None = None) -> AsyncIterator[Watch]:
    """Watches a file for as long as the block lasts."""
    stop = asyncio.Event()
    watched = Watch(path, catalog)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(watch(path, watched.on_change, stop), name="watch")
        await watched.told()  # the call at the beginning
        yield watched
        stop.set()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "modes.yaml"
    path.write_text(GOOD, encoding="utf-8")
    return path


async def test_an_edit_is_live(path: Path) -> None:
    catalog = ModeCatalog(path)
    async with watching(path, catalog) as watched:
        path.write_text(GOOD.replace("10", "12"), encoding="utf-8")
        await watched.told(lambda: catalog.get("a").default_steps == 12)


async def test_an_edit_is_live_within_a_second(path: Path) -> None:
    catalog = ModeCatalog(path)
    waits: list[float] = []
    async with watching(path, catalog) as watched:
        for steps in range(11, 31):  # a machine that is busy elsewhere gets another chance
            path.write_text(GOOD.replace("10", str(steps)), encoding="utf-8")
            written = time.monotonic()
            await watched.told(lambda steps=steps: catalog.get("a").default_steps == steps)  # type: ignore[misc] # a default binds the loop's value
            waits.append(time.monotonic() - written)
            if waits[-1] < 1:
                return
    pytest.fail(f"no edit was live within a second: {waits}")


async def test_a_broken_edit_changes_nothing_and_says_why(path: Path) -> None:
    catalog = ModeCatalog(path)
    async with watching(path, catalog) as watched:
        path.write_text(GOOD.replace("10", "lots"), encoding="utf-8")
        await watched.told(lambda: "'lots' is not allowed" in (catalog.error or ""))
        assert catalog.get("a").default_steps == 10
        path.write_text(GOOD.replace("10", "14"), encoding="utf-8")
        await watched.told(lambda: catalog.error is None)
        assert catalog.get("a").default_steps == 14


async def test_a_rename_over_the_file_is_told(path: Path) -> None:
    catalog = ModeCatalog(path)
    async with watching(path, catalog) as watched:
        for steps in ("12", "13"):
            fresh = path.with_suffix(".tmp")
            fresh.write_text(GOOD.replace("10", steps), encoding="utf-8")
            fresh.replace(path)
            await watched.told(lambda steps=steps: catalog.get("a").default_steps == int(steps))  # type: ignore[misc] # a default binds the loop's value


async def test_a_file_that_vanishes_and_comes_back_is_told(path: Path) -> None:
    catalog = ModeCatalog(path)
    async with watching(path, catalog) as watched:
        path.unlink()
        await watched.told(lambda: catalog.error is not None)
        assert catalog.names() == ("a",)
        path.write_text(GOOD.replace("10", "12"), encoding="utf-8")
        await watched.told(lambda: catalog.error is None)
        assert catalog.get("a").default_steps == 12


async def test_other_files_of_the_folder_are_not_told(path: Path) -> None:
    async with watching(path) as watched:
        path.touch()
        await watched.told()
        await watched.rest()
        path.with_name("other.yaml").write_text(GOOD, encoding="utf-8")
        path.with_name("modes.yaml.bak").write_text(GOOD, encoding="utf-8")
        assert await watched.rest() == 0


async def test_a_folder_that_is_replaced_is_watched_again(path: Path) -> None:
    async with watching(path) as watched:
        path.parent.rename(path.parent.with_name("away"))
        await watched.told(lambda: not path.exists())
        path.parent.mkdir()
        path.write_text(GOOD, encoding="utf-8")
        await watched.told(path.exists)
        path.write_text(GOOD + "#\n", encoding="utf-8")
        await watched.told()


async def test_a_folder_that_does_not_exist_yet_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "later" / "modes.yaml"
    async with watching(path) as watched:
        path.parent.mkdir()
        path.write_text(GOOD, encoding="utf-8")
        await watched.told(path.exists)


async def test_a_links_target_elsewhere_is_followed(path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "linked"
    folder.mkdir()
    link = folder / "modes.yaml"
    link.symlink_to(path)
    async with watching(link) as watched:
        path.write_text(GOOD + "# longer\n", encoding="utf-8")
        await watched.told()


async def test_a_callback_that_fails_does_not_end_the_watch(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stop = asyncio.Event()
    calls: asyncio.Queue[None] = asyncio.Queue()

    async def fail() -> None:
        calls.put_nowait(None)
        raise ValueError("not my day")

    async with asyncio.timeout(GENEROUS), asyncio.TaskGroup() as tasks:
        tasks.create_task(watch(path, fail, stop))
        await calls.get()
        path.write_text("other", encoding="utf-8")
        await calls.get()
        stop.set()
    assert "not my day" in caplog.text


async def test_a_watch_that_is_cancelled_ends(path: Path) -> None:
    calls: asyncio.Queue[None] = asyncio.Queue()
    task = asyncio.create_task(watch(path, lambda: calls.put(None), asyncio.Event()))
    async with asyncio.timeout(GENEROUS):
        await calls.get()
        path.write_text(GOOD + "#\n", encoding="utf-8")
        await calls.get()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
