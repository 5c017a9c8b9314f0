"""Verify: how numbers are compared, which graphs are legal, a traced component against its module."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from samonnx.errors import VerificationError
from samonnx.graph_session import Array
from samonnx.programs.program import Component
from samonnx.trace import TracedComponent
from samonnx.verify import Comparison, check_structure, compare, require, seeded_inputs, verify, verify_component

# Comparing numbers


def f32(*values: float) -> Array:
    return np.array(values, np.float32)


def test_the_error_is_relative_to_the_largest_magnitude_expected() -> None:
    found = compare("masks", f32(1.0, -199.0), f32(0.0, -200.0), 0.01)
    assert found == Comparison("masks", 0.005, 0.01)
    assert found.ok
    assert not compare("masks", f32(1.0, -199.0), f32(0.0, -200.0), 0.004).ok


def test_an_error_as_large_as_the_tolerance_is_allowed() -> None:
    assert compare("x", f32(1.25), f32(1.0), 0.25).ok


@given(st.lists(st.floats(-1e3, 1e3, width=32), max_size=5))
def test_equal_numbers_have_no_error(values: list[float]) -> None:
    assert compare("x", f32(*values), f32(*values), 0.0).ok


def test_where_all_zeros_are_expected_the_error_is_absolute() -> None:
    assert compare("x", f32(0.0, 0.25), f32(0.0, 0.0), 0.1).largest_error == 0.25


def test_a_unit_bounds_the_magnitude_from_below() -> None:
    assert compare("score", f32(0.0625), f32(0.0), 0.1, unit=0.5).largest_error == 0.125
    assert compare("score", f32(4.5), f32(4.0), 0.1, unit=0.5).largest_error == 0.125


def test_nothing_at_all_has_no_error() -> None:
    assert compare("x", np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32), 0.0).largest_error == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_an_infinite_error(value: float) -> None:
    found = compare("x", f32(1.0, value), f32(1.0, 2.0), 1e9)
    assert found.largest_error == np.inf
    assert not found.ok


def test_a_reference_that_is_not_finite_is_never_met() -> None:
    assert not compare("x", f32(1.0, 2.0), f32(1.0, np.nan), 1e9).ok
    assert not compare("x", f32(np.nan), f32(np.nan), 1e9).ok


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.bool_])
def test_integers_and_flags_must_be_equal_whatever_the_tolerance(dtype: type) -> None:
    expected: Array = np.array([0, 1, 1], dtype)
    assert compare("x", expected, expected, 1.0).ok
    other = compare("x", np.array([1, 1, 0], dtype), expected, 1.0)
    assert (other.largest_error, other.tolerance, other.ok) == (2.0, 0.0, False)


def test_another_dtype_or_shape_is_refused_with_both() -> None:
    with pytest.raises(VerificationError) as caught:
        compare("ious", np.zeros((2, 3), np.float64), np.zeros((2, 3), np.float32), 1.0)
    assert str(caught.value) == "ious: found float64 [2, 3], expected float32 [2, 3]"
    with pytest.raises(VerificationError, match=r"ious: found float32 \[3\], expected float32 \[1, 3\]"):
        compare("ious", np.zeros(3, np.float32), np.zeros((1, 3), np.float32), 1.0)


def test_only_the_comparisons_that_failed_are_reported() -> None:
    require([Comparison("fine", 1e-5, 1e-4)])
    failed = [Comparison("fine", 1e-5, 1e-4), Comparison("bad", 2e-3, 1e-4), Comparison("worse", float("inf"), 0.0)]
    with pytest.raises(VerificationError) as caught:
        require(failed)
    assert str(caught.value).splitlines() == [
        "the graph does not give the module's numbers:",
        "  - bad: error 2.00e-03, allowed 1.0e-04",
        "  - worse: error inf, allowed 0.0e+00",
    ]


# Structure


def model_of(graph: str, domain: str = "") -> ir.Model:
    extra = f', "{domain}" : 1' if domain else ""
    return ir.from_onnx_text(f'<ir_version: 10, opset_import: ["" : 23{extra}]>\n{graph}')


LEGAL = "g (float[2] x) => (float[2] y) <float[2] w = {1.0, 2.0}> { h = Mul(x, w) y = Relu(h) }"
FUSED = "g (float[1,2,4] x) => (float[1,2,4] y) { y = com.microsoft.Gelu(x) }"


def refusal(model: ir.Model, target: str = "onnx") -> str:
    with pytest.raises(VerificationError) as caught:
        check_structure(model, "track", target)
    return str(caught.value)


def test_a_legal_graph_passes_and_is_left_as_it_was() -> None:
    model = model_of(LEGAL)
    before = ir.to_onnx_text(model)
    check_structure(model, "track", "onnx")
    check_structure(model, "track", "ort-cpu")
    assert ir.to_onnx_text(model) == before


def test_a_foreign_domain_is_refused_for_the_target_that_does_not_have_it() -> None:
    model = model_of(FUSED, "com.microsoft")
    for node in model.graph:
        node.name = "fused"
    check_structure(model, "track", "ort-cpu")
    assert refusal(model) == (
        "track for target 'onnx' is not legal (1 problems):\n  - node 'fused' (Gelu) is of domain 'com.microsoft'"
    )


@pytest.mark.parametrize(("name", "label"), [("double", "DOUBLE"), ("float16", "FLOAT16"), ("bfloat16", "BFLOAT16")])
def test_a_float_of_another_width_is_refused(name: str, label: str) -> None:
    code = {"double": 11, "float16": 10, "bfloat16": 16}[name]
    body = f"{{ h = Cast<to = {code}>(x) y = Cast<to = 1>(h) }}"
    model = model_of(f"g (float[2] x) => (float[2] y) <{name}[2] h> {body}")
    for node in model.graph:
        node.name = f"node_{node.outputs[0].name}"
    assert f"value 'h' of node 'node_h' (Cast) is {label}" in refusal(model)


def test_a_weight_of_another_width_is_refused() -> None:
    model = model_of("g (float[2] x) => (float[2] y) <double[2] w = {1.0, 2.0}> { v = Cast<to = 1>(w) y = Mul(x, v) }")
    assert "initialiser 'w' is DOUBLE" in refusal(model)


def test_an_initialiser_that_nothing_reads_is_refused() -> None:
    model = model_of("g (float[2] x) => (float[2] y) <float[2] w = {1.0, 2.0}> { y = Relu(x) }")
    assert refusal(model).splitlines()[1:] == ["  - initialiser 'w' is not used"]


def test_all_problems_are_listed_but_not_more_than_ten() -> None:
    weights = ", ".join(f"float[1] w{i} = {{1.0}}" for i in range(12))
    said = refusal(model_of(f"g (float[2] x) => (float[2] y) <{weights}> {{ y = Relu(x) }}"))
    assert "(12 problems)" in said
    assert len(said.splitlines()) == 11


def test_a_long_table_of_whole_numbers_is_read_by_shape_inference() -> None:
    """It stands in the weights file, and the sum may be a shape as far as shape inference knows."""
    model = model_of("g (int64[400] x) => (int64[400] y) { y = Add(x, x) }")
    table = ir.tensor(np.arange(400, dtype=np.int64), name="table")
    given = ir.Value(name="table", const_value=table, type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([400]))
    model.graph.initializers["table"] = given
    node = next(iter(model.graph))
    node.replace_input_with(1, given)
    check_structure(model, "consolidate", "onnx")
    np.testing.assert_array_equal(table.numpy(), np.arange(400))


@pytest.mark.parametrize(
    "graph",
    [
        "g (float[2] x) => (float[2] y) { y = Mul(x) }",
        "g (float[2] x) => (float[2] y) { y = NoSuchOperator(x) }",
        "g (float[2] x) => (float[2] y) { y = Relu<slope = 1.0>(x) }",
        "g (float[2] x, float[3] z) => (float[2] y) { y = Add(x, z) }",
        "g (float[2] x) => (int32[2] y) { y = Relu(x) }",
        "g (float[2] x) => (float[5] y) { y = Relu(x) }",
    ],
    ids=[
        "too few inputs",
        "unknown operator",
        "unknown attribute",
        "shapes that do not fit",
        "wrong dtype",
        "wrong shape",
    ],
)
def test_a_broken_graph_fails_the_checker_by_name(graph: str) -> None:
    assert refusal(model_of(graph)).startswith("track for target 'onnx' fails the ONNX checker: ")


# A component against its module


class Halved(nn.Module):
    def forward(self, x: Tensor, keep: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        return torch.where(keep, x / 2, 0.0), index + 1


HALVED = """g (float[2,3] x, bool[2,3] keep, int32[4] index) => (float[2,3] half, int32[4] next)
<float two = {2.0}, float zero = {0.0}, int32 one = {1}>
{ h = Div(x, two) half = Where(keep, h, zero) next = Add(index, one) }"""


def component() -> Component:
    inputs = {
        "x": torch.zeros(2, 3),
        "keep": torch.zeros(2, 3, dtype=torch.bool),
        "index": torch.zeros(4, dtype=torch.int32),
    }
    return Component("halve", Halved(), inputs, ("half", "next"))


def test_a_graph_with_the_modules_numbers_passes_output_by_output() -> None:
    found = verify_component(component(), TracedComponent("halve", model_of(HALVED)), 1e-6)
    assert [(c.what, c.ok) for c in found] == [("halve.half", True), ("halve.next", True)]


def test_a_graph_with_other_numbers_fails_where_it_differs() -> None:
    wrong = TracedComponent("halve", model_of(HALVED.replace("two = {2.0}", "two = {2.1}")))
    half, next_ = verify_component(component(), wrong, 1e-3)
    assert not half.ok
    assert next_.ok
    with pytest.raises(VerificationError, match=r"halve\.half: error"):
        require([half, next_])


def test_seeded_inputs_have_the_examples_shapes_and_dtypes_and_are_the_same_each_time() -> None:
    inputs = {
        "image": torch.zeros(1, 3, 128, 64),
        "small": torch.zeros(1, 3, 8, 8),
        "flag": torch.zeros(50, dtype=torch.bool),
        "label": torch.zeros(50, dtype=torch.int32),
        "scalar": torch.zeros((), dtype=torch.int32),
    }
    made = seeded_inputs(Component("any", Halved(), inputs, ()))
    again = seeded_inputs(Component("any", Halved(), inputs, ()))
    other = seeded_inputs(Component("any", Halved(), inputs, ()), seed=1)
    for name, example in inputs.items():
        assert (made[name].shape, made[name].dtype) == (example.shape, example.dtype)
        assert torch.equal(made[name], again[name])
    assert not torch.equal(made["small"], other["small"])
    assert set(made["flag"].tolist()) == {True, False}
    assert set(made["label"].tolist()) <= {-1, 0, 1, 2, 3}
    # large maps are smooth, as images and masks are
    steps = (made["image"][..., 1:] - made["image"][..., :-1]).abs().mean()
    assert steps < 0.3 * made["image"].std()


# The public function


class Scaled(nn.Module):
    """Two outputs of two inputs."""

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return 2 * x, x + y


SCALED = """<ir_version: 10, opset_import: ["" : 23]>
scaled (float[2,3] x, float[2,3] y) => (float[2,3] double, float[2,3] sum) <float two = {2}> {
    double = Mul(x, two)
    sum = Add(x, y)
}"""


def scaled(old: str = "", new: str = "") -> ir.Model:
    return ir.from_onnx_text(SCALED.replace(old, new) if old else SCALED)


def scaled_component() -> Component:
    inputs = {"x": torch.zeros(2, 3), "y": torch.zeros(2, 3)}
    return Component("scaled", Scaled(), inputs, ("double", "sum"))


def test_verify_takes_a_component_or_a_module_and_a_graph_however_it_is_held(tmp_path: Path) -> None:
    path = tmp_path / "scaled.onnx"
    ir.save(scaled(), path)
    for subject in (scaled_component(), Scaled()):
        for graph in (scaled(), TracedComponent("scaled", scaled()), path, str(path)):
            figures = verify(subject, graph)
            assert [figure.what for figure in figures] == ["double", "sum"]
            assert all(figure.largest_error == 0 for figure in figures)


def test_verify_runs_both_on_the_inputs_given_also_where_the_graph_has_lost_one() -> None:
    class First(nn.Module):
        def forward(self, x: Tensor, unused: Tensor) -> Tensor:
            return -x

    model = ir.from_onnx_text('<ir_version: 10, opset_import: ["" : 23]> g (float[n] x) => (float[n] y) { y = Neg(x) }')
    inputs = {"x": torch.arange(5.0), "unused": torch.zeros(1)}
    assert verify(First(), model, inputs)[0].largest_error == 0


def test_verify_raises_with_the_figure_of_every_output_that_is_off() -> None:
    with pytest.raises(VerificationError) as caught:
        verify(Scaled(), scaled("{2}", "{3}"), tolerance=1e-3)
    assert str(caught.value).splitlines()[1:] == ["  - double: error 5.00e-01, allowed 1.0e-03"]
    assert verify(Scaled(), scaled("{2}", "{2.001}"), tolerance=1e-2)[0].largest_error == pytest.approx(5e-4, rel=1e-2)


@pytest.mark.parametrize(
    ("graph", "inputs", "message"),
    [
        (scaled(), {"x": torch.zeros(2, 3)}, r"the graph takes y, which the inputs do not have: \['x'\]"),
        (scaled(", float[2,3] sum)", ")"), None, r"the module returns 2 tensors, the graph 1: \['double'\]"),
        (
            scaled("double = Mul(x, two)", "t = Mul(x, two) double = Transpose(t)").clone(),
            None,
            r"double: found float32 \[3, 2\], expected float32 \[2, 3\]",
        ),
    ],
)
def test_verify_says_where_module_and_graph_do_not_meet(
    graph: ir.Model, inputs: dict[str, Tensor] | None, message: str
) -> None:
    for value in graph.graph.outputs:
        value.shape = None
    with pytest.raises(VerificationError, match=message):
        verify(Scaled(), graph, inputs)
