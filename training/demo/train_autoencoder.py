"""The autoencoder's stage: an encoder that computes the latents, a decoder that undoes them."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

# ruff: noqa: TID253 - the training code owns its torch; no front end imports it
import torch
from torch.nn.functional import l1_loss, mse_loss

from training.demo.drawing import draw
from training.demo.fitting import Losses, Plan, Team, fit
from training.demo.latents import CELL, latents_of, to_tensor
from training.demo.networks import SCALING_FACTOR, make_autoencoder, make_scheduler
from training.demo.scenes import Scene, sample_scene
from training.demo.train_text import captions_of
from training.demo.train_unet import Painter

if TYPE_CHECKING:
    from pathlib import Path

    from diffusers import AutoencoderKL

CROP_CELLS = 8
CROPS = 12
WHOLE_PICTURES = 4
CROPPED_SHARE = 0.75
NOISE = 0.2
STEPS = 20  # of a whole drawing, at which the polish takes the last few
GUIDANCE = 3.0


def train_autoencoder(team: Team, folder: Path, minutes: float, seed: int) -> None:
    """Trains the autoencoder into `folder/autoencoder.pt`.

    First on busy crops of pictures, since most of a flat picture is flat, then on whole ones.

    Args:
        team: The processes that train together.
        folder: The work folder.
        minutes: The budget.
        seed: Of pictures, weights and noise.
    """
    torch.manual_seed(seed)
    autoencoder = make_autoencoder()
    rng = Random(f"autoencoder {seed} {team.rank}")
    torch.manual_seed(seed + 1 + team.rank)

    def losses(progress: float) -> Losses:
        if progress < CROPPED_SHARE:
            pictures, latents = _crops(rng)
        else:
            pictures = to_tensor([draw(sample_scene(rng), rng) for _ in range(WHOLE_PICTURES)])
            latents = latents_of(pictures)
        with torch.autocast("cpu", torch.bfloat16):
            return autoencoder_losses(autoencoder, pictures, latents, shaken(latents))

    plan = Plan(minutes, rate=2e-3, hold=0.3, ema=0.995)
    fit(team, autoencoder, trained_groups(autoencoder), losses, plan, folder / "autoencoder.pt")


def polish_decoder(team: Team, folder: Path, minutes: float, seed: int) -> None:
    """Trains the decoder on into `folder/polished.pt`; wants `unet.pt` and `autoencoder.pt`.

    A UNet's latents are wrong in ways that noise is not: edges waver. So the decoder is shown
    latents that the UNet itself has drawn, from true ones with some noise, beside the picture
    that they stand for, and learns to straighten them.

    Args:
        team: The processes that train together.
        folder: The work folder.
        minutes: The budget.
        seed: Of pictures and noise.
    """
    autoencoder, painter = make_autoencoder(), Painter(folder)
    for model, name in ((autoencoder, "autoencoder.pt"), (painter, "unet.pt")):
        model.load_state_dict(torch.load(folder / name, weights_only=True)["model"])
    painter.requires_grad_(requires_grad=False).eval()
    rng = Random(f"polish {seed} {team.rank}")
    torch.manual_seed(seed + 101 + team.rank)

    def losses(_progress: float) -> Losses:
        scenes = [sample_scene(rng) for _ in range(WHOLE_PICTURES)]
        pictures = to_tensor([draw(scene, rng) for scene in scenes])
        latents = latents_of(pictures)
        half = WHOLE_PICTURES // 2
        with torch.autocast("cpu", torch.bfloat16):
            redrawn = _redrawn(painter, latents[:half], scenes[:half], rng)
            drawn = torch.cat([redrawn, shaken(latents[half:])])
            return autoencoder_losses(autoencoder, pictures, latents, drawn)

    plan = Plan(minutes, rate=8e-4, hold=0.3, ema=0.995, warm_up=30)
    fit(team, autoencoder, trained_groups(autoencoder), losses, plan, folder / "polished.pt")


@torch.no_grad()
def _redrawn(
    painter: Painter, latents: torch.Tensor, scenes: list[Scene], rng: Random
) -> torch.Tensor:
    """Adds noise to true latents and lets the UNet take a drawing's last 2 to 5 steps on them."""
    scheduler = make_scheduler()
    scheduler.set_timesteps(STEPS)
    steps = scheduler.timesteps[-rng.randint(2, 5) :]
    sample: torch.Tensor = scheduler.add_noise(latents, torch.randn_like(latents), steps[0])
    hidden, pooled = painter.text([""] * len(scenes) + captions_of(scenes, rng))
    for step in steps:
        both = torch.cat([sample, sample])
        without, along = painter(both, step.expand(len(both)), hidden, pooled).chunk(2)
        velocity = without + GUIDANCE * (along - without)
        sample = scheduler.step(velocity, step, sample, return_dict=False)[0]
    return sample


def trained_groups(
    autoencoder: AutoencoderKL,
) -> list[tuple[float, list[torch.nn.Parameter]]]:
    """What is trained: all but the layer that fixes the encoder's deviation near zero."""
    kept = {id(p) for p in autoencoder.quant_conv.parameters()}
    return [(1.0, [p for p in autoencoder.parameters() if id(p) not in kept])]


def shaken(latents: torch.Tensor) -> torch.Tensor:
    """Adds noise of up to `NOISE` deviations, as a UNet's latents are never quite right either."""
    return latents + torch.randn_like(latents) * torch.rand(len(latents), 1, 1, 1) * NOISE


def autoencoder_losses(
    autoencoder: AutoencoderKL,
    pictures: torch.Tensor,
    latents: torch.Tensor,
    drawn: torch.Tensor,
) -> Losses:
    """Compares both halves with what they should give.

    Args:
        autoencoder: The autoencoder.
        pictures: `(B, 3, H, W)`, -1 to 1: what the decoder should give.
        latents: `(B, 4, H/8, W/8)`: what the encoder should give.
        drawn: Latents of the same shape that the decoder is given.

    Returns:
        "loss" to descend, and its parts.
    """
    decoded = autoencoder.decode(drawn / SCALING_FACTOR).sample.float()
    encoded = autoencoder.encode(pictures).latent_dist.mean.float() * SCALING_FACTOR
    picture = l1_loss(decoded, pictures)
    edges = l1_loss(_slopes(decoded, -1), _slopes(pictures, -1)) + l1_loss(
        _slopes(decoded, -2), _slopes(pictures, -2)
    )
    latent = mse_loss(encoded, latents)
    loss = picture + mse_loss(decoded, pictures) + 0.5 * edges + 0.5 * latent
    return {"loss": loss, "picture": picture, "edges": edges, "latent": latent}


def _slopes(pictures: torch.Tensor, axis: int) -> torch.Tensor:
    """Differences between neighbours: where the edges lie, and how sharp they are."""
    return pictures.diff(dim=axis)


def _crops(rng: Random) -> tuple[torch.Tensor, torch.Tensor]:
    """Draws pictures and cuts the busier of two windows out of each, with its latents."""
    pictures, latents = [], []
    for _ in range(CROPS):
        whole = to_tensor([draw(sample_scene(rng), rng)])
        cells = latents_of(whole)
        windows = []
        for _ in range(2):
            row, column = (rng.randint(0, cells.shape[-1] - CROP_CELLS) for _ in "yx")
            pixels = [slice(at * CELL, (at + CROP_CELLS) * CELL) for at in (row, column)]
            crop = whole[..., pixels[0], pixels[1]]
            part = cells[..., row : row + CROP_CELLS, column : column + CROP_CELLS]
            windows.append((float(crop.std()), crop, part))
        _, crop, part = max(windows, key=lambda window: window[0])
        pictures.append(crop)
        latents.append(part)
    return torch.cat(pictures), torch.cat(latents)
