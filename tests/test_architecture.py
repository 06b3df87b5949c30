"""Who may import whom, and what every room must not know."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = {"engine": {"engine"}, "modes": {"modes", "engine"}, "bot": {"bot", "modes", "engine"}}
HEAVY = {"torch", "diffusers", "transformers", "ray"}
WORKER_SIDE = ("engine/workers/", "engine/samplers.py", "engine/previews.py")

OWNERS = {
    "discord": (
        "bot/client.py",
        "bot/courier.py",
        "bot/attachments.py",
        "bot/views.py",
        "bot/buttons.py",
        "bot/forms.py",
        "bot/pointing.py",
        "bot/cogs/",
    ),
    "fastapi": ("bot/web/",),
    "starlette": ("bot/web/",),
    "uvicorn": ("bot/web/",),
    "prometheus_client": ("bot/web/metrics.py",),
    "matplotlib": ("bot/plot_process.py",),
    "sqlite3": ("bot/store", "bot/database.py", "bot/group_commit.py", "bot/backup.py"),
    "yaml": ("modes/yaml_reader.py",),
    "watchfiles": ("modes/file_watcher.py",),
    "ray": ("engine/ray_driver.py",),
    # model_registry, worker_host and what they call: inside functions alone, see below.
    "torch": (
        *WORKER_SIDE,
        "engine/worker_host.py",
        "engine/timekeeper.py",
        "engine/model_registry.py",
        "engine/failures.py",
        "engine/memory_watch.py",
    ),
    "diffusers": (*WORKER_SIDE, "engine/worker_host.py"),
    "transformers": (*WORKER_SIDE, "engine/worker_host.py"),
    "peft": ("engine/workers/lora.py",),
}


def sources() -> list[str]:
    return sorted(
        path.relative_to(ROOT).as_posix()
        for layer in LAYERS
        for path in (ROOT / layer).rglob("*.py")
    )


def imports(nodes: Iterator[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the layer"
            yield str(node.module).split(".")[0]


def imported(source: str) -> set[str]:
    return set(imports(ast.walk(ast.parse((ROOT / source).read_text(encoding="utf-8")))))


@pytest.mark.parametrize("source", sources())
def test_a_layer_imports_only_itself_and_what_is_below(source: str) -> None:
    layer = source.split("/")[0]

    assert imported(source) & {"bot", "modes", "engine", "tests", "training"} <= LAYERS[layer]


@pytest.mark.parametrize("source", sources())
def test_a_library_is_imported_only_by_its_owner(source: str) -> None:
    for library in imported(source) & set(OWNERS):
        assert source.startswith(OWNERS[library]), f"{source} may not import {library}"


def test_every_named_owner_exists() -> None:
    known = sources()
    for library, owners in OWNERS.items():
        assert any(source.startswith(owners) for source in known), library


def test_the_talking_process_imports_nothing_that_computes() -> None:
    computing = {*HEAVY, "numpy"}
    program = f"""
import importlib, sys
for module in ("bot.app", "bot.client", "bot.web.app", "bot.cli"):
    importlib.import_module(module)
    print(module, *sorted({computing!r} & set(sys.modules)))
"""

    loaded = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert loaded.stdout.split() == ["bot.app", "bot.client", "bot.web.app", "bot.cli"]


def test_without_ray_all_that_speaks_with_it_can_be_imported_but_its_driver() -> None:
    program = (
        "import sys; sys.modules['ray'] = None\n"
        "import bot.app, bot.cli, bot.check, engine.ray_executor, engine.ray_worker\n"
        "import engine.ray_driver\n"  # imports it once it connects
        "print('fine')"
    )

    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert ran.stdout.strip() == "fine"
