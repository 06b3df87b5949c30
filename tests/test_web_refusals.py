"""What the page refuses: bad values, hostile bytes, other sites. Nothing of it leaves a trace."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from bot.web.access import YOU
from bot.web.guard import MAX_BODY, MAX_DRAFT
from engine.errors import RequestError
from engine.jobs import RequestDraft
from tests.web_kit import Page, open_page

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def page(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Page]:
    """One page for all of these tests, since none of them may change anything."""
    async with open_page(tmp_path_factory.mktemp("page")) as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="module", autouse=True)
async def _nothing_changes(page: Page) -> AsyncIterator[None]:
    yield
    assert await page.studio.history(YOU.id) == []
    assert page.pool.get_current_mode() == "small"


async def raw(page: Page, request: str) -> str:
    """Sends bytes that no HTTP client would, and returns the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", page.port)
    writer.write(request.replace("\n", "\r\n").encode("latin-1"))
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer.decode("latin-1")


@pytest.mark.parametrize("text", ["/mode", "/mode list", "/imagined x", "/help me"])
async def test_another_command_is_refused_with_those_that_are_known(page: Page, text: str) -> None:
    answer = await page.client.post("/api/jobs", json={"prompt": text})
    assert answer.status_code == 422
    assert answer.json()["field"] == "command"
    assert "/imagine, /mode list, /mode switch NAME" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("key", "value", "field"),
    [
        ("steps", 0, "steps"),
        ("steps", "many", "steps"),
        ("steps", True, "steps"),
        ("steps", 2.5, "steps"),
        ("width", 63, "width"),
        ("height", 10**400, "height"),
        ("guidance_scale", "strong", "guidance"),
        ("guidance_scale", float("nan"), "guidance"),
        ("guidance_scale", 0.5, "guidance"),
        ("sampler", "no such", "sampler"),
        ("seed", -1, "seed"),
        ("seed", 2**32, "seed"),
        ("count", 9, "count"),
        ("negative_prompt", "a\0b", "negative"),
        ("negative_prompt", 5, "negative"),
        ("prompt", " ", "prompt"),
        ("prompt", "x" * 3000, "prompt"),
        ("prompt", "bell \x07", "prompt"),
    ],
)
async def test_a_bad_value_gets_the_sentence_of_every_front_end(
    page: Page, key: str, value: object, field: str
) -> None:
    fields: dict[str, Any] = {"prompt": "a red circle", key: value}
    mode = page.catalog.get("small")
    with pytest.raises(RequestError) as expected:
        mode.build_request(RequestDraft(**fields))
    # httpx refuses NaN; Python's JSON writes it, and a hostile client may.
    answer = await page.client.post(
        "/api/jobs", content=json.dumps(fields), headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["detail"] == str(expected.value)
    assert problem["field"] == field
    assert problem["allowed"] == expected.value.allowed
    assert (problem["title"], problem["status"]) == ("Unprocessable Entity", 422)


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"prompt": "x", "mode": "nope"}, "mode", "small, other"),
        ({"prompt": "x", "mode": 5}, "mode", "text"),
        ({"prompt": "x", "size": "big"}, "size", "512x768"),
        ({"prompt": "x", "size": "64x64", "width": 64}, "size", "either"),
        ({"prompt": "x", "steps": [1]}, "steps", "one number or one text"),
        ({"prompt": "x", "seed": {}}, "seed", "one number or one text"),
        ({"prompt": ["x"]}, "prompt", "text"),
        ({"prompt": None}, "prompt", "text"),
        ({}, "prompt", "needed"),
        ({"prompt": "x", "cfg": 3}, "body", "'cfg' is not allowed"),
        ([1], "body", "JSON object"),
        (None, "body", "JSON object"),
    ],
)
async def test_a_body_of_the_wrong_shape_is_refused(
    page: Page, fields: object, field: str, words: str
) -> None:
    answer = await page.client.post(
        "/api/jobs", content=json.dumps(fields), headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["field"] == field
    assert words in answer.json()["detail"] + answer.json()["allowed"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nonsense",
        b"\xff\xfe",
        b"[" * 60_000,
        b'{"prompt": "x", "steps": ' + b"9" * 5000 + b"}",
        b'{"prompt": "\\ud800"}',
        b'{"prompt": "x", "made_of": "\\ud800"}',
    ],
)
async def test_what_is_no_json_is_refused_and_not_echoed(page: Page, body: bytes) -> None:
    answer = await page.client.post(
        "/api/jobs", content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code in (400, 422)
    assert answer.headers["content-type"] == "application/problem+json"
    assert len(answer.content) < 1000
    assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"loras": [1] * 20_000}, "loras", "at most 10"),
        ({"loras": [{"name": "a"}] * 9_000}, "loras", "at most 10"),
        ({f"unknown {i}": 1 for i in range(9_000)}, "body", "at most 100 keys"),
        ({"loras": [{str(i): 1 for i in range(9_000)}]}, "loras", "at most 100 keys"),
    ],
    ids=["wrong LoRAs", "LoRAs", "unknown keys", "unknown keys of a LoRA"],
)
async def test_a_body_with_far_too_much_in_it_gets_one_short_error(
    page: Page, fields: dict[str, Any], field: str, words: str
) -> None:
    answer = await page.client.post("/api/jobs", json={"prompt": "x", **fields})
    problem = answer.json()
    assert (answer.status_code, problem["field"], len(problem["errors"])) == (422, field, 1)
    assert words in problem["allowed"]
    assert len(answer.content) < 1000


async def test_of_many_errors_the_first_fifty_are_told(page: Page) -> None:
    wrong = [{f"unknown {i}": 1 for i in range(100)} for _ in range(10)]
    answer = await page.client.post("/api/jobs", json={"prompt": "x", "loras": wrong})
    assert (answer.status_code, len(answer.json()["errors"])) == (422, 50)
    assert len(answer.content) < 10_000


@pytest.mark.parametrize(
    "name", ["nope", "..%2f..%2fdreamlab.db", "%00", "a" * 5000, "%ff", "'; DROP TABLE jobs; --"]
)
async def test_hostile_ids_are_just_unknown(page: Page, name: str) -> None:
    for path in (f"/api/jobs/{name}", f"/api/jobs/{name}/events", f"/api/images/{name}"):
        answer = await page.client.get(path)
        assert answer.status_code == 404, path
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "localhost:1"]
)
async def test_a_foreign_host_name_is_turned_away(page: Page, host: str) -> None:
    # DNS rebinding: another site lets its own name point at this machine.
    for path in ("/", "/api/jobs", "/static/main.js", "/api/events"):
        answer = await page.client.get(path, headers={"Host": host.format(port=page.port)})
        assert answer.status_code == 421
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST", "[::1]"])
async def test_this_machines_own_names_are_taken(page: Page, host: str) -> None:
    answer = await page.client.get("/", headers={"Host": f"{host}:{page.port}"})
    assert answer.status_code == 200


async def test_a_forwarded_host_changes_nothing(page: Page) -> None:
    headers = {"Host": "evil.example", "X-Forwarded-Host": f"127.0.0.1:{page.port}"}
    assert (await page.client.get("/", headers=headers)).status_code == 421


async def test_no_host_and_two_hosts_are_turned_away(page: Page) -> None:
    ours = f"Host: 127.0.0.1:{page.port}\n"
    for hosts in ("", ours + "Host: evil.example\n", ours + ours):
        answer = await raw(page, f"GET /api/jobs HTTP/1.1\n{hosts}Connection: close\n\n")
        assert answer.split()[1] in ("400", "421")
    old = await raw(page, "GET /api/jobs HTTP/1.0\n\n")
    assert old.split()[1] == "421"


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "https://127.0.0.1:{port}"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
async def test_another_site_can_neither_act_nor_look(page: Page, headers: dict[str, str]) -> None:
    sent = {name: value.format(port=page.port) for name, value in headers.items()}
    answers = [
        await page.client.post("/api/jobs", json={"prompt": "x"}, headers=sent),
        await page.client.delete("/api/jobs/nope", headers=sent),
        await page.client.post("/api/modes/switch", json={"mode": "other"}, headers=sent),
        await page.client.get("/api/jobs", headers=sent),
        await page.client.get("/api/events", headers=sent),
        await page.client.get("/static/main.js", headers={**sent, "Sec-Fetch-Mode": "no-cors"}),
    ]
    assert [answer.status_code for answer in answers] == [403] * len(answers)


async def test_a_link_on_another_site_may_lead_to_the_page(page: Page) -> None:
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert (await page.client.get("/", headers=headers)).status_code == 200
    answer = await page.client.post("/api/jobs", json={"prompt": "x"}, headers=headers)
    assert answer.status_code == 403


async def test_a_preflight_gets_no_permission(page: Page) -> None:
    headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "DELETE"}
    answer = await page.client.options("/api/jobs/x", headers=headers)
    assert answer.status_code == 403
    assert not any(name.startswith("access-control") for name in answer.headers)


@pytest.mark.parametrize(
    "media",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "text/json"],
)
async def test_forms_are_refused(page: Page, media: str) -> None:
    answer = await page.client.post(
        "/api/jobs", content=b'{"prompt": "x"}', headers={"Content-Type": media}
    )
    assert answer.status_code == 415


@pytest.mark.parametrize(
    ("path", "limit"),
    [("/api/modes/switch", MAX_BODY), ("/api/jobs", MAX_DRAFT), ("/generate", MAX_DRAFT)],
)
async def test_a_body_that_is_too_large_is_refused_announced_or_not(
    page: Page, path: str, limit: int
) -> None:
    body = json.dumps({"prompt": "x" * limit}).encode()

    async def in_parts() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 65536):
            yield body[start : start + 65536]

    headers = {"Content-Type": "application/json"}
    for content in (body, in_parts()):
        answer = await page.client.post(path, content=content, headers=headers)
        assert answer.status_code == 413
        assert f"{limit // 1024} KiB" in answer.json()["detail"]


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/..%2fapp.py",
        "/static/..%5capp.py",
        "/static//etc/passwd",
        "/static/",
        "/static",
        "/static/.",
        "/static/%00",
        "/api/images/..%2f..%2fdreamlab.db",
        "/docs",
        "/redoc",
        "/openapi.json",
    ],
)
async def test_nothing_but_the_pages_own_files_is_served(page: Page, path: str) -> None:
    request = f"GET {path} HTTP/1.1\nHost: 127.0.0.1:{page.port}\nConnection: close\n\n"
    answer = await raw(page, request)
    assert answer.split()[1] in ("404", "307")
    assert "create_web_app" not in answer
    assert "root:" not in answer


async def test_unknown_addresses_and_methods_are_problems(page: Page) -> None:
    missing = await page.client.get("/nope")
    method = await page.client.put("/api/jobs", json={})
    assert (missing.status_code, missing.json()["detail"]) == (
        404,
        "There is nothing at this address.",
    )
    assert method.status_code == 405
    assert "/api/openapi.json" in method.json()["detail"]
    for answer in (missing, method):
        assert answer.headers["content-type"] == "application/problem+json"
