"""The UNet's stage: it learns to draw latents from noise and words."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

# ruff: noqa: TID253 - the training code owns its torch; no front end imports it
import torch
from torch import nn

from training.demo.drawing import draw
from training.demo.fitting import Losses, Plan, Team, fit, half_precision
from training.demo.latents import latents_of, to_tensor
from training.demo.networks import TEXT_WIDTH, make_scheduler, make_unet
from training.demo.scenes import (
    EVERYTHING,
    MOSTLY_SHAPES,
    SHAPES_AND_COUNTS,
    SHAPES_ONLY,
    attributes,
    sample_scene,
)
from training.demo.start import start_unet
from training.demo.train_text import captions_of, make_text_path

if TYPE_CHECKING:
    from pathlib import Path

CAPTIONS = 8
DRAWINGS = 4  # of every caption: what the words leave open is seen side by side
DROPPED_CAPTIONS = 0.1  # drawn without words, for classifier-free guidance
# What is drawn from which share of the budget on. Colours and places come early, outlines late:
# they get most of the time.
CURRICULA = {
    "everything": (
        (0.0, SHAPES_ONLY),
        (0.1, EVERYTHING),
        (0.33, MOSTLY_SHAPES),
        (0.72, SHAPES_AND_COUNTS),
    ),
    "shapes": ((0.0, SHAPES_ONLY),),
}
TEXT_SHARE = 0.25  # of the budget, in which the text path learns along; then it is left alone
EXAMINATION = 0.05  # weight of the questions on the captions, so that the words stay learned


class Painter(nn.Module):
    """UNet and text path, as they are trained together.

    Attributes:
        unet: The `UNet2DConditionModel`.
        text: The text path, whose pooling is the UNet's own `add_embedding`.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.unet = make_unet()
        self.text = make_text_path(folder, self.unet)

    def forward(
        self, noisy: torch.Tensor, steps: torch.Tensor, hidden: torch.Tensor, pooled: torch.Tensor
    ) -> torch.Tensor:
        """Predicts the velocity of noisy latents.

        Args:
            noisy: `(B, 4, 16, 16)`.
            steps: `(B,)`, 0 to 999.
            hidden: `(captions, tokens, 768)`; B is a multiple of the captions.
            pooled: `(captions, width)`.

        Returns:
            The velocity, `(B, 4, 16, 16)`.
        """
        each = len(noisy) // len(hidden)
        repeated = pooled.repeat_interleave(each, 0)
        # Pooling costs as much as a quarter of the UNet and is the same for all drawings of a
        # caption: hand the UNet the pooled text instead of letting it pool every copy.
        self.unet.get_aug_embed = lambda **_kwargs: repeated
        try:
            velocity = self.unet(noisy, steps, hidden.repeat_interleave(each, 0)).sample
        finally:
            del self.unet.get_aug_embed
        return velocity.float()  # type: ignore[no-any-return]  # the UNet is untyped


def train_unet(
    team: Team,
    folder: Path,
    minutes: float,
    seed: int,
    start: Path | None = None,
    curriculum: str = "everything",
) -> None:
    """Trains UNet and text path into `folder/unet.pt`; wants `folder/text.pt`.

    Args:
        team: The processes that train together.
        folder: The work folder.
        minutes: The budget.
        seed: Of pictures, captions, weights and noise.
        start: A model whose UNet is to learn on, instead of a fresh one.
        curriculum: A name from `CURRICULA`.
    """
    torch.manual_seed(seed)
    painter = Painter(folder)
    if start:
        start_unet(painter.unet, start)
    painter.text.load_state_dict(load_text(folder))
    rng = Random(f"unet {seed} {team.rank}")
    torch.manual_seed(seed + 1 + team.rank)
    signal = make_scheduler().alphas_cumprod

    def losses(progress: float) -> Losses:
        mixture = [mixture for since, mixture in CURRICULA[curriculum] if progress >= since][-1]
        scenes = [sample_scene(rng, mixture) for _ in range(CAPTIONS)]
        pictures = [draw(scene, rng) for scene in scenes for _ in range(DRAWINGS)]
        latents = latents_of(to_tensor(pictures))
        answers = torch.tensor([attributes(scene) for scene in scenes])
        captions = captions_of(scenes, rng)
        for number in range(CAPTIONS):
            if rng.random() < DROPPED_CAPTIONS:
                captions[number] = ""
                answers[number] = -100
        steps = sample_steps(len(latents))
        noise = torch.randn_like(latents)
        kept = signal[steps].view(-1, 1, 1, 1)
        noisy = kept.sqrt() * latents + (1 - kept).sqrt() * noise
        velocity = kept.sqrt() * noise - (1 - kept).sqrt() * latents
        with half_precision():
            with torch.set_grad_enabled(progress < TEXT_SHARE):
                hidden, pooled = painter.text(captions)
            predicted = painter(noisy, steps, hidden, pooled)
        drawing = (predicted - velocity).square().mean()
        if not pooled.requires_grad:
            return {"loss": drawing}
        questions = painter.text.examine(pooled, answers)
        loss = drawing + EXAMINATION * questions
        return {"loss": loss, "drawing": drawing, "questions": questions}

    # What has been learned before is shaken less.
    plan = Plan(minutes, rate=9e-4 if start else 1.2e-3, hold=0.4 if start else 0.35)
    fit(team, painter, learning_groups(painter), losses, plan, folder / "unet.pt")


def load_text(folder: Path) -> dict[str, Any]:
    """Reads the trained text path's weights."""
    state: dict[str, Any] = torch.load(folder / "text.pt", weights_only=True)["model"]
    return state


def sample_steps(count: int) -> torch.Tensor:
    """Draws steps of the noise schedule, spread evenly so that batches are alike.

    Where colours and shapes are decided (450 to 600) is drawn twice as often; the last 50, which
    only polish, never.

    Args:
        count: How many.

    Returns:
        `(count,)` integers, 50 to 999.
    """
    spread = ((torch.arange(count) + torch.rand(1)) / count)[torch.randperm(count)]
    fine, coarse = 50 + spread * 2 * 550, 450 + (spread - 0.5) * 2 * 550
    return torch.where(spread < 0.5, fine, coarse).long().clamp(0, 999)


def learning_groups(painter: Painter) -> list[tuple[float, list[nn.Parameter]]]:
    """Sorts the weights by how fast they may learn: the words were learned before, and keep.

    Returns:
        Pairs of (factor on the learning rate, weights).
    """
    slowest: list[nn.Parameter] = []
    slow: list[nn.Parameter] = []
    heads: list[nn.Parameter] = []
    full: list[nn.Parameter] = []
    for name, weight in painter.named_parameters():
        wide = weight.ndim == 2 and weight.shape[1] == TEXT_WIDTH
        if name.startswith("text.heads"):
            heads.append(weight)
        elif "add_embedding" in name or name.startswith("text."):
            (slowest if wide and "token_embedding" not in name else slow).append(weight)
        else:
            (slow if wide else full).append(weight)
    return [(0.075, slowest), (0.25, slow), (0.5, heads), (1.0, full)]
