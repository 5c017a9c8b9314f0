"""Any ONNX model, checked by ONNX's own checker and read without its weights: a copy that may be changed.

path ── checker ──┐
ModelProto ───────┼─► ir.Model ── only names of inputs as symbols ── strict types and shapes ── functions inlined
ir.Model ── clone ┘
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from samonnx.optimize_result import Left, OptimizeError
from samonnx.passes.shape_inference import ShapeInferenceError, infer_shapes, without_large_data

__all__ = ["LEAST_OPSET", "Loaded", "load_model"]

LEAST_OPSET = 11
"""Older graphs are left alone: Pad, Clip, Slice and others take their operands as attributes there."""

_OVERRIDABLE_FROM = 4  # IR version; before it, every initialiser had to be named as an input, and none was a default


@dataclass(frozen=True)
class Loaded:
    """A model that nobody else holds; `left` says what could not be prepared."""

    model: ir.Model
    left: tuple[Left, ...]
    declared: Mapping[str, ir.Shape | None]
    """Shapes of the outputs, as the file has them."""


def load_model(source: str | Path | onnx.ModelProto | ir.Model) -> Loaded:
    """Reads and checks `source`, which stays as it is; weights in files stay there until somebody looks at them.

    Raises:
        OptimizeError: no such file, no ONNX model, or one that the ONNX checker refuses; with the checker's words.
    """
    model, name = _read(source)
    _detach(model)
    declared = {str(v.name): None if v.shape is None else v.shape.copy() for v in model.graph.outputs}
    if model.graph.opset_imports.get("", LEAST_OPSET) < LEAST_OPSET:
        version = model.graph.opset_imports[""]
        return Loaded(model, (Left("the whole graph", f"opset {version}; expected {LEAST_OPSET} or newer"),), declared)
    left = _use_initializers_as_constants(model)
    model, uninlined = _inlined(model)
    return Loaded(model, (*left, *uninlined, *_infer(model, name)), declared)


def _read(source: str | Path | onnx.ModelProto | ir.Model) -> tuple[ir.Model, str]:
    if isinstance(source, ir.Model):
        name = f"model {source.graph.name!r}"
        try:
            proto = without_large_data(source)
        except Exception as error:  # what onnx_ir raises for broken graphs has no common base
            raise OptimizeError(f"{name} cannot be serialised: {error}") from error
        _check(proto, name)
        return source.clone(), name
    if isinstance(source, onnx.ModelProto):
        name = f"model {source.graph.name!r}"
        _check(source, name)
        return _deserialized(lambda: ir.from_proto(source), name), name
    path = Path(source)
    if not path.is_file():
        what = "it is a folder; give the .onnx file in it" if path.is_dir() else "there is no such file"
        raise OptimizeError(f"cannot read {path}: {what}")
    _check(str(path), str(path))
    return _deserialized(lambda: ir.load(path), str(path)), str(path)


def _detach(model: ir.Model) -> None:
    """A tensor has the name of its value, and is renamed with it: the caller's must not be."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None:
                value.const_value = _view(value.const_value)
    for node in model.graph.all_nodes():
        tensor = node.attributes.get("value")
        if node.op_type == "Constant" and tensor is not None and tensor.type == ir.AttributeType.TENSOR:
            node.attributes["value"] = ir.AttrTensor("value", _view(tensor.as_tensor()))


def _view(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    if tensor.dtype == ir.DataType.STRING:
        return ir.StringTensor(tensor.numpy(), name=tensor.name)
    return ir.LazyTensor(lambda: tensor, tensor.dtype, ir.Shape(tensor.shape.numpy()), name=tensor.name)


def _check(model: str | onnx.ModelProto, name: str) -> None:
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise OptimizeError(f"{name} is not a valid ONNX model; the checker says: {error}") from error
    except Exception as error:  # protobuf's, ONNX's and the system's
        raise OptimizeError(f"{name} cannot be read as an ONNX model: {error}") from error


def _deserialized(read: Callable[[], object], name: str) -> ir.Model:
    try:
        found = read()
    except Exception as error:  # onnx_ir wraps whatever went wrong
        raise OptimizeError(f"{name} cannot be read: {error}") from error
    if not isinstance(found, ir.Model):
        raise OptimizeError(f"{name} holds {type(found).__name__}; expected a model")
    return found


def _use_initializers_as_constants(model: ir.Model) -> list[Left]:
    """Before IR version 4 initialisers had to be inputs too; engines treat them as constants, so they are."""
    if model.ir_version < _OVERRIDABLE_FROM:
        for value in [value for value in model.graph.inputs if value.name in model.graph.initializers]:
            model.graph.inputs.remove(value)
        model.ir_version = _OVERRIDABLE_FROM
        return []
    return [
        Left(f"input {value.name!r}", "it has a default that callers may override, so it is no constant (see --fix)")
        for value in model.graph.inputs
        if value.name in model.graph.initializers
    ]


def _inlined(model: ir.Model) -> tuple[ir.Model, list[Left]]:
    """A copy with the bodies of model-local functions in the place of their calls, as engines have it."""
    if not model.functions:
        return model, []
    copy = model.clone()
    try:
        InlinePass()(copy)
    except Exception as error:  # whatever onnx_ir raises, the calls can stay
        names = ", ".join(sorted({f"{domain}::{name}" for domain, name, _ in model.functions}))
        return model, [Left(f"functions {names}", f"their bodies could not be put in place: {error}")]
    return copy, []


def _infer(model: ir.Model, name: str) -> list[Left]:
    """Types and shapes of all values. What the file claims about inner values is dropped where it contradicts."""
    _drop_claimed_symbols(model)
    backup = {value: value.shape for node in model.graph for value in node.outputs}
    try:
        infer_shapes(model)
    except ShapeInferenceError as first:
        for value in backup:
            value.shape = None
        try:
            infer_shapes(model)
        except ShapeInferenceError:
            words = str(first.__cause__ or first)
            raise OptimizeError(f"{name} is not a valid ONNX model; the checker says: {words}") from first
        return [Left("shapes of inner values in the file", f"they contradict the operators: {first.__cause__}")]
    return []


def _drop_claimed_symbols(model: ir.Model) -> None:
    """A named size of an inner value or an output is a claim of the exporter's that no engine checks; those that hold
    are inferred again from the inputs'."""
    for node in model.graph.all_nodes():
        for value in node.outputs:
            if value.shape is not None and not value.shape.is_static():
                value.shape = ir.Shape([dim if isinstance(dim, int) else None for dim in value.shape])
