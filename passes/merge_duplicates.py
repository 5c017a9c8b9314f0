"""The pass `merge_duplicates`: computes and stores everything once."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from samonnx.passes.evaluation import RANDOM_OPERATORS
from samonnx.passes.graph_values import replace_value
from samonnx.passes.interface import Exactness, GraphPass, PassResult

__all__ = ["MergeDuplicates"]

_KNOWN_DOMAINS = frozenset({"", "ai.onnx.ml", "com.microsoft"})


@dataclass(frozen=True)
class MergeDuplicates(GraphPass):
    """Merge initialisers of equal content, and nodes of equal operator, inputs and attributes.

        x ── Transpose(1,0) ── a ── …      →   x ── Transpose(1,0) ── a ─┬─ …
         └── Transpose(1,0) ── b ── …                                    └─ …

    The first in graph order stays. Common-subexpression elimination of chains follows, since nodes are visited in
    order and see their merged inputs.

    Exact:    bit-exact: a deterministic operator on the same values.
    Declines: random operators; operators of unknown domains and calls of functions, which may be random; nodes with
              subgraphs; tensors are equal when dtype, shape and all bits are;
              initialisers that are graph inputs or graph outputs.
    Cost:     fewer nodes and bytes; a value may live longer.
    """

    name: ClassVar[str] = "merge_duplicates"
    exactness: ClassVar[Exactness] = Exactness.BIT_EXACT
    tolerance: ClassVar[float] = 0.0

    def call(self, model: ir.Model) -> PassResult:
        modified = _merge_initializers(model.graph)
        modified |= _merge_nodes(model)
        return PassResult(model, modified)


def _merge_initializers(graph: ir.Graph) -> bool:
    # Content is hashed only where type, shape and a few values agree already, so that most weights are never read.
    alike: defaultdict[Hashable, list[tuple[ir.Value, ir.TensorProtocol]]] = defaultdict(list)
    for value in graph.initializers.values():
        if value.const_value is not None and not value.is_graph_input() and not value.is_graph_output():
            alike[_type_key(value.const_value), _sample_key(value.const_value)].append((value, value.const_value))
    modified = False
    for group in alike.values():
        first: dict[bytes, ir.Value] = {}
        for value, tensor in group if len(group) > 1 else ():
            kept = first.setdefault(_content_key(tensor), value)
            if kept is not value:
                value.replace_all_uses_with(kept)
                del graph.initializers[str(value.name)]
                modified = True
    return modified


def _merge_nodes(model: ir.Model) -> bool:
    graph = model.graph
    first: dict[Hashable, ir.Node] = {}
    modified = False
    for node in list(graph):
        key = None if node.op_identifier() in model.functions else _node_key(node)
        kept = node if key is None else first.setdefault(key, node)
        # A second Identity that bears an output's name is there for its name.
        if kept is node or (node.op_type == "Identity" and node.outputs[0].is_graph_output()):
            continue
        for old, new in zip(node.outputs, kept.outputs, strict=True):
            replace_value(graph, old, new)
        graph.remove(node, safe=True)
        modified = True
    return modified


def _node_key(node: ir.Node) -> Hashable | None:
    """Equal for nodes that compute the same; None for nodes that must not be merged."""
    if node.op_type in RANDOM_OPERATORS or node.domain not in _KNOWN_DOMAINS or "Dropout" in node.op_type:
        return None
    attributes = []
    for name, attribute in sorted(node.attributes.items()):
        value = _attribute_key(attribute)
        if value is None:
            return None
        attributes.append((name, attribute.type, value))
    # An output that one node lacks cannot stand in for the other's.
    present = tuple(bool(output.name) for output in node.outputs)
    return (node.op_identifier(), tuple(map(id, node.inputs)), tuple(attributes), present)


def _attribute_key(attribute: ir.Attr) -> Hashable | None:
    if attribute.is_ref():
        return None
    match attribute.type:
        case ir.AttributeType.TENSOR:
            tensor = attribute.as_tensor()
            return (_type_key(tensor), _content_key(tensor))
        case ir.AttributeType.INTS | ir.AttributeType.FLOATS | ir.AttributeType.STRINGS:
            return tuple(map(repr, attribute.value))
        case ir.AttributeType.INT | ir.AttributeType.FLOAT | ir.AttributeType.STRING:
            return repr(attribute.value)  # tells -0.0 from 0.0
        case _:
            return None


def _type_key(tensor: ir.TensorProtocol) -> Hashable:
    return (tensor.dtype, tuple(tensor.shape.numpy()))


def _sample_key(tensor: ir.TensorProtocol) -> bytes:
    """A few values of the tensor: equal for equal tensors."""
    if tensor.dtype == ir.DataType.STRING:
        return b""
    values = np.asarray(tensor.numpy()).reshape(-1)
    return values[:: max(1, values.size // 16)].tobytes()


def _content_key(tensor: ir.TensorProtocol) -> bytes:
    if tensor.dtype == ir.DataType.STRING:
        return repr(tensor.numpy().tolist()).encode()
    return hashlib.sha256(tensor.tobytes()).digest()
