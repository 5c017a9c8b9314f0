"""Lowering: one pipeline of passes a target, each choice by measurement (see the passes' docstrings).

The pipelines expect opset 23, static shapes and folded constants, and end in the target's dialect.
"""

from __future__ import annotations

import onnx_ir as ir

from samonnx.passes.interface import GraphPass
from samonnx.passes.join_keys import JoinKeys
from samonnx.passes.lower.onnx import LowerOnnx
from samonnx.passes.lower.openvino import LowerOpenvino
from samonnx.passes.lower.opset import LowerOpset
from samonnx.passes.lower.ort_cpu import LowerOrtCpu
from samonnx.passes.lower.rotary import LowerRotary
from samonnx.passes.lower.rotary_ort_cpu import LowerRotaryOrtCpu
from samonnx.passes.mask_as_channel import MaskAsChannel
from samonnx.passes.transposed_conv_to_matmul import TransposedConvToMatmul

__all__ = [
    "ONNX_PASSES",
    "OPENVINO_PASSES",
    "ORT_CPU_PASSES",
    "LowerOnnx",
    "LowerOpenvino",
    "LowerOpset",
    "LowerOrtCpu",
    "LowerRotary",
    "LowerRotaryOrtCpu",
    "runnable",
]

ONNX_PASSES: tuple[GraphPass, ...] = (
    LowerRotary(),
    LowerOnnx(),
    LowerOpset(),  # last: nothing needs the newest operators any more
)
"""Standard domain only."""

ORT_CPU_PASSES: tuple[GraphPass, ...] = (
    MaskAsChannel(),  # large attentions lose their mask, so that the flash kernel takes them
    JoinKeys(),
    LowerOrtCpu(),
    LowerRotaryOrtCpu(),
    LowerOnnx(),  # what is left: small attentions, masks that differ by query
    LowerOpset(),
)
"""ONNX Runtime on CPUs: the standard domain and com.microsoft."""

OPENVINO_PASSES: tuple[GraphPass, ...] = (
    TransposedConvToMatmul(),
    LowerRotary(),
    LowerOpenvino(),  # masks stay masks: its attention kernel takes them
    LowerOpset(),
)
"""OpenVINO on CPUs: standard domain only."""


def runnable(model: ir.Model) -> ir.Model:
    """A copy that ONNX Runtime can run, of a graph as it is between passes: there it refuses `Attention` with a mask
    [B, 1, 1, keys], and has no kernel for some operators at opset 23. Shares the initialisers' tensors with `model`."""
    copy = model.clone()
    for pass_ in (LowerRotaryOrtCpu(), LowerOnnx(), LowerOpset()):
        pass_(copy)
    return copy
