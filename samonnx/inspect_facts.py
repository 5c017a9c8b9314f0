"""What an ONNX file holds, counted; weights that lie beside it are not read."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import onnx_ir as ir

from samonnx.errors import SamonnxError
from samonnx.passes.shape_inference import ShapeInferenceError, infer_shapes
from samonnx.passes.statistics import graph_statistics

__all__ = ["InspectError", "ModelFacts", "PortFacts", "TensorFacts", "model_facts", "read_model", "shape_text"]


class InspectError(SamonnxError):
    """A file that cannot be read, or a part of its graph that cannot be drawn."""


@dataclass(frozen=True)
class PortFacts:
    """An input or output; sizes are numbers, names or `?`; `shape` None: not even the rank is known."""

    name: str
    dtype: str
    shape: tuple[int | str, ...] | None
    default: bool = False


@dataclass(frozen=True)
class TensorFacts:
    """A stored tensor."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int


@dataclass(frozen=True)
class ModelFacts:
    """`flops` are those of MatMul, Gemm, Conv, ConvTranspose and attention whose shapes are known; `uncounted` nodes of
    these kinds are of unknown shape, and `unknown_shapes` counts the nodes of all kinds that have such an output.
    `parameters` counts stored elements, `dtypes` gives (elements, bytes) of each type. `ops` counts bodies of control
    flow too, not those of functions. `contradiction`: what shape inference found wrong, if it did."""

    path: str
    producer: str
    ir_version: int
    opsets: Mapping[str, int]
    functions: tuple[str, ...]
    inputs: tuple[PortFacts, ...]
    outputs: tuple[PortFacts, ...]
    nodes: int
    ops: Mapping[str, int]
    flops: int
    uncounted: int
    unknown_shapes: int
    parameters: int
    bytes: int
    dtypes: Mapping[str, tuple[int, int]]
    largest: tuple[TensorFacts, ...]
    contradiction: str = ""

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"


def read_model(path: Path) -> ir.Model:
    """Raises InspectError: no such file, no ONNX model."""
    if not path.is_file():
        what = "it is a folder; give the .onnx file in it" if path.is_dir() else "there is no such file"
        raise InspectError(f"cannot read {path}: {what}")
    try:
        return ir.load(path)
    except Exception as error:  # protobuf and onnx_ir have many, without a common base
        raise InspectError(f"cannot read {path} as an ONNX model: {error}") from error


def model_facts(model: ir.Model, path: Path, top: int = 10) -> ModelFacts:
    """Counts `model`, whose shapes are inferred first, in place; `top`: how many of the largest tensors."""
    ports = [tuple(_port(value) for value in values) for values in (model.graph.inputs, model.graph.outputs)]
    contradiction = ""
    try:
        infer_shapes(model)
    except ShapeInferenceError as error:
        contradiction = str(error.__cause__ or error)
    tensors = _tensors(model)
    found = graph_statistics(model)
    elements: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for tensor in tensors:
        elements[tensor.dtype] += math.prod(tensor.shape)
        sizes[tensor.dtype] += tensor.bytes
    nodes = list(model.graph.all_nodes())
    return ModelFacts(
        path=str(path),
        producer=" ".join(filter(None, (model.producer_name, model.producer_version))),
        ir_version=model.ir_version,
        opsets={domain or "ai.onnx": version for domain, version in model.opset_imports.items()},
        functions=tuple(sorted(f"{domain}::{name}" for domain, name, _ in model.functions)),
        inputs=ports[0],
        outputs=ports[1],
        nodes=found.nodes,
        ops=dict(sorted(found.ops.items(), key=lambda item: (-item[1], item[0]))),
        flops=found.flops,
        uncounted=len(found.uncounted),
        unknown_shapes=sum(any(_is_unknown(value) for value in node.outputs if value.name) for node in nodes),
        parameters=elements.total(),
        bytes=sizes.total(),
        dtypes={dtype: (elements[dtype], sizes[dtype]) for dtype in sorted(elements)},
        largest=tuple(sorted(tensors, key=lambda tensor: (-tensor.bytes, tensor.name))[:top]),
        contradiction=contradiction,
    )


def _port(value: ir.Value) -> PortFacts:
    tensor = value.type is None or isinstance(value.type, ir.TensorType)
    dtype = ("?" if value.dtype is None else value.dtype.name.lower()) if tensor else str(value.type)
    shape = None
    if value.shape is not None:
        shape = tuple(dim if isinstance(dim, int) else dim.value or "?" for dim in value.shape)
    return PortFacts(str(value.name), dtype, shape, value.is_initializer())


def shape_text(shape: tuple[int | str, ...] | None) -> str:
    """[1, 3, h, w], or ? for an unknown rank."""
    return "?" if shape is None else "[" + ", ".join(map(str, shape)) + "]"


def _is_unknown(value: ir.Value) -> bool:
    return value.shape is None or not value.shape.is_static()


def _tensors(model: ir.Model) -> list[TensorFacts]:
    """Initialisers of all graphs, and tensors of Constant nodes."""
    found = [(str(name), value.const_value) for graph in model.graphs() for name, value in graph.initializers.items()]
    bodies: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    for node in (node for body in bodies for node in body.all_nodes()):
        attribute = node.attributes.get("value")
        if node.op_type == "Constant" and attribute is not None and attribute.type == ir.AttributeType.TENSOR:
            found.append((str(node.outputs[0].name), attribute.as_tensor()))
    return [
        TensorFacts(name, tensor.dtype.name.lower(), tuple(tensor.shape.numpy()), int(tensor.nbytes))
        for name, tensor in found
        if tensor is not None
    ]
