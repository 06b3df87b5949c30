"""Trains the demo model from nothing, with one command.

    python -m training.demo.train

draws the pictures, learns the tokenizer, trains text path, UNet and autoencoder on the processor,
and writes the model. An interrupted run goes on where it was. See training/demo/README.md.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from training.demo.assemble import assemble
from training.demo.fitting import launch
from training.demo.tokenizer import make_tokenizer
from training.demo.train_autoencoder import polish_decoder, train_autoencoder
from training.demo.train_text import train_text
from training.demo.train_unet import CURRICULA, train_unet

STAGES = ("tokenizer", "text", "autoencoder", "unet", "polish", "assemble")
# Of the budget; the tokenizer and the assembly take seconds.
SHARES = {"text": 0.03, "autoencoder": 0.15, "unet": 0.72, "polish": 0.10}


@dataclass(frozen=True)
class Options:
    """What the command line says; see `--help`."""

    work: Path
    out: Path
    minutes: float
    stages: tuple[str, ...]
    processes: int
    seed: int
    start: Path | None
    scenes: str


def main() -> None:
    """Runs the stages that the command line asks for."""
    options = read_options()
    options.work.mkdir(parents=True, exist_ok=True)
    for stage in STAGES:
        if stage in options.stages:
            print(f"--- {stage}", flush=True)
            run_stage(stage, options)


def run_stage(stage: str, options: Options) -> None:
    """Runs one stage.

    Args:
        stage: A name from `STAGES`.
        options: Folders, budget and processes.
    """
    if stage == "tokenizer":
        tokenizer = make_tokenizer(options.work / "tokenizer", options.seed)
        print(f"{len(tokenizer)} tokens")
    elif stage == "assemble":
        assemble(options.work, options.out)
    else:
        trainers: dict[str, Callable[..., None]] = {
            "text": train_text,
            "autoencoder": train_autoencoder,
            "unet": train_unet,
            "polish": polish_decoder,
        }
        minutes = options.minutes * SHARES[stage]
        arguments: list[object] = [options.work, minutes, options.seed]
        if stage in ("text", "unet"):
            arguments.append(options.start)
        if stage == "unet":
            arguments.append(options.scenes)
        launch(trainers[stage], options.processes, *arguments)


def read_options() -> Options:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m training.demo.train",
        description="Trains the demo model from nothing: a small text-to-image model in the stock "
        "diffusers format, from pictures that this program draws itself. Needs the extra "
        "'training' (pip install -e '.[training]') and no network.",
        epilog="Two minutes show that everything runs (--minutes 2 --out /tmp/demo-model) and "
        "draw nothing yet. Stages can be repeated alone (--stages polish assemble); a finished "
        "stage whose file is still in the work folder is not trained again, so delete the file "
        "to start over.",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=100,
        help="wall-clock minutes for all stages together on this machine (default: %(default)s)",
    )
    parser.add_argument(
        "--stages",
        nargs="+",
        choices=STAGES,
        default=STAGES,
        help="the stages to run, always in this order (default: all of them)",
    )
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("data/demo-training"),
        help="folder for checkpoints, a few hundred MB (default: %(default)s)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("models/diffusers/dream-demo"),
        help="folder for the finished model, which is replaced (default: %(default)s)",
    )
    parser.add_argument(
        "--processes",
        type=int,
        default=os.cpu_count() or 1,
        help="training processes of one thread each (default: the cores, %(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of everything drawn by chance (default: 0)"
    )
    parser.add_argument(
        "--start",
        type=Path,
        help="a finished model's folder: its text path and UNet learn on, instead of fresh ones",
    )
    parser.add_argument(
        "--scenes",
        choices=tuple(CURRICULA),
        default="shapes",
        help="what the UNet learns to draw: 'shapes' is one shape at a time, 'everything' is two, "
        "counts, things and landscapes as well (default: %(default)s)",
    )
    given = vars(parser.parse_args())
    return Options(**given | {"stages": tuple(given["stages"])})


if __name__ == "__main__":
    main()
