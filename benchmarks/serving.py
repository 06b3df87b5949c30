"""Compares how requests are served: the stock pipeline, batching by request, our step loop.

    python -m benchmarks.serving                  on this machine's processor, small pictures
    python -m benchmarks.serving --profile gpu    random weights in the shapes of SD1.5 and SDXL

All servers draw the same requests with the same model and end with PNG files; ours makes its
previews as well. Every round lets each server serve each workload, picture by picture in turn where
that can be, so that whatever else the machine does meets all alike: what counts are the ratios,
round by round.

The servers: *stock* is diffusers' pipeline behind a lock; *window* the same, where requests that
come within 50 ms and agree in all settings share a call; *ours, one by one* is our step loop
without shared forward passes; *ours* is what ships. *Bare* is the UNet alone, called in a loop.
How near that comes to what the device could do is measured beside it (`benchmarks.floors`).
"""

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch  # noqa: TID253 - run by itself, no front end imports it

from benchmarks.claims import claims
from benchmarks.floors import copy_rate, multiplication_rate, pass_operations
from benchmarks.machine import RESULTS, headline, machine, write_results
from benchmarks.plots import draw
from benchmarks.random_models import look_alike, random_model
from benchmarks.servers import (
    IN_FLIGHT,
    BarePass,
    OurServer,
    QueuedServer,
    RoomFor,
    Server,
    StockServer,
    WindowServer,
    drive,
    drive_all,
)
from benchmarks.workloads import (
    Arrivals,
    Asked,
    ClosedLoop,
    RequestOf,
    figures,
    flood,
    one_after_another,
    poisson,
    zipf,
)
from engine.executor import LoadReport
from engine.jobs import Family, GenerationRequest, ModelSpec, Sampler
from engine.pace import MOST_ROWS
from engine.worker_host import prepare_device
from engine.workers.host_cache import HostCache

DEMO = Path(__file__).parent.parent / "models" / "diffusers" / "dream-demo"
LOADS = {0.5: 0.12, 0.95: 0.24, 1.5: 1.0}
"""How fast people come, as a share of what the stock pipeline can serve, and the share of
`Profile.arrivals` that come so: the fewer come, the less there is to see."""

Figure = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Profile:
    """What is measured with one model.

    Attributes:
        family: whose shapes a model with random weights gets; None draws with the demo model.
        size: width and height of the pictures in pixels.
        users: crowds of the closed loop.
        steps: of each picture.
        each: pictures that each user of a closed loop asks for.
        arrivals: requests of the open loop in which most come; 0 leaves all of them out. The more
            there are, the longer is the line that grows where more come than are served.
        flood: requests of the member who floods; 0 leaves that out.
        modes: requests of the run with eight models; 0 leaves that out.
        returns: how often a model comes back from the host's memory.
        rounds: how often all of it is done, but for what takes long or is compared with nobody:
            the flood, the eight models, and the returns from the host's memory.
    """

    family: Family | None
    size: int
    users: tuple[int, ...] = (1, 2, 4, 8)
    steps: int = 12
    each: int = 3
    arrivals: int = 100
    flood: int = 200
    modes: int = 32
    returns: int = 5
    rounds: int = 3


PROFILES: Mapping[str, tuple[Profile, ...]] = {
    # Latents of 8 x 8, where calling the UNet costs more than what it computes, and of 32 x 32.
    "tiny": (
        Profile(None, 64),
        Profile(None, 256, users=(1, 8), each=2, arrivals=0, flood=0, modes=0, rounds=2),
    ),
    "gpu": (
        Profile(
            Family.SD15,
            512,
            users=(1, 2, 4, 8, 16),
            steps=20,
            each=2,
            arrivals=60,
            modes=0,
            rounds=1,
        ),
        Profile(
            Family.SDXL,
            1024,
            users=(1, 2, 4, 8, 16),
            steps=20,
            each=1,
            arrivals=20,
            modes=0,
            rounds=1,
        ),
    ),
    # Runs to its end in seconds; its figures say nothing.
    "smoke": (
        Profile(
            None,
            64,
            users=(1, 2),
            steps=4,
            each=1,
            arrivals=2,
            flood=3,
            modes=4,
            returns=1,
            rounds=1,
        ),
    ),
}


SECTIONS = {
    "bare": ("A step against the bare UNet", "pictures", ("bare_ms", "step_ms", "overhead")),
    "passes": ("A forward pass of the bare UNet", "rows", ("bare_ms", "row_ms", "share")),
    "users": ("Users who ask again at once", "users", ("per_second", "mean", "p50", "p95")),
    "poisson": ("Users who come by chance", "load", ("per_second", "mean", "p95", "p99")),
    "flood": (
        "A single request beside a flood",
        None,
        ("alone", "batch", "beside", "batches"),
    ),
    "modes": ("Eight models, room for three", None, ("switches", "per_second", "mean", "p95")),
    "joins": ("Steps until a newcomer's first", "others", ("steps",)),
    "switches": (
        "Back from the host's memory",
        None,
        ("disk_s", "switch_s", "copied_gb", "floor_s", "times"),
    ),
    "knee": ("Rows above which a pass gains nothing", None, ("rows",)),
}
"""Title, what it goes across, and columns of each part of the benchmark."""


class Bench:
    """One model at one size, and all that is measured with it."""

    def __init__(self, profile: Profile, model: Path, device: str) -> None:
        self._profile = profile
        self._device = device
        size = profile.size
        self._request = GenerationRequest(
            mode="benchmark",
            model=ModelSpec(model),
            prompt="a red house by the sea",
            negative_prompt="",
            width=size,
            height=size,
            steps=profile.steps,
            guidance_scale=5.0,
            sampler=Sampler.EULER,
            seed=0,
        )
        self._stock = StockServer(model, device)
        self._ours = OurServer(device)
        self._servers: tuple[Server, ...] = (
            self._stock,
            WindowServer(self._stock, most=4 if device == "cpu" else 8),
            OurServer(device, batching=False),
            self._ours,
        )
        for server in self._servers:
            drive(server, Arrivals(self._many(1)))  # loads what is loaded late

    def measure(self, sections: Sequence[str]) -> Iterator[Figure]:
        """Yields every figure of every round.

        Args:
            sections: names out of `SECTIONS`.
        """
        measures = {
            "bare": self._bare,
            "users": self._users,
            "poisson": self._poisson,
            "flood": self._flood,
            "modes": self._modes,
            "joins": self._joins,
            "passes": self._passes,
            "switches": self._switches,
            "knee": self._knee,
        }
        for number, section in itertools.product(range(self._profile.rounds), sections):
            for figure in measures[section](number):
                yield {"size": self._profile.size, "round": number, **figure}

    # What is asked for

    def _alike(self, number: int) -> GenerationRequest:
        # Words of its own: who reads a prompt once for all would not be compared with who doesn't.
        return replace(self._request, seed=number, prompt=f"{self._request.prompt}, {number}")

    def _mixed(self, number: int) -> GenerationRequest:
        """As members ask: every sampler, and steps that differ by a third."""
        steps = self._profile.steps
        return replace(
            self._alike(number),
            sampler=list(Sampler)[number % len(Sampler)],
            steps=max(2, steps - steps // 3 + number % (2 * (steps // 3) + 1)),
        )

    def _many(self, count: int) -> list[Asked]:
        return [
            Asked(number, f"user {number}", 0.0, self._alike(number)) for number in range(count)
        ]

    def _stock_seconds(self, count: int, request_of: RequestOf) -> list[float]:
        """Returns what stock takes for each of so many requests, drawn one after another."""
        asked = [Asked(each, f"user {each}", 0.0, request_of(each)) for each in range(count)]
        served = [0.0, *(each.at for each in drive(self._stock, Arrivals(asked)))]
        return [after - before for before, after in itertools.pairwise(served)]

    # What is measured

    def _bare(self, number: int) -> Iterator[Figure]:
        """One step of the loop against a forward pass of the UNet, of as many rows, in turn."""
        for pictures in (1, 4):
            bare = BarePass(self._stock, self._request, 2 * pictures)
            bare.seconds(1)
            for asked in self._many(pictures):
                self._ours.submit(asked)
            self._ours.turn()  # begins them, which is no step's work
            passes, steps = [], []
            for _ in range(self._profile.steps - 2):
                passes.append(bare.seconds(1))
                steps.append(_seconds(self._ours.turn))
            while self._ours.busy:
                self._ours.turn()
            alone, step = statistics.median(passes), statistics.median(steps)
            yield {
                "section": "bare",
                "server": "ours",
                "pictures": pictures,
                "bare_ms": alone * 1000,
                "step_ms": step * 1000,
                "overhead": step / alone - 1,
            }

    def _users(self, number: int) -> Iterator[Figure]:
        """Users who ask again as soon as they have a picture; all with the same settings.

        All servers serve them at once, picture by picture in turn: what a shared machine gives to
        one of them and not to the next would be more than what they differ by.
        """
        for users in self._profile.users:
            each = self._profile.each * (1 if users > 1 else 2)
            servers = self._in_turn(number)
            found = drive_all(servers, partial(ClosedLoop, users, each, self._alike))
            for server, served in zip(servers, found, strict=True):
                yield {
                    "section": "users",
                    "server": server.name,
                    "users": users,
                    **figures(served),
                }

    def _poisson(self, number: int) -> Iterator[Figure]:
        """Users who know nothing of each other, with settings of their own.

        Who draws one picture after another takes as long for each whenever it is asked for. So
        stock draws all of them first, which says how fast people have to come for a load of so
        much, and when each would have had its picture; a shared machine is not as fast a minute
        later, and a load that is meant to be 1.5 would be another.
        """
        if not self._profile.arrivals:
            return
        for load, share in LOADS.items():
            count = max(1, round(self._profile.arrivals * share))
            took = self._stock_seconds(count, self._mixed)
            asked = poisson(load / statistics.mean(took), count, self._mixed, seed=number)
            served = {self._stock.name: one_after_another(asked, took)}
            for server in reversed(self._servers[1:]):  # ours first, before much has changed
                served[server.name] = drive(server, Arrivals(asked))
            for server in self._servers:
                yield {
                    "section": "poisson",
                    "server": server.name,
                    "load": load,
                    **figures(served[server.name]),
                }

    def _flood(self, number: int) -> Iterator[Figure]:
        """One who asks for very much, and another's single request, as it comes a moment later."""
        count = self._profile.flood
        if number or not count:
            return
        took = self._stock_seconds(8, self._alike)
        asked = flood(count, sum(took[:2]), self._alike)
        ours = QueuedServer(self._ours)
        alone = drive(ours, Arrivals(self._many(1)))[-1].latency
        together = drive(ours, Arrivals(self._many(IN_FLIGHT)))[-1].latency
        served = drive(ours, Arrivals(asked), until=count)[-1]
        while ours.busy:  # what was under way leaves
            ours.turn()
        one = statistics.median(took)
        queued = one_after_another(asked, [one] * len(asked))[-1]
        for name, single, batch, beside in (
            (self._stock.name, one, one, queued.latency),
            (ours.name, alone, together, served.latency),
        ):
            yield {
                "section": "flood",
                "server": name,
                "alone": single,
                "batch": batch,
                "beside": beside,
                "batches": (beside - single) / batch,
            }

    def _modes(self, number: int) -> Iterator[Figure]:
        """Eight models of which three fit, some far more popular than others."""
        if number or not self._profile.modes:
            return
        with tempfile.TemporaryDirectory() as folder:
            models = [
                ModelSpec(look_alike(self._request.model.path, Path(folder) / f"mode-{mode}", mode))
                for mode in range(8)
            ]
            request_of = zipf(models, 1.4, self._alike, seed=number)
            asked = [
                Asked(each, f"user {each % 16}", 0.0, request_of(each))
                for each in range(self._profile.modes)
            ]
            for name, fair, kept in (
                ("first come, first served", False, 0),
                ("loaded first, within fair turns", True, 0),
                ("the same, from the host's memory", True, 2**31),
            ):
                cache = HostCache(self._device, kept, block=8 * 2**20)
                registry = RoomFor(self._device, 3)
                ours = OurServer(self._device, registry=registry, cache=cache)
                server = QueuedServer(ours, fair=fair, loaded_first=fair, name=name)
                served = drive(server, Arrivals(asked))
                ours.host.close()
                yield {
                    "section": "modes",
                    "server": server.name,
                    "switches": ours.loads,
                    **figures(served),
                }

    def _joins(self, number: int) -> Iterator[Figure]:
        """Steps that go by between a request's coming and its own first step."""
        # A clock on which each report is due: every step is told of.
        ours = OurServer(self._device, clock=itertools.count().__next__)
        drive(ours, Arrivals(self._many(1)))
        for others in (1, 3):
            for asked in self._many(others):
                ours.submit(asked)
            ours.turn()
            ours.submit(Asked(99, "late", 0.0, self._alike(99)))
            turns = 0
            while ours.progress.get(99) is None or not ours.progress[99].step:
                ours.turn()
                turns += 1
            while ours.busy:
                ours.turn()
            ours.progress.clear()
            yield {"section": "joins", "server": "ours", "others": others, "steps": turns}
        ours.host.close()

    def _passes(self, number: int) -> Iterator[Figure]:
        """The bare UNet, and the share it has of what the device multiplies at best."""
        operations = pass_operations(self._stock, self._request) / 2  # with guidance
        rate = multiplication_rate(self._device)
        for rows in (2, 4, 8, 16):
            if rows > MOST_ROWS[self._device.partition(":")[0]]:
                continue
            bare = BarePass(self._stock, self._request, rows).seconds(self._profile.steps)
            yield {
                "section": "passes",
                "server": "bare",
                "rows": rows,
                "bare_ms": bare * 1000,
                "row_ms": bare * 1000 / rows,
                "share": operations * rows / bare / rate,
                "operations_per_second": rate,
            }

    def _switches(self, number: int) -> Iterator[Figure]:
        """A model that has to leave the device for another one, and comes back."""
        if number:
            return
        with tempfile.TemporaryDirectory() as folder:
            other = ModelSpec(random_model(Family.SD15, Path(folder) / "other", "cpu", tiny=True))
            ours = OurServer(
                self._device,
                registry=RoomFor(self._device, 1),
                cache=HostCache(self._device, 2**35, available=lambda: 2**40),
            )
            disk = ours.load(self._request.model)
            reports: list[LoadReport] = []
            for _ in range(self._profile.returns):
                ours.load(other)
                reports.append(ours.load(self._request.model))
            ours.host.close()
        copied = statistics.median(report.copied for report in reports)
        switch = statistics.median(report.seconds for report in reports)
        floor = copied / copy_rate(self._device)
        yield {
            "section": "switches",
            "server": "ours",
            "device": self._device,
            "disk_s": disk.seconds,
            "switch_s": switch,
            "copied_gb": copied / 1e9,
            "floor_s": floor,
            "times": switch / floor,
        }

    def _knee(self, number: int) -> Iterator[Figure]:
        """What the step loop has found out for itself while it served all of the above."""
        pixels = self._request.width * self._request.height
        most = MOST_ROWS[self._device.partition(":")[0]]
        rows = self._ours.pace.most_rows(self._request.model.key, pixels, most)
        yield {"section": "knee", "server": "ours", "rows": rows}

    def _in_turn(self, number: int) -> Sequence[Server]:
        at = number % len(self._servers)
        return (*self._servers[at:], *self._servers[:at])


def _seconds(call: Callable[[], object]) -> float:
    """Returns how long a call takes, the device's own work included."""
    began = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


_UNITS = {
    "per_second": "pictures/s",
    "mean": "mean s",
    "p50": "p50 s",
    "p95": "p95 s",
    "p99": "p99 s",
    "bare_ms": "bare ms",
    "step_ms": "step ms",
    "alone": "alone s",
    "batch": "a batch s",
    "beside": "beside s",
    "batches": "batches more",
    "row_ms": "ms a row",
    "share": "of the peak",
    "disk_s": "from disk s",
    "switch_s": "switch s",
    "copied_gb": "copied GB",
    "floor_s": "copy alone s",
}


def table(all_figures: Sequence[Figure]) -> Iterator[str]:
    """Yields lines for a terminal: medians over the rounds, and beside them ratios to stock."""
    for size in dict.fromkeys(each["size"] for each in all_figures):
        for section, (title, across, columns) in SECTIONS.items():
            rows: dict[tuple[Any, str], list[Figure]] = {}
            for each in all_figures:
                if (each["section"], each["size"]) == (section, size):
                    rows.setdefault((each.get(across), each["server"]), []).append(each)
            if not rows:
                continue
            yield f"\n{title}, {size} x {size} pixels"
            heads = "".join(f"{_UNITS.get(column, column):>14}" for column in columns)
            versus = f"{'/s : stock':>14}{'mean : stock':>14}" if "per_second" in columns else ""
            yield f"{'' if across is None else across:>10}  {'':32}{heads}{versus}"
            for (value, server), rounds in rows.items():
                cells = "".join(
                    f"{statistics.median(each[column] for each in rounds):>14.3f}"
                    for column in columns
                )
                stock = rows.get((value, "stock"))
                if versus and stock:
                    cells += "".join(
                        f"{_ratio(rounds, stock, column):>14.2f}"
                        for column in ("per_second", "mean")
                    )
                yield f"{'' if value is None else value:>10}  {server:32}{cells}"


def _ratio(rounds: Sequence[Figure], stock: Sequence[Figure], column: str) -> float:
    pairs = zip(rounds, stock, strict=True)
    return statistics.median(ours[column] / theirs[column] for ours, theirs in pairs)


def run(
    profiles: Sequence[Profile],
    device: str,
    folder: Path,
    model: Path,
    *,
    tiny: bool = False,
    sections: Sequence[str] = tuple(SECTIONS),
) -> list[Figure]:
    """Returns all figures of some profiles.

    Args:
        profiles: what is measured.
        device: where.
        folder: for the models that are made.
        model: draws where a profile names no family.
        tiny: whether models are made with few and narrow layers.
        sections: which part of it; all.
    """
    prepare_device(device, may_fall_back=False)  # and no progress bars
    all_figures = []
    for profile in profiles:
        path, family = model, profile.family
        if family is not None:
            path = random_model(family, folder / family.value, device, tiny=tiny)
        name = family.value if family else path.name
        measured = Bench(profile, path, device).measure(sections)
        all_figures += [{"model": name, **figure} for figure in measured]
    return all_figures


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line, measures, prints the table, writes figures and charts."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--profile", choices=PROFILES, default="tiny")
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--model", type=Path, default=DEMO, help="a diffusers folder")
    parser.add_argument("--rounds", type=int, help="how often all is done")
    parser.add_argument("--tiny-shapes", action="store_true", help="few, narrow layers; no figures")
    parser.add_argument("--folder", type=Path, help="keeps the models that are made")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--charts", type=Path, default=RESULTS, help="the folder for PNG files")
    parser.add_argument("--no-charts", action="store_true")
    options = parser.parse_args(arguments)
    profiles = PROFILES[options.profile]
    if options.rounds:
        profiles = tuple(replace(profile, rounds=options.rounds) for profile in profiles)
    if options.profile == "gpu" and options.tiny_shapes:
        [smoke] = PROFILES["smoke"]
        profiles = tuple(replace(smoke, family=each.family, modes=0) for each in profiles)
    facts = machine()
    if options.device == "cpu":
        torch.set_num_threads(1)  # as many threads as rows would hide what batching gains
        facts["threads"] = 1
    else:
        facts["gpu"] = torch.cuda.get_device_name(options.device)
    print(headline(facts), flush=True)
    with tempfile.TemporaryDirectory() as made:
        folder = options.folder or Path(made)
        tiny = options.tiny_shapes
        sections = options.sections
        all_figures = run(
            profiles, options.device, folder, options.model, tiny=tiny, sections=sections
        )
    print(*table(all_figures), sep="\n")
    if held := list(claims(all_figures)):
        print("\nWhat is claimed", *held, sep="\n")
    name = f"serving-{options.profile}"
    print(f"\n{write_results(name, facts, all_figures)}")
    if not options.no_charts:
        print(*draw(all_figures, options.charts, name), sep="\n")


if __name__ == "__main__":
    main()
