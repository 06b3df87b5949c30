"""How a scene is asked for: its caption in plain English, with the variety that people bring."""

from __future__ import annotations

import re
import string
from random import Random

from training.demo.scenes import Landscape, Scene, Subject

NUMBER_WORDS = {2: "two", 3: "three", 4: "four"}

SYNONYMS = {
    "large": ("big", "huge"),
    "small": ("tiny", "little"),
    "purple": ("violet",),
    "top left": ("upper left", "top left corner", "upper left corner"),
    "top right": ("upper right", "top right corner", "upper right corner"),
    "bottom left": ("lower left", "bottom left corner", "lower left corner"),
    "bottom right": ("lower right", "bottom right corner", "lower right corner"),
    "center": ("middle", "centre"),
    "two": ("2",),
    "three": ("3",),
    "four": ("4",),
    "ring": ("donut",),
    "cross": ("plus",),
    "circle": ("disc", "ball"),
    "below": ("under",),
    "above": ("over",),
    "boat": ("sailing boat", "sailboat", "ship"),
    "cat": ("cat's face", "cat face", "kitten"),
    "sea": ("ocean",),
    "flower": ("blossom",),
}
OPENINGS = (
    "a picture of ",
    "an illustration of ",
    "a drawing of ",
    "draw ",
    "an image of ",
    "a simple picture of ",
)
ENDINGS = (
    ", flat illustration",
    ", high quality",
    ", simple",
    ", cute",
    ", masterpiece, best quality",
    ", digital art",
)
STRANGE_CHARACTERS = "äéñßøλжשあ日本語猫한국🙂🎨🚀—“”"


def caption(scene: Scene, rng: Random) -> str:
    """Words a scene in one of a few plain ways.

    Args:
        scene: What is asked for.
        rng: Chooses among the ways.

    Returns:
        A lower-case caption that names everything the scene says, and nothing more.
    """
    if scene.landscape:
        return _landscape_caption(scene.landscape, rng)
    if scene.subject is None:
        raise ValueError("a scene needs a subject or a landscape")
    words = _subject_phrase(scene, scene.subject, rng)
    if scene.second and scene.relation:
        relation = scene.relation
        if relation == "and":
            relation = rng.choice(("and", "and", "and", "next to"))
        words += f" {relation} {_phrase(scene.second, rng)}"
    place, background = _place_words(scene, rng), _background_words(scene, rng)
    return words + (place + background if rng.random() < 0.8 else background + place)


def vary(text: str, rng: Random) -> str:
    """Roughens a caption as people do, without changing what it asks for.

    Synonyms, an opening ("a drawing of"), an ending (", high quality"), now and then a word that
    means nothing here: a model that has met strange words ignores them.

    Args:
        text: A caption.
        rng: Chooses what to change; most captions stay as they are.

    Returns:
        The varied caption.
    """
    if rng.random() < 0.3:
        for word, others in SYNONYMS.items():
            if rng.random() < 0.5:
                text = re.sub(rf"\b{word}\b", rng.choice(others), text, count=1)
    if rng.random() < 0.05:
        at = rng.choice([m.end() for m in re.finditer(r"\b\w+\b(?: |$)", text)])
        text = f"{text[:at].rstrip()} {_strange_word(rng)} {text[at:]}".strip()
    if rng.random() < 0.1:
        text = rng.choice(OPENINGS) + text
    if rng.random() < 0.07:
        text += rng.choice(ENDINGS)
    return text


def article(words: str) -> str:
    """Puts "a" or "an" before words."""
    return ("an " if words[0] in "aeiou" else "a ") + words


def _subject_phrase(scene: Scene, subject: Subject, rng: Random) -> str:
    if scene.count == 1:
        return _phrase(subject, rng, scene.size)
    plural = "crosses" if subject.kind == "cross" else subject.kind + "s"
    words = (NUMBER_WORDS[scene.count], scene.size, subject.colour, plural)
    return " ".join(word for word in words if word)


def _phrase(subject: Subject, rng: Random, size: str | None = None) -> str:
    kind, colour = subject.kind, subject.colour
    part = {"house": "roof", "boat": "sail"}.get(kind)
    if part and colour:  # the colour is that of a part: saying so is the usual way
        words = " ".join(word for word in (size, kind) if word)
        return f"{article(words)} with {article(colour)} {part}"
    words = " ".join(word for word in (size, colour, kind) if word)
    bare = rng.random() < 0.1
    if kind in ("sun", "moon") and not (size or colour):
        return f"the {kind}" if rng.random() < 0.4 else article(kind)
    return words if bare else article(words)


def _place_words(scene: Scene, rng: Random) -> str:
    place = scene.place
    if not place:
        return ""
    if rng.random() < 0.5:
        return f", {place}"
    if place == "center" or " " in place:
        return f" in the {place}"
    return f" at the {place}" if place in ("top", "bottom") else f" on the {place}"


def _background_words(scene: Scene, rng: Random) -> str:
    colour = scene.background
    if not colour:
        return ""
    ways = (f" on {article(colour)} background", f", {colour} background", f" on {colour}")
    return rng.choices(ways, weights=(65, 20, 15))[0]


def _landscape_caption(view: Landscape, rng: Random) -> str:
    details = [_detail_phrase(name, view, rng) for name in view.details]
    rng.shuffle(details)
    way = rng.random()
    if way < 0.4:
        opening = {
            "day": "a landscape by day",
            "night": "a night landscape",
            "sunset": "a sunset landscape",
        }[view.time]
        return f"{opening} with {_listing([_terrain_phrase(view.terrain), *details])}"
    if way < 0.75:
        when = {"day": rng.choice((" by day", "")), "night": " at night", "sunset": " at sunset"}
        words = _terrain_phrase(view.terrain) + when[view.time]
        return f"{words} with {_listing(details)}" if details else words
    parts = [view.terrain, *details]
    return ", ".join([view.time, *parts] if rng.random() < 0.5 else [*parts, view.time])


def _terrain_phrase(terrain: str) -> str:
    return "the sea" if terrain == "sea" else terrain


def _detail_phrase(name: str, view: Landscape, rng: Random) -> str:
    if name in ("stars", "clouds"):
        return name
    if name in ("sun", "moon"):
        return rng.choice((f"a {name}", f"the {name}"))
    return _phrase(Subject(name, view.colour if name != "tree" else None), rng)


def _listing(parts: list[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else parts[0]


def _strange_word(rng: Random) -> str:
    letters = string.ascii_lowercase if rng.random() < 0.7 else STRANGE_CHARACTERS
    return "".join(rng.choice(letters) for _ in range(rng.randint(2, 6)))
