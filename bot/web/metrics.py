"""Figures for Prometheus: what waits and runs, what came of requests, how late and full things are.

Counters begin at zero with the program. Labels are names that the owner gave (modes), devices and
kinds of errors: nothing that anybody typed, and nobody's name.
"""

import time
from collections.abc import Mapping
from typing import Any

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

from bot.loop_lag import LoopLag
from bot.records import JobRecord
from bot.studio import Studio
from engine.errors import DreamLabError, JobCancelledError
from engine.jobs import GenerationResult
from engine.pace import Act, Measurement
from engine.worker_pool import LaneState, WorkerPool
from modes.catalog import ModeCatalog

MEDIA_TYPE = CONTENT_TYPE_LATEST

_PATIENCE = 0.5  # seconds that a device has to say what it holds
_WAITS = (0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
_DRAWINGS = (0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300, 900)

_STEPS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_SWITCHES = (0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 40, 80, 160)
_SOURCES = {Act.LOAD: "disk", Act.SWITCH: "memory"}


class Metrics:
    """Counts what the studio tells, and looks at the rest when it is asked."""

    def __init__(
        self, studio: Studio, catalog: ModeCatalog, pool: WorkerPool, lag: LoopLag
    ) -> None:
        self._studio = studio
        self._catalog = catalog
        self._pool = pool
        self._lag = lag
        self._registry = CollectorRegistry()
        registry: dict[str, Any] = {"registry": self._registry}
        self._waiting = Gauge("dreamlab_waiting", "Requests in the queue.", ["mode"], **registry)
        self._running = Gauge("dreamlab_running", "Requests being drawn.", ["mode"], **registry)
        self._requests = Counter(
            "dreamlab_requests", "Requests that ended.", ["mode", "status"], **registry
        )
        self._images = Counter("dreamlab_images", "Pictures that were drawn.", ["mode"], **registry)
        self._errors = Counter(
            "dreamlab_errors", "Requests that failed, by the kind of error.", ["kind"], **registry
        )
        self._waited = Histogram(
            "dreamlab_wait_seconds",
            "Seconds from a request to the beginning of its drawing.",
            buckets=_WAITS,
            **registry,
        )
        self._drawn = Histogram(
            "dreamlab_picture_seconds",
            "Seconds that a picture took to draw; of several in one request, each its share.",
            ["mode"],
            buckets=_DRAWINGS,
            **registry,
        )
        self._step = Histogram(
            "dreamlab_step_seconds",
            "Seconds of a denoising step, whoever shared it; a GPU's are measured now and then.",
            ["family"],
            buckets=_STEPS,
            **registry,
        )
        self._switch = Histogram(
            "dreamlab_switch_seconds",
            "Seconds of a model's way into a device's memory, by where it came from.",
            ["family", "source"],
            buckets=_SWITCHES,
            **registry,
        )
        self._late = Gauge(
            "dreamlab_event_loop_lag_seconds",
            "How late the event loop was at most in the last minute.",
            **registry,
        )
        self._up = Gauge("dreamlab_device_up", "1 where a device can draw.", ["device"], **registry)
        self._used = Gauge(
            "dreamlab_device_memory_used_bytes", "Memory in use.", ["device"], **registry
        )
        self._total = Gauge(
            "dreamlab_device_memory_bytes", "Memory there is.", ["device"], **registry
        )
        self._by_mode = (self._waiting, self._running)
        self._by_device = (self._up, self._used, self._total)
        studio.begun_listeners.append(self._begun)
        studio.ended_listeners.append(self._ended)
        pool.measurement_listeners.append(self._measured)

    async def render(self) -> bytes:
        """Returns the figures in Prometheus' text format."""
        for gauge in (*self._by_mode, *self._by_device):
            gauge.clear()
        for mode in self._catalog.modes:
            for gauge in self._by_mode:
                gauge.labels(mode)
        for (mode, runs), count in self._studio.live.load().items():
            (self._running if runs else self._waiting).labels(mode).set(count)
        self._late.set(self._lag.worst)
        for lane, known in await self._pool.stats(_PATIENCE):
            self._up.labels(lane.device).set(lane.state is LaneState.READY)
            self._show_memory(lane.device, known or {})
        return generate_latest(self._registry)

    def _show_memory(self, device: str, known: Mapping[str, Any]) -> None:
        for gauge, name in ((self._used, "used_gb"), (self._total, "total_gb")):
            if known.get(name) is not None:
                gauge.labels(device).set(known[name] * 2**30)

    def _begun(self, record: JobRecord) -> None:
        self._waited.observe(max(0.0, time.time() - record.created_at.timestamp()))

    def _measured(self, measurement: Measurement) -> None:
        if measurement.act is Act.PASS:
            self._step.labels(measurement.family).observe(measurement.seconds)
        elif source := _SOURCES.get(measurement.act):
            self._switch.labels(measurement.family, source).observe(measurement.seconds)

    def _ended(self, record: JobRecord, outcome: GenerationResult | DreamLabError) -> None:
        mode = record.request.mode
        self._requests.labels(mode, record.status.value).inc()
        if isinstance(outcome, GenerationResult):
            count = len(outcome.images)
            self._images.labels(mode).inc(count)
            for _ in range(count):
                self._drawn.labels(mode).observe(outcome.seconds / count)
        elif not isinstance(outcome, JobCancelledError):
            self._errors.labels(type(outcome).__name__).inc()
