"""Lowering: one pipeline of passes a target, each choice by measurement (see the passes' docstrings).

The pipelines expect opset 23, static shapes and folded constants, and end in the target's dialect.
"""

from __future__ import annotations

from samonnx.passes.interface import GraphPass
from samonnx.passes.lower.onnx import LowerOnnx
from samonnx.passes.lower.ort_cpu import LowerOrtCpu
from samonnx.passes.mask_as_channel import MaskAsChannel
from samonnx.passes.sink_value_projection import SinkValueProjection

__all__ = ["ONNX_PASSES", "ORT_CPU_PASSES", "LowerOnnx", "LowerOrtCpu"]

ONNX_PASSES: tuple[GraphPass, ...] = (
    SinkValueProjection(),  # first: it sees V as it was traced
    LowerOnnx(),
)
"""Standard domain only."""

ORT_CPU_PASSES: tuple[GraphPass, ...] = (
    SinkValueProjection(),
    MaskAsChannel(),  # large attentions lose their mask, so that the flash kernel takes them
    LowerOrtCpu(),
    LowerOnnx(),  # what is left: small attentions, masks that differ by query
)
"""ONNX Runtime on CPUs: the standard domain and com.microsoft."""
