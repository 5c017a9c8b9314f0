"""The pass `lower_opset`: the oldest opset that a graph needs, for which engines have the most kernels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import onnx
import onnx_ir as ir

from samonnx.passes.interface import Exactness, GraphPass, PassResult

__all__ = ["LowerOpset"]

Signature = tuple[tuple[str, ...], tuple[str, ...], tuple[tuple[str, object], ...]]


@dataclass(frozen=True)
class LowerOpset(GraphPass):
    """The standard domain's version 23 → 21, where every operator of the graph means the same there.

        opset 23: RoiAlign, Conv, Reshape, …   →   opset 21: the same nodes

    Tracing needs opset 23 for `Attention`. Once that is decomposed nothing else does, and 22 and 23 only added types
    (bfloat16, float8, float4) to the operators that stay. Engines trail: ONNX Runtime 1.31 has no CPU kernel for
    `RoiAlign` from opset 22 on, and one for 16 to 21.

    Exact:    bit for bit; no node changes. An operator is taken to mean the same if inputs, outputs, attributes and
              their defaults have the same names and values in both versions.
    Declines: a graph with an operator that version 21 lacks (`Attention`, `RMSNormalization`, …) or has with another
              signature: it keeps its opset.
    Cost:     none.

    Attributes:
        version: the opset to declare.
    """

    name: ClassVar[str] = "lower_opset"
    exactness: ClassVar[Exactness] = Exactness.BIT_EXACT
    tolerance: ClassVar[float] = 0.0

    version: int = 21

    def call(self, model: ir.Model) -> PassResult:
        """Raises nothing."""
        now = model.opset_imports.get("", self.version)
        operators = {node.op_type for node in model.graph.all_nodes() if not node.domain}
        fits = all(_signature(name, now) == _signature(name, self.version) is not None for name in operators)
        if now <= self.version or not fits:
            return PassResult(model, False)
        model.opset_imports[""] = self.version
        return PassResult(model, True)


@lru_cache(maxsize=512)
def _signature(operator: str, version: int) -> Signature | None:
    """Names of inputs and outputs, names and defaults of attributes; None for an operator that is not there."""
    try:
        schema = onnx.defs.get_schema(operator, version)
    except onnx.defs.SchemaError:
        return None
    attributes = tuple(
        (name, attribute.default_value.SerializeToString()) for name, attribute in sorted(schema.attributes.items())
    )
    return tuple(i.name for i in schema.inputs), tuple(o.name for o in schema.outputs), attributes
