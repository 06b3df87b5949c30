"""A client of AUTOMATIC1111's API, unmodified, draws with the page."""

import asyncio
import base64
import io
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import webuiapi
from PIL import Image

from bot.web.a1111_routes import NONE_HERE
from bot.web.a1111_schemas import CHECKPOINT, asks_for_something
from bot.web.access import Access
from bot.web.guard import MAX_DRAFT
from bot.web.roles import A1111_LISTS
from engine.errors import DreamLabError, ModelFormatError
from engine.jobs import Sampler
from engine.testing import FakeExecutor
from tests.page_kit import is_red, open_real_page
from tests.web_kit import MODES, Page, open_page

ADMIN, ADA, BOB = "admin-0123456789abcdef", "artist-ada-0123456789", "artist-bob-0123456789"
VIEWER = "viewer-0123456789abcd"
TOKENS: dict[str, Any] = {
    "web_token": ADMIN,
    "web_artist_token": (ADA, BOB),
    "web_viewer_token": (VIEWER,),
}
SMALL: dict[str, Any] = {"prompt": "a red circle", "width": 64, "height": 64, "steps": 4}
STYLED = MODES.replace(
    "  other:\n", '    loras_allowed: "*"\n    clip_skip: 2\n  Other-One:\n'
).replace("model: other", "clip_skip: 1\n    model: other")


@pytest.fixture
async def page(tmp_path: Path) -> AsyncIterator[Page]:
    """A page that needs tokens."""
    async with open_page(tmp_path, modes=STYLED, **TOKENS) as opened:
        yield opened


@pytest.fixture
async def held(tmp_path: Path) -> AsyncIterator[Page]:
    """A page for this machine alone, whose one worker does what the test says."""
    async with open_page(tmp_path, FakeExecutor(hold=True)) as opened:
        yield opened


async def client_of(page: Page, token: str | None = ADA) -> webuiapi.WebUIApi:
    """Returns the client, which blocks: each call has a thread."""
    names = {"username": "anybody", "password": token} if token else {}
    return await asyncio.to_thread(webuiapi.WebUIApi, port=page.port, **names)


async def call(method: Callable[..., Any], *args: Any, **fields: Any) -> Any:
    return await asyncio.to_thread(method, *args, **fields)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def png(size: tuple[int, int] = (40, 80)) -> Image.Image:
    return Image.new("RGB", size, "orange")


# Drawing ------------------------------------------------------------------------------------------


async def test_words_become_pictures(page: Page) -> None:
    client = await client_of(page)
    result = await call(
        client.txt2img, **SMALL, seed=7, batch_size=2, n_iter=2, negative_prompt="blue"
    )
    assert [picture.size for picture in result.images] == [(64, 64)] * 4
    assert result.info["all_seeds"] == [7, 8, 9, 10]
    assert (result.info["sampler_name"], result.info["sd_model_name"]) == ("Euler a", "small")
    assert len(result.info["infotexts"]) == 4
    assert result.parameters["prompt"] == "a red circle"
    (request,) = page.executor.requests
    assert (request.negative_prompt, request.guidance_scale, request.count) == ("blue", 7.0, 4)


async def test_words_become_what_the_model_draws(tmp_path: Path) -> None:
    async with open_real_page(tmp_path, web_token=ADMIN) as url:
        port = urlsplit(url).port
        client = await call(webuiapi.WebUIApi, port=port, username="x", password=ADMIN)
        result = await call(
            client.txt2img,
            prompt="a red circle on a white background",
            width=128,
            height=128,
            steps=8,
            seed=7,
            cfg_scale=3,
            sampler_name="DDIM",
        )
    assert is_red(result.image.getpixel((64, 64)))
    assert not is_red(result.image.getpixel((4, 4)))
    assert "Model: dream-demo" in result.image.info["parameters"]


async def test_a_picture_becomes_another(page: Page) -> None:
    client = await client_of(page)
    result = await call(client.img2img, images=[png()], **SMALL, denoising_strength=0.5)
    assert result.image.size == (64, 64)
    assert result.info["denoising_strength"] == 0.5
    (request,) = page.executor.requests
    assert (request.strength, request.source is not None) == (0.5, True)


async def test_a_picture_may_come_in_lines(page: Page) -> None:
    file = io.BytesIO()
    png().save(file, "PNG")
    lines = base64.encodebytes(file.getvalue()).decode()
    for image in (lines, "data:image/png;base64," + lines.replace("\n", "\r\n")):
        body = {**SMALL, "init_images": [image]}
        answer = await page.client.post("/sdapi/v1/img2img", json=body, headers=bearer(ADA))
        assert answer.status_code == 200, answer.text
        assert page.executor.requests[-1].source is not None


async def test_the_size_follows_the_picture_where_none_is_asked_for(page: Page) -> None:
    file = io.BytesIO()
    png().save(file, "PNG")
    body = {"prompt": "x", "init_images": [base64.b64encode(file.getvalue()).decode()]}
    answer = await page.client.post("/sdapi/v1/img2img", json=body, headers=bearer(ADA))
    assert answer.status_code == 200, answer.text
    (request,) = page.executor.requests
    assert (request.width, request.height) == (64, 88)


async def test_what_is_left_out_is_the_modes(page: Page) -> None:
    body = {"prompt": "x", "send_images": False}
    answer = await page.client.post("/sdapi/v1/txt2img", json=body, headers=bearer(ADA))
    assert answer.json()["images"] == []
    (request,) = page.executor.requests
    assert (request.steps, request.width, request.height) == (4, 64, 64)
    assert request.mode == "small"


async def test_pictures_are_the_askers_and_in_their_gallery(page: Page) -> None:
    await call((await client_of(page, ADA)).txt2img, **SMALL)
    for token, count in ((ADA, 1), (BOB, 0), (ADMIN, 0)):
        jobs = (await page.client.get("/api/jobs", headers=bearer(token))).json()["jobs"]
        assert len(jobs) == count


async def test_sampler_and_scheduler_together_name_one_of_ours(page: Page) -> None:
    client = await client_of(page)
    for name, scheduler, drawn in (
        ("DPM++ 2M", "karras", Sampler.DPMPP_2M_KARRAS),
        ("DPM++ 2M", "Automatic", Sampler.DPMPP_2M),
        ("dpm++ 2m karras", "Karras", Sampler.DPMPP_2M_KARRAS),
        ("DPM++ SDE", "karras", Sampler.DPMPP_SDE_KARRAS),
        ("DDIM", "automatic", Sampler.DDIM),
    ):
        await call(client.txt2img, **SMALL, sampler_name=name, scheduler=scheduler)
        assert page.executor.requests[-1].sampler is drawn


async def test_a_mode_may_be_named_for_one_request(page: Page) -> None:
    client = await client_of(page)
    wide = {**SMALL, "width": 256, "height": 256}
    settings = {CHECKPOINT: "other-one", "CLIP_stop_at_last_layers": 1}
    await call(client.txt2img, **wide, override_settings=settings)
    await call(client.txt2img, **SMALL)
    assert [request.mode for request in page.executor.requests] == ["Other-One", "small"]


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"steps": 0}, "steps", "from 1 to 50"),
    ({"prompt": ""}, "prompt", "text"),
    ({"width": 63}, "width", "64 to 128"),
    ({"cfg_scale": "strong"}, "guidance", "a number"),
    ({"cfg_scale": float("nan")}, "guidance", "a number"),
    ({"seed": -2}, "seed", "from 0"),
    ({"batch_size": 0}, "batch_size", "from 1"),
    ({"n_iter": "many"}, "n_iter", "from 1"),
    ({"batch_size": 100, "n_iter": 100}, "count", "from 1 to 4"),
    ({"sampler_name": "Euler b"}, "sampler", "Euler a"),
    ({"sampler_name": "Euler", "scheduler": "karras"}, "sampler", "Euler a"),
    ({"scheduler": "polyexponential"}, "scheduler", "automatic, karras"),
    ({"override_settings": {CHECKPOINT: "nope"}}, CHECKPOINT, "small, Other-One"),
    ({"override_settings": {CHECKPOINT: 5}}, CHECKPOINT, "small, Other-One"),
    ({"override_settings": {CHECKPOINT: "\ud800"}}, CHECKPOINT, "small, Other-One"),
    ({"override_settings": {"sd_vae": "other.pt"}}, "sd_vae", "Automatic"),
    ({"override_settings": {"CLIP_stop_at_last_layers": 3}}, "CLIP_stop", "2, as the mode"),
    ({"override_settings": {"eta_noise_seed_delta": 31337}}, "option", CHECKPOINT),
    ({"enable_hr": True}, "enable_hr", "isn't done here"),
    ({"restore_faces": True}, "restore_faces", "isn't done here"),
    ({"tiling": True}, "tiling", "isn't done here"),
    ({"subseed_strength": 0.5}, "subseed_strength", "isn't done here"),
    ({"script_name": "x/y/z plot"}, "script_name", "isn't done here"),
    ({"styles": ["Pixar"]}, "styles", "isn't done here"),
    ({"mask": "AAAA"}, "mask", "isn't done here"),
    ({"alwayson_scripts": {"ControlNet": {"args": [{}, {"weight": 1}]}}}, "alwayson", "done"),
    ({"prompt": 5}, "prompt", "text"),
    ({"prompt": "\ud800"}, "prompt", "text"),
    ({"sampler_name": "Euler a", "sampler_index": "\ud800"}, "sampler_index", "valid Unicode"),
    ({"sampler_name": "\ud800"}, "sampler_name", "valid Unicode"),
    ({"scheduler": "\ud800"}, "scheduler", "valid Unicode"),
]


async def test_what_is_not_done_here_is_refused_in_a_sentence(page: Page) -> None:
    headers = {**bearer(ADA), "Content-Type": "application/json"}
    for fields, field, words in REFUSED:
        content = json.dumps({**SMALL, **fields})  # httpx refuses NaN
        answer = await page.client.post("/sdapi/v1/txt2img", content=content, headers=headers)
        assert answer.status_code == 422, (fields, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["field"].startswith(field), fields
        assert words in answer.json()["detail"] + answer.json()["allowed"], fields
        assert len(answer.content) < 1500, fields
    assert page.executor.requests == []


async def test_a_picture_that_is_none_is_refused(page: Page) -> None:
    cases: list[tuple[object, str, str]] = [
        ([], "init_images", "at least 1"),
        (["AAAA", "AAAA"], "init_images", "at most 1"),
        (["no base64!"], "init_images", "base64 of a PNG"),
        (["data:image/png;base64,é"], "init_images", "base64 of a PNG"),
        (["data:image/png;base64,AAAA"], "image", "a PNG, JPEG, WebP or GIF"),
        ([5], "init_images", "text"),
        (None, "init_images", "list"),
    ]
    for images, field, words in cases:
        body = {**SMALL, "init_images": images}
        answer = await page.client.post("/sdapi/v1/img2img", json=body, headers=bearer(ADA))
        assert (answer.status_code, answer.json()["field"]) == (422, field), answer.text
        assert words in answer.json()["detail"] + answer.json()["allowed"]


async def test_a_picture_may_be_as_large_as_elsewhere_and_words_may_not(page: Page) -> None:
    content = json.dumps({"prompt": "x" * MAX_DRAFT})
    headers = {**bearer(ADA), "Content-Type": "application/json"}
    for kind, limit in (("txt2img", "64 KiB"), ("img2img", f"{MAX_DRAFT // 1024} KiB")):
        answer = await page.client.post(f"/sdapi/v1/{kind}", content=content, headers=headers)
        assert answer.status_code == 413
        assert limit in answer.json()["detail"]


@pytest.mark.parametrize(
    ("value", "asks"),
    [
        (None, False),
        (["None"], False),
        ({"ControlNet": {"args": []}, "ADetailer": {"args": [False]}}, False),
        ({"ADetailer": {"args": [True, {}]}}, True),
        ([[[0, "x"]]], True),
        (0.1, True),
    ],
)
def test_clients_say_nothing_in_many_ways(value: object, asks: bool) -> None:
    assert asks_for_something(value) is asks


@pytest.mark.parametrize(("within", "asks"), [("", False), ("1", True)])
def test_what_is_nested_as_deep_as_json_goes_is_looked_through(within: str, asks: bool) -> None:
    depth = 900
    assert asks_for_something(json.loads("[" * depth + within + "]" * depth)) is asks


# How far it is ------------------------------------------------------------------------------------


async def test_progress_tells_of_the_request_that_runs_and_interrupt_takes_it_back(
    held: Page,
) -> None:
    client = await client_of(held, None)
    assert (await call(client.get_progress))["progress"] == 0.0
    await call(client.util_wait_for_ready)
    drawing = asyncio.create_task(call(client.txt2img, **SMALL))
    await held.executor.until(lambda: bool(held.executor.running))
    job_id = held.executor.running[0]
    second = await held.submit("waits")
    held.executor.report(job_id, 3, b"\xff\xd8 a small picture")
    while not (told := await call(client.get_progress))["current_image"]:
        pass
    assert told["progress"] == 0.75
    assert base64.b64decode(told["current_image"]).startswith(b"\xff\xd8")
    assert told["state"]["job"] == job_id
    assert (told["state"]["job_count"], told["state"]["sampling_steps"]) == (2, 4)
    without = await held.client.get("/sdapi/v1/progress", params={"skip_current_image": True})
    assert without.json()["current_image"] is None

    assert await call(client.interrupt) == {}
    with pytest.raises(RuntimeError, match="taken back"):
        await drawing
    assert await call(client.skip) == {}
    assert (await held.client.get(f"/api/jobs/{second['id']}")).json()["status"] == "cancelled"
    assert await call(client.interrupt) == {}


async def test_progress_and_interrupt_are_of_ones_own_alone(tmp_path: Path) -> None:
    async with open_page(tmp_path, FakeExecutor(hold=True), **TOKENS) as page:
        ada, bob = await client_of(page, ADA), await client_of(page, BOB)
        drawing = asyncio.create_task(call(ada.txt2img, **SMALL))
        await page.executor.until(lambda: bool(page.executor.running))
        page.executor.report(page.executor.running[0], 3, b"hers")
        assert (await call(bob.get_progress))["state"]["job_count"] == 0
        await call(bob.interrupt)
        page.executor.finish(page.executor.running[0])
        assert len((await drawing).images) == 1


async def test_a_drawing_that_fails_says_why(held: Page) -> None:
    client = await client_of(held, None)
    drawing = asyncio.create_task(call(client.txt2img, **SMALL))
    await held.executor.until(lambda: bool(held.executor.running))
    held.executor.fail(held.executor.running[0], DreamLabError("The paint is dry."))
    with pytest.raises(RuntimeError, match=r"The paint is dry\."):
        await drawing


async def test_who_hangs_up_takes_the_request_back(held: Page) -> None:
    asking = asyncio.create_task(held.client.post("/sdapi/v1/txt2img", json=SMALL))
    await held.executor.until(lambda: bool(held.executor.running))
    asking.cancel()
    await held.executor.until(lambda: "cancel" in {name for name, *_ in held.executor.calls})


# Modes --------------------------------------------------------------------------------------------


async def test_a_mode_is_switched_to_as_a_checkpoint_and_is_loaded_when_that_answers(
    page: Page,
) -> None:
    client = await client_of(page, ADMIN)
    assert await call(client.util_get_model_names) == ["Other-One", "small"]
    await call(client.util_set_model, "other")
    assert page.pool.get_current_mode() == "Other-One"
    assert page.executor.loaded[-1].startswith("other.safetensors")
    assert await call(client.util_get_current_model) == "Other-One"
    # Clients send back all that they got.
    options = await call(client.get_options)
    assert await call(client.set_options, options) is None
    await call(client.txt2img, **{**SMALL, "width": 256, "height": 256})
    assert page.executor.requests[-1].mode == "Other-One"


async def test_options_that_cannot_be_change_nothing(page: Page) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({CHECKPOINT: "nope"}, CHECKPOINT),
        ({CHECKPOINT: "Other-One", "sd_vae": "x"}, "sd_vae"),
        ({CHECKPOINT: "Other-One", "outdir_samples": "/etc"}, "option"),
    ]
    for options, field in cases:
        answer = await page.client.post("/sdapi/v1/options", json=options, headers=bearer(ADMIN))
        assert (answer.status_code, answer.json()["field"]) == (422, field)
        assert page.pool.get_current_mode() == "small"


async def test_a_mode_that_cannot_be_loaded_is_told_and_the_old_one_stays(page: Page) -> None:
    key = page.catalog.get("Other-One").model.key
    error = ModelFormatError(page.catalog.get("Other-One").model.path, "cut off")
    page.executor.load_errors[key] = error
    body = {CHECKPOINT: "Other-One"}
    answer = await page.client.post("/sdapi/v1/options", json=body, headers=bearer(ADMIN))
    assert answer.status_code == 503
    assert "cut off" in answer.json()["detail"]
    assert page.pool.get_current_mode() == "small"


async def test_lists_say_what_there_is_and_no_folders(page: Page, tmp_path: Path) -> None:
    (tmp_path / "loras").mkdir()
    (tmp_path / "loras" / "ink.safetensors").touch()
    client = await client_of(page, VIEWER)
    assert "Euler a" in await call(client.util_get_sampler_names)
    assert await call(client.util_get_scheduler_names) == ["automatic", "karras"]
    assert [lora["name"] for lora in await call(client.get_loras)] == ["ink"]
    assert await call(client.get_embeddings) == {"loaded": {}, "skipped": {}}
    assert await call(client.get_scripts) == {"txt2img": [], "img2img": []}
    for name in A1111_LISTS:
        answer = await page.client.get(f"/sdapi/v1/{name}", headers=bearer(VIEWER))
        assert answer.status_code == 200
        assert str(tmp_path) not in answer.text
        if name in NONE_HERE:
            assert answer.json() == []


# Who may ------------------------------------------------------------------------------------------


async def test_the_password_is_the_token_here_and_nowhere_else(page: Page) -> None:
    for password, path, status in (
        (ADA, "/sdapi/v1/progress", 200),
        (VIEWER, "/sdapi/v1/sd-models", 200),
        ("wrong", "/sdapi/v1/progress", 401),
        (ADA, "/api/status", 401),
    ):
        answer = await page.client.get(path, auth=("anybody", password))
        assert answer.status_code == status, (password, path)
    for value in ("Basic", "Basic é", "Basic AAAA", f"Basic {ADA}", "Basic " + "A" * 9999):
        headers = [(b"authorization", value.encode("latin-1"))]
        answer = await page.client.get("/sdapi/v1/progress", headers=headers)
        assert answer.status_code == 401


async def test_wrong_passwords_are_counted_like_wrong_tokens(page: Page) -> None:
    access: Access = page.front_end.app.state.access
    assert not access.is_open
    statuses = [
        (await page.client.get("/sdapi/v1/progress", auth=("a", f"guess {i}"))).status_code
        for i in range(11)
    ]
    assert statuses == [401] * 10 + [429]


async def test_a_viewer_does_not_draw_and_an_artist_does_not_switch(page: Page) -> None:
    with pytest.raises(RuntimeError, match="403"):
        await call((await client_of(page, VIEWER)).txt2img, **SMALL)
    told = await call((await client_of(page, ADA)).set_options, {CHECKPOINT: "Other-One"})
    assert (told["status"], told["title"]) == (403, "Forbidden")
    assert page.pool.get_current_mode() == "small"


async def test_the_modes_file_is_read_again_for_admins(page: Page) -> None:
    page.catalog.path.write_text(page.catalog.path.read_text().replace("Other-One", "Third"))
    assert (await call((await client_of(page, ADA)).refresh_checkpoints))["status"] == 403
    client = await client_of(page, ADMIN)
    assert await call(client.refresh_checkpoints) is None
    assert "Third" in await call(client.util_get_model_names)


async def test_a_request_without_a_body_is_taken_where_clients_send_none_and_from_here_alone(
    held: Page,
) -> None:
    for headers, status in (
        ({}, 200),
        ({"Origin": "https://evil.example"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Type": "text/plain"}, 415),
    ):
        answer = await held.client.post("/sdapi/v1/interrupt", headers=headers)
        assert answer.status_code == status, headers
    body = await held.client.post("/sdapi/v1/interrupt", content=b"x=1")
    assert body.status_code == 415
    for path in ("/sdapi/v1/txt2img", "/sdapi/v1/options", "/api/jobs", "/api/modes/reload"):
        assert (await held.client.post(path)).status_code == 415
