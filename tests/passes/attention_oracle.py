"""The oracle of the attention passes: ONNX's reference evaluator, attention written out in the tensors' own dtype.

The evaluator's own `Attention` loses half the digits of float64, and ONNX Runtime's refuses masks [B, 1, 1, keys].
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from samonnx.passes.interface import Array
from samonnx.passes.shape_inference import infer_shapes
from tests.passes.graph_text import model_of


def attention(query: Array, key: Array, value: Array, mask: Array | None, scale: float) -> Array:
    """softmax(scale · Q Kᵀ + mask) V over the last two axes."""
    logits = scale * query @ key.swapaxes(-1, -2)
    if mask is not None:
        logits = np.where(mask, logits, -np.inf) if mask.dtype == np.bool_ else logits + mask
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    result: Array = (weights / weights.sum(-1, keepdims=True)) @ value
    return result


class Attention(OpRun):
    """For `ReferenceEvaluator(new_ops=…)`."""

    op_domain = ""

    def _run(self, *operands: Array | None, **attributes: Any) -> tuple[Array]:
        query, key, value, mask = (*operands, None)[:4] if len(operands) < 4 else operands[:4]
        assert query is not None
        assert key is not None
        assert value is not None
        scale = attributes.get("scale")
        scale = float(query.shape[-1]) ** -0.5 if scale is None else float(scale)
        return (attention(query, key, value, mask, scale).astype(query.dtype),)


def reference(model: ir.Model, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """All outputs by name."""
    proto = ir.to_proto(model)
    with np.errstate(under="ignore", over="ignore", invalid="ignore"):
        outputs = ReferenceEvaluator(proto, new_ops=[Attention]).run(None, dict(feeds))
    return {output.name: array for output, array in zip(proto.graph.output, outputs, strict=True)}


def largest_error(wanted: Mapping[str, Array], found: Mapping[str, Array]) -> float:
    """Largest difference of any output, relative to that output's largest magnitude."""
    assert list(wanted) == list(found)
    return max(float(np.abs(wanted[n] - found[n]).max() / max(np.abs(wanted[n]).max(), 1e-300)) for n in wanted)


TOLERANCE = {"float": 1e-5, "double": 1e-12}
"""By the dtype's name in ONNX text."""


def random_feeds(model: ir.Model, seed: int) -> dict[str, Array]:
    """Standard normal floats; booleans, of which the first along each last axis is true."""
    generator = np.random.default_rng(seed)
    feeds: dict[str, Array] = {}
    for value in model.graph.inputs:
        assert value.dtype is not None
        assert value.shape is not None
        shape = value.shape.numpy()
        if value.dtype == ir.DataType.BOOL:
            feeds[str(value.name)] = np.asarray(generator.random(shape) > 0.4)
            feeds[str(value.name)][..., 0] = True
        else:
            feeds[str(value.name)] = np.asarray(generator.standard_normal(shape)).astype(value.dtype.numpy())
    return feeds


def typed(text: str, *weights: str, seed: int = 0) -> ir.Model:
    """A model from text with all shapes inferred, whose inputs named in `weights` are random initialisers."""
    model = model_of(text)
    generator = np.random.default_rng(seed)
    for value in list(model.graph.inputs):
        if value.name in weights:
            assert value.shape is not None
            assert value.dtype is not None
            array = np.asarray(generator.standard_normal(value.shape.numpy())).astype(value.dtype.numpy())
            model.graph.inputs.remove(value)
            value.const_value = ir.tensor(array, name=value.name)
            model.graph.register_initializer(value)
    infer_shapes(model)
    return model
