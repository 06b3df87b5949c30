"""Models with random weights in the shapes of real ones: the work is the same, no download needed.

What they draw is noise. A family's own configurations (`engine/families`) give the shapes; tiny
ones let the same benchmark run to its end on any machine.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch  # noqa: TID253 - run by itself, no front end imports it
from diffusers import AutoencoderKL, UNet2DConditionModel  # noqa: TID253 - what is made
from transformers import (  # noqa: TID253 - likewise
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
)

from engine.families import VOCABULARY, config_folder
from engine.jobs import Family

_TINY: dict[str, dict[str, Any]] = {
    "unet": {"layers_per_block": 1, "norm_num_groups": 8, "attention_head_dim": 8},
    "vae": {"block_out_channels": [8, 8, 8, 8], "layers_per_block": 1, "norm_num_groups": 4},
    "text_encoder": {"num_hidden_layers": 1, "intermediate_size": 64},
    "text_encoder_2": {"num_hidden_layers": 2, "intermediate_size": 64},
}


def random_model(family: Family, folder: Path, device: str, *, tiny: bool = False) -> Path:
    """Saves a diffusers folder of a family with random weights, float16 on a GPU.

    Args:
        family: whose shapes.
        folder: where to; an existing one is used as it is.
        device: where the weights are made.
        tiny: whether layers are few and narrow; what the detector looks at keeps its shape.
    """
    if (folder / "model_index.json").exists():
        return folder
    configs = config_folder(family)
    shutil.copytree(configs, folder, dirs_exist_ok=True)
    for tokenizer in folder.glob("tokenizer*"):
        for file in VOCABULARY.iterdir():
            shutil.copy(file, tokenizer)
    torch.manual_seed(0)
    for part in ("text_encoder", "text_encoder_2", "unet", "vae"):
        path = folder / part / "config.json"
        if not path.exists():
            continue
        config = json.loads(path.read_text(encoding="utf-8"))
        if tiny:
            config |= _TINY[part]
            if part == "unet":
                blocks = len(config["block_out_channels"])
                config["block_out_channels"] = [32 * 2**number for number in range(blocks)]
                config["transformer_layers_per_block"] = 1
        with torch.device(device):
            module = _MAKERS[part](config)
        if device != "cpu":
            module.half()
        module.save_pretrained(folder / part)
        del module
    return folder


def look_alike(model: Path, folder: Path, seed: int) -> Path:
    """Makes a diffusers folder that has a UNet of its own, and all else of another one."""
    folder.mkdir()
    for part in model.resolve().iterdir():
        if part.name != "unet":
            (folder / part.name).symlink_to(part, target_is_directory=part.is_dir())
    unet = UNet2DConditionModel.from_pretrained(model / "unet", local_files_only=True)
    torch.manual_seed(seed)
    with torch.no_grad():
        for weight in unet.parameters():
            weight.mul_(1 + 0.001 * torch.randn(1))
    unet.save_pretrained(folder / "unet")
    return folder


def _text_encoder(kind: Any) -> Any:
    return lambda config: kind(CLIPTextConfig(**config))


_MAKERS = {
    "text_encoder": _text_encoder(CLIPTextModel),
    "text_encoder_2": _text_encoder(CLIPTextModelWithProjection),
    "unet": UNet2DConditionModel.from_config,
    "vae": AutoencoderKL.from_config,
}
