"""The autoencoder's stage: an encoder that computes the latents, a decoder that undoes them."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

# ruff: noqa: TID253 - the training code owns its torch; no front end imports it
import torch
from torch.nn.functional import l1_loss, mse_loss

from training.demo.drawing import draw
from training.demo.fitting import Losses, Plan, Team, fit, half_precision
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
REDRAWN = 6  # of a batch of crops, in the polish; of whole pictures half
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
        cropped = progress < CROPPED_SHARE
        pictures = to_tensor(
            [draw(sample_scene(rng), rng) for _ in range(CROPS if cropped else WHOLE_PICTURES)]
        )
        latents = latents_of(pictures)
        if cropped:
            pictures, latents, _ = busy_crops(pictures, latents, latents, rng)
        with half_precision():
            parts = decoder_losses(autoencoder, pictures, shaken(latents))
            latent = autoencoder.encode(pictures).latent_dist.mean.float() * SCALING_FACTOR
        parts["latent"] = mse_loss(latent, latents)
        parts["loss"] = parts["loss"] + 0.5 * parts["latent"]
        return parts

    # The layer that fixes the encoder's deviation near zero stays as it is made.
    fixed = {id(p) for p in autoencoder.quant_conv.parameters()}
    trained = [p for p in autoencoder.parameters() if id(p) not in fixed]
    plan = Plan(minutes, rate=2e-3, hold=0.3, ema=0.995)
    fit(team, autoencoder, [(1.0, trained)], losses, plan, folder / "autoencoder.pt")


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

    def losses(progress: float) -> Losses:
        cropped = progress < CROPPED_SHARE
        scenes = [sample_scene(rng) for _ in range(CROPS if cropped else WHOLE_PICTURES)]
        pictures = to_tensor([draw(scene, rng) for scene in scenes])
        latents = latents_of(pictures)
        few = REDRAWN if cropped else WHOLE_PICTURES // 2
        with half_precision():
            redrawn = _redrawn(painter, latents[:few], scenes[:few], rng)
            given = torch.cat([redrawn, shaken(latents[few:])])
            if cropped:
                pictures, _, given = busy_crops(pictures, latents, given, rng)
            return decoder_losses(autoencoder, pictures, given)

    decoder = [*autoencoder.decoder.parameters(), *autoencoder.post_quant_conv.parameters()]
    plan = Plan(minutes, rate=1.5e-3, hold=0.3, ema=0.995, warm_up=30)
    fit(team, autoencoder, [(1.0, decoder)], losses, plan, folder / "polished.pt")


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


def shaken(latents: torch.Tensor) -> torch.Tensor:
    """Adds noise of up to `NOISE` deviations, as a UNet's latents are never quite right either."""
    return latents + torch.randn_like(latents) * torch.rand(len(latents), 1, 1, 1) * NOISE


def decoder_losses(
    autoencoder: AutoencoderKL, pictures: torch.Tensor, given: torch.Tensor
) -> Losses:
    """Compares what the decoder makes of latents with what it should.

    Args:
        autoencoder: The autoencoder.
        pictures: `(B, 3, H, W)`, -1 to 1: what it should give.
        given: `(B, 4, H/8, W/8)`: the latents that it is given.

    Returns:
        "loss" to descend, and its parts.
    """
    decoded = autoencoder.decode(given / SCALING_FACTOR).sample.float()
    picture = l1_loss(decoded, pictures)
    edges = l1_loss(_slopes(decoded, -1), _slopes(pictures, -1)) + l1_loss(
        _slopes(decoded, -2), _slopes(pictures, -2)
    )
    loss = picture + mse_loss(decoded, pictures) + 0.5 * edges
    return {"loss": loss, "picture": picture, "edges": edges}


def _slopes(pictures: torch.Tensor, axis: int) -> torch.Tensor:
    """Differences between neighbours: where the edges lie, and how sharp they are."""
    return pictures.diff(dim=axis)


def busy_crops(
    pictures: torch.Tensor, latents: torch.Tensor, given: torch.Tensor, rng: Random
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Cuts the busier of two windows out of every picture, and its latents with it.

    Args:
        pictures: `(B, 3, H, W)`.
        latents: `(B, 4, H/8, W/8)`.
        given: Other latents of the same shape, cut likewise.
        rng: Chooses the windows.

    Returns:
        The three, cut to windows of `CROP_CELLS` cells a side.
    """
    cut = []
    for number, picture in enumerate(pictures):
        windows = []
        for _ in range(2):
            row, column = (rng.randint(0, latents.shape[-1] - CROP_CELLS) for _ in "yx")
            rows, columns = (slice(at * CELL, (at + CROP_CELLS) * CELL) for at in (row, column))
            windows.append((float(picture[:, rows, columns].std()), row, column))
        _, row, column = max(windows)
        cells = (number, ..., slice(row, row + CROP_CELLS), slice(column, column + CROP_CELLS))
        rows, columns = (slice(at * CELL, (at + CROP_CELLS) * CELL) for at in (row, column))
        cut.append((picture[:, rows, columns], latents[cells], given[cells]))
    cut_pictures, cut_latents, cut_given = zip(*cut, strict=True)
    return torch.stack(cut_pictures), torch.stack(cut_latents), torch.stack(cut_given)
