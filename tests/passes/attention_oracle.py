"""Graphs for the tests of the attention passes, and the tolerances that they are held to in the reference evaluator."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from samonnx.passes.exactness import FLOAT64_TOLERANCE
from samonnx.passes.reference_evaluation import attention, largest_error, random_feeds, reference
from samonnx.passes.shape_inference import infer_shapes
from tests.passes.graph_text import model_of

__all__ = ["TOLERANCE", "attention", "largest_error", "random_feeds", "reference", "typed"]

TOLERANCE = {"float": 1e-5, "double": FLOAT64_TOLERANCE}
"""By the dtype's name in ONNX text."""


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
