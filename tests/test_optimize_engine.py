"""Running and comparing: patterns of NaN, sequences, weights that are not copied."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from samonnx.optimize_engine import compare_outputs, ort_runner, reference_runner, tolerance_of
from samonnx.passes.evaluation import EngineError
from tests.test_optimize import model_of, random

NAN, INF = np.nan, np.inf


@pytest.mark.parametrize(
    ("found", "expected", "error"),
    [
        ([1.0, 4.0], [1.0, 5.0], 0.2),
        ([0.0, 1e-9], [0.0, 0.0], 1e-9),
        ([NAN, 5.0], [NAN, 5.0], 0.0),
        ([NAN, 5.0], [5.0, NAN], INF),
        ([5.0, 5.0], [5.0, NAN], INF),
        ([INF, 5.0], [INF, 5.0], 0.0),
        ([-INF, 5.0], [INF, 5.0], INF),
        ([1e30, 5.0], [INF, 5.0], INF),
    ],
)
def test_floats_are_compared_by_the_largest_magnitude(found: list[float], expected: list[float], error: float) -> None:
    (one,) = compare_outputs({"y": np.array(found)}, {"y": np.array(expected)}, 1e-5)
    assert one.largest_error == pytest.approx(error)
    assert one.ok == (error <= 1e-5)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (np.array([1, 2]), np.array([1, 3])),
        (np.array([True]), np.array([False])),
        (np.zeros(2), np.zeros(3)),
        (np.zeros(2, np.float32), np.zeros(2)),
        (np.array(["a"], object), np.array(["b"], object)),
        ([np.zeros(2)], [np.zeros(2), np.zeros(2)]),
        (None, np.zeros(2)),
    ],
)
def test_everything_else_is_equal_or_wrong(found: object, expected: object) -> None:
    assert compare_outputs({"y": found}, {"y": expected}, 1.0)[0].largest_error == INF
    assert compare_outputs({"y": expected}, {"y": expected}, 1.0)[0].largest_error == 0
    assert compare_outputs({}, {"y": expected}, 1.0)[0].largest_error == INF


def test_both_engines_run_large_weights_inside_and_outside_of_bodies() -> None:
    text = """(float[1,64] x, bool c) => (float[1,64] y, float[64,64] w) {
        a = MatMul(x, w)
        y = If (c) <then_branch = t () => (float[1,64] p) { p = MatMul(a, v) },
                    else_branch = e () => (float[1,64] q) { q = Neg(a) }>
    }"""
    model = ir.from_proto(model_of(text, {"w": random(64, 64), "v": random(64, 64) / 8, "idle": random(64, 64)}))
    feeds = {"x": random(1, 64), "c": np.array(True)}
    expected = random(1, 64) @ random(64, 64) @ (random(64, 64) / 8)
    for runner in (ort_runner, reference_runner):
        found = runner(model, feeds)
        np.testing.assert_allclose(np.asarray(found["y"]), expected, rtol=1e-3, atol=1e-4)
        assert np.array_equal(np.asarray(found["w"]), random(64, 64))


def test_what_the_engines_refuse_is_said_in_their_words() -> None:
    model = ir.from_proto(model_of("(float[2] x) => (float[2] y) { y = mine.Magic(x) }", more=', "mine" : 1'))
    with pytest.raises(EngineError, match=r"ONNX Runtime: .*Magic"):
        ort_runner(model, {"x": random(2)})
    with pytest.raises(EngineError, match=r"the reference evaluator: .*Magic"):
        reference_runner(model, {"x": random(2)})


def test_the_reference_evaluator_is_for_small_graphs() -> None:
    model = ir.from_proto(model_of("(float[2] x) => (float[2] y) { y = Neg(x) }"))
    wide = ir.LazyTensor(lambda: ir.tensor([0.0]), ir.DataType.FLOAT, ir.Shape([1 << 25]), name="w")
    model.graph.register_initializer(ir.Value(name="w", const_value=wide))
    with pytest.raises(EngineError, match="1 nodes and 128 MiB are too much for it"):
        reference_runner(model, {"x": random(2)})


def test_the_narrowest_floats_set_the_tolerance() -> None:
    def tolerance(dtype: str) -> float:
        return tolerance_of(ir.from_proto(model_of(f"({dtype}[2] x) => ({dtype}[2] y) {{ y = Neg(x) }}")))

    assert [tolerance(d) for d in ("float", "double", "float16", "bfloat16")] == [1e-5, 1e-5, 2**-9, 2**-6]


def test_the_reference_evaluator_is_not_trusted_with_old_batch_norms() -> None:
    text = "(float[1,2] x, float[2] a) => (float[1,2] y) { y = BatchNormalization(x, a, a, a, a) }"
    feeds = {"x": random(1, 2), "a": np.ones(2, np.float32)}
    with pytest.raises(EngineError, match="before opset 14 it normalises by the batch, as in training"):
        reference_runner(ir.from_proto(model_of(text, opset=13)), feeds)
    assert np.asarray(reference_runner(ir.from_proto(model_of(text, opset=14)), feeds)["y"]).shape == (1, 2)
