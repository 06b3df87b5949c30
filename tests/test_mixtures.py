"""Whoever shares the batch, and whoever joins, leaves or is cancelled: a picture is what it is."""

import io
import logging
from collections.abc import Iterator
from dataclasses import replace
from random import Random

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from engine.errors import JobCancelledError
from engine.jobs import GenerationRequest, GenerationResult, ModelSpec, Sampler
from engine.messages import Cancel, JobEvent, JobFailed, Reply, Run
from engine.model_registry import ModelRegistry
from engine.worker_host import WorkerHost
from tests.tiny_models import save_pipeline
from tests.worker_kit import ask

log = logging.getLogger(__name__)

MIXTURES = 200
LEAST = 50.0
"""Decibels of a picture's levels, 0 to 255, against those that are drawn alone."""


class Easel:
    """A host, what it is asked, and what it says."""

    def __init__(self, model: ModelSpec) -> None:
        self.said: list[Reply] = []
        self.host = WorkerHost("cpu", self.said.append, registry=ModelRegistry("cpu"))
        self._model = model
        self._numbers = iter(range(1, 100_000))

    def requests(self, count: int, random: Random) -> list[GenerationRequest]:
        """Returns requests of all kinds that a batch may hold."""
        return [
            ask(
                model=self._model,
                prompt=random.choice(["a hill", "a house", ""]),
                negative_prompt=random.choice(["", "night"]),
                width=16,
                height=16,
                steps=random.randint(2, 4),
                guidance_scale=random.choice([1.0, 3.5, 8.0]),
                sampler=list(Sampler)[number % len(Sampler)],
                seed=random.randrange(2**32),
                count=random.choice([1, 1, 2]),
            )
            for number in range(count)
        ]

    def submit(self, request: GenerationRequest) -> int:
        number = next(self._numbers)
        self.host.handle(Run(number, f"job {number}", request))
        return number

    def results(self) -> dict[int, list[bytes]]:
        """Returns the files of what was drawn since it was asked last."""
        failed = [reply.error for reply in self.said if isinstance(reply, JobFailed)]
        assert all(isinstance(error, JobCancelledError) for error in failed), failed
        found = {
            reply.run_id: [image.png for image in reply.event.images]
            for reply in self.said
            if isinstance(reply, JobEvent) and isinstance(reply.event, GenerationResult)
        }
        self.said.clear()
        return found

    def alone(self, request: GenerationRequest) -> list[bytes]:
        number = self.submit(request)
        while self.host.busy:
            self.host.tick()
        return self.results()[number]


@pytest.fixture(scope="module")
def easel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Easel]:
    easel = Easel(ModelSpec(save_pipeline(tmp_path_factory.mktemp("mixtures") / "model")))
    yield easel
    easel.host.close()


def levels(png: bytes) -> npt.NDArray[np.float64]:
    with Image.open(io.BytesIO(png)) as picture:
        return np.asarray(picture, dtype=np.float64)


def decibels(png: bytes, other: bytes) -> float:
    """Returns the peak signal-to-noise ratio; endless where nothing differs."""
    error = float(np.mean((levels(png) - levels(other)) ** 2))
    return 10 * np.log10(255**2 / error) if error else float("inf")


def test_the_same_seed_alone_is_the_same_file_each_time(easel: Easel) -> None:
    for request in easel.requests(len(Sampler), Random(1)):  # noqa: S311 - a choice, no secret
        single = replace(request, count=1)  # two may share passes, or not: what it takes decides
        assert easel.alone(single) == easel.alone(single)


@pytest.mark.slow
def test_no_company_changes_a_picture(easel: Easel) -> None:
    random = Random(2)  # noqa: S311 - likewise
    requests = easel.requests(3 * len(Sampler), random)
    expected = [easel.alone(request) for request in requests]
    worst, drawn, cancelled = float("inf"), 0, 0

    for _ in range(MIXTURES):
        waiting = random.sample(range(len(requests)), random.randint(2, 4))
        under_way: dict[int, int] = {}
        while waiting or easel.host.busy:
            for _ in range(random.randint(0, 2)):
                if waiting:
                    which = waiting.pop()
                    under_way[easel.submit(requests[which])] = which
            if under_way and random.random() < 0.05:
                number = random.choice(list(under_way))
                easel.host.handle(Cancel(number))
                del under_way[number]
                cancelled += 1
            easel.host.tick()
            for number, files in easel.results().items():
                which = under_way.pop(number)
                drawn += 1
                for file, reference in zip(files, expected[which], strict=True):
                    worst = min(worst, decibels(file, reference))
        assert not under_way

    log.info("%d pictures, %d cancelled: %.1f dB at worst", drawn, cancelled, worst)
    assert worst >= LEAST
    assert drawn > 2 * MIXTURES
    assert cancelled > MIXTURES / 10
