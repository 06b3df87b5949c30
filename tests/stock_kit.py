"""The stock schedulers and pipelines that ours are compared with."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch  # noqa: TID253 - the subject is made of it
from diffusers import (  # noqa: TID253 - the subject is made of it
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    DPMSolverSinglestepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    LCMScheduler,
    UniPCMultistepScheduler,
)

from engine.jobs import Sampler
from engine.workers.alignment import align

# Made as diffusers' own documentation tells people to, not by the code under test.
STOCK: dict[Sampler, Callable[[Any], Any]] = {
    Sampler.EULER: EulerDiscreteScheduler.from_config,
    Sampler.EULER_A: EulerAncestralDiscreteScheduler.from_config,
    Sampler.HEUN: HeunDiscreteScheduler.from_config,
    Sampler.DPMPP_2M: DPMSolverMultistepScheduler.from_config,
    Sampler.DPMPP_2M_KARRAS: lambda config: DPMSolverMultistepScheduler.from_config(
        config, use_karras_sigmas=True
    ),
    Sampler.DPMPP_2M_SDE_KARRAS: lambda config: DPMSolverMultistepScheduler.from_config(
        config, use_karras_sigmas=True, algorithm_type="sde-dpmsolver++"
    ),
    Sampler.DPMPP_SDE_KARRAS: lambda config: DPMSolverSinglestepScheduler.from_config(
        config, use_karras_sigmas=True
    ),
    Sampler.UNIPC: UniPCMultistepScheduler.from_config,
    Sampler.LCM: LCMScheduler.from_config,
    Sampler.DDIM: DDIMScheduler.from_config,
}


def drawn_at_once(
    pipeline: Any, prompt: str, **options: Any
) -> tuple[torch.Tensor, np.ndarray[Any, Any]]:
    """Has a stock pipeline draw one picture.

    Returns:
        What the last step left, ``[channels, height, width]``, and the levels that it was decoded
        to, ``[height, width, 3]`` in 0 to 255.
    """
    left: list[torch.Tensor] = []

    def keep(_pipeline: Any, _step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        left.append(tensors["latents"])
        return tensors

    [picture] = pipeline(prompt, callback_on_step_end=keep, **options).images
    return left[-1][0], np.asarray(picture)


def aligned(pipeline: Any) -> Any:
    """Gives a stock pipeline's weights what a worker's have, or the two round differently.

    That is the alignment, and no gradients: with them, torch's `matmul` takes another way.
    """
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.requires_grad_(requires_grad=False)
            align(part)
    return pipeline
