"""Counts a graph: nodes, operators, bytes of constants, floating point operations."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import onnx_ir as ir

__all__ = ["GraphStatistics", "graph_statistics", "node_flops"]


@dataclass(frozen=True)
class GraphStatistics:
    """Figures of one graph.

    Attributes:
        nodes: number of nodes, those of subgraphs included, `Constant` nodes included.
        ops: operator → number of nodes, sorted by name; operators outside the standard domain as `domain::Op`.
        constant_bytes: bytes of all initialisers and of all `Constant` nodes.
        flops: 2 · (multiply-accumulates) of MatMul, Gemm, Conv, ConvTranspose and attention; other operators are free.
        uncounted: names of nodes of those kinds whose shapes are not all static; they add nothing to `flops`.
    """

    nodes: int
    ops: Mapping[str, int]
    constant_bytes: int
    flops: int
    uncounted: tuple[str, ...]


class _UnknownShapeError(Exception):
    """A dimension that the count needs is symbolic or missing."""


def _shape(value: ir.Value | None) -> tuple[int, ...]:
    if value is None or value.shape is None:
        raise _UnknownShapeError
    return tuple(_known(dim) for dim in value.shape)


def _known(dim: int | ir.SymbolicDim) -> int:
    if not isinstance(dim, int):
        raise _UnknownShapeError
    return dim


def _input(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


def _matmul_macs(node: ir.Node) -> int:
    left = _shape(node.inputs[0])
    transposed = node.attributes.get_int("transA", 0)
    inner = left[-2] if transposed and len(left) > 1 else left[-1]
    return math.prod(_shape(node.outputs[0])) * inner


def _conv_macs(node: ir.Node) -> int:
    return math.prod(_shape(node.outputs[0])) * math.prod(_shape(node.inputs[1])[1:])


def _conv_transpose_macs(node: ir.Node) -> int:
    return math.prod(_shape(node.inputs[0])) * math.prod(_shape(node.inputs[1])[1:])


def _attention_macs(node: ir.Node) -> int:
    query, key, value = (_shape(_input(node, index)) for index in range(3))
    past = _input(node, 4)
    past_keys = _shape(past)[-2] if past is not None else 0
    if len(query) == 4:  # [B, heads, tokens, channels]
        batch, heads, queries, channels = query
        value_channels = value[-1]
    else:  # [B, tokens, heads · channels]
        batch, queries, width = query
        heads = _known(node.attributes.get_int("q_num_heads", 0))
        kv_heads = _known(node.attributes.get_int("kv_num_heads", 0))
        if not heads or not kv_heads:
            raise _UnknownShapeError
        channels, value_channels = width // heads, value[-1] // kv_heads
    return batch * heads * queries * (key[-2] + past_keys) * (channels + value_channels)


def _multi_head_attention_macs(node: ir.Node) -> int:
    query = _shape(_input(node, 0))
    if len(query) != 3:  # packed QKV
        raise _UnknownShapeError
    batch, queries, width = query
    value = _shape(_input(node, 2))
    keys = value[-2]  # [B, tokens, width] or [B, heads, tokens, channels]
    value_width = value[-1] if len(value) == 3 else value[1] * value[-1]
    past = _input(node, 6)
    past_keys = _shape(past)[-2] if past is not None else 0
    return batch * queries * (keys + past_keys) * (width + value_width)


_MACS: Mapping[tuple[str, str], Callable[[ir.Node], int]] = MappingProxyType(
    {
        ("", "MatMul"): _matmul_macs,
        ("", "Gemm"): _matmul_macs,
        ("", "Conv"): _conv_macs,
        ("", "ConvTranspose"): _conv_transpose_macs,
        ("", "Attention"): _attention_macs,
        ("com.microsoft", "MultiHeadAttention"): _multi_head_attention_macs,
        ("com.microsoft", "FusedMatMul"): _matmul_macs,
        ("com.microsoft", "FusedGemm"): _matmul_macs,
        ("com.microsoft", "FusedConv"): _conv_macs,
    }
)


def node_flops(node: ir.Node) -> int | None:
    """FLOPs of one node: 0 for an operator that is not counted, None when a shape that it needs is not static."""
    count = _MACS.get((node.domain, node.op_type))
    if count is None:
        return 0
    try:
        return 2 * count(node)
    except (_UnknownShapeError, IndexError):
        return None


def _attribute_bytes(attribute: ir.Attr) -> int:
    match attribute.type:
        case ir.AttributeType.TENSOR:
            return int(attribute.as_tensor().nbytes)
        case ir.AttributeType.INT:
            return 8
        case ir.AttributeType.FLOAT:
            return 4
        case ir.AttributeType.INTS:
            return 8 * len(attribute.as_ints())
        case ir.AttributeType.FLOATS:
            return 4 * len(attribute.as_floats())
        case _:
            return 0


def graph_statistics(model: ir.Model) -> GraphStatistics:
    """Counts `model` as it stands; shapes are read from its values, nothing is inferred or changed."""
    ops: Counter[str] = Counter()
    constant_bytes = sum(
        tensor.nbytes
        for graph in model.graphs()
        for value in graph.initializers.values()
        if (tensor := value.const_value) is not None
    )
    flops = 0
    uncounted: list[str] = []
    for node in model.graph.all_nodes():
        ops[f"{node.domain}::{node.op_type}" if node.domain else node.op_type] += 1
        if node.op_type == "Constant" and not node.domain:
            constant_bytes += sum(_attribute_bytes(attribute) for attribute in node.attributes.values())
        counted = node_flops(node)
        if counted is None:
            uncounted.append(node.name or f"{node.op_type} → {node.outputs[0].name}")
        else:
            flops += counted
    return GraphStatistics(
        nodes=ops.total(),
        ops=MappingProxyType(dict(sorted(ops.items()))),
        constant_bytes=int(constant_bytes),
        flops=flops,
        uncounted=tuple(uncounted),
    )
