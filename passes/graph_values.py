"""Reading constants and static shapes off values, and replacing one value by another."""

from __future__ import annotations

from collections.abc import Set

import numpy as np
import onnx_ir as ir

from samonnx.passes.interface import Array

__all__ = [
    "FILL_BYTES",
    "add_constant",
    "add_initializer",
    "constant_array",
    "is_fill",
    "replace_value",
    "static_shape",
    "taken_names",
    "uniform_scalar",
    "unused_name",
]

FILL_BYTES = 4096
"""A uniform tensor above this is stored as `ConstantOfShape`: engines fill memory faster than they read files."""


def static_shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """The shape as integers, or None when it is unknown or has a symbolic dimension."""
    if value is None or value.shape is None:
        return None
    dims = tuple(value.shape)
    return tuple(dim for dim in dims if isinstance(dim, int)) if value.shape.is_static() else None


def constant_array(value: ir.Value | None) -> Array | None:
    """The value of an initialiser or of a `Constant` node; None for anything else.

    An initialiser that is also a graph input is a default that the caller may override, hence not a constant.
    """
    if value is None or value.is_graph_input():
        return None
    producer = value.producer()
    if producer is not None and (producer.op_type != "Constant" or producer.domain):
        return None
    tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None or tensor.dtype == ir.DataType.STRING else tensor.numpy()


def is_fill(array: Array) -> bool:
    """Whether all elements have the same bits (and there is at least one element)."""
    if array.size == 0:
        return False
    rows = np.ascontiguousarray(array).reshape(-1, 1).view(np.uint8)
    # Looking at a few places saves scanning most of the large ones.
    few = rows[:: max(1, len(rows) // 64)]
    return bool((few == rows[0]).all() and (rows == rows[0]).all())


def uniform_scalar(value: ir.Value | None) -> Array | None:
    """The 0-d array that every element of `value` equals bit for bit, where that can be seen; else None.

    Sees through `ConstantOfShape` and `Expand`, so that a large fill need not be held in memory.
    """
    if value is None:
        return None
    array = constant_array(value)
    if array is not None:
        return array.reshape(-1)[0] if is_fill(array) else None
    producer = value.producer()
    if producer is None or producer.domain:
        return None
    if producer.op_type == "ConstantOfShape":
        tensor = producer.attributes.get("value")
        return np.zeros((), np.float32)[()] if tensor is None else tensor.as_tensor().numpy().reshape(-1)[0]
    if producer.op_type == "Expand":
        return uniform_scalar(producer.inputs[0])
    return None


def taken_names(graph: ir.Graph) -> set[str]:
    """What the values and nodes of `graph`, and of the bodies of its control flow, are called."""
    taken = {value.name or "" for value in graph.inputs}
    taken.update(graph.initializers)
    for node in graph:  # one walk: graphs are large, and this is asked for often
        taken.add(node.name or "")
        taken.update(output.name or "" for output in node.outputs)
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:  # a body must not name again what is outside
                taken |= taken_names(attribute.as_graph())
    return taken


def unused_name(graph: ir.Graph, wish: str, taken: Set[str] | None = None) -> str:
    """`wish`, or `wish_1`, `wish_2`, … : the first that no value and no node of `graph` carries; `taken` is what
    `taken_names` gave, for who asks often."""
    taken = taken_names(graph) if taken is None else taken
    name, count = wish, 0
    while name in taken:
        count += 1
        name = f"{wish}_{count}"
    return name


def add_initializer(graph: ir.Graph, name: str, array: Array, taken: Set[str] | None = None) -> ir.Value:
    """A new initialiser; `name` is made unique with a suffix (`taken`: see `unused_name`)."""
    tensor = ir.tensor(np.ascontiguousarray(array).reshape(array.shape), name=unused_name(graph, name, taken))
    value = ir.Value(name=tensor.name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape))
    value.const_value = tensor
    graph.register_initializer(value)
    return value


def add_constant(graph: ir.Graph, name: str, array: Array) -> ir.Value:
    """A new initialiser or, for a uniform array above `FILL_BYTES`, the output of a new `ConstantOfShape`."""
    if array.nbytes <= FILL_BYTES or not is_fill(array):
        return add_initializer(graph, name, array)
    shape = add_initializer(graph, f"{name}/shape", np.array(array.shape, np.int64))
    fill = ir.node("ConstantOfShape", [shape], {"value": ir.tensor(array.reshape(-1)[:1])})
    value = fill.outputs[0]
    value.name = fill.name = unused_name(graph, name)
    value.type, value.shape = ir.TensorType(ir.DataType.from_numpy(array.dtype)), ir.Shape(array.shape)
    if len(graph):
        graph.insert_before(graph[0], fill)
    else:
        graph.append(fill)
    return value


def replace_value(graph: ir.Graph, old: ir.Value, new: ir.Value) -> None:
    """Lets all consumers of `old` read `new`; a graph output keeps its name and its place.

    Where `old` is a graph output, `new` takes over its name, or, when it cannot (it is an input, an initialiser or
    an output itself), an `Identity` bears the name. `old` and its node stay in the graph, unused. A node's output that
    nothing has read so far is taken to be made for `old`'s place and swaps names with it, so that what links and probes
    find a value by still names the same tensor.
    """
    made = old.producer() is not None and new.producer() is not None and not new.uses()
    if made and not new.is_graph_output() and not old.is_graph_output():
        new.name, old.name = old.name, new.name
    if new.shape is None:
        new.shape = old.shape
    if new.type is None:
        new.type = old.type
    places = [index for index, output in enumerate(graph.outputs) if output is old]
    if places:
        name, old.name = old.name, None
        bearer = new
        if new.producer() is None or new.is_graph_output():
            bearer = ir.Value(name=name, type=new.type, shape=new.shape)
            graph.append(ir.Node("", "Identity", [new], outputs=[bearer], name=f"{name}/Identity"))
        else:
            bearer.name = name
        for place in places:
            graph.outputs[place] = bearer
    old.replace_all_uses_with(new)
