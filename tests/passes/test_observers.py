from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from samonnx.errors import SamonnxError
from samonnx.passes import Exactness, GraphPass, PassResult, run_passes
from samonnx.passes.eliminate_dead import EliminateDead
from samonnx.passes.fold_constants import FoldConstants
from samonnx.passes.interface import Array
from samonnx.passes.observers import DumpAfter, PassBrokePromiseError, VerifyEach, seeded_feeds
from samonnx.passes.pin_inputs import PinInputs
from tests.passes.graph_text import model_of

TEXT = """(float[2,3] x) => (float[2,3] y, int64[2] n) <float[3] w = {1, 2, 3}> {
    y = Mul(x, w)
    n = Shape(x)
}"""


@dataclass(frozen=True)
class ScaleWeight(GraphPass):
    """Multiply the weight `w`; a pass that breaks or keeps its promise, as told."""

    name: ClassVar[str] = "scale_weight"
    exactness: ClassVar[Exactness] = Exactness.REAL_EXACT
    tolerance: ClassVar[float] = 1e-4

    factor: float = 1.0
    element: int = 2

    def call(self, model: ir.Model) -> PassResult:
        value = model.graph.initializers["w"]
        assert value.const_value is not None
        array = value.const_value.numpy().copy()
        array[self.element] *= self.factor
        value.const_value = ir.tensor(array, name="w")
        return PassResult(model, True)


@dataclass(frozen=True)
class ScaleWeightExactly(ScaleWeight):
    """Multiply the weight, and claim that nothing changes."""

    name: ClassVar[str] = "scale_weight_exactly"
    exactness: ClassVar[Exactness] = Exactness.BIT_EXACT
    tolerance: ClassVar[float] = 0.0


@dataclass(frozen=True)
class DropOutput(GraphPass):
    """Lose the last output."""

    name: ClassVar[str] = "drop_output"
    exactness: ClassVar[Exactness] = Exactness.BIT_EXACT
    tolerance: ClassVar[float] = 0.0

    def call(self, model: ir.Model) -> PassResult:
        model.graph.outputs.pop()
        return PassResult(model, True)


@dataclass(frozen=True)
class Misspell(GraphPass):
    """Rename an operator to one that no engine knows."""

    name: ClassVar[str] = "misspell"
    exactness: ClassVar[Exactness] = Exactness.BIT_EXACT
    tolerance: ClassVar[float] = 0.0

    def call(self, model: ir.Model) -> PassResult:
        model.graph.node(0).op_type = "Mull"
        return PassResult(model, True)


def test_passes_that_keep_their_promise_are_let_through() -> None:
    passes = [FoldConstants(), ScaleWeight(1 + 1e-5), ScaleWeightExactly(1.0), EliminateDead()]
    assert len(run_passes(model_of(TEXT), passes, observers=[VerifyEach()]).reports) == 4


def test_the_first_pass_that_breaks_its_promise_is_named_with_output_error_position_and_promise() -> None:
    passes = [FoldConstants(), ScaleWeight(1.5), ScaleWeight(2.0)]
    with pytest.raises(PassBrokePromiseError) as caught:
        run_passes(
            model_of(TEXT),
            passes,
            observers=[VerifyEach(feeds=lambda _: {"x": np.array([[1, 1, 1], [1, 1, 2]], np.float32)})],
        )
    assert str(caught.value) == (
        "pass 'scale_weight' broke its promise on output 'y': largest error 0.5 of the output's largest magnitude at "
        "[1, 2]: 6.0 became 9.0 (promise: exact in real arithmetic, within 0.0001 of the output's largest magnitude)"
    )
    assert caught.value.__notes__ == ["after pass 'scale_weight' (number 2 of 3; before it ran: fold_constants)"]


def test_a_bit_exact_pass_may_not_move_the_last_bit() -> None:
    with pytest.raises(PassBrokePromiseError, match=r"'scale_weight_exactly'.* \(promise: bit-exact\)"):
        run_passes(
            model_of(TEXT), [ScaleWeightExactly(float(np.nextafter(1, 2, dtype=np.float32)))], observers=[VerifyEach()]
        )


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_new_nan_or_infinity_is_an_infinite_error(value: float) -> None:
    with pytest.raises(PassBrokePromiseError, match="largest error inf"):
        run_passes(model_of(TEXT), [ScaleWeight(value)], observers=[VerifyEach()])


def test_nan_that_was_there_before_is_no_error() -> None:
    feeds: Mapping[str, Array] = {"x": np.full((2, 3), np.nan, np.float32)}
    run_passes(model_of(TEXT), [ScaleWeight(1.0)], observers=[VerifyEach(feeds=lambda _: feeds)])


def test_a_lost_output_is_a_broken_promise() -> None:
    with pytest.raises(
        PassBrokePromiseError, match=r"'drop_output' changed the graph's outputs from \['y', 'n'\] to \['y'\]"
    ):
        run_passes(model_of(TEXT), [DropOutput()], observers=[VerifyEach()])


def test_a_graph_that_runs_no_more_is_a_broken_promise() -> None:
    with pytest.raises(
        PassBrokePromiseError, match="after pass 'misspell' the graph does not run any more: ONNX Runtime: "
    ):
        run_passes(model_of(TEXT), [Misspell()], observers=[VerifyEach()])


def test_a_graph_that_never_ran_is_not_the_fault_of_the_pass() -> None:
    model = model_of("(float[2] x) => (float[2] y) { y = com.microsoft.NoSuchOperator(x) }")
    with pytest.raises(
        SamonnxError, match="cannot verify pass 'eliminate_dead': the graph before it does not run: ONNX Ru"
    ):
        run_passes(model, [EliminateDead()], observers=[VerifyEach()])


def test_a_pass_that_removes_inputs_is_verified_with_what_it_put_in_their_place() -> None:
    text = "(float[2] x, float[2] z) => (float[2] y) { y = Add(x, z) }"
    run_passes(model_of(text), [PinInputs({"z": 2.5}), FoldConstants()], observers=[VerifyEach()])


def test_seeded_feeds_depend_on_seed_and_name_only() -> None:
    one = seeded_feeds(model_of("(float[4] x, bool[4] b) => (float[4] y) { y = Neg(x) }"))
    two = seeded_feeds(model_of("(int32[4] i, float[4] x) => (float[4] y) { y = Neg(x) }"))
    np.testing.assert_array_equal(one["x"], two["x"])
    assert two["i"].dtype == np.int32
    assert one["b"].dtype == np.bool_
    other = seeded_feeds(model_of("(float[4] x) => (float[4] y) { y = Neg(x) }"), seed=1)
    assert not np.array_equal(one["x"], other["x"])


def test_symbolic_dimensions_take_the_size_that_is_given() -> None:
    model = model_of("(float[n,2] x, bool[n] b) => (float[n,2] y) { y = Neg(x) }")
    found = seeded_feeds(model, symbolic=3)
    assert {name: array.shape for name, array in found.items()} == {"x": (3, 2), "b": (3,)}


def test_a_symbolic_input_needs_feeds_of_its_own() -> None:
    with pytest.raises(
        SamonnxError, match=r"no seeded values for input 'x' of shape .*n.*: give VerifyEach its own feeds"
    ):
        seeded_feeds(model_of("(float[n] x) => (float[n] y) { y = Neg(x) }"))


def test_the_graph_after_a_pass_is_dumped_where_asked(tmp_path: Path) -> None:
    path = tmp_path / "new" / "after.onnx"
    model = model_of(TEXT)
    run_passes(model, [FoldConstants(), DropOutput()], observers=[DumpAfter("fold_constants", path)])
    dumped = onnx.load(path)
    assert [node.op_type for node in dumped.graph.node] == ["Mul", "Identity"]
    assert len(dumped.graph.output) == 2
    assert model.graph.initializers["w"].const_value is not None


def test_an_unwritable_dump_says_where(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SamonnxError, match=r"cannot dump the graph after pass 'fold_constants' to .*file/a.onnx"):
        run_passes(
            model_of(TEXT), [FoldConstants()], observers=[DumpAfter("fold_constants", tmp_path / "file" / "a.onnx")]
        )
