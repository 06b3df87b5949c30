"""What tests of the drawing side share: the bundled model, requests for it, broken copies."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.jobs import GenerationRequest, ModelSpec, Sampler

DEMO = ModelSpec(Path(__file__).parent.parent / "models" / "diffusers" / "dream-demo")

REQUEST = GenerationRequest(
    mode="dream",
    model=DEMO,
    prompt="a red house by the sea",
    negative_prompt="night",
    width=128,
    height=128,
    steps=4,
    guidance_scale=5.0,
    sampler=Sampler.EULER,
    seed=7,
)
"""A quick one; `ask` changes what matters to a test."""


def ask(**changes: Any) -> GenerationRequest:
    """Returns `REQUEST` with changes."""
    return replace(REQUEST, **changes)


def copy_demo(folder: Path) -> ModelSpec:
    """Copies the bundled model so that a test may break it."""
    path = folder / "model"
    shutil.copytree(DEMO.path, path)
    return ModelSpec(path)
