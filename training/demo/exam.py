"""The exam: prompts whose pictures the checker can mark, chosen by a seed and by nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from training.demo.captions import caption
from training.demo.scenes import (
    COLOURS,
    HELD_OUT,
    PLACES,
    SHAPES,
    SIZES,
    Mixture,
    Scene,
    Subject,
    sample_background,
    sample_scene,
    sample_shape,
)


@dataclass(frozen=True)
class Question:
    """One prompt and the scene that it asks for."""

    prompt: str
    scene: Scene


def single_shapes(count: int, seed: int, *, held_out: bool = False) -> list[Question]:
    """Chooses prompts for one shape: a third bare, a third with a place, a third with a size.

    Args:
        count: How many.
        seed: Of the choice.
        held_out: Whether the pairs of colour and shape are those never trained on.

    Returns:
        The questions.
    """
    rng = Random(f"single shapes {seed} {held_out}")
    pairs = sorted(HELD_OUT)
    questions = []
    for number in range(count):
        colour, kind = pairs[number % len(pairs)]
        subject = Subject(kind, colour) if held_out else sample_shape(rng)
        third = (number // len(pairs) + number) % 3
        scene = Scene(
            subject=subject,
            place=rng.choice(list(PLACES)) if third == 1 else None,
            size=rng.choice(SIZES) if third == 2 else None,
            background=sample_background(rng, subject),
        )
        questions.append(Question(caption(scene, rng), scene))
    return questions


def two_shapes(count: int, seed: int) -> list[Question]:
    """Chooses prompts for two shapes of two colours, most with a relation."""
    return _sampled(count, Random(f"two shapes {seed}"), Mixture(one=0, two=1))


def several_shapes(count: int, seed: int) -> list[Question]:
    """Chooses prompts for two, three or four of a shape."""
    return _sampled(count, Random(f"several shapes {seed}"), Mixture(one=0, several=1))


def things(count: int, seed: int) -> list[Question]:
    """Chooses prompts for one thing, such as a house or a cat."""
    return _sampled(count, Random(f"things {seed}"), Mixture(one=0, thing=1))


def landscapes(count: int, seed: int) -> list[Question]:
    """Chooses prompts for a landscape."""
    return _sampled(count, Random(f"landscapes {seed}"), Mixture(one=0, landscape=1))


def every_pair() -> list[Question]:
    """Asks for every pair of colour and shape once, in plain words, on what stands out."""
    questions = []
    for colour in COLOURS:
        for kind in SHAPES:
            subject = Subject(kind, colour)
            background = "black" if colour == "white" else "white"
            prompt = f"a {colour} {kind} on a {background} background".replace(
                "a orange", "an orange"
            )
            questions.append(Question(prompt, Scene(subject=subject, background=background)))
    return questions


def _sampled(count: int, rng: Random, mixture: Mixture) -> list[Question]:
    questions = []
    for _ in range(count):
        scene = sample_scene(rng, mixture)
        questions.append(Question(caption(scene, rng), scene))
    return questions
