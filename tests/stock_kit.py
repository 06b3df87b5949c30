"""The stock schedulers that our samplers are compared with."""

from collections.abc import Callable
from typing import Any

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
