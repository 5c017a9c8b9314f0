"""What can be wrong with a recipe, and where: the error that shows every problem with its file and line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from samonnx.errors import SamonnxError

__all__ = ["Origin", "Problem", "RecipeError", "did_you_mean", "show"]


@dataclass(frozen=True)
class Origin:
    """Where a value came from: a file and a line (counted from 1; None: the file as a whole), or a `--set` argument."""

    source: str
    line: int | None = None

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, in words: what was found and what is allowed."""

    origin: Origin
    message: str

    def __str__(self) -> str:
        return f"{self.origin}: {self.message}"


class RecipeError(SamonnxError):
    """A recipe that cannot be used; `problems` lists everything that was found, the message shows it line by line."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        lines = [str(problem) for problem in self.problems]
        super().__init__(lines[0] if len(lines) == 1 else f"{len(lines)} problems:\n  " + "\n  ".join(lines))


def show(value: object) -> str:
    """A value as a recipe would spell it, with its type in words, shortened if long."""
    if value is None:
        return "null"
    if isinstance(value, dict):
        return f"a mapping ({', '.join(map(str, value)) or 'empty'})"
    text = json.dumps(value, ensure_ascii=False)
    text = text if len(text) <= 60 else text[:57] + "..."
    return f"{text} (a {_KINDS.get(type(value), type(value).__name__)})"


_KINDS: dict[type, str] = {bool: "boolean", int: "whole number", float: "number", str: "string", list: "list"}


def did_you_mean(name: str, allowed: Iterable[str]) -> str:
    """ "did you mean `x`? ", or nothing if no allowed name is close."""
    import difflib

    close = difflib.get_close_matches(name, list(allowed), n=1)
    return f"did you mean `{close[0]}`? " if close else ""
