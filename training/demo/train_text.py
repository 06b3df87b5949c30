"""The text stage: the text path learns what a caption says before any picture is drawn.

A UNet that trains together with a fresh text encoder never learns more than the background: the
gradient that reaches the words is too faint. So text encoder and pooling first learn to answer
every question of `ATTRIBUTE_SIZES` about a caption. The linear heads that answer are thrown away
at the end.
"""

from __future__ import annotations

from copy import deepcopy
from random import Random
from typing import TYPE_CHECKING

# ruff: noqa: TID253 - the training code owns its torch; no front end imports it
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from training.demo.captions import caption, vary
from training.demo.fitting import Losses, Plan, Team, fit, half_precision
from training.demo.networks import make_text_encoder, make_unet
from training.demo.scenes import (
    ATTRIBUTE_SIZES,
    EVERYTHING,
    SHAPES_ONLY,
    Scene,
    attributes,
    sample_scene,
)
from training.demo.start import start_text, start_unet
from training.demo.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

    from diffusers import UNet2DConditionModel
    from transformers import CLIPTokenizer

CAPTIONS = 32
KEEPING = 15.0  # weight of what a started text path said before


class TextPath(nn.Module):
    """Text encoder, pooling and answering heads.

    Attributes:
        encoder: The `CLIPTextModel`.
        pooling: The UNet's `add_embedding`: hidden states to one vector a caption.
        heads: Linear; the answers to all questions side by side.
    """

    def __init__(self, tokenizer: CLIPTokenizer, pooling: nn.Module, width: int) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.encoder = make_text_encoder(tokenizer)
        self.pooling = pooling
        self.heads = nn.Linear(width, sum(ATTRIBUTE_SIZES.values()))

    def forward(self, captions: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Reads captions.

        Args:
            captions: B captions.

        Returns:
            Hidden states `(B, tokens, 768)` and pooled vectors `(B, width)`.
        """
        tokens = self.tokenizer(
            captions,
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        hidden = self.encoder(tokens.input_ids)[0]
        return hidden, self.pooling(hidden)

    def examine(self, pooled: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
        """Sums the cross-entropies of all questions.

        Args:
            pooled: `(B, width)`.
            answers: `(B, questions)`, class indices; rows of -100 are left out.

        Returns:
            The sum over the questions of the mean over the captions.
        """
        logits = self.heads(pooled.float()).split(list(ATTRIBUTE_SIZES.values()), dim=1)
        asked = [cross_entropy(given, answers[:, i]) for i, given in enumerate(logits)]
        return torch.stack(asked).sum()


def make_text_path(folder: Path, unet: UNet2DConditionModel) -> TextPath:
    """Makes an untrained text path that shares the pooling of that UNet."""
    tokenizer = load_tokenizer(folder / "tokenizer")
    return TextPath(tokenizer, unet.add_embedding, unet.config.block_out_channels[0] * 4)


def train_text(
    team: Team, folder: Path, minutes: float, seed: int, start: Path | None = None
) -> None:
    """Trains the text path into `folder/text.pt`; wants `folder/tokenizer`.

    Args:
        team: The processes that train together.
        folder: The work folder.
        minutes: The budget.
        seed: Of captions and weights.
        start: A model whose text path is to learn on, instead of a fresh one. What it says about
            single shapes is kept, since its UNet draws by that.
    """
    torch.manual_seed(seed)
    unet = make_unet()
    path = make_text_path(folder, unet)
    before = None
    if start:
        start_unet(unet, start)
        start_text(path, start)
        before = deepcopy(path).requires_grad_(requires_grad=False)
    rng = Random(f"text {seed} {team.rank}")

    def losses(_progress: float) -> Losses:
        scenes = [sample_scene(rng, EVERYTHING) for _ in range(CAPTIONS)]
        answers = torch.tensor([attributes(scene) for scene in scenes])
        with half_precision():
            _, pooled = path(captions_of(scenes, rng))
        questions = path.examine(pooled, answers)
        if before is None:
            return {"loss": questions}
        known = captions_of([sample_scene(rng, SHAPES_ONLY) for _ in range(CAPTIONS)], rng)
        with half_precision():
            drift = (path(known)[1] - before(known)[1]).float().square().mean()
        return {"loss": questions + KEEPING * drift, "questions": questions, "drift": drift}

    plan = Plan(minutes, rate=5e-4 if start else 1e-3, ema=0.99, warm_up=20)
    fit(team, path, [(1.0, list(path.parameters()))], losses, plan, folder / "text.pt")


def captions_of(scenes: list[Scene], rng: Random) -> list[str]:
    """Words scenes as people would."""
    return [vary(caption(scene, rng), rng) for scene in scenes]
