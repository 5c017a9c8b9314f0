"""The pass `lower_rotary_ort_cpu`: rotary embeddings for ONNX Runtime's own operator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from samonnx.passes.graph_values import replace_value
from samonnx.passes.interface import Exactness, GraphPass, PassResult
from samonnx.passes.node_builder import NodeBuilder
from samonnx.passes.rotary_call import is_rotary

__all__ = ["LowerRotaryOrtCpu"]

_DOMAIN = "com.microsoft"
_KEPT = ("interleaved", "num_heads", "rotary_embedding_dim")


@dataclass(frozen=True)
class LowerRotaryOrtCpu(GraphPass):
    """RotaryEmbedding with positions → com.microsoft.RotaryEmbedding, which opset 21 has too.

        RotaryEmbedding(x, c, s, positions)   →   com.microsoft.RotaryEmbedding(x, positions, c, s)

    Measured, milliseconds (ONNX Runtime 1.31, 2 threads on 2 busy cores: CPU time ÷ 2, median and least of 9 or 11),
    with the projection and the joins in front of and behind the rotation:

                                                 keys of memory attention    q of SAM 3's ViT
                                                 [1, 7, 5184, 256]           [9, 16, 576, 64]
        traced (Gather, 4 Mul, Sub, Add, Concat)   27.2 (23.6)                 7.3 (7.0)
        halves (permuted projection)               27.0 (23.3)                 9.3 (7.4)
        second weight or swap matrix               34.2 (31.4)                10.9 (8.9)
        this                                       17.1 (15.6)                 5.7 (4.4)

    Exact:    the same definition; the kernel may fuse multiply and add (5e-8 of the largest magnitude measured).
    Declines: nodes without positions, dtypes other than float32 and float16 (left to `lower_rotary`).
    Cost:     one node for one node.
    """

    name: ClassVar[str] = "lower_rotary_ort_cpu"
    exactness: ClassVar[Exactness] = Exactness.REAL_EXACT
    tolerance: ClassVar[float] = 1e-5

    def call(self, model: ir.Model) -> PassResult:
        """Raises nothing: what does not fit is left as it is."""
        modified = False
        for node in list(model.graph):
            output = node.outputs[0] if len(node.outputs) == 1 else None
            if not is_rotary(node) or output is None or output.dtype not in (ir.DataType.FLOAT, ir.DataType.FLOAT16):
                continue
            if len(node.inputs) == 4 and node.inputs[3] is not None:
                source, cosine, sine, positions = node.inputs
                build = NodeBuilder(model.graph, node.name or str(output.name), node)
                attributes = {name: node.attributes.get_int(name, 0) for name in _KEPT if name in node.attributes}
                turned = build.node("RotaryEmbedding", source, positions, cosine, sine, domain=_DOMAIN, **attributes)
                turned.type, turned.shape = output.type, output.shape
                replace_value(model.graph, output, turned)
                model.graph.remove(node, safe=True)
                modified = True
        if modified:
            model.graph.opset_imports.setdefault(_DOMAIN, 1)
        return PassResult(model, modified)
