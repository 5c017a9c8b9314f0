"""How far a variant's outputs are from eager's."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from benchmarks.graph_step import Array
from samonnx.verify import compare

__all__ = ["masks_equal", "output_errors"]


def output_errors(found: Mapping[str, Array], expected: Mapping[str, Array]) -> dict[str, float]:
    """Output → largest difference, over the largest magnitude expected; of flags and integers how many differ. Raises
    VerificationError for another shape or dtype."""
    return {name: compare(name, found[name], array, tolerance=0.0).largest_error for name, array in expected.items()}


def masks_equal(found: Mapping[str, Array], expected: Mapping[str, Array]) -> dict[str, float]:
    """Output of mask logits → share of pixels that are on the same side of zero."""
    masks = {name: array for name, array in expected.items() if name.endswith(("mask", "masks"))}
    return {name: float(np.mean((found[name] > 0) == (array > 0))) for name, array in masks.items()}
