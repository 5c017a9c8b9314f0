"""CLIP's byte-pair vocabulary: which symbols there are, and which two of them become a third.

The file is `bpe_simple_vocab_16e6.txt.gz` of openai/CLIP: a header, then one merge a line, two symbols apart. A symbol
spells bytes, one character each: printable Latin-1 characters stand for themselves, the other bytes for the characters
from U+0100 on. `</w>` behind a symbol says that a word ends there. Numbers of symbols:

       0 …   255   bytes, the printable ones first
     256 …   511   the same at the end of a word
     512 … 49405   what the first 48894 merges make, in the order of the file; the rest of the file is not used
   49406, 49407    start and end of a text
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import importlib.metadata
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from samonnx.errors import SamonnxError

__all__ = ["CARRIERS", "END", "FILE_NAME", "START", "Vocabulary", "VocabularyError", "find_vocabulary"]

FILE_NAME = "bpe_simple_vocab_16e6.txt.gz"
DIGEST = "67603cfda2e032ad77b5f8808af37789d590db664b26df8705d2bf8b3c553fc8"
"""sha256 of the unpacked file. The rows of a released model's embedding belong to exactly this one."""

CARRIERS = ("osam", "open_clip_torch", "clip-anytorch")
"""Distributions that have the file in them. It is read out of them; they are never imported."""

MERGES = 48894
START, END = 49406, 49407
WORD_END = "</w>"
GZIP_MAGIC = b"\x1f\x8b"


class VocabularyError(SamonnxError):
    """There is no vocabulary, or it is not in CLIP's format."""


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Symbols by their numbers."""

    bytes_inside: tuple[int, ...]
    """The symbol of each of the 256 bytes inside a word; at its end the number is 256 higher."""
    merges: Mapping[tuple[int, int], int]
    """Two neighbouring symbols -> the one that they become. The smaller its number, the earlier it is made."""

    @classmethod
    def read(cls, path: Path) -> Vocabulary:
        """Read `path`, packed with gzip or not. Raises VocabularyError: not there, damaged, not in the format."""
        return cls.parse(_unpacked(path), path)

    @classmethod
    def clip(cls) -> Vocabulary:
        """CLIP's own, out of an installed package. Raises VocabularyError if there is none, or it is another one."""
        return _clip(find_vocabulary())

    @classmethod
    def parse(cls, content: bytes, path: Path) -> Vocabulary:
        """The unpacked content of the file `path`. Raises VocabularyError."""
        try:
            header, *lines = content.decode("utf-8").split("\n")
        except UnicodeDecodeError as error:
            raise VocabularyError(
                f"vocabulary {path} is not text in UTF-8: {error.reason} at byte {error.start}. Expected {FILE_NAME}"
            ) from error
        if "#version" not in header:
            raise VocabularyError(
                f'vocabulary {path}, line 1: expected the header, such as "{FILE_NAME[:-3]}#version: 0.2", '
                f"found {header[:40]!r}"
            )
        order = _byte_order()
        numbers = {symbol: number for number, symbol in enumerate(_spelling(order))}
        numbers |= {symbol + WORD_END: number + 256 for symbol, number in numbers.items()}
        merges = {}
        for number, line in enumerate(lines[:MERGES], start=512):
            symbols = line.split()
            known = len(symbols) == 2 and all(symbol in numbers for symbol in symbols)
            made = "".join(symbols)
            if not known or made in numbers:
                raise VocabularyError(
                    f"vocabulary {path}, line {number - 510}: expected two symbols that the lines above make, apart by "
                    f"a space, and that make a new one together; found {line[:40]!r}. Expected {FILE_NAME} of CLIP"
                )
            numbers[made] = number
            merges[numbers[symbols[0]], numbers[symbols[1]]] = number
        if len(merges) < MERGES:
            raise VocabularyError(
                f"vocabulary {path} has {len(merges)} merges, expected {MERGES} or more. Is the file cut short?"
            )
        return cls(tuple(order.index(byte) for byte in range(256)), merges)


def find_vocabulary() -> Path:
    """Where an installed package keeps CLIP's vocabulary. Raises VocabularyError that says what to install."""
    for carrier in CARRIERS:
        try:
            files = importlib.metadata.distribution(carrier).files or ()
        except importlib.metadata.PackageNotFoundError:
            continue
        for file in files:
            if file.name == FILE_NAME:
                return Path(str(file.locate()))
    raise VocabularyError(
        f"no installed package has CLIP's vocabulary ({FILE_NAME}); looked into {', '.join(CARRIERS)}. "
        f'Run: pip install "samonnx[text]", or give the path of the file as vocabulary (--vocabulary)'
    )


@functools.lru_cache(maxsize=1)
def _clip(path: Path) -> Vocabulary:
    """Kept, as reading takes a third of a second."""
    content = _unpacked(path)
    digest = hashlib.sha256(content).hexdigest()
    if digest != DIGEST:
        raise VocabularyError(
            f"{path} is not CLIP's vocabulary: its sha256 is {digest}, expected {DIGEST}. "
            f"Install the package again, or give CLIP's {FILE_NAME} as vocabulary (--vocabulary)"
        )
    return Vocabulary.parse(content, path)


def _unpacked(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if content.startswith(GZIP_MAGIC) else content
    except FileNotFoundError as error:
        raise VocabularyError(f"vocabulary {path} does not exist; expected CLIP's {FILE_NAME}") from error
    except (OSError, EOFError, zlib.error) as error:
        raise VocabularyError(f"vocabulary {path} cannot be read: {error}. Expected CLIP's {FILE_NAME}") from error


def _byte_order() -> list[int]:
    """The bytes in the order of their symbols: printable characters of Latin-1 first (the soft hyphen is none)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return printable + [byte for byte in range(256) if byte not in printable]


def _spelling(order: list[int]) -> list[str]:
    """The character of each symbol of one byte, in that order."""
    printable = 188
    return [chr(byte) for byte in order[:printable]] + [chr(0x100 + n) for n in range(256 - printable)]
