"""The servers that are compared: the stock pipeline behind a lock, with a window, and ours."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch  # noqa: TID253 - run by itself, no front end imports it
from diffusers import DiffusionPipeline  # noqa: TID253 - what is compared with

from benchmarks.workloads import Asked, Served, Workload
from engine.errors import NotEnoughMemoryError
from engine.executor import LoadReport
from engine.fair_queue import FairQueue
from engine.images import encode_png, request_parameters
from engine.jobs import GenerationRequest, GenerationResult, ModelSpec, Progress
from engine.messages import Answer, Cancel, JobEvent, JobFailed, Load, Measured, Reply, Run
from engine.model_registry import ModelRegistry
from engine.pace import Pace
from engine.samplers import NoiseSchedule, create_scheduler
from engine.step_batcher import LEAST_CAP
from engine.worker_host import WorkerHost
from engine.workers.host_cache import HostCache

WINDOW = 0.05
"""Seconds that request-level batching waits for company."""

IN_FLIGHT = 8
"""Requests that a device draws at once behind the fair queue."""


class Server(Protocol):
    """Draws what is asked for, a bit at each turn."""

    name: str

    @property
    def busy(self) -> bool:
        """Whether a turn has something to do."""

    def submit(self, asked: Asked) -> None:
        """Takes a request."""

    def turn(self) -> list[int]:
        """Does the least it can do at once; returns the numbers of what is finished."""

    def reset(self) -> None:
        """Forgets what is under way."""


class Service:
    """A server that serves a workload, on a clock that runs while it does.

    Time in which nobody asks is passed over, and so is that in which another server is at work.

    Attributes:
        served: who has a picture by now.
        done: whether nobody asks any more.
    """

    def __init__(self, server: Server, workload: Workload) -> None:
        self.served: list[Served] = []
        self.done = False
        self._server = server
        self._workload = workload
        self._asked: dict[int, Asked] = {}
        self._now = 0.0

    def turn(self) -> None:
        """Has the server take who is due, and do a bit of its work."""
        began = time.perf_counter() - self._now
        for each in self._workload.due(self._now):
            self._asked[each.number] = each
            self._server.submit(each)
        if not self._server.busy:
            at = self._workload.next_at()
            self.done = at is None
            self._now = max(self._now, at or 0.0)
            return
        finished = self._server.turn()
        self._now = time.perf_counter() - began
        for number in finished:
            self.served.append(Served(self._asked[number], self._now))
            self._workload.served(self.served[-1])

    def rest(self) -> None:
        """Waits for what its device still does; another server is next."""
        began = time.perf_counter()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._now += time.perf_counter() - began


def drive(server: Server, workload: Workload, until: int | None = None) -> list[Served]:
    """Lets a server serve a workload.

    Args:
        server: who draws.
        workload: who asks.
        until: ends as soon as the request of this number is served; None serves all.
    """
    service = Service(server, workload)
    while not service.done:
        service.turn()
        if until is not None and until in (each.asked.number for each in service.served):
            server.reset()
            break
    return service.served


def drive_all(servers: Sequence[Server], workload_of: Callable[[], Workload]) -> list[list[Served]]:
    """Lets servers serve the same workload, picture by picture in turn.

    What a shared machine does meanwhile then meets all of them alike: whoever has drawn least is
    next. Files that are still written while another one draws take none of its time on a machine of
    several cores.

    Args:
        servers: who draw.
        workload_of: returns the same workload each time, from its beginning.

    Returns:
        Who was served, for each server.
    """
    services = [Service(server, workload_of()) for server in servers]
    while at_work := [service for service in services if not service.done]:
        service = min(at_work, key=lambda each: len(each.served))
        drawn = len(service.served)
        while not service.done and len(service.served) == drawn:
            service.turn()
        service.rest()
    return [service.served for service in services]


class StockServer:
    """Diffusers' own pipeline, one request after another, as behind a lock."""

    name = "stock"

    def __init__(self, model: Path, device: str) -> None:
        dtype = torch.float32 if device == "cpu" else torch.float16
        self.pipeline: Any = DiffusionPipeline.from_pretrained(
            model, dtype=dtype, local_files_only=True
        ).to(device)
        self.pipeline.set_progress_bar_config(disable=True)
        self.schedule = NoiseSchedule.read(model / "scheduler" / "scheduler_config.json")
        self._waiting: deque[Asked] = deque()

    @property
    def busy(self) -> bool:
        """See `Server`."""
        return bool(self._waiting)

    def submit(self, asked: Asked) -> None:
        """See `Server`."""
        self._waiting.append(asked)

    def turn(self) -> list[int]:
        """Draws a whole request."""
        return self._draw([self._waiting.popleft()])

    def reset(self) -> None:
        """See `Server`."""
        self._waiting.clear()

    def _draw(self, batch: Sequence[Asked]) -> list[int]:
        request = batch[0].request
        self.pipeline.scheduler = create_scheduler(request.sampler, self.schedule, request.steps)
        images = self.pipeline(
            [asked.request.prompt for asked in batch],
            negative_prompt=[asked.request.negative_prompt for asked in batch],
            width=request.width,
            height=request.height,
            num_inference_steps=request.steps,
            guidance_scale=request.guidance_scale,
            generator=[torch.Generator().manual_seed(asked.request.seed) for asked in batch],
        ).images
        for asked, image in zip(batch, images, strict=True):
            encode_png(image, request_parameters(asked.request, asked.request.seed))
        return [asked.number for asked in batch]


class WindowServer(StockServer):
    """The stock pipeline with request-level batching: who comes within a window shares a call.

    Only those share it who agree in all that a call of the pipeline has one of: size, steps,
    guidance and sampler.
    """

    name = "window"

    def __init__(self, stock: StockServer, most: int) -> None:
        self.pipeline, self.schedule = stock.pipeline, stock.schedule
        self._waiting = deque()
        self._most = most
        self._waited = 0.0

    def turn(self) -> list[int]:
        """Waits until the window closes, then draws all that fit together."""
        batch = [each for each in self._waiting if _call(each) == _call(self._waiting[0])]
        if len(batch) < self._most and self._waited < WINDOW:
            began = time.perf_counter()
            time.sleep(0.001)
            self._waited += time.perf_counter() - began
            return []
        self._waited = 0.0
        batch = batch[: self._most]
        for each in batch:
            self._waiting.remove(each)
        return self._draw(batch)

    def reset(self) -> None:
        """See `Server`."""
        super().reset()
        self._waited = 0.0


def _call(asked: Asked) -> tuple[object, ...]:
    request = asked.request
    return request.width, request.height, request.steps, request.guidance_scale, request.sampler


class OurServer:
    """Our step loop: each request joins when it comes."""

    def __init__(
        self,
        device: str,
        *,
        batching: bool = True,
        registry: ModelRegistry | None = None,
        cache: HostCache | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = "ours" if batching else "ours, one by one"
        self.registry = registry or ModelRegistry(device)
        self._said: list[Reply] = []
        self.host = WorkerHost(
            device,
            self._said.append,
            registry=self.registry,
            cache=cache,
            max_rows=None if batching else LEAST_CAP,
            clock=clock,
        )
        self.loads = 0
        self.pace = Pace()
        self.progress: dict[int, Progress] = {}
        self._under_way: set[int] = set()

    @property
    def busy(self) -> bool:
        """See `Server`."""
        return self.host.busy

    def submit(self, asked: Asked) -> None:
        """See `Server`."""
        self._under_way.add(asked.number)
        self.host.handle(Run(asked.number, str(asked.number), asked.request))

    def turn(self) -> list[int]:
        """Takes one denoising step."""
        before = set(self.registry.get_loaded_models())
        self.host.tick()
        self.loads += len(set(self.registry.get_loaded_models()) - before)
        finished = []
        for reply in self._said:
            if isinstance(reply, JobFailed):
                raise reply.error
            if isinstance(reply, Measured):
                self.pace.take(reply.figures)
            if isinstance(reply, JobEvent) and isinstance(reply.event, Progress):
                self.progress[reply.run_id] = reply.event
            if isinstance(reply, JobEvent) and isinstance(reply.event, GenerationResult):
                finished.append(reply.run_id)
        self._said.clear()
        self._under_way.difference_update(finished)
        return finished

    def load(self, model: ModelSpec) -> LoadReport:
        """Loads a model; nothing else may be under way."""
        self.host.handle(Load(0, model))
        while self.host.busy:
            self.host.tick()
        [answer] = [each for each in self._said if isinstance(each, Answer)]
        self._said.clear()
        if not isinstance(answer.value, LoadReport):
            raise answer.error or TypeError(f"a load was answered with {answer.value!r}")
        return answer.value

    def reset(self) -> None:
        """Cancels what is under way; the models stay."""
        for number in self._under_way:
            self.host.handle(Cancel(number))
        self._under_way.clear()
        self._said.clear()
        self.progress.clear()


@dataclass
class QueuedServer:
    """Our step loop behind the queue, as in the pool.

    Attributes:
        ours: who draws.
        fair: whether members take turns; otherwise all stand in one line.
        loaded_first: whether who needs no loading may go before who does.
    """

    ours: OurServer
    fair: bool = True
    loaded_first: bool = True
    name: str = "ours, queued"
    _queue: FairQueue = field(default_factory=FairQueue)
    _asked: dict[int, Asked] = field(default_factory=dict)
    _in_flight: int = 0

    @property
    def busy(self) -> bool:
        """See `Server`."""
        return bool(len(self._queue)) or self.ours.busy

    def submit(self, asked: Asked) -> None:
        """See `Server`."""
        self._asked[asked.number] = asked
        request = asked.request
        owner = asked.user if self.fair else "everybody"
        self._queue.push(str(asked.number), owner, request.cost, key=request.model.key)

    def turn(self) -> list[int]:
        """Sends who is next, and takes one denoising step."""
        while self._in_flight < IN_FLIGHT and len(self._queue):
            loaded = self.ours.registry.get_loaded_models() if self.loaded_first else ()
            self.ours.submit(self._asked[int(self._queue.pop(loaded).job_id)])
            self._in_flight += 1
        finished = self.ours.turn()
        self._in_flight -= len(finished)
        return finished

    def reset(self) -> None:
        """See `Server`."""
        self.ours.reset()
        self._queue = FairQueue()
        self._in_flight = 0


class RoomFor(ModelRegistry):
    """The registry of a device with room for so many models, whatever they weigh."""

    def __init__(self, device: str, models: int) -> None:
        super().__init__(device)
        self._room = models

    def make_room(self, vram_bytes: int, model_path: Path | str) -> list[str]:
        """Names the models to drop: those that have been idle longest."""
        loaded = list(self.get_loaded_models())
        idle = [name for name in loaded if not self.in_use(name)]
        excess = len(loaded) + 1 - self._room
        if excess > len(idle):
            raise NotEnoughMemoryError(model_path, vram_bytes, 0, vram_bytes)
        return idle[: max(0, excess)]

    def could_fit(self, vram_bytes: int) -> bool:
        """Any model fits once others have gone."""
        return True


class BarePass:
    """A forward pass of the bare UNet of so many rows."""

    def __init__(self, stock: StockServer, request: GenerationRequest, rows: int) -> None:
        self._unet = stock.pipeline.unet
        self._arguments = pass_arguments(stock, request, rows)

    @torch.inference_mode()
    def seconds(self, passes: int) -> float:
        """Returns what one takes, the median of so many."""
        took = []
        for _ in range(passes):
            began = time.perf_counter()
            self._unet(**self._arguments)
            if self._unet.device.type == "cuda":
                torch.cuda.synchronize()
            took.append(time.perf_counter() - began)
        return sorted(took)[len(took) // 2]


@torch.inference_mode()
def pass_arguments(stock: StockServer, request: GenerationRequest, rows: int) -> dict[str, Any]:
    """Returns what the stock pipeline's UNet is called with for so many rows."""
    pipeline = stock.pipeline
    unet = pipeline.unet
    scale = 2 ** (len(pipeline.vae.config.block_out_channels) - 1)
    where = {"device": unet.device, "dtype": unet.dtype}
    told, negative, *pooled = pipeline.encode_prompt(
        request.prompt,
        device=unet.device,
        num_images_per_prompt=1,
        do_classifier_free_guidance=True,
    )
    added = None
    if pooled:  # SDXL
        ids = [request.height, request.width, 0, 0, request.height, request.width]
        added = {
            "text_embeds": pooled[0].repeat(rows, 1),
            "time_ids": torch.tensor([ids] * rows, **where),
        }
    return {
        "sample": torch.zeros(
            rows, unet.config.in_channels, request.height // scale, request.width // scale, **where
        ),
        "timestep": torch.full((rows,), 500.0, device=unet.device),
        "encoder_hidden_states": torch.cat([negative, told]).repeat(rows // 2 + 1, 1, 1)[:rows],
        "added_cond_kwargs": added,
        "return_dict": False,
    }
