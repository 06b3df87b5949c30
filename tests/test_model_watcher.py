# ruff: noqa: ASYNC240 - the tests' own files are tiny
"""Models that come while the bot runs are drawn with, wherever the owner puts them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

import modes.model_watcher
from modes.catalog import ModeCatalog
from modes.model_watcher import watch_models
from modes.named_files import Whereabouts
from tests.tiny_models import write_checkpoint

GENEROUS = 30.0
HEAD = "model_root: models\nmodes:\n  a:\n    model: dream.safetensors\n"
SIZED = HEAD + "    default_size: 512x512\n"


class Watch:
    """Models' files, watched; each time the modes are read again can be waited for."""

    def __init__(self, path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
        path.write_text(text, encoding="utf-8")
        self.models = path.parent / "models"
        self.catalog = ModeCatalog(path)
        self.read: asyncio.Queue[bool] = asyncio.Queue()
        self._reload = self.catalog.reload
        monkeypatch.setattr(self.catalog, "reload", self.reload)

    async def reload(self) -> bool:
        taken = await self._reload()
        self.read.put_nowait(taken)
        return taken

    def copy(self, place: str, content: bytes = b"") -> Path:
        path = self.models / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    async def until(self, fact: Callable[[], bool]) -> None:
        """Waits until the modes were read again and a fact holds."""
        async with asyncio.timeout(GENEROUS):
            await self.read.get()
            while not fact():
                await self.read.get()


@contextlib.asynccontextmanager
async def watching(path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Watch]:
    monkeypatch.setattr(modes.model_watcher, "_EVERY", 0.01)
    watch = Watch(path, text, monkeypatch)
    task = asyncio.create_task(watch_models(watch.catalog))
    try:
        yield watch
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "modes.yaml"


@pytest.mark.parametrize(
    ("key", "place"),
    [
        ("", "checkpoints/dream.safetensors"),
        ("", "diffusers/dream.safetensors/model_index.json"),
        ("", "dream.safetensors"),
        ("loras: [ink.safetensors]", "loras/ink.safetensors"),
        ("vae: sharp.safetensors", "vae/sharp.safetensors"),
        ("refiner: fine.safetensors", "checkpoints/fine.safetensors"),
    ],
)
async def test_what_a_mode_lacks_is_found_when_it_is_copied_into_a_usual_folder(
    path: Path, monkeypatch: pytest.MonkeyPatch, key: str, place: str
) -> None:
    text = SIZED + f"    {key}\n"
    async with watching(path, text, monkeypatch) as watch:
        if key:
            watch.copy("dream.safetensors")
            await watch.until(lambda: len(watch.catalog.get("a").missing()) == 1)
        assert watch.catalog.get("a").missing()
        watch.copy(place)
        await watch.until(lambda: not watch.catalog.get("a").missing())
        assert watch.catalog.warnings == ()


async def test_an_offered_lora_that_comes_is_offered(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = SIZED + "    loras_allowed: [ink.safetensors]\n"
    async with watching(path, text, monkeypatch) as watch:
        assert not watch.catalog.get("a").offered_loras()
        ink = watch.copy("loras/ink.safetensors")
        await watch.until(lambda: watch.catalog.get("a").offered_loras() == {"ink": ink})


async def test_a_model_that_is_moved_to_another_usual_folder_is_found_there(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with watching(path, SIZED, monkeypatch) as watch:
        file = watch.copy("dream.safetensors")
        await watch.until(lambda: not watch.catalog.get("a").missing())
        (watch.models / "checkpoints").mkdir()
        moved = file.rename(watch.models / "checkpoints" / file.name)
        await watch.until(lambda: watch.catalog.get("a").model.path == moved)


async def test_a_model_that_is_still_being_copied_has_its_own_size_when_it_is_whole(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with watching(path, HEAD, monkeypatch) as watch:
        place = watch.models / "checkpoints" / "dream.safetensors"
        watch.copy("checkpoints/dream.safetensors", b"not all of it yet")
        await watch.until(lambda: watch.catalog.get("a").model.path == place)
        assert watch.catalog.get("a").default_size == (512, 512)
        write_checkpoint(place, 2048)
        await watch.until(lambda: watch.catalog.get("a").default_size == (1024, 1024))
        assert watch.catalog.warnings == ()


async def test_a_broken_file_is_told_once_for_each_model_that_comes(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with watching(path, SIZED, monkeypatch) as watch:
        path.write_text(SIZED.replace("512x512", "huge"), encoding="utf-8")
        watch.copy("checkpoints/dream.safetensors")
        await watch.until(lambda: watch.catalog.error is not None)
        looks, loop, look = (
            asyncio.Queue[None](),
            asyncio.get_running_loop(),
            Whereabouts.look_again,
        )

        def counted(before: Whereabouts) -> Whereabouts:
            loop.call_soon_threadsafe(looks.put_nowait, None)
            return look(before)

        monkeypatch.setattr(Whereabouts, "look_again", counted)
        async with asyncio.timeout(GENEROUS):
            for _ in range(5):
                await looks.get()
        assert watch.read.empty()
        assert watch.catalog.names() == ("a",)
