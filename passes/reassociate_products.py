"""The pass `reassociate_products`: few rows times a per-pixel linear map of many pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from samonnx.passes.convolution_call import (
    ConvolutionCall,
    UnreadableConvolutionError,
    is_convolution,
    read_convolution,
)
from samonnx.passes.graph_values import replace_value, static_shape
from samonnx.passes.interface import Exactness, GraphPass, PassResult
from samonnx.passes.linear_call import is_read_once
from samonnx.passes.node_builder import NodeBuilder

__all__ = ["ReassociateProducts"]

_OPSET = 13
"""The first whose `Split` takes the lengths as an operand."""


@dataclass(frozen=True)
class ReassociateProducts(GraphPass):
    """A (W X + b) → (A W) X + A b, where A has fewer rows than W.

        X [N,D,h,w] ── Conv 1×1 (W, b) ── Reshape [..,C,h·w] ──┐
                                           A [..,Q,C] ── MatMul ── y

        X [N,D,h,w] ── Reshape [..,D,h·w] ────────────────────────────────┐
        A [..,Q,C] ── MatMul([W|b]) ── Split ── A W [..,Q,D] ─────────── MatMul ── Add ── y
                                         └───── A b [..,Q,1] ───────────────────────┘

    SAM 3's masks are 200 queries times a 1×1 convolution 256→256 of 288² pixels: 5.4 of 9.7 billion multiply-adds go.
    W and b are one constant, so that `fuse_linear_chain` can compose them with what makes A.

    Exact:    in real arithmetic: matrix products associate and distribute; A b is the same for all pixels of a row.
    Declines: weights that are not constant, a convolution that is not per pixel (or has groups), another reader between
              it and the product, a Reshape that does not keep channels apart, and whatever is not less work, counting a
              convolution that others read as not saved; opsets before 13.
    Cost:     before, h·w·C·(D + Q) multiply-adds, after, Q·D·(C + h·w); with a bias Q·h·w additions more.

    Attributes:
        multiply_adds_per_byte: what the traffic of adding A b counts (the sum is read and written); see
            `fuse_linear_chain`.
    """

    name: ClassVar[str] = "reassociate_products"
    exactness: ClassVar[Exactness] = Exactness.REAL_EXACT
    tolerance: ClassVar[float] = 1e-5

    multiply_adds_per_byte: int = 8

    def call(self, model: ir.Model) -> PassResult:
        """Raises nothing: what does not fit is left as it is."""
        if model.opset_imports.get("", 0) < _OPSET:
            return PassResult(model, False)
        modified = False
        for node in list(model.graph):
            product = _read(node)
            if product is not None and self._saves_work(product):
                _reassociate(model.graph, product)
                modified = True
        return PassResult(model, modified)

    def _saves_work(self, product: _Product) -> bool:
        convolution = product.convolution
        channels, inputs = convolution.map.out_channels, convolution.map.in_channels
        batches = math.prod(product.shape[:-2])
        rows, pixels = product.shape[-2:]
        saved = batches * rows * pixels * channels
        if is_read_once(convolution.output) and is_read_once(product.pixels):
            saved += convolution.multiply_adds
        spent = batches * rows * inputs * (channels + pixels)
        if convolution.map.bias is not None:
            spent += batches * rows * channels
            spent += int(2 * batches * rows * pixels * convolution.dtype.itemsize * self.multiply_adds_per_byte)
        return spent < saved


@dataclass(frozen=True)
class _Product:
    """`node` is MatMul(`rows` [.., Q, C], `pixels` [.., C, h·w]), and `pixels` the reshaped output of `convolution`."""

    node: ir.Node
    rows: ir.Value
    pixels: ir.Value
    convolution: ConvolutionCall

    @property
    def shape(self) -> tuple[int, ...]:
        """[.., Q, h·w] of the product."""
        return static_shape(self.node.outputs[0]) or ()


def _read(node: ir.Node) -> _Product | None:
    if node.op_type != "MatMul" or node.domain:
        return None
    rows, pixels = node.inputs
    reshape = None if pixels is None else pixels.producer()
    if rows is None or pixels is None or reshape is None or reshape.op_type != "Reshape" or reshape.domain:
        return None
    producer = None if reshape.inputs[0] is None else reshape.inputs[0].producer()
    if not is_convolution(producer):
        return None
    shapes = [static_shape(value) for value in (rows, pixels, node.outputs[0])]
    try:
        call = read_convolution(producer)
    except UnreadableConvolutionError:
        return None
    if not call.map.is_pointwise or any(shape is None or len(shape) < 2 for shape in shapes):
        return None
    height, width = call.input_shape[2:]
    # Row-major order: with these last axes the leading ones hold the batch, and channels and pixels stay in place.
    if (shapes[1] or ())[-2:] != (call.map.out_channels, height * width):
        return None
    return _Product(node, rows, pixels, call)


def _reassociate(graph: ir.Graph, product: _Product) -> None:
    call, output = product.convolution, product.node.outputs[0]
    name = product.node.name or str(output.name)
    build = NodeBuilder(graph, f"{name}/reassociated", product.node)
    weight = call.map.weight.reshape(call.map.out_channels, call.map.in_channels)
    inputs, rows = call.map.in_channels, (static_shape(product.rows) or ())[:-1]

    def typed(value: ir.Value, *shape: int) -> ir.Value:
        value.type, value.shape = output.type, ir.Shape(shape)
        return value

    flat = (*(static_shape(product.pixels) or ())[:-2], inputs, product.shape[-1])
    pixels = typed(build.node("Reshape", call.data, build.integers("shape", *flat)), *flat)
    if call.map.bias is None:
        left = typed(build.node("MatMul", product.rows, build.constant("weight", weight)), *rows, inputs)
        result = typed(build.node("MatMul", left, pixels), *product.shape)
    else:
        joined = np.concatenate([weight, call.map.bias[:, None]], 1)
        both = typed(build.node("MatMul", product.rows, build.constant("weight", joined)), *rows, inputs + 1)
        left = build.node("Split", both, build.integers("split", inputs, 1), outputs=2, axis=-1)
        node = left.producer()
        assert node is not None
        added = typed(node.outputs[1], *rows, 1)
        typed(left, *rows, inputs)
        partial = typed(build.node("MatMul", left, pixels), *product.shape)
        result = typed(build.node("Add", partial, added), *product.shape)
    replace_value(graph, output, result)
    graph.remove(product.node, safe=True)
    for node in (product.pixels.producer(), call.node):
        if node is not None and not node.outputs[0].uses() and not node.outputs[0].is_graph_output():
            graph.remove(node, safe=True)
