"""One training loop for every stage: several processes, a budget of minutes, checkpoints."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

# ruff: noqa: TID253 - the training code owns its torch; no front end imports it
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

Losses = dict[str, torch.Tensor]
SAVE_SECONDS = 60.0
REPORT_STEPS = 50


@dataclass(frozen=True)
class Team:
    """The processes that train together, seen from one of them."""

    rank: int
    size: int

    @property
    def leads(self) -> bool:
        """Whether this process is the one that reports and saves."""
        return self.rank == 0

    def agree(self, value: float) -> float:
        """Gives every process the leader's value."""
        shared = torch.tensor([value])
        if self.size > 1:
            dist.broadcast(shared, 0)
        return float(shared)

    def average_gradients(self, parameters: list[torch.nn.Parameter]) -> None:
        """Replaces every gradient by its mean over the processes.

        Which weights have a gradient at all must be the same in every process.
        """
        if self.size == 1:
            return
        learning = [p for p in parameters if p.grad is not None]
        flat = torch.cat([p.grad.flatten() for p in learning if p.grad is not None])
        dist.all_reduce(flat)
        flat /= self.size
        start = 0
        for parameter in learning:
            end = start + parameter.numel()
            parameter.grad = flat[start:end].view_as(parameter)
            start = end


def launch(worker: Callable[..., None], processes: int, *args: Any) -> None:
    """Runs `worker(team, *args)` in that many processes and waits for all of them."""
    if processes == 1:
        worker(Team(0, 1), *args)
        return
    spawn(_enter, (worker, processes, args), nprocs=processes)  # type: ignore[no-untyped-call]


def _enter(rank: int, worker: Callable[..., None], processes: int, args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)  # one core each: small layers gain little from more threads
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", "29611")
    dist.init_process_group("gloo", rank=rank, world_size=processes)
    worker(Team(rank, processes), *args)
    dist.destroy_process_group()


def half_precision() -> torch.autocast:
    """Computes in bfloat16 inside `with`, where the processor is faster at that, not slower."""
    able = torch.cpu.get_capabilities()
    helps = bool(able.get("avx512_bf16") or able.get("amx_bf16"))
    return torch.autocast("cpu", torch.bfloat16, enabled=helps)


@dataclass(frozen=True)
class Plan:
    """How long and how fast a stage trains.

    Attributes:
        minutes: The stage's budget of wall-clock time.
        rate: The peak learning rate.
        hold: The share of the budget after which the rate falls, along a cosine, to 2 %.
        ema: The decay of the running mean of the weights, which is what a stage yields.
        warm_up: Steps over which the rate rises.
    """

    minutes: float
    rate: float
    hold: float = 0.4
    ema: float = 0.998
    warm_up: int = 100

    def rate_at(self, progress: float, step: int) -> float:
        """The learning rate after that share of the budget, at that step."""
        falling = max(0.0, progress - self.hold) / (1 - self.hold)
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, falling)))
        return self.rate * (0.02 + 0.98 * cosine) * min(1.0, (step + 1) / self.warm_up)


def fit(
    team: Team,
    model: torch.nn.Module,
    groups: Iterable[tuple[float, list[torch.nn.Parameter]]],
    losses: Callable[[float], Losses],
    plan: Plan,
    checkpoint: Path,
) -> None:
    """Trains a model until the plan's minutes are spent, and leaves its mean weights in it.

    An interrupted stage goes on from its checkpoint, which is written once a minute.

    Args:
        team: The processes that train together; each makes its own batches.
        model: Everything whose weights are kept.
        groups: What is trained, as (factor on the learning rate, parameters).
        losses: Given the share of the budget spent, makes a batch and returns its losses by
            name. "loss" is descended; the others are only reported.
        plan: Budget and rates.
        checkpoint: Where the state is kept.
    """
    groups = list(groups)
    sets = [{"params": params, "factor": factor} for factor, params in groups]
    optimizer = torch.optim.AdamW(sets, lr=plan.rate, betas=(0.9, 0.99), weight_decay=0.01)
    trained = [parameter for _, params in groups for parameter in params]
    mean = [p.detach().clone() for p in trained]
    spent, step = 0.0, 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        for own, kept in zip(trained, state["trained"], strict=True):
            own.data.copy_(kept)
        optimizer.load_state_dict(state["optimizer"])
        mean, spent, step = state["mean"], state["spent"], state["step"]
    started = time.monotonic() - spent
    saved, recent = time.monotonic(), _Recent()
    while True:
        spent = team.agree(time.monotonic() - started)
        progress = spent / (60 * plan.minutes)
        if progress >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = group["factor"] * plan.rate_at(progress, step)
        named = losses(progress)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(named["loss"])
        team.average_gradients(trained)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        decay = min(plan.ema, (1 + step) / (10 + step))
        torch._foreach_lerp_(mean, [p.detach() for p in trained], 1 - decay)
        step += 1
        recent.add(named)
        if team.leads and step % REPORT_STEPS == 0:
            print(f"{spent / 60:6.1f} min  step {step:6d}  {recent.report()}", flush=True)
        if team.leads and time.monotonic() - saved > SAVE_SECONDS:
            _save(checkpoint, model, optimizer, trained, mean, {"spent": spent, "step": step})
            saved = time.monotonic()
    if team.leads:
        _save(checkpoint, model, optimizer, trained, mean, {"spent": spent, "step": step})
        print(f"done: {step} steps in {spent / 60:.1f} minutes", flush=True)
    for own, kept in zip(trained, mean, strict=True):
        own.data.copy_(kept)


def _save(
    path: Path,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    trained: list[torch.nn.Parameter],
    mean: list[torch.Tensor],
    counters: dict[str, float],
) -> None:
    """Writes a checkpoint; its "model" holds the mean weights, ready to be used."""
    own = [p.detach().clone() for p in trained]
    for parameter, kept in zip(trained, mean, strict=True):
        parameter.data.copy_(kept)
    state = {
        "model": model.state_dict(),
        "trained": own,
        "optimizer": optimizer.state_dict(),
        "mean": mean,
        **counters,
    }
    part = path.with_suffix(".part")
    torch.save(state, part)  # before the weights go back: the state shares their memory
    part.replace(path)
    for parameter, kept in zip(trained, own, strict=True):
        parameter.data.copy_(kept)


class _Recent:
    """Running means of what the steps report."""

    def __init__(self) -> None:
        self._means: dict[str, float] = {}

    def add(self, named: Losses) -> None:
        for name, value in named.items():
            now = float(value.detach())
            self._means[name] = 0.95 * self._means.get(name, now) + 0.05 * now

    def report(self) -> str:
        return "  ".join(f"{name} {value:.4f}" for name, value in self._means.items())
