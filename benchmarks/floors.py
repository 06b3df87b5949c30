"""What a device does at best, measured: how fast it multiplies, and how fast it is written to.

Beside these the figures of `benchmarks.serving` say how much is left to gain.
"""

import time
from collections.abc import Callable

import torch  # noqa: TID253 - run by itself, no front end imports it
from torch.utils.flop_counter import FlopCounterMode  # noqa: TID253 - likewise

from benchmarks.servers import StockServer, pass_arguments
from engine.jobs import GenerationRequest
from engine.workers.host_arena import BLOCK

_SIDE = {"cpu": 1024, "cuda": 8192}  # of square matrices, large enough for the best rate
_TIMES = 10


def multiplication_rate(device: str) -> float:
    """Returns operations per second of a large matrix product, in the models' number format.

    On a CPU with as many threads as torch has.
    """
    kind = device.partition(":")[0]
    side, dtype = _SIDE[kind], torch.float32 if kind == "cpu" else torch.float16
    # Random numbers: a product of zeros can be faster than any real one.
    one, other = (torch.randn(side, side).to(device, dtype) for _ in "12")
    return 2 * side**3 / _median(device, lambda: one @ other)


def copy_rate(device: str) -> float:
    """Returns bytes per second from the host's memory: pinned, a block of the arena at a time."""
    block = torch.ones(BLOCK, dtype=torch.uint8, pin_memory=device.startswith("cuda"))
    there = torch.empty_like(block, device=device)
    return BLOCK / _median(device, lambda: there.copy_(block, non_blocking=True))


@torch.inference_mode()
def pass_operations(stock: StockServer, request: GenerationRequest) -> float:
    """Returns the operations of a forward pass of two rows, counted by torch."""
    arguments = pass_arguments(stock, request, 2)
    with FlopCounterMode(display=False) as counter:
        stock.pipeline.unet(**arguments)
    return float(counter.get_total_flops())


def _median(device: str, act: Callable[[], object]) -> float:
    """Returns the median of the seconds that something takes, after it was done once."""
    took = []
    for _ in range(_TIMES + 1):
        began = time.perf_counter()
        act()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        took.append(time.perf_counter() - began)
    return sorted(took[1:])[_TIMES // 2]
