"""Replacements: submodules of a foreign model that are traced in another form, which computes the same.

The model itself stays as it is, for the numbers to be compared with; what is traced is a copy of its module tree that
shares every weight with it. So what a module keeps while it is traced (a cached table) does not get into the model.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from samonnx.errors import SamonnxError
from samonnx.foreign.factory import imported

__all__ = ["Replaced", "ReplaceError", "traced_copy"]


class ReplaceError(SamonnxError):
    """A replacement does not fit the model; the message lists every misfit."""


@dataclass(frozen=True)
class Replaced:
    """One submodule: its path, and the callable that made what stands in its place."""

    path: str
    callable: str


def traced_copy(model: nn.Module, replacements: Mapping[str, str]) -> tuple[nn.Module, tuple[Replaced, ...]]:
    """A copy of the module tree of `model`, weights shared, with submodules replaced; and what was replaced.

    `replacements`: glob over paths of submodules → "module:callable", which is called with the submodule. A module that
    is used in two places is replaced once, for both. Raises ReplaceError for globs that match nothing or the same
    module, and for callables that do not return a module; SamonnxError for callables that cannot be imported.
    """
    tensors = [*model.parameters(), *model.buffers()]
    try:
        traced = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
    except Exception as error:  # what a module holds besides modules and tensors is its own business
        raise ReplaceError(
            f"{type(model).__name__} cannot be copied, to be traced beside the original: {error}"
        ) from error
    paths = [path for path, _ in traced.named_modules(remove_duplicate=False) if path]
    problems = [_unmatched(glob, paths) for glob in replacements if not any(fnmatchcase(path, glob) for path in paths)]
    made: dict[int, tuple[nn.Module, str, nn.Module]] = {}
    rows: list[Replaced] = []
    for path in paths:
        fitting = [glob for glob in replacements if fnmatchcase(path, glob)]
        if len({replacements[glob] for glob in fitting}) > 1:
            said = ", ".join(f"`{glob}: {replacements[glob]}`" for glob in fitting)
            problems.append(f"{path}: replacements disagree: {said}")
        elif fitting and not problems:
            old, name = traced.get_submodule(path), replacements[fitting[0]]
            if id(old) not in made:
                maker = imported(name, f"replace.{fitting[0]}:")
                try:
                    new = maker(old)
                except Exception as error:  # it is somebody else's code
                    problems.append(f"{path}: {name} fails on {type(old).__name__}: {type(error).__name__}: {error}")
                    continue
                if not isinstance(new, nn.Module):
                    problems.append(f"{path}: {name} returned {type(new).__name__}, expected a torch.nn.Module")
                    continue
                made[id(old)] = (old, name, new)
            elif made[id(old)][1] != name:
                problems.append(f"{path}: replacements disagree: it is replaced by {made[id(old)][1]} and by {name}")
            rows.append(Replaced(path, name))
    if problems:
        raise ReplaceError(f"`replace` of the recipe does not fit {type(model).__name__}:\n  " + "\n  ".join(problems))
    below = [row.path for row in rows if any(row.path.startswith(f"{other.path}.") for other in rows)]
    if below:
        raise ReplaceError(
            f"replace: {below[0]} lies below a submodule that is replaced itself; leave one of the two out"
        )
    for parent in [module for module in traced.modules() if id(module) not in made]:
        for name, child in list(parent._modules.items()):  # named_children tells a module in two places once
            if id(child) in made:
                parent.add_module(name, made[id(child)][2])
    traced.eval().requires_grad_(False)
    return traced, tuple(rows)


def _unmatched(glob: str, paths: list[str]) -> str:
    name = glob.rpartition(".")[2]
    close = difflib.get_close_matches(glob, paths, n=3)
    close += [path for path in paths if path.rpartition(".")[2] == name and path not in close][: 3 - len(close)]
    hint = f"; close: {', '.join(close)}" if close else f"; there: {', '.join(paths[:8])}"
    return f"{glob}: matches no submodule{hint}"
