"""The pass `eliminate_dead`: removes what no graph output depends on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedFunctionsPass, RemoveUnusedNodesPass, RemoveUnusedOpsetsPass

from samonnx.passes.interface import Exactness, GraphPass, PassResult

__all__ = ["EliminateDead"]


@dataclass(frozen=True)
class EliminateDead(GraphPass):
    """Remove nodes, initialisers, functions and opset imports that no graph output depends on.

        x ── Relu ── y (output)      →   x ── Relu ── y (output)
         └── Conv(W) ── unused           and no W

    Unused optional outputs of a node that stays (the indices of MaxPool, the mean of LayerNormalization) go too.

    Exact:    bit-exact: nothing that is left reads what goes.
    Declines: graph inputs, used or not: they are the program's contract.
    Cost:     never more of anything.
    """

    name: ClassVar[str] = "eliminate_dead"
    exactness: ClassVar[Exactness] = Exactness.BIT_EXACT
    tolerance: ClassVar[float] = 0.0

    def call(self, model: ir.Model) -> PassResult:
        before = _named_ends(model)
        modified = RemoveUnusedNodesPass()(model).modified
        # onnx_ir drops optional outputs and empty trailing inputs without saying so in its `modified`.
        modified |= _named_ends(model) != before
        sweep: tuple[type[ir.passes.InPlacePass], ...] = (RemoveUnusedFunctionsPass, RemoveUnusedOpsetsPass)
        for kind in sweep:
            modified |= kind()(model).modified
        return PassResult(model, modified)


def _named_ends(model: ir.Model) -> int:
    """Number of inputs and of named outputs of all nodes."""
    return sum(len(node.inputs) + sum(bool(output.name) for output in node.outputs) for node in model.graph.all_nodes())
