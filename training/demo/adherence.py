"""The checker: what a picture shows, and whether that is what was asked for.

It knows nothing of the model and needs only numpy and Pillow: it looks for blobs that differ from
the border's colour, names their colours by the nearest of the palette, and their shapes by the
nearest of a set of outlines turned to and fro. How often it is right about true drawings is its
ceiling, which every report should quote.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from training.demo.scenes import PALETTE, PLACES, SHAPES, Scene

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray


FLOOR = 20.0  # CIELAB distance from the background at which a pixel belongs to a subject
GRID = 64  # the side at which blobs are told apart
LEAST_AREA = 0.003  # of the picture; smaller specks are no subject
LEAST_SHARE = 0.25  # of the largest blob's area
OUTLINE_SIDE = 32
OUTLINE_REACH = 1.7  # half the outline window's side, in units of the square root of the area
TURNS = range(-24, 25, 4)  # degrees


@dataclass(frozen=True)
class Blob:
    """One subject seen.

    Attributes:
        colour: The nearest name of the palette.
        shape: The nearest name of `SHAPES`.
        x: Centre, 0 (left) to 1 (right).
        y: Centre, 0 (top) to 1 (bottom).
        radius: As that shape is drawn, in fractions of the picture's side.
        area: Fraction of the picture.
    """

    colour: str
    shape: str
    x: float
    y: float
    radius: float
    area: float

    @property
    def place(self) -> str:
        """The nearest name of `PLACES`."""
        return min(PLACES, key=lambda name: math.dist(PLACES[name], (self.x, self.y)))


@dataclass(frozen=True)
class Sight:
    """What a picture shows: the background's colour name, and the blobs, largest first."""

    background: str
    blobs: tuple[Blob, ...]


def look(picture: NDArray[np.uint8]) -> Sight:
    """Says what a picture of shapes shows.

    Args:
        picture: `(side, side, 3)` sRGB, 0 to 255; the side is a multiple of 64.

    Returns:
        Its background and its blobs.
    """
    side = len(picture)
    background, distance = _against_background(picture)
    fine = distance > FLOOR
    small = distance.reshape(GRID, side // GRID, GRID, side // GRID).mean((1, 3)) > FLOOR
    masks = [np.kron(m, np.ones((side // GRID,) * 2)).astype(bool) & fine for m in _parts(small)]
    areas = [float(mask.mean()) for mask in masks]
    least = max([LEAST_AREA, *(LEAST_SHARE * area for area in areas)])
    blobs = [_blob(picture, m) for m, area in zip(masks, areas, strict=True) if area >= least]
    blobs.sort(key=lambda blob: -blob.area)
    return Sight(_colour_name(background), tuple(blobs))


def silhouette(picture: NDArray[np.uint8]) -> NDArray[np.float64] | None:
    """Gives the outline of all that differs from the background, brought to one centre and area.

    Args:
        picture: `(side, side, 3)` sRGB, 0 to 255.

    Returns:
        `(32, 32)`, 0 to 1, to compare with other silhouettes; None for an empty picture.
    """
    mask = _against_background(picture)[1] > FLOOR
    return _outline(mask) if mask.mean() > LEAST_AREA else None


def foreground_colours(picture: NDArray[np.uint8]) -> list[str]:
    """Names the colours of what differs from the background, the most frequent first."""
    pixels = picture[_against_background(picture)[1] > FLOOR]
    names = list(_palette_lab())
    palette = np.stack(list(_palette_lab().values()))
    nearest = np.linalg.norm(_lab(pixels)[:, None] - palette, axis=-1).argmin(1)
    counts = np.bincount(nearest, minlength=len(names))
    return [names[i] for i in np.argsort(-counts, kind="stable") if counts[i]]


def judge(scene: Scene, picture: NDArray[np.uint8]) -> dict[str, bool]:
    """Says what of a scene of shapes a picture gets right.

    Args:
        scene: What was asked for; its subjects are shapes.
        picture: `(side, side, 3)` sRGB, 0 to 255.

    Returns:
        "background", "colour", "shape" and "count" always; "place", "size" and "relation" where
        the scene asks for them; "all" of these together.
    """
    return judge_sight(scene, look(picture))


def judge_sight(scene: Scene, sight: Sight) -> dict[str, bool]:
    """As `judge`, for a picture already looked at."""
    if scene.subject is None:
        raise ValueError("only scenes of shapes can be judged")
    wanted = [scene.subject] * scene.count + ([scene.second] if scene.second else [])
    blobs = _best_order([(w.kind, w.shown_colour) for w in wanted], sight.blobs[: len(wanted)])
    enough = len(blobs) == len(wanted)
    pairs = list(zip(wanted, blobs, strict=False))
    right = {
        "background": sight.background == scene.shown_background,
        "colour": enough and all(blob.colour == want.shown_colour for want, blob in pairs),
        "shape": enough and all(blob.shape == want.kind for want, blob in pairs),
        "count": len(sight.blobs) == len(wanted),
    }
    if scene.place:
        right["place"] = enough and blobs[0].place == scene.place
    if scene.size:
        right["size"] = enough and _size_name(scene, blobs[0].radius) == scene.size
    if scene.second and scene.relation not in (None, "and"):
        right["relation"] = enough and _relation(blobs[0], blobs[1]) == scene.relation
    right["all"] = all(right.values())
    return right


def _against_background(
    picture: NDArray[np.uint8],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The background's colour `(3,)`, and each pixel's CIELAB distance from it `(H, W)`."""
    edge = len(picture) // 40
    rims = [picture[:edge], picture[-edge:], picture[:, :edge], picture[:, -edge:]]
    background = np.median(np.concatenate([rim.reshape(-1, 3) for rim in rims]), axis=0)
    return background, np.linalg.norm(_lab(picture) - _lab(background), axis=-1)


def _best_order(wanted: list[tuple[str, str]], blobs: tuple[Blob, ...]) -> list[Blob]:
    """Matches blobs to what was wanted, so that as much as possible is right."""
    if len(blobs) < 2:
        return list(blobs)

    def hits(order: Iterable[Blob]) -> int:
        pairs = zip(wanted, order, strict=False)
        return sum((b.shape == kind) + (b.colour == colour) for (kind, colour), b in pairs)

    return list(max(permutations(blobs), key=hits))


def _size_name(scene: Scene, radius: float) -> str | None:
    placed = scene.place not in (None, "center")
    if radius < (0.1425 if placed else 0.172):
        return "small"
    return "large" if radius > 0.31 else None


def _relation(first: Blob, second: Blob) -> str:
    across, down = second.x - first.x, second.y - first.y
    if abs(across) > abs(down):
        return "left of" if across > 0 else "right of"
    return "above" if down > 0 else "below"


def _blob(picture: NDArray[np.uint8], mask: NDArray[np.bool_]) -> Blob:
    inner = mask.copy()
    for axis in (0, 1):  # the rim is a blend with the background: leave it out
        for shift in (-2, 2):
            inner &= np.roll(mask, shift, axis)
    colour = _colour_name(np.median(picture[inner if inner.any() else mask], axis=0))
    rows, columns = np.nonzero(mask)
    side, area = len(mask), float(mask.mean())
    outlines, names, unit_areas = _outlines()
    nearest = int(((outlines - _outline(mask)) ** 2).sum((1, 2)).argmin())
    shape = names[nearest]
    return Blob(
        colour=colour,
        shape=shape,
        x=float(columns.mean() + 0.5) / side,
        y=float(rows.mean() + 0.5) / side,
        radius=math.sqrt(area / unit_areas[shape]),
        area=area,
    )


def _parts(mask: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """Splits a mask into its connected parts; touching corners do not connect."""
    left = {(int(row), int(column)) for row, column in np.argwhere(mask)}
    parts = []
    while left:
        part = np.zeros_like(mask)
        waiting = [left.pop()]
        while waiting:
            row, column = waiting.pop()
            part[row, column] = True
            for down, across in ((1, 0), (-1, 0), (0, 1), (0, -1)):
                near = (row + down, column + across)
                if near in left:
                    left.remove(near)
                    waiting.append(near)
        parts.append(part)
    return parts


def _outline(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Brings a mask to one centre and one area, as an `OUTLINE_SIDE` square of 0 to 1."""
    rows, columns = np.nonzero(mask)
    reach = OUTLINE_REACH * math.sqrt(len(rows))
    x, y = columns.mean() + 0.5, rows.mean() + 0.5
    window = (x - reach, y - reach, x + reach, y + reach)
    picture = Image.fromarray(mask.astype(np.uint8) * 255)
    size = (OUTLINE_SIDE * 2, OUTLINE_SIDE * 2)
    turned = picture.transform(size, Image.Transform.EXTENT, window, Image.Resampling.BILINEAR)
    small = turned.resize((OUTLINE_SIDE, OUTLINE_SIDE), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float64) / 255


@cache
def _outlines() -> tuple[NDArray[np.float64], list[str], dict[str, float]]:
    """The outlines to compare with, their names, and each shape's area at radius 1."""
    outlines, names, unit_areas = [], [], {}
    for name in SHAPES:
        for turn in TURNS:
            mask = _true_mask(name, turn, 0.25)
            outlines.append(_outline(mask))
            names.append(name)
        unit_areas[name] = float(mask.mean()) / 0.25**2
    return np.stack(outlines), names, unit_areas


def _true_mask(name: str, turn: float, radius: float, side: int = 256) -> NDArray[np.bool_]:
    picture = Image.new("1", (side, side))
    pen = ImageDraw.Draw(picture)
    angle = math.radians(turn)
    cos, sin = math.cos(angle) * radius, math.sin(angle) * radius
    for ink, outline in _unit_outlines(name):
        spots = [
            (side * (0.5 + x * cos - y * sin), side * (0.5 + x * sin + y * cos)) for x, y in outline
        ]
        pen.polygon(spots, fill=ink)
    return np.asarray(picture, dtype=bool)


Points = list[tuple[float, float]]


def _unit_outlines(name: str) -> list[tuple[int, Points]]:
    """A shape of radius 1 around the origin, as (ink, polygon) in order of painting."""
    w = 0.36
    arms = [(-w, -1.0), (w, -1.0), (w, -w), (1.0, -w), (1.0, w), (w, w)]
    plain: dict[str, Points] = {
        "circle": _arc(1),
        "square": [(-0.86, -0.86), (0.86, -0.86), (0.86, 0.86), (-0.86, 0.86)],
        "triangle": [(0, -1), (1, 0.8), (-1, 0.8)],
        "diamond": [(0, -1.1), (0.75, 0), (0, 1.1), (-0.75, 0)],
        "cross": arms + [(-x, -y) for x, y in arms],
        "star": [
            (math.sin(k * math.pi / 5) * reach, -math.cos(k * math.pi / 5) * reach)
            for k, reach in enumerate((1.1, 0.46) * 5)
        ],
        "heart": _bend((0, 0.95), (-1.5, -0.1), (-0.85, -1.2), (0, -0.45))
        + _bend((0, -0.45), (0.85, -1.2), (1.5, -0.1), (0, 0.95)),
    }
    if name == "ring":
        return [(1, _arc(1)), (0, _arc(0.56))]
    return [(1, plain[name])]


def _arc(radius: float) -> Points:
    angles = [k / 32 * math.pi for k in range(64)]
    return [(radius * math.cos(angle), radius * math.sin(angle)) for angle in angles]


def _bend(*points: tuple[float, float]) -> Points:
    """A cubic curve through its two ends, pulled towards the two points between."""
    curve = []
    for t in (k / 24 for k in range(25)):
        weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3)
        x = sum(weight * point[0] for weight, point in zip(weights, points, strict=True))
        y = sum(weight * point[1] for weight, point in zip(weights, points, strict=True))
        curve.append((x, y))
    return curve


def _colour_name(colour: NDArray[np.float64]) -> str:
    return min(PALETTE, key=lambda name: float(np.linalg.norm(_lab(colour) - _palette_lab()[name])))


@cache
def _palette_lab() -> dict[str, NDArray[np.float64]]:
    return {name: _lab(np.array(colour)) for name, colour in PALETTE.items()}


def _lab(colours: NDArray[np.uint8] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Converts `(..., 3)` sRGB of 0 to 255 to CIELAB, where distances are as people see them."""
    share = np.asarray(colours, dtype=np.float64) / 255
    linear = np.where(share > 0.04045, ((share + 0.055) / 1.055) ** 2.4, share / 12.92)
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    xyz = linear @ to_xyz.T / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)
