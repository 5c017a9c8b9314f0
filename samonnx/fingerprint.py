"""What a value of a graph is computed by, as one digest: equal digests, equal computation."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import onnx_ir as ir

__all__ = ["Fingerprints"]


class Fingerprints:
    """Digests of values, over all that they depend on: operators with their attributes, in the order of their operands;
    weights by dtype, shape and bytes; inputs of the graph by name. Names of nodes and of other values do not count.

    A weight's bytes are read once, as long as its tensor lives in one of the graphs that were asked for.
    """

    def __init__(self) -> None:
        self._tensors: dict[int, tuple[ir.TensorProtocol, bytes]] = {}

    def of(self, model: ir.Model, names: Iterable[str]) -> str | None:
        """One digest (hex) for the values called `names`, in this order. None if one of them does not exist, or
        depends on a node with a subgraph."""
        wanted = list(names)
        values: dict[ir.Value, bytes] = {value: _digest(b"input", str(value.name)) for value in model.graph.inputs}
        found = {str(value.name): digest for value, digest in values.items()}
        for node in _leading_to(model, wanted):
            operands = [self._operand(value, values) for value in node.inputs]
            if any(operand is None for operand in operands):
                continue
            attributes = [_attribute(attribute) for _, attribute in sorted(node.attributes.items())]
            if any(attribute is None for attribute in attributes):
                continue
            said = f"{node.domain}:{node.op_type}:{node.overload}:{len(node.outputs)}"
            whole = _digest(b"node", said, *(part for part in (*operands, *attributes) if part is not None))
            for place, output in enumerate(node.outputs):
                values[output] = _digest(b"value", whole, str(place))
                found[str(output.name)] = values[output]
        if any(name not in found for name in wanted):
            return None
        versions = (f"{domain}:{version}" for domain, version in sorted(model.graph.opset_imports.items()))
        return _digest(b"values", *versions, *(found[name] for name in wanted)).hex()

    def _operand(self, value: ir.Value | None, known: dict[ir.Value, bytes]) -> bytes | None:
        if value is None:
            return b"absent"
        if value not in known and value.const_value is not None and value.producer() is None:
            known[value] = self._tensor(value.const_value)
        return known.get(value)

    def _tensor(self, tensor: ir.TensorProtocol) -> bytes:
        if id(tensor) not in self._tensors:
            digest = _digest(b"weight", tensor.dtype.name, repr(tuple(tensor.shape)), tensor.tobytes())
            self._tensors[id(tensor)] = tensor, digest  # the tensor too, so that its id stays its own
        return self._tensors[id(tensor)][1]


def _leading_to(model: ir.Model, names: Iterable[str]) -> list[ir.Node]:
    """The nodes that the values called `names` depend on, in the graph's order: weights of others are not read."""
    wanted = set(names)
    waiting = [node for node in model.graph if any(output.name in wanted for output in node.outputs)]
    seen = set(waiting)
    while waiting:
        producers = [value.producer() for value in waiting.pop().inputs if value is not None]
        fresh = {node for node in producers if node is not None} - seen
        seen |= fresh
        waiting += fresh
    return [node for node in model.graph if node in seen]


def _attribute(attribute: ir.Attr) -> bytes | None:
    if attribute.type in {ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS} or attribute.is_ref():
        return None
    proto = ir.to_proto(attribute)
    octets: bytes = proto.SerializeToString(deterministic=True)
    return octets


def _digest(*parts: bytes | str) -> bytes:
    found = hashlib.blake2b(digest_size=20)
    for part in parts:
        octets = part.encode() if isinstance(part, str) else part
        found.update(len(octets).to_bytes(8, "little"))
        found.update(octets)
    return found.digest()
