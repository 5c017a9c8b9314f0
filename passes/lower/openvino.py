"""The pass `lower_openvino`: attention in the form that OpenVINO's CPU plugin puts into one kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from samonnx.passes.interface import Exactness, GraphPass, PassResult
from samonnx.passes.lower.onnx import LowerOnnx

__all__ = ["LowerOpenvino"]

_NO_LIMIT = 1 << 62


@dataclass(frozen=True)
class LowerOpenvino(GraphPass):
    """Attention → MatMul, Softmax, MatMul in one block; a mask is added to the logits.

        y = Attention(Q, K, V, mask)   →   y = Softmax((scale · Q) Kᵀ + mask) V

    OpenVINO's plugin makes one kernel of this form ("Subgraph" in its execution graph) that holds a few rows of logits
    at a time: blocks of queries and masks as channels, which other engines need, buy nothing. Measured, milliseconds of
    CPU time (both threads together; median, smallest in brackets; OpenVINO 2026.4.1, float32, 2 threads, AMD EPYC
    without bf16; other jobs on the machine, hence not wall time):

        queries × keys, channels, value channels   5,184 × 36,352, 256, 64   …, 256, 256   5,184 × 5,184, 256, 256
        mask                                       per key                   per key       none
        this: 1 block, mask added                  2006 (1965)               3306 (3241)   410 (404)
        1 block, mask as channel                   2019 (1992)               –             –
        8 blocks, mask added                       2180 (2116)               –             443 (410)
        `Attention` (opset 23)                     2081 (2015)               3318 (3282)   417 (389)
        1 block, no mask at all                    1937 (1931)

        8 heads                                    12 × 5,184, 16, 16        5,184 × 12    12 × 12, 32, 32
        this: 1 block                              3.9 (2.3)                 3.3 (1.9)     0.1 (0.1)
        `Attention`                                5.3 (3.2)                 3.4 (1.8)     0.1 (0.1)

    Peak memory grows by 0.1 GB in each of the large ones, inputs not counted: no logits are kept. `Attention` is
    taken apart into the same kernel, with a transpose and a sum of its own. In the whole `track` of EfficientSAM3 m0_9
    every softmax lies in such a kernel.

    Exact:    in real arithmetic, as `lower_onnx`, which does the work: here with one block whatever its size.
    Declines: what `lower_onnx` declines: packed heads, caches, causal masks, soft caps.
    Cost:     4 or 5 nodes, a transpose of K among them.
    """

    name: ClassVar[str] = "lower_openvino"
    exactness: ClassVar[Exactness] = Exactness.REAL_EXACT
    tolerance: ClassVar[float] = 1e-5

    def call(self, model: ir.Model) -> PassResult:
        """Raises nothing: what it cannot read it leaves."""
        return LowerOnnx(block_bytes=_NO_LIMIT)(model)
