"""Passes that break their promise are found, and left out by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from samonnx.optimize import optimize
from samonnx.passes import Exactness, GraphPass, PassResult
from tests.test_optimize import foldable, ops, reasons


@dataclass(frozen=True)
class Shrink(GraphPass):
    """Multiply all weights by 0.9, and claim that nothing changes."""

    name: ClassVar[str] = "shrink"
    exactness: ClassVar[Exactness] = Exactness.BIT_EXACT
    tolerance: ClassVar[float] = 0.0

    def call(self, model: ir.Model) -> PassResult:
        for name, value in model.graph.initializers.items():
            if value.const_value is not None and value.const_value.dtype == ir.DataType.FLOAT:
                value.const_value = ir.tensor(value.const_value.numpy() * np.float32(0.9), name=name)
        return PassResult(model, True)


@dataclass(frozen=True)
class Trip(Shrink):
    """Raise."""

    name: ClassVar[str] = "trip"

    def call(self, model: ir.Model) -> PassResult:
        raise ValueError("over its own feet")


def test_a_pass_that_changes_numbers_is_found_and_left_out() -> None:
    names = ["fold_constants", f"{__name__}:Shrink", "fold_affine", "eliminate_dead"]
    found = optimize(foldable(), passes=names, timed=False)
    assert ops(found) == ["Conv"]
    assert "pass shrink: after it an output differs by 0.19 of its largest magnitude; allowed 1e-05" in reasons(found)
    assert [report.name for report in found.reports] == ["fold_constants", "fold_affine", "eliminate_dead"]
    assert all(error.ok for error in found.comparisons)


def test_a_pass_that_raises_is_left_out_with_its_words() -> None:
    found = optimize(foldable(), passes=["fold_constants", f"{__name__}:Trip", "fold_affine"], timed=False)
    assert ops(found) == ["Conv"]
    assert "pass trip: it stopped:" in reasons(found)
    assert "ValueError: over its own feet" in reasons(found)
