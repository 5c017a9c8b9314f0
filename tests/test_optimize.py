"""`samonnx optimize`: foreign graphs keep their numbers, and what is left is named."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from samonnx import optimize_timing
from samonnx.optimize import optimize
from samonnx.optimize_result import Kept, Optimized, OptimizeError, Timing, VerifiedBy
from samonnx.passes import UnknownPassError
from samonnx.passes.interface import Array
from samonnx.passes.pin_inputs import PinInputError

FOLDABLE = """(float[N,4,5,6] x) => (float[N,3,5,6] y) {
    a = Conv (x, w)
    s = Constant <value = float[3,1,1] {1.5, 0.5, 2.0}> ()
    y = Mul(a, s)
}"""


def model_of(text: str, weights: Mapping[str, Array] | None = None, opset: int = 17, more: str = "") -> onnx.ModelProto:
    """A graph in ONNX's text form; weights by name."""
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}{more}]> graph {text}')
    for name, array in (weights or {}).items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return model


def random(*shape: int, dtype: str = "float32") -> Array:
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


def foldable(batch: str = "1") -> onnx.ModelProto:
    return model_of(FOLDABLE.replace("N", batch), {"w": random(3, 4, 1, 1)})


def ops(found: Optimized) -> list[str]:
    return [node.op_type for node in found.model.graph]


def reasons(found: Optimized) -> str:
    return "\n".join(f"{left.what}: {left.why}" for left in found.left)


def test_algebra_is_done_and_the_numbers_compared() -> None:
    found = optimize(foldable(), timed=False)
    assert ops(found) == ["Conv"]
    assert list(dict.fromkeys(report.name for report in found.fired)) == ["fold_constants", "fold_affine"]
    (error,) = found.comparisons
    assert error.output == "y"
    assert error.ok
    assert error.tolerance == 1e-5
    assert (found.verified_by, found.kept, found.ratio) == (VerifiedBy.ORT, Kept.ALL, None)
    assert (found.before.nodes, found.after.nodes) == (3, 1)


def test_what_it_is_given_stays_as_it_is() -> None:
    proto = foldable()
    before = proto.SerializeToString(deterministic=True)
    optimize(proto, timed=False)
    assert proto.SerializeToString(deterministic=True) == before
    model = ir.from_proto(proto)
    tensors = [value.const_value for value in model.graph.initializers.values()]
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    optimize(model, timed=False)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
    assert [value.const_value for value in model.graph.initializers.values()] == tensors


def test_a_symbolic_axis_stays_and_what_needs_its_size_is_named() -> None:
    found = optimize(foldable("batch"), timed=False)
    assert ops(found) == ["Conv", "Mul"]
    assert "input 'x' [batch,4,5,6]: what needs sizes stays where these are not known" in reasons(found)
    assert "Conv" in reasons(found)
    assert found.size_choice == {"batch": 2}
    assert str(found.model.graph.outputs[0].shape) == "[batch,3,5,6]"


def test_half_precision_weights_are_not_composed() -> None:
    text = FOLDABLE.replace("float[", "float16[").replace("N", "1").replace("{1.5, 0.5, 2.0}", "{15872, 14336, 16384}")
    found = optimize(model_of(text, {"w": random(3, 4, 1, 1, dtype="float16")}), timed=False)
    assert ops(found) == ["Conv", "Mul"]
    assert "float16: algebra on the weights would round" in reasons(found)
    assert found.comparisons[0].tolerance == 2**-9


def test_bodies_stay_and_what_they_read_counts_as_read() -> None:
    """`a` is read by the Add and, from outside, by a branch: the scale must not go into its convolution."""
    text = """(float[1,4,5,6] x, bool c) => (float[1,3,5,6] y, float[1,3,5,6] z) {
        a = Conv (x, w)
        s = Constant <value = float[3,1,1] {1.5, 0.5, 2.0}> ()
        y = Mul(a, s)
        z = If (c) <then_branch = t () => (float[1,3,5,6] p) { p = Relu(a) },
                    else_branch = e () => (float[1,3,5,6] q) { q = Neg(a) }>
    }"""
    found = optimize(model_of(text, {"w": random(3, 4, 1, 1)}), timed=False)
    assert ops(found) == ["Conv", "Mul", "If"]
    assert "If 'z': bodies of control flow are left as they are" in reasons(found)
    assert found.largest_error == 0


def test_a_default_is_no_constant_until_it_is_fixed() -> None:
    model = model_of(
        "(float[2] x, float s) => (float[2] y) { t = Neg(s) y = Mul(x, t) }", {"s": np.array(2.0, np.float32)}
    )
    found = optimize(model, timed=False)
    assert ops(found) == ["Neg", "Mul"]
    assert "input 's': it has a default that callers may override" in reasons(found)
    fixed = optimize(model, fixed={"s": None}, timed=False)
    assert ops(fixed) == ["Mul"]
    assert [value.name for value in fixed.model.graph.inputs] == ["x"]
    with pytest.raises(OptimizeError, match="--fix x: the input has no default; give x=value"):
        optimize(model, fixed={"x": None})
    with pytest.raises(PinInputError, match="cannot pin 'z': the graph has no such input"):
        optimize(model, fixed={"z": 1.0})


def test_before_ir_version_4_initialisers_named_as_inputs_are_constants() -> None:
    model = model_of("(float[2] x, float[2] w) => (float[2] y) { t = Neg(w) y = Mul(x, t) }", {"w": random(2)}, 11)
    model.ir_version = 3
    found = optimize(model, timed=False)
    assert ops(found) == ["Mul"]
    assert [value.name for value in found.model.graph.inputs] == ["x"]
    assert found.model.ir_version == 4


def test_functions_are_put_in_place() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
    graph (float[2,3] x) => (float[2,3] y) { t = local.Twice(x) y = Identity(t) }
    <domain: "local", opset_import: ["" : 17]> Twice (a) => (b) { b = Add(a, a) }"""
    found = optimize(onnx.parser.parse_model(text), timed=False)
    assert ops(found) == ["Add"]
    assert not found.model.functions


def test_operators_of_unknown_domains_are_named_and_nothing_is_said_to_be_compared() -> None:
    text = "(float[2,3] x) => (float[2,3] y) { a = Identity(x) b = mine.Magic(a) c = mine.Magic(a) y = Add(b, c) }"
    found = optimize(model_of(text, more=', "mine" : 1'), timed=False)
    assert ops(found) == ["Magic", "Magic", "Add"]  # may be random: not merged
    assert found.verified_by is VerifiedBy.NOTHING
    assert "2 × mine::Magic: an operator that the passes do not know" in reasons(found)
    assert "all passes that are not bit-exact: no numbers can be compared: ONNX Runtime:" in reasons(found)


def test_random_operators_leave_nothing_to_compare() -> None:
    found = optimize(model_of("(float[2] x) => (float[2] y) { r = RandomNormalLike(x) y = Add(x, r) }"), timed=False)
    assert found.verified_by is VerifiedBy.NOTHING
    assert "RandomNormalLike 'r': it gives other numbers each time" in reasons(found)


def test_float64_is_compared_where_onnx_runtime_has_no_kernel() -> None:
    text = """(double[1,1,2,2] x) => (double[1,1,4,4] y) {
        s = Constant <value = float[4] {1.0, 1.0, 2.0, 2.0}> ()
        r = Resize <mode = "nearest"> (x, , s)
        y = Identity(r)
    }"""
    found = optimize(model_of(text), timed=False)
    assert found.verified_by is VerifiedBy.REFERENCE
    assert ops(found) == ["Resize"]


@pytest.mark.parametrize(
    ("ratios", "kept", "nodes"),
    [
        ([1.02], Kept.ALL, ["Conv"]),
        ([1.2, 1.0], Kept.ALL, ["Conv"]),  # a second look
        ([1.2, 1.2, 1.01], Kept.GENERAL, ["Conv"]),
        ([1.2, 1.2, 1.1, 1.1, 0.9], Kept.BIT_EXACT, ["Conv", "Mul"]),
        ([1.2, 1.2, 1.1, 1.1, 1.1, 1.1], Kept.ORIGINAL, ["Conv", "Constant", "Mul"]),
    ],
)
def test_what_is_slower_is_not_kept(
    ratios: list[float], kept: Kept, nodes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import samonnx.optimize as module

    left = iter(ratios)
    monkeypatch.setattr(module, "compare_times", lambda *_, **__: Timing(1.0, 1.0, next(left), 5))
    found = optimize(foldable())
    assert (found.kept, ops(found)) == (kept, nodes)
    assert list(left) == []
    if kept is not Kept.ALL:
        assert "all passes: the result takes 1.200 times as long as the original" in reasons(found)


def test_both_are_timed_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimize_timing, "_SECONDS", 0.0)
    found = optimize(foldable(), threads=1)
    if found.kept is Kept.ALL:  # a machine with other work may say otherwise
        assert found.timing is not None
        assert found.timing.runs in (5, 15)
        assert found.ratio == found.timing.ratio > 0


def test_old_opsets_are_left_alone() -> None:
    found = optimize(model_of("(float[2] x) => (float[2] y) { a = Identity(x) y = Neg(a) }", opset=9), timed=False)
    assert ops(found) == ["Identity", "Neg"]
    assert "the whole graph: opset 9; expected 11 or newer" in reasons(found)


def test_a_large_attention_of_an_old_opset_is_recognised_after_a_conversion() -> None:
    text = """(float[1,1,1024,32] q, float[1,1,1024,32] k, float[1,1,1024,32] v) => (float[1,1,1024,32] y) {
        t = Transpose <perm = [0, 1, 3, 2]> (k)
        l = MatMul(q, t)
        p = Softmax <axis = -1> (l)
        y = MatMul(p, v)
    }"""
    found = optimize(model_of(text), timed=False)
    assert [report.name for report in found.fired][:2] == ["convert_version", "fuse_attention"]
    assert "MultiHeadAttention" in ops(found)
    assert found.comparisons[0].ok
    small = optimize(model_of(text.replace("1024", "16")), timed=False)
    assert small.model.opset_imports[""] == 17
    assert "passes fuse_attention, fuse_rotary: they write operators of opset 23; the graph has 17" in reasons(small)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"target": "tpu"}, OptimizeError, "unknown target 'tpu'; targets: onnx, ort-cpu, openvino"),
        ({"passes": ["fold_constant"]}, UnknownPassError, "did you mean fold_constants"),
        ({"shapes": {"z": (1,)}}, OptimizeError, "--shape z=…: the graph has no such input; inputs: x"),
        ({"shapes": {"x": (1, 2)}}, OptimizeError, "--shape x=1x2 does not fit the input, which is declared as"),
        ({"ranges": {"x": (1, 0)}}, OptimizeError, "--range x=1:0: expected low:high with low at most high"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(
    arguments: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        optimize(foldable(), **arguments)  # type: ignore[arg-type]  # wrong on purpose


def test_bfloat16_is_compared_in_the_reference_evaluator_and_not_composed() -> None:
    text = "(bfloat16[2,3] x) => (bfloat16[2,2] y) { c = Cast <to = 16> (w) d = Identity(x) y = MatMul(d, c) }"
    found = optimize(model_of(text, {"w": random(3, 2)}, opset=23), timed=False)
    assert found.verified_by is not VerifiedBy.ORT
    assert ops(found)[-1] == "MatMul"
    assert "bfloat16: algebra on the weights would round" in reasons(found)


def test_a_scan_and_a_loop_that_read_outer_values_keep_their_numbers() -> None:
    text = """(float[1,4,5,6] x) => (float[1,3,5,6] y, float[1,3,5,6] z) {
        a = Conv (x, w)
        n = Constant <value = int64 {3}> ()
        t = Constant <value = bool {1}> ()
        z = Loop (n, t, a) <body = b (int64 i, bool go, float[1,3,5,6] v) => (bool on, float[1,3,5,6] u) {
            on = Identity(go)
            u = Add(v, a)
        }>
        s = Constant <value = float {0.5}> ()
        y = Mul(a, s)
    }"""
    found = optimize(model_of(text, {"w": random(3, 4, 1, 1)}), timed=False)
    assert ops(found) == ["Conv", "Loop", "Mul"]
    assert found.largest_error == 0


def test_dynamic_sizes_are_tried_twice_with_different_ones() -> None:
    """A graph that only a size of 2 would let be simplified must not be."""
    text = """(float[n,m] x) => (float[k,l] y) {
        s = Shape(x) r = Constant <value = int64[2] {1, 0}> () p = Gather(s, r) y = Reshape(x, p)
    }"""
    found = optimize(model_of(text), timed=False)
    assert ops(found)[-1] == "Reshape"
    assert found.size_choice == {"n": 2, "m": 3}
