from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import onnx_ir as ir
import pytest

from samonnx.errors import SamonnxError
from samonnx.passes import Exactness, GraphPass, PassFailedError, PassReport, PassResult, run_passes
from samonnx.passes.eliminate_dead import EliminateDead
from samonnx.passes.fold_constants import FoldConstants
from tests.passes.graph_text import body_of, model_of

TEXT = """(float[2,3] x) => (float[2,4] y) <float[3,2] a = {1,2,3,4,5,6}, float[2,4] b = {1,2,3,4,5,6,7,8}> {
    w = MatMul(a, b)
    y = MatMul(x, w)
}"""


@dataclass(frozen=True)
class Crash(GraphPass):
    """Raise what it is told to raise."""

    name: ClassVar[str] = "crash"
    exactness: ClassVar[Exactness] = Exactness.BIT_EXACT
    tolerance: ClassVar[float] = 0.0

    error: Exception = field(default_factory=lambda: ValueError("no luck"))

    def call(self, model: ir.Model) -> PassResult:
        raise self.error


@dataclass
class Recorder:
    """An observer that keeps what it is shown."""

    wants_snapshot: bool
    seen: list[tuple[str, list[str] | None, list[str]]] = field(default_factory=list)

    def after_pass(self, pass_: GraphPass, before: ir.Model | None, model: ir.Model, report: PassReport) -> None:
        self.seen.append((report.name, None if before is None else body_of(before), body_of(model)))


def test_each_pass_is_reported_with_figures_before_and_after() -> None:
    model = model_of(TEXT)
    result = run_passes(model, [FoldConstants(), EliminateDead()])
    assert result.model is model
    fold, dead = result.reports
    assert (fold.name, fold.nodes_before, fold.nodes_after, fold.modified) == ("fold_constants", 2, 1, True)
    assert (fold.constant_bytes_before, fold.constant_bytes_after) == (4 * (6 + 8), 4 * 12)
    assert (fold.flops_before, fold.flops_after) == (2 * 2 * 4 * 3, 2 * 2 * 4 * 3)
    assert fold.milliseconds > 0
    assert (dead.nodes_before, dead.nodes_after, dead.constant_bytes_before) == (1, 1, 4 * 12)


def test_an_observer_sees_the_graph_before_and_after() -> None:
    recorder = Recorder(wants_snapshot=True)
    run_passes(model_of(TEXT), [FoldConstants()], observers=[recorder])
    assert recorder.seen == [
        ("fold_constants", ["w = MatMul(a, b)", "y = MatMul(x, w)"], ["y = MatMul(x, w/constant)"])
    ]


def test_no_snapshot_is_taken_when_nobody_wants_one() -> None:
    recorder = Recorder(wants_snapshot=False)
    run_passes(model_of(TEXT), [FoldConstants()], observers=[recorder])
    assert recorder.seen[0][1] is None


def test_a_crash_names_the_pass_and_what_ran_before_it() -> None:
    with pytest.raises(PassFailedError) as caught:
        run_passes(model_of(TEXT), [FoldConstants(), Crash()])
    assert str(caught.value) == (
        "pass 'crash' (number 2 of 2; before it ran: fold_constants) failed: ValueError: no luck"
    )
    assert isinstance(caught.value.__cause__, ValueError)


def test_an_error_meant_for_the_user_passes_through_with_a_note() -> None:
    with pytest.raises(SamonnxError, match="mend this") as caught:
        run_passes(model_of(TEXT), [Crash(SamonnxError("mend this"))])
    assert caught.value.__notes__ == ["in pass 'crash' (number 1 of 1; before it ran: none)"]


def test_no_pass_leaves_the_model_as_it_is() -> None:
    model = model_of(TEXT)
    assert run_passes(model, []).reports == ()
    assert len(model.graph) == 2
