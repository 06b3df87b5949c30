"""Says what is set up and what is not: one finding a line, each with the next step.

The functions that judge are pure: facts in, finding out. `examine` gathers the facts; it changes
nothing, loads no model and never imports torch.
"""

import enum
import importlib.util
import os
import platform
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import psutil
from filelock import FileLock, Timeout
from packaging.requirements import Requirement

from bot import database
from bot.housekeeping import lost_pictures
from bot.settings import Settings, SettingsError
from engine import devices
from engine.errors import ModelError
from engine.model_detector import FAMILY_NAMES, DetectedLora, DetectedModel, detect, detect_lora
from engine.worker_factory import WORKERS
from modes.catalog import ModeCatalog
from modes.mode_config import ModeConfig
from modes.modes_file import ModesFileError

DISTRIBUTION = "dream-lab"

INSTALL = "Run: pip install -c constraints.txt -e ."
DISCORD_HINT = (
    "For Discord, put DISCORD_TOKEN into .env: https://discord.com/developers/applications → "
    "your application → Bot → Reset Token"
)

_GIB = 2**30
_DISK_LOW = 2 * _GIB  # a thousand pictures and the database's room to grow
_DISK_OUT = _GIB // 10
# Discord documents no format; all tokens so far are three parts of this alphabet.
_TOKEN = re.compile(r"[\w-]{20,}\.[\w-]{5,}\.[\w-]{20,}", re.ASCII)
_SMI = (
    "nvidia-smi",
    "--query-gpu=index,name,memory.total,memory.free",
    "--format=csv,noheader,nounits",
)
_SMI_SECONDS = 20
_HEAD_SECONDS = 5
_RAY_TOKENS = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
_RAY_TOKEN_FILE = Path.home() / ".ray" / "auth_token"


class Level(enum.StrEnum):
    """How good a finding is."""

    OK = "ok"
    """As it should be."""
    WARNING = "warning"
    """Works, and the owner should know."""
    BROKEN = "broken"
    """Does not work until the owner does something."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the check.

    Attributes:
        level: how good it is.
        subject: what was looked at.
        text: what was found.
        hint: what to do next; empty where there is nothing to do.
    """

    level: Level
    subject: str
    text: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A CUDA device as its driver describes it; memory in bytes."""

    index: int
    name: str
    total: int
    free: int


# Judging


def judge_packages(needed: Iterable[str], installed: dict[str, str]) -> Finding:
    """Says whether what the project needs is installed.

    Args:
        needed: requirements, such as ``torch>=2.13``; those of extras are left out.
        installed: version by name.
    """
    wrong: list[str] = []
    fine: list[str] = []
    for requirement in map(Requirement, needed):
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        version = installed.get(requirement.name)
        if version is None:
            wrong.append(f"{requirement.name} is missing")
        elif not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} {version} is not {requirement.specifier}")
        else:
            fine.append(requirement.name)
    if wrong:
        return Finding(Level.BROKEN, "packages", "; ".join(wrong), INSTALL)
    return Finding(Level.OK, "packages", f"all {len(fine)} installed")


def judge_token(token: str | None) -> Finding:
    """Says whether there is a bot token that looks like one; never shows it."""
    if token is None:
        return Finding(
            Level.WARNING, "token", "not set: the local page alone is served", DISCORD_HINT
        )
    if not _TOKEN.fullmatch(token):
        hint = "Copy it again: it is neither the application's id nor its public key"
        return Finding(Level.WARNING, "token", "set, but does not look like a bot's token", hint)
    return Finding(Level.OK, "token", "set")


def judge_model(mode: ModeConfig, found: DetectedModel | ModelError) -> Finding:
    """Says whether a mode's model can be drawn with, as far as its header shows."""
    subject = f"mode {mode.name}"
    if isinstance(found, ModelError):
        hint = "Copy the model there, or change the mode in the modes file"
        return Finding(Level.BROKEN, subject, str(found), hint)
    text = f"{found.family_name}, {_size(found.weight_bytes)}, {found.path}"
    if found.family not in WORKERS or found.variant not in (None, "text2image"):
        drawn = ", ".join(FAMILY_NAMES[family] for family in WORKERS)
        kind = f" ({found.variant})" if found.variant else ""
        return Finding(
            Level.BROKEN, subject, f"{text}: not supported{kind}", f"This version draws: {drawn}"
        )
    return Finding(Level.OK, subject, text)


def judge_lora(
    mode: ModeConfig, model: DetectedModel, found: DetectedLora | ModelError
) -> Finding | None:
    """Says what is wrong with a LoRA of a mode; None where nothing is."""
    if isinstance(found, ModelError):
        reason = str(found)
    elif found.family is not model.family:
        reason = f"{found.path}: a LoRA for {found.family_name}; the model is {model.family_name}"
    else:
        return None
    hint = "Copy a fitting LoRA there, or take it out of the mode"
    return Finding(Level.BROKEN, f"mode {mode.name}", reason, hint)


def judge_devices(
    wanted: Sequence[str], cuda: int, gpus: Sequence[Gpu], *, torch_has_cuda: bool
) -> Finding:
    """Says what will be drawn on.

    Args:
        wanted: devices that the owner named; none leaves it to the program.
        cuda: how many CUDA devices the driver shows.
        gpus: what is known about them.
        torch_has_cuda: whether the installed torch can use them.
    """
    shown = "; ".join(
        f"cuda:{gpu.index} {gpu.name}, {_size(gpu.free)} of {_size(gpu.total)} free" for gpu in gpus
    )
    shown = shown or f"{cuda} CUDA device{'s' * (cuda != 1)}"
    absent = [
        name
        for name in wanted
        if name != "cpu" and not (torch_has_cuda and int(name.partition(":")[2] or 0) < cuda)
    ]
    hint = "Install torch's CUDA build: https://pytorch.org/get-started/locally"
    if absent and cuda and not torch_has_cuda:
        text = f"{', '.join(absent)}: the installed torch has no CUDA"
        return Finding(Level.BROKEN, "devices", text, hint)
    if absent:
        text = f"{', '.join(absent)}: there {'is' if cuda == 1 else 'are'} {shown}"
        return Finding(Level.BROKEN, "devices", text, "Set DEVICES to auto, or to what there is")
    if not wanted and cuda and not torch_has_cuda:
        text = f"{shown}, and the installed torch can't use it"
        return Finding(Level.WARNING, "devices", text, hint)
    if "cpu" in wanted or not cuda:
        hint = "Fine for the demo model; others take minutes a picture without a GPU"
        return Finding(Level.OK, "devices", ", ".join(wanted) or "cpu", hint)
    return Finding(Level.OK, "devices", shown)


def judge_cluster(address: str, problem: str | None, *, has_ray: bool, has_token: bool) -> Finding:
    """Says whether a Ray cluster can be drawn on.

    Args:
        address: of its head; ``auto`` is this machine.
        problem: why nobody listens there; None where somebody does, or it can't be known.
        has_ray: whether Ray is installed.
        has_token: whether there is a token that the cluster may ask for.
    """
    if not has_ray:
        hint = "Run: pip install -c constraints.txt -e '.[ray]'"
        return Finding(Level.BROKEN, "cluster", "EXECUTOR=ray, and Ray is not installed", hint)
    if problem is not None:
        hint = "Start the head: ray start --head; docs/cluster.md has all the steps"
        return Finding(Level.BROKEN, "cluster", f"the head at {address}: {problem}", hint)
    if not has_token:
        text = f"Ray, head at {address}, without RAY_AUTH_TOKEN"
        hint = "Who reaches its ports can run programs on all of its machines: docs/cluster.md"
        return Finding(Level.WARNING, "cluster", text, hint)
    return Finding(Level.OK, "cluster", f"Ray, head at {address}")


def judge_memory(available: int, total: int) -> Finding:
    """Says whether there is memory for a worker process: torch alone takes half a gigabyte."""
    text = f"{_size(available)} of {_size(total)} available"
    if available < _GIB:
        return Finding(Level.WARNING, "memory", text, "End other programs, or add memory")
    return Finding(Level.OK, "memory", text)


def judge_disk(free: int) -> Finding:
    """Says whether there is room for pictures."""
    text = f"{_size(free)} free"
    hint = "Delete what is not needed, or set DREAMLAB_DATA to a folder with more room"
    if free < _DISK_OUT:
        return Finding(Level.BROKEN, "disk", text, hint)
    if free < _DISK_LOW:
        return Finding(Level.WARNING, "disk", text, hint)
    return Finding(Level.OK, "disk", text)


def judge_pictures(count: int, lost: int) -> Finding:
    """Says whether every picture that is known has its file."""
    if lost:
        hint = "Somebody deleted them, or the disk is failing; `python bot.py restore` brings back"
        text = f"{lost} of {count} have no file"
        return Finding(Level.WARNING, "pictures", text, f"{hint} what a backup has")
    return Finding(Level.OK, "pictures", f"{count}, each with its file")


def judge_port(host: str, port: int, problem: str | None, *, running: bool) -> Finding:
    """Says whether the page can be served.

    Args:
        host: where it listens.
        port: likewise; 0 is any.
        problem: why it can't listen there; None where it can.
        running: whether a Dream Lab runs on the data folder now.
    """
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    if port == 0:
        return Finding(Level.OK, "page", f"a free port of {host}")
    if problem is None:
        return Finding(Level.OK, "page", f"{address} is free")
    if running:
        return Finding(Level.OK, "page", f"{address}, taken: a Dream Lab is running")
    hint = "End the program that has it, or set WEB_PORT to another port (0 picks a free one)"
    return Finding(Level.BROKEN, "page", f"{address}: {problem}", hint)


def judge_visitors(settings: Settings) -> Finding:
    """Says who can open the page, and whether their tokens can be read on the way."""
    if settings.is_for_all:
        text = f"others reach it at {settings.web_host} with tokens, unencrypted"
        hint = "On a network that you don't trust put a proxy with HTTPS before it: SECURITY.md"
        return Finding(Level.WARNING, "visitors", text, hint)
    if settings.web_token:
        return Finding(
            Level.OK,
            "visitors",
            "whoever has a token and is on this machine, or comes through its proxy",
        )
    return Finding(Level.OK, "visitors", "whoever sits at this machine, without a token")


# Looking


def examine(env_file: Path | None = None) -> Iterator[Finding]:
    """Yields every finding as it is made."""
    yield Finding(Level.OK, "python", platform.python_version())
    yield _packages()
    try:
        settings = Settings.load(env_file)
    except SettingsError as error:
        for problem in error.problems:
            yield Finding(Level.BROKEN, "settings", problem, "Mend it in .env or the environment")
        return
    token = settings.discord_token
    yield judge_token(token.get_secret_value() if token else None)
    yield from _modes(settings)
    yield _cluster(settings) if settings.executor == "ray" else _devices(settings)
    memory = psutil.virtual_memory()
    yield judge_memory(memory.available, memory.total)
    yield from _data(settings.data)
    running = is_running(settings.data)
    host, port = settings.web_host, settings.web_port
    yield judge_port(host, port, _unable_to_listen(host, port), running=running)
    yield judge_visitors(settings)


def is_running(data: Path) -> bool:
    """Says whether a Dream Lab runs on a data folder now."""
    path = data / "dreamlab.lock"
    try:
        if not path.exists():
            return False
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:
        return False


def _packages() -> Finding:
    try:
        needed = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return Finding(Level.WARNING, "packages", "Dream Lab itself is not installed", INSTALL)
    installed: dict[str, str] = {}
    for requirement in map(Requirement, needed):
        try:
            installed[requirement.name] = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            continue
    return judge_packages(needed, installed)


def _modes(settings: Settings) -> Iterator[Finding]:
    try:
        catalog = ModeCatalog(settings.modes_file, settings.model_root, settings.model)
    except ModesFileError as error:
        for problem in error.problems:
            yield Finding(Level.BROKEN, "modes file", str(problem))
        return
    if settings.modes_file.exists():
        count = len(catalog.modes)
        text = f"{settings.modes_file}: {count} mode{'s' * (count != 1)}"
        yield Finding(Level.OK, "modes file", f"{text}, default {catalog.default_mode}")
    else:
        hint = "Name the model in a modes file; modes/modes.yaml shows how"
        yield Finding(Level.WARNING, "modes file", str(catalog.warnings[0]), hint)
    for mode in catalog.modes.values():
        yield from _model(mode)


def _model(mode: ModeConfig) -> Iterator[Finding]:
    try:
        model = detect(mode.model.path)
    except ModelError as error:
        yield judge_model(mode, error)
        return
    yield judge_model(mode, model)
    for lora in mode.model.loras:
        try:
            finding = judge_lora(mode, model, detect_lora(lora.path))
        except ModelError as error:
            finding = judge_lora(mode, model, error)
        if finding:
            yield finding


def _devices(settings: Settings) -> Finding:
    return judge_devices(
        settings.devices,
        devices.cuda_devices(),
        _gpus(),
        torch_has_cuda=devices.torch_has_cuda(),
    )


def _cluster(settings: Settings) -> Finding:
    return judge_cluster(
        settings.ray_address,
        _unanswered(settings.ray_address),
        has_ray=importlib.util.find_spec("ray") is not None,
        has_token=any(os.environ.get(name) for name in _RAY_TOKENS) or _RAY_TOKEN_FILE.exists(),
    )


def _unanswered(address: str) -> str | None:
    """Returns why nobody answers at an address; None where somebody does, or it is ``auto``."""
    if address == "auto":
        return None
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _HEAD_SECONDS):
            return None
    except OSError as error:
        return error.strerror or str(error)


def _gpus() -> list[Gpu]:
    """Asks the driver's own tool; what it says is shown, never decided on."""
    try:
        asked = subprocess.run(  # noqa: S603 - fixed words
            _SMI, capture_output=True, timeout=_SMI_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return parse_gpus(asked.stdout.decode(errors="replace"))


def parse_gpus(csv: str) -> list[Gpu]:
    """Reads what nvidia-smi says: index, name, total and free MiB; other lines are left out."""
    gpus: list[Gpu] = []
    for line in csv.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) == 4 and all(cells[i].isdecimal() for i in (0, 2, 3)):
            gpus.append(Gpu(int(cells[0]), cells[1], int(cells[2]) << 20, int(cells[3]) << 20))
    return gpus


def _data(folder: Path) -> Iterator[Finding]:
    hint = "Set DREAMLAB_DATA to a folder that you may write to"
    place = folder.absolute()
    try:
        while not place.exists():
            place = place.parent
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        yield Finding(Level.BROKEN, "data folder", f"{folder}: {reason} ({place})", hint)
        return
    made = "" if folder.exists() else ", made at the first start"
    yield Finding(Level.OK, "data folder", f"{folder}, writable{made}")
    database_found = _database(folder / "dreamlab.db")
    yield database_found
    if database_found.level is Level.OK and (folder / "dreamlab.db").exists():
        yield judge_pictures(*lost_pictures(folder / "dreamlab.db", folder / "images"))
    yield judge_disk(shutil.disk_usage(place).free)


def _database(path: Path) -> Finding:
    if not path.exists():
        return Finding(Level.OK, "database", "made at the first start")
    if problem := database.problem(path):
        hint = "Put a backup in its place, or move it away to begin anew"
        return Finding(Level.BROKEN, "database", f"{path}: {problem}", hint)
    if reason := database.write_problem(path):
        hint = "New requests are refused until this is mended; none of the old is lost"
        return Finding(Level.BROKEN, "database", f"{path}: {reason}", hint)
    return Finding(Level.OK, "database", f"{path}, sound")


def _unable_to_listen(host: str, port: int) -> str | None:
    """Returns why nobody can listen there; None where one can."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            if os.name == "posix":
                # As the server does: a port that was just given up is free.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        return error.strerror or str(error)
    return None


def _size(count: int) -> str:
    """Returns bytes in words."""
    return f"{count / _GIB:.1f} GB" if count >= _GIB / 10 else f"{count / 2**20:.1f} MB"
