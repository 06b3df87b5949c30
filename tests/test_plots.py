"""Plots: what they say in words, the process that draws them, and what becomes of its failures."""

import asyncio
import io
import sys
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise
from typing import get_args

import pytest
from PIL import Image

from bot.history import Course, Hours, Memory, Sample, course
from bot.plots import FRESH, ON_DISCORD, Name, PlotError, Plotter, plots
from bot.records import Ended
from bot.speech import speaking

NOW = 1_800_000_000.0
HOSTILE = "cuda:0\"><script>alert('&')</script>"


def busy(hours: int = 1) -> Course:
    samples = [
        Sample(NOW - ago, ago // 60 % 7, 2, {"cuda:0": Memory(6 + ago % 9, 24)})
        for ago in range(0, hours * 3600, 60)
    ]
    ended = [Ended(slot, 3, 4, slot % 2, 5.0, 30.0, 0.25) for slot in range(0, 60, 2)]
    return course(hours, NOW, samples, ended)


SVG = "{http://www.w3.org/2000/svg}"
PYTHON = (sys.executable, "-c")
ECHO = "import sys, json; json.load(sys.stdin); print(json.dumps({'all': 'QUJD'}))"


class Told:
    """A history that says what the test says, and counts who asks."""

    def __init__(self, told: Course) -> None:
        self.told = told
        self.asked = 0

    async def course(self, hours: Hours) -> Course:
        self.asked += 1
        return self.told


@asynccontextmanager
async def plotter(
    told: Course, program: str | None = None, **more: object
) -> AsyncIterator[Plotter]:
    command = {"command": (sys.executable, "-c", program)} if program else {}
    drawing = Plotter(Told(told), **command, **more)  # type: ignore[arg-type] # a history's likeness
    try:
        yield drawing
    finally:
        await drawing.close()


# In words ---------------------------------------------------------------------------------------


def test_every_name_has_a_plot_and_those_on_discord_are_among_them() -> None:
    assert [plot.name for plot in plots(busy())] == [
        *dict.fromkeys(plot.name for plot in plots(busy()))
    ]
    assert {plot.name for plot in plots(busy())} == set(get_args(Name))
    assert set(ON_DISCORD) <= set(get_args(Name))


async def test_plots_are_described_in_the_readers_language_and_drawn_in_one() -> None:
    titles = (
        "import sys, json, base64; told = json.load(sys.stdin)['plots'][0]['title'].encode(); "
        "print(json.dumps({'all': base64.b64encode(told).decode()}))"
    )
    async with plotter(busy(), titles) as drawing:
        with speaking("de"):
            described = (await drawing.all(1))[0].alt
            drawn = await drawing.png(1)

    assert described.startswith("Bilder pro Minute in der letzten Stunde: zuletzt ")
    assert drawn == b"Pictures per minute"


def test_plots_say_in_words_what_they_show() -> None:
    told = {plot.name: plot.alt for plot in plots(busy(hours=24))}

    assert told["waiting"] == (
        "Requests in the last 24 hours: waiting: 6 at last, 6 at most; "
        "being drawn: 2 at last, 2 at most."
    )
    assert told["memory"] == (
        "Memory in use, % in the last 24 hours: cuda:0, 24 GB: 50 at last, 50 at most."
    )
    assert told["steps"] == "Seconds per step in the last 24 hours: 0.25 at last, 0.25 at most."


def test_plots_of_nothing_say_so() -> None:
    told = {plot.name: plot.alt for plot in plots(course(1, NOW, (), ()))}

    assert told["memory"] == "Memory in use, % in the last hour: nothing is known yet."
    assert "longest: nothing is known yet" in told["wait"]


# Drawn ------------------------------------------------------------------------------------------


async def test_plots_are_drawn_whatever_devices_are_called() -> None:
    told = busy()
    hostile = replace(told, memory={HOSTILE: told.memory["cuda:0"]}, totals={HOSTILE: 24.0})
    async with plotter(hostile) as drawing:
        drawn = await asyncio.gather(*(drawing.svg(name, 1, "light") for name in get_args(Name)))

    for name, content in zip(get_args(Name), drawn, strict=True):
        root = ET.fromstring(content)  # noqa: S314 # our own
        assert root.tag == f"{SVG}svg"
        assert root.get("role") == "img"
        assert root.get("aria-label") == {plot.name: plot.alt for plot in plots(hostile)}[name]
        assert not root.findall(f".//{SVG}script")
        assert not root.findall(f".//{SVG}style")
        assert b"style=" not in content, "the page's policy takes none"
        assert len(content) < 50_000


async def test_plots_are_drawn_once_for_all_who_ask_and_anew_when_they_are_old() -> None:
    moment = 0.0
    history = Told(busy())
    drawing = Plotter(history, command=(*PYTHON, ECHO), clock=lambda: moment)  # type: ignore[arg-type] # as above
    first = await asyncio.gather(*(drawing.png(1) for _ in range(3)))
    moment += FRESH - 1
    assert await drawing.png(1) == first[0]
    assert history.asked == 1
    moment += 1
    await drawing.png(1)
    assert history.asked == 2
    await drawing.png(1, "light")
    assert history.asked == 3, "another theme is another picture"


async def test_discord_gets_one_picture_in_portrait_even_of_nothing() -> None:
    async with plotter(course(24, NOW, (), ())) as drawing:
        picture = Image.open(io.BytesIO(await drawing.png(24)))

    assert picture.format == "PNG"
    assert picture.width < picture.height
    assert min(picture.size) >= 600


# What goes wrong --------------------------------------------------------------------------------


async def test_a_process_that_fails_is_an_error_that_people_can_read(
    caplog: pytest.LogCaptureFixture,
) -> None:
    program = "import sys; sys.exit('no fonts here')"
    async with plotter(busy(), program) as drawing:
        with pytest.raises(PlotError, match="log of Dream Lab says why"):
            await drawing.png(1)
        with pytest.raises(PlotError):
            await drawing.png(1)
    assert caplog.text.count("no fonts here") == 1, "it is not tried again and again"


async def test_a_process_that_hangs_is_given_up_and_killed() -> None:
    async with plotter(busy(), "import time; time.sleep(600)", timeout=0.1) as drawing:
        with pytest.raises(PlotError):
            await drawing.svg("wait", 1, "dark")


async def test_a_program_that_is_not_there_is_an_error_that_people_can_read() -> None:
    drawing = Plotter(Told(busy()), command=("/nowhere/python",))  # type: ignore[arg-type] # as above
    with pytest.raises(PlotError):
        await drawing.png(1)


async def test_one_process_draws_at_a_time() -> None:
    program = (
        "import json, sys, time; json.load(sys.stdin); t = time.time(); time.sleep(0.05);"
        "import base64 as b;"
        "say = lambda x: b.b64encode(repr(x).encode()).decode();"
        "print(json.dumps({'all': say((t, time.time()))}))"
    )
    async with plotter(busy(), program) as drawing:
        hours: tuple[Hours, ...] = (1, 6, 24)
        spans = [
            tuple(float(each) for each in content.decode().strip("()").split(","))
            for content in await asyncio.gather(*(drawing.png(each) for each in hours))
        ]
    for (_, end), (begin, _) in pairwise(sorted(spans)):
        assert end <= begin


async def test_closing_ends_what_is_being_drawn() -> None:
    drawing = Plotter(Told(busy()), command=(sys.executable, "-c", "import time; time.sleep(600)"))  # type: ignore[arg-type] # as above
    asked = asyncio.create_task(drawing.png(1))
    await asyncio.sleep(0)
    await drawing.close()
    with pytest.raises(PlotError):
        await asked
