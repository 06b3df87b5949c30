"""The stock schedulers and pipelines that ours are compared with."""

from collections.abc import Callable
from typing import Any

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


def aligned(pipeline: Any) -> Any:
    """Gives a stock pipeline's weights what a worker's have, or the two round differently.

    That is the alignment, and no gradients: with them, torch's `matmul` takes another way.
    """
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.requires_grad_(requires_grad=False)
            align(part)
    return pipeline
