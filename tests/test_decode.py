import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch  # noqa: TID253 - its out-of-memory error is the subject
from PIL import Image

from engine.errors import DrawingError
from engine.jobs import GenerationRequest, GenerationResult
from engine.messages import JobEvent, JobFailed, Reply, Run
from engine.worker_factory import WorkerFactory
from engine.worker_host import WorkerHost
from engine.workers import latent
from engine.workers.base import Drawing
from engine.workers.latent import LatentWorker
from tests.worker_kit import DEMO, ask

TILE = 64  # latents, of 8 x 8 pixels each
WIDE = {"width": 640, "height": 64, "steps": 2}


@pytest.fixture(scope="module")
def loaded() -> Iterator[LatentWorker]:
    worker = WorkerFactory("cpu").create(DEMO)
    assert isinstance(worker, LatentWorker)
    yield worker
    worker.close()


@pytest.fixture
def worker(loaded: LatentWorker) -> LatentWorker:
    """A worker with a VAE of its own, which a test may spoil."""
    worker = copy.copy(loaded)
    worker._parts = replace(loaded._parts, vae=copy.deepcopy(loaded._parts.vae))
    return worker


def drawn(worker: LatentWorker, request: GenerationRequest) -> Drawing:
    [drawing] = worker.begin(request)
    while not drawing.done:
        worker.step([drawing])
    return drawing


class Small:
    """A VAE's half that runs out of memory, as a GPU would, where its input is too wide.

    Mocked, since a CPU has no such limit: it swaps, or the system ends the process.
    """

    def __init__(self, part: Any, most: int) -> None:
        self.forward = part.forward
        self.most = most
        self.widths: list[int] = []
        part.forward = self

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        self.widths.append(tensor.shape[-1])
        if tensor.shape[-1] > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB")
        result: torch.Tensor = self.forward(tensor)
        return result


def levels(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.abs(one.astype(int) - other.astype(int))


def test_what_has_no_memory_in_one_piece_is_decoded_in_tiles(worker: LatentWorker) -> None:
    drawing = drawn(worker, ask(**WIDE))
    whole = worker.decode(drawing)
    decoder = Small(worker._parts.vae.decoder, most=TILE)

    tiled = worker.decode(drawing)

    assert decoder.widths[0] == 80
    assert max(decoder.widths[1:]) == TILE
    assert tiled.shape == whole.shape
    assert levels(tiled, whole).mean() < 4


def test_pictures_of_usual_sizes_are_decoded_in_one_piece(worker: LatentWorker) -> None:
    drawing = drawn(worker, ask(**WIDE))
    decoder = Small(worker._parts.vae.decoder, most=99)
    first = worker.decode(drawing)

    decoder.most = 70  # once out of memory, the next one is tried in one piece again
    worker.decode(drawing)
    decoder.most = 99
    decoder.widths.clear()

    assert np.array_equal(worker.decode(drawing), first)
    assert decoder.widths == [80]


def test_large_pictures_are_decoded_in_tiles_at_once(
    worker: LatentWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawing = drawn(worker, ask(**WIDE))
    decoder = Small(worker._parts.vae.decoder, most=99)
    monkeypatch.setattr(latent, "UNTILED_PIXELS", 640 * 64 - 1)  # a real one would take minutes

    worker.decode(drawing)

    assert max(decoder.widths) == TILE


@pytest.mark.parametrize("prompt", ["a red circle on a blue background", "a green square"])
def test_tiles_agree_with_the_whole(worker: LatentWorker, prompt: str) -> None:
    request = ask(width=256, height=256, steps=6, prompt=prompt, negative_prompt="")
    drawing = drawn(worker, request)
    whole = worker.decode(drawing)
    vae = worker._parts.vae
    vae.tile_sample_min_size, vae.tile_latent_min_size = 128, 16
    Small(vae.decoder, most=16)

    difference = levels(worker.decode(drawing), whole)

    # A tile doesn't know what the others hold, so that shades differ a little, edges most.
    assert np.median(difference) <= 4
    assert np.percentile(difference, 99) <= 20


def test_a_source_that_has_no_memory_in_one_piece_is_encoded_in_tiles(
    worker: LatentWorker, tmp_path: Path
) -> None:
    pixels = np.linspace(0, 255, 640 * 64 * 3).astype(np.uint8).reshape(64, 640, 3)
    Image.fromarray(pixels).save(tmp_path / "source.png")
    request = ask(**WIDE, source=tmp_path / "source.png", strength=0.5)
    whole = worker.begin(request)[0].latents
    encoder = Small(worker._parts.vae.encoder, most=8 * TILE)

    tiled = worker.begin(request)[0].latents

    assert encoder.widths == [640, 512, 256]
    assert 0 < (tiled - whole).abs().mean() < 0.2 * whole.abs().mean()


def test_what_has_no_memory_in_tiles_either_is_told_and_the_worker_draws_on() -> None:
    said: list[Reply] = []
    decoders: list[Small] = []

    def create(model: Any) -> Any:
        worker: Any = WorkerFactory("cpu").create(model)
        decoders.append(Small(worker._parts.vae.decoder, most=20))
        return worker

    host = WorkerHost("cpu", said.append, create=create)
    host.handle(Run(1, "job 1", ask(**WIDE)))
    host.handle(Run(2, "job 2", ask(width=64, height=64, steps=2)))
    for _ in range(1000):
        if not host.busy:
            break
        host.tick()
    host.close()

    [failed] = [reply for reply in said if isinstance(reply, JobFailed)]
    assert failed.run_id == 1
    assert isinstance(failed.error, DrawingError)
    assert str(failed.error).startswith("cpu ran out of memory. A smaller picture")
    results = [r.event for r in said if isinstance(r, JobEvent)]
    assert [r.job_id for r in results if isinstance(r, GenerationResult)] == ["job 2"]
    assert decoders[0].widths.count(80) == 1
    assert decoders[0].widths.count(TILE) == 1


class Narrow:
    """Has a half-precision VAE run out of memory halfway on its way to float32, as a GPU would.

    Mocked, since a CPU has no such limit.
    """

    def __init__(self, vae: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = sum(1 for _ in vae.parameters()) // 2
        monkeypatch.setattr(vae, "float", lambda: vae._apply(self.widened))

    def widened(self, tensor: torch.Tensor) -> torch.Tensor:
        self.left -= 1
        if self.left < 0:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return tensor.float()


def test_no_memory_to_read_a_source_precisely_leaves_the_vae_as_it_was(
    worker: LatentWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source.png"
    Image.new("RGB", (32, 32), "red").save(source)
    vae = worker._parts.vae.half()
    small = {"width": 32, "height": 32, "steps": 2}
    before = worker.decode(drawn(worker, ask(**small)))
    Narrow(vae, monkeypatch)

    with pytest.raises(torch.OutOfMemoryError):
        worker.begin(ask(**small, source=source))

    assert np.array_equal(worker.decode(drawn(worker, ask(**small))), before)


def test_no_memory_for_a_precise_vae_leaves_it_as_it_was(
    worker: LatentWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    vae = worker._parts.vae.half()
    drawing = drawn(worker, ask(width=32, height=32, steps=2))
    before = worker.decode(drawing)
    kept = drawing.latents
    Narrow(vae, monkeypatch)
    drawing.latents = torch.full_like(kept, 1e6)  # overflows in half precision

    with pytest.raises(torch.OutOfMemoryError):
        worker.decode(drawing)

    drawing.latents = kept
    assert np.array_equal(worker.decode(drawing), before)
