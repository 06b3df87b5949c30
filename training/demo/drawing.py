"""How a scene looks: flat illustrations drawn with skia, one random generator per picture."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import skia
from numpy.typing import NDArray

from training.demo.scenes import PALETTE, PLACES, Landscape, Scene, Subject

Colour = tuple[int, int, int]

# Radii as fractions of the picture's side. Ranges of different words never touch, so that the
# words can be told apart in the picture.
RADII = {None: (0.21, 0.275), "small": (0.12, 0.155), "large": (0.34, 0.39)}
PLACED_RADII = {None: (0.16, 0.195), "small": (0.11, 0.135)}
THING_RADII = {None: (0.25, 0.33), "small": (0.14, 0.18), "large": (0.37, 0.42)}
COUNT_RADII = {2: (0.15, 0.19), 3: (0.14, 0.17), 4: (0.135, 0.165)}
LAYOUTS = {
    2: (((0.27, 0.5), (0.73, 0.5)), ((0.3, 0.3), (0.7, 0.7)), ((0.3, 0.7), (0.7, 0.3))),
    3: (((0.5, 0.27), (0.26, 0.71), (0.74, 0.71)), ((0.5, 0.73), (0.26, 0.29), (0.74, 0.29))),
    4: (((0.27, 0.27), (0.73, 0.27), (0.27, 0.73), (0.73, 0.73)),),
}
TURN = 8.0  # degrees either way
WANDER = 0.07  # how far from the centre a subject without a place may lie

INK = (38, 40, 52)
SNOW = (250, 250, 255)
NIGHT_TINT = (18, 20, 55)
SKY = {
    "day": ((90, 175, 240), (200, 232, 250)),
    "night": ((16, 20, 58), (50, 56, 120)),
    "sunset": ((110, 60, 140), (255, 160, 80)),
}
DUSK = {"day": 0.0, "night": 0.6, "sunset": 0.25}  # share of the night's tint on the ground


def draw(scene: Scene, rng: Random, size: int = 128) -> NDArray[np.uint8]:
    """Draws a scene; what it leaves open, the generator decides.

    Args:
        scene: What to draw.
        rng: Decides spot, angle, size within its word, and shade.
        size: The picture's side in pixels.

    Returns:
        The picture as `(size, size, 3)` sRGB, 0 to 255.
    """
    surface = skia.Surface(size, size)
    canvas = surface.getCanvas()
    canvas.scale(size, size)  # from here on the picture is the unit square
    if scene.landscape:
        _draw_landscape(canvas, scene.landscape, rng)
    elif scene.subject:
        canvas.clear(skia.ColorSetRGB(*_shade(scene.shown_background, rng, 5)))
        for subject, x, y, radius in _arrange(scene, scene.subject, rng):
            draw_subject(canvas, subject, (x, y, radius), rng)
    pixels = surface.makeImageSnapshot().toarray(colorType=skia.kRGBA_8888_ColorType)
    return np.ascontiguousarray(pixels[:, :, :3])


def draw_subject(
    canvas: Any, subject: Subject, where: tuple[float, float, float], rng: Random
) -> None:
    """Draws one subject onto a canvas.

    Args:
        canvas: A skia canvas whose unit square is the picture.
        subject: What to draw.
        where: Centre x, centre y and radius, as fractions of the picture's side.
        rng: Decides angle and shade.
    """
    x, y, radius = where
    colour = _shade(subject.shown_colour, rng, 10)
    canvas.save()
    canvas.translate(x, y)
    canvas.scale(radius, radius)
    if subject.kind in _SHAPE_PATHS:
        canvas.rotate(rng.uniform(-TURN, TURN))
        canvas.drawPath(_SHAPE_PATHS[subject.kind](), _paint(colour))
    else:
        canvas.rotate(rng.uniform(-5, 5))
        _THING_DRAWERS[subject.kind](canvas, colour, rng)
    canvas.restore()


def _arrange(
    scene: Scene, subject: Subject, rng: Random
) -> list[tuple[Subject, float, float, float]]:
    """Decides where each subject of a scene goes and how large it is."""
    if scene.second:
        return _arrange_two(scene, subject, scene.second, rng)
    if scene.count > 1:
        radius = rng.uniform(*COUNT_RADII[scene.count])
        spots = rng.choice(LAYOUTS[scene.count])
        return [(subject, _near(x, rng, 0.03), _near(y, rng, 0.03), radius) for x, y in spots]
    if scene.place and scene.place != "center":
        x, y = PLACES[scene.place]
        radius = rng.uniform(*PLACED_RADII[scene.size])
        return [(subject, _near(x, rng, 0.025), _near(y, rng, 0.025), radius)]
    radii = RADII if subject.kind in _SHAPE_PATHS else THING_RADII
    radius = rng.uniform(*radii[scene.size])
    # Without a word on the place the subject wanders, as far as it stays well inside.
    slack = 0.025 if scene.place else max(0.01, min(WANDER, 0.46 - radius * 1.1))
    return [(subject, _near(0.5, rng, slack), _near(0.5, rng, slack), radius)]


def _arrange_two(
    scene: Scene, first: Subject, second: Subject, rng: Random
) -> list[tuple[Subject, float, float, float]]:
    relation = scene.relation
    if relation in (None, "and"):
        relation = rng.choice(("left of", "left of", "above"))
    apart, drift = rng.uniform(0.22, 0.255), rng.uniform(-0.06, 0.06)
    low, high, a, b = 0.5 - apart, 0.5 + apart, 0.5 + drift, 0.5 - drift
    spots = {
        "left of": ((low, a), (high, b)),
        "right of": ((high, a), (low, b)),
        "above": ((a, low), (b, high)),
        "below": ((a, high), (b, low)),
    }[relation or "left of"]
    return [
        (subject, x, y, rng.uniform(0.15, 0.2))
        for subject, (x, y) in zip((first, second), spots, strict=True)
    ]


def _near(value: float, rng: Random, slack: float) -> float:
    return value + rng.uniform(-slack, slack)


def _shade(name: str, rng: Random, spread: int) -> Colour:
    """A colour by name, a little lighter or darker and a little off in hue."""
    lighter = rng.uniform(-spread, spread)
    red, green, blue = (
        max(0, min(255, round(value + lighter + rng.uniform(-4, 4)))) for value in PALETTE[name]
    )
    return red, green, blue


def _mix(a: Colour, b: Colour, share: float) -> Colour:
    """A blend: `share` of b, the rest of a."""
    red, green, blue = (round(p * (1 - share) + q * share) for p, q in zip(a, b, strict=True))
    return red, green, blue


def _dark(colour: Colour) -> bool:
    return sum(colour) < 200


def _paint(colour: Colour, stroke: float | None = None) -> Any:
    paint = skia.Paint(AntiAlias=True, Color=skia.ColorSetRGB(*colour))
    if stroke:
        paint.setStyle(skia.Paint.kStroke_Style)
        paint.setStrokeWidth(stroke)
        paint.setStrokeCap(skia.Paint.kRound_Cap)
    return paint


def _polygon(*points: tuple[float, float]) -> Any:
    path = skia.Path()
    path.moveTo(*points[0])
    for point in points[1:]:
        path.lineTo(*point)
    path.close()
    return path


def _box(left: float, top: float, right: float, bottom: float) -> Any:
    return skia.Rect.MakeLTRB(left, top, right, bottom)


# Shapes: paths around the origin, of radius about one.


def _circle() -> Any:
    return skia.Path().addCircle(0, 0, 1)


def _square() -> Any:
    return skia.Path().addRect(_box(-0.86, -0.86, 0.86, 0.86))


def _triangle() -> Any:
    return _polygon((0, -1), (1, 0.8), (-1, 0.8))


def _star() -> Any:
    points = []
    for k in range(10):
        reach = 1.1 if k % 2 == 0 else 0.46
        points.append((math.sin(k * math.pi / 5) * reach, -math.cos(k * math.pi / 5) * reach))
    return _polygon(*points)


def _heart() -> Any:
    path = skia.Path()
    path.moveTo(0, 0.95)
    path.cubicTo(-1.5, -0.1, -0.85, -1.2, 0, -0.45)
    path.cubicTo(0.85, -1.2, 1.5, -0.1, 0, 0.95)
    return path


def _diamond() -> Any:
    return _polygon((0, -1.1), (0.75, 0), (0, 1.1), (-0.75, 0))


def _ring() -> Any:
    path = skia.Path()
    path.addCircle(0, 0, 1)
    path.addCircle(0, 0, 0.56)
    path.setFillType(skia.PathFillType.kEvenOdd)
    return path


def _cross() -> Any:
    w = 0.36
    return _polygon(
        *((-w, -1), (w, -1), (w, -w), (1, -w), (1, w), (w, w)),
        *((w, 1), (-w, 1), (-w, w), (-1, w), (-1, -w), (-w, -w)),
    )


_SHAPE_PATHS: dict[str, Callable[[], Any]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "heart": _heart,
    "diamond": _diamond,
    "ring": _ring,
    "cross": _cross,
}


# Things: drawn around the origin, of radius about one.


def _house(canvas: Any, roof: Colour, _rng: Random, wall: Colour = (245, 225, 190)) -> None:
    canvas.drawRect(_box(-0.75, -0.1, 0.75, 0.9), _paint(wall))
    canvas.drawRect(_box(0.35, -0.95, 0.58, -0.3), _paint(_mix(wall, (90, 60, 50), 0.6)))
    canvas.drawPath(_polygon((-1, -0.05), (0, -0.95), (1, -0.05)), _paint(roof))
    canvas.drawRect(_box(-0.2, 0.3, 0.2, 0.9), _paint((110, 70, 50)))
    for left in (-0.62, 0.3):
        canvas.drawRect(_box(left, 0.1, left + 0.32, 0.42), _paint((120, 195, 240)))


def _tree(canvas: Any, leaves: Colour, _rng: Random) -> None:
    canvas.drawRect(_box(-0.14, 0.2, 0.14, 1), _paint((120, 78, 48)))
    for x, y, radius in ((-0.38, -0.1, 0.45), (0.38, -0.1, 0.45), (0, -0.5, 0.52)):
        canvas.drawCircle(x, y, radius, _paint(leaves))


def _boat(canvas: Any, sail: Colour, _rng: Random) -> None:
    hull = _polygon((-0.95, 0.45), (0.95, 0.45), (0.6, 0.9), (-0.6, 0.9))
    canvas.drawPath(hull, _paint((140, 80, 50)))
    canvas.drawRect(_box(-0.05, -1, 0.04, 0.45), _paint((90, 60, 45)))
    canvas.drawPath(_polygon((0.1, -0.9), (0.1, 0.32), (0.85, 0.32)), _paint(sail))
    jib = _mix(sail, (255, 255, 255) if not sum(sail) > 700 else (190, 200, 215), 0.35)
    canvas.drawPath(_polygon((-0.12, -0.65), (-0.12, 0.32), (-0.65, 0.32)), _paint(jib))


def _car(canvas: Any, body: Colour, _rng: Random) -> None:
    glass = _paint((190, 230, 250) if not sum(body) > 700 else (150, 200, 235))
    canvas.drawRoundRect(_box(-1, -0.1, 1, 0.5), 0.15, 0.15, _paint(body))
    cabin = _polygon((-0.64, 0), (-0.4, -0.6), (0.36, -0.6), (0.66, 0))
    canvas.drawPath(cabin, _paint(body))
    canvas.drawPath(_polygon((-0.47, -0.08), (-0.3, -0.46), (-0.05, -0.46), (-0.05, -0.08)), glass)
    canvas.drawPath(_polygon((0.06, -0.08), (0.06, -0.46), (0.28, -0.46), (0.48, -0.08)), glass)
    for x in (-0.52, 0.52):
        canvas.drawCircle(x, 0.5, 0.27, _paint(INK if not _dark(body) else (120, 122, 130)))
        canvas.drawCircle(x, 0.5, 0.11, _paint((205, 205, 210)))


def _fish(canvas: Any, body: Colour, rng: Random) -> None:
    if rng.random() < 0.5:
        canvas.scale(-1, 1)
    fins = _mix(body, (0, 0, 0) if not _dark(body) else (255, 255, 255), 0.25)
    canvas.drawPath(_polygon((0.35, 0), (1, -0.5), (1, 0.5)), _paint(fins))
    canvas.drawOval(_box(-0.95, -0.55, 0.6, 0.55), _paint(body))
    canvas.drawPath(_polygon((-0.3, -0.45), (0.25, -0.85), (0.3, -0.35)), _paint(fins))
    canvas.drawCircle(-0.55, -0.12, 0.17, _paint((255, 255, 255)))
    canvas.drawCircle(-0.58, -0.12, 0.09, _paint((20, 20, 30)))


def _cat(canvas: Any, fur: Colour, _rng: Random) -> None:
    dark = _dark(fur)
    for side in (-1, 1):
        ear = _polygon((side * 0.8, -0.95), (side * 0.85, 0.1), (side * 0.1, -0.5))
        inner = _polygon((side * 0.7, -0.7), (side * 0.72, -0.2), (side * 0.35, -0.45))
        canvas.drawPath(ear, _paint(fur))
        canvas.drawPath(inner, _paint(_mix((250, 170, 185), fur, 0.25)))
    canvas.drawOval(_box(-0.9, -0.6, 0.9, 0.9), _paint(fur))
    eyes = _paint((250, 220, 70) if dark else (35, 35, 40))
    whiskers = _paint((220, 220, 220) if dark else (60, 60, 65), 0.05)
    for side in (-1, 1):
        x = side * 0.38
        canvas.drawOval(_box(x - 0.14, -0.2, x + 0.14, 0.16), eyes)
        for y in (0.25, 0.42):
            canvas.drawLine(side * 0.45, 0.35 + 0.1 * (y - 0.25), side * 1.05, y, whiskers)
    nose = (240, 120, 140) if not abs(fur[1] - 130) < 25 else (150, 50, 80)
    canvas.drawPath(_polygon((-0.14, 0.23), (0.14, 0.23), (0, 0.42)), _paint(nose))


def _flower(canvas: Any, petals: Colour, _rng: Random) -> None:
    stem = _paint((60, 140, 70) if not abs(petals[1] - 165) < 20 else (40, 100, 50))
    canvas.drawRect(_box(-0.06, 0.1, 0.06, 1.05), stem)
    canvas.drawOval(_box(0.04, 0.55, 0.5, 0.8), stem)
    canvas.drawOval(_box(-0.5, 0.65, -0.04, 0.9), stem)
    for k in range(6):
        angle = 2 * math.pi * k / 6
        x, y = 0.42 * math.sin(angle), -0.35 - 0.42 * math.cos(angle)
        canvas.drawCircle(x, y, 0.3, _paint(petals))
    yellow = petals[0] > 230 and petals[1] > 180 and petals[2] < 120
    canvas.drawCircle(0, -0.35, 0.26, _paint((130, 84, 54) if yellow else (255, 205, 70)))


def _sun(canvas: Any, colour: Colour, _rng: Random) -> None:
    for k in range(10):
        x, y = math.cos(k * math.pi / 5), math.sin(k * math.pi / 5)
        canvas.drawLine(0.75 * x, 0.75 * y, 1.02 * x, 1.02 * y, _paint(colour, 0.14))
    canvas.drawCircle(0, 0, 0.58, _paint(colour))


def _moon(canvas: Any, colour: Colour, _rng: Random) -> None:
    disc, bite = skia.Path().addCircle(0, 0, 0.9), skia.Path().addCircle(0.45, -0.2, 0.75)
    canvas.drawPath(skia.Op(disc, bite, skia.PathOp.kDifference_PathOp), _paint(colour))


def _balloon(canvas: Any, colour: Colour, rng: Random) -> None:
    canvas.drawLine(0, 0.55, rng.uniform(-0.15, 0.15), 1.15, _paint((120, 120, 125), 0.06))
    knot = _mix(colour, (0, 0, 0), 0.25)
    shine = _mix(colour, (255, 255, 255) if not sum(colour) > 700 else (200, 205, 215), 0.45)
    canvas.drawOval(_box(-0.62, -1, 0.62, 0.5), _paint(colour))
    canvas.drawPath(_polygon((-0.12, 0.62), (0.12, 0.62), (0, 0.45)), _paint(knot))
    canvas.drawOval(_box(-0.38, -0.75, -0.12, -0.3), _paint(shine))


def _cloud(canvas: Any, colour: Colour) -> None:
    for x, y, radius in ((-0.5, 0.15, 0.36), (0, -0.1, 0.48), (0.5, 0.12, 0.38)):
        canvas.drawCircle(x, y, radius, _paint(colour))
    canvas.drawRoundRect(_box(-0.86, 0.05, 0.88, 0.5), 0.22, 0.22, _paint(colour))


_THING_DRAWERS: dict[str, Callable[[Any, Colour, Random], None]] = {
    "house": _house,
    "tree": _tree,
    "boat": _boat,
    "car": _car,
    "fish": _fish,
    "cat": _cat,
    "flower": _flower,
    "sun": _sun,
    "moon": _moon,
    "balloon": _balloon,
}


# Landscapes: sky first, then what stands in it, the ground, and what stands on that.


def _draw_landscape(canvas: Any, view: Landscape, rng: Random) -> None:
    horizon = rng.uniform(0.58, 0.68)
    top, bottom = (_jitter(colour, rng) for colour in SKY[view.time])
    _gradient(canvas, top, bottom, (0, horizon + 0.02))
    _draw_sky_details(canvas, view, horizon, rng)
    _TERRAIN_DRAWERS[view.terrain](canvas, view.time, horizon, rng)
    dusk = DUSK[view.time]
    if "tree" in view.details:
        x = rng.choice((rng.uniform(0.12, 0.25), rng.uniform(0.75, 0.88)))
        leaves = _dusky((50, 140, 65), view.time, rng)
        _put(canvas, (x, rng.uniform(0.66, 0.72), 0.18), _tree, leaves, rng)
    if "house" in view.details:
        roof = _mix(_shade(view.colour or "red", rng, 8), NIGHT_TINT, dusk * 0.4)
        wall = _mix((245, 225, 190), NIGHT_TINT, dusk * 0.4)
        canvas.save()
        canvas.translate(rng.uniform(0.36, 0.64), rng.uniform(0.68, 0.74))
        canvas.scale(0.21, 0.21)
        _house(canvas, roof, rng, wall)
        canvas.restore()
    if "boat" in view.details:
        sail = _mix(_shade(view.colour or "white", rng, 8), NIGHT_TINT, dusk * 0.3)
        where = (rng.uniform(0.28, 0.72), horizon + rng.uniform(-0.02, 0.06), 0.21)
        _put(canvas, where, _boat, sail, rng)


def _draw_sky_details(canvas: Any, view: Landscape, horizon: float, rng: Random) -> None:
    x = rng.uniform(0.16, 0.84)
    if "stars" in view.details:
        for _ in range(rng.randint(12, 18)):
            y = rng.uniform(0.03, horizon - 0.1)
            canvas.drawCircle(rng.random(), y, rng.uniform(0.008, 0.015), _paint((255, 250, 220)))
    if "sun" in view.details and view.time == "sunset":
        canvas.drawCircle(x, horizon - rng.uniform(0.02, 0.1), 0.13, _paint((255, 222, 120)))
    elif "sun" in view.details:
        _put(canvas, (x, rng.uniform(0.17, 0.22), 0.14), _sun, (255, 208, 60), rng)
    if "moon" in view.details:
        _put(canvas, (x, rng.uniform(0.16, 0.24), 0.13), _moon, (255, 244, 200), rng)
    if "clouds" in view.details:
        for side in (0.25, 0.75):
            canvas.save()
            canvas.translate(_near(side, rng, 0.14), rng.uniform(0.13, 0.32))
            canvas.scale(0.13, 0.13)
            _cloud(canvas, (252, 252, 255))
            canvas.restore()


def _mountains(canvas: Any, time: str, horizon: float, rng: Random) -> None:
    rock = _dusky((120, 135, 165) if time != "sunset" else (130, 85, 130), time, rng)
    snow = _mix(SNOW, NIGHT_TINT, DUSK[time] * 0.5)
    for middle in rng.choice(((0.25, 0.7), (0.3, 0.78), (0.15, 0.85, 0.5))):
        x, height = _near(middle, rng, 0.05), rng.uniform(0.28, 0.42)
        width = height * rng.uniform(0.85, 1.1)
        shade = _mix(rock, (0, 0, 0), rng.uniform(0, 0.15))
        foot, peak = horizon + 0.03, horizon - height
        canvas.drawPath(_polygon((x, peak), (x + width, foot), (x - width, foot)), _paint(shade))
        edge = peak + 0.3 * (height + 0.03)
        cap = (
            *((x, peak), (x + width * 0.3, edge), (x + width * 0.1, peak + height * 0.2)),
            *((x - width * 0.08, peak + height * 0.32), (x - width * 0.3, edge)),
        )
        canvas.drawPath(_polygon(*cap), _paint(snow))
    grass = _dusky((110, 180, 85), time, rng)
    canvas.drawRect(_box(0, horizon, 1, 1.01), _paint(grass))


def _hills(canvas: Any, time: str, horizon: float, rng: Random) -> None:
    grass = _dusky((110, 180, 85), time, rng)
    canvas.drawRect(_box(0, horizon, 1, 1.01), _paint(_mix(grass, (0, 60, 40), 0.26)))
    for k in range(3):
        left, top = rng.uniform(-0.6, 0.3), horizon - 0.05 + 0.12 * k
        shade = _mix(grass, (0, 60, 40), 0.13 * (2 - k))
        canvas.drawOval(_box(left, top, left + 1.5, top + 0.9), _paint(shade))
    canvas.drawRect(_box(0, horizon + 0.24, 1, 1.01), _paint(grass))


def _sea(canvas: Any, time: str, horizon: float, rng: Random) -> None:
    sunset = time == "sunset"
    near = _dusky((80, 50, 120) if sunset else (20, 80, 150), time, rng)
    far = _dusky((200, 110, 110) if sunset else (45, 130, 200), time, rng)
    _gradient(canvas, far, near, (horizon, 1))
    foam = _paint(_mix((200, 230, 250), NIGHT_TINT, DUSK[time] * 0.7), 0.014)
    for _ in range(5):
        x, y = rng.random(), rng.uniform(horizon + 0.06, 0.96)
        canvas.drawLine(x - 0.07, y, x + 0.07, y, foam)


_TERRAIN_DRAWERS: dict[str, Callable[[Any, str, float, Random], None]] = {
    "mountains": _mountains,
    "hills": _hills,
    "sea": _sea,
}


def _put(
    canvas: Any, where: tuple[float, float, float], drawer: Any, colour: Colour, rng: Random
) -> None:
    x, y, radius = where
    canvas.save()
    canvas.translate(x, y)
    canvas.scale(radius, radius)
    drawer(canvas, colour, rng)
    canvas.restore()


def _gradient(canvas: Any, top: Colour, bottom: Colour, rows: tuple[float, float]) -> None:
    colours = [skia.ColorSetRGB(*top), skia.ColorSetRGB(*bottom)]
    shader = skia.GradientShader.MakeLinear([(0, rows[0]), (0, rows[1])], colours)
    canvas.drawRect(_box(-0.01, rows[0], 1.01, rows[1] + 0.01), skia.Paint(Shader=shader))


def _jitter(colour: Colour, rng: Random) -> Colour:
    red, green, blue = (max(0, min(255, v + rng.randint(-10, 10))) for v in colour)
    return red, green, blue


def _dusky(colour: Colour, time: str, rng: Random) -> Colour:
    """A ground colour in the light of that time."""
    return _mix(_jitter(colour, rng), NIGHT_TINT, DUSK[time])
