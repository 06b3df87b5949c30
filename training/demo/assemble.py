"""Puts the trained networks into one folder, in the stock format, in half precision."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

# ruff: noqa: TID253 - the training code owns its torch; no front end imports it
import torch
from diffusers import StableDiffusionPipeline

from training.demo.networks import make_autoencoder, make_scheduler
from training.demo.train_unet import Painter

if TYPE_CHECKING:
    from pathlib import Path

KEPT = ("README.md",)  # written by hand, so no run may remove it


def assemble(folder: Path, out: Path) -> None:
    """Writes the model that the stages trained; an unfinished stage's last checkpoint will do.

    Args:
        folder: The work folder, with `tokenizer`, `unet.pt`, and `polished.pt` or else
            `autoencoder.pt`.
        out: The model's folder; replaced, but for its `README.md`.
    """
    painter, autoencoder = Painter(folder), make_autoencoder()
    painter.load_state_dict(_weights(folder / "unet.pt"))
    polished = folder / "polished.pt"
    trained = polished if polished.exists() else folder / "autoencoder.pt"
    autoencoder.load_state_dict(_weights(trained))
    pipeline = StableDiffusionPipeline(
        vae=autoencoder.eval(),
        text_encoder=painter.text.encoder.eval(),
        tokenizer=painter.text.tokenizer,
        unet=painter.unet.eval(),
        scheduler=make_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    for part in sorted(out.iterdir()) if out.is_dir() else []:
        if part.is_dir():
            shutil.rmtree(part)
        elif part.name not in KEPT:
            part.unlink()
    pipeline.to(torch.float16).save_pretrained(out, safe_serialization=True)
    for name in ("vocab.json", "merges.txt"):  # for readers of the older tokenizer format
        shutil.copy(folder / "tokenizer" / name, out / "tokenizer" / name)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(f"{out}: {size / 1e6:.1f} MB")


def _weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Reads a checkpoint's mean weights."""
    weights: dict[str, torch.Tensor] = torch.load(checkpoint, weights_only=True)["model"]
    return weights
