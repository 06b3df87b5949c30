"""Settings: one frozen object from the environment and .env, or everything wrong at once."""

import contextlib
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bot.settings import Settings, SettingsError, names

TOKEN = "MTIzNDU2Nzg5MDEyMzQ1Njc4.GAbCdE.abcdefghijklmnopqrstuvwxyz0123456789AB"
WEB_TOKEN = "an-admin-of-the-page"
EXAMPLE = Path(__file__).parent.parent / ".env.example"
NOWHERE = Path("/nonexistent/.env")


def load(**environ: str) -> Settings:
    return Settings.load(env_file=NOWHERE, environ=environ)


def refused(**environ: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load(**environ)
    return str(caught.value)


def test_nothing_set_gives_the_defaults() -> None:
    settings = load()
    assert settings.discord_token is None
    assert settings.discord_api_url == "https://discord.com/api/v10"
    assert settings.discord_gateway_url is None
    assert settings.data == Path("data")
    assert settings.modes_file == Path("modes/modes.yaml")
    assert settings.model_root is None
    assert settings.model is None
    assert settings.queue_max == 64
    assert (settings.queue_max_per_owner, settings.waiting_per_owner) == (None, 16)
    assert settings.job_timeout == 3600
    assert (settings.web_host, settings.web_port) == ("127.0.0.1", 4200)
    assert settings.devices == ()
    assert settings.log_level == "INFO"
    assert settings.shutdown_grace == 20


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("QUEUE_MAX=7\nexport WEB_PORT='4300' # the other one\n", encoding="utf-8")
    settings = Settings.load(env_file=env_file, environ={"QUEUE_MAX": "9"})
    assert (settings.queue_max, settings.web_port) == (9, 4300)


def test_empty_counts_as_not_set(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("DISCORD_TOKEN=\nQUEUE_MAX\nMODEL='  '\n", encoding="utf-8")
    settings = Settings.load(env_file=env_file, environ={"DISCORD_TOKEN": " ", "DEVICES": ""})
    assert settings == load()


def test_one_member_may_have_a_quarter_of_the_queue_unless_told() -> None:
    assert load(QUEUE_MAX="3").waiting_per_owner == 1
    assert load(QUEUE_MAX="3", QUEUE_MAX_PER_OWNER="2").waiting_per_owner == 2


def test_one_prompt_becomes_no_more_requests_than_may_wait() -> None:
    assert load().combinations_max == 10
    assert load(PERMUTATIONS_MAX="3").combinations_max == 3
    assert load(QUEUE_MAX_PER_OWNER="4").combinations_max == 4
    assert load(QUEUE_MAX="3", QUEUE_MAX_PER_OWNER="4").combinations_max == 3


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load().queue_max = 3  # type: ignore[misc] # that it is refused is the point


def test_every_bad_value_is_told_at_once_with_place_and_allowed_values(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("# mine\n\nQUEUE_MAX=many\n", encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        Settings.load(env_file=env_file, environ={"WEB_PORT": "70000", "DEVICES": "tpu"})
    problems = caught.value.problems
    assert len(problems) == 3
    assert (
        "QUEUE_MAX (.env line 3): 'many' is not allowed. Allowed: a whole number from 1 to 100000."
        in problems
    )
    assert any("WEB_PORT (environment): '70000'" in problem for problem in problems)
    assert any("DEVICES (environment): 'tpu'" in problem for problem in problems)


def test_the_token_is_shown_nowhere(tmp_path: Path) -> None:
    settings = load(DISCORD_TOKEN=TOKEN)
    assert settings.discord_token is not None
    assert settings.discord_token.get_secret_value() == TOKEN
    assert TOKEN not in repr(settings) + str(settings) + settings.model_dump_json()
    env_file = tmp_path / ".env"
    env_file.write_text(
        f"DISCORD_TOKEN={TOKEN} x\nWEB_PORT={TOKEN}\nDISCORD_TOKN={TOKEN}\n", encoding="utf-8"
    )
    with pytest.raises(SettingsError) as caught:
        Settings.load(env_file=env_file, environ={})
    assert len(caught.value.problems) == 3
    assert TOKEN[:10] not in str(caught.value) + repr(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("QUEUE_MAX", "0"),
        ("QUEUE_MAX", "100001"),
        ("QUEUE_MAX", "1.5"),
        ("WEB_PORT", "-1"),
        ("QUEUE_MAX_PER_OWNER", "0"),
        ("JOB_TIMEOUT", "-1"),
        ("JOB_TIMEOUT", "inf"),
        ("SHUTDOWN_GRACE", "nan"),
        ("SHUTDOWN_GRACE", "inf"),
        ("SHUTDOWN_GRACE", "-1"),
        ("LOG_LEVEL", "LOUD"),
        ("DEVICES", "cuda:0,cuda:0"),
        ("DEVICES", "cuda,cuda:0"),
        ("DEVICES", "cpu,"),
        ("DEVICES", "cuda:-1"),
        ("DISCORD_API_URL", "discord.com"),
        ("DISCORD_API_URL", "http://discord.com/api"),
        ("DISCORD_API_URL", "https://me:secret@discord.com"),
        ("DISCORD_API_URL", "https://host:99999"),
        ("DISCORD_API_URL", f"https://{'a' * 64}.com"),
        ("DISCORD_GATEWAY_URL", "ws://gateway.discord.gg"),
        ("DISCORD_GATEWAY_URL", "https://gateway.discord.gg"),
        ("DREAMLAB_DATA", "da\0ta"),
        ("DISCORD_TOKEN", "two words"),
    ],
)
def test_what_is_not_allowed_is_refused_by_name(name: str, value: str) -> None:
    message = refused(**{name: value})
    assert message.startswith(f"{name} (environment): ")
    assert "Allowed: " in message


@pytest.mark.parametrize("host", ["a" * 64, f"{'a' * 64}.lan", "a..b", "ü" * 60, "two words"])
def test_a_host_that_nobody_can_look_up_is_refused(host: str) -> None:
    said = refused(WEB_HOST=host, WEB_TOKEN=WEB_TOKEN)
    assert "is not allowed: it is no address. Allowed: 127.0.0.1, ::1 or localhost" in said
    assert load(WEB_HOST="a" * 63, WEB_TOKEN=WEB_TOKEN).web_host == "a" * 63


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])  # noqa: S104
def test_a_page_that_others_could_reach_needs_a_token_and_says_how_to_make_one(host: str) -> None:
    said = refused(WEB_HOST=host)
    assert said.startswith(f"WEB_HOST (environment): '{host}' is not allowed: others could reach")
    assert 'needs WEB_TOKEN, which people sign in with; python -c "import secrets' in said
    assert load(WEB_HOST=host, WEB_TOKEN=WEB_TOKEN).web_host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_a_page_for_this_machine_alone_needs_none(host: str) -> None:
    assert load(WEB_HOST=host).web_host == host


def test_a_page_with_other_names_needs_a_token_too() -> None:
    # A proxy before it has everybody come from this machine.
    assert "needs WEB_TOKEN" in refused(WEB_NAMES="pictures.example")


def test_names_are_read_as_browsers_send_them() -> None:
    names = (
        "Pictures.LAN, https://Pictures.example/ ,https://a.example:443,nas:8080,http://[fd00::1]"
    )
    assert load(WEB_TOKEN=WEB_TOKEN, WEB_NAMES=names).web_names == (
        "pictures.lan",
        "https://pictures.example",
        "https://a.example",
        "http://nas:8080",
        "http://[fd00::1]",
    )


@pytest.mark.parametrize(
    "name", ["*", "a b", "ftp://x", "https://x/y", "https://me@x", "x:0", "x:99999", "-x", "x\r\ny"]
)
def test_what_is_no_name_is_refused(name: str) -> None:
    assert refused(WEB_TOKEN=WEB_TOKEN, WEB_NAMES=name).startswith("WEB_NAMES (environment): ")


@pytest.mark.parametrize("token", ["brief", "x" * 15, "two words of some length", "ümlaut" * 5])
@pytest.mark.parametrize("name", ["WEB_TOKEN", "WEB_ARTIST_TOKEN", "WEB_VIEWER_TOKEN"])
def test_a_weak_web_token_is_refused_and_not_shown(name: str, token: str) -> None:
    said = refused(**{"WEB_TOKEN": WEB_TOKEN, name: token})
    assert said.startswith(f"{name} (environment): the value (kept secret) is not allowed: it is")
    assert token not in said


def test_one_token_opens_one_thing() -> None:
    tokens = {"WEB_TOKEN": WEB_TOKEN, "WEB_ARTIST_TOKEN": f"{'a' * 16}, {'b' * 16}"}
    assert len(load(**tokens).web_artist_token) == 2
    for name, token in (
        ("WEB_ARTIST_TOKEN", WEB_TOKEN),
        ("WEB_ARTIST_TOKEN", f"{'c' * 16},{'c' * 16}"),
        ("WEB_VIEWER_TOKEN", "b" * 16),
    ):
        assert f"{name} (environment): " in refused(**{**tokens, name: token})
    assert "needs WEB_TOKEN" in refused(WEB_ARTIST_TOKEN="a" * 16)


def test_web_tokens_are_shown_nowhere() -> None:
    settings = load(WEB_TOKEN=WEB_TOKEN, WEB_ARTIST_TOKEN="a" * 16, WEB_VIEWER_TOKEN="v" * 16)
    shown = repr(settings) + str(settings) + settings.model_dump_json()
    for token in (WEB_TOKEN, "a" * 16, "v" * 16):
        assert token not in shown


def test_addresses_on_this_machine_may_be_plain() -> None:
    settings = load(
        DISCORD_API_URL="http://127.0.0.1:8080/api/", DISCORD_GATEWAY_URL="ws://localhost:8081"
    )
    assert settings.discord_api_url == "http://127.0.0.1:8080/api"
    assert settings.discord_gateway_url == "ws://localhost:8081"


def test_devices_are_named_one_by_one() -> None:
    assert load(DEVICES="auto").devices == ()
    assert load(DEVICES="CPU").devices == ("cpu",)
    assert load(DEVICES="cuda").devices == ("cuda:0",)
    assert load(DEVICES=" cuda:0 , cuda:1 ").devices == ("cuda:0", "cuda:1")


def test_a_slip_of_the_pen_in_the_file_is_found_and_foreign_names_are_left_alone(
    tmp_path: Path,
) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("PATH_TO_X=1\nHF_TOKEN=x\nQUEUEMAX=3\nweb_port=1\n", encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        Settings.load(env_file=env_file, environ={"QUEUE_MAXX": "the environment is not ours"})
    assert caught.value.problems == (
        "QUEUEMAX (.env line 3): unknown. Did you mean QUEUE_MAX?",
        "web_port (.env line 4): unknown. Did you mean WEB_PORT?",
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"QUEUE_MAX=1\n\nwhat is this\n", "line 3: can't be read"),
        ("QUEUE_MAX=1".encode("utf-16"), "not UTF-8"),
        (b"\xff\x00", "not UTF-8"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(tmp_path: Path, content: bytes, said: str) -> None:
    env_file = tmp_path / ".env"
    env_file.write_bytes(content)
    with pytest.raises(SettingsError, match=said):
        Settings.load(env_file=env_file, environ={})


def test_a_folder_in_the_files_place_says_why(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="can't be read"):
        Settings.load(env_file=tmp_path, environ={})


def test_a_byte_order_mark_is_no_obstacle(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_bytes(b"\xef\xbb\xbfQUEUE_MAX=5\r\n")
    assert Settings.load(env_file=env_file, environ={}).queue_max == 5


def test_the_default_file_is_the_one_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("QUEUE_MAX=5\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("QUEUE_MAX", raising=False)
    assert Settings.load().queue_max == 5


@given(st.sampled_from(sorted(names().values())), st.text())
def test_any_text_is_either_taken_or_refused_by_name(name: str, value: str) -> None:
    problems: tuple[str, ...] = ()
    try:
        load(**{name: value})
    except SettingsError as error:
        problems = error.problems
    assert all(problem.startswith(f"{name} (environment): ") for problem in problems)


@given(st.binary(max_size=200))
def test_any_file_is_either_read_or_refused(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        env_file = Path(folder) / ".env"
        env_file.write_bytes(content)
        with contextlib.suppress(SettingsError):
            assert Settings.load(env_file=env_file, environ={}).web_host == "127.0.0.1"


def test_the_example_documents_every_setting_with_its_default() -> None:
    written = dict(re.findall(r"^#? ?([A-Z_]+)=(.*)$", EXAMPLE.read_text("utf-8"), re.MULTILINE))
    assert set(written) == set(names().values())
    defaults = Settings()
    documented = load(**written)
    assert documented == defaults


def test_the_example_is_a_valid_file() -> None:
    assert Settings.load(env_file=EXAMPLE, environ={}) == Settings()


@pytest.mark.parametrize(
    ("text", "shards"), [("off", "off"), ("OFF", "off"), ("auto", None), ("16", 16)]
)
def test_shards_are_off_counted_by_discord_or_by_the_owner(
    text: str, shards: str | int | None
) -> None:
    assert load(DISCORD_SHARDS=text).discord_shards == shards


def test_a_cluster_is_drawn_on_as_it_is_described() -> None:
    settings = load(
        EXECUTOR="ray",
        RAY_ADDRESS="head.lan:6379",
        RAY_GPUS_PER_WORKER="0.5",
        RAY_LABELS="tier=fast, room = attic",
        RAY_WORKERS="0-8",
        RAY_SEND_MODELS="true",
    )
    assert (settings.executor, settings.ray_address) == ("ray", "head.lan:6379")
    assert settings.ray_labels == (("tier", "fast"), ("room", "attic"))
    assert settings.ray_workers == (0, 8)
    assert settings.ray_send_models
    assert load(RAY_WORKERS="ALL").ray_workers is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("EXECUTOR", "kubernetes"),
        ("RAY_ADDRESS", "10.0.0.2"),
        ("RAY_ADDRESS", "10.0.0.2:0"),
        ("RAY_ADDRESS", "ray://10.0.0.2:10001"),
        ("RAY_ADDRESS", "10.0.0.2:99999"),
        ("RAY_ADDRESS", f"{'a' * 64}:6379"),
        ("RAY_GPUS_PER_WORKER", "-1"),
        ("RAY_GPUS_PER_WORKER", "nan"),
        ("RAY_LABELS", "fast"),
        ("RAY_LABELS", "tier="),
        ("RAY_WORKERS", "8-2"),
        ("RAY_WORKERS", "0-0"),
        ("RAY_WORKERS", "some"),
        ("RAY_WORKERS", "0-99999"),
        ("RAY_SEND_MODELS", "perhaps"),
        ("DISCORD_SHARDS", "0"),
        ("DISCORD_SHARDS", "many"),
    ],
)
def test_a_cluster_that_can_not_be_is_refused_with_what_is_allowed(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=rf"^{name} \(environment\): .* Allowed: "):
        load(**{name: value})
