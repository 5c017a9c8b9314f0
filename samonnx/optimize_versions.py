"""Raises an old graph's opset where that lets its large attentions be recognised.

`Attention` exists from opset 23 on. Everything else runs at the file's own opset: a conversion is one more thing that
can go wrong, and engines that read the old file may not read the new one. So it happens only where an attention is
large enough for the target to gain by it, and like a pass it must give the same numbers.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir
from onnxscript.version_converter import ConvertVersionPass

from samonnx.passes.fuse_attention import attention_sizes
from samonnx.passes.interface import Exactness, GraphPass, PassDeclinedError, PassResult
from samonnx.passes.shape_inference import infer_shapes

__all__ = ["ConvertVersion", "gains_by_attention"]

ATTENTION_OPSET = 23
_LOGGERS = ("", "._version_converter", "._c_api_utils")
LEAST_PAIRS = {"onnx": 1 << 20, "ort-cpu": 1 << 20, "openvino": 1}
"""Logits of one head from which a target does something else with an attention than with its parts: flash kernels and
blocks for large ones; OpenVINO has a kernel for all."""


def gains_by_attention(model: ir.Model, target: str) -> bool:
    """Whether a graph older than `Attention` has one in parts that is worth a conversion."""
    version = model.graph.opset_imports.get("", ATTENTION_OPSET)
    if version >= ATTENTION_OPSET:
        return False
    return any(queries * keys >= LEAST_PAIRS[target] for queries, keys in attention_sizes(model))


@dataclass(frozen=True)
class ConvertVersion(GraphPass):
    """Opset 11 … 22 → 23, by the converters of onnxscript and ONNX.

        opset 17: Softmax(-1), …   →   opset 23: the same in today's operators

    Exact:    bit-exact as far as the converters are; the comparison of numbers says whether they were.
    Declines: what the converters refuse, with their words.
    Cost:     operators whose form changed may take a node more.
    """

    name: ClassVar[str] = "convert_version"
    exactness: ClassVar[Exactness] = Exactness.BIT_EXACT
    tolerance: ClassVar[float] = 0.0

    version: int = ATTENTION_OPSET

    def call(self, model: ir.Model) -> PassResult:
        """Raises PassDeclinedError."""
        before = model.graph.opset_imports.get("", 0)
        try:
            with _silent():
                ConvertVersionPass(self.version, fallback=True)(model)
        except Exception as error:  # whatever a converter raises
            raise PassDeclinedError(f"convert_version: opset {before} → {self.version}: {error}") from error
        if model.graph.opset_imports.get("", 0) != self.version:
            raise PassDeclinedError(f"convert_version: ONNX's converter refuses opset {before} → {self.version}")
        model.opset_imports[""] = self.version
        infer_shapes(model)
        return PassResult(model, True)


@contextmanager
def _silent() -> Iterator[None]:
    """The converter warns of each way that it takes; what counts is its result."""
    loggers = [logging.getLogger(f"onnxscript.version_converter{part}") for part in _LOGGERS]
    before = [logger.disabled for logger in loggers]
    for logger in loggers:
        logger.disabled = True
    try:
        yield
    finally:
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled
