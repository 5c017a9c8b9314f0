"""From a graph in memory to the bytes of its `.onnx` file: the same bytes for the same graph, weights elsewhere.

    ir.Model ─► clone ─► without traces of how it was made ─► (layout of all weights) ─► refer to them ─► bytes

The caller's model is never touched: the clone shares its tensors, and references replace them in the clone only.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass

from samonnx.weights_file import EXTERNAL_FROM, WEIGHTS_NAME, HasBytes, Region, is_external

__all__ = ["Overlaid", "Places", "external_tensors", "portable_clone", "serialized"]


class Places(Protocol):
    """Where tensors lie in a weights file (`WeightsLayout` is one)."""

    def region_of(self, tensor: HasBytes) -> Region: ...


class Overlaid:
    """All tensors at the beginning of the file: for a graph whose weights nobody reads from there."""

    def region_of(self, tensor: HasBytes) -> Region:
        return Region(0, tensor.nbytes)


# Elements from which a Constant node becomes an initialiser: enough for any dtype to catch all that is external.
_LIFTED_FROM = EXTERNAL_FROM // 16

# Provenance that is the same on every machine stays: the module path that a node was traced from (profilers and
# viewers show it) and what our own passes note. Stack traces hold paths, and change with every edit of a source file.
_KEPT_METADATA = ("namespace",)
_KEPT_PREFIX = "samonnx."


def portable_clone(model: ir.Model, name: str) -> ir.Model:
    """A copy of `model` that shares its tensors and holds nothing of the machine or the hour it was made on.

    Documentation strings and foreign metadata go; unnamed nodes get names; large Constant nodes become initialisers;
    initialisers are sorted by name.
    """
    clone = model.clone()
    clone.producer_name, clone.producer_version = "samonnx", None
    clone.domain, clone.model_version, clone.doc_string = None, None, None
    clone.graph.name = name
    LiftConstantsToInitializersPass(size_limit=_LIFTED_FROM)(clone)
    _strip(clone)
    bodies: list[ir.Graph | ir.Function] = [*clone.graphs(), *clone.functions.values()]
    for body in bodies:
        _strip(body)
        for value in body.inputs:
            _strip(value)
        for node in body:
            _strip(node)
            for value in node.outputs:
                _strip(value)
        _name_nodes(body)
    for graph in clone.graphs():
        _sort_initializers(graph)
    opsets = dict(sorted(clone.opset_imports.items()))
    clone.opset_imports.clear()
    clone.opset_imports.update(opsets)
    return clone


def external_tensors(model: ir.Model) -> Iterator[tuple[str, ir.TensorProtocol]]:
    """Name and tensor of every initialiser that belongs into the weights file, in all graphs of the model."""
    for value in _initializers(model):
        if value.const_value is not None and is_external(value.const_value):
            yield value.name or "", value.const_value


def serialized(clone: ir.Model, layout: Places) -> bytes:
    """The file of a `portable_clone` whose `external_tensors` are in `layout`. The clone is used up by it."""
    for value in _initializers(clone):
        tensor = value.const_value
        if tensor is None:
            continue
        if is_external(tensor):
            region = layout.region_of(tensor)
            value.const_value = ir.ExternalTensor(
                WEIGHTS_NAME,
                region.offset,
                region.length,
                tensor.dtype,
                shape=ir.Shape(tensor.shape.numpy()),
                name=value.name or "",
            )
        elif isinstance(tensor, ir.ExternalTensor):
            # A small tensor that lies in the caller's own file, which the artifact must not refer to.
            value.const_value = ir.Tensor(tensor.numpy().copy(), dtype=tensor.dtype, name=value.name)
    octets: bytes = ir.to_proto(clone).SerializeToString(deterministic=True)
    return octets


def _initializers(model: ir.Model) -> Iterator[ir.Value]:
    for graph in model.graphs():
        yield from graph.initializers.values()


def _strip(thing: ir.Model | ir.Graph | ir.Function | ir.Node | ir.Value) -> None:
    thing.doc_string = None
    kept = {
        key: value
        for key, value in sorted(thing.metadata_props.items())
        if key in _KEPT_METADATA or key.startswith(_KEPT_PREFIX)
    }
    thing.metadata_props.clear()
    thing.metadata_props.update(kept)


def _name_nodes(graph: ir.Graph | ir.Function) -> None:
    """Give a name, made of the operator and the place, to nodes that have none or one that is taken."""
    taken: set[str] = set()
    for index, node in enumerate(graph):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{index}"
            while node.name in taken:
                node.name += "_"
        taken.add(node.name)


def _sort_initializers(graph: ir.Graph) -> None:
    values = sorted(graph.initializers.values(), key=lambda value: value.name or "")
    graph.initializers.clear()
    for value in values:
        _strip(value)
        graph.initializers.add(value)
