"""Words to the numbers that the text encoder takes: CLIP's byte-pair encoding, as the original runs it.

    text ─► cleaned ─► pieces ─► bytes ─► symbols merged ─► 49406 … 49407 0 0 0

Cleaning mends mojibake (ftfy), unescapes HTML twice, makes every run of white space one space, and lowers the case.
Pieces are runs of letters, single digits, runs of other characters, and English endings such as 's. In each piece the
two neighbours that the vocabulary merges first are merged, everywhere in the piece, until no two neighbours merge.
Sennrich et al., "Neural machine translation of rare words with subword units"; sam3/model/tokenizer_ve.py.

Needs ftfy, regex and a package that carries the vocabulary: `pip install "samonnx[text]"`. What is a letter is decided
by the Unicode version of `regex`, as in the original.
"""

from __future__ import annotations

import html
import warnings
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from samonnx.errors import SamonnxError
from samonnx.runtime.extras import require_extra
from samonnx.runtime.vocabulary import END, START, Vocabulary

__all__ = ["TextError", "Tokenizer", "TruncatedTextWarning"]

SPECIAL = {"<start_of_text>": START, "<end_of_text>": END}
"""Written out in a text, these are the tokens themselves, as in the original."""

PIECE = "|".join((*SPECIAL, r"'s|'t|'re|'ve|'m|'ll|'d", r"\p{L}+", r"\p{N}", r"[^\s\p{L}\p{N}]+"))
SHOWN = 60


class TextError(SamonnxError):
    """Words that cannot be made into tokens."""


class TruncatedTextWarning(UserWarning):
    """The text is longer than the model reads."""


class Tokenizer:
    """Makes tokens for a text encoder that reads `context_length` of them.

    `vocabulary` is a file in the format of CLIP's `bpe_simple_vocab_16e6.txt.gz`, packed or not; by default CLIP's own,
    out of an installed package. Raises TextError, VocabularyError, MissingExtraError.
    """

    def __init__(self, context_length: int, vocabulary: Path | None = None) -> None:
        if context_length < 3:
            raise TextError(f"context_length is {context_length}; expected 3 or more: start, a token, end")
        self.context_length = context_length
        self._ftfy, self._regex = require_extra("ftfy", "text"), require_extra("regex", "text")
        self._pieces = self._regex.compile(PIECE, self._regex.IGNORECASE)
        self._vocabulary = Vocabulary.clip() if vocabulary is None else Vocabulary.read(Path(vocabulary))

    def encode(self, text: str) -> npt.NDArray[np.int64]:
        """Tokens i64 [1, context_length]: 49406, those of the text, 49407, then zeros. An empty text has none.

        Of a longer text the first context_length - 1 stay and 49407 stands behind them; TruncatedTextWarning says
        which words were kept. Raises TextError for what is no text.
        """
        if not isinstance(text, str):
            raise TextError(f"the text is a {type(text).__name__}; expected str")
        cleaned = self._clean(text)
        tokens, room = [START], self.context_length - 2
        kept_until = 0
        for end, symbols in self._symbols(cleaned):
            tokens += symbols
            if len(tokens) - 1 <= room:
                kept_until = end
        if len(tokens) - 1 > room:
            warnings.warn(self._warning(cleaned, kept_until, len(tokens) + 1), TruncatedTextWarning, stacklevel=2)
        tokens = [*tokens[: room + 1], END]
        return np.array([tokens + [0] * (self.context_length - len(tokens))], dtype=np.int64)

    def _clean(self, text: str) -> str:
        mended = html.unescape(html.unescape(self._ftfy.fix_text(text))).strip()
        plain: str = self._regex.sub(r"\s+", " ", mended)
        return plain.strip().lower()

    def _symbols(self, cleaned: str) -> Iterator[tuple[int, list[int]]]:
        """For each piece: where it ends in the text, and its symbols."""
        for piece in self._pieces.finditer(cleaned):
            word: str = piece.group()
            yield piece.end(), [SPECIAL[word]] if word in SPECIAL else self._merged(word.encode("utf-8"))

    def _merged(self, word: bytes) -> list[int]:
        symbols = [self._vocabulary.bytes_inside[byte] for byte in word]
        symbols[-1] += 256
        merges = self._vocabulary.merges
        while True:
            first = min((merges[pair] for pair in pairwise(symbols) if pair in merges), default=None)
            if first is None:
                return symbols
            merged: list[int] = []
            place = 0
            while place < len(symbols):
                together = merges.get((symbols[place], symbols[place + 1])) if place + 1 < len(symbols) else None
                merged.append(first if together == first else symbols[place])
                place += 2 if together == first else 1
            symbols = merged

    def _warning(self, cleaned: str, kept_until: int, found: int) -> str:
        kept, rest = cleaned[:kept_until].strip(), cleaned[kept_until:].strip()
        shown = rest if len(rest) <= SHOWN else rest[: SHOWN - 1] + "…"
        return (
            f"the text has {found} tokens, start and end among them, but the model reads {self.context_length}. "
            f"Kept: {kept!r}; cut off, or cut in two: {shown!r}"
        )
