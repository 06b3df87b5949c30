"""What somebody asks for, as they typed it, and what a mode makes of it. Pure.

A value that is a little off is brought within bounds and the asker is told; what would surprise
them is left to the mode to refuse (`ModeConfig.build_request`).
"""

from dataclasses import dataclass, field, replace
from typing import Any

from bot.parameters import FIELDS, read_parameters
from engine.errors import RequestError
from engine.jobs import RequestDraft
from modes.aspect import read_aspect, within
from modes.lora_choices import read_list
from modes.mode_config import ModeConfig
from modes.request_fields import parse_size, size_text

SIZES = "square, portrait, landscape, an aspect such as 16:9, or width x height such as 512x768"
"""How a size may be written."""

_LIKE = 0.1  # of the aspect; nobody sees less


@dataclass(frozen=True, slots=True)
class Wish:
    """A request as it was typed: plain JSON values, so that it can wait in the store.

    Attributes:
        prompt: parameters may follow the words.
        mode: as its option has it, and so what follows; None where nothing was said.
        negative: what to keep away from.
        size: see `SIZES`.
        steps: denoising steps.
        guidance: weight of the prompt.
        sampler: by name.
        seed: of the first picture.
        count: pictures.
        lora: a list as `read_list` takes it.
        strength: how much of the picture is drawn anew.
        image_url: where a picture to start from is; whoever has it may fetch it.
        image_urls: or where several are, of which one is still to be chosen.
        image_id: or one of the bot's own.
        parent_id: the job that the picture is of; None where it is none of ours.
        parent_number: which of its pictures, 0 is the first.
        like_mode: what is drawn with where nobody says anything and it may be used here.
        private: whether the asker alone sees the answer.
        is_plain: whether nothing in the prompt is read, since it is an earlier picture's own:
            what stood behind it was read then, and what still stands there is meant so.
    """

    prompt: str
    mode: str | None = None
    negative: str | None = None
    size: str | None = None
    steps: int | str | None = None
    guidance: float | str | None = None
    sampler: str | None = None
    seed: int | str | None = None
    count: int | str | None = None
    lora: str | None = None
    strength: float | str | None = None
    image_url: str | None = field(default=None, repr=False)
    image_urls: tuple[str, ...] = field(default=(), repr=False)
    image_id: str | None = None
    parent_id: str | None = None
    parent_number: int | None = None
    like_mode: str | None = None
    private: bool = False
    is_plain: bool = False

    @property
    def has_image(self) -> bool:
        """Whether it starts from a picture."""
        return self.image_url is not None or self.image_id is not None


def read_wish(wish: Wish) -> tuple[Wish, tuple[str, ...]]:
    """Returns a wish with the parameters behind its prompt, and what is to be said of them.

    What an option says counts more than a parameter.

    Raises:
        RequestError: a parameter is unknown.
    """
    if wish.is_plain:
        return wish, ()
    typed = read_parameters(wish.prompt)
    notes = list(typed.notes)
    found: dict[str, Any] = {}
    for name, text in typed.values.items():
        said, value = getattr(wish, name), _value(name, text)
        if said is None:
            found[name] = value
        elif said != value:
            # Nobody has looked at the other one's words, and all read this.
            notes.append(f"{name}: the option's {said} counts, not --{FIELDS[name][0]}")
    return replace(wish, prompt=typed.prompt, **found), tuple(notes)


def fitted(
    wish: Wish, mode: ModeConfig, own_size: str | None = None
) -> tuple[RequestDraft, tuple[str, ...]]:
    """Returns the draft of a wish, within what a mode allows, and what was changed for that.

    Args:
        wish: as `read_wish` returns it.
        mode: what is drawn with.
        own_size: the asker's own default; a picture to start from counts more.

    Raises:
        RequestError: the size or the LoRAs can't be read.
    """
    notes: list[str] = []
    if wish.size or own_size is None or wish.has_image:
        width, height = _size(wish.size, mode, notes) if wish.size else (None, None)
    else:
        width, height = _own_size(own_size, mode, notes)
    return RequestDraft(
        prompt=wish.prompt,
        mode=mode.name,
        negative_prompt=wish.negative,
        width=width,
        height=height,
        steps=_at_most("steps", wish.steps, mode.max_steps, notes),  # type: ignore[arg-type] # checked by the mode
        guidance_scale=_guidance(wish.guidance, mode, notes),  # type: ignore[arg-type] # likewise
        sampler=wish.sampler,
        seed=wish.seed,  # type: ignore[arg-type] # likewise
        count=_at_most("count", wish.count, mode.max_count, notes),  # type: ignore[arg-type] # likewise
        loras=read_list(wish.lora or ""),
        strength=wish.strength,  # type: ignore[arg-type] # likewise
    ), tuple(notes)


def check_size(text: str) -> str:
    """Returns the text of a size, blanks and capitals aside.

    Raises:
        RequestError: it is none.
    """
    plain = "".join(text.casefold().split())
    size = parse_size(plain)
    if 0 in size if size else read_aspect(plain) is None:
        raise RequestError("size", text, SIZES)
    return plain


def _value(name: str, text: str) -> str | int | float:
    """Returns a parameter's value as its option would have it; text where it is no number."""
    try:
        if name in ("steps", "count", "seed"):
            return int(text) if len(text) < 30 else text
        return float(text) if name in ("guidance", "strength") else text
    except ValueError:
        return text


def _at_most(name: str, said: object, most: int, notes: list[str]) -> object:
    if type(said) is not int or said <= most:
        return said
    notes.append(f"{name}: {most} instead of {_short(said)}, the most in this mode")
    return most


def _guidance(said: object, mode: ModeConfig, notes: list[str]) -> object:
    """Returns a guidance within bounds; from 0 to 1 it does what 1 does: nothing."""
    if isinstance(said, bool) or not isinstance(said, int | float):
        return said
    if said > mode.max_guidance:
        notes.append(f"guidance: {mode.max_guidance:g} instead of {said:g}, the most in this mode")
        return mode.max_guidance
    if 0 <= said < 1:
        notes.append(f"guidance: 1 instead of {said:g}, the least there is")
        return 1.0
    return said


def _size(said: str, mode: ModeConfig, notes: list[str]) -> tuple[int, int]:
    """Returns the size in pixels that a text means in a mode."""
    if asked := parse_size(said):
        if mode.sizes or 0 in asked:
            return asked  # another one than those listed would surprise
        size = within(asked, (mode.min_size, mode.max_size))
        if size != asked:
            notes.append(
                f"size: {size_text(size)} instead of {size_text(asked)}; sides are multiples of 8 "
                f"from {mode.min_size} to {mode.max_size}"
            )
        return size
    aspect = read_aspect(said)
    if aspect is None:
        raise RequestError("size", said, SIZES)
    size = mode.size_like(*aspect)
    if abs(size[0] * aspect[1] / (size[1] * aspect[0]) - 1) > _LIKE:
        notes.append(f"size: {size_text(size)}, as near to {said.strip()} as this mode comes")
    return size


def _own_size(own: str, mode: ModeConfig, notes: list[str]) -> tuple[int, int]:
    """Returns the size that is the nearest to somebody's default; nobody typed it just now."""
    asked = parse_size(own)
    if asked is None or not mode.sizes:
        return _size(own, mode, notes)
    size = asked if asked in mode.sizes else mode.size_like(*asked)
    if size != asked:
        notes.append(f"size: {size_text(size)} instead of your {size_text(asked)}, by this mode")
    return size


def _short(number: int) -> str:
    return str(number) if abs(number) < 10**9 else "so long a number"
