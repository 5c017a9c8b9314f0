"""On any valid graph the whole pipeline keeps the numbers, raises nothing, changes nothing that it was given and can
run again; a graph that is not valid is refused with the checker's words.

`SAMONNX_FUZZ=2000 pytest tests/test_random_graphs.py` tries so many graphs instead of a few dozen.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from onnx.reference import ReferenceEvaluator

from samonnx.optimize import optimize
from samonnx.optimize_feeds import FeedChoices, Guess, make_feeds
from samonnx.optimize_result import Kept, Left, Optimized, OptimizeError, VerifiedBy
from tests.random_graphs import random_models

EXAMPLES = int(os.environ.get("SAMONNX_FUZZ", "40"))
FUZZED = settings(
    max_examples=EXAMPLES, deadline=None, derandomize="SAMONNX_FUZZ" not in os.environ, database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)  # fmt: skip


def complaints(found: Optimized) -> list[Left]:
    """Passes that stopped or gave other numbers: each is a bug of ours. In half precision ONNX Runtime rounds where it
    suits it, so that long chains stray by more than the tolerance; only what is no number there counts."""
    exact = all(error.tolerance <= 1e-5 for error in found.comparisons)
    words = ("it stopped", "after it an output differs" if exact else "after it an output differs by inf")
    return [left for left in found.left if left.why.startswith(words)]


def in_float64(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with float64 in the place of float32."""
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    widen_graph(wide.graph)
    return wide


def widen_graph(graph: onnx.GraphProto) -> None:
    del graph.value_info[:]
    for tensor in graph.initializer:
        widen(tensor)
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT:
            value.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t") and node.op_type != "Resize":
                widen(attribute.t)
            if attribute.HasField("g"):
                widen_graph(attribute.g)
            if attribute.name == "to" and attribute.i == onnx.TensorProto.FLOAT:
                attribute.i = onnx.TensorProto.DOUBLE


def widen(tensor: onnx.TensorProto) -> None:
    if tensor.data_type == onnx.TensorProto.FLOAT:
        array, name = onnx.numpy_helper.to_array(tensor).astype(np.float64), tensor.name
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, name))


def assert_same_in_reals(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
    """Both in float64 in the reference evaluator, where it runs the first; so weights were composed right, whatever an
    engine's rounding hides. Other domains have no kernels there."""
    old = before.opset_import[0].version < 14  # before it the evaluator normalises by the batch, as in training
    if any(node.domain or (old and node.op_type == "BatchNormalization") for node in before.graph.node):
        return
    if any(node.domain for node in after.graph.node):
        return
    feeds, _ = make_feeds(ir.from_proto(before).graph, FeedChoices(), Guess((2,)), 0)
    wide = {name: a.astype(np.float64) if a.dtype == np.float32 else a for name, a in feeds.items()}
    try:
        expected = ReferenceEvaluator(in_float64(before)).run(None, wide)
    except Exception:  # the evaluator lacks kernels, and raises anything
        return
    found = ReferenceEvaluator(in_float64(after)).run(None, wide)
    limit = 2**-8 if any(np.asarray(a).dtype == np.float16 for a in expected) else 1e-5
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        if not np.isfinite(other).all():
            continue
        np.testing.assert_allclose(
            one.astype(np.float64), other.astype(np.float64), rtol=0, atol=limit * (np.abs(other).max(initial=0) or 1)
        )


@FUZZED
@pytest.mark.parametrize("target", ["onnx", "ort-cpu", "openvino"])
@given(model=random_models())
def test_the_pipeline_keeps_the_numbers_and_raises_nothing(target: str, model: onnx.ModelProto) -> None:
    given_bytes = model.SerializeToString(deterministic=True)
    found = optimize(model, target, timed=False)
    assert complaints(found) == []
    assert found.verified_by is not VerifiedBy.NOTHING or found.kept is Kept.BIT_EXACT
    assert all(error.ok for error in found.comparisons)
    assert model.SerializeToString(deterministic=True) == given_bytes
    after = ir.to_proto(found.model)
    onnx.checker.check_model(after)
    onnx.shape_inference.infer_shapes(after, check_type=True, strict_mode=True)
    assert [value.name for value in after.graph.input] == [value.name for value in model.graph.input]
    assert [value.name for value in after.graph.output] == [value.name for value in model.graph.output]
    assert_same_in_reals(model, after)
    again = optimize(found.model, target, timed=False)
    assert complaints(again) == []
    assert again.after.nodes <= found.after.nodes
    assert again.after.flops <= found.after.flops


def without_an_input(model: onnx.ModelProto) -> None:
    model.graph.node[0].input.append("nowhere")


def with_an_unknown_operator(model: onnx.ModelProto) -> None:
    model.graph.node[-1].op_type = "Convolve"


def with_a_name_twice(model: onnx.ModelProto) -> None:
    twin = onnx.NodeProto()
    twin.CopyFrom(model.graph.node[-1])
    model.graph.node.append(twin)


def in_a_circle(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = model.graph.node[-1].output[0]


def of_two_types(model: onnx.ModelProto) -> None:
    for name, kind in (("text", onnx.TensorProto.INT32), ("number", onnx.TensorProto.FLOAT)):
        model.graph.input.append(onnx.helper.make_tensor_value_info(name, kind, [1]))
    model.graph.node.add(op_type="Add", input=["text", "number"], output=["both"])


BREAKS: dict[Callable[[onnx.ModelProto], None], str] = {
    without_an_input: "input 'nowhere' of node|Unrecognized|is not output of any previous nodes|input size",
    with_an_unknown_operator: "No Op registered for Convolve",
    with_a_name_twice: "single static assignment",
    in_a_circle: "is not output of any previous nodes|must be topologically sorted",
    of_two_types: "has inconsistent type|mismatch",
}


@pytest.mark.parametrize("break_it", BREAKS, ids=lambda function: function.__name__)
@settings(parent=FUZZED, max_examples=max(5, EXAMPLES // 8))
@given(model=random_models(most_pieces=4))
def test_an_invalid_graph_is_refused_with_the_checker_s_words(
    break_it: Callable[[onnx.ModelProto], None], model: onnx.ModelProto
) -> None:
    if not model.graph.node[0].input:
        return
    break_it(model)
    with pytest.raises(OptimizeError, match="is not a valid ONNX model; the checker says: ") as refused:
        optimize(model, timed=False)
    assert re.search(BREAKS[break_it], str(refused.value))
