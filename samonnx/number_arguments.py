"""Numbers on command lines: parsers for argparse whose messages say what was expected."""

from __future__ import annotations

import argparse

__all__ = ["index", "positive", "share"]


def index(text: str) -> int:
    """A whole number from 0 on."""
    return _whole(text, least=0)


def positive(text: str) -> int:
    """A whole number from 1 on."""
    return _whole(text, least=1)


def share(text: str) -> float:
    """A number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1; found {text!r}")
    return value


def _whole(text: str, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}; found {text!r}")
    return int(text)
