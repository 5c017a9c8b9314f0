"""The pool of weights: equal tensors are held once, different ones stay apart, and graphs compute what they did."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from samonnx.graph_session import Array, GraphSession
from samonnx.tensor_pool import TensorPool

SIZE = 300
RAMP: Array = np.arange(SIZE, dtype=np.float32)


def model_with(weight: Array, name: str = "w") -> ir.Model:
    """x[300] → y = x + weight."""
    signature = f"(float[{SIZE}] x, float[{SIZE}] {name}) => (float[{SIZE}] y)"
    model = ir.from_onnx_text(f'<ir_version: 10, opset_import: ["" : 21]>\ngraph {signature} {{ y = Add(x, {name}) }}')
    value = model.graph.inputs.pop(1)
    value.const_value = ir.Tensor(weight, name=name)
    model.graph.register_initializer(value)
    return model


def weight_of(model: ir.Model) -> ir.TensorProtocol:
    (value,) = model.graph.initializers.values()
    assert value.const_value is not None
    return value.const_value


def test_equal_weights_of_two_graphs_are_one_tensor_under_any_name() -> None:
    pool, first, second = TensorPool(), model_with(RAMP), model_with(RAMP.copy(), "another_name")
    pool.share(first)
    pool.share(second)
    assert weight_of(second) is weight_of(first)
    assert list(second.graph.initializers) == ["another_name"]
    x = np.ones(SIZE, np.float32)
    for model in (first, second):
        np.testing.assert_array_equal(GraphSession(model).run({"x": x})["y"], RAMP + 1)


@pytest.mark.parametrize(
    "other",
    [RAMP + 1, RAMP.reshape(1, SIZE), RAMP.view(np.int32), np.where(RAMP == 0, np.float32(-0.0), RAMP)],
    ids=["content", "shape", "dtype", "sign of zero"],
)
def test_what_differs_at_all_stays_apart(other: Array) -> None:
    pool, first, second = TensorPool(), model_with(RAMP), model_with(other)
    before = weight_of(second)
    pool.share(first)
    pool.share(second)
    assert weight_of(second) is before
    assert weight_of(second) is not weight_of(first)


def test_small_tensors_are_left_alone() -> None:
    pool, models = TensorPool(), [model_with(RAMP[:4].copy()) for _ in range(2)]
    for model in models:
        pool.share(model)
    assert weight_of(models[0]) is not weight_of(models[1])


def test_a_tensor_that_is_shared_already_is_shared_again_with_the_next() -> None:
    pool, models = TensorPool(), [model_with(RAMP.copy()) for _ in range(3)]
    for model in (*models, *models):
        pool.share(model)
    assert len({id(weight_of(model)) for model in models}) == 1
