"""Runs graphs and single nodes in ONNX Runtime with every freedom switched off, so that equal nodes give equal bits."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from samonnx.errors import SamonnxError
from samonnx.passes.interface import Array

__all__ = ["EngineError", "RANDOM_OPERATORS", "evaluate_node", "run_model", "strict_session_options"]

RANDOM_OPERATORS = frozenset(
    {"Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)
"""Standard operators that need not give the same outputs twice."""

_PROTOBUF_LIMIT = 1 << 30  # protobuf stops at 2 GiB; stay well below
_IR_VERSION = 10


class EngineError(SamonnxError):
    """ONNX Runtime refused a graph or its inputs; carries its words."""


def strict_session_options(threads: int = 1) -> ort.SessionOptions:
    """Options under which ONNX Runtime computes node by node what the file says.

    No graph optimisation; no prepacking, because a packed constant weight may be multiplied in another order than
    the same weight computed at run time; one thread, because some kernels split sums by the number of threads.
    """
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.disable_prepacking", "1")
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return options


def run_model(model: ir.Model, feeds: Mapping[str, Array], *, threads: int = 1) -> dict[str, Array]:
    """All outputs of `model` by name, on the CPU. Large models go through a temporary folder, not through memory.

    Raises:
        EngineError: when ONNX Runtime refuses the model or the feeds.
    """
    options = strict_session_options(threads)
    size = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None)
    if size < _PROTOBUF_LIMIT:
        return _run(ir.to_proto(model).SerializeToString(), options, feeds)
    with tempfile.TemporaryDirectory(prefix="samonnx-") as folder:
        path = Path(folder) / "model.onnx"
        ir.save(model.clone(), path, external_data="model.data")
        return _run(str(path), options, feeds)


def _run(source: bytes | str, options: ort.SessionOptions, feeds: Mapping[str, Array]) -> dict[str, Array]:
    try:
        session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        outputs = session.run(None, dict(feeds))
    except Exception as error:  # ONNX Runtime's classes have no common base below Exception
        raise EngineError(f"ONNX Runtime: {error}") from error
    return {output.name: np.asarray(array) for output, array in zip(session.get_outputs(), outputs, strict=True)}


def evaluate_node(
    node: ir.Node, inputs: Sequence[Array | None], opset_imports: Mapping[str, int]
) -> list[Array] | None:
    """The outputs of one node of constant inputs (an unnamed optional output gives an empty array).

    Returns None when ONNX Runtime's CPU provider has no kernel for the node or for one of the dtypes, or refuses the
    inputs; such a node is left for whoever runs the graph.
    """
    values = [
        None
        if array is None
        else ir.Value(
            name=f"i{index}", type=ir.TensorType(ir.DataType.from_numpy(array.dtype)), shape=ir.Shape(array.shape)
        )
        for index, array in enumerate(inputs)
    ]
    outputs = [
        ir.Value(name=f"o{index}" if output.name else "", type=output.type) for index, output in enumerate(node.outputs)
    ]
    copy = ir.Node(
        node.domain, node.op_type, values, list(node.attributes.values()), outputs=outputs, overload=node.overload
    )
    named = [output for output in outputs if output.name]
    graph = ir.Graph(
        [value for value in values if value is not None],
        named,
        nodes=[copy],
        opset_imports=dict(opset_imports),
        name="g",
    )
    feeds = {f"i{index}": array for index, array in enumerate(inputs) if array is not None}
    try:
        results = run_model(ir.Model(graph, ir_version=_IR_VERSION), feeds)
    except EngineError:
        return None
    return [results[output.name] if output.name else np.empty(0) for output in outputs]
