"""Proves that the slots of padded memory axes meet in attention only, and finds the order of their keys there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from samonnx.passes.graph_values import static_shape
from samonnx.passes.interface import PassDeclinedError
from samonnx.passes.memory_layout import Layout, MixedPlacesError, Segment, layout_after
from samonnx.passes.shape_inference import ShapeInferenceError
from samonnx.passes.symbol_binding import bind_symbols, input_symbols

__all__ = ["Keys", "MemoryProof", "prove"]

# Primes above any real dimension, so that no product or sum of other sizes is mistaken for a number of slots.
_STAND_INS = (1_000_003, 1_000_033, 1_000_037, 1_000_039, 1_000_081, 1_000_099, 1_000_117, 1_000_121)
# Operands that say where or how much, not what.
_SIZE_OPERANDS = {
    "Reshape": (1,),
    "Expand": (1,),
    "Tile": (1,),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "ConstantOfShape": (0,),
    "Range": (0, 1, 2),
    "Squeeze": (1,),
    "Unsqueeze": (1,),
}
# What may happen to tables that are as long as the memory but hold nothing of it (repeated position encodings).
_TABLE_OPERATORS = frozenset(
    {"Reshape", "Expand", "Tile", "Slice", "Squeeze", "Unsqueeze", "Transpose", "Concat", "Flatten"}
)


@dataclass(frozen=True)
class Keys:
    """The keys of an attention: their segments, and how many places of its batch each object has (merged heads)."""

    segments: tuple[Segment, ...]
    rows: int


@dataclass(frozen=True)
class MemoryProof:
    """`attentions`: output of an attention over slots → its keys; `objects`: O, size of axis 0 of the inputs."""

    attentions: Mapping[str, Keys]
    objects: int


def prove(model: ir.Model, bindings: Mapping[str, int]) -> MemoryProof:
    """Follows every input with a bound symbol through the graph; `model` is not changed.

    Raises:
        PassDeclinedError: names the node at which slots mix or cannot be followed.
    """
    if len(bindings) * 2 > len(_STAND_INS):
        raise PassDeclinedError(f"unroll_memory: {len(bindings)} symbols at once; at most {len(_STAND_INS) // 2}")
    sizes, other_sizes = (dict(zip(bindings, _STAND_INS[start::2], strict=False)) for start in (0, 1))
    bound, other = _bound(model, sizes), _bound(model, other_sizes)
    elsewhere = {value.name: value for value in _values(other)}
    tables = {
        value for value in _values(bound) if value.name in elsewhere and value.shape != elsewhere[value.name].shape
    }
    _refuse_sizes_in_arithmetic(bound, elsewhere)
    layouts, objects = _entries(model, bound, bindings)
    attentions: dict[str, Keys] = {}
    for node in bound.graph:
        slots = [value for value in node.inputs if value is not None and value in layouts]
        long = [value for value in node.inputs if value is not None and value in tables and value not in layouts]
        try:
            if node.op_type == "Attention" and not node.domain and (slots or long):
                attentions[str(node.outputs[0].name)] = _attention(node, layouts, long)
            elif slots:
                _refuse_hidden_sums(node, long)
                layouts.update(layout_after(node, layouts, sizes))
            elif long:
                _check_table(node, long, elsewhere)
        except MixedPlacesError as refusal:
            culprit = (slots or long)[0]
            raise PassDeclinedError(
                f"unroll_memory: cannot prove that node {node.name!r} ({node.op_type} → {node.outputs[0].name!r}) "
                f"keeps the places of {', '.join(map(repr, bindings))} apart: {refusal}\n"
                f"its operand {culprit.name!r} has them in {layouts.get(culprit, 'an unknown order')}"
            ) from refusal
    return MemoryProof(attentions, objects)


def _bound(model: ir.Model, sizes: Mapping[str, int]) -> ir.Model:
    copy = model.clone()
    try:
        bind_symbols(copy, sizes)
    except ShapeInferenceError as error:
        raise PassDeclinedError(
            f"unroll_memory: the graph does not hold for every size (tried {dict(sizes)}): {error}"
        ) from error
    return copy


def _values(model: ir.Model) -> list[ir.Value]:
    outputs = [output for node in model.graph for output in node.outputs if output.name]
    return [*model.graph.inputs, *model.graph.initializers.values(), *outputs]


def _entries(model: ir.Model, bound: ir.Model, bindings: Mapping[str, int]) -> tuple[dict[ir.Value, Layout], int]:
    """The layouts of the inputs, and the number of objects, which all inputs with slots share."""
    inputs = {value.name: value for value in bound.graph.inputs}
    layouts: dict[ir.Value, Layout] = {}
    objects: dict[str, int] = {}  # of each input
    for symbol, ports in input_symbols(model.graph).items():
        if symbol not in bindings:
            continue
        for port, axis in ports:
            value = inputs[port.name]
            shape = static_shape(value)
            if shape is None:
                raise PassDeclinedError(
                    f"unroll_memory: input {port.name!r} {port.shape} has a symbol that is not bound"
                )
            if value in layouts:
                raise PassDeclinedError(
                    f"unroll_memory: input {port.name!r} {port.shape} has two memory axes; expected one"
                )
            count = shape[0] if axis else 1
            objects[str(port.name)] = count
            layouts[value] = Layout(axis, (Segment(symbol, 1),), 0 if count > 1 else None)
    if len(set(objects.values())) > 1:
        raise PassDeclinedError(
            f"unroll_memory: inputs with slots differ in their number of objects (axis 0): {objects}"
        )
    return layouts, max(objects.values())


def _refuse_sizes_in_arithmetic(bound: ir.Model, elsewhere: Mapping[str | None, ir.Value]) -> None:
    """A size is a constant of the bound graph that another binding changes; padding falsifies its use as a number."""
    for value in bound.graph.initializers.values():
        twin = elsewhere.get(value.name)
        if twin is None or value.const_value is twin.const_value or value.shape != twin.shape:
            continue
        if value.const_value is None or twin.const_value is None:
            continue
        if np.array_equal(value.const_value.numpy(), twin.const_value.numpy()):
            continue
        for node, index in value.uses():
            if index not in _SIZE_OPERANDS.get(node.op_type, ()):
                raise PassDeclinedError(
                    f"unroll_memory: node {node.name!r} ({node.op_type} → {node.outputs[0].name!r}) computes with a "
                    "number of slots or keys; with empty places that number is no longer the number of filled ones"
                )


def _attention(node: ir.Node, layouts: Mapping[ir.Value, Layout], long: list[ir.Value]) -> Keys:
    operands = [*node.inputs, *[None] * (7 - len(node.inputs))]
    query, key, value, mask = operands[:4]
    if long:
        raise MixedPlacesError(f"{long[0].name!r} is as long as the memory, but does not come from it")
    if (
        any(operand is not None for operand in operands[4:])
        or len([output for output in node.outputs if output.name]) > 1
    ):
        raise MixedPlacesError("attention with a cache, or with further outputs")
    if node.attributes.get_int("is_causal", 0):
        raise MixedPlacesError("causal attention")
    if query in layouts or mask in layouts:
        raise MixedPlacesError("the queries or the mask hold slots")
    if key not in layouts or value not in layouts or key is None or value is None:
        raise MixedPlacesError("only one of keys and values holds slots")
    rank = len(static_shape(key) or ())
    keys, values = layouts[key], layouts[value]
    if keys.axis != rank - 2 or values.axis != rank - 2 or keys.segments != values.segments:
        raise MixedPlacesError(f"keys {keys} and values {values} hold the slots in different places")
    if keys.batch not in (None, 0) or (values.batch, values.rows) != (keys.batch, keys.rows):
        raise MixedPlacesError(f"the objects are on axis {keys.batch}, expected axis 0")
    if mask is not None and mask.dtype == ir.DataType.BOOL:
        raise MixedPlacesError("its own mask is boolean; expected none, or one that is added")
    return Keys(keys.segments, keys.rows)


def _refuse_hidden_sums(node: ir.Node, long: list[ir.Value]) -> None:
    """Slots met by a table of their length: only place by place."""
    if long and node.op_type in {"MatMul", "Gemm", "Gather"}:
        raise MixedPlacesError(f"operand {long[0].name!r} is as long as the memory")


def _check_table(node: ir.Node, long: list[ir.Value], elsewhere: Mapping[str | None, ir.Value]) -> None:
    if node.op_type in _TABLE_OPERATORS:
        return
    if node.op_type == "MatMul" and long == [node.inputs[0]]:
        here, there = static_shape(long[0]), static_shape(elsewhere[long[0].name])
        if here is not None and there is not None and here[-1] == there[-1]:
            return
    for value in long:  # elementwise operators, by the same rule as for slots
        shape = static_shape(value)
        if shape is None:
            raise MixedPlacesError(f"the shape of {value.name!r} is not known")
        axis = next(
            axis for axis, size in enumerate(shape) if size != (static_shape(elsewhere[value.name]) or shape)[axis]
        )
        layout = Layout(axis, (Segment(None, shape[axis]),))
        list(layout_after(node, {value: layout}, {}))
