import subprocess
import sys
from pathlib import Path

import pytest

from engine.devices import (
    cuda_devices,
    find_devices,
    may_fall_back,
    parse_devices,
    torch_has_cuda,
)

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("setting", "devices"),
    [
        ("auto", ()),
        ("cpu", ("cpu",)),
        (" CPU ", ("cpu",)),
        ("cuda", ("cuda:0",)),
        ("cuda:1", ("cuda:1",)),
        ("cuda:0, cuda:1", ("cuda:0", "cuda:1")),
        ("cuda:0,cpu", ("cuda:0", "cpu")),
    ],
)
def test_devices_that_are_named_are_taken_at_their_word(
    setting: str, devices: tuple[str, ...]
) -> None:
    assert parse_devices(setting) == devices


@pytest.mark.parametrize(
    "setting",
    [
        "",
        " ",
        ",",
        "gpu",
        "cuda:",
        "cuda:x",
        "cuda:-1",
        "cuda:01",
        "cuda:999",
        "cpu:0",
        "cpu,auto",
        "cuda:0,,cuda:1",
        "cpu,cpu",
        "cuda,cuda:0",
        "cuda:\u0661",
    ],
)
def test_anything_else_is_refused_with_the_reason(setting: str) -> None:
    with pytest.raises(ValueError, match=r"^it (has|names) "):
        parse_devices(setting)


def test_auto_is_whatever_both_the_driver_and_torch_have() -> None:
    expected = [f"cuda:{i}" for i in range(cuda_devices())] if torch_has_cuda() else []

    assert find_devices() == tuple(expected or ["cpu"])


def test_the_cpu_stands_in_for_a_device_that_was_found_alone_and_for_no_other() -> None:
    assert may_fall_back(("cuda:0",), are_named=False)
    assert not may_fall_back(("cuda:0", "cuda:1"), are_named=False)
    assert not may_fall_back(("cuda:0",), are_named=True)


def test_hidden_devices_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")

    assert cuda_devices() == 0
    assert find_devices() == ("cpu",)


def test_whether_torch_has_cuda_is_known_without_importing_it() -> None:
    program = (
        "import sys; from engine.devices import find_devices, torch_has_cuda; "
        "find_devices(); print(torch_has_cuda()); assert 'torch' not in sys.modules"
    )
    command = [sys.executable, "-c", program]
    known = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout

    import torch  # here, where other tests have it imported already

    assert known.strip() == str(torch.version.cuda is not None)
