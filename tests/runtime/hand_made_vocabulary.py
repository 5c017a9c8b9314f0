"""A vocabulary file in CLIP's format whose first merges are chosen by hand; the rest can meet no small letter."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

MERGES = 48894
HEADER = '"bpe_simple_vocab_16e6.txt#version: 0.2'


def write_vocabulary(path: Path, merges: Sequence[str], *, number: int = MERGES, header: str = HEADER) -> Path:
    """Write `path`: the header, `merges` such as "a b" or "ab c</w>", and others up to `number` lines in all."""
    capitals = [chr(code) for code in (*range(0x41, 0x5B), *range(0xC0, 0x100), *range(0x100, 0x144))]
    anything = [chr(code) for code in (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x144))]
    pairs = (f"{one} {other}{end}" for end in ("", "</w>") for one in capitals for other in anything)
    path.write_text("\n".join([header, *merges, *islice(pairs, number - len(merges))]) + "\n", encoding="utf-8")
    return path
