"""`unroll`: attention over a cache that grows becomes attention over a bank of padded slots."""

from __future__ import annotations

import onnx_ir as ir

from samonnx.passes.einsum_to_matmul import EinsumToMatmul
from samonnx.passes.fold_constants import FoldConstants
from samonnx.passes.fuse_attention import FuseAttention
from samonnx.passes.lower.onnx import LowerOnnx
from samonnx.passes.pipeline import run_passes
from samonnx.passes.shape_inference import infer_shapes
from samonnx.passes.symbol_binding import input_symbols
from samonnx.passes.unroll_memory import UnrollMemory

__all__ = ["unroll"]

_STAND_IN = 1_000_003
"""A prime above any real dimension: what broadcasts with it broadcasts with every size."""


def unroll(model: ir.Model, symbol: str, slots: int, validity: str) -> ir.Model:
    """A copy of `model` whose symbolic dimension `symbol` has become `slots` padded places.

        cache[O, t, …], x[O, …] → y   ⇒   cache[O, slots, …], x[O, …], validity[O, slots] → y

    What lies in a place that `validity` calls empty (NaN, too) changes nothing; y is what `model` gives for the filled
    places alone. Attention is found as `Attention` (what `F.scaled_dot_product_attention` and torch's own modules are
    traced to) or as matrix products (MatMul, Einsum) around a Softmax, with scale and mask, and is written out in the
    result, which any engine of its opset runs. For several symbols, or to lower the result otherwise, run the pass
    `UnrollMemory` itself.

    Args:
        model: traced with a symbolic dimension, all others static; for one object, with the cache on any axis, or for
            O objects on axis 0. Opset 23.
        symbol: name of the dimension, in one or several inputs.
        slots: number of places, 1 or more.
        validity: name of the new input, bool [O, slots].

    Raises:
        PassDeclinedError: no input has the symbol (it lists those there are), the name of the new input is taken, or
            places would mix outside attention; names the node and why.
    """
    copy = model.clone()
    infer_shapes(copy)
    run_passes(copy, (FoldConstants(),))
    _fuse_attention(copy, symbol)
    return run_passes(copy, (UnrollMemory({symbol: slots}, {symbol: validity}), LowerOnnx())).model


def _fuse_attention(model: ir.Model, symbol: str) -> None:
    """The pass needs static shapes, so the symbol gets a size for as long as it runs."""
    ports = {port: port.shape for port, _ in input_symbols(model.graph).get(symbol, ())}
    for port, shape in ports.items():
        port.shape = ir.Shape([_STAND_IN if dim == symbol else dim for dim in shape or ()])
    infer_shapes(model, forget=True)
    run_passes(model, (EinsumToMatmul(), FuseAttention()))
    for port, shape in ports.items():
        port.shape = shape
    infer_shapes(model, forget=True)
