"""Places in other people's source: which line of theirs is running, the expression on it, and what decides there."""

from __future__ import annotations

import ast
import dis
import linecache
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import FrameType

import torch
from torch import nn

__all__ = ["SourcePlace", "calling_frame", "place_of"]

_TORCH = str(Path(torch.__file__).parent)
_HERE = str(Path(__file__).parent)
_OUTSIDE = (_TORCH + os.sep, "<")
_OWN = frozenset(
    str(Path(_HERE, name)) for name in ("source_place.py", "python_values.py", "taint.py", "branch_probe.py")
)


@dataclass(frozen=True)
class SourcePlace:
    """Where something is read. `condition` is the whole test of an `if`, `while` or `assert` that the expression is
    part of; `owner` is the path of the module whose method runs, "" for the model itself, None outside of modules;
    `attributes` are plain attributes of that module in the condition, with their values."""

    file: str
    line: int
    function: str
    source: str
    expression: str
    condition: str = ""
    owner: str | None = None
    attributes: tuple[tuple[str, bool | int | float | str], ...] = ()
    names: tuple[str, ...] = ()
    called_from: str = ""
    """Where the module calls the function, if it is not its own method."""


def frames(start: FrameType | None) -> Iterator[FrameType]:
    """Frames of the model's own code, the innermost first: PyTorch's and ours left out."""
    while start is not None:
        name = start.f_code.co_filename
        if not name.startswith(_OUTSIDE) and name not in _OWN:
            yield start
        start = start.f_back


def calling_frame() -> FrameType | None:
    """The innermost frame of the model's own code."""
    return next(frames(sys._getframe(1)), None)


def place_of(model: nn.Module) -> SourcePlace:
    """Where the model's own code is now."""
    found = list(frames(sys._getframe(1)))
    frame, file = found[0], found[0].f_code.co_filename
    line, *rest = list(frame.f_code.co_positions())[frame.f_lasti // 2]
    line = line or frame.f_lineno
    expression, condition, deciding = _texts(file, line, *rest)
    operation = dis.opname[frame.f_code.co_code[frame.f_lasti]]
    if condition and ("JUMP" in operation or operation in ("TO_BOOL", "UNARY_NOT")):
        expression = condition  # Python may give the truth test of one operand the place of another
    paths = {id(module): path for path, module in model.named_modules()}
    holder = next((one for one in found if id(one.f_locals.get("self")) in paths), None)
    owner = None if holder is None else holder.f_locals["self"]
    return SourcePlace(
        file=file,
        line=line,
        function=frame.f_code.co_qualname,
        source=linecache.getline(file, line).strip(),
        expression=expression,
        condition=condition,
        owner=None if owner is None else paths[id(owner)],
        attributes=tuple(_attributes(deciding, owner)) if owner is not None and holder is frame else (),
        names=tuple(_names(deciding)),
        called_from="" if holder in (None, frame) else _spelled(holder),
    )


def _spelled(frame: FrameType | None) -> str:
    return "" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}"


@lru_cache(maxsize=64)
def _tree(file: str) -> ast.Module | None:
    try:
        return ast.parse("".join(linecache.getlines(file)))
    except (SyntaxError, ValueError):
        return None


def _texts(
    file: str, line: int, end: int | None, column: int | None, end_column: int | None
) -> tuple[str, str, list[ast.expr]]:
    """The expression at a place, the condition that it is part of, and all conditions around it."""
    tree, here = _tree(file), linecache.getline(file, line).strip()
    if tree is None or end is None or column is None or end_column is None:
        return here, "", []
    start, stop = (line, column), (end, end_column)
    expression, condition = here, ""
    deciding: list[ast.expr] = []
    for node in ast.walk(tree):  # from the outside in
        if not isinstance(node, ast.stmt | ast.expr) or not _covers(node, start, stop):
            continue
        if isinstance(node, ast.expr):
            expression = ast.unparse(node)
        test = getattr(node, "test", None)
        if isinstance(test, ast.expr):
            deciding.append(test)
            whole = (node.lineno, node.col_offset) == start and not _covers(test, start, stop)
            if whole or _covers(test, start, stop):  # Python gives the jump of `if x:` the place of all of it
                condition = ast.unparse(test)
                expression = condition if whole else expression
    return expression, condition, deciding


def _covers(node: ast.stmt | ast.expr, start: tuple[int, int], stop: tuple[int, int]) -> bool:
    return (node.lineno, node.col_offset) <= start and stop <= (node.end_lineno or 0, node.end_col_offset or 0)


def _attributes(conditions: list[ast.expr], owner: nn.Module) -> Iterator[tuple[str, bool | int | float | str]]:
    """Plain attributes of `self`, each once."""
    seen: set[str] = set()
    for node in (node for condition in conditions for node in ast.walk(condition)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
            value = getattr(owner, node.attr, None)
            if isinstance(value, bool | int | float | str) and node.attr not in seen | {"training"}:
                seen.add(node.attr)
                yield node.attr, value


def _names(conditions: list[ast.expr]) -> Iterator[str]:
    nodes = (node for condition in conditions for node in ast.walk(condition))
    yield from dict.fromkeys(node.id for node in nodes if isinstance(node, ast.Name) and node.id != "self")
