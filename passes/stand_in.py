"""A size that stands in for a symbolic dimension while passes run.

    x [prompts, 4] ─ bind_stand_in ─► x [101, 4] ─ passes, lowering ─► x [101, 4] ─ symbolic_again ─► x [prompts, 4]

Passes match and count static shapes. So the symbol gets a size for as long as they run: a prime that divides no other
size of the graph. In what comes out, the sizes that it divides are those that hang on the symbol, and only they.

Exact for every size of the symbol: passes argue by shapes, not by a value of this one, and what would hang on the value
is refused at both ends: a size that is computed with other than as a shape, an integer or a tensor that has come to
depend on the stand-in and cannot be written for all sizes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from samonnx.errors import SamonnxError
from samonnx.passes.graph_values import constant_array
from samonnx.passes.interface import Array
from samonnx.passes.shape_inference import infer_shapes
from samonnx.passes.symbol_binding import bind_symbols, input_symbols

__all__ = ["SHAPE_OPERANDS", "StandIn", "StandInError", "attribute_integers", "bind_stand_in"]

_SMALLEST = 101
"""Small enough to compare passes by numbers (`--verify-each`), large enough that nothing is cheaper for being few."""

SHAPE_OPERANDS = {"Reshape": 1, "Expand": 1, "ConstantOfShape": 0}
"""Operators that take a shape, and which input it is."""

_SIZE_OPERATORS = frozenset({"Cast", "Concat", "Gather", "Identity", "Mul", "Reshape", "Squeeze", "Unsqueeze"})
"""What sizes go through on their way to a shape. Products of a size stay multiples of it."""

_INTEGERS = (ir.DataType.INT64, ir.DataType.INT32)


class StandInError(SamonnxError):
    """The graph does with a symbolic dimension what cannot be written for all of its sizes."""


@dataclass(frozen=True)
class StandIn:
    """`size` stands for `symbol`."""

    symbol: str
    size: int

    def divides(self, size: int) -> bool:
        """Whether `size` hangs on the symbol."""
        return size != 0 and size % self.size == 0

    def times(self, size: int) -> int:
        """How often the symbol is in `size`. Raises StandInError where it is in it squared."""
        times = size // self.size
        if times % self.size == 0:
            raise StandInError(f"a size is a multiple of the symbolic dimension {self.symbol!r} squared")
        return times

    def dim(self, size: int) -> int | ir.SymbolicDim:
        """`size`, or what it is of the symbol."""
        if not self.divides(size):
            return size
        times = self.times(size)
        return ir.SymbolicDim(self.symbol if times == 1 else f"{times}*{self.symbol}")


def bind_stand_in(model: ir.Model) -> StandIn | None:
    """Gives the one symbolic dimension of the inputs of `model` a size, in place; None where there is none.

    Raises:
        StandInError: several symbols, or a size that is computed with other than as a shape.
    """
    symbols = list(input_symbols(model.graph))
    if not symbols:
        return None
    if len(symbols) > 1:
        raise StandInError(
            f"graph {model.graph.name!r} has the symbolic dimensions {', '.join(symbols)}; one is allowed: give the "
            "others a size"
        )
    infer_shapes(model)
    _check_sizes_are_shapes(model.graph, symbols[0])
    stand_in = StandIn(symbols[0], _prime_apart(set(_sizes(model.graph))))
    bind_symbols(model, {stand_in.symbol: stand_in.size})
    return stand_in


def _check_sizes_are_shapes(graph: ir.Graph, symbol: str) -> None:
    """Follows every `Shape` to the shapes that are made of it."""
    reached = [output for node in graph if _reads_symbol(node) for output in node.outputs]
    for value in reached:  # grows on the way
        for node, place in value.uses():
            if not node.domain and SHAPE_OPERANDS.get(node.op_type) == place:
                continue
            if node.domain or node.op_type not in _SIZE_OPERATORS or node.outputs[0].dtype not in _INTEGERS:
                raise StandInError(
                    f"graph {graph.name!r}: node {node.name!r} ({node.op_type}) computes with a size that hangs on the "
                    f"symbolic dimension {symbol!r} (or may); allowed are shapes made of it (Reshape, Expand). Give "
                    "the dimension a size, or write the module without"
                )
            reached += [output for output in node.outputs if output not in reached]


def _reads_symbol(node: ir.Node) -> bool:
    if node.op_type not in {"Shape", "Size"}:
        return False
    shape = None if node.inputs[0] is None else node.inputs[0].shape
    if shape is None:
        return True
    start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", len(shape))
    return not all(isinstance(dim, int) for dim in list(shape)[start:end])


def _sizes(graph: ir.Graph) -> Iterator[int]:
    """Sizes, and small integers that may be or become some."""
    for value in _values(graph):
        yield from (dim for dim in value.shape or () if isinstance(dim, int))
        array = _small_integers(value)
        if array is not None:
            yield from (abs(int(number)) for number in array.flat)
    for node in graph:
        for attribute in node.attributes.values():
            yield from map(abs, attribute_integers(attribute))


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from node.outputs


def _small_integers(value: ir.Value) -> Array | None:
    tensor = value.const_value
    if tensor is None or tensor.dtype not in _INTEGERS or tensor.size > 64:
        return None
    return constant_array(value)


def attribute_integers(attribute: ir.Attr) -> tuple[int, ...]:
    """The integers of an attribute; none where it holds something else."""
    if attribute.type == ir.AttributeType.INT:
        return (attribute.as_int(),)
    return tuple(attribute.as_ints()) if attribute.type == ir.AttributeType.INTS else ()


def _prime_apart(sizes: set[int]) -> int:
    """The first prime from `_SMALLEST` on that divides none of them."""
    candidate = _SMALLEST
    while any(candidate % i == 0 for i in range(2, math.isqrt(candidate) + 1)) or any(
        size and size % candidate == 0 for size in sizes
    ):
        candidate += 1
    return candidate
