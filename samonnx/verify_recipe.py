"""Verify the programs of a recipe, each in its way: those of samonnx's own models by the verifier of the model's
family, calls of foreign models against these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import onnx_ir as ir
from torch import nn

from samonnx.compile_summary import Figures
from samonnx.engines import open_graph_for
from samonnx.foreign.verify_call import CallVerifier
from samonnx.models.sam import Sam
from samonnx.models.sam_xmem import SamXMem
from samonnx.models.tracker import TrackedModel
from samonnx.models.xmem import XMem
from samonnx.programs.program import Program
from samonnx.programs.recipe_programs import tracked_model
from samonnx.programs.xmem import xmem_sizes
from samonnx.recipe import Recipe
from samonnx.verify import Comparison, check_structure, require
from samonnx.verify_sam import SamVerifier
from samonnx.verify_sam_xmem import SamXMemVerifier
from samonnx.verify_tracked import TrackedVerifier
from samonnx.verify_xmem import XMemVerifier

__all__ = ["ProgramChecks", "RecipeVerifier", "own_verifier"]


class ProgramChecks(Protocol):
    """Compares the graphs of a program and its specialisations, by name, with the eager model."""

    def verify(self, graphs: Mapping[str, ir.Model], target: str, program: Program) -> Sequence[Comparison]:
        """Figures whose `what` begins with the graph's name and ": "."""
        ...


def own_verifier(model: nn.Module | TrackedModel, recipe: Recipe) -> ProgramChecks | None:
    """What verifies the programs of `model`, if it is one of samonnx's own."""
    tracked = tracked_model(model)
    if tracked is not None:
        return TrackedVerifier(recipe, tracked)
    if isinstance(model, SamXMem):
        return SamXMemVerifier(model, xmem_sizes(model.xmem, recipe), recipe.verify.frames, recipe.verify.atol)
    if isinstance(model, XMem):
        return XMemVerifier(model, xmem_sizes(model, recipe), recipe.verify.frames, recipe.verify.atol)
    if isinstance(model, Sam):
        return SamVerifier(recipe, model)
    return None


class RecipeVerifier:
    """Verifies the graphs of one program and target at a time, each program in its way; keeps what the eager side
    gave."""

    def __init__(self, recipe: Recipe, model: nn.Module | TrackedModel) -> None:
        self._calls = frozenset(recipe.calls)
        self._foreign = CallVerifier(recipe.calls, recipe.verify.atol, recipe.verify.frames)
        self._own = own_verifier(model, recipe)

    def verify(self, graphs: Mapping[str, ir.Model], target: str, program: Program) -> Figures:
        """`graphs`: the program and its specialisations by name. Raises VerificationError."""
        for name, graph in graphs.items():
            check_structure(graph, name, target)
        if program.name in self._calls:
            comparisons: Sequence[Comparison] = [
                one.of(name)
                for name, graph in graphs.items()
                for one in self._foreign.verify(graph, program, open_graph_for(target))
            ]
        else:
            assert self._own is not None  # whose programs these are
            comparisons = self._own.verify(graphs, target, program)
        require(comparisons)
        figures: Figures = []
        for comparison in comparisons:
            name, _, what = comparison.what.partition(": ")
            figures.append((name, target, Comparison(what, comparison.largest_error, comparison.tolerance)))
        return figures
