from __future__ import annotations

import onnx_ir as ir
import pytest

from samonnx.passes.shape_inference import ShapeInferenceError, infer_shapes
from tests.passes.graph_text import model_of


def _shape(model: ir.Model, name: str) -> ir.Shape | None:
    return next(output.shape for node in model.graph for output in node.outputs if output.name == name)


def test_shapes_are_found_and_a_second_run_changes_nothing() -> None:
    model = model_of("(float[2,3] x, float[3,4] w) => (float[a,b] y) { m = MatMul(x, w) y = Neg(m) }")
    assert infer_shapes(model)
    assert _shape(model, "m") == ir.Shape([2, 4])
    assert not infer_shapes(model)


def test_the_outcome_of_a_foreign_operator_is_kept() -> None:
    model = model_of("(float[2] x) => (float[2] y) { a = com.microsoft.NoSuchThing(x) y = Neg(a) }")
    value = model.graph.node(0).outputs[0]
    value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([2])
    infer_shapes(model, forget=True)
    assert value.shape == ir.Shape([2])


def test_a_stale_shape_is_replaced_when_told_to_forget() -> None:
    model = model_of("(float[2] x) => (float[a] y) { a = Neg(x) y = Neg(a) }")
    value = model.graph.node(0).outputs[0]
    value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([7])
    with pytest.raises(ShapeInferenceError, match="shape inference failed in graph 'graph'"):
        infer_shapes(model)
    infer_shapes(model, forget=True)
    assert _shape(model, "a") == ir.Shape([2])
    assert _shape(model, "y") == ir.Shape([2])


def test_the_model_keeps_its_initialisers_and_inputs() -> None:
    numbers = ", ".join(["1"] * 600)
    model = model_of(f"(float[2,300] x) => (float[2,2] y) <float[300,2] w = {{{numbers}}}> {{ y = MatMul(x, w) }}")
    infer_shapes(model)
    assert [value.name for value in model.graph.inputs] == ["x"]
    assert model.graph.initializers["w"].const_value is not None
