"""Warnings as a command shows them: one line on stderr, without the place in the code."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

__all__ = ["plain_warnings"]


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Inside, `warnings.warn` writes `samonnx: warning: …`, each text once."""
    seen: set[str] = set()

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        text = str(message)
        if text not in seen:
            seen.add(text)
            sys.stderr.write(f"samonnx: warning: {text}\n")

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
