"""What modes offer, looked up without holding anybody up."""

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bot.offered_loras import KEPT, OfferedLoras
from bot.records import Owner
from engine.errors import RequestError
from engine.jobs import LoraChoice, ModelSpec, RequestDraft
from modes.mode_config import ModeConfig
from tests.test_studio import ADA, MODES, WEB, Room, a_room

STYLED = MODES.replace("{model: small,", '{model: small, loras_allowed: "*",')


class Looks:
    """Looks at the disk for LoRAs: where each was made, and what it comes to."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.threads: list[threading.Thread] = []
        self.errors: list[OSError] = []
        self.gate = threading.Event()
        self.gate.set()
        look = ModeConfig.offered_loras

        def noted(mode: ModeConfig) -> dict[str, Path]:
            self.threads.append(threading.current_thread())
            self.gate.wait(30)
            if self.errors:
                raise self.errors.pop()
            return dict(look(mode))

        patch.setattr(ModeConfig, "offered_loras", noted)

    @property
    def were_beside_the_loop(self) -> bool:
        return threading.main_thread() not in self.threads


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    return Looks(monkeypatch)


@pytest.fixture
def mode(tmp_path: Path) -> ModeConfig:
    (tmp_path / "ink.safetensors").touch()
    return ModeConfig("a", ModelSpec(tmp_path / "model"), lora_folder=tmp_path)


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[Room]:
    (tmp_path / "loras").mkdir()
    for name in ("ink", "snow"):
        (tmp_path / "loras" / f"{name}.safetensors").touch()
    async with a_room(tmp_path, modes=STYLED) as room:
        yield room


async def test_a_folder_is_read_once_for_all_who_ask_at_the_same_time(
    looks: Looks, mode: ModeConfig
) -> None:
    offered = OfferedLoras()

    found = await asyncio.gather(*(offered.of(mode) for _ in range(20)))

    assert [list(names) for names in found] == [["ink"]] * 20
    assert len(looks.threads) == 1
    assert looks.were_beside_the_loop


async def test_what_was_found_counts_for_some_seconds(
    looks: Looks, mode: ModeConfig, tmp_path: Path
) -> None:
    now = 100.0
    offered = OfferedLoras(lambda: now)
    await offered.of(mode)
    (tmp_path / "snow.safetensors").touch()

    now += KEPT - 0.1
    before = await offered.of(mode)
    now += 0.2
    after = await offered.of(mode)

    assert (list(before), list(after)) == (["ink"], ["ink", "snow"])
    assert len(looks.threads) == 2


async def test_modes_of_one_folder_share_what_was_found(looks: Looks, mode: ModeConfig) -> None:
    offered = OfferedLoras()
    other = ModeConfig("b", ModelSpec(Path("other")), lora_folder=mode.lora_folder)

    await offered.of(mode)
    assert list(await offered.of(other)) == ["ink"]
    assert list(await offered.of(ModeConfig("c", ModelSpec(Path("other"))))) == []

    assert len(looks.threads) == 2


async def test_a_look_that_failed_is_made_again(looks: Looks, mode: ModeConfig) -> None:
    offered = OfferedLoras()
    looks.errors.append(OSError("the network drive is away"))

    with pytest.raises(OSError, match="network drive"):
        await offered.of(mode)

    assert list(await offered.of(mode)) == ["ink"]


async def test_who_stops_waiting_takes_nothing_from_others(looks: Looks, mode: ModeConfig) -> None:
    offered = OfferedLoras()
    looks.gate.clear()
    impatient, patient = (asyncio.ensure_future(offered.of(mode)) for _ in range(2))
    await asyncio.sleep(0)
    impatient.cancel()
    looks.gate.set()

    assert list(await patient) == ["ink"]
    assert impatient.cancelled()
    assert len(looks.threads) == 1


async def test_what_nobody_asks_for_any_more_is_not_kept(tmp_path: Path) -> None:
    now = 100.0
    offered = OfferedLoras(lambda: now)
    for number in range(50):
        now += KEPT + 1
        await offered.of(ModeConfig("a", ModelSpec(tmp_path), lora_folder=tmp_path / str(number)))

    assert len(offered) == 1


async def test_requests_for_loras_read_the_folder_once_and_beside_the_event_loop(
    looks: Looks, room: Room
) -> None:
    drafts = [RequestDraft(f"{colour} <lora:ink>") for colour in ("red", "green", "blue")]
    drafts.append(RequestDraft("plain", loras=(LoraChoice("snow", 0.5),)))

    jobs = await room.studio.submit_all(drafts, ADA, [WEB] * len(drafts))

    laid = [[lora.path.stem for lora in job.request.model.loras] for job in jobs]
    assert laid == [["ink"]] * 3 + [["snow"]]
    assert len(looks.threads) == 1
    assert looks.were_beside_the_loop


async def test_requests_that_are_refused_hold_nobody_up_either(looks: Looks, room: Room) -> None:
    for _ in range(3):
        with pytest.raises(RequestError) as refusal:
            await room.studio.submit(RequestDraft("x <lora:nope>"), ADA, WEB)
        assert refusal.value.allowed == "ink, snow"

    assert len(looks.threads) == 1
    assert looks.were_beside_the_loop


async def test_what_is_made_of_a_picture_looks_for_its_loras_beside_the_event_loop(
    looks: Looks, room: Room
) -> None:
    job = await room.ended(await room.studio.submit(RequestDraft("x <lora:ink>"), ADA, WEB))
    remaker = room.studio.remaker

    again = await remaker.again(job.id, ADA, WEB)
    edited = await remaker.edit(job.id, RequestDraft("y <lora:snow>"), ADA, WEB)
    varied = await remaker.vary(job.images[0].id, ADA, WEB)
    tried = await room.studio.try_out(
        room.catalog.get("small"), RequestDraft("z <lora:ink>"), Owner("web:eve", "Eve"), WEB
    )

    made = [again, edited, varied.job, tried]
    assert [each.request.model.loras[0].path.stem for each in made] == ["ink", "snow", "ink", "ink"]
    assert looks.were_beside_the_loop


async def test_requests_without_loras_read_no_folder(looks: Looks, room: Room) -> None:
    await room.studio.submit(RequestDraft("a fox < a <hound>"), ADA, WEB)

    assert looks.threads == []
