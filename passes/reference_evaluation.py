"""The oracle of exactness: ONNX's reference evaluator, with attention written out in the tensors' own dtype.

The evaluator's own `Attention` loses half the digits of float64, and ONNX Runtime's refuses masks [B, 1, 1, keys].
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from samonnx.errors import SamonnxError
from samonnx.passes.graph_values import static_shape
from samonnx.passes.interface import Array

__all__ = ["attention", "largest_error", "random_feeds", "reference"]


def attention(query: Array, key: Array, value: Array, mask: Array | None, scale: float) -> Array:
    """softmax(scale · Q Kᵀ + mask) V over the last two axes; a boolean mask is true where a key is attended."""
    logits = scale * query @ key.swapaxes(-1, -2)
    if mask is not None:
        logits = np.where(mask, logits, -np.inf) if mask.dtype == np.bool_ else logits + mask
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    result: Array = (weights / weights.sum(-1, keepdims=True)) @ value
    return result


class Attention(OpRun):
    """For `ReferenceEvaluator(new_ops=…)`: rank 4, no cache, no causal mask, no soft cap."""

    op_domain = ""

    def _run(self, *operands: Array | None, **attributes: Any) -> tuple[Array]:
        query, key, value, mask = (*operands, None)[:4] if len(operands) < 4 else operands[:4]
        assert query is not None
        assert key is not None
        assert value is not None
        beyond = [name for name in ("is_causal", "q_num_heads", "softcap") if attributes.get(name)]
        if beyond or any(operand is not None for operand in operands[4:]):
            raise NotImplementedError(f"Attention with {', '.join(beyond) or 'a cache'}")
        scale = attributes.get("scale")
        scale = float(query.shape[-1]) ** -0.5 if scale is None else float(scale)
        return (attention(query, key, value, mask, scale).astype(query.dtype),)


def reference(model: ir.Model, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """All outputs by name. Raises what the evaluator raises."""
    proto = ir.to_proto(model)
    with np.errstate(under="ignore", over="ignore", invalid="ignore"):
        outputs = ReferenceEvaluator(proto, new_ops=[Attention]).run(None, dict(feeds))
    return {output.name: array for output, array in zip(proto.graph.output, outputs, strict=True)}


def largest_error(wanted: Mapping[str, Array], found: Mapping[str, Array]) -> float:
    """Largest difference of any output, relative to that output's largest magnitude."""
    assert list(wanted) == list(found)
    return max(float(np.abs(wanted[n] - found[n]).max() / max(np.abs(wanted[n]).max(), 1e-300)) for n in wanted)


def random_feeds(model: ir.Model, seed: int) -> dict[str, Array]:
    """Standard normal floats; integers 0 to 3; booleans, of which the first along each last axis is true.

    Raises:
        SamonnxError: an input of unknown or symbolic shape.
    """
    generator = np.random.default_rng(seed)
    feeds: dict[str, Array] = {}
    for value in model.graph.inputs:
        shape = static_shape(value)
        if shape is None or value.dtype is None:
            raise SamonnxError(f"input {value.name!r} is {value.dtype} {value.shape}: give feeds for it")
        if value.dtype == ir.DataType.BOOL:
            array = np.asarray(generator.random(shape) > 0.4)
            array[..., 0] = True
        elif value.dtype.is_floating_point():
            array = np.asarray(generator.standard_normal(shape)).astype(value.dtype.numpy())
        else:
            array = np.asarray(generator.integers(0, 4, shape)).astype(value.dtype.numpy())
        feeds[str(value.name)] = array
    return feeds
