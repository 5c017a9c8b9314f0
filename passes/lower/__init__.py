"""Lowering: one pipeline of passes a target, each choice by measurement (see the passes' docstrings).

The pipelines expect opset 23, static shapes and folded constants, and end in the target's dialect.
"""

from __future__ import annotations

import onnx_ir as ir

from samonnx.passes.interface import GraphPass
from samonnx.passes.lower.onnx import LowerOnnx
from samonnx.passes.lower.opset import LowerOpset
from samonnx.passes.lower.ort_cpu import LowerOrtCpu
from samonnx.passes.mask_as_channel import MaskAsChannel
from samonnx.passes.sink_value_projection import SinkValueProjection

__all__ = ["ONNX_PASSES", "ORT_CPU_PASSES", "LowerOnnx", "LowerOpset", "LowerOrtCpu", "runnable"]

ONNX_PASSES: tuple[GraphPass, ...] = (
    SinkValueProjection(),  # first: it sees V as it was traced
    LowerOnnx(),
    LowerOpset(),  # last: nothing needs the newest operators any more
)
"""Standard domain only."""

ORT_CPU_PASSES: tuple[GraphPass, ...] = (
    SinkValueProjection(),
    MaskAsChannel(),  # large attentions lose their mask, so that the flash kernel takes them
    LowerOrtCpu(),
    LowerOnnx(),  # what is left: small attentions, masks that differ by query
    LowerOpset(),
)
"""ONNX Runtime on CPUs: the standard domain and com.microsoft."""


def runnable(model: ir.Model) -> ir.Model:
    """A copy that ONNX Runtime can run, of a graph as it is between passes: there it refuses `Attention` with a mask
    [B, 1, 1, keys], and has no kernel for some operators at opset 23. Shares the initialisers' tensors with `model`."""
    copy = model.clone()
    for pass_ in (LowerOnnx(), LowerOpset()):
        pass_(copy)
    return copy
