"""Names, and what reads a value."""

from __future__ import annotations

import numpy as np

from samonnx.passes.graph_values import add_initializer, taken_names
from tests.passes.graph_text import model_of


def test_names_in_bodies_are_taken() -> None:
    """A body must not name again what is outside of it, nor the other way round."""
    model = model_of(
        """(float[2] x, bool c) => (float[2] y) {
            y = If (c) <then_branch = t () => (float[2] p) { p = Neg(x) },
                        else_branch = e () => (float[2] q) { q = Abs(x) }>
        }"""
    )
    assert {"x", "c", "y", "p", "q"} <= taken_names(model.graph)
    assert add_initializer(model.graph, "p", np.zeros(1, np.float32)).name == "p_1"
