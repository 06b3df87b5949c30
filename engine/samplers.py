"""One scheduler per picture, every value of it written down.

Diffusers' ``from_config`` carries values over from whatever scheduler the model happened to be
saved with and fills the rest with class defaults; a DDIM scheduler made from an Euler
configuration clips its latents that way without a word. So nothing is inherited here: how the
model was *trained* (betas, prediction type, ...) comes from the model's scheduler file, how it is
*sampled* from the tables below.
"""

import inspect
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

# Only the worker process imports this module.
from diffusers.schedulers.scheduling_ddim import DDIMScheduler  # noqa: TID253
from diffusers.schedulers.scheduling_dpmsolver_multistep import (  # noqa: TID253
    DPMSolverMultistepScheduler,
)
from diffusers.schedulers.scheduling_dpmsolver_singlestep import (  # noqa: TID253
    DPMSolverSinglestepScheduler,
)
from diffusers.schedulers.scheduling_euler_ancestral_discrete import (  # noqa: TID253
    EulerAncestralDiscreteScheduler,
)
from diffusers.schedulers.scheduling_euler_discrete import (  # noqa: TID253
    EulerDiscreteScheduler,
)
from diffusers.schedulers.scheduling_heun_discrete import HeunDiscreteScheduler  # noqa: TID253
from diffusers.schedulers.scheduling_lcm import LCMScheduler  # noqa: TID253
from diffusers.schedulers.scheduling_unipc_multistep import (  # noqa: TID253
    UniPCMultistepScheduler,
)

from engine.errors import ModelFormatError, RequestError
from engine.jobs import Sampler
from engine.model_files import read_config

PREDICTION_TYPES = ("epsilon", "v_prediction")
_BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
_SPACINGS = ("leading", "trailing", "linspace")
_MOST_TIMESTEPS = 100_000  # all known models have 1000; the schedulers make arrays of this length

Number = TypeVar("Number", int, float)


@dataclass(frozen=True, slots=True)
class NoiseSchedule:
    """How a model was trained to see noise.

    Attributes:
        num_train_timesteps: timesteps of the training schedule.
        beta_start: first variance.
        beta_end: last variance.
        beta_schedule: how the variances go from the first to the last.
        trained_betas: the variances themselves, in place of the three above; None as a rule.
        prediction_type: what the UNet's output means: ``epsilon`` or ``v_prediction``.
        timestep_spacing: which training timesteps the steps visit, where the model's file says;
            None leaves it to the sampler.
        steps_offset: added to the timesteps under ``leading`` spacing.
        rescale_betas_zero_snr: whether the last timestep is pure noise.
    """

    num_train_timesteps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    beta_schedule: str = "scaled_linear"
    trained_betas: tuple[float, ...] | None = None
    prediction_type: str = "epsilon"
    timestep_spacing: str | None = None
    steps_offset: int = 1
    rescale_betas_zero_snr: bool = False

    @property
    def most_steps(self) -> int:
        """Most steps that all samplers can make of it.

        With more, some would visit a timestep twice or pass the last one, and draw values that
        are no numbers.
        """
        return max(1, self.num_train_timesteps // 2)

    @classmethod
    def read(cls, path: Path, prediction_type: str | None = None) -> "NoiseSchedule":
        """Reads a model's ``scheduler_config.json``.

        What the file leaves out has the default of diffusers' scheduler classes, which wrote it
        (those agree in all of these values), not Stable Diffusion's.

        Args:
            path: the file.
            prediction_type: takes the place of the file's, where a mode says so.

        Raises:
            ModelNotFoundError: there is no such file.
            ModelFormatError: it is no JSON object or holds a value out of range.
        """
        config = read_config(path)
        if prediction_type is not None:
            config = config | {"prediction_type": prediction_type}
        try:
            return cls._from_config(config)
        except ValueError as error:
            raise ModelFormatError(path, str(error)) from error

    @classmethod
    def _from_config(cls, config: Mapping[str, Any]) -> "NoiseSchedule":
        schedule = cls(
            num_train_timesteps=_number(config, "num_train_timesteps", 1000, int),
            beta_start=_number(config, "beta_start", 0.0001, float),
            beta_end=_number(config, "beta_end", 0.02, float),
            beta_schedule=config.get("beta_schedule", "linear"),
            trained_betas=_betas(config.get("trained_betas")),
            prediction_type=config.get("prediction_type", "epsilon"),
            timestep_spacing=config.get("timestep_spacing"),
            steps_offset=_number(config, "steps_offset", 0, int),
            rescale_betas_zero_snr=bool(config.get("rescale_betas_zero_snr", False)),
        )
        schedule._check()
        return schedule

    def _check(self) -> None:
        _one_of("prediction_type", self.prediction_type, PREDICTION_TYPES)
        _one_of("beta_schedule", self.beta_schedule, _BETA_SCHEDULES)
        if self.timestep_spacing is not None:
            _one_of("timestep_spacing", self.timestep_spacing, _SPACINGS)
        timesteps = self.num_train_timesteps
        if not 1 <= timesteps <= _MOST_TIMESTEPS:
            raise ValueError(f"num_train_timesteps is {timesteps}, not 1 to {_MOST_TIMESTEPS}")
        if not 0 <= self.steps_offset < timesteps:
            raise ValueError(f"steps_offset is {self.steps_offset}, not 0 to {timesteps - 1}")
        if not 0 < self.beta_start <= self.beta_end < 1:
            raise ValueError(
                f"beta_start {self.beta_start} and beta_end {self.beta_end} are no variances "
                "between 0 and 1 in this order"
            )
        if self.trained_betas is not None and len(self.trained_betas) != timesteps:
            raise ValueError(
                f"trained_betas has {len(self.trained_betas)} values for {timesteps} timesteps"
            )


def _number(config: Mapping[str, Any], name: str, default: Number, kind: type[Number]) -> Number:
    value = config.get(name, default)
    # A whole number is fine as a float; true and false are no numbers.
    if isinstance(value, bool) or not isinstance(value, (int, kind)):
        raise ValueError(f"{name} is {value!r}, no number")  # noqa: TRY004 - the file's fault
    return kind(value)


def _betas(values: object) -> tuple[float, ...] | None:
    if values is None:
        return None
    if not isinstance(values, list) or not all(
        type(value) in (int, float) and 0 < value < 1 for value in values
    ):
        raise ValueError("trained_betas is no list of numbers between 0 and 1")
    return tuple(values)


def _one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}. Allowed: {', '.join(allowed)}")


# The names are AUTOMATIC1111's and k-diffusion's; which class and which values draw as they do is
# diffusers' own table of the two (https://huggingface.co/docs/diffusers/api/schedulers/overview).
# Its "Karras" is `use_karras_sigmas`: https://arxiv.org/abs/2206.00364, equation 5, with rho 7.

# The plain sigmas of the training schedule, ending at zero noise: what k-diffusion's
# `sample_euler` and `sample_euler_ancestral` run over.
_EULER = {
    "interpolation_type": "linear",
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
    "sigma_min": None,
    "sigma_max": None,
    "timestep_type": "discrete",
    "final_sigmas_type": "zero",
}

# Heun's method over the same sigmas (https://arxiv.org/abs/2206.00364, algorithm 1), without the
# paper's churn, as k-diffusion's `sample_heun` runs it unless told otherwise.
_HEUN = {
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
    "clip_sample": False,
    "clip_sample_range": 1.0,
}

# What the single- and the multistep solver have in common: second-order DPM-Solver++
# (https://arxiv.org/abs/2211.01095), midpoint, down to zero noise with a first-order step, so
# that one step is enough.
_DPMPP_2 = {
    "solver_order": 2,
    "algorithm_type": "dpmsolver++",
    "solver_type": "midpoint",
    "lower_order_final": True,
    "thresholding": False,
    "dynamic_thresholding_ratio": 0.995,
    "sample_max_value": 1.0,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
    "use_flow_sigmas": False,
    "flow_shift": 1.0,
    "final_sigmas_type": "zero",
    "lambda_min_clipped": -float("inf"),
    "variance_type": None,
    "use_dynamic_shifting": False,
    "time_shift_type": "exponential",
}

# The paper's algorithm 2: k-diffusion's `sample_dpmpp_2m` under another name.
_DPMPP_2M = _DPMPP_2 | {
    "euler_at_final": False,
    "use_lu_lambdas": False,
    "use_karras_sigmas": False,
}

# UniPC (https://arxiv.org/abs/2302.04867) with what its authors advise for guided drawing: second
# order, B(h) = e^h - 1, and its corrector at every step.
_UNIPC = {
    "solver_order": 2,
    "solver_type": "bh2",
    "predict_x0": True,
    "lower_order_final": True,
    "disable_corrector": (),
    "solver_p": None,
    "thresholding": False,
    "dynamic_thresholding_ratio": 0.995,
    "sample_max_value": 1.0,
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
    "use_flow_sigmas": False,
    "flow_shift": 1.0,
    "final_sigmas_type": "zero",
    "use_dynamic_shifting": False,
    "time_shift_type": "exponential",
    "sigma_min": None,
    "sigma_max": None,
    "shift_terminal": None,
}

# Latent consistency models (https://arxiv.org/abs/2310.04378) were distilled at 50 timesteps, and
# are sampled at some of those. Other models draw with it too, though not well.
_LCM_TIMESTEPS = 50
_LCM = {
    "clip_sample": False,
    "clip_sample_range": 1.0,
    "set_alpha_to_one": True,
    "thresholding": False,
    "dynamic_thresholding_ratio": 0.995,
    "sample_max_value": 1.0,
    "timestep_scaling": 10.0,
}

# Latents are no pixels: they pass 1 all the time, so clipping and thresholding are off. The last
# step ends at the schedule's first alpha, as Stable Diffusion's own DDIM does.
_DDIM = {
    "clip_sample": False,
    "clip_sample_range": 1.0,
    "set_alpha_to_one": False,
    "thresholding": False,
    "dynamic_thresholding_ratio": 0.995,
    "sample_max_value": 1.0,
}

# Where the model's file names no spacing, the one that each sampler was published with: DDIM's
# strided timesteps, k-diffusion's even ones. (LCM has timesteps of its own, and Karras' sigmas
# have theirs, whatever is said here.)
_TABLE: Mapping[Sampler, tuple[type[Any], str, Mapping[str, Any]]] = {
    Sampler.EULER: (EulerDiscreteScheduler, "linspace", _EULER),
    Sampler.EULER_A: (EulerAncestralDiscreteScheduler, "linspace", {}),
    Sampler.HEUN: (HeunDiscreteScheduler, "linspace", _HEUN),
    Sampler.DPMPP_2M: (DPMSolverMultistepScheduler, "linspace", _DPMPP_2M),
    Sampler.DPMPP_2M_KARRAS: (
        DPMSolverMultistepScheduler,
        "linspace",
        _DPMPP_2M | {"use_karras_sigmas": True},
    ),
    Sampler.DPMPP_2M_SDE_KARRAS: (
        DPMSolverMultistepScheduler,
        "linspace",
        _DPMPP_2M | {"use_karras_sigmas": True, "algorithm_type": "sde-dpmsolver++"},
    ),
    # As the table has it: the class's own algorithm, which adds no noise on the way as the web UI's
    # sampler of this name does.
    Sampler.DPMPP_SDE_KARRAS: (
        DPMSolverSinglestepScheduler,
        "linspace",
        _DPMPP_2 | {"use_karras_sigmas": True},
    ),
    Sampler.UNIPC: (UniPCMultistepScheduler, "linspace", _UNIPC),
    Sampler.LCM: (LCMScheduler, "leading", _LCM),
    Sampler.DDIM: (DDIMScheduler, "leading", _DDIM),
}

# Those whose `step` takes no generator: they add no noise, and say so by their signature.
_WITHOUT_NOISE = (Sampler.HEUN, Sampler.UNIPC)


def create_scheduler(sampler: Sampler, schedule: NoiseSchedule, steps: int) -> Any:
    """Returns a fresh diffusers scheduler before its first step: each picture has its own.

    Each of its ``timesteps`` is a forward pass to make: `Sampler.passes` of them, or one step more
    where diffusers' rounding has it so.

    Args:
        sampler: which.
        schedule: how the model was trained.
        steps: denoising steps, 1 to the schedule's `NoiseSchedule.most_steps`.

    Raises:
        RequestError: the sampler can't make so many steps.
    """
    kind, spacing, values = _TABLE[sampler]
    if sampler is Sampler.LCM:
        values = {**values, "original_inference_steps": _lcm_timesteps(schedule, steps)}
    scheduler = kind(**_trained(kind, schedule, spacing), **values)
    # The timesteps stay on the CPU: a scheduler that looked them up on a GPU would wait for the
    # GPU at every step.
    scheduler.set_timesteps(steps)
    if sampler is Sampler.DDIM:
        # Diffusers counts trailing timesteps down by a fraction, and a rounding can leave one more,
        # -1 (61 steps of 1000 do). The others end there as they should; DDIM would take it for an
        # index from the end, the noisiest timestep, and ruin the finished picture.
        scheduler.timesteps = scheduler.timesteps[scheduler.timesteps >= 0]
    if sampler is Sampler.EULER_A and not _has_ancestors(scheduler.sigmas):
        scheduler.sigmas = scheduler.sigmas.double()
    # Beginning at the start needs no search for the first timestep; where many steps make the
    # first two round to the same number, the search would find the second and run out at the end.
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
    return scheduler


def _has_ancestors(sigmas: Any) -> bool:
    """Returns whether the ancestral sampler's numbers can be computed from sigmas like these.

    A step that takes nearly all noise away, as few steps do with a model that was trained down to
    no signal, adds nearly as much as it leaves. What is left of the noise before is then the root
    of a difference of almost equal squares, which in float32 may come out below 0.
    """
    before, after = sigmas[:-1] ** 2, sigmas[1:] ** 2
    added = (after * (before - after) / before) ** 0.5
    return bool((after - added**2 >= 0).all())


def _trained(kind: type[Any], schedule: NoiseSchedule, spacing: str) -> dict[str, Any]:
    """Returns what a scheduler class is told about the model's training."""
    known = inspect.signature(kind).parameters
    trained = asdict(schedule)
    trained["timestep_spacing"] = schedule.timestep_spacing or spacing
    if schedule.rescale_betas_zero_snr and "rescale_betas_zero_snr" not in known:
        # Leaving it out would draw with other noise than the model was trained with.
        trained["trained_betas"] = _zero_snr_betas(schedule)
    return {name: value for name, value in trained.items() if name in known}


def _zero_snr_betas(schedule: NoiseSchedule) -> tuple[float, ...]:
    """Returns the variances as the classes that know ``rescale_betas_zero_snr`` make them.

    That is algorithm 1 of https://arxiv.org/abs/2305.08891, and a last timestep that keeps 2**-24
    of the signal's variance rather than none, where a sigma would be infinite.
    """
    kind, spacing, values = _TABLE[Sampler.DPMPP_2M]
    kept = kind(**_trained(kind, schedule, spacing), **values).alphas_cumprod.double()
    before = kept.roll(1)
    before[0] = 1
    return tuple((1 - kept / before).tolist())


def _lcm_timesteps(schedule: NoiseSchedule, steps: int) -> int:
    timesteps = min(_LCM_TIMESTEPS, schedule.num_train_timesteps)
    if steps > timesteps:
        raise RequestError("steps", steps, f"1 to {timesteps} with the sampler {Sampler.LCM}")
    return timesteps


def step_arguments(sampler: Sampler, generator: object) -> dict[str, Any]:
    """Returns what a sampler's ``step`` takes beside output, timestep and sample.

    Args:
        sampler: whose.
        generator: the picture's ``torch.Generator``, for the samplers that add noise.
    """
    if sampler in _WITHOUT_NOISE:
        return {}
    if sampler is Sampler.DDIM:
        return {"eta": 0.0, "generator": generator}
    return {"generator": generator}


def predicted_original(scheduler: Any, step_output: Any) -> Any:
    """Returns what the scheduler took the finished latents to be in the step it just made.

    The prediction type is already accounted for: it is the scheduler's own conversion.
    """
    # LCM calls it `denoised`. DPM-Solver++ and UniPC don't return it, but keep it as the newest of
    # their history.
    for name in ("pred_original_sample", "denoised"):
        original = getattr(step_output, name, None)
        if original is not None:
            return original
    return scheduler.model_outputs[-1]
