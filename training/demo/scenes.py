"""What a demo picture may hold: colours, shapes, things, places, and how often each is asked for.

A `Scene` says what a prompt asks for and nothing more. What it leaves open (the exact spot, the
angle, the shade) is decided by the random generator of whoever draws it, so two drawings of one
scene differ as two seeds of one prompt should.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

PALETTE: dict[str, tuple[int, int, int]] = {
    "red": (229, 57, 53),
    "orange": (245, 138, 36),
    "yellow": (250, 212, 60),
    "green": (66, 165, 75),
    "blue": (38, 104, 220),
    "purple": (138, 66, 176),
    "pink": (246, 130, 178),
    "black": (28, 28, 34),
    "white": (250, 250, 247),
}
"""The nine colours by name, as 8-bit sRGB. Subjects and backgrounds share them."""

COLOURS = tuple(PALETTE)
SHAPES = ("circle", "square", "triangle", "star", "heart", "diamond", "ring", "cross")
THINGS = ("house", "tree", "boat", "car", "fish", "cat", "flower", "sun", "moon", "balloon")
SUBJECTS = SHAPES + THINGS

NATURAL_COLOUR = {
    "house": "red",
    "tree": "green",
    "boat": "red",
    "car": "red",
    "fish": "orange",
    "cat": "orange",
    "flower": "pink",
    "sun": "yellow",
    "moon": "yellow",
    "balloon": "red",
}
"""The colour of a thing whose colour is left open: of a house the roof, of a boat the sail."""

PLACES: dict[str, tuple[float, float]] = {
    "top left": (0.24, 0.24),
    "top": (0.5, 0.23),
    "top right": (0.76, 0.24),
    "left": (0.23, 0.5),
    "center": (0.5, 0.5),
    "right": (0.77, 0.5),
    "bottom left": (0.24, 0.76),
    "bottom": (0.5, 0.77),
    "bottom right": (0.76, 0.76),
}
"""The nine places by name, as (x, y) in fractions of the picture's side, y pointing down."""

SIZES = ("small", "large")
RELATIONS = ("and", "left of", "right of", "above", "below")
TIMES = ("day", "night", "sunset")
TERRAINS = ("mountains", "hills", "sea")
DETAILS = ("sun", "moon", "stars", "clouds", "house", "tree", "boat")

HELD_OUT = frozenset(
    {
        ("green", "circle"),
        ("purple", "square"),
        ("blue", "triangle"),
        ("red", "star"),
        ("yellow", "heart"),
        ("orange", "diamond"),
        ("black", "ring"),
        ("pink", "cross"),
    }
)
"""Pairs of colour and shape that no training picture shows and no training caption names."""


@dataclass(frozen=True)
class Subject:
    """One thing to draw.

    Attributes:
        kind: A name from `SUBJECTS`.
        colour: A name from `COLOURS`, or None where the prompt leaves it open.
    """

    kind: str
    colour: str | None = None

    @property
    def shown_colour(self) -> str:
        """The colour in which it is drawn: the one asked for, else the thing's natural one."""
        return self.colour or NATURAL_COLOUR[self.kind]


@dataclass(frozen=True)
class Landscape:
    """A simple scene seen from afar.

    Attributes:
        time: A name from `TIMES`.
        terrain: A name from `TERRAINS`.
        details: Names from `DETAILS`.
        colour: The roof's or the sail's colour where a house or a boat is among the details and
            the prompt names its colour.
    """

    time: str
    terrain: str
    details: tuple[str, ...] = ()
    colour: str | None = None


@dataclass(frozen=True)
class Scene:
    """What one prompt asks for: one subject, several of it, two subjects, or a landscape.

    Attributes:
        subject: The (first) subject; None for a landscape.
        count: How many of the subject, 1 to 4.
        second: A second subject, beside, above or below the first.
        relation: A name from `RELATIONS`: where the first lies as seen from the second.
        size: A name from `SIZES`, or None for the ordinary size.
        place: A name from `PLACES`, or None for anywhere around the centre.
        background: A name from `COLOURS`, or None where the prompt does not say.
        landscape: The landscape, where that is what is asked for.
    """

    subject: Subject | None = None
    count: int = 1
    second: Subject | None = None
    relation: str | None = None
    size: str | None = None
    place: str | None = None
    background: str | None = None
    landscape: Landscape | None = None

    @property
    def shown_background(self) -> str:
        """The background drawn: the one asked for, else white, or black behind something white."""
        if self.background:
            return self.background
        shown = [s.shown_colour for s in (self.subject, self.second) if s]
        return "black" if "white" in shown else "white"


@dataclass(frozen=True)
class Mixture:
    """How often each sort of scene is drawn, as weights that need not sum to one."""

    one: float = 1.0
    two: float = 0.0
    several: float = 0.0
    thing: float = 0.0
    landscape: float = 0.0


SHAPES_ONLY = Mixture()
EVERYTHING = Mixture(one=0.5, two=0.14, several=0.1, thing=0.15, landscape=0.11)
MOSTLY_SHAPES = Mixture(one=0.8, two=0.08, several=0.12)
SHAPES_AND_COUNTS = Mixture(one=0.85, several=0.15)


def sample_scene(rng: Random, mixture: Mixture = EVERYTHING) -> Scene:
    """Draws a scene to train on; it never holds a pair of `HELD_OUT`.

    Args:
        rng: The source of chance.
        mixture: How often each sort of scene comes up.

    Returns:
        The scene.
    """
    makers = {
        _one_shape: mixture.one,
        _two_shapes: mixture.two,
        _several_shapes: mixture.several,
        _one_thing: mixture.thing,
        _landscape: mixture.landscape,
    }
    (maker,) = rng.choices(list(makers), weights=list(makers.values()))
    return maker(rng)


def sample_shape(rng: Random) -> Subject:
    """Draws a coloured shape whose pair of colour and shape may be trained on."""
    while True:
        colour, kind = rng.choice(COLOURS), rng.choice(SHAPES)
        if (colour, kind) not in HELD_OUT:
            return Subject(kind, colour)


def sample_background(rng: Random, *subjects: Subject) -> str | None:
    """Draws a background on which every subject stands out; None three times in ten."""
    if rng.random() < 0.3:
        shown = {s.shown_colour for s in subjects}
        if not {"white", "black"} <= shown:  # unsaid means white or black: one must be free
            return None
    weights = [3 if c == "white" else 1 for c in COLOURS]
    while True:
        (colour,) = rng.choices(COLOURS, weights=weights)
        if all(colour != s.shown_colour for s in subjects):
            return colour


def _one_shape(rng: Random) -> Scene:
    subject = sample_shape(rng)
    place = _sample_place(rng, said=0.45)
    sizes = (None, None, *SIZES) if place in (None, "center") else (None, None, "small")
    return Scene(
        subject=subject,
        place=place,
        size=rng.choice(sizes),
        background=sample_background(rng, subject),
    )


def _two_shapes(rng: Random) -> Scene:
    first, second = sample_shape(rng), sample_shape(rng)
    while second.colour == first.colour:
        second = sample_shape(rng)
    return Scene(
        subject=first,
        second=second,
        relation=rng.choice(("and", *RELATIONS)),
        background=sample_background(rng, first, second),
    )


def _several_shapes(rng: Random) -> Scene:
    subject = sample_shape(rng)
    return Scene(
        subject=subject,
        count=rng.choice((2, 3, 4)),
        background=sample_background(rng, subject),
    )


def _one_thing(rng: Random) -> Scene:
    kind = rng.choice(THINGS)
    colour = rng.choice(COLOURS) if rng.random() < 0.6 else None
    subject = Subject(kind, colour)
    place = _sample_place(rng, said=0.2)
    sizes = (None, None, None, *SIZES) if place in (None, "center") else (None,)
    return Scene(
        subject=subject,
        place=place,
        size=rng.choice(sizes),
        background=sample_background(rng, subject),
    )


def _landscape(rng: Random) -> Scene:
    time, terrain = rng.choice(TIMES), rng.choice(TERRAINS)
    likely = {
        "day": {"sun": 0.6, "clouds": 0.35},
        "night": {"moon": 0.7, "stars": 0.6},
        "sunset": {"sun": 0.7},
    }[time] | {
        "mountains": {"house": 0.35, "tree": 0.3},
        "hills": {"house": 0.5, "tree": 0.4},
        "sea": {"boat": 0.65},
    }[terrain]
    details = tuple(name for name in DETAILS if rng.random() < likely.get(name, 0.0))
    coloured = {"house", "boat"} & set(details)
    colour = rng.choice(COLOURS) if coloured and rng.random() < 0.75 else None
    return Scene(landscape=Landscape(time, terrain, details, colour))


def _sample_place(rng: Random, said: float) -> str | None:
    if rng.random() >= said:
        return None
    weights = [2 if place == "center" else 1 for place in PLACES]
    return rng.choices(list(PLACES), weights=weights)[0]


ATTRIBUTE_SIZES = {
    "kind": len(SUBJECTS) + 1,
    "colour": len(COLOURS) + 1,
    "background": len(COLOURS) + 1,
    "place": len(PLACES) + 1,
    "size": len(SIZES) + 1,
    "count": 4,
    "second kind": len(SHAPES) + 1,
    "second colour": len(COLOURS) + 1,
    "relation": len(RELATIONS) + 1,
    "time": len(TIMES) + 1,
    "terrain": len(TERRAINS) + 1,
} | {f"has {name}": 2 for name in DETAILS}
"""What a caption can be asked about, with the number of answers. Answer 0 means "not said"."""


def attributes(scene: Scene) -> list[int]:
    """Gives the right answer to every question of `ATTRIBUTE_SIZES`, in its order.

    Args:
        scene: The scene to describe.

    Returns:
        One class index per question, each in `range(size of that question)`.
    """
    subject, second, view = scene.subject, scene.second, scene.landscape
    colour = subject.colour if subject else view.colour if view else None
    return [
        _index(SUBJECTS, subject.kind if subject else None),
        _index(COLOURS, colour),
        _index(COLOURS, scene.background),
        _index(tuple(PLACES), scene.place),
        _index(SIZES, scene.size),
        scene.count - 1,
        _index(SHAPES, second.kind if second else None),
        _index(COLOURS, second.colour if second else None),
        _index(RELATIONS, scene.relation),
        _index(TIMES, view.time if view else None),
        _index(TERRAINS, view.terrain if view else None),
        *(int(view is not None and name in view.details) for name in DETAILS),
    ]


def _index(names: tuple[str, ...], name: str | None) -> int:
    return 0 if name is None else 1 + names.index(name)
