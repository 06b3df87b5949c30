"""The tokenizer: byte-pair encoding in which every word of the captions is one token.

All 256 bytes are in the vocabulary, so any prompt in any language has tokens; words that no
caption uses fall apart into pieces or letters.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from itertools import pairwise
from random import Random
from typing import TYPE_CHECKING

# ruff: noqa: TID253 - the training code owns its transformers; no front end imports it
from transformers import CLIPTokenizer

from training.demo.captions import OPENINGS, caption, vary
from training.demo.scenes import sample_scene

if TYPE_CHECKING:
    from pathlib import Path

LONGEST_PROMPT = 24
START, END = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"
CAPTIONS_READ = 40_000
RARE = 30  # rarer "words" are the nonsense that `vary` puts in
EXTRA_WORDS = (
    "background picture drawing illustration no not with and the in on of at next to side blurry "
    "low quality bad ugly dark bright light gray brown big cute style photo painting"
)

Pieces = tuple[str, ...]


def make_tokenizer(folder: Path, seed: int = 0) -> CLIPTokenizer:
    """Learns a vocabulary from sampled captions and writes it.

    Args:
        folder: Gets `vocab.json`, `merges.txt` and the files of `save_pretrained`.
        seed: Of the captions read.

    Returns:
        The tokenizer, as loaded back from the folder.
    """
    merges = _learn_merges(_count_words(Random(seed)))
    letters = list(_byte_letters().values())
    vocabulary = [*letters, *(letter + WORD_END for letter in letters)]
    vocabulary += [left + right for left, right in merges]
    vocabulary += [START, END]
    folder.mkdir(parents=True, exist_ok=True)
    numbered = {token: number for number, token in enumerate(vocabulary)}
    (folder / "vocab.json").write_text(json.dumps(numbered, ensure_ascii=False), "utf-8")
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in merges), ""]
    (folder / "merges.txt").write_text("\n".join(lines), "utf-8")
    made = CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=LONGEST_PROMPT
    )
    made.save_pretrained(folder)
    return load_tokenizer(folder)


def load_tokenizer(folder: Path) -> CLIPTokenizer:
    """Loads a tokenizer that `make_tokenizer` wrote."""
    return CLIPTokenizer.from_pretrained(folder)


def _count_words(rng: Random) -> Counter[str]:
    words: Counter[str] = Counter()
    for _ in range(CAPTIONS_READ):
        text = vary(caption(sample_scene(rng), rng), rng)
        words.update(re.findall(r"'s|[a-z]+|[0-9]|[,.]", text.lower()))
    common = Counter({word: count for word, count in words.items() if count > RARE})
    common.update(dict.fromkeys(" ".join([EXTRA_WORDS, *OPENINGS]).split(), RARE))
    return common


def _learn_merges(words: Counter[str]) -> list[tuple[str, str]]:
    """Merges the commonest pair again and again, until every word is one piece."""
    split: dict[str, Pieces] = {word: (*word[:-1], word[-1] + WORD_END) for word in words}
    merges: list[tuple[str, str]] = []
    while True:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, pieces in split.items():
            for pair in pairwise(pieces):
                pairs[pair] += words[word]
        if not pairs:
            return merges
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        split = {word: _merged(pieces, best) for word, pieces in split.items()}


def _merged(pieces: Pieces, pair: tuple[str, str]) -> Pieces:
    merged: list[str] = []
    for piece in pieces:
        if merged and (merged[-1], piece) == pair:
            merged[-1] += piece
        else:
            merged.append(piece)
    return tuple(merged)


def _byte_letters() -> dict[int, str]:
    """The printable letter that stands for each byte, as in CLIP's and GPT-2's vocabularies."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {byte: chr(byte) for byte in printable}
    spare = (chr(256 + k) for k in range(256))
    return {byte: letters.get(byte) or next(spare) for byte in range(256)}
