from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from samonnx.passes import evaluation
from samonnx.passes.evaluation import evaluate_node, run_model
from samonnx.passes.interface import Array
from samonnx.passes.observers import seeded_feeds
from tests.passes.graph_text import model_of


def _node(text: str) -> ir.Node:
    return model_of(text).graph.node(0)


def test_a_node_gives_the_bits_that_it_gives_inside_a_graph() -> None:
    model = model_of("(float[40,70] x, float[70,90] w) => (float[40,90] y) { m = MatMul(x, w) y = Softmax(m) }")
    feeds = seeded_feeds(model)
    matmul, softmax = list(model.graph)
    (product,) = evaluate_node(matmul, [feeds["x"], feeds["w"]], model.opset_imports) or []
    (found,) = evaluate_node(softmax, [product], model.opset_imports) or []
    np.testing.assert_array_equal(found, run_model(model, feeds)["y"])


def test_a_missing_optional_input_stays_missing() -> None:
    node = _node('(float[4] x) => (float[4] y) <float top = {1}> { y = Clip(x, "", top) }')
    (found,) = evaluate_node(node, [np.array([-3, 0, 1, 3], np.float32), None, np.array(1, np.float32)], {"": 23}) or []
    assert found.tolist() == [-3, 0, 1, 1]


@pytest.mark.parametrize(
    ("what", "text", "array"),
    [
        ("no such operator", "(float[2] x) => (float[2] y) { y = NoSuchOperator(x) }", np.zeros(2, np.float32)),
        ("no kernel for the dtype", "(int16[2] x) => (int16[2] y) { y = Relu(x) }", np.zeros(2, np.int16)),
        (
            "an axis that is not there",
            "(float[2] x) => (float[2] y) { y = Softmax <axis = 3> (x) }",
            np.zeros(2, np.float32),
        ),
    ],
)
def test_what_the_engine_refuses_gives_none(what: str, text: str, array: Array) -> None:
    assert evaluate_node(_node(text), [array], {"": 23}) is None, what


def test_a_model_above_the_protobuf_limit_runs_from_a_temporary_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = ", ".join(map(str, range(600)))
    model = model_of(f"(float[2,300] x) => (float[2,2] y) <float[300,2] w = {{{numbers}}}> {{ y = MatMul(x, w) }}")
    feeds = seeded_feeds(model)
    wanted = run_model(model, feeds)["y"]
    monkeypatch.setattr(evaluation, "_PROTOBUF_LIMIT", 0)
    np.testing.assert_array_equal(run_model(model, feeds)["y"], wanted)
    assert not isinstance(model.graph.initializers["w"].const_value, ir.ExternalTensor)
