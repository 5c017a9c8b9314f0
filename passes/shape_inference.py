"""Shape inference that says when it fails, and that never copies the weights."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from samonnx.errors import SamonnxError

__all__ = ["ShapeInferenceError", "infer_shapes", "without_large_data"]

# Shape operands (of Reshape, Slice, Resize, …) are smaller than this; larger tensors only contribute their shape.
_DATA_BYTES = 1024


class ShapeInferenceError(SamonnxError):
    """ONNX shape inference found a contradiction in the graph."""


def infer_shapes(model: ir.Model, *, forget: bool = False) -> bool:
    """Infers the type and shape of every value of the main graph (strict, with propagation of shape data), in place.

    What is known already is kept where inference finds nothing better (operators of foreign domains).

    Args:
        model: any model; its initialisers may be hundreds of MB, their data is not serialised.
        forget: first drop the known shapes of what standard operators produce; for passes that change shapes.

    Returns:
        Whether a type or a shape changed.

    Raises:
        ShapeInferenceError: with the checker's words, which name the node.
    """
    if forget:
        for node in model.graph:
            for output in node.outputs:
                if not node.domain:
                    output.shape = None
    try:
        inferred = onnx.shape_inference.infer_shapes(
            without_large_data(model), check_type=True, strict_mode=True, data_prop=True
        )
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError) as error:
        raise ShapeInferenceError(f"shape inference failed in graph {model.graph.name!r}: {error}") from error
    values = {output.name: output for node in model.graph for output in node.outputs if output.name}
    changed = False
    for info in (*inferred.graph.value_info, *inferred.graph.output):
        value = values.get(info.name)
        if value is None:
            continue
        type_ = ir.serde.deserialize_type_proto_for_type(info.type)
        shape = ir.serde.deserialize_type_proto_for_shape(info.type)
        if type_ is not None and type_ != value.type:
            value.type = type_
            changed = True
        if shape is not None and shape != value.shape:
            value.shape = shape
            changed = True
    return changed


def without_large_data(model: ir.Model) -> onnx.ModelProto:
    """The model as a proto in which large initialisers have become inputs of the same type and shape."""
    graph = model.graph
    proto = onnx.ModelProto(ir_version=model.ir_version)
    for domain, version in {**graph.opset_imports, **model.opset_imports}.items():
        proto.opset_import.add(domain=domain, version=version)
    proto.functions.extend(ir.serde.serialize_function(function) for function in model.functions.values())
    to = proto.graph
    to.name = graph.name or "graph"
    for value in graph.inputs:
        ir.serde.serialize_value_into(to.input.add(), value)
    for value in graph.outputs:
        ir.serde.serialize_value_into(to.output.add(), value)
    for name, value in graph.initializers.items():
        tensor = value.const_value
        if tensor is not None and tensor.nbytes <= _DATA_BYTES:
            to.initializer.append(ir.serde.serialize_tensor(tensor))
            to.initializer[-1].name = name
        elif not value.is_graph_input():
            known = value if tensor is None else _bare(name, tensor)
            ir.serde.serialize_value_into(to.input.add(), known)
    for node in graph:
        ir.serde.serialize_node_into(to.node.add(), node)
        for value in node.outputs:
            if not value.is_graph_output() and (value.shape is not None or value.type is not None):
                ir.serde.serialize_value_into(to.value_info.add(), value)
    return proto


def _bare(name: str, tensor: ir.TensorProtocol) -> ir.Value:
    """A value of `tensor`'s type and shape, without its data."""
    return ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape.numpy()))
