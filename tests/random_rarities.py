"""Pieces of random graphs that are seldom seen: rotations, products to reassociate, sequences, functions, operators of
ONNX Runtime's own."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from tests.random_construction import Construction

__all__ = ["RARE_PIECES"]


def product_of_pixels(graph: Construction) -> None:
    """A (W X + b) with X an image."""
    source = graph.port(rank=4)
    if source is None:
        return
    batch, channels, height, width = source.shape
    middle, rows = graph.integer(2, 6), graph.integer(1, 3)
    inputs = [source.value, graph.weight(middle, channels, 1, 1)] + [graph.weight(middle)] * graph.flag()
    mapped = graph.add("Conv", inputs, (batch, middle, height, width))
    pixels = graph.reshaped(mapped, (batch, middle, height * width))
    left = graph.add("Tanh", [graph.weight(rows, middle)], (rows, middle))
    graph.add("MatMul", [left.value, pixels.value], (batch, rows, height * width))


def upscaling(graph: Construction) -> None:
    """Tiles of a transposed convolution, normalised by channel, and few channels of them."""
    source = graph.port(rank=4)
    if source is None or math.prod(source.shape[2:]) > 100:
        return
    batch, channels, height, width = source.shape
    factor, wide, few = graph.integer(2, 3), graph.integer(3, 6), graph.integer(1, 2)
    shape = (batch, wide, height * factor, width * factor)
    inputs = [source.value, graph.weight(channels, wide, factor, factor)] + [graph.weight(wide)] * graph.flag()
    tiles = graph.add("ConvTranspose", inputs, shape, {"strides": [factor, factor]})
    if graph.opset >= 18 and graph.flag():
        axes = graph.constant(np.array([1], np.int64))
        mean = graph.add("ReduceMean", [tiles.value, axes], (batch, 1, *shape[2:]))
        tiles = graph.add("Sub", [tiles.value, mean.value], shape)
    tiles = graph.add(graph.choice(["Relu", "Tanh"]), [tiles.value], shape)
    if graph.flag() and not graph.dynamic:
        pixels = graph.reshaped(tiles, (batch, wide, math.prod(shape[2:])))
        rows = graph.add("Tanh", [graph.weight(few, wide)], (few, wide))
        graph.add("MatMul", [rows.value, pixels.value], (batch, few, math.prod(shape[2:])))
    else:
        graph.add("Conv", [tiles.value, graph.weight(few, wide, 1, 1)], (batch, few, *shape[2:]))


def rotation(graph: Construction) -> None:
    """A rotary embedding over pairs, as torch writes complex multiplication by hand."""
    source = graph.port(rank=graph.integer(2, 4))
    if source is None or graph.dynamic or source.shape[-1] % 2:
        return
    *leading, tokens, channels = source.shape
    half = (*leading, tokens, channels // 2)
    pairs = graph.reshaped(source, (*half, 2))
    angles = graph.random(tokens, channels // 2).astype(np.float64)
    cosine, sine = (graph.constant(f(angles).astype(graph.numpy)) for f in (np.cos, np.sin))
    real, imaginary = (
        graph.add("Gather", [pairs.value, graph.constant(np.array(at, np.int64))], half, {"axis": -1}) for at in (0, 1)
    )
    products = [
        graph.add("Mul", [part.value, table], half) for part, table in (
            (real, cosine), (imaginary, sine), (real, sine), (imaginary, cosine),
        )
    ]  # fmt: skip
    first = graph.add("Sub", [products[0].value, products[1].value], half)
    second = graph.add("Add", [products[2].value, products[3].value], half)
    parts = [graph.unsqueezed(part, len(half)) for part in (first, second)]
    joined = graph.add("Concat", [part.value for part in parts], (*half, 2), {"axis": -1})
    if graph.flag():
        graph.reshaped(joined, source.shape)


def sequence(graph: Construction) -> None:
    """Tensors through a sequence, constant or not."""
    source = graph.port()
    if source is None or not source.shape:
        return
    first = graph.weight(source.shape[-1]) if graph.flag() else source.value
    held = graph.node("SequenceConstruct", [first, first])
    taken = graph.node("SequenceAt", [held, graph.constant(np.array(graph.integer(0, 1), np.int64))])
    graph.add("Add", [source.value, taken], source.shape)


def function(graph: Construction) -> None:
    """A call of a function of the model's own: x ↦ tanh(x) · w."""
    source = graph.port()
    if source is None or graph.opset < 13:
        return
    if not graph.functions:
        x, w = ir.Value(name="x"), ir.Value(name="w")
        inner = ir.node("Tanh", [x])
        product = ir.node("Mul", [inner.outputs[0], w])
        inner.outputs[0].name, product.outputs[0].name = "t", "y"
        body = ir.Graph([x, w], product.outputs, nodes=[inner, product], opset_imports={"": graph.opset})
        graph.functions.append(ir.Function("local", "Squashed", graph=body, attributes=[]))
    graph.add("Squashed", [source.value, graph.positive()], source.shape, domain="local")


def contributed(graph: Construction) -> None:
    """An operator of ONNX Runtime's own domain."""
    source = graph.port()
    if source is not None and graph.dtype == ir.DataType.FLOAT:
        graph.add("QuickGelu", [source.value], source.shape, {"alpha": 1.5}, domain="com.microsoft")


def scan(graph: Construction) -> None:
    """Scan over the first axis: a running sum that also reads an outer value."""
    source = graph.port(rank=2)
    if source is None or graph.dynamic:
        return
    row = (source.shape[1],)
    state, element = (ir.Value(name=f"scan{len(graph.nodes)}/{what}") for what in ("state", "row"))
    for value in (state, element):
        value.type, value.shape = ir.TensorType(graph.dtype), ir.Shape([None])
    weight = graph.weight(*row)
    total = ir.node("Add", [state, element])
    scaled = ir.node("Mul", [total.outputs[0], weight])
    for at, node in enumerate((total, scaled)):
        node.name = node.outputs[0].name = f"scan{len(graph.nodes)}/{at}"
        node.outputs[0].type, node.outputs[0].shape = state.type, ir.Shape([None])
    body = ir.Graph([state, element], [total.outputs[0], scaled.outputs[0]], nodes=[total, scaled], name="scan")
    start = graph.constant(np.zeros(row, graph.numpy))
    outputs = graph.nodes_outputs("Scan", [start, source.value], {"body": body, "num_scan_inputs": 1}, 2)
    graph.add("Identity", [outputs[1]], source.shape)


def two_products(graph: Construction) -> None:
    """X W₁ + b₁, moved, times W₂ + b₂; scaled before or behind."""
    source = graph.port(rank=3)
    if source is None:
        return
    batch, tokens, channels = source.shape
    middle, out = graph.integer(1, 6), graph.integer(1, 6)
    inner = graph.add("MatMul", [source.value, graph.weight(channels, middle)], (batch, tokens, middle))
    if graph.flag():
        inner = graph.add("Add", [inner.value, graph.weight(middle)], inner.shape)
    if graph.flag():
        inner = graph.reshaped(inner, (batch, 1, tokens, middle))
    elif graph.flag() and not graph.dynamic:
        inner = graph.transposed(inner, (1, 0, 2))
    if graph.flag():
        scale = graph.constant(np.full(graph.choice([(), (1,), (1, 1, 1)]), 0.5).astype(graph.numpy))
        inner = graph.add("Mul", [inner.value, scale], inner.shape)
    shape = (*inner.shape[:-1], out)
    outer = graph.add("MatMul", [inner.value, graph.weight(middle, out)], shape)
    if graph.flag():
        graph.add("Add", [graph.weight(*graph.choice([(out,), (1, out), (1,)])), outer.value], shape)
    assert math.prod(shape) > 0


def padded_sum(graph: Construction) -> None:
    if graph.dynamic:
        return
    rows = graph.add("Relu", [graph.weight(1, 2, 5, 1)], (1, 2, 5, 1))
    source = graph.port(shape=(1, 2, 1, 6)) or graph.add("Neg", [graph.weight(1, 2, 1, 6)], (1, 2, 1, 6))
    total = graph.add(graph.choice(["Add", "Mul"]), [rows.value, source.value], (1, 2, 5, 6))
    graph.add("Pad", [total.value, graph.constant(np.array([0, 1, 0, 0, 0, 0, 0, 0], np.int64))], (1, 3, 5, 6))


RARE_PIECES: tuple[Callable[[Construction], None], ...] = (
    padded_sum,
    product_of_pixels, upscaling, rotation, sequence, function, contributed, scan, two_products, two_products,
)  # fmt: skip
