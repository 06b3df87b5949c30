"""Pictures as PNG files that carry how they were drawn, in the ecosystem's own notation.

The text chunk ``parameters`` is what AUTOMATIC1111's web UI writes and most galleries read: the
prompt, a line ``Negative prompt: …``, and a last line of ``Key: value`` pairs. That notation is
ambiguous where a prompt itself holds such a line; then, and only then, a further pair
``Prompt lines`` says how many lines are the prompt's, so that reading gives back what was written.
"""

import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageOps, PngImagePlugin

from engine.errors import DrawingError
from engine.jobs import GenerationRequest, ModelSpec

if TYPE_CHECKING:  # the talking process has pictures as files alone
    import numpy as np
    import numpy.typing as npt

PARAMETERS_KEY = "parameters"
"""Keyword of the text chunk."""

_NEGATIVE = "Negative prompt: "
_SETTINGS = "Steps: "
_PROMPT_LINES = "Prompt lines"
_COMPRESSION = 6  # zlib's own default; level 9 takes three times as long for one percent

# A key, then a JSON string or anything without a comma.
_PAIR = re.compile(r'\s*(\w[\w \-/]*):\s*("(?:\\.|[^\\"])*"|[^,]*)(?:,|$)')


@dataclass(frozen=True, slots=True)
class Parameters:
    """How a picture was drawn, as its file says.

    Attributes:
        prompt: the words it was drawn from.
        negative_prompt: what was kept away; empty where nothing was.
        settings: the last line's pairs in their order; ``Steps`` is the first, by which readers
            know the line.
    """

    prompt: str
    negative_prompt: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)


def request_parameters(request: GenerationRequest, seed: int) -> str:
    """Returns the text that goes into a picture's file.

    Args:
        request: what it was drawn for.
        seed: the seed of just this picture.
    """
    settings = {
        "Steps": str(request.steps),
        "Sampler": request.sampler.value,
        "CFG scale": _number(request.guidance_scale),
        "Seed": str(seed),
        "Size": f"{request.width}x{request.height}",
        "Model": _name(request.model),
        "Mode": request.mode,
    }
    if request.model.vae is not None:
        settings["VAE"] = request.model.vae.name
    variation_seed = request.variation_seed_of(seed)
    if variation_seed is not None:
        settings["Variation seed"] = str(variation_seed)
        settings["Variation seed strength"] = _number(request.variation_strength)
    if request.source is not None:
        settings["Denoising strength"] = _number(request.strength)
    if request.clip_skip is not None:
        settings["Clip skip"] = str(request.clip_skip)
    if request.refiner is not None:
        settings["Refiner"] = _name(request.refiner)
        settings["Refiner switch at"] = _number(request.refiner_from)
    # The web UI has them in the prompt, the mode's own no less than those that were asked for.
    tags = (f"<lora:{lora.path.stem}:{_number(lora.strength)}>" for lora in request.model.loras)
    prompt = " ".join((request.prompt, *tags))
    return format_parameters(Parameters(prompt, request.negative_prompt, settings))


def format_parameters(parameters: Parameters) -> str:
    """Returns parameters in the notation of the web UI; `parse_parameters` reads them back."""
    text = _format(parameters)
    if parse_parameters(text) == parameters:
        return text
    lines = str(parameters.prompt.count("\n") + 1)
    return _format(replace(parameters, settings={**parameters.settings, _PROMPT_LINES: lines}))


def parse_parameters(text: str) -> Parameters:
    """Reads the notation of the web UI, other programs' files included.

    Text whose last line holds no settings is all prompt. Nothing here fails: whatever the text,
    the result says what could be understood of it.
    """
    head, newline, last = text.rpartition("\n")
    if last.startswith(_SETTINGS):
        settings = {key: _unquoted(value) for key, value in _pairs(last)}
    else:
        head, newline, settings = text, "\n", {}
    lines = head.split("\n") if newline else []
    split = _prompt_lines(lines, settings.pop(_PROMPT_LINES, None))
    negative = "\n".join(lines[split:])
    return Parameters(
        "\n".join(lines[:split]),
        negative.removeprefix(_NEGATIVE.rstrip()).removeprefix(" "),
        settings,
    )


def encode_png(picture: "npt.NDArray[np.uint8] | Image.Image", parameters: str) -> bytes:
    """Returns a picture as a PNG file; the same picture and parameters make the same bytes.

    Args:
        picture: ``[height, width, 3]`` or a PIL image.
        parameters: kept in the text chunk `PARAMETERS_KEY`.
    """
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    chunks = PngImagePlugin.PngInfo()
    # Half a surrogate pair can't be written in any encoding. Latin text goes into tEXt, all else
    # into iTXt: Pillow chooses.
    chunks.add_text(PARAMETERS_KEY, parameters.encode("utf-8", "replace").decode("utf-8"))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=chunks, compress_level=_COMPRESSION)
    return buffer.getvalue()


def read_png(png: bytes) -> Parameters | None:
    """Returns how a picture was drawn as its file says; None where it says nothing.

    Raises:
        ValueError: it is no PNG file.
    """
    try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
            image.load()  # chunks may follow the pixels
            text = image.info.get(PARAMETERS_KEY)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"no readable PNG file: {error}") from error
    return parse_parameters(str(text)) if text is not None else None


def first_parameters(start: bytes) -> Parameters | None:
    """Returns how a picture was drawn, from the first bytes of its file alone.

    None where they don't say it, or are no picture's.
    """
    try:
        with Image.open(io.BytesIO(start), formats=["PNG"]) as image:
            text = image.info.get(PARAMETERS_KEY)  # of the chunks before the pixels
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    return parse_parameters(text) if isinstance(text, str) else None


def read_source(path: Path, width: int, height: int) -> Image.Image:
    """Reads a picture to start from and makes it cover a size: scaled, its middle kept.

    One of just that size stays as it is.

    Args:
        path: a PNG file.
        width: pixels.
        height: pixels.

    Returns:
        An RGB image.

    Raises:
        DrawingError: the file is gone, or no PNG that can be read.
    """
    try:
        with Image.open(path, formats=["PNG"]) as image:
            return ImageOps.fit(image.convert("RGB"), (width, height), Image.Resampling.LANCZOS)
    except FileNotFoundError as error:
        raise DrawingError("The picture to start from is gone. Please give it again.") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DrawingError(
            "The picture to start from can't be read: its file is damaged. Please give it again."
        ) from error


def _name(model: ModelSpec) -> str:
    return model.path.stem if model.path.suffix else model.path.name


def _format(parameters: Parameters) -> str:
    negative = parameters.negative_prompt
    pairs = (f"{key}: {_quoted(value)}" for key, value in parameters.settings.items())
    middle = f"\n{_NEGATIVE}{negative}" if negative else ""
    return f"{parameters.prompt}{middle}\n{', '.join(pairs)}"


def _prompt_lines(lines: list[str], said: str | None) -> int:
    """Returns how many of the lines are the prompt's."""
    if said is not None and said.isascii() and said.isdecimal():
        return int(said[:9])
    negative = _NEGATIVE.rstrip()
    return next((i for i, line in enumerate(lines) if line.startswith(negative)), len(lines))


def _quoted(value: str) -> str:
    """Returns a setting's value, as a JSON string where it would be misread bare."""
    if value == value.strip() and not any(c in value for c in ',\n:"'):
        return value
    return json.dumps(value, ensure_ascii=False)


def _pairs(line: str) -> Iterator[tuple[str, str]]:
    """Yields keys and values; what is no pair is passed over, up to the next comma.

    In a time that grows as the line does, since anybody may have written it: a search for the next
    pair would begin anew at each character.
    """
    at = 0
    while at < len(line):
        if pair := _PAIR.match(line, at):
            yield pair[1], pair[2]
        at = pair.end() if pair else (line.find(",", at) + 1 or len(line))


def _unquoted(value: str) -> str:
    if not value.startswith('"'):
        return value
    try:
        return str(json.loads(value))
    except ValueError:
        return value


def _number(value: float) -> str:
    """Returns the shortest text that reads as the same number: ``7``, ``7.5``."""
    return repr(float(value)).removesuffix(".0")
