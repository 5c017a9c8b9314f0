"""The same graph in float64, where an identity of real numbers shows itself to twelve digits."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir

__all__ = ["in_float64"]

_DTYPE_ATTRIBUTES = ("to", "dtype", "output_datatype")


def in_float64(model: ir.Model) -> ir.Model:
    """A copy in which float32 has become float64: inputs, initialisers, tensors in attributes, targets of casts.

    Initialisers and inputs of which an operator demands float32 (the scales of Resize) keep it. Attributes that are
    numbers (`scale`, `epsilon`) stay what they are, rounded to float32.
    """
    copy = model.clone()
    for graph in copy.graphs():
        values = [*graph.inputs, *graph.initializers.values(), *(output for node in graph for output in node.outputs)]
        for value in dict.fromkeys(values):
            if value.dtype == ir.DataType.FLOAT and not _must_be_float32(value, copy):
                value.type = ir.TensorType(ir.DataType.DOUBLE)  # clones share the old one
                if value.const_value is not None:
                    value.const_value = _widened(value.const_value, value.name)
        for node in graph:
            _widen_attributes(node)
    return copy


def _widened(tensor: ir.TensorProtocol, name: str | None) -> ir.TensorProtocol:
    return ir.tensor(tensor.numpy().astype(np.float64), name=name)


def _must_be_float32(value: ir.Value, model: ir.Model) -> bool:
    if value.producer() is not None:
        return False
    for node, index in value.uses():
        try:
            schema = onnx.defs.get_schema(node.op_type, model.opset_imports.get(node.domain, 1), node.domain)
        except onnx.defs.SchemaError:
            continue
        if index < len(schema.inputs) and schema.inputs[index].type_str == "tensor(float)":
            return True
    return False


def _widen_attributes(node: ir.Node) -> None:
    for attribute in list(node.attributes.values()):
        name, held = attribute.name, attribute.value
        if attribute.type == ir.AttributeType.TENSOR and held.dtype == ir.DataType.FLOAT:
            node.attributes[name] = ir.AttrTensor(name, _widened(held, held.name))
        elif name in _DTYPE_ATTRIBUTES and held == ir.DataType.FLOAT:
            node.attributes[name] = ir.AttrInt64(name, int(ir.DataType.DOUBLE))
        elif node.op_type == "Constant" and name in ("value_float", "value_floats"):
            del node.attributes[name]
            node.attributes["value"] = ir.AttrTensor(
                "value", ir.tensor(np.asarray(held, np.float32).astype(np.float64))
            )
    if node.op_type == "ConstantOfShape" and "value" not in node.attributes:  # zeros in float32
        node.attributes["value"] = ir.AttrTensor("value", ir.tensor(np.zeros(1)))
