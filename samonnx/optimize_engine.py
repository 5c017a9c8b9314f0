"""Runs foreign graphs node by node, as the file says: in ONNX Runtime, or in ONNX's reference evaluator where it is
small; and compares what comes out."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from onnx.reference import ReferenceEvaluator

from samonnx.optimize_result import OutputError
from samonnx.passes.evaluation import EngineError, strict_session_options
from samonnx.passes.interface import Array

__all__ = ["Outputs", "compare_outputs", "compact_session", "reference_runner", "ort_runner", "tolerance_of"]

Outputs = dict[str, object]
"""By name; an array, a list of them (a sequence) or None (an optional)."""

_EXTERNAL_FROM = 1024
_INLINE_LIMIT = 1 << 30
_REFERENCE_BYTES = 64 << 20
_REFERENCE_NODES = 3000
_BATCH_NORM_OPSET = 14
_NUMPY_DTYPES = frozenset(
    {
        *(ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BOOL),
        *(ir.DataType.INT8, ir.DataType.INT16, ir.DataType.INT32, ir.DataType.INT64),
        *(ir.DataType.UINT8, ir.DataType.UINT16, ir.DataType.UINT32, ir.DataType.UINT64),
    }
)
EXACT = 1e-5
HALF_TOLERANCES: Mapping[ir.DataType, float] = {ir.DataType.FLOAT16: 2**-9, ir.DataType.BFLOAT16: 2**-6}
"""Two units in the last place of the largest magnitude. Only bit-exact passes touch values of these types, but engines
keep their sums in float32 and round where it suits them, which may be elsewhere after a node has gone."""


class Runner(Protocol):
    """Runs a graph once."""

    def __call__(self, model: ir.Model, feeds: Mapping[str, Array]) -> Outputs:
        """Raises EngineError."""
        ...


def compact_session(model: ir.Model, options: ort.SessionOptions) -> ort.InferenceSession:
    """A session on the CPU. Large weights are read where they lie; nothing is copied but graphs of gigabytes of
    unusual types, which go through a temporary folder.

    Raises EngineError with ONNX Runtime's words.
    """
    weights: dict[str, Array] = {}
    clone = model.clone()
    inside = 0
    for graph in clone.graphs():
        for name, value in graph.initializers.items():
            tensor = value.const_value
            if tensor is None:
                continue
            fixed = graph is clone.graph and not value.is_graph_input() and not value.is_graph_output()
            if not value.uses() and not value.is_graph_output() and not value.is_graph_input():
                continue  # engines drop it, and then complain about weights for it
            if fixed and tensor.dtype in _NUMPY_DTYPES and tensor.nbytes >= _EXTERNAL_FROM:
                weights[name] = np.ascontiguousarray(tensor.numpy())
                shape = ir.Shape(tensor.shape.numpy())
                value.const_value = ir.ExternalTensor("weights", 0, tensor.nbytes, tensor.dtype, shape=shape, name=name)
            else:
                inside += tensor.nbytes
    try:
        if inside > _INLINE_LIMIT:
            with tempfile.TemporaryDirectory(prefix="samonnx-") as folder:
                path = Path(folder) / "model.onnx"
                ir.save(model.clone(), path, external_data="model.data")
                return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        if weights:
            values = [ort.OrtValue.ortvalue_from_numpy(array) for array in weights.values()]
            options.add_external_initializers(list(weights), values)
        octets = ir.to_proto(clone).SerializeToString()
        return ort.InferenceSession(octets, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's classes have no common base below Exception
        raise EngineError(f"ONNX Runtime: {error}") from error


def ort_runner(model: ir.Model, feeds: Mapping[str, Array]) -> Outputs:
    """Without optimisation, prepacking and threads, so that equal nodes give equal bits. Raises EngineError."""
    session = compact_session(model, strict_session_options())
    try:
        found = session.run(None, dict(feeds))
    except Exception as error:  # as above
        raise EngineError(f"ONNX Runtime: {error}") from error
    return dict(zip([output.name for output in session.get_outputs()], found, strict=True))


def reference_runner(model: ir.Model, feeds: Mapping[str, Array]) -> Outputs:
    """In Python: slow, but with a kernel for every standard operator and type. Raises EngineError, also for graphs of
    more than 64 MiB of weights or 3000 nodes."""
    size = sum(v.const_value.nbytes for g in model.graphs() for v in g.initializers.values() if v.const_value)
    nodes = sum(1 for _ in model.graph.all_nodes())
    if size > _REFERENCE_BYTES or nodes > _REFERENCE_NODES:
        raise EngineError(f"the reference evaluator: {nodes} nodes and {size >> 20} MiB are too much for it")
    old = model.graph.opset_imports.get("", 0) < _BATCH_NORM_OPSET
    if old and any(node.op_type == "BatchNormalization" for node in model.graph.all_nodes()):
        raise EngineError("the reference evaluator: before opset 14 it normalises by the batch, as in training")
    try:
        evaluator = ReferenceEvaluator(ir.to_proto(model))
        with np.errstate(all="ignore"):
            found = evaluator.run(None, dict(feeds))
    except Exception as error:  # whatever a kernel in Python raises
        raise EngineError(f"the reference evaluator: {type(error).__name__}: {error}") from error
    return dict(zip(evaluator.output_names, found, strict=True))


def tolerance_of(model: ir.Model) -> float:
    """1e-5, or that of the narrowest floats in the graph."""
    values = [value for node in model.graph.all_nodes() for value in node.outputs]
    values += [*model.graph.inputs, *model.graph.initializers.values()]
    found = {value.dtype for value in values}
    return max((limit for dtype, limit in HALF_TOLERANCES.items() if dtype in found), default=EXACT)


def compare_outputs(found: Outputs, expected: Outputs, tolerance: float) -> list[OutputError]:
    """One a output of `expected`; missing outputs, other shapes, dtypes and patterns of NaN are infinite errors."""
    return [
        OutputError(name, _error(found.get(name), value) if name in found else np.inf, tolerance)
        for name, value in expected.items()
    ]


def _error(found: object, expected: object) -> float:
    if isinstance(expected, Sequence) and not isinstance(expected, str):
        if not isinstance(found, Sequence) or len(found) != len(expected):
            return np.inf
        return max((_error(one, other) for one, other in zip(found, expected, strict=True)), default=0.0)
    if expected is None or found is None:
        return 0.0 if expected is found else np.inf
    one, other = np.asarray(found), np.asarray(expected)
    if one.shape != other.shape or one.dtype != other.dtype:
        return np.inf
    if one.dtype.kind in "OUSTb" or other.size == 0:
        return 0.0 if np.array_equal(one, other) else np.inf
    if one.dtype.kind in "iu":
        return 0.0 if np.array_equal(one, other) else np.inf
    wide, old = one.astype(np.float64), other.astype(np.float64)
    finite = np.isfinite(old)
    if not np.array_equal(wide[~finite], old[~finite], equal_nan=True) or not np.isfinite(wide[finite]).all():
        return np.inf
    largest = float(np.abs(old[finite]).max(initial=0.0))
    difference = float(np.abs(wide[finite] - old[finite]).max(initial=0.0))
    return difference / largest if largest > 0 else difference
