"""Prompts as the ecosystem writes them: weighted words, and more of them than an encoder reads.

The notation is the web UI's (https://github.com/AUTOMATIC1111/stable-diffusion-webui/wiki/Features,
"Attention/emphasis" and "Infinite prompt length"), and so is what becomes of it: text encoders read
chunk after chunk, each with its own begin and end, and what they write stands side by side.
"""

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby, zip_longest
from operator import itemgetter
from typing import Any, TypeAlias

# Only the worker process imports this module.
import torch  # noqa: TID253

from engine.errors import RequestError
from engine.jobs import GenerationRequest

MAX_WEIGHT = 4.0
"""Weights end here, and at its negative: what is heavier draws noise."""

MAX_CHUNKS = 32
"""Of a prompt. CLIP reads 2400 tokens in them, five times what a long text has."""

_CHUNKS_KEPT = 128

_FACTORS = {"(": 1.1, "[": 1 / 1.1}
_OPENED_BY = {")": "(", "]": "["}
_MARK = re.compile(
    r"\\[\\()\[\]]"
    r"|:\s*+(?P<weight>[+-]?(?:\d++(?:\.\d*+)?|\.\d++))\s*+\)"
    r"|[()\[\]]|[^\\()\[\]:]+|[\\:]",
    re.ASCII,
)
_BREAK = re.compile(r"\bBREAK\b")

# As the web UI: a phrase that a chunk's end would cut goes into the next chunk, if it began at most
# so many tokens ago.
_PHRASE = 20

Words: TypeAlias = tuple[tuple[int, float], ...]
"""What one encoder reads at once: tokens and their weights, begin and end left out."""


@dataclass(slots=True)
class _Bracket:
    """An opening bracket: the one of its kind around it, and the weight of what is inside."""

    outer: "_Bracket | None"
    weight: float


def parse(prompt: str) -> list[tuple[str, float]]:
    """Splits a prompt into pieces of one weight each, in time proportional to its length.

    ``(word)`` is 1.1, ``[word]`` 1 / 1.1, ``(word:1.3)`` what it says; brackets within brackets
    multiply. A backslash before a bracket or a backslash makes it plain text. As in the web UI,
    what closes nothing is plain text, and what nothing closes reaches to the prompt's end; a weight
    that is no plain number is text as well.

    Returns:
        Text and weight, -`MAX_WEIGHT` to `MAX_WEIGHT`; neighbours differ in weight.
    """
    inmost = {kind: _Bracket(None, 1.0) for kind in _FACTORS}
    brackets, pieces = [], []
    for match in _MARK.finditer(prompt):
        text = match[0]
        kind = _OPENED_BY.get(text[-1], "") if text[0] != "\\" else ""
        if text in _FACTORS:
            inmost[text] = _Bracket(inmost[text], _FACTORS[text])
            brackets.append(inmost[text])
        elif kind and (outer := inmost[kind].outer):
            if match["weight"]:
                inmost[kind].weight = _bounded(float(match["weight"]))
            inmost[kind] = outer
        else:
            plain = text[1:] if len(text) > 1 and text[0] == "\\" else text
            pieces.append((plain, inmost["("], inmost["["]))
    for bracket in brackets:  # the outer ones come first
        if bracket.outer:
            bracket.weight = _bounded(bracket.weight * bracket.outer.weight)
    weighted = [(text, _bounded(one.weight * two.weight)) for text, one, two in pieces]
    return [
        ("".join(text for text, _ in group), weight)
        for weight, group in groupby(weighted, key=itemgetter(1))
    ]


def _bounded(weight: float) -> float:
    return max(-MAX_WEIGHT, min(weight, MAX_WEIGHT))


@dataclass(frozen=True, slots=True)
class Reading:
    """What text encoders make of a prompt.

    Attributes:
        embedding: ``[1, tokens, width]``.
        summary: ``[1, width]``, of the first chunk alone.
    """

    embedding: torch.Tensor
    summary: torch.Tensor


@dataclass(frozen=True, slots=True)
class PromptReader:
    """A text encoder and the tokenizer that goes before it.

    Attributes:
        tokenizer: words → numbers.
        encoder: numbers → embeddings.
    """

    tokenizer: Any
    encoder: Any

    @property
    def max_tokens(self) -> int:
        """Most tokens that the encoder reads at once, those of begin and end included."""
        positions = self.encoder.config.max_position_embeddings
        return int(min(self.tokenizer.model_max_length, positions))

    def chunks(self, prompt: str, length: int) -> list[Words]:
        """Returns a prompt's tokens in chunks that fit ``length`` with begin and end; one at least.

        The word BREAK in capitals begins a chunk, as in the web UI.
        """
        room = max(length - 2, 1)  # an encoder without any is refused what it can't take, and ends
        comma = self.tokenizer.convert_tokens_to_ids(",</w>")
        chunks, words = [], Words()
        for text, weight in parse(prompt):
            for number, part in enumerate(_BREAK.split(text)):
                if number:
                    chunks.append(words)
                    words = ()
                tokens = self.tokenizer(part, add_special_tokens=False, verbose=False).input_ids
                words += tuple((token, weight) for token in tokens)
                while len(words) > room:
                    end = _end_of_phrase([token for token, _ in words[: room + 1]], comma)
                    chunks.append(words[:end])
                    words = words[end:]
        return [*chunks, words] if words or not chunks else chunks

    def read(self, words: Words, length: int, layer: int, *, normed: bool) -> Reading:
        """Reads one chunk, filled up to a length.

        Rows are multiplied by the weights of their words. Behind the encoder's final norm, all are
        then multiplied so that their mean stays what it was, which is the web UI's default; without
        the norm the mean says little, and the web UI, too, advises against it.

        Args:
            words: what fits.
            length: in tokens, begin and end included.
            layer: whose output is taken, counted from the encoder's end; 1 is the last.
            normed: whether it then goes through the encoder's final norm.
        """
        tokenizer, device = self.tokenizer, self.encoder.device
        ids = [tokenizer.bos_token_id, *(token for token, _ in words), tokenizer.eos_token_id]
        empty = length - len(ids)
        mask = None
        if getattr(self.encoder.config, "use_attention_mask", False):
            mask = torch.tensor([[1] * len(ids) + [0] * empty]).to(device)
        output = self.encoder(
            torch.tensor([ids + [tokenizer.pad_token_id] * empty]).to(device),
            attention_mask=mask,
            output_hidden_states=True,
        )
        rows = output.hidden_states[-layer]
        if normed:
            rows = self.encoder.final_layer_norm(rows)
        weights = [weight for _, weight in words]
        if any(weight != 1 for weight in weights):
            column = torch.tensor([1, *weights, *[1] * (empty + 1)], dtype=torch.float32)
            rows = _weighted(rows, column.to(device), keep_mean=normed)
        summary = output.text_embeds if "text_embeds" in output else output.pooler_output
        return Reading(rows, summary)


def _end_of_phrase(tokens: Sequence[int], comma: int) -> int:
    """Returns how many tokens a chunk takes, all but the last at most."""
    room = len(tokens) - 1
    if tokens[room] != comma:
        for end in range(room, max(room - _PHRASE, 0), -1):
            if tokens[end - 1] == comma:
                return end
    return room


def _weighted(rows: torch.Tensor, weights: torch.Tensor, *, keep_mean: bool) -> torch.Tensor:
    """Returns rows ``[1, tokens, width]`` multiplied by weights ``[tokens]``."""
    weighted = rows.float() * weights[:, None]
    factor = (rows.float().mean() / weighted.mean()).item()
    # Beyond that, the mean is near zero: it can't be kept in a way that makes sense.
    if keep_mean and 1 / MAX_WEIGHT <= factor <= MAX_WEIGHT:
        weighted *= factor
    return weighted.to(rows.dtype)


class PromptEncoder:
    """Reads prompts with all of a model's text encoders, and keeps what it read last.

    Args:
        readers: what they write stands side by side; the last one's summary counts.
        layer: the one that the family was trained with, counted as `GenerationRequest.clip_skip`.
        normed: whether the family takes it through the encoder's final norm.
    """

    def __init__(self, readers: Sequence[PromptReader], layer: int, *, normed: bool) -> None:
        self._readers = readers
        self._layer = layer
        self._normed = normed
        self._length = min(reader.max_tokens for reader in readers)
        self._kept = lru_cache(maxsize=_CHUNKS_KEPT)(self._read)

    def read(self, request: GenerationRequest, *, guided: bool, loras: Hashable) -> list[Reading]:
        """Reads the negative prompt and the prompt, or the prompt alone; all get equally long.

        Args:
            request: whose prompts.
            guided: whether the negative prompt is read.
            loras: what is laid over the encoders just now; equal only where all of it is.

        Raises:
            RequestError: the encoders have no such layer, or a prompt is far too long.
        """
        layer = self._layer if request.clip_skip is None else self._checked(request.clip_skip)
        prompts = {"negative": request.negative_prompt} if guided else {}
        prompts["prompt"] = request.prompt
        chunks = [self._chunks(field, prompt) for field, prompt in prompts.items()]
        count = max(map(len, chunks))
        nothing = ((),) * len(self._readers)
        readings = []
        for own in chunks:
            filled = own + [nothing] * (count - len(own))
            # Its arguments are the key of what is kept: all that changes a reading is among them.
            read = [self._kept(chunk, layer, loras) for chunk in filled]
            embedding = torch.cat([reading.embedding for reading in read], dim=1)
            readings.append(Reading(embedding, read[0].summary))
        return readings

    def forget(self) -> None:
        """Lets go of what was read; it is read again where it is asked for."""
        self._kept.cache_clear()

    def _chunks(self, field: str, prompt: str) -> list[tuple[Words, ...]]:
        """Returns a prompt's chunks, and of each what every reader reads."""
        own = [reader.chunks(prompt, self._length) for reader in self._readers]
        chunks = list(zip_longest(*own, fillvalue=Words()))
        if len(chunks) > MAX_CHUNKS:
            room = self._length - 2
            # Whoever reads what failed, in a log or on the page, is not to read the words.
            raise RequestError(
                field,
                f"a prompt of {len(chunks) * room} tokens",
                f"about {MAX_CHUNKS * room} tokens for this model; it is longer",
            )
        return chunks

    def _checked(self, layer: int) -> int:
        layers = min(reader.encoder.config.num_hidden_layers for reader in self._readers)
        if type(layer) is not int or not 1 <= layer <= layers:
            raise RequestError("clip_skip", layer, f"1 to {layers} for this model")
        return layer

    def _read(self, chunk: tuple[Words, ...], layer: int, _loras: Hashable) -> Reading:
        readings = [
            reader.read(words, self._length, layer, normed=self._normed)
            for reader, words in zip(self._readers, chunk, strict=True)
        ]
        embedding = torch.cat([reading.embedding for reading in readings], dim=-1)
        return Reading(embedding, readings[-1].summary)
