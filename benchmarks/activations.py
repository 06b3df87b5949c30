"""Counts the memory that drawing takes beside the weights, on torch's meta device: no GPU needed.

    python -m benchmarks.activations

Every tensor that a forward pass makes is counted as long as it lives, in the real shapes of each
family; what kernels take for themselves beside that is not in it. `engine.room` takes its figures
where nothing was measured on the device itself.
"""

import argparse
import json
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch  # noqa: TID253 - run by itself, no front end imports it
from diffusers import AutoencoderKL, UNet2DConditionModel  # noqa: TID253 - what is counted
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: TID253
from torch.utils._pytree import tree_leaves  # noqa: TID253

from benchmarks.machine import headline, machine, write_results
from engine.families import config_folder
from engine.jobs import Family


class Live(TorchDispatchMode):
    """Counts the bytes of the tensors that are made while it is on.

    Attributes:
        most: bytes that lived at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.most = 0
        self._now = 0
        self._storages: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Lets a call happen, and looks at what it made."""
        made = func(*args, **(kwargs or {}))
        given = {id_of(each) for each in tree_leaves((args, kwargs or {})) if is_tensor(each)}
        for tensor in filter(is_tensor, tree_leaves(made)):
            identity = id_of(tensor)
            if identity not in given and identity not in self._storages:
                self._add(tensor, identity)
        return made

    def _add(self, tensor: torch.Tensor, identity: int) -> None:
        storage = tensor.untyped_storage()
        size = storage.nbytes()
        self._storages.add(identity)
        self._now += size
        self.most = max(self.most, self._now)
        weakref.finalize(storage, self._remove, identity, size)

    def _remove(self, identity: int, size: int) -> None:
        self._storages.discard(identity)
        self._now -= size


def is_tensor(value: object) -> bool:
    """Returns whether a value is a tensor."""
    return isinstance(value, torch.Tensor)


def id_of(tensor: torch.Tensor) -> int:
    """Returns what is equal for tensors that share memory."""
    return int(tensor.untyped_storage()._cdata)


def config(family: Family, part: str) -> dict[str, Any]:
    """Returns a part's configuration."""
    text = (config_folder(family) / part / "config.json").read_text(encoding="utf-8")
    values: dict[str, Any] = json.loads(text)
    return values


@torch.inference_mode()
def pass_bytes(family: Family, side: int, rows: int) -> int:
    """Returns the bytes of one forward pass in half precision, ``side`` in pixels."""
    with torch.device("meta"):
        values = config(family, "unet")
        unet: Any = UNet2DConditionModel.from_config(values).half().eval()
        latents = torch.empty(rows, unet.config.in_channels, side // 8, side // 8).half()
        words = torch.empty(rows, 77, unet.config.cross_attention_dim).half()
        added = {}
        if unet.config.addition_embed_type == "text_time":
            numbers = 6 if family is Family.SDXL else 5
            added = {
                "text_embeds": torch.empty(rows, 1280).half(),
                "time_ids": torch.empty(rows, numbers),
            }
        return counted(
            lambda: unet(
                latents,
                torch.empty(rows),
                encoder_hidden_states=words,
                added_cond_kwargs=added,
                return_dict=False,
            )
        )


@torch.inference_mode()
def decode_bytes(family: Family, side: int) -> int:
    """Returns the bytes of turning one picture's latents into pixels, in half precision."""
    with torch.device("meta"):
        vae: Any = AutoencoderKL.from_config(config(family, "vae")).half().eval()
        latents = torch.empty(1, vae.config.latent_channels, side // 8, side // 8).half()
        return counted(lambda: vae.decode(latents, return_dict=False))


def counted(call: Callable[[], Any]) -> int:
    """Returns the bytes that lived at once during a call."""
    live = Live()
    with live:
        call()
    return live.most


def measure(sides: list[int]) -> Iterator[dict[str, Any]]:
    """Yields the figures of every family and size."""
    for family in Family:
        for side in sides:
            pixels = side * side
            two, four = (pass_bytes(family, side, rows) for rows in (2, 4))
            yield {
                "family": family.value,
                "side": side,
                "pass_mb": two / 1e6,
                "pass_bytes_per_pixel_and_row": two / pixels / 2,
                "more_rows": (four - two) / two,
                "decode_mb": decode_bytes(family, side) / 1e6,
                "decode_bytes_per_pixel": decode_bytes(family, side) / pixels,
            }


def main() -> None:
    """Reads the command line, prints the table and writes it down."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sides", type=int, nargs="+", default=[512, 1024, 2048])
    options = parser.parse_args()
    facts = machine()
    print(headline(facts))
    print("\nHalf precision, beside the weights; a pass of two rows is one picture with guidance\n")
    heads = ("pass MB", "bytes/pixel/row", "decode MB", "bytes/pixel")
    print(f"{'':24}" + "".join(f"{head:>18}" for head in heads))
    figures = []
    for each in measure(options.sides):
        figures.append(each)
        cells = (
            each["pass_mb"],
            each["pass_bytes_per_pixel_and_row"],
            each["decode_mb"],
            each["decode_bytes_per_pixel"],
        )
        name = f"{each['family']} {each['side']}x{each['side']}"
        print(f"{name:24}" + "".join(f"{cell:>18,.0f}" for cell in cells), flush=True)
    print(f"\n{write_results('activations', facts, figures)}")


if __name__ == "__main__":
    main()
