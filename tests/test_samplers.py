import inspect
import json
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch  # noqa: TID253 - the subject is made of it

from engine.errors import ModelFormatError, ModelNotFoundError
from engine.jobs import Sampler
from engine.samplers import (
    NoiseSchedule,
    create_scheduler,
    predicted_original,
    step_arguments,
)

SD15 = NoiseSchedule()
SAMPLERS = pytest.mark.parametrize("sampler", Sampler)


def write(folder: Path, config: object) -> Path:
    path = folder / "scheduler_config.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    return path


@SAMPLERS
def test_no_value_of_a_scheduler_is_left_to_its_defaults(sampler: Sampler) -> None:
    scheduler = create_scheduler(sampler, SD15, 5)

    # Diffusers notes there what it filled in itself.
    assert "_use_default_values" in type(scheduler)().config
    assert "_use_default_values" not in scheduler.config
    assert set(scheduler.config) >= set(inspect.signature(type(scheduler)).parameters)


@SAMPLERS
def test_what_the_model_was_trained_with_reaches_the_scheduler(sampler: Sampler) -> None:
    schedule = NoiseSchedule(
        num_train_timesteps=800,
        beta_start=0.001,
        beta_end=0.03,
        beta_schedule="linear",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        steps_offset=0,
    )

    scheduler = create_scheduler(sampler, schedule, 5)

    for field in fields(schedule):
        assert scheduler.config[field.name] == getattr(schedule, field.name)
    assert scheduler.timesteps[0] == 799  # trailing begins at the very end of the training


@SAMPLERS
@pytest.mark.parametrize("steps", [1, 2, 7, 150, SD15.most_steps])
def test_every_number_of_steps_runs_to_its_end(sampler: Sampler, steps: int) -> None:
    scheduler = create_scheduler(sampler, SD15, steps)
    latents = torch.zeros(1, 4, 1, 1)
    generator = torch.Generator().manual_seed(1)

    for timestep in scheduler.timesteps:
        scaled = scheduler.scale_model_input(latents, timestep)
        arguments = step_arguments(sampler, generator)
        latents = scheduler.step(scaled * 0, timestep, latents, **arguments).prev_sample

    assert len(scheduler.timesteps) == steps
    assert latents.isfinite().all()


@SAMPLERS
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_the_prediction_is_what_the_output_means(sampler: Sampler, prediction_type: str) -> None:
    schedule = replace(SD15, prediction_type=prediction_type)
    scheduler = create_scheduler(sampler, schedule, 10)
    generator = torch.Generator().manual_seed(3)
    original = torch.randn((1, 4, 2, 2), generator=generator)
    noise = torch.randn((1, 4, 2, 2), generator=generator)
    timestep = scheduler.timesteps[0]
    noisy = scheduler.add_noise(original, noise, timestep[None])
    scheduler.scale_model_input(noisy, timestep)
    kept = scheduler.alphas_cumprod[int(timestep)]
    velocity = kept.sqrt() * noise - (1 - kept).sqrt() * original
    output = noise if prediction_type == "epsilon" else velocity

    taken = scheduler.step(output, timestep, noisy, **step_arguments(sampler, generator))

    # Dividing by the little signal that the first timestep leaves magnifies the rounding.
    torch.testing.assert_close(predicted_original(scheduler, taken), original, atol=5e-3, rtol=0)


@SAMPLERS
def test_each_call_makes_a_scheduler_of_its_own(sampler: Sampler) -> None:
    assert create_scheduler(sampler, SD15, 5) is not create_scheduler(sampler, SD15, 5)


def test_latents_are_never_clipped() -> None:
    scheduler = create_scheduler(Sampler.DDIM, SD15, 5)
    latents = torch.full((1, 4, 1, 1), 60.0)

    taken = scheduler.step(latents * 0, scheduler.timesteps[0], latents)

    assert taken.pred_original_sample.min() > 60


@SAMPLERS
def test_a_model_that_names_no_spacing_gets_the_samplers_own(sampler: Sampler) -> None:
    expected = "leading" if sampler is Sampler.DDIM else "linspace"

    assert create_scheduler(sampler, SD15, 5).config.timestep_spacing == expected


def test_karras_changes_the_noise_levels() -> None:
    plain = create_scheduler(Sampler.DPMPP_2M, SD15, 8)
    karras = create_scheduler(Sampler.DPMPP_2M_KARRAS, SD15, 8)

    assert not torch.equal(plain.sigmas, karras.sigmas)


def test_a_file_is_read_with_the_defaults_of_who_wrote_it(tmp_path: Path) -> None:
    path = write(tmp_path, {"_class_name": "PNDMScheduler", "beta_schedule": "scaled_linear"})

    schedule = NoiseSchedule.read(path)

    assert (schedule.beta_start, schedule.beta_end) == (0.0001, 0.02)
    assert schedule.prediction_type == "epsilon"
    assert schedule.timestep_spacing is None


def test_a_modes_prediction_type_takes_the_place_of_the_files(tmp_path: Path) -> None:
    path = write(tmp_path, {"prediction_type": "epsilon"})

    assert NoiseSchedule.read(path, "v_prediction").prediction_type == "v_prediction"


def test_betas_that_are_listed_are_used(tmp_path: Path) -> None:
    path = write(tmp_path, {"trained_betas": [0.1, 0.2, 0.3], "num_train_timesteps": 3})

    scheduler = create_scheduler(Sampler.DDIM, NoiseSchedule.read(path), 3)

    torch.testing.assert_close(scheduler.betas, torch.tensor([0.1, 0.2, 0.3]))


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ([], "not an object"),
        ({"prediction_type": "sample"}, "prediction_type"),
        ({"prediction_type": ["epsilon"]}, "prediction_type"),
        ({"beta_schedule": "cosine"}, "beta_schedule"),
        ({"timestep_spacing": 3}, "timestep_spacing"),
        ({"num_train_timesteps": 0}, "num_train_timesteps"),
        ({"num_train_timesteps": "many"}, "num_train_timesteps"),
        ({"num_train_timesteps": 10**9}, "num_train_timesteps"),
        ({"beta_start": 0.9, "beta_end": 0.1}, "beta_start"),
        ({"beta_end": None}, "beta_end"),
        ({"steps_offset": 10**6}, "steps_offset"),
        ({"trained_betas": 7}, "trained_betas"),
        ({"trained_betas": [0.1, "x"], "num_train_timesteps": 2}, "trained_betas"),
        ({"trained_betas": [0.1, 0.2]}, "trained_betas"),
    ],
)
def test_a_hostile_file_is_refused_by_name(tmp_path: Path, config: object, named: str) -> None:
    path = write(tmp_path, config)

    with pytest.raises(ModelFormatError, match=named) as caught:
        NoiseSchedule.read(path)
    assert caught.value.path == path


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"scheduler_config\.json"):
        NoiseSchedule.read(tmp_path / "scheduler_config.json")
