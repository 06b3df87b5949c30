"""What the owner sets: read once, from the environment and from ``.env``, then frozen.

The environment wins over ``.env``, and a setting that is left empty counts as not set. Everything
that is wrong is told at once: which setting, its value, where it stands and what is allowed.
"""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from bot.environment import Given, read_given
from bot.hosts import check_address, check_host, is_loopback, private_url, web_name
from bot.priorities import ALLOWED as ALLOWED_WEIGHTS
from bot.priorities import parse_weights
from engine.devices import ALLOWED as ALLOWED_DEVICES
from engine.devices import parse_devices
from engine.errors import DreamLabError

DISCORD_API_URL = "https://discord.com/api/v10"
"""Discord's own address for requests."""

LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]

_TOKEN = re.compile(r"[\w-]{20,}\.[\w-]{6,}\.[\w-]{20,}")
_SECRETS = frozenset({"discord_token", "web_token", "web_artist_token", "web_viewer_token"})
_WEB_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]{16,}=*")  # RFC 6750's, of some length
_MAKE_A_TOKEN = 'python -c "import secrets; print(secrets.token_urlsafe(32))"'  # noqa: S105
_A_WEB_TOKEN = f"16 or more of the characters A-Z a-z 0-9 . _ ~ + / -; {_MAKE_A_TOKEN} makes one"
_NAMES_UNLIKE_THEIR_FIELD = {"data": "DREAMLAB_DATA"}


class SettingsError(DreamLabError):
    """One or more settings can't be used.

    Attributes:
        problems: one sentence for each.
    """

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def _setting(
    default: Any, meaning: str, allowed: str, *, ge: int | None = None, le: int | None = None
) -> Any:
    """Declares a setting: what it means and, in words, what it may be."""
    return Field(default, description=meaning, json_schema_extra={"allowed": allowed}, ge=ge, le=le)


class Settings(BaseModel):
    """Everything the owner may set. In the environment each name is in capitals.

    ``data`` alone is called ``DREAMLAB_DATA`` there. Relative paths count from the folder that the
    program was started in.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    discord_token: SecretStr | None = _setting(
        None,
        "The bot's token; without one there is the local page alone.",
        "the token from the developer portal, without spaces or quotes",
    )
    discord_api_url: str = _setting(
        DISCORD_API_URL,
        "Where Discord answers requests.",
        "an https:// address, or http:// on this machine",
    )
    discord_gateway_url: str | None = _setting(
        None,
        "Where Discord's events come from; left out, Discord itself says.",
        "a wss:// address, or ws:// on this machine",
    )
    discord_operators: tuple[str, ...] = _setting(
        (),
        "Who may pause drawing, load models and read the modes again on Discord, beside the owner "
        "of the bot's application.",
        "ids of Discord users, with commas between them",
    )
    discord_direct: bool = _setting(
        True, "Whether people may draw in direct messages with the bot.", "true or false"
    )
    discord_user_install: bool = _setting(
        False,
        "Whether people may install the bot for themselves and draw wherever they are; the "
        "application's page Installation must allow it, too.",
        "true or false",
    )
    discord_shards: Literal["off"] | int | None = _setting(
        "off",
        "Over how many connections Discord's events come; more than one from 2,500 servers on.",
        "off (one connection), auto (as many as Discord says), or a whole number from 1 to 1000",
    )
    permutations_max: int = _setting(
        10,
        "How many requests one prompt with {red, blue} in it may become, as far as they may wait.",
        "a whole number from 1 to 100",
        ge=1,
        le=100,
    )
    data: Path = _setting(Path("data"), "Folder of the database and the pictures.", "a folder")
    modes_file: Path = _setting(
        Path("modes/modes.yaml"), "The file that names the modes.", "a YAML file"
    )
    model_root: Path | None = _setting(
        None, "Without a modes file: the folder that MODEL is in.", "a folder"
    )
    model: str | None = _setting(
        None,
        "Without a modes file: the one model to draw with.",
        "a .safetensors file or diffusers folder, relative to MODEL_ROOT",
    )
    queue_max: int = _setting(
        64, "How many requests may wait.", "a whole number from 1 to 100000", ge=1, le=100_000
    )
    queue_max_per_owner: int | None = _setting(
        None,
        "How many of them may be one member's; left out, a quarter of QUEUE_MAX.",
        "a whole number from 1 to 100000",
        ge=1,
        le=100_000,
    )
    role_weights: Mapping[str, float] = _setting(
        {},
        "Roles whose members' turns count more, or less, than others'.",
        ALLOWED_WEIGHTS,
    )
    job_timeout: float = _setting(
        3600.0,
        "Seconds after which a running request is given up; 0 never does.",
        "a number of seconds from 0 to 604800",
        ge=0,
        le=604_800,
    )
    web_token: SecretStr | None = _setting(
        None,
        "What an admin of the page signs in with; without one the page is this machine's alone.",
        _A_WEB_TOKEN,
    )
    web_artist_token: tuple[SecretStr, ...] = _setting(
        (), "Likewise those who draw; each token has pictures of its own.", _A_WEB_TOKEN
    )
    web_viewer_token: tuple[SecretStr, ...] = _setting(
        (), "Likewise those who look at how things stand.", _A_WEB_TOKEN
    )
    web_host: str = _setting(
        "127.0.0.1",
        "The address that the page listens on.",
        "127.0.0.1, ::1 or localhost; with WEB_TOKEN any address of this machine",
    )
    web_names: tuple[str, ...] = _setting(
        (),
        "Further names under which browsers open the page.",
        "names such as pictures.lan, or addresses such as https://pictures.example, with commas "
        "between them",
    )
    web_port: int = _setting(
        4200,
        "The port that the page listens on; 0 picks a free one.",
        "a whole number from 0 to 65535",
        ge=0,
        le=65_535,
    )
    devices: tuple[str, ...] = _setting(
        (),
        "What to draw on; empty (auto) takes every CUDA device, or else the CPU.",
        ALLOWED_DEVICES,
    )
    host_cache_gb: float | None = _setting(
        None,
        "Gigabytes of this machine's memory for models that must leave a GPU, so that they are "
        "back soon; left out, a quarter of it. 0 keeps none.",
        "a number from 0 to 100000",
        ge=0,
        le=100_000,
    )
    executor: Literal["local", "ray"] = _setting(
        "local",
        "Whether this machine's devices draw, or those of a Ray cluster (docs/cluster.md).",
        "local or ray",
    )
    ray_address: str = _setting(
        "auto",
        "Where the head of the Ray cluster is.",
        "auto (on this machine), or an address such as 10.0.0.2:6379",
    )
    ray_gpus_per_worker: float = _setting(
        1.0,
        "GPUs, or the share of one, of each worker in the cluster; 0 draws on CPUs.",
        "a number from 0 to 16",
        ge=0,
        le=16,
    )
    ray_labels: tuple[tuple[str, str], ...] = _setting(
        (),
        "Labels that a machine of the cluster must have to draw.",
        "name=value, with commas between several",
    )
    ray_workers: tuple[int, int] | None = _setting(
        None,
        "How many workers there are; with two numbers Ray starts and ends machines as needed.",
        "all (every device that there is), or two whole numbers from 0 to 10000 such as 0-8",
    )
    ray_send_models: bool = _setting(
        False,
        "Whether machines of the cluster are sent model files that they lack.",
        "true or false",
    )
    keep_days: int = _setting(
        0,
        "Days after which finished requests and their pictures are deleted; 0 keeps them for ever.",
        "a whole number from 0 to 36500",
        ge=0,
        le=36_500,
    )
    disk_budget_gb: float = _setting(
        0.0,
        "Gigabytes of pictures, beyond which the oldest requests are deleted; 0 is no limit.",
        "a number from 0 to 1000000",
        ge=0,
        le=1_000_000,
    )
    log_level: LogLevel = _setting(
        "INFO",
        "How much the log says.",
        "DEBUG, INFO, WARNING, ERROR or CRITICAL",
    )
    shutdown_grace: float = _setting(
        20.0,
        "Seconds that running requests get to finish when the program ends.",
        "a number of seconds from 0 to 3600",
        ge=0,
        le=3600,
    )

    @classmethod
    def load(cls, env_file: Path | None = None, environ: Mapping[str, str] | None = None) -> Self:
        """Reads the settings.

        Args:
            env_file: read where it exists; None is ``.env`` in the current folder.
            environ: wins over the file; None is the process's environment.

        Raises:
            SettingsError: something is not allowed; it lists all that is wrong.
        """
        env_file = Path(".env") if env_file is None else env_file
        environ = os.environ if environ is None else environ
        given, problems = read_given(env_file, environ, tuple(names().values()))
        values = {field: given[name].text for field, name in names().items() if name in given}
        try:
            settings = cls.model_validate(values)
        except ValidationError as error:
            problems += _problems(error, given)
        if problems:
            raise SettingsError(tuple(problems))
        return settings

    @property
    def waiting_per_owner(self) -> int:
        """How many requests of one member may wait."""
        return self.queue_max_per_owner or max(1, self.queue_max // 4)

    @property
    def combinations_max(self) -> int:
        """How many requests one prompt may become: all of them must be able to wait."""
        return min(self.permutations_max, self.waiting_per_owner, self.queue_max)

    @property
    def is_for_all(self) -> bool:
        """Whether other machines can reach the page."""
        return not is_loopback(self.web_host)

    @field_validator("discord_token")
    @classmethod
    def _token_is_one_word(cls, token: SecretStr | None) -> SecretStr | None:
        text = token.get_secret_value() if token else ""
        if not all("!" <= character <= "~" for character in text):
            raise ValueError("it holds spaces or characters that no token has")
        return SecretStr(text) if text else None

    @field_validator("discord_api_url")
    @classmethod
    def _requests_are_private(cls, url: str) -> str:
        return private_url(url, "https", "http")

    @field_validator("discord_gateway_url")
    @classmethod
    def _events_are_private(cls, url: str | None) -> str | None:
        return private_url(url, "wss", "ws") if url else None

    @field_validator("data", "modes_file", "model_root", mode="after")
    @classmethod
    def _home_is_spelled_out(cls, path: Path | None) -> Path | None:
        if path is None:
            return None
        if "\0" in str(path):
            raise ValueError("it holds a NUL character")
        try:
            return path.expanduser()
        except RuntimeError:
            raise ValueError("this machine has no such home folder") from None

    @field_validator("web_token")
    @classmethod
    def _web_token_is_long(cls, token: SecretStr | None) -> SecretStr | None:
        return _long(token) if token and token.get_secret_value() else None

    @field_validator("web_artist_token", "web_viewer_token", mode="before")
    @classmethod
    def _tokens_are_split(cls, value: object) -> object:
        return _parts(value) if isinstance(value, str) else value

    @field_validator("web_artist_token", "web_viewer_token")
    @classmethod
    def _web_tokens_differ(
        cls, tokens: tuple[SecretStr, ...], info: ValidationInfo
    ) -> tuple[SecretStr, ...]:
        for token in tokens:
            _long(token)
        if tokens and "web_token" in info.data and info.data["web_token"] is None:
            raise ValueError(f"it needs WEB_TOKEN, the admin's; {_MAKE_A_TOKEN} makes one")
        admin = info.data.get("web_token")
        others = [*([admin] if admin else []), *info.data.get("web_artist_token", ())]
        if len({*others, *tokens}) < len(others) + len(tokens):
            raise ValueError("one token stands in two places")
        return tokens

    @field_validator("web_host")
    @classmethod
    def _others_need_a_token(cls, host: str, info: ValidationInfo) -> str:
        if not host.isprintable() or " " in host:
            raise ValueError("it is no address")
        check_host(host)
        if not is_loopback(host):
            _need_web_token(info)
        return host

    @field_validator("discord_operators", mode="before")
    @classmethod
    def _operators_are_split(cls, value: object) -> object:
        return _parts(value) if isinstance(value, str) else value

    @field_validator("discord_operators")
    @classmethod
    def _operators_are_ids(cls, ids: tuple[str, ...]) -> tuple[str, ...]:
        for each in ids:
            if not re.fullmatch(r"[0-9]{5,20}", each):
                raise ValueError(f"{each[:40]!r} is no id")
        return ids

    @field_validator("web_names", mode="before")
    @classmethod
    def _names_are_split(cls, value: object) -> object:
        return _parts(value) if isinstance(value, str) else value

    @field_validator("web_names")
    @classmethod
    def _names_are_plain(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if names:
            _need_web_token(info)
        return tuple(map(web_name, names))

    @field_validator("devices", mode="before")
    @classmethod
    def _devices_are_known(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return parse_devices(value)

    @field_validator("discord_shards", mode="before")
    @classmethod
    def _shards_are_counted(cls, value: object) -> object:
        if not isinstance(value, str) or value.lower() == "off":
            return value.lower() if isinstance(value, str) else value
        if value.lower() == "auto":
            return None
        if not (value.isascii() and value.isdecimal() and 1 <= int(value[:5]) <= 1000):
            raise ValueError("it is no such number")
        return int(value)

    @field_validator("ray_address")
    @classmethod
    def _head_is_an_address(cls, address: str) -> str:
        if address == "auto":
            return address
        check_address(address)
        return address

    @field_validator("ray_labels", mode="before")
    @classmethod
    def _labels_are_split(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        pairs = [part.partition("=") for part in _parts(value)]
        if any(not (name.strip() and equals and text.strip()) for name, equals, text in pairs):
            raise ValueError("one of them is no name=value")
        return tuple((name.strip(), text.strip()) for name, _, text in pairs)

    @field_validator("ray_workers", mode="before")
    @classmethod
    def _workers_are_a_range(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        if value.lower() == "all":
            return None
        least, dash, most = (part.strip() for part in value.partition("-"))
        if not (dash and least.isdecimal() and most.isdecimal()):
            raise ValueError("it is no such range")
        if not int(least) <= int(most) <= 10_000 or int(most) < 1:
            raise ValueError("the first number is above the second, or there would be none")
        return int(least), int(most)

    @field_validator("role_weights", mode="before")
    @classmethod
    def _weights_are_read(cls, value: object) -> object:
        return parse_weights(value) if isinstance(value, str) else value

    @field_validator("log_level", mode="before")
    @classmethod
    def _level_is_in_capitals(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value


def names() -> dict[str, str]:
    """Returns each setting's attribute with its name in the environment."""
    return {
        field: _NAMES_UNLIKE_THEIR_FIELD.get(field, field.upper())
        for field in Settings.model_fields
    }


def _problems(error: ValidationError, given: Mapping[str, Given]) -> Iterator[str]:
    for detail in error.errors(include_url=False, include_input=False):
        field = str(detail["loc"][0])
        name = names()[field]
        value = given[name]
        extra = Settings.model_fields[field].json_schema_extra
        allowed = extra["allowed"] if isinstance(extra, dict) else ""
        cause = detail.get("ctx", {}).get("error") if detail["type"] == "value_error" else None
        reason = f": {cause}" if cause else ""
        yield (
            f"{name} ({value.place}): {_shown(field, value.text)} is not allowed{reason}. "
            f"Allowed: {allowed}."
        )


def _shown(field: str, value: str, limit: int = 80) -> str:
    """Returns a value for a message: never a token, nor what looks like Discord's."""
    if field in _SECRETS or _TOKEN.search(value):
        return "the value (kept secret)"
    return repr(value) if len(value) <= limit else repr(value[:limit]) + "…"


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _long(token: SecretStr) -> SecretStr:
    if not _WEB_TOKEN.fullmatch(token.get_secret_value()):
        raise ValueError("it is too short or holds other characters")
    return token


def _need_web_token(info: ValidationInfo) -> None:
    """Raises where others could reach the page and nothing would keep them out."""
    # A token that is itself refused is not there; that is told by its own name.
    if "web_token" in info.data and info.data["web_token"] is None:
        raise ValueError(
            "others could reach the page, so that it needs WEB_TOKEN, which people sign in with; "
            f"{_MAKE_A_TOKEN} makes one"
        )
