"""Each family's configuration, shipped so that single-file checkpoints load without a network.

A folder per family has what a published diffusers folder of it has, less the weights. The
tokenizers' vocabulary is the same for all and lies once in ``clip``. See README.md for sources.
"""

from pathlib import Path

from engine.jobs import Family

VOCABULARY = Path(__file__).parent / "clip"
"""Holds ``vocab.json`` and ``merges.txt``."""


def config_folder(family: Family) -> Path:
    """Returns the folder with a family's ``model_index.json`` and one folder per component."""
    return Path(__file__).parent / family.value
