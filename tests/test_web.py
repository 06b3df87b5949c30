"""The page's API over real HTTP, around the real studio and a fake executor."""

import asyncio
import io
import signal
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import fastapi.routing
import pytest
from PIL import Image

from bot.records import Origin, Owner
from bot.settings import Settings
from bot.web.access import YOU
from bot.web.app import AddressError, WebFrontEnd, listen
from bot.web.events import Feed
from bot.web.guard import SECURITY_HEADERS
from bot.web.mode_schemas import ModeOut
from bot.web.problems import problem_for
from bot.web.schemas import GoneOut, parse_imagine
from bot.web.services import HERE
from bot.web.status import describe
from engine.errors import (
    DreamLabError,
    JobCancelledError,
    ModelFormatError,
    PoolClosedError,
    WorkerDiedError,
)
from engine.jobs import JobStatus, ModelSpec, RequestDraft
from engine.pace import Act, Figure
from engine.testing import FakeExecutor
from engine.worker_pool import LaneState, LaneStatus
from modes.mode_config import ModeConfig
from tests.web_kit import MODES, Page, open_page, stop

SOMEBODY = Owner("discord:7", "Ada")
JPEG = b"\xff\xd8 a small picture"


@pytest.fixture
async def page(tmp_path: Path) -> AsyncIterator[Page]:
    """A page whose drawings are done at once."""
    async with open_page(tmp_path) as opened:
        yield opened


@pytest.fixture
async def held(tmp_path: Path) -> AsyncIterator[Page]:
    """A page whose one worker does what the test says."""
    async with open_page(tmp_path, FakeExecutor(hold=True), queue_max=2) as opened:
        yield opened


async def running(page: Page, prompt: str = "a red circle") -> str:
    """Submits a job and returns its id once it is being drawn."""
    job_id: str = (await page.submit(prompt))["id"]
    await page.executor.until(lambda: job_id in page.executor.running)
    return job_id


# Asking -------------------------------------------------------------------------------------------


async def test_a_request_is_stored_and_answered_with_its_job(page: Page) -> None:
    answer = await page.client.post(
        "/api/jobs", json={"prompt": "/imagine a red circle", "size": "64x128", "seed": 7}
    )
    assert answer.status_code == 201
    job = answer.json()
    assert answer.headers["location"] == f"/api/jobs/{job['id']}"
    assert job["request"]["prompt"] == "a red circle"
    assert (job["request"]["width"], job["request"]["height"]) == (64, 128)
    assert job["request"]["seed"] == 7
    record = (await page.studio.view(job["id"])).record
    assert record.owner == YOU
    assert record.origin == HERE


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        ("a red circle", "a red circle"),
        ("/imagine a red circle", "a red circle"),
        ("  /IMAGINE\n a red circle ", "a red circle"),
        ("/imagine", ""),
        ("and/or", "and/or"),
        ("/", "/"),
    ],
)
def test_imagine_is_taken_off_the_prompt(text: str, prompt: str) -> None:
    assert parse_imagine(text) == prompt


async def test_a_full_queue_says_so_and_when_to_come_back(held: Page) -> None:
    await running(held)
    await held.submit()
    await held.submit()
    answer = await held.client.post("/api/jobs", json={"prompt": "one too many"})
    assert answer.status_code == 503
    assert answer.json()["field"] == "queue"
    assert int(answer.headers["retry-after"]) > 0
    assert len(await held.studio.history(YOU.id)) == 3


# Looking ------------------------------------------------------------------------------------------


async def test_a_finished_job_has_its_pictures(page: Page) -> None:
    job = await page.finished(count=2, seed=5)
    assert job["status"] == "done"
    assert [image["seed"] for image in job["images"]] == [5, 6]
    answer = await page.client.get(job["images"][1]["url"])
    assert answer.headers["content-type"] == "image/png"
    assert "immutable" in answer.headers["cache-control"]
    assert answer.headers["content-disposition"].startswith("inline")
    with Image.open(io.BytesIO(answer.content)) as picture:
        assert picture.size == (64, 64)


async def test_a_picture_can_be_downloaded_under_a_good_name(page: Page) -> None:
    job = await page.finished(seed=5)
    for flag in ("1", "true"):
        answer = await page.client.get(job["images"][0]["url"], params={"download": flag})
        disposition = answer.headers["content-disposition"]
        assert disposition == 'attachment; filename="dream-lab-5.png"'


async def test_a_waiting_job_knows_its_place(held: Page) -> None:
    await running(held)
    await held.submit("next")
    last = await held.submit("after that")
    assert (last["status"], last["position"]) == ("queued", 2)
    view = (await held.client.get(f"/api/jobs/{last['id']}")).json()
    assert view["position"] == 2


async def test_a_waiting_job_is_told_behind_whom_and_until_when(held: Page) -> None:
    await running(held)
    await held.submit("next")
    last = await held.submit("after that")
    view = (await held.client.get(f"/api/jobs/{last['id']}")).json()
    assert (view["before"], view["expected_at"]) == ("1 of your own", None)
    request = (await held.studio.view(last["id"])).record.request
    key, pixels = request.model.key, request.width * request.height
    held.executor.pace.take(
        [
            Figure(Act.BEGIN, key, 100.0),
            Figure(Act.PASS, key, 100.0, 5, pixels, 2),
            Figure(Act.DECODE, key, 100.0, 1, pixels),
        ]
    )

    async with held.events(f"/api/jobs/{last['id']}/events") as events:
        while not view["expected_at"]:
            _, view = await anext(events)
    assert datetime.fromisoformat(view["expected_at"]) > datetime.now(UTC) + timedelta(minutes=5)


async def test_the_history_is_yours_newest_first(page: Page) -> None:
    await page.studio.submit(RequestDraft("theirs"), SOMEBODY, Origin("discord"))
    for prompt in ("first", "second", "third"):
        await page.submit(prompt)
    jobs = (await page.client.get("/api/jobs", params={"limit": 2})).json()["jobs"]
    assert [job["request"]["prompt"] for job in jobs] == ["third", "second"]
    for limit in ("0", "201", "many", "-1"):
        answer = await page.client.get("/api/jobs", params={"limit": limit})
        assert answer.status_code == 422
        assert answer.json()["field"] == "limit"


async def test_jobs_of_others_do_not_exist_here(page: Page) -> None:
    record = await page.studio.submit(RequestDraft("theirs"), SOMEBODY, Origin("discord"))
    async for view in page.studio.watch(record.id):
        record = view.record
    base = f"/api/jobs/{record.id}"
    answers = [
        await page.client.get(base),
        await page.client.get(f"{base}/events"),
        await page.client.delete(base),
        await page.client.post(f"{base}/cancel", json={}),
        await page.client.post(f"{base}/again", json={}),
        await page.client.get(f"/api/images/{record.images[0].id}"),
    ]
    assert [answer.status_code for answer in answers] == [404] * len(answers)
    assert page.studio.image_path(record.images[0]).is_file()


async def test_a_picture_whose_file_is_gone_is_unknown(page: Page) -> None:
    job = await page.finished()
    image = await page.studio.image(job["images"][0]["id"])
    page.studio.image_path(image).unlink()
    answer = await page.client.get(job["images"][0]["url"])
    assert answer.status_code == 404
    assert str(page.studio.image_path(image).parent) not in answer.text


# Changing one's mind ------------------------------------------------------------------------------


async def test_again_draws_a_fresh_seed_and_vary_keeps_it(page: Page) -> None:
    job = await page.finished(seed=5)
    again = await page.client.post(f"/api/jobs/{job['id']}/again", json={})
    vary = await page.client.post(f"/api/jobs/{job['id']}/again", json={"vary": True})
    assert again.status_code == vary.status_code == 201
    assert again.json()["parent_id"] == vary.json()["parent_id"] == job["id"]
    assert again.json()["request"]["seed"] != 5
    assert again.json()["request"]["variation_seed"] is None
    assert vary.json()["request"]["seed"] == 5
    assert vary.json()["request"]["variation_seed"] is not None
    bad = await page.client.post(f"/api/jobs/{job['id']}/again", json={"vary": "yes"})
    assert bad.json()["detail"] == "vary: 'yes' is not allowed. Allowed: true or false."


async def test_cancel_ends_waiting_and_running_jobs(held: Page) -> None:
    first = await running(held)
    second = (await held.submit())["id"]
    for job_id in (second, first):
        answer = await held.client.post(f"/api/jobs/{job_id}/cancel", json={})
        assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")


async def test_cancel_leaves_a_finished_picture_alone(page: Page) -> None:
    job = await page.finished()
    answer = await page.client.post(f"/api/jobs/{job['id']}/cancel", json={})
    assert answer.json()["status"] == "done"
    assert (await page.client.get(job["images"][0]["url"])).status_code == 200


async def test_delete_removes_the_pictures_of_an_ended_job(page: Page) -> None:
    job = await page.finished()
    path = page.studio.image_path(await page.studio.image(job["images"][0]["id"]))
    assert (await page.client.delete(f"/api/jobs/{job['id']}")).status_code == 204
    assert (await page.client.get(job["images"][0]["url"])).status_code == 404
    assert not path.exists()


async def test_delete_refuses_a_job_that_is_still_on_its_way(held: Page) -> None:
    job_id = await running(held)
    answer = await held.client.delete(f"/api/jobs/{job_id}")
    assert answer.status_code == 409
    assert "cancel" in answer.json()["detail"]
    assert (await held.studio.view(job_id)).record.status is JobStatus.RUNNING


# Modes and status ---------------------------------------------------------------------------------


async def test_modes_are_listed_with_their_bounds_and_without_paths(
    page: Page, tmp_path: Path
) -> None:
    answer = await page.client.get("/api/modes")
    listed = answer.json()
    assert listed["current"] == "small"
    assert [mode["name"] for mode in listed["modes"]] == ["small", "other"]
    small = listed["modes"][0]
    assert (small["default_size"], small["default_steps"], small["max_steps"]) == ([64, 64], 4, 50)
    assert small["examples"] == ["a red circle", "a blue star"]
    assert "Euler a" in listed["samplers"]
    assert str(tmp_path) not in answer.text


async def test_a_mode_is_switched_to(page: Page) -> None:
    answer = await page.client.post("/api/modes/switch", json={"mode": "other"})
    assert (answer.status_code, answer.json()["name"]) == (202, "other")
    async with page.events("/api/events") as events:
        async for name, data in events:
            if name == "status" and data["mode"] == "other":
                break
    assert (await page.client.get("/api/modes")).json()["current"] == "other"
    unknown = await page.client.post("/api/modes/switch", json={"mode": "nope"})
    assert unknown.status_code == 422
    assert unknown.json()["allowed"] == "small, other"


async def test_a_modes_own_rules_are_listed_and_its_words_kept_from_the_jobs(
    page: Page, tmp_path: Path
) -> None:
    rules = (
        "prompt_prefix: pixel art of",
        "negative_always: text",
        "negative_allowed: false",
        "sizes: [64, 64x128]",
        "samplers: [DDIM]",
        "nsfw: true",
    )
    modes = MODES.format(root=tmp_path) + "".join(f"    {rule}\n" for rule in rules)
    page.catalog.path.write_text(modes)
    assert await page.catalog.reload()

    other = (await page.client.get("/api/modes")).json()["modes"][1]
    answer = await page.client.post("/api/jobs", json={"prompt": "a fox", "mode": "other"})

    assert (other["prompt_prefix"], other["prompt_suffix"]) == ("pixel art of", "")
    assert (other["negative_always"], other["negative_allowed"]) == ("text", False)
    assert (other["sizes"], other["samplers"]) == ([[64, 64], [64, 128]], ["DDIM"])
    assert other["nsfw"]
    request = answer.json()["request"]
    assert (request["prompt"], request["negative_prompt"]) == ("a fox", "")
    record = (await page.studio.view(answer.json()["id"])).record
    assert record.request.prompt == "pixel art of a fox"


@pytest.mark.parametrize("examples", ["a text", 5, None, {"a": 1}, [1, None]])
def test_examples_that_are_no_list_of_texts_are_left_out(examples: object) -> None:
    mode = ModeConfig("odd", ModelSpec(Path("x")), metadata={"examples": examples})
    assert ModeOut.of(mode).examples == []


async def test_status_counts_what_waits(held: Page) -> None:
    await running(held)
    await held.submit()
    status = (await held.client.get("/api/status")).json()
    assert (status["state"], status["waiting"], status["mode"]) == ("ready", 1, "small")
    assert status["text"] == "Drawing, 1 waiting"
    lanes = [{"device": "fake:0", "state": "ready", "in_flight": 1, "capacity": 1}]
    assert status["lanes"] == lanes


async def test_ready_only_once_a_worker_answers_alive_always(tmp_path: Path) -> None:
    executor = FakeExecutor()
    executor.start_gate.clear()
    async with open_page(tmp_path, executor) as page:
        assert (await page.client.get("/healthz")).status_code == 200
        assert (await page.client.head("/healthz")).status_code == 200
        before = await page.client.get("/readyz")
        assert (await page.client.head("/readyz")).status_code == before.status_code
        assert (before.status_code, before.json()["state"]) == (503, "loading")
        executor.start_gate.set()
        await page.finished()
        assert (await page.client.get("/readyz")).status_code == 200


def lane(state: LaneState = LaneState.READY, error: str | None = None, busy: int = 0) -> LaneStatus:
    return LaneStatus("cpu", state, busy, 1, (), error)


@pytest.mark.parametrize(
    ("lanes", "loads", "waiting", "expected"),
    [
        ([lane()], False, 0, ("ready", "Ready")),
        ([lane(busy=1)], False, 0, ("ready", "Drawing")),
        ([lane(busy=1)], False, 3, ("ready", "Drawing, 3 waiting")),
        ([lane(busy=1)], True, 3, ("loading", "Loading a model")),
        ([lane(LaneState.STARTING)], False, 0, ("loading", "Starting")),
        ([lane(LaneState.STARTING), lane()], False, 0, ("ready", "Ready")),
        (
            [lane(LaneState.RESTARTING, "/home/ada/x is broken")],
            False,
            0,
            ("unavailable", "The worker on cpu is down and being started again"),
        ),
        (
            [lane(LaneState.DOWN, "/home/ada/x is broken")],
            False,
            2,
            ("unavailable", "cpu failed again and again; tried every few minutes"),
        ),
        ([lane(LaneState.DOWN, "broken"), lane()], False, 0, ("ready", "Ready")),
    ],
)
def test_the_status_in_a_sentence(
    lanes: list[LaneStatus], loads: bool, waiting: int, expected: tuple[str, str], tmp_path: Path
) -> None:
    mode = ModeConfig("m", ModelSpec(tmp_path))
    assert describe(lanes, mode, loads=loads, waiting=waiting) == expected


def test_a_missing_model_makes_it_unavailable(tmp_path: Path) -> None:
    mode = ModeConfig("m", ModelSpec(tmp_path / "gone.safetensors"), title="Dreams")
    state, text = describe([lane()], mode, loads=False, waiting=0)
    assert (state, text) == ("unavailable", "Dreams can't draw: gone.safetensors is missing")


# Streams ------------------------------------------------------------------------------------------


async def test_a_job_is_followed_to_its_end_with_previews(held: Page) -> None:
    waits_for = await running(held)
    job = await held.submit()
    async with held.events(f"/api/jobs/{job['id']}/events") as events:
        _, view = await anext(events)
        assert (view["status"], view["position"]) == ("queued", 1)
        held.executor.finish(waits_for)
        await held.executor.until(lambda: job["id"] in held.executor.running)
        held.executor.report(job["id"], 3, JPEG)
        while view["status"] == "queued" or not view["progress"]["preview"]:
            _, view = await anext(events)
        assert view["status"] == "running"
        assert (view["progress"]["step"], view["progress"]["steps"]) == (3, 4)
        assert view["progress"]["fraction"] == 0.75
        assert view["progress"]["preview"].startswith("data:image/jpeg;base64,/9g")
        held.executor.finish(job["id"])
        rest = [data async for _, data in events]  # ends by itself
    assert rest[-1]["status"] == "done"
    assert rest[-1]["images"]


async def test_who_comes_late_or_again_gets_the_last_state_at_once(page: Page) -> None:
    job = await page.finished()
    for _ in range(2):
        async with page.events(f"/api/jobs/{job['id']}/events") as events:
            assert [data["status"] async for _, data in events] == ["done"]


async def test_one_stream_tells_of_everything(held: Page) -> None:
    first = await running(held)
    async with held.events("/api/events") as events:
        name, data = await anext(events)
        assert (name, [job["id"] for job in data["jobs"]]) == ("jobs", [first])
        second = (await held.submit())["id"]
        seen: dict[str, list[str]] = {first: [], second: [], "status": []}
        held.executor.finish(first)
        await held.executor.until(lambda: second in held.executor.running)
        held.executor.fail(second, DreamLabError("The paint is dry."))
        async for name, data in events:
            if name == "status":
                seen["status"].append(data["state"])
            elif name == "job":
                seen[data["id"]].append(data["status"])
            if seen["status"] and seen[first][-1:] == ["done"] and "failed" in seen[second]:
                break
        await held.client.delete(f"/api/jobs/{second}")
        async for name, data in events:
            if name == "gone":
                assert data == {"id": second}
                break


async def test_a_quiet_stream_sends_heartbeats(held: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fastapi.routing, "_PING_INTERVAL", 0.01)
    job_id = await running(held)
    async with held.client.stream("GET", f"/api/jobs/{job_id}/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        async for line in answer.aiter_lines():
            if line.startswith(":"):
                break


async def test_a_slow_reader_gets_the_newest_state_of_each_thing(page: Page) -> None:
    async with Feed(page.studio) as feed:
        feed.tell("gone", "a", GoneOut(id="old"))
        feed.tell("gone", "b", GoneOut(id="other"))
        feed.tell("gone", "a", GoneOut(id="new"))
        feed.end()
        events = [event.data.id async for event in feed.until_idle()]
    assert events == ["new", "other"]


async def test_a_job_that_vanishes_while_followed_is_gone(page: Page) -> None:
    async with Feed(page.studio) as feed:
        feed.follow("nope")
        events = [(event.event, event.data.id) async for event in feed.until_idle()]
    assert events == [("gone", "nope")]


async def test_an_error_in_a_stream_ends_it_and_is_logged(
    page: Page, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = (await page.submit())["id"]
    await page.finished()
    await page.store.close()  # whatever asks it now fails
    async with Feed(page.studio) as feed:
        feed.follow(job_id)
        assert [event async for event in feed.until_idle()] == []
    assert "broke off" in caplog.text


async def test_closing_ends_open_streams_and_gives_the_port_back(held: Page) -> None:
    job_id = await running(held)
    port = held.port
    async with (
        held.events("/api/events") as everything,
        held.events(f"/api/jobs/{job_id}/events") as one,
    ):
        await anext(everything)
        await anext(one)
        await stop(held.serving)
        async for _ in everything:
            pass
        async for _ in one:
            pass
    listen("127.0.0.1", port).close()


# Safety -------------------------------------------------------------------------------------------


async def test_the_page_itself_can_act(page: Page) -> None:
    headers = {"Origin": page.url, "Sec-Fetch-Site": "same-origin"}
    answer = await page.client.post("/api/jobs", json={"prompt": "x"}, headers=headers)
    assert answer.status_code == 201


async def test_every_answer_carries_the_security_headers(page: Page) -> None:
    job = await page.finished()
    answers = [
        await page.client.get("/"),
        await page.client.get("/static/main.js"),
        await page.client.get("/static/nope"),
        await page.client.get("/api/status"),
        await page.client.get("/api/jobs/nope"),
        await page.client.get(job["images"][0]["url"]),
        await page.client.get(f"/api/jobs/{job['id']}/events"),
        await page.client.get("/", headers={"Host": "evil.example"}),
        await page.client.post("/api/jobs", json={}),
    ]
    for answer in answers:
        for name, value in SECURITY_HEADERS.items():
            assert answer.headers[name] == value
        assert "server" not in answer.headers
        assert "cache-control" in answer.headers
    policy = SECURITY_HEADERS["Content-Security-Policy"]
    assert "default-src 'self';" in policy
    assert "unsafe" not in policy


async def test_a_bug_is_told_without_its_details(
    page: Page, caplog: pytest.LogCaptureFixture
) -> None:
    await page.store.close()
    answer = await page.client.get("/api/jobs")
    assert answer.status_code == 500
    assert answer.json()["detail"].startswith("Something went wrong")
    assert "Traceback" not in answer.text
    assert "sqlite" not in answer.text.lower()
    assert "Traceback" in caplog.text


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ModelFormatError("/home/ada/models/x.safetensors", "cut off at 5 bytes\n/x"), 503),
        (PoolClosedError(), 503),
        (WorkerDiedError("cpu", "was killed"), 503),
        (JobCancelledError("x"), 409),
        (DreamLabError("It rains."), 500),
    ],
)
def test_our_errors_have_a_status_and_leak_no_path(error: DreamLabError, status: int) -> None:
    answer = problem_for(error)
    assert answer.status_code == status
    assert b"/home" not in bytes(answer.body)
    assert b"\\n" not in bytes(answer.body)


async def test_the_api_describes_itself(page: Page) -> None:
    described = (await page.client.get("/api/openapi.json")).json()
    routes = {
        (method.upper(), path) for path, item in described["paths"].items() for method in item
    }
    assert {
        ("POST", "/api/jobs"),
        ("GET", "/api/jobs/{job_id}/events"),
        ("GET", "/api/inventory/loras"),
        ("GET", "/api/inventory/models"),
        ("GET", "/api/models/status"),
        ("POST", "/api/models/load"),
        ("POST", "/api/models/unload"),
        ("GET", "/api/modes"),
        ("PUT", "/api/modes"),
        ("POST", "/api/modes/reload"),
        ("POST", "/api/modes/switch"),
        ("POST", "/api/modes/{name}"),
        ("DELETE", "/api/modes/{name}"),
        ("GET", "/api/vram"),
        ("POST", "/generate"),
    } <= routes
    assert all(
        operation.get("description")
        for item in described["paths"].values()
        for operation in item.values()
    )


async def test_every_body_that_can_be_sent_is_shown_by_an_example(page: Page) -> None:
    described = (await page.client.get("/api/openapi.json")).json()
    schemas = described["components"]["schemas"]
    for path, item in described["paths"].items():
        for operation in item.values():
            for kind in operation.get("requestBody", {}).get("content", {}).values():
                schema = kind["schema"]
                schema = schemas.get(schema.get("$ref", "").rpartition("/")[2], schema)
                fields = schema.get("properties", {}).values()
                shown = any(
                    "example" in each or "examples" in each for each in (kind, schema, *fields)
                )
                assert shown, path


# The server ---------------------------------------------------------------------------------------


async def test_a_port_in_use_is_named_with_its_setting(page: Page) -> None:
    settings = Settings(web_port=page.port)
    front_end = WebFrontEnd(page.front_end.app, settings)
    with pytest.raises(AddressError, match=rf"Port {page.port} .* Set WEB_PORT") as caught:
        await front_end.run()
    assert caught.value.setting == "WEB_PORT"
    with pytest.raises(AddressError):
        await front_end.ready()
    # The one that had the port goes on.
    assert (await page.client.get("/healthz")).status_code == 200


def test_an_address_of_another_machine_names_its_setting() -> None:
    with pytest.raises(AddressError, match="WEB_HOST") as caught:
        listen("192.0.2.1", 0)  # a documentation address that no machine has
    assert caught.value.setting == "WEB_HOST"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
async def test_the_page_is_served_on_the_address_it_tells(
    page: Page, host: str, tmp_path: Path
) -> None:
    if host == "::1" and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    front_end = WebFrontEnd(page.front_end.app, Settings(web_host=host, web_port=0))
    serving = asyncio.create_task(front_end.run())
    url = await front_end.ready()
    assert (await page.client.get(url)).status_code == 200
    await stop(serving)


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


async def test_signals_stay_the_programs_own(page: Page) -> None:
    assert "uvicorn" not in repr(signal.getsignal(signal.SIGINT))
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
