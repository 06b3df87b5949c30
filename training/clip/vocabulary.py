"""Writes CLIP's tokenizer files from the list of merges that the package open-clip-torch carries.

    pip download --no-deps open-clip-torch
    python -m training.clip.vocabulary open_clip_torch-*.whl engine/families/clip

The package itself is not imported: it would ask for torchvision, and only one of its data files is
wanted.
"""

import argparse
import gzip
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

MERGES = 49_152 - 256 - 2
"""How many of the file's merges CLIP was trained with: its 49152 less bytes and special tokens."""

SPECIAL = ("<|startoftext|>", "<|endoftext|>")
"""The last two tokens, by the names that the published tokenizers give them."""

_BPE = "open_clip/bpe_simple_vocab_16e6.txt.gz"
_LICENSE = "/licenses/LICENSE"


def byte_letters() -> list[str]:
    """Returns the printable letter that stands for each byte, in the order of the vocabulary.

    Bytes that are printable in Latin-1 stand for themselves and come first; the others are
    numbered from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = 256 - len(printable)
    return [chr(code) for code in (*printable, *range(0x100, 0x100 + others))]


def vocabulary(merges: Sequence[str]) -> dict[str, int]:
    """Returns all tokens with their numbers.

    Args:
        merges: pairs of tokens, each pair as one text with a space in the middle.
    """
    letters = byte_letters()
    tokens = [*letters, *(letter + "</w>" for letter in letters)]
    tokens += [merge.replace(" ", "") for merge in merges]
    return {token: number for number, token in enumerate((*tokens, *SPECIAL))}


def main() -> None:
    """Writes ``merges.txt``, ``vocab.json`` and ``LICENSE``."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("wheel", type=Path, help="open_clip_torch-….whl")
    parser.add_argument("folder", type=Path, help="where the files go")
    given = parser.parse_args()
    with zipfile.ZipFile(given.wheel) as wheel:
        lines = gzip.decompress(wheel.read(_BPE)).decode().split("\n")
        [licence] = (name for name in wheel.namelist() if name.endswith(_LICENSE))
        (given.folder / "LICENSE").write_bytes(wheel.read(licence))
    merges = lines[1 : 1 + MERGES]  # the first line is the version
    text = "\n".join(("#version: 0.2", *merges, ""))
    (given.folder / "merges.txt").write_text(text, encoding="utf-8", newline="\n")
    # Without spaces and final newline both files are, byte for byte, those of the published models.
    tokens = json.dumps(vocabulary(merges), ensure_ascii=False, separators=(",", ":"))
    (given.folder / "vocab.json").write_text(tokens, encoding="utf-8")


if __name__ == "__main__":
    main()
