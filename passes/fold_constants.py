"""The pass `fold_constants`: evaluates what depends on constants only, and removes what constants make idle."""

from __future__ import annotations

import math
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass, RemoveUnusedNodesPass

from samonnx.errors import SamonnxError
from samonnx.passes.constant_region import ConstantRegion, constant_region
from samonnx.passes.graph_values import FILL_BYTES, add_constant, constant_array, is_fill, replace_value, static_shape
from samonnx.passes.identities import simplified
from samonnx.passes.interface import Exactness, GraphPass, PassResult
from samonnx.passes.shape_inference import infer_shapes

__all__ = ["FoldConstants"]

# Each round removes a node or settles a shape; real graphs need three to six rounds.
_MOST_ROUNDS = 1000


@dataclass(frozen=True)
class FoldConstants(GraphPass):
    """Evaluate nodes that depend on constants only, and remove nodes that constants make idle.

        c1, c2 ── Op ── … ── Op ── y        →   initialiser y
        Where(true, x, z)                   →   x               (Expand where x is broadcast)
        And(x, false), Mul(x, 1), Shape(x)  →   false, x, constant; all rules: `identities.RULES`

    A constant region is evaluated as a whole and only what leaves it is stored: a small result folds however large
    the tensors on its way are. Large uniform results become `ConstantOfShape`; `Constant` nodes become initialisers.
    Shapes are inferred before, between and after, to a fixed point. No unused node or initialiser is left.

    Exact:    bit-exact. Nodes are evaluated by ONNX Runtime's own CPU kernels; the rules keep every bit of floats,
              the sign of zero and NaN included.
    Declines: results above `size_limit`, unless no larger than the initialisers that die with them; foreign domains,
              functions, control flow, random operators, DequantizeLinear, strings; operators and dtypes without a
              CPU kernel; x + 0.0 (it turns −0.0 into 0.0) and x · 0.0; initialisers that are graph inputs.
    Cost:     fewer nodes; the constants grow by at most `size_limit` a result.

    Attributes:
        size_limit: largest stored result, in bytes.
    """

    name: ClassVar[str] = "fold_constants"
    exactness: ClassVar[Exactness] = Exactness.BIT_EXACT
    tolerance: ClassVar[float] = 0.0

    size_limit: int = 1 << 20

    def __post_init__(self) -> None:
        if self.size_limit < 0:
            raise SamonnxError(
                f"fold_constants: size_limit is {self.size_limit}; expected a number of bytes, 0 or more"
            )

    def call(self, model: ir.Model) -> PassResult:
        """Raises `ShapeInferenceError` where the graph contradicts itself."""
        modified = LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model).modified
        modified |= RemoveUnusedNodesPass()(model).modified
        for _ in range(_MOST_ROUNDS):
            changed = infer_shapes(model)
            while _apply_rules(model) | self._fold_region(model, largest_result=self.size_limit):
                changed = True
            # What needs large intermediates comes last: by now a rule may have cut it off.
            if not changed and not self._fold_region(model, largest_result=None):
                return PassResult(model, modified)
            modified = True
        raise SamonnxError(f"fold_constants: no fixed point after {_MOST_ROUNDS} rounds in graph {model.graph.name!r}")

    def _fold_region(self, model: ir.Model, *, largest_result: int | None) -> bool:
        """Stores what leaves the constant region; a node whose result may not be stored stays, with its inputs."""
        region = constant_region(model, largest_result=largest_result)
        needed = set(region.leaving)
        changed = False
        for node in reversed(region.nodes):
            outputs = [output for output in node.outputs if output in needed]
            if not outputs:
                continue
            stored = not _is_stored_fill(node) and self._may_store(region, node, outputs, needed)
            needed.difference_update(outputs)
            if not stored:
                needed.update(value for value in node.inputs if value is not None)
                continue
            for output in outputs:
                constant = add_constant(model.graph, f"{output.name}/constant", region.arrays[output])
                replace_value(model.graph, output, constant)
            changed = True
        if changed:
            RemoveUnusedNodesPass()(model)
        return changed

    def _may_store(
        self, region: ConstantRegion, node: ir.Node, outputs: Sequence[ir.Value], needed: Set[ir.Value]
    ) -> bool:
        """Whether the size allows it: every output is small or uniform, or initialisers as large die with `node`."""
        large = [region.arrays[output] for output in outputs]
        large = [array for array in large if array.nbytes > self.size_limit and not is_fill(array)]
        if not large:
            return True
        own = set(outputs)
        dying = 0
        for source in region.sources(node) - needed:
            readers = region.readers(source)
            if source.const_value is not None and readers is not None and needed & readers <= own:
                dying += source.const_value.nbytes
        return sum(array.nbytes for array in large) <= dying


def _is_stored_fill(node: ir.Node) -> bool:
    """Whether `node` is already what `add_constant` makes of a large uniform result."""
    output = node.outputs[0]
    shape = static_shape(output)
    if node.op_type != "ConstantOfShape" or constant_array(node.inputs[0]) is None or shape is None:
        return False
    return output.dtype is not None and math.prod(shape) * output.dtype.itemsize > FILL_BYTES


def _apply_rules(model: ir.Model) -> bool:
    graph = model.graph
    changed = False
    for node in list(graph):
        if _bears_output_name(node):
            continue
        value = simplified(graph, node)
        if value is not None and value is not node.outputs[0]:
            replace_value(graph, node.outputs[0], value)
            graph.remove(node, safe=True)
            changed = True
    if changed:
        RemoveUnusedNodesPass()(model)
    return changed


def _bears_output_name(node: ir.Node) -> bool:
    """Whether `node` is an Identity that must stay because its input cannot be the graph output itself."""
    if node.op_type != "Identity" or node.domain or not node.outputs[0].is_graph_output():
        return False
    value = node.inputs[0]
    return value is None or value.producer() is None or value.is_graph_output()
