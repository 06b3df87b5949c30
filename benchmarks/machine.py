"""What figures were measured on: every table and every result file begins with it."""

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
_PACKAGES = ("torch", "diffusers", "transformers", "numpy")


def machine() -> dict[str, Any]:
    """Returns the processor, the cores this process may use, the load, versions and the commit.

    Nothing in it names the machine or who runs it.
    """
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": _processor(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "commit": _commit(),
    }


def headline(facts: dict[str, Any]) -> str:
    """Returns the machine in two lines for a terminal."""
    packages = ", ".join(f"{name} {number}" for name, number in facts["packages"].items())
    gpu = f", {facts['gpu']}" if facts.get("gpu") else ""
    return (
        f"{facts['cpu']}, {facts['cores']} cores{gpu}, load {facts['load']}, {facts['system']}\n"
        f"Python {facts['python']}, {packages}, commit {facts['commit']}, {facts['date']}"
    )


def write_results(name: str, facts: dict[str, Any], figures: Any) -> Path:
    """Writes figures as ``benchmarks/results/<name>.json`` and returns the path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    text = json.dumps({"machine": facts, "figures": figures}, indent=1, default=str)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


def _commit() -> str:
    try:
        said = subprocess.run(
            ["git", "describe", "--always", "--dirty"],  # noqa: S607 - whichever git is installed
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return said.stdout.strip()
