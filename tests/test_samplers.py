import inspect
import json
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch  # noqa: TID253 - the subject is made of it
from hypothesis import example, given
from hypothesis import strategies as st

from engine.errors import ModelFormatError, ModelNotFoundError, RequestError
from engine.jobs import Sampler
from engine.samplers import (
    NoiseSchedule,
    create_scheduler,
    predicted_original,
    step_arguments,
)
from tests.worker_kit import ask

SD15 = NoiseSchedule()
SAMPLERS = pytest.mark.parametrize("sampler", Sampler)
SHAPE = (1, 4, 2, 2)
PICTURE = torch.linspace(-1, 1, 16).reshape(SHAPE)


def write(folder: Path, config: object) -> Path:
    path = folder / "scheduler_config.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    return path


def draw(
    sampler: Sampler,
    steps: int,
    schedule: NoiseSchedule = SD15,
    seed: int = 1,
    dtype: torch.dtype = torch.float32,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yields the latents and the prediction after each pass of a model that knows one picture."""
    scheduler = create_scheduler(sampler, schedule, steps)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(SHAPE, generator=generator)
    latents = scheduler.add_noise(PICTURE, noise, scheduler.timesteps[:1]).to(dtype)
    for step, timestep in enumerate(scheduler.timesteps):
        kept = signal(scheduler, step)
        seen = scheduler.scale_model_input(latents, timestep)
        output = (seen - kept.sqrt() * PICTURE) / (1 - kept).sqrt()
        if schedule.prediction_type == "v_prediction":
            output = kept.sqrt() * output - (1 - kept).sqrt() * PICTURE
        arguments = step_arguments(sampler, generator)
        taken = scheduler.step(output.to(dtype), timestep, latents, **arguments)
        latents = taken.prev_sample
        yield latents, predicted_original(scheduler, taken)


def signal(scheduler: Any, step: int) -> torch.Tensor:
    """Returns the share of the picture's variance that is left before a step."""
    if hasattr(scheduler, "sigmas"):
        kept: torch.Tensor = 1 / (1 + scheduler.sigmas[step] ** 2)
    else:
        kept = scheduler.alphas_cumprod[int(scheduler.timesteps[step])]
    return kept


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
        if field.name in inspect.signature(type(scheduler)).parameters:
            assert scheduler.config[field.name] == getattr(schedule, field.name)
    assert scheduler.timesteps[0] == 799  # trailing begins at the very end of the training


@SAMPLERS
@pytest.mark.parametrize("steps", [1, 2, 7, 150, SD15.most_steps])
def test_every_number_of_steps_runs_to_its_end(sampler: Sampler, steps: int) -> None:
    if sampler is Sampler.LCM:
        steps = min(steps, 50)  # refused above; see below
    scheduler = create_scheduler(sampler, SD15, steps)
    latents = torch.zeros(1, 4, 1, 1)
    generator = torch.Generator().manual_seed(1)

    for timestep in scheduler.timesteps:
        scaled = scheduler.scale_model_input(latents, timestep)
        arguments = step_arguments(sampler, generator)
        latents = scheduler.step(scaled * 0, timestep, latents, **arguments).prev_sample

    assert len(scheduler.timesteps) == sampler.passes(steps)
    assert latents.isfinite().all()


@SAMPLERS
def test_a_model_that_knows_the_picture_draws_it_in_few_steps_and_many(sampler: Sampler) -> None:
    for steps in range(1, 31):
        prediction_type = ("epsilon", "v_prediction")[steps % 2]
        schedule = replace(SD15, prediction_type=prediction_type)

        *_, (latents, predicted) = draw(sampler, steps, schedule)

        # DDIM ends at the schedule's first timestep, with a little of the noise.
        torch.testing.assert_close(latents, PICTURE, atol=0.15, rtol=0)
        torch.testing.assert_close(predicted, PICTURE, atol=5e-3, rtol=0)


@SAMPLERS
def test_in_half_precision_as_on_a_gpu_the_picture_is_drawn_too(sampler: Sampler) -> None:
    for latents, _ in draw(sampler, steps=20, dtype=torch.float16):
        assert latents.dtype == torch.float16

    torch.testing.assert_close(latents.float(), PICTURE, atol=0.15, rtol=0)


@given(
    sampler=st.sampled_from(Sampler),
    steps=st.integers(1, 30),
    spacing=st.sampled_from([None, "leading", "trailing", "linspace"]),
    zero_snr=st.booleans(),
    betas=st.sampled_from(["linear", "scaled_linear", "squaredcos_cap_v2"]),
)
@example(Sampler.EULER_A, 4, None, False, "squaredcos_cap_v2")  # one sigma 10,000 times the next
def test_no_kind_of_model_draws_values_that_are_no_numbers(
    sampler: Sampler, steps: int, spacing: str | None, zero_snr: bool, betas: str
) -> None:
    schedule = replace(
        SD15,
        prediction_type="v_prediction",  # what pure noise can be drawn from
        timestep_spacing=spacing,
        rescale_betas_zero_snr=zero_snr,
        beta_schedule=betas,
    )

    for latents, predicted in draw(sampler, steps, schedule):
        assert latents.isfinite().all()
        assert predicted.isfinite().all()


@SAMPLERS
def test_a_model_trained_down_to_no_signal_is_sampled_so(sampler: Sampler) -> None:
    schedule = replace(SD15, rescale_betas_zero_snr=True, timestep_spacing="trailing")
    plain = create_scheduler(sampler, SD15, 5)
    expected = create_scheduler(Sampler.DPMPP_2M, schedule, 5).alphas_cumprod

    scheduler = create_scheduler(sampler, schedule, 5)

    assert plain.alphas_cumprod[-1] > 1e-3
    torch.testing.assert_close(scheduler.alphas_cumprod, expected, atol=1e-6, rtol=1e-3)
    assert signal(scheduler, 0) < 1e-6


@SAMPLERS
def test_pictures_side_by_side_keep_their_own_state_and_noise(sampler: Sampler) -> None:
    alone = [list(draw(sampler, steps=6, seed=seed)) for seed in (1, 2)]
    unused = torch.random.get_rng_state()

    together = list(zip(*(draw(sampler, steps=6, seed=seed) for seed in (1, 2)), strict=True))

    for one, other in zip(together, zip(*alone, strict=True), strict=True):
        assert torch.equal(torch.stack([*one[0], *one[1]]), torch.stack([*other[0], *other[1]]))
    assert not torch.equal(alone[0][0][0], alone[1][0][0])
    assert torch.equal(torch.random.get_rng_state(), unused)


@SAMPLERS
def test_noise_is_added_by_the_samplers_that_are_known_for_it(sampler: Sampler) -> None:
    scheduler = create_scheduler(sampler, SD15, 5)
    generator = torch.Generator().manual_seed(1)
    before = generator.get_state()
    latents = torch.ones(SHAPE)

    scheduler.scale_model_input(latents, scheduler.timesteps[0])
    scheduler.step(latents, scheduler.timesteps[0], latents, **step_arguments(sampler, generator))

    noisy = (Sampler.EULER_A, Sampler.DPMPP_2M_SDE_KARRAS, Sampler.LCM)
    assert torch.equal(generator.get_state(), before) == (sampler not in noisy)


@pytest.mark.parametrize("timesteps", [1000, 40])
def test_lcm_refuses_more_steps_than_its_models_know(timesteps: int) -> None:
    schedule = replace(SD15, num_train_timesteps=timesteps)
    most = min(timesteps, 50)
    assert len(create_scheduler(Sampler.LCM, schedule, most).timesteps) == most

    with pytest.raises(RequestError, match=f"1 to {most} with the sampler LCM") as caught:
        create_scheduler(Sampler.LCM, schedule, most + 1)
    assert (caught.value.field, caught.value.value) == ("steps", most + 1)


@pytest.mark.parametrize("steps", [61, 122])
def test_ddim_ends_at_the_end_where_trailing_timesteps_are_one_too_many(steps: int) -> None:
    trailing = replace(SD15, timestep_spacing="trailing")
    assert create_scheduler(Sampler.EULER, trailing, steps).timesteps[-1] == -1  # what is repaired

    timesteps = create_scheduler(Sampler.DDIM, trailing, steps).timesteps

    assert len(timesteps) == steps
    assert timesteps[-1] > 0


def test_heun_is_charged_for_the_passes_it_makes() -> None:
    request = ask(steps=20, width=64, height=64, count=2)

    assert replace(request, sampler=Sampler.DDIM).cost == 64 * 64 * 2 * 20
    assert replace(request, sampler=Sampler.HEUN).cost == 64 * 64 * 2 * 39


@pytest.mark.parametrize("sampler", Sampler)
def test_a_picture_that_nothing_is_drawn_for_is_charged_for_a_pass(sampler: Sampler) -> None:
    # What costs nothing would go before everybody else, for as long as somebody asks for more.
    enlarged = ask(sampler=sampler, width=64, height=64, source=Path("x.png"), strength=0.0)

    assert not enlarged.is_drawn
    assert enlarged.cost == 64 * 64


def test_the_modes_file_lists_every_sampler() -> None:
    text = (Path(__file__).parents[1] / "modes" / "modes.yaml").read_text(encoding="utf-8")
    words = " ".join(text.replace("#", " ").split())

    assert ", ".join(Sampler) in words


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
    expected = {
        Sampler.DDIM: "leading",
        Sampler.LCM: "leading",
        Sampler.DPMPP_SDE_KARRAS: None,  # Karras' sigmas are spaced by themselves
    }.get(sampler, "linspace")

    assert create_scheduler(sampler, SD15, 5).config.get("timestep_spacing") == expected


def test_karras_changes_the_noise_levels_to_the_same_ones_for_all() -> None:
    plain = create_scheduler(Sampler.DPMPP_2M, SD15, 8)
    karras = [
        create_scheduler(sampler, SD15, 8).sigmas for sampler in Sampler if "Karras" in sampler
    ]

    assert not torch.equal(plain.sigmas, karras[0])
    assert all(torch.equal(sigmas, karras[0]) for sigmas in karras)


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
