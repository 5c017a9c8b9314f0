"""Attention in random graphs: written out, and as the standard operator."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from tests.random_construction import Construction, Port

__all__ = ["attention", "decoder_attention", "standard_attention"]


def attention(graph: Construction) -> None:
    """softmax(s · Q Kᵀ + mask) V, written out, of one value [B, S, C]; its heads are 1 or none."""
    source = graph.port(rank=3)
    if source is None:
        return
    batch, tokens, channels = source.shape
    shape: tuple[int, ...] = (batch, tokens, channels)
    q, k, v = (graph.add("MatMul", [source.value, graph.weight(channels, channels)], shape) for _ in range(3))
    rank = 3
    if graph.flag() and not graph.dynamic:
        heads = graph.choice([h for h in (1, 2) if channels % h == 0])
        split = (batch, tokens, heads, channels // heads)
        q, k, v = (graph.transposed(graph.reshaped(value, split), (0, 2, 1, 3)) for value in (q, k, v))
        rank, shape = 4, q.shape
    if graph.flag():
        q = graph.add("Mul", [q.value, graph.constant(np.array(0.5, graph.numpy))], shape)
    swapped = graph.transposed(k, (*range(rank - 2), rank - 1, rank - 2))
    square = (*shape[:-1], tokens)
    logits = graph.add("MatMul", [q.value, swapped.value], square)
    if graph.flag():
        logits = graph.add("Div", [logits.value, graph.constant(np.array(2.0, graph.numpy))], square)
    mask = graph.integer(0, 3)
    if mask == 1:
        logits = graph.add("Add", [logits.value, graph.weight(tokens, tokens)], square)
    elif mask == 2:
        kept = np.ones((1, tokens), bool)
        kept[0, graph.integer(0, tokens - 1)] = tokens == 1
        fill = graph.constant(np.array(-np.inf if graph.flag() else np.finfo(graph.numpy).min, graph.numpy))
        logits = graph.add("Where", [graph.constant(kept), logits.value, fill], square)
    weights = graph.add("Softmax", [logits.value], square, {"axis": -1 if graph.opset >= 13 else rank - 1})
    graph.add("MatMul", [weights.value, v.value], shape)


def standard_attention(graph: Construction) -> None:
    source = graph.port(rank=4)
    if source is None or graph.opset < 23 or graph.dtype != ir.DataType.FLOAT:
        return
    inputs = [source.value] * 3
    if graph.flag():
        tokens = source.shape[2]
        kept = np.ones((tokens, tokens), bool)
        kept[:, 0] = tokens == 1
        inputs.append(graph.constant(kept) if graph.flag() else graph.weight(tokens, tokens))
    graph.add("Attention", inputs, source.shape, {"scale": 0.25} if graph.flag() else {})


def decoder_attention(graph: Construction) -> None:
    """A few tokens and the cells of an image, as a mask decoder has them: one attends the other with several heads,
    whose projections are of their own widths; then the heads are merged and projected."""
    source = graph.port(rank=4)
    if source is None or graph.dynamic:
        return
    batch, channels, height, width = source.shape
    cells = graph.transposed(graph.reshaped(source, (batch, channels, height * width)), (0, 2, 1))
    count = graph.integer(1, 3)
    tokens = graph.add("MatMul", [graph.weight(count, height * width), cells.value], (batch, count, channels))
    rows, keys = (tokens, cells) if graph.flag() else (cells, tokens)
    heads, width = graph.integer(1, 3), graph.integer(1, 4)
    q, k, v = (_heads(graph, port, heads, width) for port in (rows, keys, keys))
    if graph.opset >= 23 and graph.dtype == ir.DataType.FLOAT:
        attended = graph.add("Attention", [q.value, k.value, v.value], q.shape, {"scale": 0.5} if graph.flag() else {})
    else:
        scaled = graph.add("Mul", [q.value, graph.constant(np.array(0.5, graph.numpy))], q.shape)
        square = (*q.shape[:3], k.shape[2])
        logits = graph.add("MatMul", [scaled.value, graph.transposed(k, (0, 1, 3, 2)).value], square)
        weights = graph.add("Softmax", [logits.value], square, {"axis": -1 if graph.opset >= 13 else 3})
        attended = graph.add("MatMul", [weights.value, v.value], q.shape)
    merged = graph.reshaped(graph.transposed(attended, (0, 2, 1, 3)), (*rows.shape[:2], heads * width))
    graph.add("MatMul", [merged.value, graph.weight(heads * width, channels)], rows.shape)


def _heads(graph: Construction, source: Port, heads: int, width: int) -> Port:
    """[B, S, D] projected to [B, heads, S, width]."""
    batch, tokens, channels = source.shape
    whole = (batch, tokens, heads * width)
    projected = graph.add("MatMul", [source.value, graph.weight(channels, heads * width)], whole)
    if graph.flag():
        projected = graph.add("Add", [projected.value, graph.weight(heads * width)], whole)
    return graph.transposed(graph.reshaped(projected, (batch, tokens, heads, width)), (0, 2, 1, 3))
