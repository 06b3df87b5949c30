"""Starting from a model that exists: its weights go into networks that know more words.

So a model can be taught new scenes without forgetting the old ones, in a fraction of the time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

# ruff: noqa: TID253 - the training code owns its torch; no front end imports it
import torch
from diffusers import UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

if TYPE_CHECKING:
    from pathlib import Path

    from training.demo.train_text import TextPath


def start_unet(unet: UNet2DConditionModel, model: Path) -> None:
    """Copies the UNet of a model folder, the pooling of its text included."""
    unet.load_state_dict(_load(UNet2DConditionModel, model / "unet").state_dict())


def start_text(path: TextPath, model: Path) -> None:
    """Copies the text encoder of a model folder; words that both know keep their meaning.

    Args:
        path: The text path; what its tokenizer has anew stays as it is.
        model: A folder whose text encoder has the same widths and as many positions.
    """
    old = _load(CLIPTextModel, model / "text_encoder").state_dict()
    own = path.encoder.state_dict()
    for name, weights in old.items():
        if not name.endswith("token_embedding.weight"):
            own[name].copy_(weights)
            continue
        old_rows = CLIPTokenizer.from_pretrained(model / "tokenizer").get_vocab()
        for token, row in path.tokenizer.get_vocab().items():
            if token in old_rows:
                own[name][row] = weights[old_rows[token]]
    path.encoder.load_state_dict(own)


def _load(kind: type[torch.nn.Module], folder: Path) -> torch.nn.Module:
    loaded: torch.nn.Module = kind.from_pretrained(folder).float()  # type: ignore[attr-defined]
    return loaded
