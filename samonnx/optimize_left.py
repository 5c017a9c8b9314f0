"""What the passes cannot touch in a graph, by name and with the reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import onnx_ir as ir

from samonnx.optimize_plan import NEEDED_OPSETS
from samonnx.optimize_result import GraphFigures, Left
from samonnx.passes.evaluation import RANDOM_OPERATORS
from samonnx.passes.fuse_attention import near_misses
from samonnx.passes.graph_values import constant_array, static_shape
from samonnx.passes.statistics import graph_statistics

__all__ = ["figures", "left_parts", "random_nodes"]

_LINEAR = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm", "Attention"})
_HALF = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16})
_KNOWN_DOMAINS = frozenset({"", "com.microsoft"})
_FEW = 4


def figures(model: ir.Model) -> GraphFigures:
    """Counts of the graph as it stands."""
    found = graph_statistics(model)
    return GraphFigures(found.nodes, found.constant_bytes, found.flops, len(found.uncounted))


def left_parts(original: ir.Model, result: ir.Model) -> list[Left]:
    """Of the graph as it was given, and what kept the passes from more in the one that they made of it."""
    misses = near_misses(result) if original.graph.opset_imports.get("", 0) >= NEEDED_OPSETS["fuse_attention"] else ()
    return [
        *_dynamic(original, result),
        *_half(original),
        *_subgraphs(result),
        *_foreign(original),
        *_old(original),
        *(Left(miss.node, f"no attention: {miss.reason}") for miss in misses),
    ]


def _dynamic(original: ir.Model, result: ir.Model) -> Iterator[Left]:
    for value in original.graph.inputs:
        if value.shape is None:
            yield Left(f"input {value.name!r}", "its rank is not known")
        elif not value.shape.is_static():
            yield Left(f"input {value.name!r} {value.shape}", "what needs sizes stays where these are not known")
    unknown = [node for node in result.graph if _is_linear(node) and static_shape(node.outputs[0]) is None]
    if unknown:
        yield Left(_listed(unknown), "their output has no static shape")


def _half(model: ir.Model) -> Iterator[Left]:
    for dtype in sorted(_HALF, key=lambda dtype: dtype.name):
        nodes = [node for node in model.graph if _is_linear(node) and node.outputs[0].dtype == dtype]
        if nodes:
            yield Left(_listed(nodes), f"{dtype.name.lower()}: algebra on the weights would round")


def _subgraphs(model: ir.Model) -> Iterator[Left]:
    for node in model.graph:
        kinds = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
        if any(attribute.type in kinds for attribute in node.attributes.values()):
            yield Left(_named(node), "bodies of control flow are left as they are")


def _foreign(model: ir.Model) -> Iterator[Left]:
    counts = Counter(f"{n.domain}::{n.op_type}" for n in model.graph.all_nodes() if n.domain not in _KNOWN_DOMAINS)
    for operator, count in sorted(counts.items()):
        yield Left(f"{count} × {operator}", "an operator that the passes do not know")
    for node in random_nodes(model):
        yield Left(_named(node), "it gives other numbers each time")


def _old(model: ir.Model) -> Iterator[Left]:
    version = model.graph.opset_imports.get("", 0)
    for needed in sorted(set(NEEDED_OPSETS.values())):
        names = [name for name, least in NEEDED_OPSETS.items() if least == needed]
        if 0 < version < needed:
            yield Left(f"passes {', '.join(names)}", f"they write operators of opset {needed}; the graph has {version}")


def random_nodes(model: ir.Model) -> list[ir.Node]:
    """Those that need not give the same twice, in bodies and functions too; Dropout only where it may be training."""
    bodies: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    found = [node for body in bodies for node in body.all_nodes() if not node.domain]
    return [node for node in found if node.op_type in RANDOM_OPERATORS and not _is_idle_dropout(node)]


def _is_idle_dropout(node: ir.Node) -> bool:
    if node.op_type != "Dropout":
        return False
    training = node.inputs[2] if len(node.inputs) > 2 else None
    array = constant_array(training)
    return training is None or (array is not None and not array.any())


def _is_linear(node: ir.Node) -> bool:
    return node.op_type in _LINEAR and not node.domain


def _named(node: ir.Node) -> str:
    return f"{node.op_type} {node.name or node.outputs[0].name!r}"


def _listed(nodes: list[ir.Node]) -> str:
    shown = ", ".join(_named(node) for node in nodes[:_FEW])
    return shown + (f" and {len(nodes) - _FEW} more" if len(nodes) > _FEW else "")
