"""The benchmarks run to their end, and what they ask for is what they say. No figure is judged."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import discord_crowd, web
from benchmarks.claims import claims
from benchmarks.decisions import measure
from benchmarks.random_models import random_model
from benchmarks.servers import drive, drive_all
from benchmarks.serving import PROFILES, SECTIONS, run, table
from benchmarks.workloads import (
    Arrivals,
    Asked,
    ClosedLoop,
    Served,
    figures,
    flood,
    one_after_another,
    poisson,
    zipf,
)
from engine.jobs import Family, GenerationRequest, ModelSpec, Sampler
from engine.model_detector import detect
from tests.discord_double import DiscordDouble
from tests.discord_kit import running_bot
from tests.tiny_models import save_pipeline
from tests.web_kit import open_page

REQUEST = GenerationRequest("m", ModelSpec(Path("m")), "p", "", 16, 16, 2, 5.0, Sampler.EULER, 1)


def ask(number: int) -> GenerationRequest:
    return replace(REQUEST, seed=number)


def test_every_decision_is_measured_at_every_crowd() -> None:
    found = list(measure([10, 200], calls=5))

    assert {each["crowd"] for each in found} == {10, 200}
    assert {"push", "pop", "position", "next batch"} <= {each["decision"] for each in found}
    assert all(each["median"] > 0 for each in found)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The configuration file of this scheduler:FutureWarning")
def test_the_serving_benchmark_runs_to_its_end(tmp_path: Path) -> None:
    model = save_pipeline(tmp_path / "tiny")
    profiles = [replace(each, size=16) for each in PROFILES["smoke"]]

    found = run(profiles, "cpu", tmp_path, model)

    assert {each["section"] for each in found} == set(SECTIONS)
    servers = {each["server"] for each in found if each["section"] == "users"}
    assert servers == {"stock", "window", "ours, one by one", "ours"}
    assert all(each["steps"] <= 2 for each in found if each["section"] == "joins")
    [switch] = [each for each in found if each["section"] == "switches"]
    assert switch["copied_gb"] > 0
    assert all(each["share"] > 0 for each in found if each["section"] == "passes")
    lines = list(table(found))
    assert all(any(title in line for line in lines) for title, _, _ in SECTIONS.values())


async def test_the_pages_benchmark_runs_to_its_end(tmp_path: Path) -> None:
    tokens = ("artist-ada-0123456789", "artist-bob-0123456789")
    async with open_page(
        tmp_path, web_token="admin-0123456789abcdef", web_artist_token=tokens
    ) as page:
        crowd = web.Crowd(page.url, tokens)
        found = await web.use(crowd, os.getpid(), streams=16, rate=20, seconds=0.5)

    assert (found.requests, found.failed) == (10, 0)
    assert found.events >= 2 * 16  # what there is, and how things stand, on each
    assert 0 < found.p50 <= found.p99 <= found.longest
    assert found.most >= found.before > 1
    assert any("p99" in line for line in found.lines())


async def test_the_benchmark_of_a_crowd_on_discord_runs_to_its_end(tmp_path: Path) -> None:
    async def lag() -> float:
        return 0.01

    async with DiscordDouble.running() as discord, running_bot(tmp_path, discord):
        found = await discord_crowd.use(discord, lag, os.getpid(), burst=40, rate=100, seconds=0.1)

    assert (found.once, found.more, found.never) == (50, 0, 0)
    assert (found.burst.sent, found.burst.late) == (40, 0)
    assert (found.steady.sent, found.steady.late) == (10, 0)
    assert 0 < found.steady.p50 <= found.steady.p99 <= found.steady.longest
    assert any("answered once 50" in line for line in found.lines())


@pytest.mark.slow
def test_a_random_model_is_of_the_family_it_was_made_for(tmp_path: Path) -> None:
    folder = random_model(Family.SD15, tmp_path / "sd15", "cpu", tiny=True)

    assert detect(folder).family is Family.SD15


def test_who_draws_one_by_one_has_those_wait_who_come_meanwhile() -> None:
    asked = [Asked(at, f"user {at}", at, ask(at)) for at in (0, 1, 9)]

    served = one_after_another(asked, [2.0, 3.0, 0.5])

    assert [each.at for each in served] == [2.0, 5.0, 9.5]
    assert [each.latency for each in served] == [2.0, 4.0, 0.5]


def test_a_closed_loop_asks_again_when_it_is_served() -> None:
    loop = ClosedLoop(users=2, each=2, request_of=ask)
    first = loop.due(0.0)
    assert [each.user for each in first] == ["user 0", "user 1"]
    assert loop.next_at() is None

    loop.served(Served(first[1], at=3.0))
    assert loop.next_at() == 3.0
    assert loop.due(2.9) == []
    again = loop.due(3.0)
    assert [(each.number, each.user, each.at) for each in again] == [(2, "user 1", 3.0)]
    loop.served(Served(again[0], at=4.0))
    assert loop.next_at() is None  # each of them asks twice


def test_arrivals_come_when_they_come() -> None:
    workload = Arrivals([Asked(0, "late", 2.0, REQUEST), Asked(1, "early", 1.0, REQUEST)])

    assert workload.next_at() == 1.0
    assert [each.user for each in workload.due(1.5)] == ["early"]
    assert [each.user for each in workload.due(9.0)] == ["late"]
    assert workload.next_at() is None


def test_poisson_arrivals_have_their_rate_and_their_seed() -> None:
    asked = poisson(4.0, 4000, ask, seed=1)

    assert asked[-1].at == pytest.approx(1000, rel=0.1)
    assert asked == poisson(4.0, 4000, ask, seed=1)
    assert asked != poisson(4.0, 4000, ask, seed=2)
    for seed in range(20):  # few of them too
        few = [each.at for each in poisson(4.0, 20, ask, seed)]
        assert few == sorted(few)
        assert 0 <= few[0] <= few[-1] <= 5


def test_the_single_request_beside_a_flood_comes_last() -> None:
    *many, single = flood(200, 0.5, ask)

    assert {each.user for each in many} == {"flood"}
    assert (len(many), single.number, single.user, single.at) == (200, 200, "single", 0.5)


def test_the_first_model_is_the_most_popular_one() -> None:
    models = [ModelSpec(Path(str(number))) for number in range(8)]
    request_of = zipf(models, 1.4, ask, seed=1)
    drawn = [request_of(number).model for number in range(500)]

    assert drawn.count(models[0]) > 2 * drawn.count(models[1]) > 0
    assert request_of(3).model == drawn[3]


def test_figures_count_from_the_first_request_to_the_last_picture() -> None:
    served = [Served(Asked(n, "u", float(n), REQUEST), at=n + 1.0) for n in range(4)]

    found = figures(served)

    assert found["seconds"] == 4.0
    assert found["per_second"] == 1.0
    assert (found["mean"], found["p50"], found["p99"]) == (1.0, 1.0, 1.0)


class Painter:
    """A server that draws so many at each turn, and notes that it did."""

    def __init__(self, name: str, together: int, turns: list[str]) -> None:
        self.name = name
        self._together = together
        self._turns = turns
        self._waiting: list[int] = []

    @property
    def busy(self) -> bool:
        return bool(self._waiting)

    def submit(self, asked: Asked) -> None:
        self._waiting.append(asked.number)

    def turn(self) -> list[int]:
        self._turns.append(self.name)
        drawn, self._waiting = self._waiting[: self._together], self._waiting[self._together :]
        return drawn

    def reset(self) -> None:
        self._waiting.clear()


def test_servers_at_work_together_draw_in_turn_and_whoever_has_drawn_least_is_next() -> None:
    turns: list[str] = []
    servers = [Painter("one", 1, turns), Painter("two", 2, turns)]

    found = drive_all(servers, lambda: ClosedLoop(users=2, each=2, request_of=ask))

    assert turns == ["one", "two", "one", "one", "two", "one"]
    for served in found:
        assert sorted(each.asked.number for each in served) == [0, 1, 2, 3]
        assert all(each.latency > 0 for each in served)


def test_time_in_which_nobody_asks_is_passed_over() -> None:
    asked = [Asked(number, "u", 1000.0 * number, REQUEST) for number in range(3)]

    served = drive(Painter("one", 1, []), Arrivals(asked))

    assert [each.at // 1000 for each in served] == [0, 1, 2]
    assert all(each.latency < 500 for each in served)


def test_what_is_claimed_of_a_gpu_is_looked_for_on_a_gpu_alone() -> None:
    def figure(section: str, server: str, **more: object) -> dict[str, object]:
        return {"section": section, "server": server, "size": 512, **more}

    found = [
        figure("users", "stock", users=8, per_second=1.0),
        figure("users", "ours", users=8, per_second=1.9),
        figure("bare", "ours", pictures=1, overhead=0.04),
        figure("switches", "ours", device="cuda:0", times=1.2),
    ]

    assert [" ".join(line[67:].split()) for line in claims(found)] == [
        ">= 2 does not hold",
        "<= 1.03 does not hold",
        "<= 1.3 holds",
    ]
    found[-1]["device"] = "cpu"
    assert len(list(claims(found))) == 2


def test_no_overhead_is_claimed_where_more_passes_are_made_than_are_compared_with() -> None:
    def figure(size: int, pictures: int) -> dict[str, object]:
        bare = {"section": "bare", "server": "ours", "overhead": 0.01}
        return {**bare, "size": size, "pictures": pictures}

    found = [figure(size, pictures) for size in (64, 256) for pictures in (1, 4)]

    told = [" ".join(line[:50].split()) for line in claims(found)]
    assert [line.removeprefix("over the bare UNet, ") for line in told] == [
        "1 pictures, 64 x 64",
        "4 pictures, 64 x 64",
        "1 pictures, 256 x 256",
    ]


def test_each_claim_stands_beside_its_figure() -> None:
    def figure(section: str, server: str, **more: float) -> dict[str, object]:
        return {"section": section, "server": server, "size": 64, **more}

    found = [
        figure("users", "stock", users=8, per_second=1.0, mean=4.0),
        figure("users", "ours", users=8, per_second=1.9, mean=2.0),
        figure("users", "stock", users=1, per_second=1.0, mean=1.0),
        figure("users", "ours", users=1, per_second=1.0, mean=1.2),
        figure("poisson", "stock", load=1.5, mean=8.0),
        figure("poisson", "ours", load=1.5, mean=1.0),
        figure("bare", "ours", pictures=1, overhead=0.04),
        figure("joins", "ours", others=1, steps=1),
        figure("joins", "ours", others=3, steps=2),
        figure("flood", "stock", batches=190.0),
        figure("flood", "ours, queued", batches=1.2),
    ]

    lines = list(claims(found))

    assert [" ".join(line[67:].split()) for line in lines] == [
        ">= 1.8 holds",
        "<= 0.25 holds",
        "<= 1.05 does not hold",
        "<= 1.05 holds",
        "<= 1.5 does not hold",
        "<= 1.5 holds",
    ]
    assert "1.900" in lines[0]
    assert list(claims([])) == []
