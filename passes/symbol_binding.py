"""Binds symbolic dimensions to sizes, and evaluates the integers (slice bounds, repeats, target shapes) that follow."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
import onnx_ir as ir

from samonnx.passes.evaluation import evaluate_node
from samonnx.passes.graph_values import add_initializer, constant_array, replace_value, static_shape
from samonnx.passes.interface import Array
from samonnx.passes.shape_inference import infer_shapes

__all__ = ["bind_symbols", "input_symbols"]

# Sizes and shapes are short vectors of integers; what is longer is data.
_MOST_ELEMENTS = 64
# What exporters compute sizes with. None of these makes much out of little (as Expand and Range do).
_SIZE_OPERATORS = frozenset(
    {
        *(
            "Abs",
            "Add",
            "Cast",
            "Concat",
            "Div",
            "Equal",
            "Floor",
            "Gather",
            "Greater",
            "Identity",
            "Less",
            "Max",
            "Min",
        ),
        *("Mod", "Mul", "Neg", "Not", "Reshape", "Shape", "Size", "Slice", "Squeeze", "Sub", "Unsqueeze", "Where"),
    }
)
_INTEGERS = frozenset({ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL})


def input_symbols(graph: ir.Graph) -> dict[str, list[tuple[ir.Value, int]]]:
    """symbol → (input, axis) of each dimension that is exactly this symbol, in the order of the inputs."""
    found: dict[str, list[tuple[ir.Value, int]]] = {}
    for value in graph.inputs:
        for axis, dim in enumerate(value.shape or ()):
            if isinstance(dim, ir.SymbolicDim) and dim.value is not None:
                found.setdefault(dim.value, []).append((value, axis))
    return found


def bind_symbols(model: ir.Model, sizes: Mapping[str, int]) -> None:
    """Gives symbols of the inputs their sizes, in place; shapes are inferred anew and sizes become constants.

    Small integer nodes that depend on sizes and constants only are evaluated, so that the bounds of slices, repeats
    of tiles and shapes of reshapes are initialisers afterwards. Larger tables are left to `fold_constants`.

    Args:
        model: initialisers are only looked at when they are small.
        sizes: symbol → size; symbols that no input has are ignored, others stay symbolic.

    Raises:
        ShapeInferenceError: the graph does not hold with these sizes.
    """
    for value in model.graph.inputs:
        if value.shape is not None:
            value.shape = ir.Shape([_bound(dim, sizes) for dim in value.shape])
    for output in model.graph.outputs:
        if output.producer() is not None:
            output.shape = None  # what the file says of it holds for the symbols
    infer_shapes(model, forget=True)
    while _evaluate_integers(model):
        infer_shapes(model, forget=True)


def _bound(dim: int | ir.SymbolicDim, sizes: Mapping[str, int]) -> int | ir.SymbolicDim:
    if isinstance(dim, ir.SymbolicDim) and dim.value is not None:
        return sizes.get(dim.value, dim)
    return dim


def _evaluate_integers(model: ir.Model) -> bool:
    """One sweep; whether anything became a constant."""
    graph = model.graph
    changed = False
    for node in list(graph):
        if node.domain or node.op_type not in _SIZE_OPERATORS or not _all_small_integers(node.outputs):
            continue
        results = _results(node, graph.opset_imports)
        if results is None:
            continue
        for output, array in zip(node.outputs, results, strict=True):
            if output.name:
                replace_value(graph, output, add_initializer(graph, f"{output.name}/bound", array))
        graph.remove(node, safe=True)
        changed = True
    return changed


def _results(node: ir.Node, opsets: Mapping[str, int]) -> list[Array] | None:
    if node.op_type in {"Shape", "Size"}:
        shape = static_shape(node.inputs[0])
        if shape is None:
            return None
        if node.op_type == "Size":
            return [np.array(math.prod(shape), np.int64)]
        start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", len(shape))
        return [np.array(shape[slice(start, end)], np.int64)]
    arrays: list[Array | None] = []
    for value in node.inputs:
        if value is not None and value.const_value is not None and value.const_value.size > _MOST_ELEMENTS:
            return None
        array = constant_array(value)
        if array is None and value is not None:
            return None
        arrays.append(array)
    return evaluate_node(node, arrays, opsets)


def _all_small_integers(values: Iterable[ir.Value]) -> bool:
    """Values of unknown shape count as small: scalars made of sizes are all that has no shape in these graphs.

    Graph outputs stay, since a node must bear their names.
    """
    return all(
        value.dtype in _INTEGERS
        and not value.is_graph_output()
        and math.prod(static_shape(value) or (1,)) <= _MOST_ELEMENTS
        for value in values
    )
