"""What the process that speaks with Ray asks of it; Ray is the test."""

import asyncio
import subprocess
import sys
import threading
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from engine.ray_driver import _Driver
from engine.ray_messages import Connect, Want
from engine.standard_streams import Writer

ROOT = Path(__file__).parent.parent


class Autoscaler(ModuleType):
    """Stands in for Ray's.

    Attributes:
        asked: bundles with the labels that their machines must have, one list for each call.
        hears: whether it answers.
    """

    def __init__(self) -> None:
        super().__init__("ray.autoscaler.sdk")
        self.asked: list[list[tuple[dict[str, float], dict[str, str]]]] = []
        self.hears = threading.Event()
        self.hears.set()

    def request_resources(self, **words: Any) -> None:
        self.hears.wait()
        pairs = zip(words["bundles"], words["bundle_label_selectors"], strict=True)
        self.asked.append(list(pairs))


@pytest.fixture
def autoscaler(monkeypatch: pytest.MonkeyPatch) -> Autoscaler:
    found = Autoscaler()
    for name in ("ray", "ray.autoscaler"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "ray.autoscaler.sdk", found)
    return found


def a_driver(gpus: float = 0.5, *labels: tuple[str, str]) -> _Driver:
    connect = Connect("10.0.0.2:6379", gpus, labels)
    return _Driver(connect, Writer(BytesIO()))


async def handle(driver: _Driver, *commands: object) -> None:
    for command in commands:
        driver._handle(command)
        await asyncio.gather(*driver._tasks)


@pytest.mark.parametrize(("gpus", "bundle"), [(0.5, {"GPU": 0.5}), (0, {"CPU": 1})])
async def test_machines_are_asked_for_by_what_a_worker_takes_and_by_their_labels(
    autoscaler: Autoscaler, gpus: float, bundle: dict[str, float]
) -> None:
    await handle(a_driver(gpus, ("tier", "fast"), ("zone", "b")), Want(2), Want(0))

    assert autoscaler.asked == [[(bundle, {"tier": "fast", "zone": "b"})] * 2, []]


async def test_without_labels_any_machine_will_do(autoscaler: Autoscaler) -> None:
    await handle(a_driver(), Want(1))

    assert autoscaler.asked == [[({"GPU": 0.5}, {})]]


async def test_when_the_bot_is_gone_no_machine_is_asked_for_any_more(
    autoscaler: Autoscaler,
) -> None:
    driver = a_driver()
    await handle(driver, Want(2))

    await asyncio.to_thread(driver.give_back)
    await handle(driver, Want(3))  # which was on its way

    assert len(autoscaler.asked[0]) == 2
    assert autoscaler.asked[1:] == [[], []]


async def test_who_never_asked_for_a_machine_gives_none_back(autoscaler: Autoscaler) -> None:
    a_driver().give_back()

    assert autoscaler.asked == []


async def test_a_head_that_does_not_answer_holds_up_no_end(
    autoscaler: Autoscaler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.ray_driver.GIVE_BACK_SECONDS", 0.0)
    driver = a_driver()
    await handle(driver, Want(2))
    autoscaler.hears.clear()

    driver.give_back()

    autoscaler.hears.set()


@pytest.mark.parametrize("last", ["print('given back', flush=True)", "1 / 0"])
def test_what_is_done_last_is_done_before_the_process_ends_and_keeps_it_from_nothing(
    last: str,
) -> None:
    program = f"""
import sys, threading
from engine.standard_streams import read_all

def last():
    {last}

read_all(sys.stdin.buffer, print, last)
threading.Event().wait()
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    assert done.stdout == ("given back\n" if "print" in last else "")
