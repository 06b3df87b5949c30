"""The queue over HTTP: what runs, what waits and why, as each may see it; and taking it back."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bot.records import JobRecord, JobView, Origin, Owner, Setback
from bot.web.access import Access
from bot.web.queue_board import reason
from engine.jobs import GenerationRequest, JobStatus, ModelSpec, RequestDraft, Sampler
from engine.lane import LaneState, LaneStatus
from engine.testing import FakeExecutor
from tests.web_kit import Page, open_page

ADMIN, ADA, BOB, VIEWER = "a" * 16, "ada-" + "0" * 16, "bob-" + "0" * 16, "v" * 16
TOKENS = {"web_token": ADMIN, "web_artist_token": (ADA, BOB), "web_viewer_token": (VIEWER,)}

MODEL = ModelSpec(Path("small.safetensors"))
REQUEST = GenerationRequest("small", MODEL, "a fox", "", 64, 64, 4, 7.0, Sampler.DDIM, 1)
WAITING = JobView(
    JobRecord(
        "id", Owner("web:x", "x"), Origin("web"), REQUEST, JobStatus.QUEUED, datetime.now(UTC)
    ),
    position=1,
)
LANE = LaneStatus("cuda:0", LaneState.READY, 1, 1, (MODEL.key,), None)


@pytest.fixture
async def held(tmp_path: Path) -> AsyncIterator[Page]:
    """A page that needs tokens, whose one worker does what the test says."""
    async with open_page(tmp_path, FakeExecutor(hold=True), **TOKENS) as opened:
        yield opened


def act_as(page: Page, token: str) -> None:
    page.client.headers["Authorization"] = f"Bearer {token}"


async def queue(page: Page) -> dict[str, Any]:
    return dict((await page.client.get("/api/queue")).json())


async def test_what_others_ask_for_is_told_to_nobody(held: Page) -> None:
    act_as(held, ADA)
    first = await held.submit("ada's secret")
    await held.executor.until(lambda: bool(held.executor.running))
    act_as(held, BOB)
    second = await held.submit("bob's secret")

    seen = await queue(held)
    assert [(e["prompt"], e["who"], e["id"]) for e in seen["running"]] == [(None, "a member", None)]
    assert [(e["prompt"], e["who"]) for e in seen["waiting"]] == [("bob's secret", "you")]

    act_as(held, VIEWER)
    answer = await held.client.get("/api/queue")
    assert "secret" not in answer.text
    assert first["id"] not in answer.text
    assert second["id"] not in answer.text

    act_as(held, ADMIN)
    answer = await held.client.get("/api/queue")
    assert "secret" not in answer.text
    told = [entry["who"] for entry in answer.json()["running"] + answer.json()["waiting"]]
    assert told == ["artist on the page, by the page"] * 2


async def test_what_roles_count_is_told_to_who_has_them_and_admins(
    held: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held.studio._intake, "_weights", {"Boosters": 2.0})
    access: Access = held.front_end.app.state.access
    ada = replace(access.by_token(ADA, "nowhere").owner, roles=frozenset({"Boosters"}))
    for _ in range(2):
        await held.studio.submit(RequestDraft("a fox"), ada, Origin("web"))
    await held.executor.until(lambda: bool(held.executor.running))
    for token, is_told in ((ADA, True), (BOB, False), (VIEWER, False), (ADMIN, True)):
        act_as(held, token)
        (waits,) = (await queue(held))["waiting"]
        assert ("its turns count 2 times as much" in waits["why"]) is is_told


async def test_artists_take_back_their_own_and_admins_anybodys(held: Page) -> None:
    act_as(held, ADA)
    job = await held.submit("ada's")
    await held.executor.until(lambda: bool(held.executor.running))
    path = f"/api/queue/{job['id']}/cancel"
    act_as(held, BOB)
    assert (await held.client.post(path, json={})).status_code == 404
    act_as(held, VIEWER)
    assert (await held.client.post(path, json={})).status_code == 403
    act_as(held, ADMIN)
    answer = await held.client.post(path, json={})
    assert answer.status_code == 200
    assert (answer.json()["running"], answer.json()["waiting"]) == ([], [])
    act_as(held, ADA)
    assert (await held.client.get(f"/api/jobs/{job['id']}")).json()["status"] == "cancelled"
    assert (await held.client.post(path, json={})).status_code == 200  # it had ended
    assert (await held.client.post("/api/queue/nope/cancel", json={})).status_code == 404


async def test_the_stream_tells_of_each_change(held: Page) -> None:
    act_as(held, ADA)
    async with held.events("/api/queue/events") as events:
        seen = (data async for name, data in events if name == "queue")
        assert (await anext(seen))["running"] == []
        job = await held.submit("a fox")
        async for now in seen:
            if now["running"] and now["running"][0]["progress"]:
                break
        assert now["running"][0]["device"] == "fake:0"
        held.executor.finish(job["id"])
        async for now in seen:
            if not now["running"]:
                break


async def test_loads_are_told_beside_requests(tmp_path: Path) -> None:
    executor = FakeExecutor()
    executor.load_gate.clear()
    async with open_page(tmp_path, executor) as page:
        await page.client.post("/api/modes/switch", json={"mode": "other"})
        await executor.until(lambda: any(call[0] == "load" for call in executor.calls))
        assert (await queue(page))["errands"] == [
            {"text": "Switching to other", "device": "fake:0"}
        ]
        executor.load_gate.set()


@pytest.mark.parametrize(
    ("view", "lanes", "told"),
    [
        (WAITING, [LANE], "Next, as soon as cuda:0 has room."),
        (WAITING, [replace(LANE, in_flight=0)], "Next."),
        (
            replace(WAITING, position=4, before="2 members"),
            [LANE],
            "Before it: 2 members.",
        ),
        (replace(WAITING, position=40), [LANE], "Before it: 39 requests."),
        (
            WAITING,
            [replace(LANE, models=("another",))],
            "Next, as soon as cuda:0 has room. Its model must be loaded first.",
        ),
        (
            replace(WAITING, record=replace(WAITING.record, weight=1.5)),
            [LANE],
            "Next, as soon as cuda:0 has room. "
            "By its owner's role, its turns count 1.5 times as much.",
        ),
        (
            replace(WAITING, setback=Setback.RESTART),
            [LANE],
            "Back after a restart. Next, as soon as cuda:0 has room.",
        ),
        (
            replace(WAITING, setback=Setback.INTERRUPTED),
            [LANE],
            "It was interrupted and waits for a device again. Next, as soon as cuda:0 has room.",
        ),
        (WAITING, [replace(LANE, state=LaneState.STARTING)], "The worker is starting."),
        (replace(WAITING, paused=""), [LANE], "Drawing is paused; places are kept."),
        (
            replace(WAITING, paused="new GPU"),
            [LANE],
            "Drawing is paused (new GPU); places are kept.",
        ),
        (
            WAITING,
            [replace(LANE, state=LaneState.RESTARTING, last_error="it died")],
            "The worker failed and is being started again.",
        ),
        (
            WAITING,
            [replace(LANE, state=LaneState.DOWN)],
            "No device works; they are tried again every few minutes.",
        ),
    ],
)
def test_why_a_request_waits(view: JobView, lanes: list[LaneStatus], told: str) -> None:
    assert reason(view, lanes, shows_weight=True) == told
