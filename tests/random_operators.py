"""One piece of a random graph each: takes values from the graph under construction and adds what it computes."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from tests.random_attention import attention, decoder_attention, standard_attention
from tests.random_construction import Construction, Port

__all__ = ["PIECES"]


def conv(graph: Construction) -> None:
    source = graph.port(rank=4)
    if source is None:
        return
    kernel, dilation = graph.integer(1, 3), graph.integer(1, 2)
    pads = [graph.integer(0, 2) for _ in range(4)] if graph.flag() else [graph.integer(0, 1)] * 4
    stride = graph.integer(1, 2)
    reach = dilation * (kernel - 1) + 1
    sides = [(source.shape[2 + a] + pads[a] + pads[a + 2] - reach) // stride + 1 for a in range(2)]
    if min(sides) < 1 or min(source.shape[2 + a] + pads[a] + pads[a + 2] - reach for a in range(2)) < 0:
        return
    channels = source.shape[1]
    group = graph.choice([g for g in (1, 1, 2, channels) if channels % g == 0])
    out = group * graph.integer(1, 3)
    weight = graph.weight(out, channels // group, kernel, kernel)
    inputs = [source.value, weight] + ([graph.weight(out)] if graph.flag() else [])
    attributes = {"group": group, "pads": pads, "strides": [stride] * 2, "dilations": [dilation] * 2}
    graph.add("Conv", inputs, (source.shape[0], out, *sides), attributes)


def conv_transpose(graph: Construction) -> None:
    source = graph.port(rank=4)
    if source is None or math.prod(source.shape[2:]) > 200:
        return
    stride = graph.integer(1, 3)
    kernel = stride if graph.flag() else graph.integer(1, 3)
    channels = source.shape[1]
    group = graph.choice([g for g in (1, 1, 2) if channels % g == 0])
    out = group * graph.integer(1, 2)
    extra = graph.integer(0, 1) if stride > 1 and graph.integer(0, 4) == 0 else 0
    sides = [stride * (side - 1) + kernel + extra for side in source.shape[2:]]
    inputs = [source.value, graph.weight(channels, out // group, kernel, kernel)]
    inputs += [graph.weight(out)] if graph.flag() else []
    attributes = {"group": group, "strides": [stride] * 2} | ({"output_padding": [extra] * 2} if extra else {})
    graph.add("ConvTranspose", inputs, (source.shape[0], out, *sides), attributes)


def parallel_convs(graph: Construction) -> None:
    source = graph.port(rank=4)
    if source is None:
        return
    channels = source.shape[1]
    total: Port = source
    for kernel in (1, 3):
        inputs = [source.value, graph.weight(channels, channels, kernel, kernel)]
        inputs += [graph.weight(channels)] if graph.flag() else []
        branch = graph.add("Conv", inputs, source.shape, {"pads": [kernel // 2] * 4})
        if graph.flag() or total is not source:
            total = graph.add("Add", [total.value, branch.value], source.shape)


def normalization(graph: Construction) -> None:
    source = graph.port(rank=graph.integer(2, 4))
    if source is None:
        return
    if graph.opset >= 17 and graph.flag():
        inputs = [source.value, graph.weight(source.shape[-1])] + ([graph.weight(source.shape[-1])] * graph.flag())
        graph.add("LayerNormalization", inputs, source.shape, {"axis": -1})
        return
    channels = source.shape[1]
    parameters = [graph.weight(channels), graph.weight(channels), graph.weight(channels)]
    graph.add("BatchNormalization", [source.value, *parameters, graph.positive(channels)], source.shape)


def affine(graph: Construction) -> None:
    source = graph.port()
    if source is None or not source.shape:
        return
    axis = graph.integer(0, len(source.shape) - 1)
    shape = [1] * len(source.shape)
    if graph.flag() and isinstance(source.shape[axis], int) and not (graph.dynamic and axis == 0):
        shape[axis] = source.shape[axis]
    shape = shape[graph.integer(0, axis) :] if graph.flag() else shape
    if graph.integer(0, 3) == 0:
        shape = []
    operator = graph.choice(["Add", "Sub", "Mul", "Div"])
    constant = graph.special(*shape) if graph.integer(0, 3) == 0 and operator != "Div" else graph.positive(*shape)
    flip = graph.flag() and operator != "Div"
    graph.add(operator, [constant, source.value] if flip else [source.value, constant], source.shape)


def binary(graph: Construction) -> None:
    left = graph.port()
    right = None if left is None else graph.port(shape=left.shape)
    if left is not None and right is not None:
        graph.add(graph.choice(["Add", "Sub", "Mul", "Max"]), [left.value, right.value], left.shape)


def unary(graph: Construction) -> None:
    source = graph.port()
    if source is not None:
        operator = graph.choice(
            ["Relu", "Sigmoid", "Tanh", "Neg", "Abs", "Identity", "Identity", "Softplus", "Dropout"]
        )
        graph.add(operator, [source.value], source.shape)


def resize(graph: Construction) -> None:
    source = graph.port(rank=4)
    if source is None or graph.dtype != ir.DataType.FLOAT or math.prod(source.shape[2:]) > 150:
        return
    mode = graph.choice(["nearest", "linear"])
    coordinates = graph.choice(["half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel"])
    factors = graph.integer(1, 3), graph.integer(1, 2)
    sides = tuple(side * factor for side, factor in zip(source.shape[2:], factors, strict=True))
    empty = graph.constant(np.zeros(0, np.float32)) if graph.opset < 13 else None
    inputs: list[ir.Value | None]
    attributes = {"mode": mode, "coordinate_transformation_mode": coordinates}
    if mode == "nearest":
        attributes["nearest_mode"] = graph.choice(["round_prefer_floor", "floor", "ceil"])
    if graph.flag() or graph.dynamic:
        scales = graph.constant(np.array((1, 1, *factors), np.float32))
        inputs = [source.value, empty, scales]
    else:
        inputs = [source.value, empty, empty, graph.constant(np.array((*source.shape[:2], *sides), np.int64))]
    resized = graph.add("Resize", inputs, (*source.shape[:2], *sides), attributes)
    if graph.flag():  # what commutes with it
        out = graph.integer(1, 3)
        operands = [resized.value, graph.weight(out, source.shape[1], 1, 1)] + [graph.weight(out)] * graph.flag()
        graph.add("Conv", operands, (resized.shape[0], out, *sides))


def repeated_pixels(graph: Construction) -> None:
    source = graph.port(rank=4)
    if source is None or graph.dynamic or math.prod(source.shape[2:]) > 100:
        return
    n, c, h, w = source.shape
    a, b = graph.integer(1, 3), graph.integer(1, 3)
    value = graph.reshaped(source, (n, c, h, 1, w, 1))
    shape = (n, c, h, a, w, b)
    wide = graph.add("Expand", [value.value, graph.constant(np.array(shape, np.int64))], shape)
    graph.reshaped(wide, (n, c, h * a, w * b))


def matmul(graph: Construction) -> None:
    source = graph.port(rank=graph.integer(2, 4))
    if source is None:
        return
    out = graph.integer(1, 5)
    shape = (*source.shape[:-1], out)
    product = graph.add("MatMul", [source.value, graph.weight(source.shape[-1], out)], shape)
    if graph.flag():
        bias = graph.weight(out)
        graph.add("Add", [bias, product.value] if graph.flag() else [product.value, bias], shape)


def gemm(graph: Construction) -> None:
    source = graph.port(rank=2)
    if source is None:
        return
    out, transposed = graph.integer(1, 4), graph.flag()
    size = source.shape[1]
    inputs = [source.value, graph.weight(out, size) if transposed else graph.weight(size, out)]
    attributes: dict[str, object] = {"transB": int(transposed)}
    if graph.flag():
        inputs.append(graph.weight(*graph.choice([(out,), (1, out), (1,), ()])))
        attributes["beta"] = graph.choice([1.0, 0.5])
    attributes["alpha"] = graph.choice([1.0, 2.0])
    graph.add("Gemm", inputs, (source.shape[0], out), attributes)


def moves(graph: Construction) -> None:
    """Reshape, Transpose, Squeeze, Unsqueeze, Flatten: one or two of them."""
    for _ in range(graph.integer(1, 2)):
        source = graph.port()
        if source is None or not source.shape:
            return
        kind = graph.integer(0, 3)
        rank = len(source.shape)
        if kind == 0:
            graph.transposed(source, tuple(graph.permutation(rank, fixed=int(graph.dynamic))))
        elif kind == 1 and rank < 5:
            graph.unsqueezed(source, graph.integer(1, rank))
        elif kind == 2 and rank > 1:
            graph.add("Flatten", [source.value], (source.shape[0], math.prod(source.shape[1:])), {"axis": 1})
        elif rank > 2:
            graph.reshaped(source, (source.shape[0], source.shape[1], math.prod(source.shape[2:])))


def concat(graph: Construction) -> None:
    left = graph.port()
    right = None if left is None else graph.port(shape=left.shape)
    if left is None or right is None or len(left.shape) < 2:
        return
    axis = graph.integer(1, len(left.shape) - 1)
    shape = (*left.shape[:axis], 2 * left.shape[axis], *left.shape[axis + 1 :])
    joined = graph.add("Concat", [left.value, right.value], shape, {"axis": axis - len(shape) * graph.flag()})
    if graph.flag():
        bounds = [graph.constant(np.array([n], np.int64)) for n in (0, left.shape[axis], axis)]
        graph.add("Slice", [joined.value, *bounds], left.shape)


def pad(graph: Construction) -> None:
    source = graph.port(rank=graph.integer(2, 4))
    if source is None:
        return
    rank = len(source.shape)
    start = 1 if graph.dynamic else 0
    before = [0] * start + [graph.integer(0, 1) for _ in range(rank - start)]
    shape = tuple(size + 2 * p for size, p in zip(source.shape, before, strict=True))
    inputs = [source.value, graph.constant(np.array(before * 2, np.int64))]
    inputs += [graph.constant(np.array(graph.choice([0.0, -0.0, 1.0]), graph.numpy))] * graph.flag()
    graph.add("Pad", inputs, shape)


def masked(graph: Construction) -> None:
    source = graph.port()
    if source is None:
        return
    mask = graph.mask
    if graph.flag():
        mask = graph.node("And" if graph.flag() else "Or", [mask, graph.constant(np.array(graph.flag()))])
    if graph.flag():
        mask = graph.node("Not", [mask])
    other = graph.constant(np.array(graph.choice([0.0, -0.0, 2.0]), graph.numpy))
    graph.add("Where", [mask, source.value, other], source.shape)


def shape_arithmetic(graph: Construction) -> None:
    """A reshape whose shape is computed, as exporters write it."""
    source = graph.port(rank=3)
    if source is None:
        return
    shape = graph.node("Shape", [source.value])
    first = graph.node("Gather", [shape, graph.constant(np.array([0], np.int64))], {"axis": 0})
    rest = graph.constant(np.array([-1], np.int64))
    wanted = graph.node("Concat", [first, rest], {"axis": 0})
    graph.add("Reshape", [source.value, wanted], (source.shape[0], math.prod(source.shape[1:])))


def constant_subgraph(graph: Construction) -> None:
    source = graph.port()
    if source is None or not source.shape:
        return
    size = source.shape[-1]
    value = graph.node("Constant", [], {"value": ir.tensor(graph.random(size))})
    for _ in range(graph.integer(1, 3)):
        value = graph.node(graph.choice(["Neg", "Abs", "Sigmoid"]), [value])
    graph.add(graph.choice(["Mul", "Add"]), [source.value, value], source.shape)


def casts(graph: Construction) -> None:
    source = graph.port()
    if source is not None:
        wide = graph.node("Cast", [source.value], {"to": int(ir.DataType.DOUBLE)})
        graph.add("Cast", [wide], source.shape, {"to": int(graph.dtype)})


def branches(graph: Construction) -> None:
    """If, whose bodies read outer values and have weights of their own."""
    source = graph.port()
    if source is None:
        return
    condition = graph.condition if graph.flag() else graph.constant(np.array(graph.flag()))
    captured = graph.port(shape=source.shape) or source
    bodies = {
        f"{name}_branch": graph.body(operator, [source.value, captured.value], source.shape)
        for name, operator in (("then", "Add"), ("else", "Mul"))
    }
    graph.add("If", [condition], source.shape, bodies)


def loop(graph: Construction) -> None:
    """Loop with a carried value; its body also reads an outer one."""
    source = graph.port()
    captured = None if source is None else graph.port(shape=source.shape)
    if source is None or captured is None:
        return
    trips = graph.constant(np.array(graph.integer(0, 3), np.int64))
    going = graph.constant(np.array(True))
    body = graph.loop_body(source.shape, captured.value)
    graph.add("Loop", [trips, going, source.value], source.shape, {"body": body})


PIECES: tuple[Callable[[Construction], None], ...] = (
    *(conv, conv, conv, conv_transpose, parallel_convs, normalization, affine, affine, affine, binary, unary, unary),
    *(resize, repeated_pixels, matmul, matmul, matmul, gemm, attention, standard_attention, decoder_attention),
    *(moves, moves, concat, pad),
    *(masked, shape_arithmetic, constant_subgraph, casts, branches, loop),
)
"""Each by how often it is drawn."""
